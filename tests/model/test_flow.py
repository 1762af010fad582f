# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The path and the integrator against closed forms."""

import math

import pytest
import torch

from astro_disentangle.model.decoder import precondition
from astro_disentangle.model.flow import integrate, interpolate


def test_ends_and_velocity_of_the_path():
    x_0, x_1 = torch.randn(2, 5, 1, 3, 3, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    assert torch.equal(interpolate(x_0, x_1, zero)[0], x_0)
    assert torch.equal(interpolate(x_0, x_1, zero + 1)[0], x_1)
    t = torch.rand(5, dtype=torch.float64)
    ahead, behind = (interpolate(x_0, x_1, t + step)[0] for step in (1e-3, -1e-3))
    torch.testing.assert_close(interpolate(x_0, x_1, t)[1], (ahead - behind) / 2e-3)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
@pytest.mark.parametrize(
    ("velocity", "exact"),
    [
        (lambda x, t: x, lambda x: x * math.e),
        (lambda x, t: -2 * t * x, lambda x: x * math.exp(-1)),
        (lambda x, t: 1 - x**2, lambda x: torch.tanh(1 + torch.atanh(x))),
    ],
)
def test_order_of_the_solvers(solver, order, velocity, exact):
    x = torch.tensor([0.1, 0.5], dtype=torch.float64)
    errors = [
        (integrate(velocity, x, n_steps=n, solver=solver) - exact(x)).abs().max()
        for n in (64, 128)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_reverse_returns():
    x = torch.randn(4, dtype=torch.float64)
    there = integrate(lambda x, t: torch.sin(x), x, n_steps=100)
    back = integrate(lambda x, t: torch.sin(x), there, n_steps=100, reverse=True)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_steps_are_checked(bad):
    with pytest.raises(ValueError, match="n_steps"):
        integrate(lambda x, t: x, torch.zeros(1), n_steps=bad)
    with pytest.raises(ValueError, match="solver"):
        integrate(lambda x, t: x, torch.zeros(1), n_steps=1, solver="best")


def test_precondition_is_the_posterior_mean_of_gaussian_noise():
    """E[x_1 - x_0 | x_t] by simulation, and the spread about it."""
    generator = torch.Generator().manual_seed(0)
    variance = 0.2
    for time in (0.1, 0.5, 0.9):
        x_0, x_1 = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
        x_1 = x_1 * variance**0.5
        x_t, u = (1 - time) * x_0 + time * x_1, x_1 - x_0
        slope = (x_t * u).mean() / (x_t**2).mean()
        a, b = precondition(
            torch.tensor(time, dtype=torch.float64), torch.tensor(variance)
        )
        assert a.item() == pytest.approx(slope.item(), abs=0.01)
        assert b.item() == pytest.approx((u - slope * x_t).std().item(), rel=0.01)


def test_flow_with_exact_velocity_gives_the_posterior():
    """Gaussian data: the ODE of the exact velocity ends with its mean and spread."""
    mean, spread = 1.5, 0.3

    def velocity(x, t):
        t = t[:, None]
        total = t**2 * spread**2 + (1 - t) ** 2
        gain = (t * spread**2 - (1 - t)) / total
        return mean + gain * (x - t * mean)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    x = integrate(velocity, x, n_steps=64)
    assert x.mean().item() == pytest.approx(mean, abs=3 * spread / 50_000**0.5)
    assert x.std().item() == pytest.approx(spread, rel=0.01)
