# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Measurements on the pixels of a cut-out: noise, PSF width, blank, large."""

import numpy as np

__all__ = ["is_blank", "is_large", "measure_fwhm", "measure_noise", "render_psf"]

#: 2-point Gauss-Legendre nodes: the mean over a pixel from four places in it.
_NODES = (-0.5 / 3**0.5, 0.5 / 3**0.5)
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
    for array in (image, image.T):
        if min(array.shape) <= 2 * lag:
            continue
        wings = (array[core, : -2 * lag] + array[core, 2 * lag :]) / 2
        values.append((array[core, core] - wings).ravel())
        # The level comes from other pixels: choosing by those of the difference
        # would narrow its distribution.
        level = (array[: -2 * lag, core] + array[2 * lag :, core]) / 2
        levels.append(level.ravel())
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
    """
    FWHM of a PSF image by the fit of a pixel-integrated circular Moffat profile.

    Parameters
    ----------
    psf : array_like
        Shape (h, w), any normalisation.
    pixel_scale : float
        Side of its pixels in arcsec.

    Returns
    -------
    fwhm : float
        arcsec; NaN if the image has no peak that could be a PSF.

    Examples
    --------
    >>> from astro_disentangle.data.measure import measure_fwhm, render_psf
    >>> round(measure_fwhm(render_psf(0.7, 2.5, 0.168), 0.168), 3)
    0.7
    """
    from scipy.optimize import least_squares

    psf = np.asarray(psf, dtype=float)
    if psf.ndim != 2 or min(psf.shape) < 5 or not np.isfinite(psf).all():
        return float("nan")
    peak = psf.max()
    if not peak > 0 or (above := int((psf > peak / 2).sum())) > psf.size / 4:
        return float("nan")
    y0, x0 = np.unravel_index(psf.argmax(), psf.shape)
    width = 2 * np.sqrt(above / np.pi)
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
            return float(width * pixel_scale)
    alpha, beta = np.exp(fit.x[3]), 1 + np.exp(fit.x[4])
    fwhm = 2 * alpha * np.sqrt(2 ** (1 / beta) - 1)
    # A fit that went astray: the area above half of the peak still tells.
    if not 0.5 < fwhm / width < 1.5:
        fwhm = width
    return float(fwhm * pixel_scale)


def _radius(shape, place):
    """Distance of every pixel from the galaxy in arcsec; place has its pixel."""
    x, y, scale = place
    rows, columns = np.indices(shape)
    return np.hypot(columns - x, rows - y) * scale


def is_blank(pixels, good, noise, place):
    """
    Whether nothing is detected at 3 sigma in 1.5 arcsec about the position.

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
    blank : bool
        False if no band can tell.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import is_blank
    >>> image = np.zeros((1, 32, 32))
    >>> is_blank(image, image == 0, np.ones(1), (15.5, 15.5, 0.262))
    True
    """
    inside = _radius(pixels.shape[1:], place) <= 0.75
    known = np.isfinite(noise) & (noise > 0)
    counts = (good & inside).sum((1, 2))
    known &= counts > 0.5 * inside.sum()
    if not known.any():
        return False
    flux = np.where(good & inside, pixels, 0.0).sum((1, 2))[known]
    return bool((flux / (noise[known] * np.sqrt(counts[known]))).max() < 3)


def is_large(pixels, good, noise, place):
    """
    Whether the source overfills the field.

    The bands are stacked with the weights of their noise; the source is large
    if the median brightness between 3.2 and 4.0 arcsec from the galaxy is well
    above the noise and, spread over the field, a good part of the flux there.

    Parameters
    ----------
    pixels, good, noise, place
        As in `is_blank`.

    Returns
    -------
    large : bool
        False if no band can tell.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import is_large
    >>> image = np.full((1, 32, 32), 9.0)
    >>> is_large(image, image > 0, np.ones(1), (15.5, 15.5, 0.262))
    True
    """
    stack, every, sigma = _stacked(pixels, good, noise)
    if stack is None:
        return False
    radius = _radius(stack.shape, place)
    ring = every & (radius > 3.2) & (radius < 4.0)
    field = every & (radius < 4.0)
    if ring.sum() < 20:
        return False
    level = np.median(stack[ring])
    total = stack[field].sum()
    share = level * field.sum() / total if total > 0 else 0.0
    return bool(level > _RING_SIGMA * sigma and share > _RING_SHARE)


def _stacked(pixels, good, noise):
    """Weighted mean of the bands, where all of them are good, and its noise."""
    known = np.isfinite(noise) & (noise > 0) & good.any((1, 2))
    if not known.any():
        return None, None, None
    weight = noise[known] ** -2.0
    stack = np.tensordot(weight, pixels[known].astype(float), 1) / weight.sum()
    return stack, good[known].all(0), weight.sum() ** -0.5
