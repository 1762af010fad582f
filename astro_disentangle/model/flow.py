# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Flow matching about an outline: the path, its velocity, and how to follow it.

Before the flow starts, the decoder has outlined the image: a mean :math:`m` and a
variance :math:`v` of every pixel. The image is :math:`x_1 = m + \sqrt{v}\,r`, and
the straight path from noise :math:`x_0 \sim N(0, 1)` to it (arXiv:2210.02747),

.. math:: x_t = (1 - t)\,x_0 + t\,x_1 ,

becomes a turn once it is centred on the outline and brought to unit variance:

.. math:: y = \frac{x_t - t\,m}{\sqrt{(1 - t)^2 + t^2 v}}
   = \cos\theta\,x_0 + \sin\theta\,r , \qquad
   \tan\theta = \frac{t \sqrt{v}}{1 - t} , \qquad
   \frac{dy}{d\theta} = \cos\theta\,r - \sin\theta\,x_0 .

A network regressed on :math:`dy/d\theta` learns its mean given :math:`y`, and
following that mean from :math:`\theta = 0` to :math:`\pi/2` carries noise to a
sample of the residuals :math:`r`. Where the pixels given the outline are
independent and normal, that mean is zero: the flow has only to add what the outline
cannot say, and few steps are enough. The grid of times is fixed, so that one
row's result never depends on the other rows of a batch.
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
        Same shape, that of the outline.
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
