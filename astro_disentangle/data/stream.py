# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One cut-out or any number of them, with their positions."""

import itertools
from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData

from astro_disentangle.data.aion import is_aion, split_aion
from astro_disentangle.data.mmu import is_row, is_table, rows_of
from astro_disentangle.data.units import lookup
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.surveys import get_survey

__all__ = ["check_own_survey", "each_cutout", "is_one"]


def is_one(cutouts):
    """
    Whether an argument is a single cut-out.

    Parameters
    ----------
    cutouts : object
        What a user gave.

    Returns
    -------
    one : bool
        True for a mapping of bands, for `~astropy.nddata.NDData`, for a row of the
        Multimodal Universe and for an image object of AION-1 that holds one.

    Examples
    --------
    >>> from astro_disentangle.data.stream import is_one
    >>> is_one({"r": None}), is_one([{"r": None}])
    (True, False)
    """
    if isinstance(cutouts, (Mapping, NDData)) or is_row(cutouts):
        return True
    return is_aion(cutouts) and np.ndim(cutouts.flux) == 3


def each_cutout(cutouts, position):
    """
    Cut-outs with their positions, one at a time.

    Parameters
    ----------
    cutouts : cut-out or iterable of them
        Of any length; a generator is read as it is needed. Of a table each row is one.
    position : `~astropy.coordinates.SkyCoord`, (x, y), sequence of them or None
        One for all, or one for each.

    Yields
    ------
    cutout, position : tuple
        The position is None where none is given.

    Raises
    ------
    CutoutError
        If ``cutouts`` is neither a cut-out nor an iterable, or there are fewer or more
        positions than cut-outs.

    Examples
    --------
    >>> from astro_disentangle.data.stream import each_cutout
    >>> list(each_cutout([{"r": 1}, {"r": 2}], (3, 4)))
    [({'r': 1}, (3, 4)), ({'r': 2}, (3, 4))]
    """
    if is_one(cutouts):
        yield cutouts, position
        return
    if is_table(cutouts):
        cutouts = rows_of(cutouts)
    elif is_aion(cutouts):
        cutouts = split_aion(cutouts)
    if isinstance(cutouts, (str, bytes)) or not isinstance(cutouts, Iterable):
        raise CutoutError(
            "'cutouts' must be a cut-out or an iterable of them; got "
            f"{type(cutouts).__name__}. Read files with CCDData.read first."
        )
    if position is None or isinstance(position, SkyCoord):
        shared = position is None or position.isscalar
    else:
        whole = position
        try:
            position = list(position)
        except TypeError:
            raise CutoutError(
                f"'position' must be a SkyCoord or a pixel (x, y); got {position!r}."
            ) from None
        shared = len(position) == 2 and all(
            isinstance(value, Real) for value in position
        )
        position = whole if shared else position
    places = itertools.repeat(position) if shared else iter(position)
    wrong = "'position' must hold one place for each cut-out; it has {}."
    for cutout in cutouts:
        try:
            place = next(places)
        except StopIteration:
            raise CutoutError(wrong.format("fewer")) from None
        yield cutout, place
    if not shared and next(places, wrong) is not wrong:
        raise CutoutError(wrong.format("more"))


def check_own_survey(name, donors, survey):
    """
    Raise if a cut-out says that it is of another survey than the one given.

    Parameters
    ----------
    name : str
        Name of the argument.
    donors : sequence of cut-outs
        What to look at.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey they must be of; nothing is checked without.

    Raises
    ------
    SurveyMismatchError
        If one says that it is of another.

    Examples
    --------
    >>> from astro_disentangle.data.stream import check_own_survey
    >>> from astro_disentangle.samples import load_sample
    >>> check_own_survey("like", [load_sample("legacy_round")], "legacy")
    """
    if survey is None:
        return
    expected = get_survey(survey).name
    for donor in donors:
        rows = isinstance(donor, Mapping) and not is_row(donor)
        images = donor.values() if rows else [donor]
        for image in images:
            said = lookup(getattr(image, "meta", None), "SURVEY")
            own = getattr(image, "survey", None)
            said = getattr(own, "name", said)
            if said is not None and str(said).strip().lower() != expected:
                raise SurveyMismatchError(
                    f"{name!r} must be cut-outs of {expected}; one says that it is "
                    f"of {said!r}."
                )
