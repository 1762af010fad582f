# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Conditions of an observation as users give them: numbers with units, per band."""

from collections.abc import Mapping

import astropy.units as u
import numpy as np

from astro_disentangle.quality import SurveyMismatchError

__all__ = ["asked_conditions", "check_bands"]


def check_bands(bands, survey):
    """
    Bands of a survey.

    Parameters
    ----------
    bands : iterable of str, optional
        All of the survey by default.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    bands : tuple of str
        The bands in the order given.

    Raises
    ------
    SurveyMismatchError
        If there are none, or one is not of the survey.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.conditions import check_bands
    >>> check_bands("rz", get_survey("legacy"))
    ('r', 'z')
    """
    if bands is None:
        return survey.bands
    try:
        bands = tuple(bands)
    except TypeError:
        bands = (bands,)
    unknown = [band for band in bands if band not in survey.bands]
    if unknown or not bands:
        raise SurveyMismatchError(
            f"'bands' must be some of {survey.bands} of {survey.name}; got {bands}."
        )
    return bands


def asked_conditions(survey, psf_fwhm, depth, usual_fwhm, usual_noise):
    """
    Seeing and noise that a user asks for.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey, of C bands.
    psf_fwhm, depth : `~astropy.units.Quantity`, mapping of band to it, or None
        An angle, and a 5 sigma point source depth in mag or AB mag.
    usual_fwhm, usual_noise : `~numpy.ndarray`
        Shape (C,), arcsec and nJy, where nothing is asked for.

    Returns
    -------
    fwhm, noise : `~numpy.ndarray`
        Shape (C,), arcsec and nJy per native pixel.

    Raises
    ------
    ValueError
        If a number has the wrong unit, is not finite or out of range.
    SurveyMismatchError
        If a mapping has a band that the survey does not have.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.conditions import asked_conditions
    >>> legacy = get_survey("legacy")
    >>> usual = legacy.psf_fwhm, legacy.pixel_noise()
    >>> fwhm, noise = asked_conditions(legacy, 1.5 * u.arcsec, None, *usual)
    >>> fwhm.tolist()
    [1.5, 1.5, 1.5, 1.5]
    """
    fwhm = _per_band("psf_fwhm", psf_fwhm, survey, u.arcsec)
    fwhm = np.where(np.isnan(fwhm), usual_fwhm, fwhm)
    ratio = np.divide(fwhm, survey.psf_fwhm)
    if not ((ratio > 0.5) & (ratio < 2)).all():
        raise ValueError(
            "'psf_fwhm' must be within a factor 2 of the survey's usual "
            f"{survey.psf_fwhm} arcsec; got {fwhm.tolist()}."
        )
    m5 = _per_band("depth", depth, survey, u.mag)
    noise = survey.pixel_noise(np.where(np.isnan(m5), survey.depth, m5), fwhm)
    ratio = np.divide(noise, survey.pixel_noise())
    if not ((ratio > 0.25) & (ratio < 4) | np.isnan(m5)).all():
        usual = np.round(m5 + 2.5 * np.log10(ratio), 2)
        raise ValueError(
            f"'depth' must be within 1.5 mag of {usual.tolist()} mag, the "
            f"survey's usual at that FWHM; got {m5.tolist()}."
        )
    noise = np.where(np.isnan(m5), usual_noise, noise)
    return fwhm, noise


def _per_band(name, value, survey, unit):
    """Numbers per band (C,) from a Quantity or a mapping; NaN where not given."""
    if value is None:
        return np.full(len(survey.bands), np.nan)
    numbers = _converted(name, value, survey, unit)
    missing = [isinstance(value, Mapping) and b not in value for b in survey.bands]
    if not (np.isfinite(numbers) | missing).all():
        raise ValueError(f"{name!r} must be finite; got {numbers.tolist()} {unit}.")
    return numbers


def _converted(name, value, survey, unit):
    """Numbers per band (C,) in ``unit``; NaN where a mapping has none."""
    given = value if isinstance(value, Mapping) else None
    if given is not None:
        check_bands(given, survey)
    parts = []
    for index, band in enumerate(survey.bands):
        part = value
        if given is not None:
            part = given.get(band, np.nan * unit)
        elif np.ndim(value) == 1:
            if len(value) != len(survey.bands):
                raise ValueError(
                    f"{name!r} must be one value or one for each of the bands "
                    f"{survey.bands}; got {len(value)}."
                )
            part = value[index]
        try:
            if unit == u.mag and getattr(part, "unit", None) == u.ABmag:
                parts.append(float(part.value))
            else:
                parts.append(u.Quantity(part).to_value(unit))
        except u.UnitConversionError:
            raise ValueError(
                f"{name!r} must be a Quantity in {unit} or convertible; got {part!r}."
            ) from None
    return np.array(parts, dtype=float)
