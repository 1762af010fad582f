# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""What the detector adds: correlated noise, background, trails, bad pixels.

The noise has the separable correlation :math:`\rho(|x|)\,\rho(|y|)` of the survey:
with :math:`L L^T` the Toeplitz matrix of :math:`\rho` and :math:`W` white,
:math:`L W L^T` has exactly that covariance, up to the edges of the stamp. Where a
source of intensity I stands before a sky of intensity S, the noise is
:math:`\sqrt{1 + I/S}` times that of the sky: photons have Poisson statistics.

Far from a bright star its halo falls as :math:`r^{-2}`, with 0.0004 of the star's
flux in the square arcsec at 1 arcsec (DECam: 0.00045 in g, 0.00033 in r, Legacy
Surveys DR9).
"""

import functools
import math

import torch

from astro_disentangle.simulation.instruments import sky_level
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = [
    "correlated_noise",
    "draw_background",
    "draw_good",
    "halo_light",
    "photon_factor",
    "saturated",
]

_BACKGROUND_SCATTER = 0.05
_MASKED_SHARE = 0.05
#: Share of cut-outs that a faint trail crosses in one band, its peak in units of
#: the noise of a pixel, and its FWHM in arcsec.
_TRAIL_SHARE, _TRAIL_PEAK, _TRAIL_WIDTH = 0.01, 2.0, 1.5
_HALO_LIGHT = 4e-4


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


def photon_factor(survey, images):
    """
    How much noisier pixels are than the sky, by the light of the sources.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    images : `torch.Tensor`
        Shape (B, C, N, N), noiseless, nJy.

    Returns
    -------
    factor : `torch.Tensor`
        Of that shape, at least 1.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.noise import photon_factor
    >>> photon_factor(get_survey("hsc"), torch.zeros(1, 5, 2, 2)).max().item()
    1.0
    """
    sky = sky_level(survey).to(images.device)[:, None, None]
    return (images.clamp(min=0) / sky).add_(1).sqrt_()


def saturated(survey, images):
    """
    Pixels that saturate, and those next to them.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    images : `torch.Tensor`
        Shape (B, C, N, N), noiseless, nJy.

    Returns
    -------
    bad : `torch.Tensor`
        Of that shape, bool.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.noise import saturated
    >>> bool(saturated(get_survey("hsc"), torch.zeros(1, 5, 2, 2)).any())
    False
    """
    level = torch.tensor(survey.saturation_level(), device=images.device)
    full = images > level[:, None, None]
    if not full.any():
        return full
    return torch.nn.functional.max_pool2d(full.float(), 3, 1, 1) > 0


def halo_light(survey, affine, halo):
    """
    Light of the halo of a bright star outside the field.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    affine : `torch.Tensor`
        Shape (B, 2, 3), from offsets (west, north) in arcsec to native pixels.
    halo : `torch.Tensor`
        Shape (B, 3), offset (west, north) in arcsec and magnitude of the star,
        infinite where there is none; its colours are taken for grey.

    Returns
    -------
    light : `torch.Tensor`
        Shape (B, 1, N, N), nJy per pixel.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.noise import halo_light
    >>> affine = torch.tensor([[[6.0, 0, 23.5], [0, 6.0, 23.5]]])
    >>> star = torch.tensor([[20.0, 0.0, 12.0]])
    >>> halo_light(get_survey("hsc"), affine, star).argmax().item() % 48
    47
    """
    axis = torch.arange(survey.stamp_size, dtype=torch.float32, device=affine.device)
    west = (axis - affine[:, 0, 2, None]) / affine[:, 0, 0, None] - halo[:, :1]
    north = (axis - affine[:, 1, 2, None]) / affine[:, 1, 1, None] - halo[:, 1:2]
    square = west[:, None, :] ** 2 + north[:, :, None] ** 2
    flux = AB_FLUX_NJY * 10 ** (-0.4 * halo[:, 2]) * _HALO_LIGHT
    light = flux[:, None, None] * survey.pixel_scale**2 / square.clamp(min=1.0)
    return light[:, None]


def draw_background(survey, rows, generator):
    """
    What is left of the background, in units of the noise of a pixel.

    A constant and a slope of standard deviation 0.05 from the centre to the edge;
    in one cut-out of a hundred a faint trail of a satellite in one band.

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
    background = constant + west * axis + north * axis[:, None]
    chance, angle, place, peak, band = torch.rand(
        5, rows, generator=generator, device=device
    )
    crossed = (chance < _TRAIL_SHARE).nonzero()[:, 0]
    angle, place = math.pi * angle[crossed, None, None], 2 * place[crossed] - 1
    away = axis * angle.cos() + axis[:, None] * angle.sin() - place[:, None, None]
    width = _TRAIL_WIDTH / 2.3548 / (survey.field / 2)
    trail = torch.exp(-0.5 * (away / width) ** 2) * peak[crossed, None, None]
    band = (band[crossed] * len(survey.bands)).long()
    background[crossed, band] += _TRAIL_PEAK * trail
    return background


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
