# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A look at the raw cards of a FITS file before anything else reads it.

A negative axis makes some readers loop, and a large one makes them ask for all
memory there is: the sizes that the headers claim must be in the file.
"""

import gzip
import math
import re
import zlib
from pathlib import Path

from astro_disentangle.quality import CutoutError, DisentangleError

__all__ = ["check_fits"]

_BLOCK = 2880
_WCS_NUMBER = re.compile(r"(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC)[12]_[12]")
_MAX_BLOCKS = 64
_MAX_AXIS = 65536
_MAX_HDUS = 1000
#: Uncompressed bytes of a compressed file, and their ratio to the compressed.
_MAX_UNPACKED = 64 * 2**20
_MAX_RATIO = 200


def check_fits(path):
    """
    Refuse files that are not sound FITS files of images.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file, plain or gzipped.

    Raises
    ------
    CutoutError
        If it is missing, not a regular file, not FITS, truncated, or claims
        sizes that it cannot have; the message names the file and the card.

    Examples
    --------
    >>> from astro_disentangle.data.headers import check_fits
    >>> check_fits("no such file.fits")
    Traceback (most recent call last):
    ...
    astro_disentangle.quality.CutoutError: there is no file 'no such file.fits'.
    """
    path = Path(path)
    try:
        _check(path)
    except OSError as error:
        if isinstance(error, DisentangleError):
            raise
        raise CutoutError(f"cannot read '{path}': {error.strerror}") from error


def _check(path):
    if not path.exists():
        raise CutoutError(f"there is no file '{path}'.")
    if not path.is_file():
        raise CutoutError(f"'{path}' is not a regular file.")
    size = path.stat().st_size
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not packed:
            _walk(stream, size, path)
            return
        with gzip.open(stream) as unpacked:
            _walk(unpacked, _unpacked_size(unpacked, size, path), path)


def _unpacked_size(stream, packed, path):
    count = 0
    try:
        while part := stream.read(2**20):
            count += len(part)
            if count > min(_MAX_UNPACKED, _MAX_RATIO * packed):
                raise CutoutError(
                    f"'{path}' must not unpack to more than {_MAX_UNPACKED} bytes, or "
                    f"{_MAX_RATIO} times its size; unpack it yourself if you trust it."
                )
        stream.seek(0)
    except (OSError, EOFError, zlib.error) as error:
        raise CutoutError(f"'{path}' is a damaged gzip file: {error}") from error
    return count


def _walk(stream, size, path):
    """Go from header to header without reading the data."""
    offset = 0
    for number in range(_MAX_HDUS):
        if size - offset < _BLOCK:
            break
        stream.seek(offset)
        cards, length = _cards(stream, number, path)
        data = _data_size(cards, number, path)
        offset += length + data
        if offset > size:
            raise CutoutError(
                f"'{path}' is truncated: HDU {number} claims {data} bytes of data, "
                f"the file has {size} in all."
            )
        offset += -data % _BLOCK
    if offset == 0:
        raise CutoutError(f"'{path}' is not a FITS file: it has {size} bytes.")


def _cards(stream, number, path):
    first = b"SIMPLE  =" if number == 0 else b"XTENSION="
    cards = {}
    for block in range(_MAX_BLOCKS):
        raw = stream.read(_BLOCK)
        if block == 0 and not raw.startswith(first):
            if number:
                # Anything may follow the last HDU.
                return {}, _BLOCK
            raise CutoutError(f"'{path}' is not a FITS file: no SIMPLE card.")
        for start in range(0, len(raw), 80):
            card = raw[start : start + 80]
            name = card[:8].rstrip()
            if name == b"END":
                return cards, (block + 1) * _BLOCK
            if card[8:10] == b"= ":
                value = card[10:].split(b"/")[0].strip()
                cards.setdefault(name.decode("ascii", "replace"), value)
    raise CutoutError(
        f"'{path}': the header of HDU {number} has no END within {_MAX_BLOCKS} blocks."
    )


def _is_finite(text):
    try:
        return math.isfinite(float(text.replace(b"D", b"E")))
    except ValueError:
        return False


def _check_wcs(cards, number, path):
    """Refuse what wcslib silently takes as zero."""
    for name, text in cards.items():
        if _WCS_NUMBER.fullmatch(name) and not _is_finite(text):
            shown = text.decode("ascii", "replace")
            raise CutoutError(
                f"'{path}': {name} of HDU {number} must be a number; got {shown}. The "
                "WCS would be read as if it were zero."
            )


def _data_size(cards, number, path):
    if not cards:
        return 0
    if number == 0 and cards.get("SIMPLE") != b"T":
        raise CutoutError(f"'{path}' is not a FITS file: SIMPLE is not T.")

    def whole(name, low, high, default=None):
        text = cards.get(name)
        if text is None and default is not None:
            return default
        try:
            value = int(text)
        except (TypeError, ValueError):
            value = None
        if value is None or not low <= value <= high:
            shown = None if text is None else text.decode("ascii", "replace")
            raise CutoutError(
                f"'{path}': {name} of HDU {number} must be an integer between {low} "
                f"and {high}; got {shown}."
            )
        return value

    _check_wcs(cards, number, path)
    bits = whole("BITPIX", -64, 64)
    if bits not in (8, 16, 32, 64, -32, -64):
        raise CutoutError(f"'{path}': BITPIX of HDU {number} is no FITS type: {bits}.")
    table = b"TABLE" in cards.get("XTENSION", b"")
    axes = whole("NAXIS", 0, 4)
    limit = 2**40 if table else _MAX_AXIS
    sizes = [
        whole(f"NAXIS{axis + 1}", 0 if table else 1, limit) for axis in range(axes)
    ]
    if "ZNAXIS" in cards:
        for axis in range(whole("ZNAXIS", 1, 4)):
            whole(f"ZNAXIS{axis + 1}", 1, _MAX_AXIS)
    if not axes:
        return 0
    count = 1
    for size in sizes:
        count *= size
    heap = whole("PCOUNT", 0, 2**40, default=0)
    return abs(bits) // 8 * whole("GCOUNT", 1, 2**20, default=1) * (heap + count)
