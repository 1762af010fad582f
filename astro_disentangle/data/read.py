# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From the sky to tensors.

Each cut-out becomes a row: a window about the galaxy, in nJy per native pixel,
turned so that x goes to the west and y to the north. What a row holds depends
on its own cut-out alone, never on the other rows of the batch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData

from astro_disentangle.data.geometry import locate, window_size
from astro_disentangle.data.match import match_bands, survey_of
from astro_disentangle.data.measure import is_blank, is_large
from astro_disentangle.data.units import lookup
from astro_disentangle.data.unpack import unpack
from astro_disentangle.data.wcs import same_grid
from astro_disentangle.data.window import psf_fwhm, read_window, window_corner
from astro_disentangle.quality import FLAGS, CutoutError, SurveyMismatchError

__all__ = ["Cutouts", "read_cutouts"]

#: Shares of the window: more bad pixels than this are flagged, and a row is
#: unusable unless a band has at least this many good ones.
_BAD_SHARE = 0.05
_USABLE_SHARE = 0.5


@dataclass(frozen=True)
class Cutouts:
    """
    A batch and what is needed to bring its results back to the sky.

    Parameters
    ----------
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        The tensors, one row for each cut-out.
    object_id : list of str
        Names from ``meta``, else the digest of the pixels.
    coord : list of `~astropy.coordinates.SkyCoord` or None
        ICRS position of each galaxy; None without a WCS.
    wcs : list
        2-D celestial WCS of each cut-out's first band, or None.
    """

    batch: object
    object_id: list
    coord: list
    wcs: list

    def __len__(self):
        return len(self.object_id)


@dataclass
class _Row:
    """One cut-out, (C, n, n) arrays and (C,) numbers."""

    survey: object
    pixels: np.ndarray
    good: np.ndarray
    noise: np.ndarray
    psf_fwhm: np.ndarray
    affine: np.ndarray
    flags: int
    key: int
    object_id: str
    coord: object
    wcs: object


def read_cutouts(cutouts, survey=None, position=None):
    """
    Read cut-outs of one survey into tensors.

    Parameters
    ----------
    cutouts : mapping of str to `~astropy.nddata.CCDData`, `NDData`, or iterable
        One cut-out or any number of them: mappings of band to image, cubes
        (band, y, x) with ``meta["bands"]``, 2-D images with ``meta["BAND"]``, or
        `~astro_disentangle.SurveyCutout`. They are never changed.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.
    position : `~astropy.coordinates.SkyCoord` or (x, y), or sequence, optional
        Where the galaxy is, on the sky or as 0-based pixel; one for all, or one
        for each cut-out. The centre of the image by default.

    Returns
    -------
    cutouts : `Cutouts`
        The batch, names, sky positions and WCS.

    Raises
    ------
    CutoutError
        If a cut-out cannot be read as an image of the sky.
    SurveyMismatchError
        If a cut-out and its survey do not fit together, or the cut-outs are of
        more than one survey.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.data.read import read_cutouts
    >>> from astro_disentangle.quality import decode_flags
    >>> noise = np.random.default_rng(0).normal(size=(50, 50))
    >>> image = CCDData(noise, unit="nmgy")
    >>> read = read_cutouts({"r": image}, survey="legacy")
    >>> read.batch.pixels.shape
    torch.Size([1, 4, 32, 32])
    >>> decode_flags(read.batch.flags[0])
    ['MISSING_BANDS', 'NO_WCS', 'NO_UNCERTAINTY', 'NO_PSF', 'BLANK']
    """
    one = isinstance(cutouts, (Mapping, NDData))
    if not one and (isinstance(cutouts, (str, bytes)) or not _iterable(cutouts)):
        raise CutoutError(
            "'cutouts' must be a cut-out or an iterable of them; got "
            f"{type(cutouts).__name__}. Read files with CCDData.read first."
        )
    cutouts = [cutouts] if one else list(cutouts)
    if not cutouts:
        raise CutoutError("'cutouts' must hold at least one cut-out; got none.")
    places = _positions(position, len(cutouts))
    rows = [
        _read_row(cutout, survey, place)
        for cutout, place in zip(cutouts, places, strict=True)
    ]
    names = sorted({row.survey.name for row in rows})
    if any(row.survey != rows[0].survey for row in rows):
        raise SurveyMismatchError(
            f"all cut-outs of one call must be of one survey; got {names}."
        )
    return Cutouts(
        batch=_batch(rows),
        object_id=[row.object_id for row in rows],
        coord=[row.coord for row in rows],
        wcs=[row.wcs for row in rows],
    )


def _iterable(value):
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _positions(position, count):
    """One position, or None, for each cut-out."""
    if position is None:
        return [None] * count
    if isinstance(position, SkyCoord):
        shared = position.isscalar
    else:
        try:
            position = list(position)
        except TypeError:
            raise CutoutError(
                f"'position' must be a SkyCoord or a pixel (x, y); got {position!r}."
            ) from None
        shared = len(position) == 2 and all(
            np.ndim(value) == 0 and isinstance(value, (int, float, np.number))
            for value in position
        )
    if shared:
        return [position] * count
    if len(position) != count:
        raise CutoutError(
            f"'position' must be one place, or one for each of the {count} cut-outs; "
            f"got {len(position)}."
        )
    return list(position)


def _read_row(cutout, survey, position):
    planes = unpack(cutout)
    survey = survey_of(planes, survey)
    matched = match_bands(planes, survey)
    first = next(iter(matched.values()))
    meta = _common(matched.values())
    place = locate(first.wcs, first.data.shape, survey, meta=meta, position=position)
    _check_field(first.data.shape, place, survey)
    size = window_size(place, survey)
    corner = window_corner(place, size)
    flags = 0
    if first.wcs is None:
        flags |= FLAGS.NO_WCS
    if abs(place.scale / survey.pixel_scale - 1) > 0.02:
        flags |= FLAGS.PIXEL_SCALE
    if len(matched) < len(survey.bands):
        flags |= FLAGS.MISSING_BANDS
    count = len(survey.bands)
    pixels = np.zeros((count, size, size), np.float32)
    good = np.zeros((count, size, size), bool)
    noise = np.full(count, np.nan, np.float32)
    widths = np.full(count, np.nan, np.float32)
    for index, plane in matched.items():
        if plane.data.shape != first.data.shape or not same_grid(
            first.wcs, plane.wcs, first.data.shape
        ):
            raise CutoutError(
                "the bands of a cut-out must be on one pixel grid; "
                f"{plane.band!r} and {first.band!r} differ in shape or WCS. Bring "
                "them to one grid first, for example with reproject."
            )
        window = read_window(plane, place, corner, size, survey)
        pixels[index], good[index], noise[index], inside, more = window
        flags |= more
        widths[index] = psf_fwhm(plane, place)
        if not np.isfinite(widths[index]):
            flags |= FLAGS.NO_PSF
        bad = inside & ~good[index]
        if bad.sum() > _BAD_SHARE * bad.size:
            flags |= FLAGS.BAD_PIXELS
        if not inside.all():
            flags |= FLAGS.PADDED
    if good.mean((1, 2)).max() < _USABLE_SHARE:
        flags |= FLAGS.UNUSABLE
        pixels[:], good[:] = 0.0, False
    galaxy = (place.x - corner[0], place.y - corner[1])
    if not flags & FLAGS.UNUSABLE:
        where = (*galaxy, place.scale)
        if is_blank(pixels, good, noise, where):
            flags |= FLAGS.BLANK
        elif is_large(pixels, good, noise, where):
            flags |= FLAGS.LARGE
    number, object_id = _identity(meta, pixels, good)
    return _Row(
        survey=survey,
        pixels=pixels,
        good=good,
        noise=noise,
        psf_fwhm=widths,
        affine=np.column_stack([place.matrix, galaxy]).astype(np.float32),
        flags=flags,
        key=number,
        object_id=object_id,
        coord=place.coord,
        wcs=first.wcs,
    )


def _common(planes):
    """What the headers say about the object, of the first band that says it."""
    meta = {}
    for name in ("OBJECT_ID", "OBJECT", "PIXSCALE", "XGALAXY", "YGALAXY"):
        for plane in planes:
            value = lookup(plane.meta, name)
            if value is not None:
                meta[name] = value
                break
    return meta


def _check_field(shape, place, survey):
    smallest = min(shape) * place.scale
    if smallest < survey.field / 2:
        raise SurveyMismatchError(
            f"an image must cover at least half of the field of {survey.name}, "
            f"{survey.field:.2f} arcsec; got {smallest:.2f} arcsec."
        )


def _identity(meta, pixels, good):
    """
    Key and name of an object.

    The key is that of the pixels: a name may be that of a whole field, and its
    galaxies must not share their noise.
    """
    digest = hashlib.blake2b(
        np.ascontiguousarray(pixels).tobytes() + good.tobytes(), digest_size=8
    ).digest()
    number = int.from_bytes(digest, "little") >> 1
    name = lookup(meta, "OBJECT_ID", "OBJECT")
    name = name.decode() if isinstance(name, bytes) else str(name or "").strip()
    return number, name or f"{number:016x}"


def _batch(rows):
    """Rows of any window size as one batch; the smaller ones are padded."""
    import torch

    from astro_disentangle.data.batch import CutoutBatch

    survey = rows[0].survey
    size = max(survey.stamp_size, *(row.pixels.shape[-1] for row in rows))
    shape = (len(rows), len(survey.bands), size, size)
    pixels, good = np.zeros(shape, np.float32), np.zeros(shape, bool)
    affine = np.stack([row.affine for row in rows])
    for number, row in enumerate(rows):
        own = row.pixels.shape[-1]
        edge = (size - own) // 2
        part = (number, ..., slice(edge, edge + own), slice(edge, edge + own))
        pixels[part], good[part] = row.pixels, row.good
        affine[number, :, 2] += edge
    return CutoutBatch(
        survey=survey,
        pixels=torch.from_numpy(pixels),
        good=torch.from_numpy(good),
        noise=torch.from_numpy(np.stack([row.noise for row in rows])),
        psf_fwhm=torch.from_numpy(np.stack([row.psf_fwhm for row in rows])),
        affine=torch.from_numpy(affine),
        flags=torch.tensor([row.flags for row in rows], dtype=torch.int64),
        keys=torch.tensor([row.key for row in rows], dtype=torch.int64),
    )
