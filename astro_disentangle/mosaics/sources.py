# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What there is in a mosaic: places, shapes and fluxes of its sources."""

from dataclasses import dataclass

import numpy as np

from astro_disentangle.data.measure import measure_noise

__all__ = ["Sources", "find_sources"]

#: A source has this many pixels this many sigma above the sky of the smoothed stack.
_PIXELS, _SIGMA = 5, 3.0
#: Steps and least share of light with which sources that touch are told apart.
_LEVELS, _CONTRAST = 64, 0.005
#: FWHM of the smoothing over the usual one of the survey's PSF.
_SMOOTH = 0.7


@dataclass(frozen=True)
class Sources:
    """
    Sources in a mosaic.

    Parameters
    ----------
    place : `~numpy.ndarray`
        Shape (S, 2), 0-based pixels (x, y).
    covariance : `~numpy.ndarray`
        Shape (S, 2, 2), second central moments of their light, square pixels.
    flux : `~numpy.ndarray`
        Shape (S,), in units of the noise of a pixel of the stack of all bands.
    """

    place: np.ndarray
    covariance: np.ndarray
    flux: np.ndarray

    def __len__(self):
        return len(self.flux)


def find_sources(image):
    """
    Detect and deblend the sources of a mosaic, in a stack of its bands.

    Parameters
    ----------
    image : `~astro_disentangle.SurveyCutout`
        The mosaic, of C bands.

    Returns
    -------
    sources : `Sources`
        From the faintest that are seen at 3 sigma; none on an empty sky.

    Raises
    ------
    ImportError
        If scikit-image is not installed.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.mosaics.sources import find_sources
    >>> from astro_disentangle.simulation.field import simulate_field
    >>> field = simulate_field(30 * u.arcsec, random_state=1)
    >>> sources = find_sources(field.mosaics["hsc"])
    >>> sources.place.shape[1], sources.covariance.shape[1:]
    (2, (2, 2))
    """
    try:
        import skimage  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "sources that touch are told apart with scikit-image, which is not "
            "installed: pip install 'astro_disentangle[mosaic]'."
        ) from error
    from astropy.stats import gaussian_fwhm_to_sigma, sigma_clipped_stats
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources
    from scipy.ndimage import gaussian_filter

    stack, good = _stack(image)
    scale = image.meta.get("PIXSCALE", image.survey.pixel_scale)
    width = _SMOOTH * np.median(image.survey.psf_fwhm) / scale
    width *= gaussian_fwhm_to_sigma
    smooth = gaussian_filter(stack, width)
    _, sky, scatter = sigma_clipped_stats(smooth, mask=~good, sigma=3, maxiters=10)
    none = Sources(np.empty((0, 2)), np.empty((0, 2, 2)), np.empty(0))
    if not scatter > 0:
        return none
    with np.errstate(all="ignore"):
        found = _quiet(
            detect_sources, smooth, sky + _SIGMA * scatter, _PIXELS, mask=~good
        )
        if found is None:
            return none
        found = _quiet(
            deblend_sources,
            smooth,
            found,
            _PIXELS,
            n_levels=_LEVELS,
            contrast=_CONTRAST,
            progress_bar=False,
        )
        catalog = SourceCatalog(stack - sky, found, convolved_data=smooth - sky)
        place = np.reshape(catalog.centroid, (-1, 2)).astype(float)
        xx, xy, yy = (
            np.atleast_1d(getattr(catalog, f"covariance_{name}").value)
            for name in ("xx", "xy", "yy")
        )
        flux = np.atleast_1d(catalog.segment_flux).astype(float)
    covariance = np.stack([xx, xy, xy, yy], 1).reshape(-1, 2, 2)
    known = np.isfinite(place).all(1) & np.isfinite(covariance).all((1, 2))
    known &= (flux > 0) & (np.linalg.det(covariance) > 0)
    return Sources(place[known], covariance[known], flux[known])


def _quiet(function, *args, **options):
    """A function that warns where it finds nothing, which is an answer too."""
    import warnings

    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        return function(*args, **options)


def _stack(image):
    """Weighted mean of the bands in units of its own noise, and where it is good."""
    total, weight = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    correlation = image.survey.noise_correlation
    bad = np.zeros(image.shape, bool) if image.mask is None else image.mask
    for pixels, masked in zip(image.data, bad, strict=True):
        good = np.isfinite(pixels) & ~masked
        sigma = measure_noise(pixels, good, correlation)
        if not sigma > 0:
            continue
        total += np.where(good, pixels, 0) / sigma**2
        weight += good / sigma**2
    good = weight > 0
    return total / np.sqrt(np.where(good, weight, 1)), good
