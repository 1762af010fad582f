# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Fluxes and widths of batches of images."""

import numpy as np

__all__ = ["aperture_sums", "flux_bias", "image_fwhm"]


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
        Shape (B, C).

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
        sums[row] = (images[row] * weight).sum((1, 2))
    return sums


def flux_bias(predicted, true):
    """
    Sum of predicted over sum of true fluxes, minus one, with its error.

    Parameters
    ----------
    predicted, true : array_like
        Shape (N,), linear fluxes.

    Returns
    -------
    bias, error : float
        Ratio minus one, and its standard deviation from 200 bootstraps.

    Examples
    --------
    >>> from astro_disentangle.evaluation.photometry import flux_bias
    >>> flux_bias([1.1, 2.2], [1.0, 2.0])[0]
    0.10000000000000009
    """
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    rows = np.random.default_rng(0).integers(len(true), size=(200, len(true)))
    ratios = predicted[rows].sum(1) / true[rows].sum(1)
    return float(predicted.sum() / true.sum() - 1), float(ratios.std())


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
