# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""How a survey sees the sky: the conditions that a group of cut-outs shares.

For each group and band the FWHM :math:`w` of a Moffat profile is lognormal about
the survey's, its index :math:`\beta` normal, and the 5 sigma point source depth
:math:`m_5` normal; half of the variance of :math:`w`, of :math:`m_5` and of the
ellipticity is common to the bands. The noise of a pixel follows from the effective
area of the PSF,

.. math:: \sigma = \frac{F_0\,10^{-0.4 m_5}}{5 \sqrt{N}}, \quad
          N = \frac{\pi \alpha^2 (2\beta_0 - 1)}{(\beta_0 - 1)^2}, \quad
          \alpha = \frac{w / \mathrm{pixel}}{2\sqrt{2^{1/\beta_0} - 1}},

with the survey's own :math:`\beta_0`, as `Survey.pixel_noise` has it. A dark sky has
the brightness that the LSST overview gives (Ivezic et al. 2019, table 2).
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from astro_disentangle.simulation.tables import filter_columns, load_tables
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = [
    "Conditions",
    "draw_conditions",
    "extinction",
    "pixel_noise",
    "sky_level",
]

_BETA_SCATTER, _BETA_RANGE = 0.3, (1.8, 4.5)
#: Share of cut-outs without one of the bands, and bands for which it is larger.
_MISSING_SHARE = 0.03
_MISSING_BAND = {("legacy", "i"): 0.10}
#: Wavelength (angstrom) and brightness of a dark sky, AB mag per square arcsec.
_DARK_SKY = (
    (3670.0, 4825.0, 6222.0, 7546.0, 8691.0, 9712.0),
    (22.99, 22.26, 21.20, 20.48, 19.60, 18.61),
)


@dataclass(frozen=True, eq=False)
class Conditions:
    """
    Conditions of G groups of cut-outs of one survey with C bands.

    Parameters
    ----------
    psf_fwhm : `torch.Tensor`
        Shape (G, C), float32, arcsec.
    psf_beta : `torch.Tensor`
        Shape (G, C), Moffat index.
    psf_ellipticity : `torch.Tensor`
        Shape (G, C, 2), (1 - q**2)/(1 + q**2) (cos 2 phi, sin 2 phi).
    depth : `torch.Tensor`
        Shape (G, C), 5 sigma point source depth, AB mag.
    zero_point : `torch.Tensor`
        Shape (G, C), error of the zero point, mag; positive makes sources faint.
    present : `torch.Tensor`
        Shape (G, C), bool, bands that were observed.
    psf_image : `torch.Tensor`, optional
        Shape (G, C, P, P), images of the PSF in native pixels about the middle one
        (P // 2), in place of the Moffat profile; ``psf_fwhm`` still says how wide
        they are.
    """

    psf_fwhm: torch.Tensor
    psf_beta: torch.Tensor
    psf_ellipticity: torch.Tensor
    depth: torch.Tensor
    zero_point: torch.Tensor
    present: torch.Tensor
    psf_image: torch.Tensor | None = None

    def map(self, function):
        """Conditions whose tensors are a function of those of these."""
        values = (getattr(self, field.name) for field in fields(self))
        return Conditions(*(x if x is None else function(x) for x in values))


def draw_conditions(survey, n_groups, generator, *, psf_fwhm=None, depth=None):
    """
    Conditions of a survey at random, or partly given.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    n_groups : int
        Number of groups.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.
    psf_fwhm, depth : array_like, optional
        Broadcast to (n_groups, C) in place of the drawn values, arcsec and AB mag.

    Returns
    -------
    conditions : `Conditions`
        The conditions.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.instruments import draw_conditions
    >>> generator = torch_generator(0, "demo")
    >>> draw_conditions(get_survey("hsc"), 2, generator).depth.shape
    torch.Size([2, 5])
    """
    shape = (n_groups, len(survey.bands))

    def normal(*more):
        return torch.randn(*shape, *more, generator=generator)

    def half_common(*more):
        common = torch.randn(n_groups, 1, *more, generator=generator)
        return (common + normal(*more)) * math.sqrt(0.5)

    scatter = torch.tensor(survey.psf_scatter).square().log1p().sqrt()
    fwhm = torch.tensor(survey.psf_fwhm) * (scatter * half_common()).exp()
    deep = torch.tensor(survey.depth)
    deep = deep + torch.tensor(survey.depth_scatter) * half_common()
    beta = (survey.psf_beta + _BETA_SCATTER * normal()).clamp(*_BETA_RANGE)
    ellipticity = survey.psf_ellipticity * half_common(2)
    zero_point = survey.zero_point_error * normal()
    usual = _MISSING_SHARE / len(survey.bands) if len(survey.bands) > 1 else 0.0
    missing = torch.tensor(
        [_MISSING_BAND.get((survey.name, band), usual) for band in survey.bands]
    )
    present = torch.rand(shape, generator=generator) >= missing
    # A group without any band would be no observation.
    present |= ~present.any(1, keepdim=True)

    def given(value, drawn):
        if value is None:
            return drawn
        value = torch.as_tensor(value, dtype=torch.float32)
        return value.expand(shape).clone()

    return Conditions(
        psf_fwhm=given(psf_fwhm, fwhm),
        psf_beta=beta,
        psf_ellipticity=ellipticity,
        depth=given(depth, deep),
        zero_point=zero_point,
        present=present,
    )


def _moffat_radius(survey, psf_fwhm):
    """Scale radius in pixels of the survey's Moffat profile for a FWHM in arcsec."""
    width = 2 * math.sqrt(2 ** (1 / survey.psf_beta) - 1)
    return psf_fwhm / (survey.pixel_scale * width)


def pixel_noise(survey, depth, psf_fwhm):
    """
    Standard deviation of the noise of a pixel; see the module's formula.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    depth, psf_fwhm : `torch.Tensor`
        Shape (..., C), AB mag and arcsec.

    Returns
    -------
    sigma : `torch.Tensor`
        Shape (..., C), nJy.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.instruments import pixel_noise
    >>> hsc = get_survey("hsc")
    >>> sigma = pixel_noise(hsc, torch.tensor(hsc.depth), torch.tensor(hsc.psf_fwhm))
    >>> torch.allclose(sigma, torch.tensor(hsc.pixel_noise()))
    True
    """
    beta = survey.psf_beta
    alpha = _moffat_radius(survey, psf_fwhm)
    area = math.pi * alpha**2 * (2 * beta - 1) / (beta - 1) ** 2
    return AB_FLUX_NJY / 5 * 10 ** (-0.4 * depth) / area.sqrt()


def _flux(magnitudes):
    """Flux in nJy of AB magnitudes, one per band, (C,) float32."""
    return AB_FLUX_NJY * 10 ** (-0.4 * torch.as_tensor(magnitudes).float())


def sky_level(survey):
    """
    Light of the sky that falls on a pixel.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    level : `torch.Tensor`
        Shape (C,), nJy.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.instruments import sky_level
    >>> round(sky_level(get_survey("hsc"))[2].item())
    774
    """
    brightness = survey.sky_brightness
    if not brightness:
        wavelength = load_tables()["wavelength"][filter_columns(survey)]
        brightness = np.interp(wavelength, *_DARK_SKY)
    return _flux(brightness) * survey.pixel_scale**2


def extinction(survey, ebv):
    """
    Galactic extinction in each band.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    ebv : `torch.Tensor`
        Shape (...), E(B-V) in mag on the scale of Schlegel et al. (1998).

    Returns
    -------
    extinction : `torch.Tensor`
        Shape (..., C), mag.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.instruments import extinction
    >>> round(extinction(get_survey("legacy"), torch.tensor(1.0))[1].item(), 3)
    2.165
    """
    coefficient = load_tables()["extinction"][filter_columns(survey)]
    return ebv[..., None] * coefficient.to(ebv.device)
