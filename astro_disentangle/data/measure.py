# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Measurements on the pixels of a cut-out: noise, PSF width, blank, large."""

import functools

import numpy as np

from astro_disentangle.quality import FLAGS

__all__ = ["measure_fwhm", "measure_noise", "render_psf", "source_flags"]

#: 2-point Gauss-Legendre nodes: the mean over a pixel from four places in it.
_NODES = (-0.5 / 3**0.5, 0.5 / 3**0.5)
#: Of more pixels than this in an image some lines are enough to measure its noise.
_ENOUGH = 4096
#: Moffat indices that are tried, and the FWHM in px below which the fit is not linear.
_INDICES = np.array([1.2, 1.5, 1.8, 2.1, 2.5, 3.0, 3.6, 4.5, 6.0, 9.0, 15.0, 30.0])
_NARROW = 3.0
#: More of a PSF image than this about its peak is not looked at, in px.
_WIDEST_PSF = 255
#: The source is large where the ring's median is above this many sigma of a
#: pixel and, spread over the field, has this share of the flux. Real galaxies of
#: half-light radius 1.6 arcsec have 0.14, stars of magnitude 16 have 0.07.
_RING_SIGMA = 1.2
_RING_SHARE = 0.16


def measure_noise(image, good, correlation, lag=2):
    r"""
    Noise of an image from its own pixels.

    The second difference :math:`f_i - (f_{i-k} + f_{i+k}) / 2` is blind to
    gradients and has the variance
    :math:`\sigma^2 (3 - 4 \rho_k + \rho_{2k}) / 2`, where :math:`\rho` is the
    correlation of the noise; its median absolute deviation is taken over the
    fainter half of the pixels.

    Parameters
    ----------
    image : `~numpy.ndarray`
        Shape (ny, nx).
    good : `~numpy.ndarray`
        Shape (ny, nx), bool.
    correlation : sequence of float
        Correlation of the noise at lags 1, 2, 3 px; 0 beyond.
    lag : int
        :math:`k` in pixels.

    Returns
    -------
    sigma : float
        Standard deviation in the unit of ``image``; NaN if it cannot be had.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import measure_noise
    >>> noise = np.random.default_rng(0).normal(0, 2, (200, 200))
    >>> round(measure_noise(noise, np.ones_like(noise, bool), (0, 0, 0)), 1)
    2.0
    """
    rho = {number + 1: value for number, value in enumerate(correlation)}
    expected = (3 - 4 * rho.get(lag, 0.0) + rho.get(2 * lag, 0.0)) / 2
    values, levels = [], []
    image = np.where(good, image, np.nan).astype(float)
    core = slice(lag, -lag)
    step = max(1, image.size // _ENOUGH)
    for array in (image, image.T):
        if min(array.shape) <= 2 * lag:
            continue
        lines = array[core][::step]
        wings = (lines[:, : -2 * lag] + lines[:, 2 * lag :]) / 2
        values.append((lines[:, core] - wings).ravel())
        # The level comes from other pixels: choosing by those of the difference
        # would narrow its distribution.
        level = array[: -2 * lag, core][::step] + array[2 * lag :, core][::step]
        levels.append((level / 2).ravel())
    if not values:
        return float("nan")
    values, levels = np.concatenate(values), np.concatenate(levels)
    use = np.isfinite(values) & np.isfinite(levels)
    if use.sum() < 20:
        return float("nan")
    values, levels = values[use], levels[use]
    values = values[levels <= np.median(levels)]
    spread = 1.4826 * np.median(np.abs(values - np.median(values)))
    sigma = float(spread / np.sqrt(expected))
    return sigma if sigma > 0 else float("nan")


def _moffat(x, y, alpha, beta):
    total = 0.0
    for dx in _NODES:
        for dy in _NODES:
            square = (x + dx) ** 2 + (y + dy) ** 2
            total = total + (1 + square / alpha**2) ** -beta
    return total / 4


def render_psf(fwhm, beta, pixel_scale, size=25):
    """
    A pixel-integrated Moffat profile.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in arcsec.
    beta : float
        Moffat index.
    pixel_scale : float
        Side of a pixel in arcsec.
    size : int
        Pixels on a side, odd.

    Returns
    -------
    psf : `~numpy.ndarray`
        Shape (size, size), float32, of sum 1; NaN where ``fwhm`` is.

    Examples
    --------
    >>> from astro_disentangle.data.measure import render_psf
    >>> render_psf(0.7, 2.5, 0.168).shape
    (25, 25)
    """
    alpha = fwhm / pixel_scale / (2 * np.sqrt(2 ** (1 / beta) - 1))
    axis = np.arange(size) - (size - 1) / 2
    psf = _moffat(axis[None, :], axis[:, None], alpha, beta)
    return (psf / psf.sum()).astype(np.float32)


def measure_fwhm(psf, pixel_scale):
    r"""
    FWHM of PSF images by the fit of a pixel-integrated circular Moffat profile.

    For a given index :math:`\beta` the profile is linear in its unknowns,

    .. math:: I^{-1/\beta} = c_0 + c_1 x + c_2 y + c_3 (x^2 + y^2) ,

    so that the fit to the pixels above a fifth of the peak is a weighted linear one
    for each of a dozen indices, of which the best counts. The light of a pixel is the
    mean over its square, which to second order adds :math:`\nabla^2 I / 24`; the
    shift of the half maximum that this brings is taken off. Profiles narrower than
    3 px, for which that is not enough, are fitted by `scipy.optimize.least_squares`.

    Parameters
    ----------
    psf : array_like
        Shape (..., h, w), any normalisation.
    pixel_scale : float
        Side of its pixels in arcsec.

    Returns
    -------
    fwhm : float or `~numpy.ndarray`
        Shape (...), arcsec; NaN where an image has no peak that could be a PSF.

    Examples
    --------
    >>> from astro_disentangle.data.measure import measure_fwhm, render_psf
    >>> round(float(measure_fwhm(render_psf(0.7, 2.5, 0.168), 0.168)), 2)
    0.7
    """
    psf = np.asarray(psf, dtype=float)
    if psf.ndim < 2 or min(psf.shape[-2:]) < 5:
        return np.full(psf.shape[:-2], np.nan)[()]
    images = psf.reshape(-1, *psf.shape[-2:])
    peak = np.nan_to_num(images.max((1, 2)), nan=0.0)
    above = (images > peak[:, None, None] / 2).sum((1, 2))
    # Not above a quarter of the image, or there is no telling what it is.
    sound = (peak > 0) & (above <= images[0].size / 4)
    sound &= np.isfinite(images).all((1, 2))
    fwhm = np.full(len(images), np.nan)
    if sound.any():
        width = 2 * np.sqrt(above[sound] / np.pi)
        found = _linear_fwhm(images[sound] / peak[sound, None, None], width)
        for row in np.flatnonzero(~(found > _NARROW) | ~(found < 1.5 * width)):
            image = images[sound][row]
            found[row] = _fitted_fwhm(image.tobytes(), image.shape)
        fwhm[sound] = found * pixel_scale
    return fwhm.reshape(psf.shape[:-2])[()]


def around_peak(image):
    """The part of a large image (h, w) about its brightest pixel."""
    ny, nx = image.shape
    if max(ny, nx) <= _WIDEST_PSF:
        return image
    y, x = divmod(int(image.argmax()), nx)
    y = min(max(y - _WIDEST_PSF // 2, 0), max(ny - _WIDEST_PSF, 0))
    x = min(max(x - _WIDEST_PSF // 2, 0), max(nx - _WIDEST_PSF, 0))
    return image[y : y + _WIDEST_PSF, x : x + _WIDEST_PSF]


def _linear_fwhm(images, width):
    """FWHM in px of images (N, h, w) of peak 1, about ``width`` (N,) wide."""
    count, _, columns = images.shape
    reach = max(2, int(np.ceil(0.75 * width.max() + 0.5)))
    axis = np.arange(-reach, reach + 1)
    y0, x0 = np.divmod(images.reshape(count, -1).argmax(1), columns)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    part = padded[
        np.arange(count)[:, None, None],
        (y0[:, None] + reach + axis)[:, :, None],
        (x0[:, None] + reach + axis)[:, None, :],
    ].reshape(count, -1)
    x, y = np.tile(axis, len(axis)), np.repeat(axis, len(axis))
    square = (x**2 + y**2).astype(float)
    use = (part > 0.2) & (square <= (0.75 * width[:, None] + 1) ** 2)
    terms = np.stack([np.ones_like(square), x, y, square], 1)
    log = np.log(np.where(use, part, 1.0))[:, None]
    power = 1 / _INDICES[:, None]
    left = np.exp(-power * log)
    # Equal weights of the light itself, not of its power.
    weight = use[:, None] * np.exp((2 * power + 2) * log)
    products = (terms[:, :, None] * terms[:, None, :]).reshape(-1, 16)
    normal = (weight @ products).reshape(count, -1, 4, 4)
    normal += 1e-12 * np.eye(4)
    with np.errstate(all="ignore"):
        c = np.linalg.solve(normal, ((weight * left) @ terms)[..., None])[..., 0]
        model = np.maximum(c @ terms.T, 1e-3) ** -_INDICES[:, None]
        best = (use[:, None] * (model - part[:, None]) ** 2).sum(2).argmin(1)
        beta = _INDICES[best]
        c0, c1, c2, c3 = c[np.arange(count), best].T
        alpha2 = (c0 - (c1**2 + c2**2) / (4 * c3)) / c3
        half = 2 ** (1 / beta)
        radius = np.sqrt(alpha2 * (half - 1))

        def laplacian(s):
            inner = (beta + 1) * (s - 1) / s - 1
            return 4 * beta / alpha2 * s ** (-beta - 1) * inner

        slope = 2 * beta * radius / alpha2 * half ** (-beta - 1)
        shift = (laplacian(half) - laplacian(1.0) / 2) / 24 / slope
        return 2 * (radius - shift)


@functools.lru_cache(maxsize=1024)
def _fitted_fwhm(pixels, shape):
    """FWHM in px of one image, given as bytes of float64."""
    from scipy.optimize import least_squares

    psf = np.frombuffer(pixels).reshape(shape)
    peak = psf.max()
    above = (psf > peak / 2).sum()
    width = 2 * np.sqrt(above / np.pi)
    y0, x0 = np.unravel_index(psf.argmax(), psf.shape)
    reach = max(4, int(np.ceil(2 * width)))
    rows = slice(max(0, y0 - reach), y0 + reach + 1)
    columns = slice(max(0, x0 - reach), x0 + reach + 1)
    part = psf[rows, columns] / peak
    y, x = np.indices(part.shape)
    centre = (x0 - columns.start, y0 - rows.start)

    def residual(p):
        alpha, beta = np.exp(p[3]), 1 + np.exp(p[4])
        return (p[0] * _moffat(x - p[1], y - p[2], alpha, beta) - part).ravel()

    start = [1.0, *centre, np.log(width / (2 * np.sqrt(2 ** (1 / 3) - 1))), np.log(2)]
    with np.errstate(all="ignore"):
        try:
            fit = least_squares(residual, start, method="lm", max_nfev=300)
        except ValueError:  # the fit left the range of numbers
            return float(width)
    alpha, beta = np.exp(fit.x[3]), 1 + np.exp(fit.x[4])
    fwhm = 2 * alpha * np.sqrt(2 ** (1 / beta) - 1)
    # A fit that went astray: the area above half of the peak still tells.
    # One pixel above it may be of a profile of 2 px, four of one of 1 px.
    low, high = (0.4, 1.9) if above <= 4 else (0.5, 1.5)
    return float(fwhm if low < fwhm / width < high else width)


def source_flags(pixels, good, noise, place):
    """
    Whether a window shows no source, or one that overfills the field.

    It is blank if nothing is detected at 3 sigma in 0.75 arcsec about the galaxy in
    any band. It is large if, in a stack of the bands with the weights of their noise,
    the median brightness between 3.2 and 4.0 arcsec from the galaxy is well above the
    noise and, spread over the field, a good part of the flux there.

    Parameters
    ----------
    pixels, good : `~numpy.ndarray`
        Shape (C, ny, nx), flux and bool.
    noise : `~numpy.ndarray`
        Shape (C,), standard deviation of a pixel; bands without it do not count.
    place : (float, float, float)
        Pixel x and y of the galaxy, and pixel scale in arcsec.

    Returns
    -------
    flags : int
        ``BLANK``, ``LARGE`` or neither, as where no band can tell.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import source_flags
    >>> from astro_disentangle.quality import decode_flags
    >>> image = np.zeros((1, 32, 32))
    >>> place = (15.5, 15.5, 0.262)
    >>> decode_flags(source_flags(image, image == 0, np.ones(1), place))
    ['BLANK']
    >>> decode_flags(source_flags(image + 9, image == 0, np.ones(1), place))
    ['LARGE']
    """
    known = np.isfinite(noise) & (noise > 0) & good.any((1, 2))
    if not known.any():
        return 0
    if not known.all():
        pixels, good, noise = pixels[known], good[known], noise[known]
    ny, nx = pixels.shape[1:]
    x, y, scale = place
    square = ((np.arange(ny) - y)[:, None] ** 2 + (np.arange(nx) - x) ** 2) * scale**2
    if _is_blank(pixels, good, noise, square <= 0.75**2):
        return FLAGS.BLANK
    # The square of a small number is beyond float32.
    weight = noise.astype(float) ** -2.0
    stack = np.tensordot(weight, pixels, 1) / weight.sum()
    every = good.all(0)
    ring = stack[every & (square > 3.2**2) & (square < 4.0**2)]
    if ring.size < 20:
        return 0
    field = stack[every & (square < 4.0**2)]
    level, total = np.median(ring), field.sum()
    share = level * field.size / total if total > 0 else 0.0
    large = level > _RING_SIGMA * weight.sum() ** -0.5 and share > _RING_SHARE
    return FLAGS.LARGE if large else 0


def _is_blank(pixels, good, noise, inside):
    """Whether no band has a source in the pixels ``inside``, (ny, nx)."""
    here, light = good[:, inside], pixels[:, inside]
    counts = here.sum(1)
    enough = counts > 0.5 * inside.sum()
    if not enough.any():
        return False
    flux = (light * here).sum(1, dtype=float)[enough]
    return bool((flux / (noise[enough] * np.sqrt(counts[enough]))).max() < 3)
