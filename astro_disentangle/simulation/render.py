# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Images of scenes, made in Fourier space.

The image of a survey in a band is sampled from

.. math:: \tilde I(k) = T(k)\,\mathrm{sinc}\frac{k_x}{2\pi}\,
          \mathrm{sinc}\frac{k_y}{2\pi} \sum_s e^{-i k \cdot p_s}
          \sum_{c \in \{b, d\}} f_{sc}\, S_c(k)

with :math:`k` in rad per pixel, :math:`p_s` the native pixel of source s,
:math:`f_{sc}` the flux of its bulge and disc in the band, :math:`S_c` the transform
of a Sersic profile and :math:`T` that of the Moffat PSF. A round transform becomes
elliptical by an area preserving shear of k: with semi axes :math:`h/\sqrt q` along
:math:`\phi` and :math:`h\sqrt q` across,

.. math:: \kappa^2 = h^2 [(k_x \cos\phi + k_y \sin\phi)^2 / q
          + q\,(k_y \cos\phi - k_x \sin\phi)^2].

The disc has :math:`S = (1 + \kappa^2)^{-3/2}`, exactly; bulge and PSF come from
tables. The array is padded to `PADDED_FIELD`, so that what lies beyond one edge
of the stamp does not come back at the other.

A galaxy of SED type t and bulge fraction B (in HSC i) has a bulge of type
:math:`t - s(1 - B)` and a disc of type :math:`t + sB`, :math:`s` at most 0.8: the
mean type is t and the i flux is unchanged.
"""

import functools
import math

import torch

from astro_disentangle.simulation.population import DISC_SCALE
from astro_disentangle.simulation.tables import (
    filter_columns,
    load_tables,
    mix_rows,
    radial,
)
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = ["component_fluxes", "psf_transform", "render"]

#: Least side of the padded array in arcsec.
PADDED_FIELD = 16.0
_TYPE_STEP = 0.8


@functools.lru_cache(maxsize=32)
def _grid(survey, device):
    """Size of the array, and wave numbers in rad per pixel: (F,), (F/2+1,), pixel."""
    least = max(PADDED_FIELD / survey.pixel_scale, 1.25 * survey.stamp_size)
    size = 16 * math.ceil(least / 16)
    ky = torch.fft.fftfreq(size, device=device)
    kx = torch.fft.rfftfreq(size, device=device)
    pixel = torch.sinc(ky)[:, None] * torch.sinc(kx)
    return size, 2 * math.pi * ky, 2 * math.pi * kx, pixel


def _sheared(kx, ky, scale, ratio, angle):
    """
    Squared wave number in units of an ellipse's scale.

    ``kx`` (X,) and ``ky`` (Y,); ``scale``, ``ratio`` and ``angle`` (S,); returns
    (S, Y, X). The quadratic form is expanded: one product per pixel and term.
    """
    cos, sin = angle.cos(), angle.sin()
    square = scale**2
    xx = square * (cos**2 / ratio + ratio * sin**2)
    yy = square * (sin**2 / ratio + ratio * cos**2)
    xy = square * 2 * cos * sin * (1 / ratio - ratio)
    along = xx[:, None] * kx**2
    across = yy[:, None] * ky**2
    cross = xy[:, None] * ky
    out = cross[:, :, None] * kx
    out += along[:, None, :]
    out += across[:, :, None]
    return out.clamp_(min=0)


def _log_colors(tables, columns, redshift, sed_type):
    """Log10 of band over HSC i flux of galaxies, (S, C)."""
    table = tables["galaxy_colors"][:, :, columns].transpose(0, 1)
    rows = mix_rows(table, tables.axes["redshift"], redshift)
    low = sed_type.floor().clamp(0, rows.shape[1] - 2)
    share = (sed_type - low)[:, None]
    low = low.long()[:, None, None].expand(-1, 1, rows.shape[2])
    first, second = (rows.gather(1, i)[:, 0] for i in (low, low + 1))
    return torch.lerp(first, second, share)


def component_fluxes(survey, sources):
    """
    Flux of bulge and disc of each source in each band, before extinction.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    sources : `~astro_disentangle.simulation.population.Sources`
        S sources.

    Returns
    -------
    fluxes : `torch.Tensor`
        Shape (S, 2, C), nJy; a star has all of it in the second, the disc.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.scene import sample_stars
    >>> from astro_disentangle.simulation.render import component_fluxes
    >>> stars = sample_stars(torch.tensor([20.0]), torch.Generator())
    >>> round(component_fluxes(get_survey("hsc"), stars)[0, 1, 2].item())
    36308
    """
    tables = load_tables(str(sources.redshift.device))
    columns = filter_columns(survey)
    kind, bulge = sources.sed_type, sources.bulge_fraction
    step = torch.minimum(kind / (1 - bulge), (3 - kind) / bulge).clamp(max=_TYPE_STEP)
    redshift = sources.redshift.nan_to_num()
    colors = [
        _log_colors(tables, columns, redshift, t.clamp(0, 3))
        for t in (kind - step * (1 - bulge), kind + step * bulge)
    ]
    heat = mix_rows(
        tables["star_colors"][:, columns],
        tables.axes["log_temperature"],
        sources.temperature.log(),
    )
    colors = torch.stack(colors, 1)
    colors = torch.where(sources.is_star[:, None, None], heat[:, None], colors)
    total = AB_FLUX_NJY * 10 ** (-0.4 * sources.magnitude_i)
    share = torch.stack([bulge, 1 - bulge], 1) * total[:, None]
    return share[:, :, None] * 10**colors


def psf_transform(survey, conditions):
    """
    Transfer function of PSF and pixel.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    conditions : `~astro_disentangle.simulation.instruments.Conditions`
        Conditions of G groups.

    Returns
    -------
    transfer : `torch.Tensor`
        Shape (G, C, F, F/2 + 1), real, 1 at k = 0.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.instruments import draw_conditions
    >>> from astro_disentangle.simulation.render import psf_transform
    >>> hsc = get_survey("hsc")
    >>> conditions = draw_conditions(hsc, 1, torch_generator(0, "demo"))
    >>> psf_transform(hsc, conditions)[0, 0, 0, 0].item()
    1.0
    """
    fwhm = conditions.psf_fwhm
    device = str(fwhm.device)
    tables = load_tables(device)
    _, ky, kx, pixel = _grid(survey, device)
    e1, e2 = conditions.psf_ellipticity.reshape(-1, 2).T
    size = torch.hypot(e1, e2).clamp(max=0.9)
    square = _sheared(
        kx,
        ky,
        fwhm.reshape(-1) / survey.pixel_scale,
        ((1 - size) / (1 + size)).sqrt(),
        torch.atan2(e2, e1) / 2,
    )
    axis = tables.axes["moffat_index"]
    rows = mix_rows(tables["moffat"], axis, conditions.psf_beta.reshape(-1))
    out = radial(rows, tables.axes["log_k"], square.flatten(1))
    return out.reshape(*fwhm.shape, len(ky), len(kx)) * pixel


def _phases(kx, ky, position):
    """exp(-i k p) at pixels (S, 2), shape (S, Y, X), complex64."""
    x, y = (
        torch.polar(torch.ones_like(angle), angle)
        for angle in (-position[:, :1] * kx, -position[:, 1:] * ky)
    )
    return y[:, :, None] * x[:, None, :]


def render(survey, sources, fluxes, position, present, transfer):
    """
    Noiseless images of scenes.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    sources : `~astro_disentangle.simulation.population.Sources`
        B * M sources, M for each scene.
    fluxes : `torch.Tensor`
        Shape (B, M, 2, C), flux of bulge and disc, nJy.
    position : `torch.Tensor`
        Shape (B, M, 2), 0-based native pixel (x, y) of each source.
    present : `torch.Tensor`
        Shape (B, M), bool, sources that exist.
    transfer : `torch.Tensor`
        Shape (G, C, F, F/2 + 1) from `psf_transform`; G divides B, and the scenes
        are ordered by group.

    Returns
    -------
    images : `torch.Tensor`
        Shape (B, C, N, N), float32, nJy per native pixel.

    Examples
    --------
    >>> from astro_disentangle.simulation import simulate
    >>> simulate(1, 2, ["hsc"], seed=0).noiseless["hsc"].shape
    torch.Size([2, 5, 48, 48])
    """
    device = str(position.device)
    tables = load_tables(device)
    size, ky, kx, _ = _grid(survey, device)
    scenes, slots, _, bands = fluxes.shape
    there = present.reshape(-1).nonzero()[:, 0]
    s = sources.map(lambda tensor: tensor[there])
    kx_sky, ky_sky = kx / survey.pixel_scale, ky / survey.pixel_scale
    disc = _sheared(kx_sky, ky_sky, s.disc_radius / DISC_SCALE, s.disc_ratio, s.angle)
    disc = disc.add_(1).rsqrt_()
    disc = disc * disc * disc
    bulge = _sheared(kx_sky, ky_sky, s.bulge_radius, s.bulge_ratio, s.angle)
    rows = mix_rows(
        tables["sersic"], tables.axes["log_sersic_index"], s.sersic_index.log()
    )
    bulge = radial(rows, tables.axes["log_k"], bulge.flatten(1)).reshape(disc.shape)
    phase = torch.view_as_real(_phases(kx, ky, position.reshape(-1, 2)[there]))
    # Absent sources stay zero: scenes are summed by one product of matrices.
    parts = torch.zeros(scenes * slots, 2, len(ky), len(kx), 2, device=device)
    parts[there, 0] = bulge[..., None] * phase
    parts[there, 1] = disc[..., None] * phase
    parts = parts.reshape(scenes, slots * 2, -1)
    total = fluxes.reshape(scenes, slots * 2, bands).transpose(1, 2) @ parts
    total = total.reshape(len(transfer), -1, bands, len(ky), len(kx), 2)
    total = torch.view_as_complex(total) * transfer[:, None]
    images = torch.fft.irfft2(total, s=(size, size)).flatten(0, 1)
    return images[..., : survey.stamp_size, : survey.stamp_size].contiguous()
