# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Rows of the Multimodal Universe as cut-outs.

A row has an image: band names, fluxes, inverse variances, masks, FWHM and pixel scales,
one entry for each band. What a reader has to know, and what is done about it here:

- ``mask`` is True where a pixel is *good*; it is inverted;
- bands are named after the camera, ``hsc-g`` (counts of zero point 27) and ``des-g``
  (nanomaggies of the Legacy Surveys), which tells the survey where nothing else does;
- there is no WCS: one is made from ``ra``, ``dec`` and the pixel scale, north up, and
  the row is flagged ``NO_WCS`` because nobody has said so;
- the object is one pixel off the middle of its stamp, at 78.5 of 0 to 159;
- identifiers may be bytes, or the text of bytes; a FWHM of 0 is an unknown one.
"""

import re

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, InverseVariance

from astro_disentangle.data.plane import Plane
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.surveys import SURVEYS

__all__ = ["images_of", "is_row", "is_table", "planes_of", "rows_of", "text_of"]

#: Survey by the camera in the names of bands, and the unit of its images.
_CAMERAS = {"hsc": ("hsc", u.adu), "des": ("legacy", u.nmgy)}
#: Columns of pair sets, and which survey each of them is.
_COLUMNS = {"hsc_image": "hsc", "legacysurvey_image": "legacy"}
#: Pixels from the middle of a stamp to its object, along both axes.
_OFF_CENTRE = -1.0


def is_row(value):
    """
    Whether something is a row of the Multimodal Universe, or the image of one.

    Parameters
    ----------
    value : object
        What a user gave as a cut-out.

    Returns
    -------
    row : bool
        True for mappings, and for anything with ``keys`` and items like one, that have
        an image column, or the fields of an image; False for tables of rows.

    Examples
    --------
    >>> from astro_disentangle.data.mmu import is_row
    >>> is_row({"image": {"band": ["hsc-g"], "flux": [[[1.0]]]}}), is_row({"g": 1})
    (True, False)
    """
    if not hasattr(value, "keys") or not hasattr(value, "__getitem__"):
        return False
    if is_table(value):
        return False
    try:
        names = set(value.keys())
    except TypeError:
        return False
    return {"band", "flux"} <= names or bool({"image", *_COLUMNS} & names)


def is_table(value):
    """
    Whether something is a table, of which each row may be a cut-out.

    Parameters
    ----------
    value : object
        What a user gave as cut-outs.

    Returns
    -------
    table : bool
        True for `~astropy.table.Table` and for data frames like those of pandas.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astro_disentangle.data.mmu import is_table
    >>> table = Table({"ra": [1.0, 2.0]})
    >>> is_table(table), is_table(table[0])
    (True, False)
    """
    return hasattr(value, "iterrows") and hasattr(value, "keys")


def rows_of(table):
    """
    The rows of a table.

    Parameters
    ----------
    table : `~astropy.table.Table` or data frame
        Something that `is_table`.

    Yields
    ------
    row : object
        With names and items like a mapping.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astro_disentangle.data.mmu import rows_of
    >>> [row["ra"] for row in rows_of(Table({"ra": [1, 2]}))]
    [np.int64(1), np.int64(2)]
    """
    if hasattr(table, "colnames"):
        yield from table
        return
    for _, row in table.iterrows():
        yield row


def images_of(row, survey=None):
    """
    The bands of a row as images.

    Parameters
    ----------
    row : mapping
        A row with ``image``, or with the columns of a pair set, or an image itself:
        a mapping of lists, or a list of mappings, with ``band``, ``flux`` and, if
        known, ``ivar``, ``mask``, ``psf_fwhm`` and ``scale``.
    survey : str, optional
        Name of the survey; it chooses the image of a row that has two.

    Returns
    -------
    images : dict of str to `~astropy.nddata.CCDData`
        By name of the band, with unit, mask, uncertainty and, in ``meta``, ``SURVEY``,
        ``PIXSCALE``, ``PSF_FWHM``, ``OBJECT_ID``, and the pixel of the galaxy as
        ``XGALAXY`` and ``YGALAXY``; with a WCS where the row has ``ra`` and ``dec``.

    Raises
    ------
    CutoutError
        If a field is missing, fields differ in length, a band is there twice, or
        ``ra`` and ``dec`` are no place on the sky.
    SurveyMismatchError
        If it cannot be told which survey the image is of.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.mmu import images_of
    >>> flux = np.ones((2, 160, 160))
    >>> image = {"band": ["des-g", "des-r"], "flux": flux, "mask": flux > 0}
    >>> images = images_of({"image": image, "object_id": b"17"})
    >>> images["des-g"].meta["SURVEY"], images["des-g"].mask.any()
    ('legacy', np.False_)
    """
    return {
        plane.band: CCDData(
            plane.data,
            unit=plane.unit,
            mask=plane.mask,
            uncertainty=None
            if plane.uncertainty is None
            else InverseVariance(plane.uncertainty[1]),
            wcs=plane.wcs,
            meta=plane.meta,
        )
        for plane in planes_of(row, survey)
    }


def planes_of(row, survey=None):
    """
    The bands of a row, without the objects that `images_of` makes of them.

    Parameters
    ----------
    row, survey
        As for `images_of`, whose errors these are.

    Returns
    -------
    planes : list of `~astro_disentangle.data.plane.Plane`
        In the order of the row.

    Raises
    ------
    CutoutError
        If a field is missing or wrong.
    SurveyMismatchError
        If it cannot be told which survey the image is of.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.mmu import planes_of
    >>> image = {"band": ["des-g"], "flux": np.ones((1, 160, 160))}
    >>> planes_of({"image": image, "ra": 150.1, "dec": 2.2})[0].band
    'des-g'
    """
    image, meta = _image_of(row, survey)
    fields = {
        name: list(values)
        for name, values in _by_field(image).items()
        if values is not None
    }
    missing = [name for name in ("band", "flux") if name not in fields]
    if missing:
        raise CutoutError(f"an image of the Multimodal Universe must have {missing}.")
    bands = [text_of(band) for band in fields["band"]]
    if len(set(bands)) != len(bands):
        raise CutoutError(f"'band' of an image must have each band once; got {bands}.")
    for name in ("flux", "ivar", "mask", "psf_fwhm", "scale"):
        if fields.get(name) and len(fields[name]) != len(bands):
            raise CutoutError(
                f"{name!r} of an image must have an entry for each of its bands "
                f"{bands}; got {len(fields[name])}."
            )
    place, made = _place(meta), {}
    planes = []
    for index, band in enumerate(bands):
        part = {name: values[index] for name, values in fields.items() if values}
        planes.append(_band(band, part, meta, survey, place, made))
    return planes


def _image_of(row, survey):
    """The image of a row, and what else the row says."""
    # A pandas Series looks up its values.
    columns = [name for name in ("image", *_COLUMNS) if name in row.keys()]  # noqa: SIM118
    wanted = [name for name in columns if survey and _COLUMNS.get(name) == survey]
    columns = wanted or columns
    if len(columns) > 1:
        raise SurveyMismatchError(
            f"the row has the images {columns}; say by survey= which of them is meant."
        )
    meta = {}
    for name in ("ra", "dec", "object_id"):
        if name in row.keys():  # noqa: SIM118
            meta[name] = row[name]
    if not columns:
        fields = ("band", "flux", "ivar", "mask", "psf_fwhm", "scale")
        return {name: row[name] for name in fields if name in row.keys()}, meta  # noqa: SIM118
    if columns[0] in _COLUMNS:
        meta["survey"] = _COLUMNS[columns[0]]
    return row[columns[0]], meta


def _by_field(image):
    """An image as a mapping of field to its entries."""
    if hasattr(image, "keys"):
        return {name: image[name] for name in image.keys()}  # noqa: SIM118
    try:
        parts = [dict(part) for part in image]
    except (TypeError, ValueError):
        parts = []
    if not parts:
        raise CutoutError(
            "an image of the Multimodal Universe must be a mapping of fields, or a "
            f"list of them by band; got {type(image).__name__}."
        )
    return {name: [part.get(name) for part in parts] for name in parts[0]}


def text_of(value):
    """
    A string of what may be bytes, or the text of bytes.

    Parameters
    ----------
    value : object
        A name as files have it.

    Returns
    -------
    text : str
        The name.

    Examples
    --------
    >>> from astro_disentangle.data.mmu import text_of
    >>> text_of(b"17"), text_of("b'17'"), text_of(17)
    ('17', '17', '17')
    """
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    quoted = re.fullmatch(r"b(['\"])(.*)\1", text)
    return quoted.group(2) if quoted else text.strip()


def _array(name, band, values, dtype):
    """One image of a band as an array (ny, nx)."""
    if (
        isinstance(values, np.ndarray)
        and values.ndim == 2
        and values.dtype.kind in "fiub"
    ):
        return values.astype(dtype, copy=False)
    try:
        # Nested columns give arrays of arrays of rows.
        rows = [np.asarray(line, dtype=dtype) for line in values]
        array = np.stack(rows) if rows else np.empty((0, 0), dtype)
    except (TypeError, ValueError) as error:
        raise CutoutError(f"{name!r} of band {band!r} is no image: {error}") from error
    if array.ndim != 2:
        raise CutoutError(
            f"{name!r} of band {band!r} must have 2 dimensions; got the shape "
            f"{array.shape}."
        )
    return array


def _number(value):
    """A positive finite number, or None."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _degrees(name, value):
    """A coordinate as a number, NaN where it is unknown."""
    if value is None or value is np.ma.masked:
        return np.nan
    try:
        return float(value.to_value("deg") if hasattr(value, "to_value") else value)
    except (TypeError, ValueError):
        raise CutoutError(
            f"{name!r} of a row must be a number of degrees; got {value!r}. Leave it "
            "out if it is unknown."
        ) from None


def _place(row):
    """Right ascension and declination of a row, degrees, or None."""
    place = [_degrees(name, row.get(name)) for name in ("ra", "dec")]
    if not np.isfinite(place).all():
        return None
    if abs(place[1]) > 90:
        raise CutoutError(f"'dec' must be between -90 and 90 deg; got {place[1]}.")
    return [place[0] % 360, place[1]]


def _wcs(meta, shape, place, made):
    """A WCS, north up, where the place is known; one for all bands of one grid."""
    scale = meta.get("PIXSCALE")
    if scale is None:
        survey = SURVEYS.get(meta.get("SURVEY"))
        scale = None if survey is None else survey.pixel_scale
    if place is None or scale is None:
        return None
    key = (scale, shape)
    if key not in made:
        x, y = meta["XGALAXY"], meta["YGALAXY"]
        made[key] = tangent_wcs(place, np.eye(2) / scale, x, y, shape)
    return made[key]


def _band(band, part, row, survey, place, made):
    """A band of an image as a plane."""
    camera = band.lower().replace("_", "-").split("-")[0]
    own, unit = _CAMERAS.get(camera, (None, None))
    own = row.get("survey", own)
    if survey is None and own is None:
        raise SurveyMismatchError(
            f"the survey of band {band!r} must be known; give survey='legacy', say."
        )
    flux = _array("flux", band, part["flux"], np.float32)
    mask = error = None
    if part.get("mask") is not None:
        mask = ~_array("mask", band, part["mask"], bool)
    if part.get("ivar") is not None:
        error = _array("ivar", band, part["ivar"], np.float32)
    for name, values in (("mask", mask), ("ivar", error)):
        if values is not None and values.shape != flux.shape:
            raise CutoutError(
                f"{name!r} of band {band!r} must have the shape of the flux, "
                f"{flux.shape}; got {values.shape}."
            )
    meta = {"BAND": band, "NORTH_UP": "assumed"}
    if unit is u.adu:
        meta["MAGZERO"] = 27.0
    if own is not None:
        meta["SURVEY"] = own
    for name, key in (("scale", "PIXSCALE"), ("psf_fwhm", "PSF_FWHM")):
        if (value := _number(part.get(name))) is not None:
            meta[key] = value
    ny, nx = flux.shape
    meta["XGALAXY"] = (nx - 1) / 2 + _OFF_CENTRE
    meta["YGALAXY"] = (ny - 1) / 2 + _OFF_CENTRE
    if row.get("object_id") is not None:
        meta["OBJECT_ID"] = text_of(row["object_id"])
    return Plane(
        band=band,
        data=flux,
        mask=mask,
        unit=u.dimensionless_unscaled if unit is None else unit,
        # In the unit that goes with that of the image.
        uncertainty=None if error is None else ("ivar", error, None),
        wcs=_wcs(meta, flux.shape, place, made),
        psf=None,
        meta=meta,
    )
