# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Images of scenes, made in Fourier space.

The image of a survey in a band is sampled from

.. math:: \tilde I(k) = T(k)\,\mathrm{sinc}\frac{k_x}{2\pi}\,
          \mathrm{sinc}\frac{k_y}{2\pi} \sum_s e^{-i k \cdot p_s}
          [f_{sb} S_b(k) + f_{sd} \{(1 - \beta) S_d(k) + \beta K_r(k)\}
          + f_{sa} K_a(k)]

with :math:`k` in rad per pixel, :math:`p_s` the native pixel of source s, f the
fluxes in the band of its bulge b, its smooth disc d with the bar, and its arms a;
S the transform of a Sersic profile, T that of the PSF. A round transform becomes
elliptical by an area preserving shear of k: with semi axes :math:`h/\sqrt q` along
:math:`\phi` and :math:`h\sqrt q` across,

.. math:: \kappa^2 = h^2 [(k_x \cos\phi + k_y \sin\phi)^2 / q
          + q\,(k_y \cos\phi - k_x \sin\phi)^2].

Knots are round Gaussians, whose transforms factorise: the K of them that make up the
arms (or the bar) of a source are one product of matrices,

.. math:: K_{yx} = \sum_j w_j\,
          e^{-k_y^2 \sigma_j^2 / 2 - i k_y y_j}\,
          e^{-k_x^2 \sigma_j^2 / 2 - i k_x x_j}.

Sersic profiles and a Moffat PSF come from tables; a tabulated PSF is transformed as
it is, its pixel included. The array is padded to `PADDED_FIELD`, so that what lies
beyond one edge of the stamp does not come back at the other.

A galaxy of SED type t and bulge fraction B (in HSC i) has a bulge of type
:math:`t - s(1 - B)` and a disc of type :math:`t + sB`, :math:`s` at most 0.8: the
mean type is t and the i flux is unchanged. In the same way arms are of a later type
than the rest of the disc.
"""

import functools
import math

import torch

from astro_disentangle.simulation.dust import attenuation
from astro_disentangle.simulation.shapes import ARM_KNOTS
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
_TYPE_STEP, _LAST_TYPE = 0.8, 3.0
#: Sources that are rendered at once: what keeps the arrays in a processor's cache.
_CHUNK = 64


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
    """Log10 of band over HSC i flux of galaxies (S,) and parts (S, P), (S, P, C)."""
    table = tables["galaxy_colors"][:, :, columns].transpose(0, 1)
    rows = mix_rows(table, tables.axes["redshift"], redshift)
    low = sed_type.floor().clamp(0, rows.shape[1] - 2)
    share = (sed_type - low)[..., None]
    low = low.long()[..., None].expand(-1, -1, rows.shape[2])
    return torch.lerp(rows.gather(1, low), rows.gather(1, low + 1), share)


def _split(kind, share):
    """Types of two parts of a type, the second of them later, by its share."""
    other = 1 - share
    room = kind / share.clamp(min=1e-6), (_LAST_TYPE - kind) / other.clamp(min=1e-6)
    step = torch.minimum(*room)
    step = step.clamp(max=_TYPE_STEP)
    return [(kind + s).clamp(0, _LAST_TYPE) for s in (-step * share, step * other)]


def component_fluxes(survey, sources):
    """
    Flux of the parts of each source in each band, before Galactic extinction.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.
    sources : `~astro_disentangle.simulation.population.Sources`
        S sources.

    Returns
    -------
    fluxes : `torch.Tensor`
        Shape (S, 3, C), nJy, of the bulge, the disc with its bar, and the arms; a
        star has all of it in the second.

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
    bulge, arms = sources.bulge_fraction, sources.arm_fraction
    redshift = sources.redshift.nan_to_num()
    of_bulge, of_disc = _split(sources.sed_type, 1 - bulge)
    smooth, of_arms = _split(of_disc, arms)
    kinds = torch.stack([of_bulge, smooth, of_arms], 1)
    colors = _log_colors(tables, columns, redshift, kinds)
    # Dust, relative to the band of the magnitude, the first of the table.
    emitted = tables["wavelength"][[0, *columns]] / (1 + redshift[:, None])
    dimming = sources.reddening[:, None] * attenuation(emitted)
    colors = colors - 0.4 * (dimming[:, 1:] - dimming[:, :1])[:, None]
    star = mix_rows(
        tables["star_colors"][:, columns],
        tables.axes["star_color"],
        sources.star_color,
    )
    colors = torch.where(sources.is_star[:, None, None], star[:, None], colors)
    total = AB_FLUX_NJY * 10 ** (-0.4 * sources.magnitude_i)
    disc = 1 - bulge
    share = torch.stack([bulge, disc * (1 - arms), disc * arms], 1) * total[:, None]
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
        Shape (G, C, F, F/2 + 1), 1 at k = 0; real for a Moffat profile, complex for
        a tabulated PSF.

    Raises
    ------
    ValueError
        If a tabulated PSF is larger than the padded array or sums to nothing.

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
    size, ky, kx, pixel = _grid(survey, device)
    if conditions.psf_image is not None:
        return _transform_image(conditions.psf_image, size, kx, ky)
    tables = load_tables(device)
    e1, e2 = conditions.psf_ellipticity.reshape(-1, 2).T
    ellipticity = torch.hypot(e1, e2).clamp(max=0.9)
    square = _sheared(
        kx,
        ky,
        fwhm.reshape(-1) / survey.pixel_scale,
        ((1 - ellipticity) / (1 + ellipticity)).sqrt(),
        torch.atan2(e2, e1) / 2,
    )
    axis = tables.axes["moffat_index"]
    rows = mix_rows(tables["moffat"], axis, conditions.psf_beta.reshape(-1))
    out = radial(rows, tables.axes["log_k"], square.flatten(1))
    return out.reshape(*fwhm.shape, len(ky), len(kx)) * pixel


def _transform_image(image, size, kx, ky):
    """Transform of PSF images (G, C, P, P) about their middle pixel."""
    total = image.sum((-2, -1), keepdim=True)
    if image.shape[-1] > size or not (total > 0).all():
        raise ValueError(
            f"'psf_image' must be at most {size} pixels wide and have a positive sum; "
            f"got shape {tuple(image.shape)}, least sum {total.min():.3g}."
        )
    centre = torch.full((1, 2), image.shape[-1] // 2, dtype=torch.float32)
    spectrum = torch.fft.rfft2(image / total, s=(size, size))
    return spectrum * _phases(kx, ky, centre.to(kx.device)).conj()


def _phases(kx, ky, position):
    """exp(-i k p) at pixels (S, 2), shape (S, Y, X), complex64."""
    x, y = (
        torch.polar(torch.ones_like(angle), angle)
        for angle in (-position[:, :1] * kx, -position[:, 1:] * ky)
    )
    return y[:, :, None] * x[:, None, :]


def _sersic(tables, kx, ky, radius, ratio, angle, index):
    """Transforms of Sersic profiles (S,) at wave numbers in rad/arcsec, (S, Y, X)."""
    square = _sheared(kx, ky, radius, ratio, angle)
    axis = tables.axes["log_sersic_index"]
    rows = mix_rows(tables["sersic"], axis, index.log())
    return radial(rows, tables.axes["log_k"], square.flatten(1)).reshape(square.shape)


def _gaussians(kx, ky, position, sigma, weight):
    """
    Transforms of sums of round Gaussians, (S, Y, X, 2), real and imaginary part.

    Pixels ``position`` (S, K, 2), ``sigma`` and ``weight`` (S, K), in pixels.
    """

    def factor(k, place, scale):
        angle = -place[..., None] * k
        size = torch.exp(-0.5 * (sigma[..., None] * k) ** 2) * scale
        return size * angle.cos(), size * angle.sin()

    x_real, x_imaginary = factor(kx, position[..., 0], weight[..., None])
    y_real, y_imaginary = factor(ky, position[..., 1], 1.0)
    # Complex numbers as a real product: rows [re, im] times [[re, im], [-im, re]].
    left = torch.cat([y_real, y_imaginary], 1).transpose(1, 2)
    right = torch.cat(
        [
            torch.stack([x_real, x_imaginary], -1),
            torch.stack([-x_imaginary, x_real], -1),
        ],
        1,
    )
    return (left @ right.flatten(2)).unflatten(-1, (-1, 2))


def _knots(survey, kx, ky, s, position):
    """Transforms of the bar and of the arms of sources (S,), (2, S, Y, X, 2)."""
    cos, sin = s.angle.cos()[:, None], s.angle.sin()[:, None]
    major, minor, sigma, weight = s.knots.unbind(-1)
    unit = (s.disc_radius / survey.pixel_scale)[:, None]
    place = torch.stack([major * cos - minor * sin, major * sin + minor * cos], -1)
    place = position[:, None] + unit[..., None] * place
    groups = slice(ARM_KNOTS, None), slice(ARM_KNOTS)
    return [
        _gaussians(kx, ky, place[:, g], (unit * sigma)[:, g], weight[:, g])
        for g in groups
    ]


def _parts(survey, s, position):
    """Transforms of bulge, disc and arms of sources (S,), (S, 3, Y, X, 2)."""
    device = str(position.device)
    tables = load_tables(device)
    _, ky, kx, _ = _grid(survey, device)
    kx_sky, ky_sky = kx / survey.pixel_scale, ky / survey.pixel_scale
    phase = torch.view_as_real(_phases(kx, ky, position))
    parts = torch.zeros(len(s), 3, *phase.shape[1:], device=device)
    for part, name in enumerate(("bulge", "disc")):
        shape = [getattr(s, f"{name}_{what}") for what in ("radius", "ratio", "index")]
        radius, ratio, index = shape
        profile = _sersic(tables, kx_sky, ky_sky, radius, ratio, s.angle, index)
        torch.mul(profile[..., None], phase, out=parts[:, part])
    there = (s.arm_fraction + s.bar_fraction > 0).nonzero()[:, 0]
    if len(there):
        some = s.map(lambda tensor: tensor[there])
        bar, arms = _knots(survey, kx, ky, some, position[there])
        share = some.bar_fraction / (1 - some.arm_fraction).clamp(min=1e-6)
        share = share[:, None, None, None]
        parts[there, 1] = torch.lerp(parts[there, 1], bar, share)
        parts[there, 2] = arms
    return parts


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
        Shape (B, M, 3, C), flux of bulge, disc and arms, nJy.
    position : `torch.Tensor`
        Shape (B, M, 2), 0-based native pixel (x, y) of each source.
    present : `torch.Tensor`
        Shape (B, M), bool, sources that exist; they fill the first slots.
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
    scenes, _, _, bands = fluxes.shape
    stamp = survey.stamp_size
    group = torch.arange(scenes, device=position.device) // (scenes // len(transfer))
    images = torch.empty(scenes, bands, stamp, stamp, device=position.device)
    shaped = sources.map(lambda tensor: tensor.unflatten(0, (scenes, -1)))
    number = present.sum(1)
    # Scenes of equally many sources together: no room is lost to absent ones.
    for count in number.unique().tolist():
        for rows in (number == count).nonzero()[:, 0].split(max(1, _CHUNK // count)):
            some = shaped.map(lambda x, r=rows, c=count: x[r, :c].flatten(0, 1))
            parts = _parts(survey, some, position[rows, :count].flatten(0, 1))
            size = parts.shape[2:]
            parts = parts.reshape(len(rows), count * 3, -1)
            flux = fluxes[rows, :count].flatten(1, 2).transpose(1, 2)
            total = (flux @ parts).unflatten(-1, size)
            total = torch.view_as_complex(total) * transfer[group[rows]]
            # Only the rows of the stamp go through the second transform.
            lines = torch.fft.ifft(total, dim=-2)[..., :stamp, :]
            images[rows] = torch.fft.irfft(lines, n=size[0])[..., :stamp]
    return images
