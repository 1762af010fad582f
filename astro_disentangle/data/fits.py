# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs as multi-extension FITS files.

The primary HDU has no data; its header holds ``SURVEY``, ``BANDS``, ``FLAGS``
and what of ``meta`` fits into a header. Each band has the extensions ``SCI``,
``MASK``, ``UNCERT`` and ``PSF``, as far as they are known, of which ``EXTVER``
counts the bands from 1; ``SAMPLES`` holds the samples.
"""

import math
import numbers
import os
import re
import warnings
from pathlib import Path

import numpy as np

from astro_disentangle.data.headers import check_fits
from astro_disentangle.quality import CutoutError, DisentangleError
from astro_disentangle.survey import SURVEYS, Survey, get_survey

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
}


def write_cutout(cutout, path, *, overwrite=False):
    """
    Write a cut-out; `SurveyCutout.write` is this function.

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
        If the WCS is not one that FITS can hold.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        hdus = fits.HDUList([_primary(cutout, fits)])
        for index in range(len(cutout)):
            hdus.extend(_band(cutout, index, fits))
        if cutout.samples is not None:
            hdus.append(fits.ImageHDU(cutout.samples, name="SAMPLES"))
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
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if isinstance(value, (str, bool, numbers.Real)) or value is None:
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
        header.update(cutout.wcs.to_header(relax=True))
    header["BAND"] = cutout.bands[index]
    if cutout.unit is not None:
        header["BUNIT"] = cutout.unit.to_string()
    number = index + 1
    yield fits.ImageHDU(cutout.data[index], header, name="SCI", ver=number)
    if cutout.mask is not None:
        mask = np.broadcast_to(cutout.mask, cutout.data.shape)[index]
        yield fits.ImageHDU(mask.astype(np.uint8), name="MASK", ver=number)
    error = cutout.uncertainty
    if error is not None:
        header = fits.Header()
        header["UTYPE"] = error.uncertainty_type
        if error.unit is not None:
            header["BUNIT"] = error.unit.to_string()
        yield fits.ImageHDU(error.array[index], header, name="UNCERT", ver=number)
    if cutout.psf is not None and np.isfinite(cutout.psf[index]).all():
        yield fits.ImageHDU(cutout.psf[index], name="PSF", ver=number)


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
        meta={key: value for key, value in header.items() if _is_told(key)},
        flags=header.get("FLAGS", 0),
        samples=samples,
    )


def _is_told(key):
    """Whether a keyword is passed on with ``meta``."""
    key = key.upper()
    return key not in _OWN and not _STRUCTURE.fullmatch(key)


def _native(array):
    """The array in the byte order of the machine."""
    return array.astype(array.dtype.newbyteorder("="))
