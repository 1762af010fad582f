# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs from mosaics: large images of a survey and a catalogue of positions.

The mosaics are looked at once, and only the pixels of a cut-out are read when it is
asked for. Pixels stay as they are, in the orientation of the mosaic; bands on other
pixels than those of the finest one are brought to them.
"""

from collections.abc import Sequence

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty

from astro_disentangle.data.cutout import SurveyCutout
from astro_disentangle.data.geometry import OutsideError, window_size
from astro_disentangle.data.layout import lay_out
from astro_disentangle.data.match import match_bands, survey_of
from astro_disentangle.data.measure import measure_fwhm, render_psf
from astro_disentangle.data.regrid import bridge, regrid, regrid_psf
from astro_disentangle.data.units import (
    header_value,
    lookup,
    nanojansky_per,
    sigma_of,
)
from astro_disentangle.data.unpack import unpack
from astro_disentangle.data.wcs import tangent_wcs, windowed_wcs
from astro_disentangle.data.window import (
    around_noise,
    is_native,
    overlap,
    window_corner,
)
from astro_disentangle.quality import FLAGS, CutoutError, check_count

__all__ = ["MosaicCutouts"]

#: A cut-out with more masked pixels than this in every band is unusable.
_MASKED_SHARE = 0.5


class MosaicCutouts(Sequence):
    """
    Cut-outs at positions in the mosaics of a survey, made when they are asked for.

    Parameters
    ----------
    images : mapping of str to `~astropy.nddata.CCDData`, or cube
        The mosaics, one for each band, each with a size and WCS of its own.
    positions : `~astropy.coordinates.SkyCoord` or array_like
        Shape (N,), or pixels (x, y) of the bluest band's image, shape (N, 2).
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
        self._positions, self.isscalar = _positions(positions)
        object_id = [object_id] if isinstance(object_id, str) else object_id
        if object_id is not None and len(object_id) != len(self._positions):
            raise CutoutError(
                "'object_id' must have a name for each of the "
                f"{len(self._positions)} positions; got {len(object_id)}."
            )
        self._object_id = object_id
        on_sky = isinstance(self._positions, SkyCoord)
        if on_sky and any(plane.wcs is None for plane in self._planes):
            raise CutoutError("positions on the sky need mosaics with a WCS.")
        self._unit, self._zero_point = self._common_unit()
        # nJy of the unit of the cut-outs, and that unit in those of the mosaics.
        known = {} if self._zero_point is None else {"MAGZERO": self._zero_point}
        self._factor, _ = nanojansky_per(self._unit, self.survey, known)
        self._scales, self._flags = {}, 0
        for index, plane in self._bands.items():
            own, assumed = nanojansky_per(
                plane.unit, self.survey, plane.meta, plane.band
            )
            self._scales[index] = own / self._factor
            if plane.uncertainty is not None:
                kind, _, unit = plane.uncertainty
                sigma_of(kind, unit, plane.unit, own)
            if assumed:
                self._flags |= FLAGS.ASSUMED_UNIT
            if lookup(plane.meta, "NORTH_UP") == "assumed":
                self._flags |= FLAGS.NO_WCS

    def _common_unit(self):
        """Unit and zero point of the cut-outs: those of all mosaics, else nJy."""
        units = {plane.unit for plane in self._planes}
        points = []
        for index, plane in self._bands.items():
            point = lookup(plane.meta, "MAGZERO")
            points.append(header_value("MAGZERO", point, self.survey.bands[index]))
        if len(units) > 1 or len(set(points)) > 1:
            return "nJy", None
        unit = units.pop()
        return ("" if unit is None else unit), points[0]

    def __len__(self):
        return len(self._positions)

    def __getitem__(self, row):
        """The cut-out at a position, or a list of those of a slice or an array."""
        if not np.isscalar(row) or isinstance(row, (bool, np.bool_)):
            return [self[int(index)] for index in np.arange(len(self))[row]]
        row = range(len(self))[row]
        position = self._positions[row]
        if not isinstance(position, SkyCoord):
            position = tuple(position)
        meta = {}
        if self._object_id is not None:
            meta["OBJECT_ID"] = str(self._object_id[row])
        try:
            layout = lay_out(self._bands, self.survey, position=position, upright=False)
        except OutsideError:
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
        flags = self._flags
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
        uncertainty, told = self._noise(layout, [error for _, error in parts], size)
        return self._made(
            np.stack([pixels for pixels, _ in parts]).astype(np.float32),
            mask=mask,
            uncertainty=uncertainty,
            wcs=windowed_wcs(layout.wcs, corner, size),
            psf=self._psf(layout),
            flags=flags,
            meta=meta | told,
        )

    def _part(self, index, layout, size):
        """One band in the window: data, NaN where bad, and its errors or None."""
        if index not in layout.bands:
            return np.full((size, size), np.nan), None
        plane, where = layout.bands[index]
        scale = self._scales[index]
        if layout.congruent(where, size):
            corner = layout.corner(where, window_corner(layout.place, size))
            return _window(plane, corner, size, scale)
        corner, wide, affine = bridge(where, layout.place, size)
        pixels, errors = _window(plane, corner, wide, scale)
        good = np.isfinite(pixels)
        images = [np.where(good, pixels, 0.0)]
        if errors is not None:
            good &= errors > 0
            images.append(np.where(good, errors, 0.0) ** 2)
        # The noise per area stays, so a variance goes over like a flux.
        images = np.stack(images)
        out, fine = regrid(images, np.broadcast_to(good, images.shape), affine, size)
        out[0][~fine[0]] = np.nan
        if errors is None or not good.any():
            return out[0], None
        # A spline swings beyond the steps of a map.
        low, high = (f(images[1][good]) for f in (np.min, np.max))
        area = abs(np.linalg.det(affine[:, :2]))
        return out[0], np.sqrt(np.clip(out[1], low * area, high * area))

    def _noise(self, layout, errors, size):
        """
        Uncertainty of the cut-out, and what ``meta`` says where there is none.

        A mosaic has more sky than a cut-out in which to measure noise, so what is not
        told is measured here.
        """
        measured = {}
        native = is_native(layout.place, self.survey)
        # Around the model's window, however large the cut-out is.
        window = window_size(layout.place, self.survey)
        for index, (plane, where) in layout.bands.items():
            if plane.uncertainty is None:
                wide = window
                if not layout.congruent(where, size):
                    wide = bridge(where, layout.place, window)[1]
                sigma = around_noise(plane, where, wide, self.survey)
                own = 1.0 if native else layout.place.scale / self.survey.pixel_scale
                measured[index] = sigma * own / self._factor
        if all(plane.uncertainty is None for plane in self._planes):
            named = {self.survey.bands[i]: float(v) for i, v in measured.items()}
            return None, {"SKYSIGMA": named}
        factor = self._told("NOISEFAC")
        usual = self.survey.noise_factor if native else 1.0
        planes = []
        for index, error in zip(self._bands, errors, strict=True):
            if error is None:
                band = self.survey.bands[index]
                sigma = measured.get(index, np.nan) / factor.get(band, usual)
                error = np.full((size, size), sigma)
            planes.append(error)
        return StdDevUncertainty(np.stack(planes).astype(np.float32)), {}

    def _made(self, data, *, meta, **parts):
        """A cut-out with what all of the mosaics' headers say."""
        if self._zero_point is not None:
            meta["MAGZERO"] = self._zero_point
        for name in ("NOISEFAC", "PSF_FWHM"):
            told = self._told(name)
            if len(told) == len(self._bands) and len(set(told.values())) == 1:
                meta[name] = next(iter(told.values()))
            elif told:
                meta[name] = told
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
        told = {}
        for index, plane in self._bands.items():
            band = self.survey.bands[index]
            value = lookup(plane.meta, name)
            told[band] = header_value(name, value, plane.band)
            if told[band] is None:
                told[band] = header_value(name, value, band)
        return {band: value for band, value in told.items() if value is not None}

    def _nothing(self, position, meta):
        """A masked cut-out for a position that no mosaic reaches."""
        size = self._size or self.survey.stamp_size
        shape = (len(self._bands), size, size)
        middle = (size - 1) / 2
        plane = self._planes[0]
        wcs = None
        if not isinstance(position, SkyCoord):
            if plane.wcs is not None and np.isfinite(position).all():
                corner = tuple(round(value - middle) for value in position)
                wcs = windowed_wcs(plane.wcs, corner, size)
        elif np.isfinite(
            [position.spherical.lon.deg, position.spherical.lat.deg]
        ).all():
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
            flags=self._flags | FLAGS.UNUSABLE | FLAGS.PADDED,
            meta=meta,
        )

    def _psf(self, layout):
        """PSF images on the pixels of the reference, (C, h, w), or None."""
        images = {}
        for index, (plane, where) in layout.bands.items():
            if plane.psf is None:
                continue
            psf = np.asarray(plane.psf, dtype=float)
            change = where.matrix @ np.linalg.inv(layout.place.matrix)
            if np.abs(change - np.eye(2)).max() > 0.01:
                # The square of a coarser pixel would stay in an image of it.
                width = float(measure_fwhm(psf, where.scale))
                psf = render_psf(width, self.survey.psf_beta, layout.place.scale)
            images[index] = psf
        if not images:
            return None
        if len({psf.shape for psf in images.values()}) > 1:
            # An image with an even side has its middle between two pixels.
            images = {
                index: psf
                if all(n % 2 for n in psf.shape)
                else regrid_psf(psf, np.eye(2))
                for index, psf in images.items()
            }
        sides = zip(*(psf.shape for psf in images.values()), strict=True)
        shape = tuple(max(side) for side in sides)
        cube = np.full((len(self._bands), *shape), np.nan, np.float32)
        for number, index in enumerate(self._bands):
            if index in images:
                cube[number] = _framed(images[index], shape)
        return cube


def _positions(positions):
    """Positions as a SkyCoord (N,) or an array (N, 2), and if it is only one."""
    if isinstance(positions, SkyCoord):
        return positions.reshape(-1), positions.isscalar
    positions = list(positions) if np.iterable(positions) else positions
    if positions and isinstance(positions, list) and isinstance(positions[0], SkyCoord):
        return SkyCoord(positions).reshape(-1), False
    try:
        array = np.asarray(positions, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(1)
    one = array.shape == (2,)
    array = array.reshape(-1, 2) if one or array.shape == (0,) else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise CutoutError(
            "'positions' must be a SkyCoord or pixels (x, y) of the shape (N, 2); got "
            f"the shape {np.shape(positions)}."
        )
    return array, one


def _window(plane, corner, size, scale):
    """Data of a band in a window, NaN where bad, and its errors or None."""
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
    errors = np.full((size, size), np.nan)
    errors[window] = array[image]
    with np.errstate(all="ignore"):
        errors = factor * errors**power
    return pixels, np.where(np.isfinite(errors) & (errors > 0), errors, np.nan)


def _framed(psf, shape):
    """A PSF image in the middle of a larger frame of zeros."""
    before = [(new - old) // 2 for new, old in zip(shape, psf.shape, strict=True)]
    pads = [
        (b, new - old - b) for b, new, old in zip(before, shape, psf.shape, strict=True)
    ]
    return np.pad(psf, pads)
