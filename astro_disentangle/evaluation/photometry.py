# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Fluxes and widths of batches of images."""

import numpy as np

__all__ = ["aperture_sums", "flux_bias", "image_fwhm", "radial_power"]


def aperture_sums(images, survey, offset, radius=1.0):
    """
    Sums in a circular aperture about the galaxy.

    Parameters
    ----------
    images : `~numpy.ndarray`
        Shape (B, C, N, N).
    survey : `~astro_disentangle.Survey`
        Its pixel scale is used.
    offset : array_like
        Shape (B, 2), galaxy minus centre of the image, (x, y) px.
    radius : float
        Radius in arcsec.

    Returns
    -------
    sums : `~numpy.ndarray`
        Shape (B, C); NaN only where a pixel of the aperture is.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.evaluation.photometry import aperture_sums
    >>> sums = aperture_sums(np.ones((1, 1, 32, 32)), get_survey("legacy"), [[0, 0]])
    >>> round(float(sums[0, 0]), 1)
    45.8
    """
    from photutils.aperture import CircularAperture

    size = images.shape[-1]
    centres = np.asarray(offset, float) + (size - 1) / 2
    sums = np.empty(images.shape[:2])
    for row, centre in enumerate(centres):
        mask = CircularAperture(centre, radius / survey.pixel_scale).to_mask(
            method="exact"
        )
        weight = mask.to_image((size, size))
        inside = weight > 0
        sums[row] = (images[row][:, inside] * weight[inside]).sum(1)
    return sums


def flux_bias(predicted, true):
    """
    Sum of predicted over sum of true fluxes, minus one.

    Parameters
    ----------
    predicted, true : array_like
        Shape (N,), linear fluxes.

    Returns
    -------
    bias : float
        Ratio minus one.

    Examples
    --------
    >>> from astro_disentangle.evaluation.photometry import flux_bias
    >>> round(flux_bias([1.1, 2.2], [1.0, 2.0]), 3)
    0.1
    """
    return float(np.sum(predicted) / np.sum(true) - 1)


def radial_power(images, bins=8):
    """
    Power spectra of images in rings of spatial frequency, up to the pixel Nyquist.

    Parameters
    ----------
    images : array_like
        Shape (B, N, N), finite.
    bins : int
        Rings K of equal width from 0 to half a cycle per pixel.

    Returns
    -------
    power : `~numpy.ndarray`
        Shape (B, K), mean squared amplitude; the mean of the image is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.photometry import radial_power
    >>> noise = np.random.default_rng(0).normal(size=(200, 32, 32))
    >>> power = radial_power(noise).mean(0)  # white noise of variance 1
    >>> bool(np.abs(power - 1).max() < 0.05)
    True
    """
    images = np.asarray(images, float)
    size = images.shape[-1]
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency)
    ring = np.minimum((radius * 2 * bins).astype(int), bins)
    power = np.abs(np.fft.fft2(images)) ** 2 / size**2
    power[:, 0, 0] = 0
    counts = np.bincount(ring.ravel(), minlength=bins + 1)[:bins]
    counts[0] -= 1
    sums = [np.bincount(ring.ravel(), p.ravel(), bins + 1)[:bins] for p in power]
    return np.array(sums) / np.maximum(counts, 1)


def image_fwhm(images, pixel_scale):
    """
    FWHM of point sources by a circular Moffat fit.

    Parameters
    ----------
    images : `~numpy.ndarray`
        Shape (B, N, N), one source near the centre of each.
    pixel_scale : float
        Pixel scale in arcsec.

    Returns
    -------
    fwhm : `~numpy.ndarray`
        Shape (B,), arcsec; NaN where the fit fails. The pixel's own width is
        part of it.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.photometry import image_fwhm
    >>> y, x = np.mgrid[-15.5:16, -15.5:16]
    >>> image = (1 + (x**2 + y**2) / 9.0) ** -3.0
    >>> image_fwhm(image[None], 0.25).round(2)  # 3.06 px
    array([0.76])
    """
    from scipy.optimize import least_squares

    size = images.shape[-1]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inner = np.hypot(x, y) < 2.5 / pixel_scale
    widths = np.full(len(images), np.nan)
    for row, image in enumerate(images):
        data = image[inner]
        if not np.isfinite(data).all() or data.max() <= 0:
            continue
        scale = data.max()
        # Both arguments are bound now: the loop runs each fit at once.

        def residual(p, data=data, scale=scale):
            r2 = (x[inner] - p[1]) ** 2 + (y[inner] - p[2]) ** 2
            model = p[0] * (1 + r2 / p[3] ** 2) ** -p[4] + p[5]
            return model - data / scale

        start = [1.0, 0.0, 0.0, 0.6 / pixel_scale, 3.0, 0.0]
        bounds = (
            [0, -3, -3, 0.1, 1.2, -1],
            [10, 3, 3, 4 / pixel_scale, 20, 1],
        )
        fit = least_squares(residual, start, bounds=bounds)
        alpha, beta = fit.x[3], fit.x[4]
        if fit.success:
            widths[row] = 2 * alpha * np.sqrt(2 ** (1 / beta) - 1) * pixel_scale
    return widths
