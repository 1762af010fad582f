# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Units of images and of their uncertainties, to and from nJy per pixel."""

import math
from collections.abc import Mapping

import astropy.units as u
import numpy as np

from astro_disentangle.quality import CutoutError
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = ["lookup", "nanojansky_per", "variance_of"]

_COUNTS = (u.adu, u.DN)
_RATES = (u.ct, u.electron, u.photon)


def lookup(meta, *names):
    """
    The first entry of a mapping under any of some names, whatever their case.

    Parameters
    ----------
    meta : mapping
        Header or dictionary.
    *names : str
        Names, the most wanted first.

    Returns
    -------
    value : object or None
        The entry; `None` if there is none.

    Examples
    --------
    >>> from astro_disentangle.data.units import lookup
    >>> lookup({"band": "r"}, "BAND")
    'r'
    """
    if not meta:
        return None
    for name in names:
        for spelling in (name, name.upper(), name.lower()):
            if spelling in meta:
                return meta[spelling]
    return None


def nanojansky_per(unit, survey, meta=None, band=None):
    """
    Flux in nJy of one unit of an image.

    Physical units and (nano)maggies need nothing else; counts take the zero
    point ``meta["MAGZERO"]``, else that of the survey.

    Parameters
    ----------
    unit : `~astropy.units.Unit`, str or None
        Unit of the image.
    survey : `~astro_disentangle.Survey`
        The survey.
    meta : mapping, optional
        May hold ``MAGZERO``, the AB magnitude of one unit, or a mapping of band
        to it.
    band : str, optional
        Band to look up in such a mapping.

    Returns
    -------
    factor : float
        nJy.
    assumed : bool
        Whether the unit of the survey was assumed.

    Raises
    ------
    CutoutError
        If the unit is not a flux.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.units import nanojansky_per
    >>> factor, assumed = nanojansky_per("nmgy", get_survey("legacy"))
    >>> round(factor, 1), assumed
    (3630.8, False)
    """
    zero_point = _zero_point(meta, band)
    own = survey.zero_point if zero_point is None else zero_point
    counts = AB_FLUX_NJY * 10.0 ** (-0.4 * own)
    if unit is None:
        return counts, True
    try:
        unit = u.Unit(unit)
    except (ValueError, TypeError):
        raise CutoutError(f"'unit' must be a unit of flux; got {unit!r}.") from None
    if not isinstance(unit, u.UnitBase):
        raise _not_a_flux(unit)
    if unit.is_equivalent(u.dimensionless_unscaled):
        return counts * unit.to(u.dimensionless_unscaled), True
    for whole in (unit, unit * u.pix):
        if whole.is_equivalent(u.nJy):
            return whole.to(u.nJy), False
        if whole.is_equivalent(u.mgy):
            return whole.to(u.mgy) * AB_FLUX_NJY, False
        for count in _COUNTS:
            if whole.is_equivalent(count):
                return counts * whole.to(count), False
        for count in _RATES:
            if whole.is_equivalent(count) and zero_point is not None:
                return counts * whole.to(count), False
    raise _not_a_flux(unit)


def _not_a_flux(unit):
    return CutoutError(
        "'unit' must be a flux per pixel, convertible to nJy or nanomaggies, or adu "
        f"with meta['MAGZERO']; got '{unit}'. Convert surface brightnesses by the "
        "area of a pixel and magnitudes by their zero point first."
    )


def _zero_point(meta, band):
    value = lookup(meta, "MAGZERO")
    if isinstance(value, Mapping):
        value = lookup(value, band)
    if value is None:
        return None
    try:
        value = float(getattr(value, "value", value))
    except (TypeError, ValueError):
        value = math.nan
    if not abs(value) <= 60:
        raise CutoutError(
            "meta['MAGZERO'] must be an AB magnitude; got "
            f"{lookup(meta, 'MAGZERO')!r}. Leave it out to use the survey's."
        )
    return value


def variance_of(kind, array, unit, image_unit, factor):
    """
    Variance in nJy**2 from an uncertainty in any form.

    Parameters
    ----------
    kind : {"std", "var", "ivar"}
        Type of the uncertainty, as astropy names it.
    array : array_like
        Its values, any shape.
    unit : `~astropy.units.Unit` or None
        Its unit; by default that which goes with the image's.
    image_unit : `~astropy.units.Unit` or None
        Unit of the image.
    factor : float
        nJy of one unit of the image.

    Returns
    -------
    variance : `~numpy.ndarray`
        float64, the shape of ``array``; NaN where there is none.

    Raises
    ------
    CutoutError
        If the uncertainty is of another type or in another unit.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.data.units import variance_of
    >>> variance_of("ivar", [0.25, 0], None, u.uJy, 1e3)
    array([4000000.,      nan])
    """
    powers = {"std": 1.0, "var": 0.5, "ivar": -0.5}
    if kind not in powers:
        raise CutoutError(
            "'uncertainty' must be a StdDevUncertainty, VarianceUncertainty or "
            f"InverseVariance; got type {kind!r}."
        )
    if unit is not None and u.Unit(unit) != u.dimensionless_unscaled:
        image_unit = u.dimensionless_unscaled if image_unit is None else image_unit
        linear = u.Unit(unit) ** powers[kind]
        try:
            factor = factor * linear.to(image_unit)
        except u.UnitConversionError:
            raise CutoutError(
                f"'uncertainty' must be in a unit that goes with the image's "
                f"'{image_unit}'; got '{unit}'."
            ) from None
    values = np.asarray(array, dtype=np.float64)
    with np.errstate(all="ignore"):
        # A negative standard deviation is as bad as a negative variance.
        values = {
            "std": lambda: np.where(values > 0, values, np.nan) ** 2,
            "var": lambda: values,
            "ivar": lambda: 1 / values,
        }[kind]()
        variance = values * factor**2
    return np.where(np.isfinite(variance) & (variance > 0), variance, np.nan)
