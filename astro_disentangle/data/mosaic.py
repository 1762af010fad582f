# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs from mosaics: large images of a survey and a catalogue of positions.

The mosaics are looked at once, and only the pixels of a cut-out are read when it is
asked for. Pixels stay as they are, in the orientation of the mosaic; bands on other
pixels than those of the finest one are brought to them.
"""

from collections.abc import Sequence

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    InverseVariance,
    StdDevUncertainty,
    VarianceUncertainty,
)

from astro_disentangle.data.cutout import SurveyCutout
from astro_disentangle.data.geometry import window_size
from astro_disentangle.data.layout import lay_out
from astro_disentangle.data.match import match_bands, survey_of
from astro_disentangle.data.regrid import regrid, regrid_psf
from astro_disentangle.data.units import lookup, nanojansky_per, sigma_of
from astro_disentangle.data.unpack import unpack
from astro_disentangle.data.wcs import tangent_wcs, windowed_wcs
from astro_disentangle.data.window import overlap, window_corner
from astro_disentangle.quality import FLAGS, CutoutError, check_count

__all__ = ["MosaicCutouts"]

#: A cut-out with more masked pixels than this in every band is unusable.
_MASKED_SHARE = 0.5
_KINDS = {
    "std": StdDevUncertainty,
    "var": VarianceUncertainty,
    "ivar": InverseVariance,
}


class MosaicCutouts(Sequence):
    """
    Cut-outs at positions in the mosaics of a survey, made when they are asked for.

    Parameters
    ----------
    images : mapping of str to `~astropy.nddata.CCDData`, or cube
        The mosaics, one for each band, each with a size and WCS of its own.
    positions : `~astropy.coordinates.SkyCoord` or array_like
        Shape (N,), or pixels (x, y) of the first band's image, shape (N, 2).
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.
    size : int, optional
        Pixels on a side; by default as many as the model's field needs.
    object_id : sequence of str, optional
        N names.

    Raises
    ------
    CutoutError
        If a mosaic cannot be read, or lacks the WCS that sky positions need.
    SurveyMismatchError
        If the mosaics and the survey do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.data.mosaic import MosaicCutouts
    >>> image = CCDData(np.ones((200, 300)), unit="nmgy")
    >>> views = MosaicCutouts({"r": image}, [(50, 60), (70.2, 99.1)], survey="legacy")
    >>> len(views), views[1].shape
    (2, (1, 32, 32))
    """

    def __init__(self, images, positions, *, survey=None, size=None, object_id=None):
        planes = unpack(images, survey)
        self.survey = survey_of(planes, survey)
        self._bands = match_bands(planes, self.survey)
        self._planes = list(self._bands.values())
        self._size = None if size is None else check_count("size", size)
        self._positions = _positions(positions)
        if object_id is not None and len(object_id) != len(self._positions):
            raise CutoutError(
                "'object_id' must have a name for each of the "
                f"{len(self._positions)} positions; got {len(object_id)}."
            )
        self._object_id = object_id
        on_sky = isinstance(self._positions, SkyCoord)
        if on_sky and any(plane.wcs is None for plane in self._planes):
            raise CutoutError("positions on the sky need mosaics with a WCS.")
        self._unit, self._zero_point = _common_unit(self._planes)

    def __len__(self):
        return len(self._positions)

    def __getitem__(self, row):
        """The cut-out at a position, or those of a slice as a list."""
        if isinstance(row, slice):
            return [self[index] for index in range(len(self))[row]]
        row = range(len(self))[row]
        position = self._positions[row]
        if not isinstance(position, SkyCoord):
            position = tuple(position)
        meta = {}
        if self._object_id is not None:
            meta["OBJECT_ID"] = str(self._object_id[row])
        try:
            layout = lay_out(self._bands, self.survey, position=position, upright=False)
        except CutoutError:
            # A catalogue reaches beyond its mosaics: the row is flagged.
            return self._nothing(position, meta)
        return self._cut(layout, meta)

    def _cut(self, layout, meta):
        """The cut-out about the galaxy of a layout."""
        place = layout.place
        size = self._size or window_size(place, self.survey)
        corner = window_corner(place, size)
        parts = [self._part(index, layout, size) for index in self._bands]
        mask = np.stack([~np.isfinite(pixels) for pixels, _ in parts])
        flags = 0
        if len(layout.bands) < len(self._bands):
            flags |= FLAGS.MISSING_BANDS
        window, _ = overlap(layout.shape, corner, size)
        if window != (slice(0, size), slice(0, size)):
            flags |= FLAGS.PADDED
        if mask.mean((1, 2)).min() > _MASKED_SHARE:
            flags |= FLAGS.UNUSABLE
        meta |= {
            "PIXSCALE": place.scale,
            "XGALAXY": place.x - corner[0],
            "YGALAXY": place.y - corner[1],
        }
        return self._made(
            np.stack([pixels for pixels, _ in parts]).astype(np.float32),
            mask=mask,
            uncertainty=self._uncertainty([error for _, error in parts]),
            wcs=windowed_wcs(layout.wcs, corner, size),
            psf=self._psf(layout),
            flags=flags,
            meta=meta,
        )

    def _part(self, index, layout, size):
        """
        One band in the window: data, NaN where bad, and uncertainty.

        The uncertainty is (kind, values), or None.
        """
        if index not in layout.bands:
            return np.full((size, size), np.nan), None
        plane, where = layout.bands[index]
        if not layout.congruent(where, size):
            return self._brought(index, plane, where, layout, size)
        return _window(plane, window_corner(where, size), size, self._scale(index))

    def _uncertainty(self, errors):
        """Uncertainties of the bands, of one kind, where every mosaic has them."""
        kinds = {plane.uncertainty and plane.uncertainty[0] for plane in self._planes}
        if None in kinds:
            return None
        kind = kinds.pop() if len(kinds) == 1 else "std"
        known = next(values for _, values in filter(None, errors))
        blank = np.full(known.shape, 0.0 if kind == "ivar" else np.nan)
        planes = [blank if e is None else _as_kind(*e, kind) for e in errors]
        return _KINDS[kind](np.stack(planes).astype(np.float32))

    def _made(self, data, *, meta, **parts):
        """A cut-out with what all of the mosaics' headers say."""
        if self._zero_point is not None:
            meta["MAGZERO"] = self._zero_point
        told = self._told("NOISEFAC")
        if len(set(told.values())) == 1 and len(told) == len(self._bands):
            meta["NOISEFAC"] = next(iter(told.values()))
        if told := self._told("PSF_FWHM"):
            meta["PSF_FWHM"] = told
        return SurveyCutout(
            data,
            survey=self.survey,
            bands=[self.survey.bands[index] for index in self._bands],
            unit=self._unit,
            meta=meta,
            **parts,
        )

    def _told(self, name):
        """What the mosaics' headers say, by name of the band."""
        told = {
            self.survey.bands[index]: lookup(plane.meta, name)
            for index, plane in self._bands.items()
        }
        return {band: value for band, value in told.items() if value is not None}

    def _nothing(self, position, meta):
        """A masked cut-out for a position that no mosaic reaches."""
        size = self._size or self.survey.stamp_size
        shape = (len(self._bands), size, size)
        middle = (size - 1) / 2
        wcs = None
        if isinstance(position, SkyCoord):
            matrix = np.eye(2) / self.survey.pixel_scale
            wcs = tangent_wcs(position, matrix, middle, middle, shape[1:])
        meta |= {
            "PIXSCALE": self.survey.pixel_scale,
            "XGALAXY": middle,
            "YGALAXY": middle,
        }
        return self._made(
            np.full(shape, np.nan, np.float32),
            mask=np.ones(shape, bool),
            wcs=wcs,
            flags=FLAGS.UNUSABLE | FLAGS.PADDED,
            meta=meta,
        )

    def _scale(self, index):
        """Unit of the cut-outs in that of a band's mosaic."""
        plane = self._bands[index]
        own, _ = nanojansky_per(plane.unit, self.survey, plane.meta, plane.band)
        zero_point = {} if self._zero_point is None else {"MAGZERO": self._zero_point}
        return own / nanojansky_per(self._unit, self.survey, zero_point)[0]

    def _brought(self, index, plane, where, layout, size):
        """A band on other pixels: data, mask and standard deviations, brought over."""
        own = layout.place
        change = where.matrix @ np.linalg.inv(own.matrix)
        reach = np.abs(change).sum(1).max() * (size / 2 + 0.5)
        wide = 2 * int(np.ceil(reach + 4)) + 1
        corner = window_corner(where, wide)
        pixels, error = _window(plane, corner, wide, self._scale(index))
        bad = ~np.isfinite(pixels)
        middle = np.array([own.x, own.y]) - window_corner(own, size) - (size - 1) / 2
        centre = np.array([where.x, where.y]) - corner - change @ middle
        affine = np.column_stack([change, centre])
        images = [np.where(bad, 0.0, pixels)]
        if error is not None:
            variance = _as_kind(*error, "var")
            known = np.isfinite(variance) & (variance > 0)
            bad = bad | ~known
            images.append(np.where(known, variance, 0.0))
        # The noise per area stays, so a variance goes over like a flux.
        images = np.stack(images)
        out, good = regrid(images, np.broadcast_to(~bad, images.shape), affine, size)
        out[0][~good[0]] = np.nan
        error = None if error is None else ("var", np.maximum(out[1], 0.0))
        return out[0], error

    def _psf(self, layout):
        """PSF images on the pixels of the reference, (C, h, w), or None."""
        images = []
        for index, plane in self._bands.items():
            plane, where = layout.bands.get(index, (plane, None))
            if plane.psf is None or where is None:
                images.append(None)
                continue
            psf = np.asarray(plane.psf, dtype=float)
            change = where.matrix @ np.linalg.inv(layout.place.matrix)
            if np.abs(change - np.eye(2)).max() > 0.01:
                psf = regrid_psf(psf, change)
            images.append(psf)
        known = [psf.shape for psf in images if psf is not None]
        if not known:
            return None
        shape = tuple(max(sides) for sides in zip(*known, strict=True))
        cube = np.full((len(images), *shape), np.nan, np.float32)
        for number, psf in enumerate(images):
            if psf is not None:
                cube[number] = _framed(psf, shape)
        return cube


def _positions(positions):
    """Positions as a SkyCoord (N,) or an array (N, 2)."""
    if isinstance(positions, SkyCoord):
        return positions.reshape(-1)
    try:
        positions = np.atleast_2d(np.asarray(positions, dtype=float))
    except (TypeError, ValueError):
        positions = np.empty(0)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise CutoutError(
            "'positions' must be a SkyCoord or pixels (x, y) of the shape (N, 2); got "
            f"the shape {positions.shape}."
        )
    return positions


def _common_unit(planes):
    """Unit and zero point of the cut-outs: those of all mosaics, else nJy."""
    units = {plane.unit for plane in planes}
    points = {lookup(plane.meta, "MAGZERO") for plane in planes}
    if len(units) == 1 and len(points) == 1:
        unit, point = units.pop(), points.pop()
        if not isinstance(point, dict):
            return ("" if unit is None else unit), point
    return "nJy", None


def _window(plane, corner, size, scale):
    """Data, NaN where bad, and uncertainty (kind, array) of a band in a window."""
    pixels = np.full((size, size), np.nan)
    window, image = overlap(plane.data.shape, corner, size)
    pixels[window] = plane.data[image]
    pixels *= scale
    pixels[~np.isfinite(pixels)] = np.nan
    if plane.mask is not None:
        pixels[window][plane.mask[image] != 0] = np.nan
    if plane.uncertainty is None:
        return pixels, None
    kind, array, unit = plane.uncertainty
    power, factor = sigma_of(kind, unit, plane.unit, scale)
    values = np.full((size, size), 0.0 if kind == "ivar" else np.nan)
    values[window] = array[image]
    return pixels, (kind, values * factor ** (1 / power))


def _as_kind(kind, values, wanted):
    """Values of one kind of uncertainty as another kind."""
    if kind == wanted:
        return values
    powers = {"std": 1.0, "var": 2.0, "ivar": -2.0}
    with np.errstate(all="ignore"):
        out = np.abs(values) ** (powers[wanted] / powers[kind])
    return np.where(np.isfinite(out), out, np.nan)


def _framed(psf, shape):
    """A PSF image in the middle of a larger frame of zeros."""
    before = [(new - old) // 2 for new, old in zip(shape, psf.shape, strict=True)]
    pads = [
        (b, new - old - b) for b, new, old in zip(before, shape, psf.shape, strict=True)
    ]
    return np.pad(psf, pads)
