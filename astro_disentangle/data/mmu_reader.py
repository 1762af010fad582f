# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One image of a row of the Multimodal Universe, as astropy reads files.

Astropy keeps a list of readers, and importing this module puts ours on it. That happens
when anything is imported that reads cut-outs, and when the package itself is imported
after ``astropy.nddata``, which it does not import.
"""

import re

from astropy.io import registry
from astropy.nddata import CCDData

from astro_disentangle.data.mmu import images_of, is_row, text_of
from astro_disentangle.quality import CutoutError
from astro_disentangle.surveys import get_survey

__all__ = ["read_image"]
__doctest_requires__ = {"read_image": ["pyarrow"]}

#: What may be told of a galaxy besides its images.
_WORDS = ("ra", "dec", "object_id")
#: Fields of an image that may be columns of their own.
_FIELDS = ("band", "flux", "ivar", "mask", "psf_fwhm", "scale")


def read_image(path, *, row=None, object_id=None, band=None, survey=None):
    """
    One band of one row of files of the Multimodal Universe.

    This is what ``CCDData.read(path, format="mmu", ...)`` calls.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A file of Parquet or HDF5, a folder of them, a pattern or a HATS catalogue.
    row : int, optional
        Number of the row, from 0, in the order of the names of the files; 0 by default.
    object_id : str or int, optional
        Name of the galaxy, instead.
    band : str, optional
        Name of the band, as ``"r"`` or ``"des-r"``; it can be left out where there is
        one alone.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey, for rows with images of two, or if the names of bands do not say.

    Returns
    -------
    image : `~astropy.nddata.CCDData`
        Shape (ny, nx), float32, in the unit of the survey's files, with a mask that is
        True where a pixel is bad, `~astropy.nddata.InverseVariance` and, where the row
        has ``ra`` and ``dec``, a WCS, as far as they are known. ``meta`` has ``BAND``,
        ``SURVEY``, ``OBJECT``, ``MAGZERO`` of counts, ``PIXSCALE`` and ``PSF_FWHM``
        (arcsec), the 0-based pixel of the galaxy as ``XGALAXY`` and ``YGALAXY``, and
        ``NORTH_UP``, which says that the orientation is assumed.

    Raises
    ------
    CutoutError
        If files, row or band are not there, or cannot be read.
    SurveyMismatchError
        If it cannot be told which survey is meant.
    ImportError
        If pyarrow, or h5py, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from astropy.nddata import CCDData
    >>> from pyarrow import parquet
    >>> import astro_disentangle
    >>> flux = np.ones((1, 160, 160)).tolist()
    >>> image = {"band": ["des-r"], "flux": flux, "scale": [0.262]}
    >>> path = Path(tempfile.mkdtemp()) / "galaxies.parquet"
    >>> row = {"ra": 150.1, "dec": 2.2, "object_id": "17", "image": image}
    >>> parquet.write_table(pa.Table.from_pylist([row]), path)
    >>> image = CCDData.read(path, format="mmu", object_id="17", band="r")
    >>> image.shape, str(image.unit), image.meta["SURVEY"]
    ((160, 160), 'nmgy', 'legacy')
    """
    from astro_disentangle.data.tables import open_table

    if band is not None and not isinstance(band, str):
        raise CutoutError(f"'band' must be the name of a band; got {band!r}.")
    if row is not None and object_id is not None:
        raise CutoutError("'row' and 'object_id' must not both be given.")
    name = None if survey is None else get_survey(survey).name
    table = open_table(path)
    if object_id is not None:
        row = _number_of(table, object_id, path)
    columns = [n for n in table.names if is_row({n: 0}) or n in (*_WORDS, *_FIELDS)]
    images = images_of(_row(table, columns, row or 0, path), name)
    image = images[_band(images, band)]
    if name is not None:
        image.meta.setdefault("SURVEY", name)
    if "OBJECT_ID" in image.meta:
        # A header has no room for the longer word.
        image.meta["OBJECT"] = image.meta.pop("OBJECT_ID")
    return image


def _number_of(table, object_id, path):
    """Number of the row of that name."""
    if "object_id" not in table.names:
        raise CutoutError(
            f"'{path}' must have a column 'object_id' to look for {object_id!r}; it "
            f"has {sorted(table.names)}. Give row=."
        )
    wanted = text_of(object_id)
    found = [
        number
        for number, values in table.rows(["object_id"])
        if text_of(values["object_id"]) == wanted
    ]
    if len(found) != 1:
        raise CutoutError(
            f"'object_id' must be that of one row; {object_id!r} is that of "
            f"{len(found)} rows of '{path}'."
        )
    return found[0]


def _row(table, columns, number, path):
    """Values of a row, of which only its own part of the files is read."""
    count = len(table)
    if isinstance(number, bool) or number not in range(count):
        raise CutoutError(
            f"'row' must be from 0 to {count - 1}, the rows of '{path}'; got "
            f"{number!r}."
        )
    for part in table.partitions():
        if number < len(part):
            return next(values for _, values in part.rows(columns, {number}))
        number -= len(part)
    raise CutoutError(f"'{path}' has fewer rows than it says.")


def _band(images, band):
    """The name of a band in a row."""
    names = list(images)
    if band is not None:
        wanted = band.strip().casefold()
        names = [name for name in images if wanted in _spellings(name)]
    if len(names) != 1:
        raise CutoutError(f"'band' must be one of {list(images)}; got {band!r}.")
    return names[0]


def _spellings(name):
    """A band's name, and what is left of it without the name of the camera."""
    name = name.casefold()
    return name, re.split(r"[-_.]", name)[-1]


registry.register_reader("mmu", CCDData, read_image)
