# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Units of images and of their uncertainties, to and from nJy per pixel."""

import functools
import math
import numbers
from collections.abc import Mapping

import astropy.units as u

from astro_disentangle.quality import CutoutError
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = ["header_value", "lookup", "nanojansky_per", "sigma_of"]

_COUNTS = (u.adu, u.DN)
_RATES = (u.ct, u.electron, u.photon)
#: Powers of an uncertainty that are standard deviations.
_POWERS = {"std": 1.0, "var": 0.5, "ivar": -0.5}
#: Keywords that headers hold in arcsec.
_ANGLES = ("PIXSCALE", "PSF_FWHM")


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


def header_value(name, value, band=None):
    """
    What a header can hold of an entry of ``meta``.

    Parameters
    ----------
    name : str
        Name of the entry.
    value : object
        The entry: a number, text or switch, a `~astropy.units.Quantity`, or a mapping
        of band to one of these.
    band : str, optional
        Band to look up in a mapping.

    Returns
    -------
    value : str, bool, int, float or None
        Plain; angles ``PIXSCALE`` and ``PSF_FWHM`` in arcsec, magnitudes in mag.
        `None` where a header cannot hold it.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.data.units import header_value
    >>> header_value("PSF_FWHM", {"g": 700 * u.mas, "r": 0.6}, "g")
    0.7
    """
    if isinstance(value, Mapping):
        value = None if band is None else lookup(value, band)
    if isinstance(value, u.Quantity):
        value = _without_unit(name, value)
    if hasattr(value, "dtype") and not getattr(value, "ndim", 1):
        value = value.item()
    return value if isinstance(value, (str, bool, numbers.Real)) else None


def _without_unit(name, value):
    """Number of a Quantity that a header can hold, or None."""
    if value.isscalar and value.unit in (u.mag, u.ABmag, u.dimensionless_unscaled):
        return float(value.value)
    if value.isscalar and name.upper() in _ANGLES and value.unit.is_equivalent("deg"):
        return float(value.to_value("arcsec"))
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
        kind, factor = _kind_of(u.Unit(unit))
    except (ValueError, TypeError):
        raise CutoutError(f"'unit' must be a unit of flux; got {unit!r}.") from None
    if kind == "flux":
        return factor, False
    if kind in ("number", "counts") or (kind == "rate" and zero_point is not None):
        return counts * factor, kind == "number"
    raise _not_a_flux(unit)


@functools.lru_cache(maxsize=256)
def _kind_of(unit):
    """Kind of a unit of images, and its size in nJy or in that kind's own unit."""
    if not isinstance(unit, u.UnitBase):
        return "other", None
    if unit.is_equivalent(u.dimensionless_unscaled):
        return "number", unit.to(u.dimensionless_unscaled)
    for whole in (unit, unit * u.pix):
        if whole.is_equivalent(u.nJy):
            return "flux", whole.to(u.nJy)
        if whole.is_equivalent(u.mgy):
            return "flux", whole.to(u.mgy) * AB_FLUX_NJY
        for kind, units in (("counts", _COUNTS), ("rate", _RATES)):
            for count in units:
                if whole.is_equivalent(count):
                    return kind, whole.to(count)
    return "other", None


def _not_a_flux(unit):
    return CutoutError(
        "'unit' must be a flux per pixel, convertible to nJy or nanomaggies, or counts "
        f"(adu, ct, electron) with meta['MAGZERO']; got '{unit}'. Convert surface "
        "brightnesses by the area of a pixel and magnitudes by their zero point first."
    )


def _zero_point(meta, band):
    value = lookup(meta, "MAGZERO")
    if value is None:
        return None
    try:
        value = float(header_value("MAGZERO", value, band))
    except (TypeError, ValueError):
        value = math.nan
    if not abs(value) <= 60:
        of_band = "" if band is None else f" for the band {band!r}"
        raise CutoutError(
            f"meta['MAGZERO'] must be an AB magnitude{of_band}; got "
            f"{lookup(meta, 'MAGZERO')!r}. Leave it out to use the survey's."
        )
    return value


def sigma_of(kind, unit, image_unit, factor):
    r"""
    How standard deviations in nJy follow from an uncertainty in any form.

    Parameters
    ----------
    kind : {"std", "var", "ivar"}
        Type of the uncertainty, as astropy names it.
    unit : `~astropy.units.Unit` or None
        Its unit; by default that which goes with the image's.
    image_unit : `~astropy.units.Unit` or None
        Unit of the image.
    factor : float
        nJy of one unit of the image.

    Returns
    -------
    power, scale : float
        Of a value :math:`v` the standard deviation is ``scale`` :math:`v`
        :sup:`power`, in nJy.

    Raises
    ------
    CutoutError
        If the uncertainty is of another type or in another unit.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.data.units import sigma_of
    >>> sigma_of("ivar", None, u.uJy, 1e3)
    (-0.5, 1000.0)
    """
    if kind not in _POWERS:
        raise CutoutError(
            "'uncertainty' must be a StdDevUncertainty, VarianceUncertainty or "
            f"InverseVariance; got type {kind!r}."
        )
    power = _POWERS[kind]
    if unit is None:
        return power, float(factor)
    return power, float(factor * _linear(unit, image_unit, power))


@functools.lru_cache(maxsize=256)
def _linear(unit, image_unit, power):
    """Size of the unit of a standard deviation in that of the image."""
    if u.Unit(unit) == u.dimensionless_unscaled:
        return 1.0
    image_unit = u.dimensionless_unscaled if image_unit is None else image_unit
    try:
        return (u.Unit(unit) ** power).to(image_unit)
    except u.UnitConversionError:
        raise CutoutError(
            f"'uncertainty' must be in a unit that goes with the image's "
            f"'{image_unit}'; got '{unit}'."
        ) from None
