# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""What the detector adds: correlated noise, background residuals, bad pixels.

The noise has the separable correlation :math:`\rho(|x|)\,\rho(|y|)` of the survey:
with :math:`L L^T` the Toeplitz matrix of :math:`\rho` and :math:`W` white,
:math:`L W L^T` has exactly that covariance, up to the edges of the stamp. Coadds
are sky dominated: the Poisson noise of the sources is left out.
"""

import functools

import torch

__all__ = ["correlated_noise", "draw_background", "draw_good"]

_BACKGROUND_SCATTER = 0.05
_MASKED_SHARE = 0.05


@functools.lru_cache(maxsize=32)
def _noise_root(survey, size, device):
    """Root L of the Toeplitz matrix of the noise correlation, (size, size)."""
    rho = torch.zeros(size, dtype=torch.float64)
    lags = min(size, 1 + len(survey.noise_correlation))
    rho[:lags] = torch.tensor((1.0, *survey.noise_correlation), dtype=rho.dtype)[:lags]
    place = torch.arange(size)
    value, vector = torch.linalg.eigh(rho[(place[:, None] - place).abs()])
    # A truncated correlation need not be a possible one: drop what is negative.
    root = vector * value.clamp(min=0).sqrt() @ vector.T
    root = root / root.square().sum(1, keepdim=True).sqrt()
    return root.float().to(device)


def correlated_noise(survey, shape, generator):
    """
    Sky noise of standard deviation 1 with the survey's correlation.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    shape : tuple of int
        Shape of the images, the last two equal.
    generator : `torch.Generator`
        Source of the random numbers; the result lives on its device.

    Returns
    -------
    noise : `torch.Tensor`
        Of that shape, float32.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.noise import correlated_noise
    >>> generator = torch_generator(0, "demo")
    >>> correlated_noise(get_survey("hsc"), (2, 8, 8), generator).shape
    torch.Size([2, 8, 8])
    """
    white = torch.randn(shape, generator=generator, device=generator.device)
    root = _noise_root(survey, shape[-1], str(generator.device))
    return root @ white @ root.T


def draw_background(survey, rows, generator):
    """
    What is left of the background, in units of the noise of a pixel.

    A constant and a slope of standard deviation 0.05 from the centre to the edge.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    rows : int
        Number of cut-outs.
    generator : `torch.Generator`
        Source of the random numbers.

    Returns
    -------
    background : `torch.Tensor`
        Shape (rows, C, N, N), float32.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.noise import draw_background
    >>> draw_background(get_survey("hsc"), 1, torch_generator(0, "demo")).shape
    torch.Size([1, 5, 48, 48])
    """
    device = generator.device
    axis = torch.linspace(-1, 1, survey.stamp_size, device=device)
    shape = (rows, len(survey.bands), 3, 1, 1)
    level = torch.randn(shape, generator=generator, device=device)
    constant, west, north = (_BACKGROUND_SCATTER * level).unbind(2)
    return constant + west * axis + north * axis[:, None]


def draw_good(survey, present, generator):
    """
    Pixels that can be trusted.

    One cut-out in twenty has a bad column, row or disc, in all bands or in one.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    present : `torch.Tensor`
        Shape (B, C), bool, bands that were observed.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    good : `torch.Tensor`
        Shape (B, C, N, N), bool, on the CPU.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.noise import draw_good
    >>> present = torch.ones(2, 5, dtype=torch.bool)
    >>> draw_good(get_survey("hsc"), present, torch_generator(0, "demo")).shape
    torch.Size([2, 5, 48, 48])
    """
    rows, bands = present.shape
    size = survey.stamp_size
    hit = torch.rand(rows, generator=generator) < _MASKED_SHARE
    kind = torch.randint(3, (rows, 1, 1), generator=generator)
    centre = torch.rand(rows, 2, 1, 1, generator=generator) * size - 0.5
    radius = (0.03 + 0.1 * torch.rand(rows, 1, 1, generator=generator)) * size
    which = torch.randint(2 * bands, (rows, 1), generator=generator)
    column = torch.arange(size, dtype=torch.float32)
    dx, dy = column - centre[:, 0], column[:, None] - centre[:, 1]
    bad = torch.where(kind == 0, dx.abs() < 0.5, dy.abs() < 0.5)
    bad = torch.where(kind == 2, dx**2 + dy**2 < radius**2, bad)
    # The upper half of the numbers stands for all bands at once.
    in_band = (which >= bands) | (which == torch.arange(bands))
    bad = (hit[:, None] & in_band)[:, :, None, None] & bad[:, None]
    return present[:, :, None, None] & ~bad
