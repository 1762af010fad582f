# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Flow matching: the path, its velocity, and how to follow it.

On the straight path from noise :math:`x_0 \sim N(0, 1)` to an image
:math:`x_1 = \sqrt{v}\,r` (arXiv:2210.02747),

.. math:: x_t = (1 - t)\,x_0 + t\,x_1 ,

the state brought to unit variance makes a turn:

.. math:: y = \frac{x_t}{\sqrt{(1 - t)^2 + t^2 v}}
   = \cos\theta\,x_0 + \sin\theta\,r , \qquad
   \tan\theta = \frac{t \sqrt{v}}{1 - t} , \qquad
   \frac{dy}{d\theta} = \cos\theta\,r - \sin\theta\,x_0 .

A network regressed on :math:`dy/d\theta` learns its mean given :math:`y`, and
following that mean from :math:`\theta = 0` to :math:`\pi/2` carries noise to a sample
of :math:`r`, the residuals of an outline (`astro_disentangle.model.decoder`). Where
these are independent and normal, that mean is zero, and a single step is exact. The
grid of times is fixed, so that one row's result never depends on the other rows of a
batch.

The default solver, the Adams-Bashforth rule of order 2, takes the velocity of the step
before along and so needs one evaluation of the network a step. What all pixels have in
common, such as the brightness of the galaxy, is settled early: its steps are short at
first, with :math:`\theta_i = (\pi / 2) (i / n)^{1.3}` at :math:`v = 1`, or the samples
would be too much alike (``benchmarks/solvers.py``).

A rule of a few steps may also be learned for one network (`follow`): angles and weights
of

.. math:: y_{i+1} = y_i + \sum_{j \le i} w_{ij}\,u_j , \qquad u_j = u(y_j, \theta_j) ,

such that it ends where many steps would (`astro_disentangle.training.few_steps`).
Where the velocity is zero every such rule is exact; that of Adams and Bashforth is one
of them (`adams_rule`), with which learning begins.
"""

import itertools
import math

import torch

from astro_disentangle.quality import check_count

__all__ = [
    "EVALUATIONS",
    "SOLVER",
    "STEPS",
    "adams_rule",
    "angle",
    "follow",
    "integrate",
    "interpolate",
]

#: Steps of the flow where nobody asks for another number, and of the learned rules.
STEPS = 4

#: Network evaluations per step of each solver, and the one that is used.
EVALUATIONS = {"adams": 1, "euler": 1, "midpoint": 2}
SOLVER = "adams"
#: How the steps of the default solver lengthen.
_WARP = 1.3


def angle(t, variance):
    """
    How far the path has turned at a time.

    Parameters
    ----------
    t : `torch.Tensor`
        Times from 0 to 1, of a shape that goes with ``variance``.
    variance : `torch.Tensor`
        Shape (B, ...), positive.

    Returns
    -------
    theta : `torch.Tensor`
        Shape of ``variance``, radians from 0 to pi / 2.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import angle
    >>> angle(torch.tensor([0.0, 0.5, 1.0]), torch.ones(3))
    tensor([0.0000, 0.7854, 1.5708])
    """
    return torch.atan2(t * variance.sqrt(), 1 - t)


def interpolate(x_0, residual, theta):
    """
    Point of the path and its velocity.

    Parameters
    ----------
    x_0, residual : `torch.Tensor`
        Shape (B, ...), noise and residuals of unit variance.
    theta : `torch.Tensor`
        Same shape, from `angle`.

    Returns
    -------
    y, velocity : `torch.Tensor`
        Same shape.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import interpolate
    >>> y, velocity = interpolate(torch.zeros(1), torch.ones(1), torch.zeros(1))
    >>> y.item(), velocity.item()
    (0.0, 1.0)
    """
    cosine, sine = theta.cos(), theta.sin()
    return cosine * x_0 + sine * residual, cosine * residual - sine * x_0


def integrate(velocity, y, variance, *, n_steps, solver=SOLVER, reverse=False):
    """
    Follow the flow on a fixed grid of times.

    Parameters
    ----------
    velocity : callable
        ``velocity(y, t)`` with ``y`` (B, ...) and ``t`` (B,) to (B, ...).
    y : `torch.Tensor`
        Shape (B, ...), noise, or residuals if ``reverse``.
    variance : `torch.Tensor`
        Of a shape that goes with ``y``; it sets how the path turns, as in `angle`.
    n_steps : int
        Number of steps.
    solver : {"adams", "midpoint", "euler"}
        The Adams-Bashforth rule of order 2 for steps of any length (Hairer, Norsett &
        Wanner 1993, III.5), begun with a step of Euler's rule, on the grid above; the
        midpoint rule (order 2, two evaluations a step) and Euler's rule (order 1) on
        uniform times.
    reverse : bool
        From residuals back to noise.

    Returns
    -------
    y : `torch.Tensor`
        Shape (B, ...).

    Raises
    ------
    ValueError
        If ``n_steps`` is not a positive integer or ``solver`` is unknown.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import integrate
    >>> y = integrate(lambda y, t: y, torch.ones(1), torch.ones(1), n_steps=256)
    >>> round(y.log().item(), 3)  # pi / 2
    1.571
    """
    n_steps = check_count("n_steps", n_steps)
    if solver not in EVALUATIONS:
        raise ValueError(
            f"'solver' must be one of {sorted(EVALUATIONS)}; got {solver!r}."
        )
    times = _grid(n_steps, solver)
    if reverse:
        times = times[::-1]

    def moment(time):
        time = y.new_tensor(time)
        return time.expand(len(y)), angle(time, variance)

    earlier = None
    for now, then in itertools.pairwise(times):
        t, theta = moment(now)
        step = moment(then)[1] - theta
        u = slope = velocity(y, t)
        if solver == "midpoint":
            t, halfway = moment((now + then) / 2)
            slope = velocity(y + u * (halfway - theta), t)
        elif solver == "adams" and earlier is not None:
            slope = u + (u - earlier[0]) * step / earlier[1] / 2
        y = y + slope * step
        earlier = u, step
    return y


def adams_rule(n_steps):
    """
    The default solver as a rule for `follow`, where the variance is 1.

    Parameters
    ----------
    n_steps : int
        Number n of steps.

    Returns
    -------
    rule : `torch.Tensor`
        Shape (n, 1 + n), float32, a row for each step: the angle at its begin, radians,
        and the weights of the velocities, 0 for those that are not known yet.

    Examples
    --------
    >>> from astro_disentangle.model.flow import adams_rule
    >>> adams_rule(1)
    tensor([[0.0000, 1.5708]])
    """
    times = torch.tensor(_grid(n_steps, "adams"), dtype=torch.float64)
    angles = angle(times, torch.ones_like(times))
    steps = angles.diff()
    weights = torch.diag(steps)
    for i in range(1, n_steps):
        extra = steps[i] ** 2 / steps[i - 1] / 2
        weights[i, i] += extra
        weights[i, i - 1] -= extra
    return torch.cat([angles[:-1, None], weights], 1).float()


def follow(velocity, y, rule):
    """
    Follow the flow with a rule of its own, where the variance is 1.

    Parameters
    ----------
    velocity : callable
        As for `integrate`.
    y : `torch.Tensor`
        Shape (B, ...), noise.
    rule : `torch.Tensor`
        Shape (n, 1 + n), as `adams_rule` has it.

    Returns
    -------
    y : `torch.Tensor`
        Shape (B, ...).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import adams_rule, follow
    >>> y = follow(lambda y, t: y, torch.ones(1), adams_rule(64))
    >>> round(y.log().item(), 2)  # pi / 2
    1.57
    """
    slopes = []
    for row in rule:
        sine, cosine = row[0].sin(), row[0].cos()
        slopes.append(velocity(y, (sine / (sine + cosine)).expand(len(y))))
        y = y + sum(w * slope for w, slope in zip(row[1:], slopes, strict=False))
    return y


def _grid(n_steps, solver):
    """Times from 0 to 1, one more than there are steps."""
    shares = [number / n_steps for number in range(n_steps + 1)]
    if solver != "adams":
        return shares
    turns = [math.tan(math.pi / 4 * share**_WARP) for share in shares]
    # tan(theta) = t / (1 - t), by the half angle, which is finite at the end.
    return [2 * h / (2 * h + 1 - h**2) for h in turns]
