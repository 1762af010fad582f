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
"""

import torch

from astro_disentangle.quality import check_count

__all__ = ["EVALUATIONS", "angle", "integrate", "interpolate"]

#: Network evaluations per step of each solver.
EVALUATIONS = {"euler": 1, "midpoint": 2}


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


def integrate(velocity, y, variance, *, n_steps, solver="midpoint", reverse=False):
    """
    Follow the flow on a uniform grid of times.

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
    solver : {"midpoint", "euler"}
        Midpoint rule (order 2, two evaluations a step) or Euler's (order 1).
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
    >>> y = integrate(lambda y, t: y, torch.ones(1), torch.ones(1), n_steps=64)
    >>> round(y.log().item(), 3)  # pi / 2
    1.571
    """
    n_steps = check_count("n_steps", n_steps)
    if solver not in EVALUATIONS:
        raise ValueError(
            f"'solver' must be one of {sorted(EVALUATIONS)}; got {solver!r}."
        )

    def moment(number):
        share = number / n_steps
        time = y.new_tensor(1 - share if reverse else share)
        return time.expand(len(y)), angle(time, variance)

    for step in range(n_steps):
        t, theta = moment(step)
        u = velocity(y, t)
        if solver == "midpoint":
            t, halfway = moment(step + 0.5)
            u = velocity(y + u * (halfway - theta), t)
        y = y + u * (moment(step + 1)[1] - theta)
    return y
