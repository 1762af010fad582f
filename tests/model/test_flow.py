# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The path and the integrator against closed forms."""

import math

import pytest
import torch

from astro_disentangle.model.flow import EVALUATIONS, angle, integrate, interpolate

QUARTER = math.pi / 2


def test_path_is_the_straight_one_centred_and_scaled():
    """From its definition: x_t about t times the mean, over its spread."""
    x_0, residual = torch.randn(2, 5, 3, dtype=torch.float64)
    mean, variance, t = 0.7, torch.full((5, 3), 0.3, dtype=torch.float64), 0.4
    x_t = (1 - t) * x_0 + t * (mean + variance.sqrt() * residual)
    expected = (x_t - t * mean) / ((1 - t) ** 2 + t**2 * variance).sqrt()
    theta = angle(torch.tensor(t, dtype=torch.float64), variance)
    torch.testing.assert_close(interpolate(x_0, residual, theta)[0], expected)


def test_ends_and_velocity_of_the_path():
    x_0, residual = torch.randn(2, 5, 3, dtype=torch.float64)
    variance = torch.rand(5, 3, dtype=torch.float64) + 0.01
    ends = [angle(torch.tensor(t, dtype=torch.float64), variance) for t in (0.0, 1.0)]
    torch.testing.assert_close(interpolate(x_0, residual, ends[0])[0], x_0)
    torch.testing.assert_close(interpolate(x_0, residual, ends[1])[0], residual)
    theta = torch.rand(5, 3, dtype=torch.float64)
    ahead, behind = (
        interpolate(x_0, residual, theta + step)[0] for step in (1e-3, -1e-3)
    )
    velocity = interpolate(x_0, residual, theta)[1]
    torch.testing.assert_close(velocity, (ahead - behind) / 2e-3, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    # The first of the default steps is one of Euler's rule, the last ones are longer.
    [("euler", 1, 64), ("midpoint", 2, 64), ("adams", 2, 256)],
)
@pytest.mark.parametrize(
    ("velocity", "exact"),
    [
        (lambda y, t: y, lambda y: y * math.exp(QUARTER)),
        (lambda y, t: 1 - y**2, lambda y: torch.tanh(QUARTER + torch.atanh(y))),
        # Of unit variance theta is atan2(t, 1 - t), so this is cos(theta).
        (lambda y, t: (1 - t) / (t**2 + (1 - t) ** 2).sqrt(), lambda y: y + 1),
    ],
)
def test_order_of_the_solvers(solver, order, steps, velocity, exact):
    y = torch.tensor([0.1, 0.5], dtype=torch.float64)
    one = torch.ones_like(y)
    errors = [
        (integrate(velocity, y, one, n_steps=n, solver=solver) - exact(y)).abs().max()
        for n in (steps, 2 * steps)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solver", EVALUATIONS)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_every_pixel_turns_by_a_quarter(solver, n_steps):
    """Whatever its variance, in any number of steps, each of so many evaluations."""
    variance = torch.tensor([1e-6, 0.2, 30.0], dtype=torch.float64)
    times = []

    def velocity(y, t):
        times.append(t[0].item())
        return torch.ones_like(y)

    turned = integrate(velocity, 0 * variance, variance, n_steps=n_steps, solver=solver)
    assert turned.tolist() == pytest.approx([QUARTER] * 3)
    assert len(times) == n_steps * EVALUATIONS[solver]
    assert times == sorted(times)


def test_default_steps_lengthen():
    """theta_i is (pi / 2) (i / n)**1.3, by its definition."""
    times = []
    one = torch.ones(1, dtype=torch.float64)
    integrate(lambda y, t: times.append(t.item()) or y, one, one, n_steps=4)
    theta = [math.atan2(t, 1 - t) for t in times]
    assert theta == pytest.approx([QUARTER * (i / 4) ** 1.3 for i in range(4)])


def test_adams_takes_the_slope_of_the_step_before_along():
    """A velocity that is linear in theta is followed exactly from the second step."""
    one = torch.ones(1, dtype=torch.float64)

    def velocity(y, t):
        return torch.atan2(t, 1 - t)

    first = QUARTER * 0.5**1.3
    y = integrate(velocity, 0 * one, one, n_steps=2)
    # Euler's step at the velocity 0, then the exact integral of the rest.
    assert y.item() == pytest.approx((QUARTER**2 - first**2) / 2)


@pytest.mark.parametrize(("solver", "n_steps"), [("adams", 400), ("midpoint", 100)])
def test_reverse_returns(solver, n_steps):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(4, generator=generator, dtype=torch.float64)
    variance = torch.full_like(y, 0.2)
    options = {"n_steps": n_steps, "solver": solver}
    there = integrate(lambda y, t: torch.sin(y), y, variance, **options)
    back = integrate(
        lambda y, t: torch.sin(y), there, variance, **options, reverse=True
    )
    torch.testing.assert_close(back, y, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_steps_are_checked(bad):
    one = torch.ones(1)
    with pytest.raises(ValueError, match="n_steps"):
        integrate(lambda y, t: y, one, one, n_steps=bad)
    with pytest.raises(ValueError, match="solver"):
        integrate(lambda y, t: y, one, one, n_steps=1, solver="best")


def test_normal_residuals_need_no_velocity():
    """E[velocity | y] of independent normal residuals is zero, by simulation."""
    generator = torch.Generator().manual_seed(0)
    x_0, residual = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    for theta in (0.1, 0.8, 1.5):
        turn = torch.full_like(x_0, theta)
        y, velocity = interpolate(x_0, residual, turn)
        assert (y * velocity).mean().abs() < 0.01
        assert velocity.std().item() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("solver", ["adams", "midpoint"])
def test_flow_with_exact_velocity_gives_the_posterior(solver):
    """An outline that is wrong by a known amount is put right by the flow."""
    mean, spread = 1.5, 0.3  # of the residuals, which the outline says are (0, 1)

    def velocity(y, t):
        theta = angle(t[:, None], torch.full_like(y, 0.2))
        cosine, sine = theta.cos(), theta.sin()
        total = cosine**2 + sine**2 * spread**2
        off = y - sine * mean
        return cosine * mean + off * sine * cosine * (spread**2 - 1) / total

    generator = torch.Generator().manual_seed(0)
    y = torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    options = {"n_steps": 128 // EVALUATIONS[solver], "solver": solver}
    y = integrate(velocity, y, torch.full_like(y, 0.2), **options)
    assert y.mean().item() == pytest.approx(mean, abs=3 * spread / 50_000**0.5)
    assert y.std().item() == pytest.approx(spread, rel=0.01)
