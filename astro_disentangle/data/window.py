# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One band of a cut-out within the window about the galaxy.

Only the window, and for the noise its surroundings, are read from the arrays.
"""

from collections.abc import Mapping

import numpy as np

from astro_disentangle.data.measure import measure_fwhm, measure_noise
from astro_disentangle.data.units import lookup, nanojansky_per, variance_of
from astro_disentangle.quality import FLAGS, CutoutError

__all__ = ["psf_fwhm", "read_window", "window_corner"]

#: Nothing in the sky is brighter: 1e15 nJy is AB magnitude -6 in one pixel.
_BRIGHTEST = 1e15


def window_corner(place, size):
    """
    The pixel of the image that becomes (0, 0) of the window.

    Parameters
    ----------
    place : `~astro_disentangle.data.geometry.Place`
        Where the galaxy is.
    size : int
        Pixels on a side of the window.

    Returns
    -------
    corner : tuple of int
        (x, y); the galaxy is within half a pixel of the window's middle.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.geometry import locate
    >>> from astro_disentangle.data.window import window_corner
    >>> window_corner(locate(None, (50, 50), get_survey("legacy")), 32)
    (9, 9)
    """
    middle = (size - 1) / 2
    return tuple(int(np.floor(value - middle + 0.5)) for value in (place.x, place.y))


def _cut(array, corner, size, fill):
    """A window of a 2-D array; ``fill`` beyond its edges."""
    ny, nx = array.shape
    left, bottom = corner
    x = slice(max(left, 0), min(left + size, nx))
    y = slice(max(bottom, 0), min(bottom + size, ny))
    part = np.asarray(array[y, x])
    if part.shape == (size, size):
        return part
    window = np.full((size, size), fill, part.dtype)
    window[y.start - bottom : y.stop - bottom, x.start - left : x.stop - left] = part
    return window


def read_window(plane, place, corner, size, survey):
    """
    A band in the window about the galaxy.

    Parameters
    ----------
    plane : `~astro_disentangle.data.unpack.Plane`
        The band.
    place : `~astro_disentangle.data.geometry.Place`
        Where the galaxy is.
    corner : tuple of int
        From `window_corner`.
    size : int
        Pixels on a side of the window.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    pixels : `~numpy.ndarray`
        Shape (size, size), float64, nJy; 0 where not good.
    good : `~numpy.ndarray`
        Shape (size, size), bool.
    noise : float
        Standard deviation of a pixel in nJy; NaN if it cannot be told.
    inside : `~numpy.ndarray`
        Shape (size, size), bool, which pixels are in the image.
    flags : int
        ``ASSUMED_UNIT`` and ``NO_UNCERTAINTY``.

    Raises
    ------
    CutoutError
        If a unit or the kind of the uncertainty is not understood.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.geometry import locate
    >>> from astro_disentangle.data.unpack import unpack
    >>> from astro_disentangle.data.window import read_window
    >>> survey = get_survey("legacy")
    >>> plane = unpack({"r": np.ones((32, 32))})[0]
    >>> place = locate(None, (32, 32), survey)
    >>> read_window(plane, place, (0, 0), 32, survey)[0].shape
    (32, 32)
    """
    flags = 0
    factor, assumed = nanojansky_per(plane.unit, survey, plane.meta, plane.band)
    if assumed:
        flags |= FLAGS.ASSUMED_UNIT

    def window(array, fill, corner=corner, size=size):
        return _cut(place.turn(array), corner, size, fill)

    def clean(corner=corner, size=size):
        raw = window(plane.data, 0, corner, size)
        with np.errstate(all="ignore"):
            # float64 between, so that numbers near the ends of float32 survive.
            pixels = raw.astype(np.float64) * factor
            good = np.abs(pixels) < _BRIGHTEST
        good &= window(np.broadcast_to(True, plane.data.shape), False, corner, size)
        if plane.mask is not None:
            good &= window(plane.mask, 0, corner, size) == 0
        return pixels, good

    pixels, good = clean()
    if good.any() and np.ptp(pixels[good]) == 0:
        # No image of the sky is constant: it is what stands outside a footprint.
        good[:] = False
    inside = window(np.broadcast_to(True, plane.data.shape), False)
    noise = np.nan
    if plane.uncertainty is None:
        flags |= FLAGS.NO_UNCERTAINTY
        # A larger region has more sky than the window of a large galaxy.
        wide = 3 * size
        shift = (wide - size) // 2
        around = clean((corner[0] - shift, corner[1] - shift), wide)
        native = abs(place.scale / survey.pixel_scale - 1) <= 0.02
        noise = measure_noise(
            *around,
            survey.noise_correlation if native else (),
            lag=max(2, round(2 * survey.pixel_scale / place.scale)),
        )
    else:
        kind, array, unit = plane.uncertainty
        variance = variance_of(kind, window(array, 0), unit, plane.unit, factor)
        good &= np.isfinite(variance)
        if good.any():
            noise = np.sqrt(np.median(variance[good]))
    return np.where(good, pixels, 0.0), good, noise, inside, flags


def psf_fwhm(plane, place):
    """
    FWHM of the PSF of a band: from its image, else from the header.

    Parameters
    ----------
    plane : `~astro_disentangle.data.unpack.Plane`
        The band.
    place : `~astro_disentangle.data.geometry.Place`
        Of which the pixel scale is used.

    Returns
    -------
    fwhm : float
        arcsec; NaN where it is unknown.

    Raises
    ------
    CutoutError
        If ``meta["PSF_FWHM"]`` is not an angle.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.data.unpack import unpack
    >>> from astro_disentangle.data.window import psf_fwhm
    >>> image = CCDData([[1.0]], unit="adu", meta={"PSF_FWHM": 0.7})
    >>> psf_fwhm(unpack({"r": image})[0], None)
    0.7
    """
    if plane.psf is not None:
        width = measure_fwhm(plane.psf, place.scale)
        if np.isfinite(width):
            return width
    value = lookup(plane.meta, "PSF_FWHM")
    if isinstance(value, Mapping):
        value = lookup(value, plane.band)
    if value is None:
        return np.nan
    try:
        value = float(value.to_value("arcsec") if hasattr(value, "unit") else value)
    except (TypeError, ValueError):
        raise CutoutError(
            "meta['PSF_FWHM'] must be an angle, a plain number in arcsec; got "
            f"{value!r}."
        ) from None
    return value if 0.05 < value < 20 else np.nan
