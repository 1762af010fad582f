# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs as multi-extension FITS files.

The primary HDU has no data; its header holds ``SURVEY``, ``BANDS``, ``FLAGS``
and what of ``meta`` fits into a header; what differs by band is in the headers of the
bands. Each band has the extensions ``SCI``,
``MASK``, ``UNCERT`` and ``PSF``, as far as they are known, of which ``EXTVER``
counts the bands from 1; ``SAMPLES`` holds the samples.
"""

import math
import numbers
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from astro_disentangle.data.headers import check_fits
from astro_disentangle.data.units import header_value, lookup
from astro_disentangle.data.wcs import directions, tangent_wcs
from astro_disentangle.quality import CutoutError, DisentangleError
from astro_disentangle.survey import Survey
from astro_disentangle.surveys import SURVEYS, get_survey

__all__ = ["read_cutout", "write_cutout"]

_OWN = ("SURVEY", "SURVDEF", "BANDS", "FLAGS", "FORMAT")
#: Keywords that say how a file is made, of this one or of that which was read.
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|Z?NAXIS\d*|EXTEND|[PG]COUNT|GROUPS|BSCALE|BZERO|BLANK|"
    r"BUNIT|EXTNAME|EXTVER|EXTLEVEL|Z?CHECKSUM|Z?DATASUM|ZIMAGE|COMMENT|HISTORY|"
)
_FORMAT = "astro_disentangle cutout 1"
_UNCERTAINTIES = {
    "std": "StdDevUncertainty",
    "var": "VarianceUncertainty",
    "ivar": "InverseVariance",
    "unknown": "UnknownUncertainty",
}
#: Entries of ``meta`` that may be mappings of band to a value.
_OF_BANDS = ("MAGZERO", "PSF_FWHM", "NOISEFAC", "SKYSIGMA")
#: Number types that FITS does not have, and what they are written as.
_WRITTEN = {"e": np.float32, "g": np.float64, "?": np.uint8}


def write_cutout(cutout, path, *, overwrite=False):
    """
    Write a cut-out; `SurveyCutout.write` is this function.

    Where the WCS has distortions that are tables on its pixels, the gnomonic WCS that
    agrees with it in the middle of the image is written instead. float16, bool and
    long double data become float32, uint8 and float64.

    Parameters
    ----------
    cutout : `~astro_disentangle.SurveyCutout`
        The cut-out.
    path : str or `~pathlib.Path`
        The file.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    OSError
        If the file is there and ``overwrite`` is False.
    CutoutError
        If the WCS, the uncertainty or the type of the data is not one that FITS can
        hold.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        hdus = fits.HDUList([_primary(cutout, fits)])
        for index in range(len(cutout)):
            hdus.extend(_band(cutout, index, fits))
        if cutout.samples is not None:
            samples = _writable(cutout.samples, "samples")
            hdus.append(fits.ImageHDU(samples, name="SAMPLES"))
        path = Path(path)
        if path.exists() and not overwrite:
            raise OSError(f"'{path}' exists; use overwrite=True to replace it.")
        # A reader never sees half a file.
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                hdus.writeto(stream)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _primary(cutout, fits):
    header = fits.Header()
    header["FORMAT"] = _FORMAT
    header["SURVEY"] = cutout.survey.name
    if SURVEYS.get(cutout.survey.name) != cutout.survey:
        header["SURVDEF"] = cutout.survey.to_json()
    header["BANDS"] = ",".join(cutout.bands)
    header["FLAGS"] = cutout.flags
    for key, value in cutout.meta.items():
        if not _is_told(str(key)):
            continue
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        blank = value is None
        value = header_value(str(key), value)
        if value is None and not blank:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            continue
        try:
            header[f"HIERARCH {key}" if len(str(key)) > 8 else key] = value
        except ValueError:
            continue
    primary = fits.PrimaryHDU(header=header)
    primary.header["EXTEND"] = True
    return primary


def _band(cutout, index, fits):
    header = fits.Header()
    if cutout.wcs is not None:
        if not hasattr(cutout.wcs, "to_header"):
            raise CutoutError(
                "'wcs' must be an astropy.wcs.WCS to be written to FITS; got "
                f"{type(cutout.wcs).__name__}."
            )
        wcs = _without_tables(cutout.wcs, cutout.data.shape[1:])
        header.update(wcs.to_header(relax=True))
    header["BAND"] = cutout.bands[index]
    for key, value in _told_of_band(cutout, index):
        header[key] = value
    if cutout.unit is not None:
        header["BUNIT"] = cutout.unit.to_string()
    number = index + 1
    data = _writable(cutout.data[index], "data")
    yield fits.ImageHDU(data, header, name="SCI", ver=number)
    if cutout.mask is not None:
        mask = np.broadcast_to(cutout.mask, cutout.data.shape)[index]
        yield fits.ImageHDU(mask.astype(np.uint8), name="MASK", ver=number)
    error = cutout.uncertainty
    if error is not None:
        header = fits.Header()
        if error.uncertainty_type not in _UNCERTAINTIES:
            raise CutoutError(
                "'uncertainty' must be a StdDevUncertainty, VarianceUncertainty, "
                "InverseVariance or UnknownUncertainty to be written to FITS; got type "
                f"{error.uncertainty_type!r}."
            )
        header["UTYPE"] = error.uncertainty_type
        if error.unit is not None:
            header["BUNIT"] = error.unit.to_string()
        array = _writable(error.array[index], "uncertainty")
        yield fits.ImageHDU(array, header, name="UNCERT", ver=number)
    if cutout.psf is not None and np.isfinite(cutout.psf[index]).all():
        psf = _writable(cutout.psf[index], "psf")
        yield fits.ImageHDU(psf, name="PSF", ver=number)


def _writable(array, name):
    """An array of numbers of a type that FITS has."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise CutoutError(
            f"{name!r} must be of real numbers to be written to FITS; got the dtype "
            f"{array.dtype}."
        )
    return array.astype(_WRITTEN.get(array.dtype.char, array.dtype), copy=False)


def _without_tables(wcs, shape):
    """The WCS, or the gnomonic one in its place where a header does not hold it."""
    from astropy.coordinates import SkyCoord

    tables = ("cpdis1", "cpdis2", "det2im1", "det2im2")
    if all(getattr(wcs, name, None) is None for name in tables):
        return wcs
    y, x = ((count - 1) / 2 for count in shape)
    sky, matrix = directions(wcs, x, y)
    return tangent_wcs(SkyCoord(*sky, unit="deg"), matrix, x, y, shape)


def _told_of_band(cutout, index):
    """Keywords and values of one band where ``meta`` has a mapping of bands."""
    for key in _OF_BANDS:
        told = lookup(cutout.meta, key)
        value = header_value(key, told, cutout.bands[index])
        real = isinstance(value, numbers.Real) and math.isfinite(value)
        if isinstance(told, Mapping) and (real or isinstance(value, str)):
            yield key, value


def read_cutout(path):
    """
    Read a cut-out; `SurveyCutout.read` is this function.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A file that `write_cutout` wrote.

    Returns
    -------
    cutout : `~astro_disentangle.SurveyCutout`
        The cut-out.

    Raises
    ------
    CutoutError
        If the file is missing, damaged or of another kind.
    """
    from astropy.io import fits

    path = Path(path)
    check_fits(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                return _cutout(hdus, path)
    except DisentangleError:
        raise
    except Exception as error:  # damaged files raise many types
        raise CutoutError(f"cannot read '{path}' as FITS: {error}") from error


def _cutout(hdus, path):
    from astropy import nddata
    from astropy.wcs import WCS

    from astro_disentangle.data.cutout import SurveyCutout

    header = hdus[0].header
    if "BANDS" not in header or "SURVEY" not in header:
        raise CutoutError(
            f"'{path}' is not a cut-out that this package wrote: no SURVEY and BANDS "
            "in its header. Read other images with CCDData.read, one for each band."
        )
    bands = header["BANDS"].split(",")
    planes = {"SCI": {}, "MASK": {}, "UNCERT": {}, "PSF": {}}
    samples, kind, unit, error_unit, wcs = None, None, None, None, None
    for hdu in hdus[1:]:
        if hdu.name == "SAMPLES":
            samples = _native(hdu.data)
        elif hdu.name in planes:
            planes[hdu.name][hdu.ver - 1] = _native(hdu.data)
        if hdu.name == "SCI":
            unit = hdu.header.get("BUNIT")
            if wcs is None and "CTYPE1" in hdu.header:
                wcs = WCS(hdu.header)
        if hdu.name == "UNCERT":
            kind, error_unit = hdu.header["UTYPE"], hdu.header.get("BUNIT")
    count = len(bands)
    if set(planes["SCI"]) != set(range(count)):
        raise CutoutError(f"'{path}' must hold an image for each of {bands}.")

    def cube(name):
        found = planes[name]
        if not found:
            return None
        first = next(iter(found.values()))
        blank = np.full(first.shape, np.nan) if name != "MASK" else 0 * first
        return np.stack([found.get(index, blank) for index in range(count)])

    error = cube("UNCERT")
    if error is not None:
        error = getattr(nddata, _UNCERTAINTIES[kind])(error, unit=error_unit)
    mask = cube("MASK")
    survey = header["SURVEY"]
    if "SURVDEF" in header:
        survey = Survey.from_json(header["SURVDEF"])
    psf = cube("PSF")
    return SurveyCutout(
        cube("SCI"),
        survey=get_survey(survey),
        bands=bands,
        psf=psf if psf is None else psf.astype(np.result_type(*planes["PSF"].values())),
        unit=unit if unit is not None else "",
        uncertainty=error,
        mask=None if mask is None else mask.astype(bool),
        wcs=wcs,
        meta=_meta(hdus, bands),
        flags=header.get("FLAGS", 0),
        samples=samples,
    )


def _meta(hdus, bands):
    """What the headers say, as a mapping of bands where it is of single bands."""
    meta = {key: value for key, value in hdus[0].header.items() if _is_told(key)}
    images = [hdu for hdu in hdus[1:] if hdu.name == "SCI"]
    for key in _OF_BANDS:
        found = {hdu.ver: hdu.header[key] for hdu in images if key in hdu.header}
        if found:
            meta[key] = {bands[ver - 1]: value for ver, value in found.items()}
    return meta


def _is_told(key):
    """Whether a keyword is passed on with ``meta``."""
    key = key.upper()
    return key not in _OWN and not _STRUCTURE.fullmatch(key)


def _native(array):
    """The array in the byte order of the machine."""
    return array.astype(array.dtype.newbyteorder("="))
