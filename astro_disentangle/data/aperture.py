# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Aperture photometry of cut-outs with correlated pixels."""

import numbers

import astropy.units as u
import numpy as np
from astropy.table import QTable

from astro_disentangle.data.units import (
    header_value,
    lookup,
    nanojansky_per,
    sigma_of,
)
from astro_disentangle.quality import CutoutError

__all__ = ["aperture_flux"]


def aperture_flux(cutout, aperture):
    """
    Flux in an aperture in every band; `SurveyCutout.aperture_flux` is this.

    Errors are those of the spread of the samples, where there are any. Else they come
    from the uncertainty, with the correlation of the survey's noise where the cut-out
    is in the survey's own pixels and its uncertainty is that of the sky
    (``meta["NOISEFAC"]`` is 1, as in all that this package paints). In other pixels
    with a known ``NOISEFAC`` they are those of apertures of many pixels, a little
    too large for small ones.

    Parameters
    ----------
    cutout : `~astro_disentangle.SurveyCutout`
        The cut-out.
    aperture : `~photutils.aperture.Aperture`
        In pixels, or on the sky where there is a WCS.

    Returns
    -------
    table : `~astropy.table.QTable`
        Columns ``band``, ``flux`` and ``flux_err`` in nJy, of shape (C,) or (C, P).
        Both are NaN where an aperture holds no good pixel, and errors where a good
        pixel has no uncertainty.

    Raises
    ------
    CutoutError
        If the aperture is on the sky and there is no WCS, or the unit or the kind of
        the uncertainty is not understood.

    Examples
    --------
    >>> import numpy as np
    >>> from photutils.aperture import CircularAperture
    >>> from astro_disentangle import SurveyCutout
    >>> from astro_disentangle.data.aperture import aperture_flux
    >>> cutout = SurveyCutout(np.ones((1, 9, 9)), survey="legacy", bands=["r"])
    >>> aperture_flux(cutout, CircularAperture((4, 4), 2)).colnames
    ['band', 'flux', 'flux_err']
    """
    from photutils.aperture import SkyAperture

    if isinstance(aperture, SkyAperture):
        if cutout.wcs is None:
            raise CutoutError("an aperture on the sky needs a cut-out with a WCS.")
        aperture = aperture.to_pixel(cutout.wcs)
    masks = aperture.to_mask(method="exact")
    masks = [masks] if aperture.isscalar else masks
    shape = cutout.data.shape[1:]
    images = [mask.to_image(shape) for mask in masks]
    weights = np.stack([np.zeros(shape) if w is None else w for w in images])
    good = np.isfinite(cutout.data)
    if cutout.mask is not None:
        good &= ~np.broadcast_to(cutout.mask, cutout.data.shape).astype(bool)

    def total(cube):
        cube = np.where(good, cube, 0.0).astype(float)
        return np.einsum("...cyx,pyx->...cp", cube, weights)

    flux = total(cutout.data)
    error = np.full_like(flux, np.nan)
    if cutout.samples is not None and len(cutout.samples) > 1:
        error = total(cutout.samples).std(0, ddof=1)
    elif cutout.uncertainty is not None:
        sigma = _sigma(cutout)
        known = np.isfinite(sigma)
        unknown = total(~known) > 0
        sigma = np.where(good & known, sigma, 0.0)
        if _is_of_the_sky(cutout):
            error = _correlated_error(sigma, weights, cutout.survey.noise_correlation)
        else:
            # As photutils has it: a share of a pixel has that share of variance.
            error = np.sqrt(total(sigma**2)) * _of_large_areas(cutout)[:, None]
        error[unknown] = np.nan
    empty = total(good) == 0
    flux[empty], error[empty] = np.nan, np.nan
    factor = [
        nanojansky_per(cutout.unit, cutout.survey, cutout.meta, band)[0]
        for band in cutout.bands
    ]
    factor = np.array(factor)[:, None]
    flux, error = flux * factor, error * factor
    if aperture.isscalar:
        flux, error = flux[:, 0], error[:, 0]
    table = QTable()
    table["band"] = list(cutout.bands)
    table["flux"] = flux * u.nJy
    table["flux_err"] = error * u.nJy
    return table


def _sigma(cutout):
    """Standard deviations of the pixels, (C, ny, nx), in the unit of the image."""
    error = cutout.uncertainty
    power, scale = sigma_of(error.uncertainty_type, error.unit, cutout.unit, 1.0)
    with np.errstate(all="ignore"):
        return scale * np.asarray(error.array, dtype=float) ** power


def _is_of_the_sky(cutout):
    """Whether the uncertainty is the survey's own noise, whose correlation is known."""
    scale = header_value("PIXSCALE", lookup(cutout.meta, "PIXSCALE"))
    native = (
        isinstance(scale, numbers.Real)
        and abs(scale / cutout.survey.pixel_scale - 1) < 0.02
    )
    told = lookup(cutout.meta, "NOISEFAC")
    factors = [header_value("NOISEFAC", told, band) for band in cutout.bands]
    return native and all(f is not None and abs(f - 1) < 1e-3 for f in factors)


def _of_large_areas(cutout):
    """
    Noise of the sum of many pixels over that of as many independent ones, (C,).

    Where ``NOISEFAC`` is told, noise and scale are known in the survey's own pixels,
    whose correlation is; elsewhere pixels count as independent.
    """
    told = lookup(cutout.meta, "NOISEFAC")
    factors = [header_value("NOISEFAC", told, band) for band in cutout.bands]
    whole = 1 + 2 * sum(cutout.survey.noise_correlation)
    return np.array([1.0 if f is None else f * whole for f in factors])


def _correlated_error(sigma, weights, correlation):
    """Error (C, P) of sums of pixels (C, ny, nx) with weights (P, ny, nx)."""
    light = sigma[:, None] * weights

    def along(count):
        place = np.arange(count)
        lags = np.zeros(count)
        known = [1.0, *correlation][:count]
        lags[: len(known)] = known
        return lags[np.abs(place[:, None] - place)]

    ny, nx = light.shape[-2:]
    spread = along(ny) @ light @ along(nx)
    return np.sqrt(np.clip((light * spread).sum((2, 3)), 0, None))
