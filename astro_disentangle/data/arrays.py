# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Many cut-outs at once, as arrays on the survey's own pixels.

The result is that of `~astro_disentangle.data.read.read_cutouts` for the same images,
number by number. What is per pixel is done for all of them together.
"""

import numpy as np
from astropy.coordinates import SkyCoord

from astro_disentangle.data.measure import measure_noise, source_flags
from astro_disentangle.data.read import (
    BAD_SHARE,
    USABLE_SHARE,
    Cutouts,
    check_field,
    identity,
)
from astro_disentangle.data.stellarity import moffat_psf, star_flag
from astro_disentangle.data.units import nanojansky_per
from astro_disentangle.data.window import BRIGHTEST, overlap
from astro_disentangle.quality import FLAGS, CutoutError, SurveyMismatchError
from astro_disentangle.surveys import get_survey

__all__ = ["read_arrays"]

#: Largest side of the region in which noise is measured, in windows and in px.
_WINDOWS, _WIDEST = 3, 160
#: A FWHM beyond these is not one, arcsec.
_NARROWEST, _BROADEST = 0.05, 20.0


def read_arrays(
    flux,
    survey,
    *,
    bands=None,
    unit=None,
    noise=None,
    mask=None,
    psf_fwhm=None,
    object_id=None,
    coords=None,
):
    """
    Cut-outs that are arrays already.

    Parameters
    ----------
    flux : array_like
        Shape (N, C, ny, nx), galaxies in the middle, on the survey's own pixel scale, x
        to the west and y to the north.
    survey : str or `~astro_disentangle.Survey`
        The survey.
    bands : sequence of str, optional
        Names of the C bands; all of the survey by default, in its order.
    unit : `~astropy.units.Unit` or str, optional
        Unit of ``flux`` and ``noise``; that of the survey by default, and flagged.
    noise : array_like, optional
        Shape (N, C) or (C,), standard deviation of a pixel as the survey's
        uncertainty maps have it; measured where it is left out or NaN, and flagged.
    mask : array_like, optional
        Shape of ``flux``, or (N, 1, ny, nx), bool, True where a pixel is bad.
    psf_fwhm : array_like, optional
        Shape (N, C) or (C,), arcsec; NaN where unknown.
    object_id : sequence of str, optional
        N names; digests of the pixels by default.
    coords : `~astropy.coordinates.SkyCoord`, optional
        N places on the sky.

    Returns
    -------
    cutouts : `~astro_disentangle.Cutouts`
        Flagged ``NO_WCS``: nobody has checked where north is.

    Raises
    ------
    CutoutError
        If an array has another shape, or a unit is not one of flux.
    SurveyMismatchError
        If the survey does not have a band, or the images are smaller than half of its
        field.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.arrays import read_arrays
    >>> flux = np.random.default_rng(0).normal(size=(2, 4, 40, 40))
    >>> read = read_arrays(flux, "legacy", unit="nmgy", noise=np.ones(4))
    >>> read.batch.pixels.shape, len(read)
    (torch.Size([2, 4, 32, 32]), 2)
    """
    survey = get_survey(survey)
    flux = _array("flux", flux, 4)
    index = _indices(bands, survey, flux.shape[1])
    count = len(flux)
    size = survey.stamp_size
    check_field(flux.shape[2:], survey.pixel_scale, survey)
    factors, assumed = zip(
        *(nanojansky_per(unit, survey, None, survey.bands[i]) for i in index),
        strict=True,
    )
    factors = np.array(factors)
    mask = None if mask is None else _mask(mask, flux.shape)
    told = _per_band("noise", noise, count, len(index))
    width = _per_band("psf_fwhm", psf_fwhm, count, len(index))
    width = np.where((width > _NARROWEST) & (width < _BROADEST), width, np.nan)

    pixels, good, inside = _window(flux, mask, factors, size)
    known = np.isfinite(told) & (told > 0)
    flags = np.full(count, FLAGS.NO_WCS, np.int64)
    flags[~known.all(1)] |= FLAGS.NO_UNCERTAINTY
    if any(assumed):
        flags |= FLAGS.ASSUMED_UNIT
    # Where no pixel is good none has that noise.
    sigma = np.where(known & good.any((2, 3)), told * survey.noise_factor, np.nan)
    sigma *= factors
    for row, band in np.argwhere(~known):
        own = None if mask is None else mask[row, band]
        sigma[row, band] = factors[band] * _measured(flux[row, band], own, survey)
    # Nothing in the sky shows above such noise.
    drowned = sigma >= BRIGHTEST
    good[drowned], pixels[drowned], sigma[drowned] = False, 0.0, np.nan

    flags |= _flags(good, inside, width)
    every = _Every(pixels, good, sigma, width, index, survey)
    unusable = (flags & FLAGS.UNUSABLE) != 0
    flags[~every.good.any((2, 3)).all(1)] |= FLAGS.MISSING_BANDS
    every.pixels[unusable], every.good[unusable] = 0.0, False
    middle = _middle(flux.shape[2:], size)
    names = [None] * count if object_id is None else list(object_id)
    if len(names) != count:
        raise CutoutError(
            f"'object_id' must hold {count} names, one for each image; got "
            f"{len(names)}."
        )
    keys = np.empty(count, np.int64)
    for row in range(count):
        if not unusable[row]:
            flags[row] |= every.source(row, middle)
        keys[row], names[row] = identity(names[row], every.pixels[row], every.good[row])
    return Cutouts(every.batch(flags, keys, middle), names, _sky(coords, count))


class _Every:
    """The rows with all bands of the survey, float32 as the networks see them."""

    def __init__(self, pixels, good, noise, psf_fwhm, index, survey):
        count, _, *frame = pixels.shape
        shape = count, len(survey.bands)
        self.survey = survey
        self.pixels = np.zeros((*shape, *frame), np.float32)
        self.good = np.zeros((*shape, *frame), bool)
        self.noise = np.full(shape, np.nan, np.float32)
        self.psf_fwhm = np.full(shape, np.nan, np.float32)
        for name, values in (
            ("pixels", pixels),
            ("good", good),
            ("noise", noise),
            ("psf_fwhm", psf_fwhm),
        ):
            getattr(self, name)[:, index] = values

    def source(self, row, middle):
        """Flags of what stands in the middle of a row."""
        scale, fwhm = self.survey.pixel_scale, self.psf_fwhm[row]
        seen = self.pixels[row], self.good[row], self.noise[row]
        where = *middle, scale
        images = [
            moffat_psf(width, self.survey, scale) if np.isfinite(width) else None
            for width in fwhm
        ]
        return source_flags(*seen, where) or star_flag(*seen, (images, fwhm), where)

    def batch(self, flags, keys, middle):
        """As tensors."""
        import torch

        from astro_disentangle.data.batch import CutoutBatch

        affine = np.column_stack([np.eye(2) / self.survey.pixel_scale, middle])
        affine = np.broadcast_to(affine.astype(np.float32), (len(keys), 2, 3))
        arrays = self.pixels, self.good, self.noise, self.psf_fwhm
        return CutoutBatch(
            self.survey,
            *(torch.from_numpy(array) for array in arrays),
            *(torch.from_numpy(array.copy()) for array in (affine, flags, keys)),
        )


def _array(name, values, dimensions):
    """Numbers of so many dimensions, as they are given."""
    array = np.asarray(values)
    if array.ndim != dimensions or array.dtype.kind not in "fiub" or not array.size:
        raise CutoutError(
            f"{name!r} must be numbers of the shape (N, C, ny, nx), at least one; got "
            f"{array.dtype} of the shape {array.shape}."
        )
    return array


def _indices(bands, survey, count):
    """Places of the bands in the survey."""
    bands = survey.bands if bands is None else tuple(bands)
    unknown = [band for band in bands if band not in survey.bands]
    if unknown or len(set(bands)) != len(bands):
        raise SurveyMismatchError(
            f"'bands' must be different bands of {survey.name}, {survey.bands}; got "
            f"{bands}."
        )
    if len(bands) != count:
        raise CutoutError(
            f"'flux' must have one image for each of the bands {bands}; got {count}."
        )
    return [survey.bands.index(band) for band in bands]


def _mask(mask, shape):
    try:
        mask = np.broadcast_to(np.asarray(mask), shape)
    except ValueError:
        raise CutoutError(
            f"'mask' must have the shape of 'flux', {shape}, or one image for all "
            f"bands; got {np.shape(mask)}."
        ) from None
    return mask != 0


def _per_band(name, values, count, bands):
    """Numbers (N, C) float64; NaN where there are none."""
    if values is None:
        return np.full((count, bands), np.nan)
    try:
        values = np.asarray(values, dtype=float)
        return np.broadcast_to(values, (count, bands))
    except (TypeError, ValueError):
        raise CutoutError(
            f"{name!r} must be numbers of the shape ({count}, {bands}) or ({bands},); "
            f"got the shape {np.shape(values)}."
        ) from None


def _middle(shape, size):
    """Pixel (x, y) of the window on which the middle of an image is."""
    corner = _corner(shape, size)
    return tuple((n - 1) / 2 - c for n, c in zip(shape[::-1], corner, strict=True))


def _corner(shape, size):
    return tuple(int(np.floor((n - 1) / 2 - (size - 1) / 2 + 0.5)) for n in shape[::-1])


def _window(flux, mask, factors, size):
    """Pixels in nJy, what is good and what is inside, (N, C, size, size)."""
    window, image = overlap(flux.shape[2:], _corner(flux.shape[2:], size), size)
    window, image = (..., *window), (..., *image)
    pixels = np.zeros((*flux.shape[:2], size, size))
    good = np.zeros(pixels.shape, bool)
    with np.errstate(all="ignore"):
        # float64 between, so that numbers near the ends of float32 survive.
        pixels[window] = flux[image] * factors[:, None, None]
        good[window] = np.abs(pixels[window]) < BRIGHTEST
    inside = np.zeros((size, size), bool)
    inside[window[1:]] = True
    if mask is not None:
        good[window] &= ~mask[image]
    pixels[~good] = 0.0
    least = np.where(good, pixels, np.inf).min((2, 3))
    # No image of the sky is constant: it is what stands outside a footprint.
    constant = least == np.where(good, pixels, -np.inf).max((2, 3))
    good[constant], pixels[constant] = False, 0.0
    return pixels, good, inside


def _measured(image, mask, survey):
    """Noise of a pixel, measured around the window, in the unit of the image."""
    size = survey.stamp_size
    wide = min(_WINDOWS * size, _WIDEST)
    shift = (wide - size) // 2
    corner = tuple(c - shift for c in _corner(image.shape, size))
    _, part = overlap(image.shape, corner, wide)
    around = np.asarray(image[part], dtype=float)
    with np.errstate(all="ignore"):
        good = np.abs(around) < np.finfo(np.float32).max
    if mask is not None:
        good &= ~mask[part]
    return measure_noise(around, good, survey.noise_correlation)


def _flags(good, inside, psf_fwhm):
    """What is less than ordinary about the rows, apart from the sources."""
    flags = np.zeros(len(good), np.int64)
    flags[~np.isfinite(psf_fwhm).all(1)] |= FLAGS.NO_PSF
    share = good.mean((2, 3))
    flags[(inside & ~good).mean((2, 3)).max(1) > BAD_SHARE] |= FLAGS.BAD_PIXELS
    flags[share.max(1) < USABLE_SHARE] |= FLAGS.UNUSABLE
    if not inside.all():
        flags |= FLAGS.PADDED
    return flags


def _sky(coords, count):
    """Right ascension and declination, (N, 2) degrees."""
    if coords is None:
        return np.full((count, 2), np.nan)
    if not isinstance(coords, SkyCoord) or coords.shape != (count,):
        raise CutoutError(f"'coords' must be a SkyCoord of {count} places.")
    sky = coords.icrs
    return np.stack([sky.ra.deg, sky.dec.deg], 1)
