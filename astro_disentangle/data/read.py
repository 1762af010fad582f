# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From the sky to tensors.

Each cut-out becomes a row: a window about the galaxy, in nJy per native pixel,
turned so that x goes to the west and y to the north. What a row holds depends
on its own cut-out alone, never on the other rows of the batch.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord

from astro_disentangle.data.cutout import SurveyCutout
from astro_disentangle.data.layout import lay_out
from astro_disentangle.data.match import match_bands, survey_of
from astro_disentangle.data.measure import source_flags
from astro_disentangle.data.stellarity import known_psfs, star_flag
from astro_disentangle.data.stream import each_cutout
from astro_disentangle.data.units import lookup
from astro_disentangle.data.unpack import unpack
from astro_disentangle.data.window import read_windows
from astro_disentangle.quality import FLAGS, CutoutError, SurveyMismatchError

__all__ = [
    "BAD_SHARE",
    "USABLE_SHARE",
    "Cutouts",
    "check_field",
    "check_native",
    "identity",
    "read_cutouts",
]

#: Shares of the window: more bad pixels than this are flagged, and a row is
#: unusable unless a band has at least this many good ones.
BAD_SHARE = 0.05
USABLE_SHARE = 0.5
_DYADIC = 4096
#: Flags that a cut-out brings with it because its pixels no longer tell.
_BROUGHT = FLAGS.PADDED | FLAGS.NO_WCS | FLAGS.ASSUMED_UNIT


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
    sky : `~numpy.ndarray`
        Shape (N, 2), right ascension and declination of each galaxy, ICRS, degrees;
        NaN without a WCS.
    """

    batch: object
    object_id: list
    sky: np.ndarray

    def __len__(self):
        return len(self.object_id)

    def __getitem__(self, rows):
        """The rows of a slice."""
        return Cutouts(self.batch[rows], self.object_id[rows], self.sky[rows])

    @classmethod
    def from_arrays(cls, flux, survey, **known):
        """
        Cut-outs that are arrays already, on the survey's own pixels.

        Parameters
        ----------
        flux, survey, **known
            As for `~astro_disentangle.data.arrays.read_arrays`: ``bands``, ``unit``,
            ``noise``, ``mask``, ``psf_fwhm``, ``object_id``, ``coords``.

        Returns
        -------
        cutouts : `Cutouts`
            What `~astro_disentangle.Disentangler.transform` and the others take.

        Examples
        --------
        >>> import numpy as np
        >>> from astro_disentangle import Cutouts, Disentangler
        >>> flux = np.random.default_rng(0).normal(size=(3, 5, 60, 60))
        >>> cutouts = Cutouts.from_arrays(flux, "hsc", noise=np.ones(5))
        >>> Disentangler.load().transform(cutouts)["physics"].shape
        (3, 128)
        """
        from astro_disentangle.data.arrays import read_arrays

        return read_arrays(flux, survey, **known)

    def coord(self, row):
        """Position of a galaxy (`~astropy.coordinates.SkyCoord`, ICRS), or None."""
        if not np.isfinite(self.sky[row]).all():
            return None
        return SkyCoord(*self.sky[row], unit="deg")


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
    sky: tuple


def read_cutouts(cutouts, survey=None, position=None):
    """
    Read cut-outs of one survey into tensors.

    Parameters
    ----------
    cutouts : mapping of str to `~astropy.nddata.CCDData`, `NDData`, or iterable
        One cut-out or any number of them: mappings of band to image, cubes
        (band, y, x) with ``meta["bands"]``, 2-D images with ``meta["BAND"]``,
        `~astro_disentangle.SurveyCutout`, rows of the Multimodal Universe, or image
        objects of AION-1. They are never changed.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.
    position : `~astropy.coordinates.SkyCoord` or (x, y), or sequence, optional
        Where the galaxy is, on the sky or as 0-based pixel; one for all, or one
        for each cut-out. The centre of the image by default.

    Returns
    -------
    cutouts : `Cutouts`
        The batch, names and sky positions.

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
    rows = [
        _read_row(cutout, survey, place)
        for cutout, place in each_cutout(cutouts, position)
    ]
    if not rows:
        raise CutoutError("'cutouts' must hold at least one cut-out; got none.")
    names = sorted({row.survey.name for row in rows})
    if any(row.survey != rows[0].survey for row in rows):
        raise SurveyMismatchError(
            f"all cut-outs of one call must be of one survey; got {names}."
        )
    return Cutouts(
        batch=_batch(rows),
        object_id=[row.object_id for row in rows],
        sky=np.array([row.sky for row in rows], dtype=float),
    )


def check_native(cutouts):
    """
    Raise where a cut-out is not on its survey's own pixels, which training paints.

    Parameters
    ----------
    cutouts : `Cutouts`
        The cut-outs.

    Raises
    ------
    CutoutError
        If pixels of one are more than 1 px from where they would be, north up.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import Cutouts
    >>> from astro_disentangle.data.read import check_native
    >>> check_native(Cutouts.from_arrays(np.ones((1, 5, 60, 60)), "hsc"))
    """
    batch, survey = cutouts.batch, cutouts.batch.survey
    linear = batch.affine[:, :, :2].double().cpu().numpy() * survey.pixel_scale
    shift = np.abs(linear - np.eye(2)).sum(2).max(1) * survey.stamp_size / 2
    if (shift > 1.0).any():
        row = int(np.argmax(shift))
        raise CutoutError(
            f"cut-outs to learn from must be on the pixel grid of {survey.name}, north "
            f"up, {survey.pixel_scale} arcsec; pixels of {cutouts.object_id[row]!r} "
            f"are up to {shift[row]:.1f} px off. Use the survey's own coadds, or "
            "reproject."
        )


def _read_row(cutout, survey, position):
    planes = unpack(cutout, survey)
    survey = survey_of(planes, survey)
    matched = match_bands(planes, survey)
    meta = _common(matched.values())
    layout = lay_out(matched, survey, meta=meta, position=position)
    place = layout.place
    check_field(layout.shape, place.scale, survey)
    windows = read_windows(layout, survey)
    pixels, good = windows.pixels, windows.good
    brought = cutout.flags if isinstance(cutout, SurveyCutout) else 0
    flags = windows.flags | _flags(layout, windows, survey, brought)
    # On a dyadic grid of positions whole pixels can be added in float32 without
    # rounding, which would depend on the other rows of a batch.
    galaxy = np.array([place.x - windows.corner[0], place.y - windows.corner[1]])
    galaxy = np.round(galaxy * _DYADIC) / _DYADIC
    if flags & FLAGS.UNUSABLE:
        pixels[:], good[:] = 0.0, False
    else:
        # Noise is that of the survey's pixels, the window may have others.
        noise = windows.noise * (place.scale / survey.pixel_scale)
        seen, where = (pixels, good, noise), (*galaxy, place.scale)
        images = known_psfs(layout, windows.psf_fwhm, survey)
        found = source_flags(*seen, where)
        flags |= found or star_flag(*seen, (images, windows.psf_fwhm), where)
    name = lookup(meta, "OBJECT_ID", "OBJECT")
    number, object_id = identity(name, pixels, good)
    return _Row(
        survey=survey,
        pixels=pixels,
        good=good,
        noise=windows.noise,
        psf_fwhm=windows.psf_fwhm,
        affine=np.column_stack([place.matrix, galaxy]).astype(np.float32),
        flags=flags,
        key=number,
        object_id=object_id,
        sky=(np.nan, np.nan) if place.sky is None else place.sky,
    )


def _flags(layout, windows, survey, brought):
    """What is less than ordinary about the window, apart from the source in it."""
    flags = brought & _BROUGHT
    plane, _ = next(iter(layout.bands.values()))
    if layout.wcs is None or lookup(plane.meta, "NORTH_UP") == "assumed":
        flags |= FLAGS.NO_WCS
    if abs(layout.place.scale / survey.pixel_scale - 1) > 0.02:
        flags |= FLAGS.PIXEL_SCALE
    inside, good = windows.inside, windows.good
    seen = [index for index in layout.bands if good[index].any()]
    if len(seen) < len(survey.bands):
        flags |= FLAGS.MISSING_BANDS
    if not (seen and brought & FLAGS.MISSING_BANDS):
        # A band that is there and has not one good pixel is a bad one.
        seen = list(layout.bands)
    inside, good = inside[seen], good[seen]
    if not np.isfinite(windows.psf_fwhm[seen]).all():
        flags |= FLAGS.NO_PSF
    if not good.all():
        field = _field(layout.place, windows.corner, survey, good.shape[1:])
        inside, good = inside[:, field], good[:, field]
        if (inside & ~good).mean(1).max() > BAD_SHARE:
            flags |= FLAGS.BAD_PIXELS
        if not inside.all():
            flags |= FLAGS.PADDED
        if good.mean(1).max() < USABLE_SHARE:
            flags |= FLAGS.UNUSABLE
    return flags


def _field(place, corner, survey, shape):
    """Which pixels of a window are in the field of the survey, (n, n) bool."""
    if shape[0] == survey.stamp_size:
        return np.ones(shape, bool)
    # A window that is turned against the sky is larger than the field.
    y, x = np.indices(shape)
    offset = np.stack([x + corner[0] - place.x, y + corner[1] - place.y])
    west, north = np.tensordot(np.linalg.inv(place.matrix), offset, 1)
    return np.maximum(np.abs(west), np.abs(north)) <= survey.field / 2


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


def check_field(shape, scale, survey):
    """
    Raise if an image is too small to be looked at.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the image.
    scale : float
        Its pixel scale in arcsec.
    survey : `~astro_disentangle.Survey`
        The survey.

    Raises
    ------
    SurveyMismatchError
        If it covers less than half of the survey's field.
    """
    smallest = min(shape) * scale
    if smallest < survey.field / 2:
        raise SurveyMismatchError(
            f"an image must cover at least half of the field of {survey.name}, "
            f"{survey.field:.2f} arcsec; got {smallest:.2f} arcsec."
        )


def identity(name, pixels, good):
    """
    Key and name of an object.

    The key is that of the pixels: a name may be that of a whole field, and its
    galaxies must not share their noise.

    Parameters
    ----------
    name : object
        What it is called; None or blank if nobody has said.
    pixels, good : `~numpy.ndarray`
        Its window.

    Returns
    -------
    key : int
        Of 63 bits.
    name : str
        The name, else the key in hexadecimal digits.
    """
    digest = hashlib.blake2b(
        np.ascontiguousarray(pixels).tobytes() + good.tobytes(), digest_size=8
    ).digest()
    number = int.from_bytes(digest, "little") >> 1
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    name = "" if name is None else str(name).strip()
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
