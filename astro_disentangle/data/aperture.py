# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Aperture photometry of cut-outs with correlated pixels."""

import astropy.units as u
import numpy as np
from astropy.nddata import VarianceUncertainty
from astropy.table import QTable

from astro_disentangle.data.units import lookup, nanojansky_per
from astro_disentangle.quality import CutoutError

__all__ = ["aperture_flux"]


def aperture_flux(cutout, aperture):
    """
    Flux in an aperture in every band; `SurveyCutout.aperture_flux` is this.

    Errors are those of the spread of the samples, where there are any. Else they come
    from the uncertainty, with the correlation of the survey's noise where the cut-out
    is in the survey's own pixels and its uncertainty is that of the sky
    (``meta["NOISEFAC"]`` is 1, as in all that this package paints).

    Parameters
    ----------
    cutout : `~astro_disentangle.SurveyCutout`
        The cut-out.
    aperture : `~photutils.aperture.Aperture`
        In pixels, or on the sky where there is a WCS.

    Returns
    -------
    table : `~astropy.table.QTable`
        Columns ``band``, ``flux`` and ``flux_err`` in nJy.

    Raises
    ------
    CutoutError
        If the aperture is on the sky and there is no WCS.

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
        variance = cutout.uncertainty.represent_as(VarianceUncertainty).array
        if _is_of_the_sky(cutout):
            sigma = np.sqrt(np.where(good, variance, 0.0)).astype(float)
            error = _correlated_error(sigma, weights, cutout.survey.noise_correlation)
        else:
            # As photutils has it: a share of a pixel has that share of variance.
            error = np.sqrt(total(variance))
    factor, _ = nanojansky_per(cutout.unit, cutout.survey, cutout.meta)
    if aperture.isscalar:
        flux, error = flux[:, 0], error[:, 0]
    table = QTable()
    table["band"] = list(cutout.bands)
    table["flux"] = flux * factor * u.nJy
    table["flux_err"] = error * factor * u.nJy
    return table


def _is_of_the_sky(cutout):
    """Whether the uncertainty is the survey's own noise, whose correlation is known."""
    scale = lookup(cutout.meta, "PIXSCALE")
    native = scale is not None and abs(scale / cutout.survey.pixel_scale - 1) < 0.02
    return lookup(cutout.meta, "NOISEFAC") == 1 and native


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
