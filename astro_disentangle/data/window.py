# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The bands of a cut-out within the window about the galaxy.

Only the window, and for the noise its surroundings, are read from the arrays. Bands on
the grid of the reference band are taken as they are, the others are resampled to it.
"""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from astro_disentangle.data.geometry import window_size
from astro_disentangle.data.measure import around_peak, measure_fwhm, measure_noise
from astro_disentangle.data.regrid import bridge, regrid
from astro_disentangle.data.units import (
    header_value,
    lookup,
    nanojansky_per,
    sigma_of,
)
from astro_disentangle.quality import FLAGS, CutoutError

__all__ = [
    "BRIGHTEST",
    "Windows",
    "around_noise",
    "is_native",
    "overlap",
    "read_windows",
    "told_fwhm",
    "window_corner",
]

#: Nothing in the sky is brighter: 1e15 nJy is AB magnitude -6 in one pixel.
BRIGHTEST = 1e15
#: Pixel scales that differ by less count as the survey's own.
_NATIVE = 0.02
#: Largest side of the region in which noise is measured, px.
_WIDEST = 160


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


def read_windows(layout, survey):
    """
    All bands in the window about the galaxy, on the grid of the reference band.

    Parameters
    ----------
    layout : `~astro_disentangle.data.layout.Layout`
        Where the galaxy is in each band.
    survey : `~astro_disentangle.Survey`
        The survey, of C bands.

    Returns
    -------
    windows : `Windows`
        The pixels and what is known of them.

    Raises
    ------
    CutoutError
        If a unit or the kind of an uncertainty is not understood.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.layout import lay_out
    >>> from astro_disentangle.data.match import match_bands
    >>> from astro_disentangle.data.unpack import unpack
    >>> from astro_disentangle.data.window import read_windows
    >>> legacy = get_survey("legacy")
    >>> bands = match_bands(unpack({"r": np.eye(40)}), legacy)
    >>> read_windows(lay_out(bands, legacy), legacy).pixels.shape
    (4, 32, 32)
    """
    size = window_size(layout.place, survey)
    corner = window_corner(layout.place, size)
    count = len(survey.bands)
    windows = Windows(
        pixels=np.zeros((count, size, size), np.float32),
        good=np.zeros((count, size, size), bool),
        inside=np.zeros((count, size, size), bool),
        noise=np.full(count, np.nan, np.float32),
        psf_fwhm=np.full(count, np.nan, np.float32),
        corner=corner,
        flags=0,
    )
    entries, odd = [], []
    for index, (plane, place) in layout.bands.items():
        if layout.congruent(place, size):
            entries.append((index, plane, place, layout.corner(place, corner)))
        else:
            odd.append((index, plane, place))
    if entries:
        chosen = [index for index, *_ in entries]
        part = _load(entries, size, survey)
        windows.flags |= part.flags
        for name in ("pixels", "good", "inside", "noise"):
            getattr(windows, name)[chosen] = getattr(part, name)
    for index, plane, place in odd:
        part = _regridded(index, plane, place, layout, size, survey)
        windows.flags |= part.flags
        for name in ("pixels", "good", "inside", "noise"):
            getattr(windows, name)[index] = getattr(part, name)[0]
    _read_psfs(windows.psf_fwhm, layout)
    return windows


@dataclass
class Windows:
    """
    Bands in a window of n x n pixels about the galaxy.

    Parameters
    ----------
    pixels : `~numpy.ndarray`
        Shape (C, n, n), float32, nJy per pixel; 0 where not good.
    good, inside : `~numpy.ndarray`
        Shape (C, n, n), bool, pixels that can be trusted, and those in the image.
    noise : `~numpy.ndarray`
        Shape (C,), float32, standard deviation of the sky in a pixel of the survey in
        nJy; NaN where it cannot be told.
    psf_fwhm : `~numpy.ndarray`
        Shape (C,), float32, arcsec; NaN where unknown.
    corner : tuple of int
        Pixel (x, y) of the reference band's image that is (0, 0) of the window.
    flags : int
        ``ASSUMED_UNIT`` and ``NO_UNCERTAINTY``.
    """

    pixels: np.ndarray
    good: np.ndarray
    inside: np.ndarray
    noise: np.ndarray
    psf_fwhm: np.ndarray
    corner: tuple
    flags: int


@dataclass
class _Part:
    """Some bands in a window, as `Windows` has them; pixels are float64."""

    pixels: np.ndarray
    good: np.ndarray
    inside: np.ndarray
    noise: np.ndarray
    flags: int


def overlap(shape, corner, size):
    """
    What a window covers of an image.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the image.
    corner : tuple of int
        Pixel (x, y) of the image that is (0, 0) of the window.
    size : int
        Pixels on a side of the window.

    Returns
    -------
    window, image : tuple of slice
        Slices (y, x) of the window and of the image.

    Examples
    --------
    >>> from astro_disentangle.data.window import overlap
    >>> overlap((9, 9), (-2, 3), 4)[1]
    (slice(3, 7, None), slice(0, 2, None))
    """
    window, image = [], []
    for start, length in zip(corner[::-1], shape, strict=True):
        first, last = max(start, 0), max(min(start + size, length), start, 0)
        image.append(slice(first, last))
        window.append(slice(first - start, last - start))
    return tuple(window), tuple(image)


def _load(entries, size, survey):
    """Windows of bands (index, plane, place, corner) as they are on their images."""
    shape = (len(entries), size, size)
    pixels, errors = np.zeros(shape), np.ones(shape)
    good = np.zeros(shape, bool)
    factors = np.empty((len(entries), 1, 1))
    flags = 0
    for row, (_, plane, place, corner) in enumerate(entries):
        factors[row], assumed = nanojansky_per(
            plane.unit, survey, plane.meta, plane.band
        )
        if assumed:
            flags |= FLAGS.ASSUMED_UNIT
        turned = place.turn(plane.data)
        window, image = overlap(turned.shape, corner, size)
        pixels[row][window] = turned[image]
        good[row][window] = True
        if plane.uncertainty is not None:
            errors[row][window] = place.turn(plane.uncertainty[1])[image]
    inside = good.copy()
    with np.errstate(all="ignore"):
        # float64 between, so that numbers near the ends of float32 survive.
        pixels *= factors
        good &= np.abs(pixels) < BRIGHTEST
        good &= (errors > 0) & (errors < np.inf)
    for row, (_, plane, place, corner) in enumerate(entries):
        if plane.mask is not None:
            window, image = overlap(place.turn(plane.mask).shape, corner, size)
            good[row][window] &= place.turn(plane.mask)[image] == 0
    if not good.all():
        pixels[~good] = 0.0
    for row in range(len(entries)):
        known = pixels[row] if good[row].all() else pixels[row][good[row]]
        if known.size and known.min() == known.max():
            # No image of the sky is constant: it is what stands outside a footprint.
            good[row] = False
            pixels[row] = 0.0
    noise = np.empty(len(entries))
    for row, entry in enumerate(entries):
        where = good[row], errors[row], float(factors[row, 0, 0]), size
        noise[row], more = _noise(entry, *where, survey)
        flags |= more
        if noise[row] >= BRIGHTEST:
            # Nothing in the sky shows above such noise.
            good[row], pixels[row], noise[row] = False, 0.0, np.nan
    return _Part(pixels, good, inside, noise, flags)


def _noise(entry, good, errors, factor, size, survey):
    """Noise of the sky in a pixel of the survey, nJy, and flags."""
    _, plane, place, corner = entry
    if plane.uncertainty is None:
        told = header_value("SKYSIGMA", lookup(plane.meta, "SKYSIGMA"), plane.band)
        if isinstance(told, numbers.Real) and told > 0:
            sigma = factor * told
        else:
            sigma = factor * _measured(plane, place, corner, size, survey)
        flags = FLAGS.NO_UNCERTAINTY
    else:
        kind, _, unit = plane.uncertainty
        power, scale = sigma_of(kind, unit, plane.unit, factor)
        flags = 0
        sigma = np.nan
        if good.any():
            sigma = scale * _median(errors if good.all() else errors[good]) ** power
        told = header_value("NOISEFAC", lookup(plane.meta, "NOISEFAC"), plane.band)
        if isinstance(told, numbers.Real) and 0 < told < np.inf:
            sigma *= told
        elif is_native(place, survey):
            sigma *= survey.noise_factor
    return _per_survey_pixel(sigma, place, survey), flags


def is_native(place, survey):
    """Whether an image has the pixel scale of its survey, to 2% (bool)."""
    return abs(place.scale / survey.pixel_scale - 1) <= _NATIVE


def _per_survey_pixel(sigma, place, survey):
    """The same noise per area, in the survey's own pixels."""
    if is_native(place, survey):
        return sigma
    return sigma * survey.pixel_scale / place.scale


def around_noise(plane, place, size, survey):
    """
    Noise of a band, measured around a galaxy.

    Parameters
    ----------
    plane : `~astro_disentangle.data.plane.Plane`
        The band.
    place : `~astro_disentangle.data.geometry.Place`
        The galaxy in it.
    size : int
        Pixels on a side of the window about the galaxy.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    noise : float
        Standard deviation of the sky in a pixel of the survey in nJy; NaN if it
        cannot be had.
    """
    factor, _ = nanojansky_per(plane.unit, survey, plane.meta, plane.band)
    sigma = _measured(plane, place, window_corner(place, size), size, survey)
    return _per_survey_pixel(factor * sigma, place, survey)


def _measured(plane, place, corner, size, survey):
    """Noise of a pixel of a band in its own unit, measured around a window."""
    # A larger region has more sky than the window of a large galaxy.
    wide = min(3 * size, _WIDEST)
    shift = (wide - size) // 2
    around = _around(plane, place, (corner[0] - shift, corner[1] - shift), wide)
    native = is_native(place, survey)
    lag = max(2, round(2 * survey.pixel_scale / place.scale))
    return measure_noise(*around, survey.noise_correlation if native else (), lag=lag)


def _median(values):
    """Median, without the care that `numpy.median` takes of axes and NaN."""
    values = values.ravel()
    middle = [(values.size - 1) // 2, values.size // 2]
    return float(np.partition(values, middle)[middle].mean())


def _around(plane, place, corner, size):
    """Pixels of a band, in its unit, and which of them are good, in a wide window."""
    data = place.turn(plane.data)
    _, image = overlap(data.shape, corner, size)
    pixels = np.asarray(data[image], dtype=float)
    with np.errstate(all="ignore"):
        good = np.abs(pixels) < np.finfo(np.float32).max
    if plane.mask is not None:
        good &= place.turn(plane.mask)[image] == 0
    return pixels, good


def _regridded(index, plane, place, layout, size, survey):
    """One band on other pixels than those of the reference, brought to them."""
    corner, wide, affine = bridge(place, layout.place, size)
    part = _load([(index, plane, place, corner)], wide, survey)
    pixels, good = regrid(part.pixels, part.good, affine, size)
    _, inside = regrid(part.pixels, part.inside, affine, size)
    return _Part(pixels, good, inside, part.noise, part.flags)


def _read_psfs(widths, layout):
    """Fill in the FWHM of the PSF of every band, (C,) in arcsec."""
    images = {}
    for index, (plane, place) in layout.bands.items():
        if plane.psf is None:
            widths[index] = told_fwhm(plane)
        else:
            images.setdefault((np.shape(plane.psf), place.scale), []).append(index)
    for (_, scale), chosen in images.items():
        # Fits to all bands at once cost little more than one.
        stack = [around_peak(layout.bands[index][0].psf) for index in chosen]
        found = measure_fwhm(np.stack(stack), scale)
        for index, width in zip(chosen, found, strict=True):
            told = np.isfinite(width)
            widths[index] = width if told else told_fwhm(layout.bands[index][0])


def told_fwhm(plane):
    """
    FWHM of the PSF of a band as the header has it.

    Parameters
    ----------
    plane : `~astro_disentangle.data.plane.Plane`
        The band.

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
    >>> from astro_disentangle.data.window import told_fwhm
    >>> image = CCDData([[1.0]], unit="adu", meta={"PSF_FWHM": 0.7})
    >>> told_fwhm(unpack({"r": image})[0])
    0.7
    """
    told = lookup(plane.meta, "PSF_FWHM")
    value = lookup(told, plane.band) if isinstance(told, Mapping) else told
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
