# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Flow matching: the path, its velocity, and how to follow it.

On the straight path from noise :math:`x_0 \sim N(0, 1)` to an image
:math:`x_1`,

.. math:: x_t = (1 - t)\,x_0 + t\,x_1 , \qquad u = \frac{dx_t}{dt} = x_1 - x_0 ,

a network regressed on :math:`u` learns :math:`E[u | x_t, t]`, and the ODE
:math:`dx/dt = u(x, t)` carries noise to a sample of the images
(arXiv:2210.02747). The grid of times is fixed, so that one row's result never
depends on the other rows of a batch.
"""

import torch

from astro_disentangle.quality import check_count

__all__ = ["EVALUATIONS", "integrate", "interpolate"]

#: Network evaluations per step of each solver.
EVALUATIONS = {"euler": 1, "midpoint": 2}


def interpolate(x_0, x_1, t):
    """
    Point of the straight path and its velocity.

    Parameters
    ----------
    x_0, x_1 : `torch.Tensor`
        Shape (B, C, H, W), noise and images.
    t : `torch.Tensor`
        Shape (B,), times from 0 to 1.

    Returns
    -------
    x_t, u : `torch.Tensor`
        Shape (B, C, H, W).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import interpolate
    >>> x_t, u = interpolate(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1),
    ...                      torch.tensor([0.25]))
    >>> x_t.item(), u.item()
    (0.25, 1.0)
    """
    t = t[:, None, None, None]
    return (1 - t) * x_0 + t * x_1, x_1 - x_0


def integrate(velocity, x, *, n_steps, solver="midpoint", reverse=False):
    """
    Follow the flow on a uniform grid of times.

    Parameters
    ----------
    velocity : callable
        ``velocity(x, t)`` with ``x`` (B, ...) and ``t`` (B,) to (B, ...).
    x : `torch.Tensor`
        Shape (B, ...), noise, or images if ``reverse``.
    n_steps : int
        Number of steps.
    solver : {"midpoint", "euler"}
        Midpoint rule (order 2, two evaluations a step) or Euler's (order 1).
    reverse : bool
        From images back to noise.

    Returns
    -------
    x : `torch.Tensor`
        Shape (B, ...).

    Raises
    ------
    ValueError
        If ``n_steps`` is not a positive integer or ``solver`` is unknown.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.flow import integrate
    >>> integrate(lambda x, t: torch.ones_like(x), torch.zeros(1), n_steps=4)
    tensor([1.])
    """
    n_steps = check_count("n_steps", n_steps)
    if solver not in EVALUATIONS:
        raise ValueError(
            f"'solver' must be one of {sorted(EVALUATIONS)}; got {solver!r}."
        )
    step = 1.0 / n_steps
    for index in range(n_steps):
        start = 1.0 - index * step if reverse else index * step
        dt = -step if reverse else step
        t = torch.full((len(x),), start, dtype=x.dtype, device=x.device)
        u = velocity(x, t)
        if solver == "midpoint":
            u = velocity(x + u * (dt / 2), t + dt / 2)
        x = x + u * dt
    return x
