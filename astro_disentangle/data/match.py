# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Which survey a cut-out is of, and which of its bands each plane is."""

from collections.abc import Iterable

from astro_disentangle.data.units import lookup
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.survey import Survey
from astro_disentangle.surveys import SURVEYS, get_survey

__all__ = ["band_names", "match_bands", "survey_of"]

#: Pixel scales that differ by less may be of one camera.
_SCALE = 0.02


def survey_of(planes, survey=None):
    """
    The survey of a cut-out.

    Parameters
    ----------
    planes : list of `~astro_disentangle.data.plane.Plane`
        Its planes.
    survey : str or `~astro_disentangle.Survey`, optional
        What the caller says; ``meta["SURVEY"]`` by default.

    Returns
    -------
    survey : `~astro_disentangle.Survey`
        The survey.

    Raises
    ------
    SurveyMismatchError
        If it is unknown, the bands are of different surveys, or the caller and the
        ``meta["SURVEY"]`` of a band name two different known ones that have no filter
        in common, or pixels that differ by more than 2%.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.data.match import survey_of
    >>> from astro_disentangle.data.unpack import unpack
    >>> image = CCDData([[1.0]], unit="adu", meta={"SURVEY": "hsc"})
    >>> survey_of(unpack({"g": image})).name
    'hsc'
    """
    if survey is not None:
        survey = get_survey(survey)
        for plane in planes:
            _check_told(plane, survey)
        return survey
    said = {}
    for plane in planes:
        name = lookup(plane.meta, "SURVEY")
        if name is not None:
            name = name.strip().lower() if isinstance(name, str) else get_survey(name)
            said[name] = plane.band
    if len(said) > 1:
        raise SurveyMismatchError(
            "the bands of a cut-out must be of one survey; got "
            f"{[str(name) for name in said]} in meta['SURVEY']."
        )
    if not said:
        raise SurveyMismatchError(
            "the survey of a cut-out must be known; give survey='hsc', say, or set "
            "meta['SURVEY']."
        )
    return get_survey(next(iter(said)))


def _check_told(plane, survey):
    """Raise if a band says that it is of another survey than the caller does."""
    own = lookup(plane.meta, "SURVEY")
    if isinstance(own, Survey) and not own.has_images_of(survey):
        raise SurveyMismatchError(
            f"'survey' is {survey.name!r}, but the cut-out is a SurveyCutout of "
            f"{own.name!r}."
        )
    # Other names are the user's to read, and so are images of one camera that two
    # surveys have processed.
    name = own.strip().lower() if isinstance(own, str) else None
    other = SURVEYS.get(name, survey)
    if other.name != survey.name and not _of_one_camera(other, survey):
        raise SurveyMismatchError(
            f"'survey' is {survey.name!r}, but meta['SURVEY'] of band {plane.band!r} "
            f"says {own!r}. Correct the one that is wrong."
        )


def _of_one_camera(survey, other):
    # Curves of one camera may stand for the similar filters of another.
    ratio = survey.pixel_scale / other.pixel_scale
    return bool(set(survey.filters) & set(other.filters)) and abs(ratio - 1) <= _SCALE


def band_names(bands, count):
    """
    Names of the planes of a cube, in any spelling.

    Parameters
    ----------
    bands : str or iterable of str
        Names; as one string with commas or spaces between them, or, where each is one
        letter, with nothing.
    count : int
        How many planes there are.

    Returns
    -------
    bands : list of str
        One for each plane.

    Raises
    ------
    CutoutError
        If they are not strings, or not as many.

    Examples
    --------
    >>> from astro_disentangle.data.match import band_names
    >>> band_names("griz", 4), band_names("VIS, Y", 2)
    (['g', 'r', 'i', 'z'], ['VIS', 'Y'])
    """
    names = bands
    if isinstance(bands, str):
        names = bands.replace(",", " ").split()
        if len(names) != count == len(bands):
            names = bands
    names = list(names) if isinstance(names, Iterable) else []
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise CutoutError(
            f"'bands', or meta['bands'], must name the {count} bands of the cube; got "
            f"{bands!r}."
        )
    return [str(name) for name in names]


def match_bands(planes, survey):
    """
    Planes by number of the survey's band.

    Case does not matter, and prefixes as in "hsc-g" or "DES-G" are dropped.

    Parameters
    ----------
    planes : list of `~astro_disentangle.data.plane.Plane`
        The planes of a cut-out.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    matched : dict of int to `~astro_disentangle.data.plane.Plane`
        In the order of the survey's bands.

    Raises
    ------
    SurveyMismatchError
        If the survey has no such band.
    CutoutError
        If a band is there twice, or its header says that it is another.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.match import match_bands
    >>> from astro_disentangle.data.unpack import unpack
    >>> image = CCDData([[1.0]], unit="adu")
    >>> sorted(match_bands(unpack({"HSC-I": image}), get_survey("hsc")))
    [2]
    """
    matched = {}
    for plane in planes:
        index = _number(plane.band, survey)
        if index is None:
            raise SurveyMismatchError(
                f"the bands of {survey.name} are {survey.bands}; got {plane.band!r}."
            )
        said = lookup(plane.meta, "BAND")
        told = _number(said, survey) if isinstance(said, str) else None
        if told not in (None, index):
            raise CutoutError(
                f"the image given as band {plane.band!r} says in meta['BAND'] that it "
                f"is {said!r}; one of the two is wrong."
            )
        if index in matched:
            raise CutoutError(
                f"a cut-out must have each band once; got {matched[index].band!r} and "
                f"{plane.band!r}."
            )
        matched[index] = plane
    return dict(sorted(matched.items()))


def _number(name, survey):
    """Number of a band by its name in the survey, or None."""
    name = name.strip()
    if name in survey.bands:
        return survey.bands.index(name)
    folded = {band.casefold(): index for index, band in enumerate(survey.bands)}
    last = name.replace("_", "-").replace(".", "-").rsplit("-", 1)[-1]
    return folded.get(name.casefold(), folded.get(last.casefold()))
