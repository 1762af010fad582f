# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One galaxy in all bands of a survey, as an astropy data object."""

import numbers
from copy import deepcopy

import numpy as np
from astropy.nddata import CCDData, NDData, NDDataRef
from astropy.units import Quantity

from astro_disentangle.data.match import band_names
from astro_disentangle.data.units import header_value, lookup, nanojansky_per
from astro_disentangle.data.unpack import psf_images
from astro_disentangle.data.wcs import celestial
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.surveys import get_survey

__all__ = ["SurveyCutout"]

#: Not passed on to single bands: slicing a band would not keep them true.
_OF_THE_CUBE = ("BANDS", "XGALAXY", "YGALAXY")


class SurveyCutout(NDDataRef):
    """
    A cube (band, y, x) that knows its survey, its bands and their PSFs.

    Iterating goes through the bands, like that of a mapping: ``cutout["r"]`` is
    a `~astropy.nddata.CCDData`, and `items` gives all of them.

    Parameters
    ----------
    data : array_like, `~astropy.units.Quantity` or `~astropy.nddata.NDData`
        Shape (C, ny, nx), flux per pixel. What is not given below is taken from an
        `~astropy.nddata.NDData` or `SurveyCutout`.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.
    bands : str or sequence of str, optional
        C names, such as ``"gri"``, ``"VIS,Y"`` or a list; ``meta["bands"]`` by
        default.
    psf : array_like, model or sequence of them, optional
        Shape (C, h, w), NaN for a band whose PSF is unknown; or an image or an astropy
        model of two inputs for all bands; or a model or None for each.
    unit : `~astropy.units.Unit` or str, optional
        Unit of ``data``; that of the survey by default.
    uncertainty : `~astropy.nddata.NDUncertainty`, optional
        Of the shape of ``data``.
    mask : array_like, optional
        Shape (C, ny, nx), bool, True where a pixel is bad.
    wcs : `~astropy.wcs.WCS`, optional
        Celestial; of more than two axes those on the sky are kept.
    meta : mapping, optional
        Anything else; what FITS headers can hold is written to files. ``PSF_FWHM``
        and ``PIXSCALE`` are in arcsec or angles, ``MAGZERO`` is an AB magnitude; each
        may be a mapping of band to it.
    flags : int, optional
        Row flags; 0 by default.
    samples : array_like, optional
        Shape (S, C, ny, nx), samples of which ``data`` is the mean, in ``unit``.
    copy : bool
        Copy the arrays.

    Raises
    ------
    CutoutError
        If shapes or band names do not fit together.
    SurveyMismatchError
        If the survey is unknown or lacks a band.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import SurveyCutout
    >>> cutout = SurveyCutout(np.ones((2, 9, 8)), survey="legacy", bands=("g", "r"))
    >>> cutout["r"].shape, str(cutout["r"].unit), len(cutout)
    ((9, 8), 'nmgy', 2)
    >>> cutout[:, 2:6, 1:4].shape
    (2, 4, 3)
    """

    def __init__(
        self,
        data,
        *,
        survey=None,
        bands=None,
        psf=None,
        unit=None,
        uncertainty=None,
        mask=None,
        wcs=None,
        meta=None,
        flags=None,
        samples=None,
        copy=False,
    ):
        if isinstance(data, NDData):
            survey = getattr(data, "survey", None) if survey is None else survey
            bands = getattr(data, "bands", None) if bands is None else bands
            flags = getattr(data, "flags", None) if flags is None else flags
            samples = getattr(data, "samples", None) if samples is None else samples
            uncertainty = data.uncertainty if uncertainty is None else uncertainty
            unit = data.unit if unit is None else unit
            mask = data.mask if mask is None else mask
            meta = data.meta if meta is None else meta
            wcs = data.wcs if wcs is None else wcs
            psf = data.psf if psf is None else psf
            data = data.data
        survey = lookup(meta, "SURVEY") if survey is None else survey
        if survey is None:
            raise SurveyMismatchError(
                "'survey' must be given, or meta['SURVEY'] must hold it."
            )
        self._survey = get_survey(survey)
        own_unit = getattr(data, "unit", None)
        if unit is None and own_unit is None:
            unit = self._survey.unit
        super().__init__(
            data,
            uncertainty=uncertainty,
            mask=mask,
            wcs=celestial(wcs),
            meta=dict(meta) if meta is not None else {},
            unit=unit,
            copy=copy,
        )
        if self.data.ndim != 3:
            raise CutoutError(
                f"'data' must be a cube (band, y, x); got the shape {self.data.shape}."
            )
        bands = lookup(meta, "BANDS") if bands is None else bands
        self._bands = _checked_bands(bands, self._survey, len(self.data))
        self.flags = 0 if flags is None else int(flags)
        if self.mask is not None and np.shape(self.mask) not in ((), self.data.shape):
            raise CutoutError(
                f"'mask' must have the shape {self.data.shape}; got "
                f"{np.shape(self.mask)}."
            )
        error = self.uncertainty
        if error is not None and np.shape(error.array) != self.data.shape:
            raise CutoutError(
                f"'uncertainty' must have the shape {self.data.shape}; got "
                f"{np.shape(error.array)}."
            )
        self._psf = _stacked(psf_images(psf, len(self)))
        samples = None if samples is None else np.asarray(samples)
        if samples is not None and samples.shape[1:] != self.data.shape:
            raise CutoutError(
                f"'samples' must have the shape (S, {len(self)}, ny, nx) of the "
                f"cube {self.data.shape}; got {samples.shape}."
            )
        self.samples = samples

    # --- a mapping of bands ------------------------------------------------------

    @property
    def survey(self):
        """The survey (`~astro_disentangle.Survey`)."""
        return self._survey

    @property
    def bands(self):
        """Names of the bands (tuple of str)."""
        return self._bands

    @property
    def shape(self):
        """Shape of the cube, (C, ny, nx)."""
        return self.data.shape

    @property
    def psf(self):
        """PSF images, (C, h, w) or None; NaN for a band whose PSF is unknown."""
        return self._psf

    @psf.setter
    def psf(self, value):
        # NDData's own constructor sets it before this class can check it.
        self._psf = value

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return iter(self.bands)

    def __contains__(self, band):
        return band in self.bands

    def keys(self):
        """
        Names of the bands.

        Returns
        -------
        bands : tuple of str
            In the order of the cube.
        """
        return self.bands

    def values(self):
        """
        The bands as images.

        Returns
        -------
        images : list of `~astropy.nddata.CCDData`
            In the order of the cube.
        """
        return [self[band] for band in self.bands]

    def items(self):
        """
        The bands with their names.

        Returns
        -------
        items : list of (str, `~astropy.nddata.CCDData`)
            In the order of the cube.
        """
        return [(band, self[band]) for band in self.bands]

    def __getitem__(self, item):
        """A band as `CCDData`, some bands, or a part of the cube."""
        if isinstance(item, (str, numbers.Integral)):
            return self._image(self._index(item))
        parts = item if isinstance(item, tuple) else (item,)
        if parts and all(isinstance(part, str) for part in parts):
            parts = (list(parts),)
        if not 1 <= len(parts) <= 3 or any(p is Ellipsis for p in parts):
            raise CutoutError(f"a cut-out is sliced as [bands, y, x]; got {item!r}.")
        return self._part(self._chosen(parts[0]), *parts[1:])

    def _chosen(self, item):
        """Numbers of the bands that an index means."""
        if isinstance(item, slice):
            if not _is_plain(item):
                raise CutoutError(
                    f"a slice of bands must have whole numbers; got {item!r}. Give a "
                    "list of names instead."
                )
            return list(range(len(self)))[item]
        if not isinstance(item, (list, np.ndarray)):
            return [self._index(item)]
        if np.ndim(item) != 1:
            raise CutoutError(
                "bands are chosen by a list of names, numbers or truth values; got one "
                f"of {np.ndim(item)} dimensions."
            )
        if len(item) and all(isinstance(one, (bool, np.bool_)) for one in item):
            if len(item) != len(self):
                raise CutoutError(
                    f"a truth value must be there for each of the {len(self)} bands "
                    f"{self.bands}; got {len(item)}."
                )
            return [int(index) for index in np.flatnonzero(item)]
        return [self._index(band) for band in item]

    def _index(self, band):
        if isinstance(band, numbers.Integral) and not isinstance(band, bool):
            return range(len(self))[band]
        if not isinstance(band, str):
            raise CutoutError(
                f"a band is chosen by its name or number; got {band!r}, of the bands "
                f"{self.bands}."
            )
        if band not in self.bands:
            raise KeyError(f"no band {band!r}; the cut-out has {self.bands}")
        return self.bands.index(band)

    def _part(self, chosen, rows=slice(None), columns=slice(None)):
        bounds = []
        for axis, part in zip("yx", (rows, columns), strict=True):
            size = self.data.shape[1 if axis == "y" else 2]
            plain = isinstance(part, slice) and _is_plain(part)
            if not plain or part.step not in (None, 1):
                raise CutoutError(
                    f"the {axis} axis is sliced by pixels, without a step; got "
                    f"{part!r}."
                )
            start, stop, _ = part.indices(size)
            bounds.append(slice(start, stop))
        if not chosen or any(part.stop <= part.start for part in bounds):
            raise CutoutError("a part of a cut-out must hold at least one pixel.")
        rows, columns = bounds

        def cut(array):
            return array[chosen][:, rows, columns]

        wcs = self.wcs
        if wcs is not None and bounds != [slice(0, n) for n in self.data.shape[1:]]:
            wcs = _sliced_wcs(wcs, rows, columns)
        meta = dict(self.meta)
        for name, part in (("XGALAXY", columns), ("YGALAXY", rows)):
            if name in meta:
                meta[name] = meta[name] - part.start
        error = self.uncertainty
        if error is not None:
            error = type(error)(cut(error.array), unit=error.unit)
        mask = self.mask
        if mask is not None:
            mask = cut(np.broadcast_to(mask, self.data.shape))
        samples = self.samples
        if samples is not None:
            samples = samples[:, chosen][:, :, rows, columns]
        return type(self)(
            cut(self.data),
            survey=self.survey,
            bands=[self.bands[index] for index in chosen],
            psf=None if self.psf is None else self.psf[chosen],
            unit=self.unit,
            uncertainty=error,
            mask=mask,
            wcs=wcs,
            meta=meta,
            flags=self.flags,
            samples=samples,
        )

    def _image(self, index):
        error = self.uncertainty
        if error is not None:
            error = type(error)(error.array[index], unit=error.unit)
        mask = self.mask
        if mask is not None:
            mask = np.broadcast_to(mask, self.data.shape)[index]
        psf = None if self.psf is None else self.psf[index]
        told = {
            key: header_value(key, value, self.bands[index])
            for key, value in self.meta.items()
            if isinstance(key, str) and key.upper() not in _OF_THE_CUBE
        }
        meta = {key: value for key, value in told.items() if value is not None}
        meta |= {"SURVEY": self.survey.name, "BAND": self.bands[index]}
        meta["FLAGS"] = self.flags
        return CCDData(
            self.data[index],
            unit=self.unit,
            uncertainty=error,
            mask=mask,
            wcs=self.wcs,
            psf=psf if psf is not None and np.isfinite(psf).all() else None,
            meta=meta,
        )

    # --- arithmetic ------------------------------------------------------------

    def add(self, operand, operand2=None, **kwargs):
        """
        Sum with a number, an image or another cut-out.

        Survey, bands, PSF and ``meta`` stay. Samples stay where the operand has no
        uncertainty, else the result has none.

        Parameters
        ----------
        operand : number, array_like, `~astropy.units.Quantity` or NDData
            What is added, of a shape that goes with the cube's.
        operand2 : like ``operand``, optional
            With it the sum is that of ``operand`` and ``operand2``.
        **kwargs
            As for `astropy.nddata.NDDataRef.add`.

        Returns
        -------
        cutout : `SurveyCutout`
            The result.

        Raises
        ------
        CutoutError
            If the result is no cube of the same shape, or the zero points of two
            cut-outs in the same unit differ.
        SurveyMismatchError
            If two cut-outs differ in their bands.

        Examples
        --------
        >>> import numpy as np
        >>> from astro_disentangle import SurveyCutout
        >>> cutout = SurveyCutout(np.ones((1, 9, 9)), survey="hsc", bands="r")
        >>> cutout.add(cutout).data.max()
        np.float64(2.0)
        """
        return _combined(self, "add", operand, operand2, kwargs)

    def subtract(self, operand, operand2=None, **kwargs):
        """
        Difference from a number, an image or another cut-out.

        Parameters
        ----------
        operand, operand2, **kwargs
            As for `add`.

        Returns
        -------
        cutout : `SurveyCutout`
            The result.

        Raises
        ------
        CutoutError, SurveyMismatchError
            As for `add`.
        """
        return _combined(self, "subtract", operand, operand2, kwargs)

    def multiply(self, operand, operand2=None, **kwargs):
        """
        Product with a number, an image or another cut-out.

        Parameters
        ----------
        operand, operand2, **kwargs
            As for `add`.

        Returns
        -------
        cutout : `SurveyCutout`
            The result.

        Raises
        ------
        CutoutError, SurveyMismatchError
            As for `add`.
        """
        return _combined(self, "multiply", operand, operand2, kwargs)

    def divide(self, operand, operand2=None, **kwargs):
        """
        Ratio to a number, an image or another cut-out.

        Parameters
        ----------
        operand, operand2, **kwargs
            As for `add`.

        Returns
        -------
        cutout : `SurveyCutout`
            The result.

        Raises
        ------
        CutoutError, SurveyMismatchError
            As for `add`.
        """
        return _combined(self, "divide", operand, operand2, kwargs)

    def _arithmetic(self, *_, **__):
        # Only sums and the like over axes come here.
        raise CutoutError(
            "the result must be a cube (band, y, x), which a sum over its axes is not. "
            "Use NDDataRef(cutout) for it."
        )

    # --- photometry ------------------------------------------------------------

    def aperture_flux(self, aperture):
        """
        Flux in an aperture in every band.

        The errors are those of the spread of the samples, where the cut-out has
        them: pixel uncertainties of a posterior are correlated, and adding them
        in quadrature is wrong. Else they come from the uncertainty, with the
        correlation of the survey's noise where that is known.

        Parameters
        ----------
        aperture : `~photutils.aperture.Aperture`
            In pixels, or on the sky where there is a WCS.

        Returns
        -------
        table : `~astropy.table.QTable`
            Columns ``band``, ``flux`` and ``flux_err`` in nJy; fluxes are (C,), or
            (C, P) for an aperture with P positions. Masked pixels are left out; an
            aperture without a good pixel in a band is NaN. Errors are NaN where there
            is neither sample nor uncertainty.

        Raises
        ------
        CutoutError
            If the aperture is on the sky and there is no WCS, or the unit or the kind
            of the uncertainty is not understood.

        Examples
        --------
        >>> import numpy as np
        >>> from photutils.aperture import CircularAperture
        >>> from astro_disentangle import SurveyCutout
        >>> cutout = SurveyCutout(np.ones((1, 9, 9)), survey="legacy", bands=["r"])
        >>> table = cutout.aperture_flux(CircularAperture((4, 4), 2))
        >>> round(table["flux"].value[0] / cutout.survey.nanojansky / np.pi, 2)
        np.float64(4.0)
        """
        from astro_disentangle.data.aperture import aperture_flux

        return aperture_flux(self, aperture)

    # --- mosaics ---------------------------------------------------------------

    @classmethod
    def from_image(cls, images, positions, *, survey=None, size=None, object_id=None):
        """
        Cut-outs of galaxies in the mosaics of a survey.

        Parameters
        ----------
        images : mapping of str to `~astropy.nddata.CCDData`, or cube
            The mosaics, one for each band, each with a size and WCS of its own; bands
            on other pixels than those of the finest band are resampled to them.
        positions : `~astropy.coordinates.SkyCoord` or array_like
            Where the galaxies are, on the sky, or as pixels (x, y) of the bluest band's
            image, 0-based: one, or N of them.
        survey : str or `~astro_disentangle.Survey`, optional
            The survey; ``meta["SURVEY"]`` by default.
        size : int, optional
            Pixels on a side; by default as many as the model's field needs.
        object_id : sequence of str, optional
            N names.

        Returns
        -------
        cutouts : `SurveyCutout` or sequence of them
            One for a single position, else N, which are cut when they are asked for.
            Pixels beyond the mosaics are NaN and masked; a galaxy that is in none of
            them gives a cut-out that is flagged ``UNUSABLE``.

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
        >>> from astro_disentangle import SurveyCutout
        >>> mosaic = {"r": CCDData(np.ones((200, 300)), unit="nmgy")}
        >>> places = [(50, 60), (70.2, 99.1)]
        >>> cutouts = SurveyCutout.from_image(mosaic, places, survey="legacy")
        >>> len(cutouts), cutouts[0]["r"].shape
        (2, (32, 32))
        """
        from astro_disentangle.data.mosaic import MosaicCutouts

        views = MosaicCutouts(
            images, positions, survey=survey, size=size, object_id=object_id
        )
        return views[0] if views.isscalar else views

    # --- files -----------------------------------------------------------------

    @classmethod
    def read(cls, path):
        """
        Read a cut-out from a FITS file that `write` wrote.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The file.

        Returns
        -------
        cutout : `SurveyCutout`
            The cut-out.

        Raises
        ------
        CutoutError
            If the file is missing, damaged or of another kind.
        """
        from astro_disentangle.data.fits import read_cutout

        return read_cutout(path)

    def write(self, path, *, overwrite=False):
        """
        Write a multi-extension FITS file.

        Where the WCS has distortions that are tables on its pixels, which such a
        file does not hold, the gnomonic WCS that agrees with it in the middle of the
        image is written instead.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The file.
        overwrite : bool
            Replace a file that is there.

        Raises
        ------
        OSError
            If the file is there and ``overwrite`` is False.
        CutoutError
            If the WCS, the uncertainty or the type of the data is not one that FITS
            can hold.
        """
        from astro_disentangle.data.fits import write_cutout

        write_cutout(self, path, overwrite=overwrite)

    def __repr__(self):
        _, ny, nx = self.data.shape
        bands = "".join(self.bands) if max(map(len, self.bands)) == 1 else self.bands
        return f"<SurveyCutout {self.survey.name} {bands}, {nx} x {ny} px, {self.unit}>"

    __str__ = __repr__


def _checked_bands(bands, survey, count):
    if bands is None:
        raise CutoutError("'bands' must be given, or meta['bands'] must hold them.")
    bands = tuple(band_names(bands, count))
    if len(set(bands)) != count:
        raise CutoutError(
            f"'bands' must be {count} different names, one for each plane of the "
            f"cube; got {bands}."
        )
    unknown = [band for band in bands if band not in survey.bands]
    if unknown:
        raise SurveyMismatchError(
            f"'bands' must be bands of {survey.name}, {survey.bands}; got "
            f"{unknown[0]!r}."
        )
    return bands


def _stacked(images):
    """PSF images as one array (C, h, w), NaN where unknown."""
    if images is None or isinstance(images, np.ndarray):
        return images
    shapes = {image.shape for image in images if image is not None}
    if len(shapes) > 1:
        raise CutoutError(
            f"'psf' must have images of one shape; got {sorted(shapes)}. Pad the "
            "smaller ones with zeros."
        )
    blank = np.full(shapes.pop(), np.nan)
    return np.stack([blank if image is None else image for image in images])


def _is_plain(part):
    """Whether a slice counts in whole numbers."""
    ends = (part.start, part.stop, part.step)
    return all(end is None or isinstance(end, numbers.Integral) for end in ends)


def _combined(cutout, name, operand, operand2, options):
    """Result of an operation of which at least one side is a cut-out."""
    sides = [cutout, operand] if operand2 is None else [operand, operand2]
    cutouts = [side for side in sides if isinstance(side, SurveyCutout)]
    own = cutouts[0] if cutouts else cutout
    if len(cutouts) == 2:
        _check_alike(*cutouts, is_sum=name in ("add", "subtract"))
    # astropy makes an operand of the class that it is called on, and numbers have no
    # survey. It drops the PSF with a warning.
    plain = [NDDataRef(side) if isinstance(side, NDData) else side for side in sides]
    for side in plain:
        if isinstance(side, NDDataRef):
            side.psf = None
    result = getattr(NDDataRef, name)(*plain, **options)
    error, mask, shape = result.uncertainty, result.mask, result.data.shape
    if error is not None:
        array = np.broadcast_to(error.array, shape).copy()
        error = type(error)(array, unit=error.unit)
    meta = result.meta if "handle_meta" in options else deepcopy(own.meta)
    # The noise of the mosaic is not that of the result.
    meta = {k: v for k, v in meta.items() if str(k).upper() != "SKYSIGMA"}
    return SurveyCutout(
        result,
        uncertainty=error,
        mask=None if mask is None else np.broadcast_to(mask, shape).copy(),
        survey=own.survey,
        bands=own.bands,
        psf=own.psf,
        meta=meta,
        flags=int(np.bitwise_or.reduce([one.flags for one in cutouts] or [own.flags])),
        samples=_combined_samples(name, sides, result),
    )


def _check_alike(first, second, *, is_sum):
    """Raise if the planes of two cut-outs, or sums of their numbers, mean nothing."""
    if first.bands != second.bands:
        raise SurveyMismatchError(
            "two cut-outs must have the same bands in the same order; got "
            f"{first.bands} and {second.bands}. Choose them by cutout[[...]]."
        )
    if not is_sum or first.unit != second.unit:
        return
    for band in first.bands:
        one, other = (
            nanojansky_per(side.unit, side.survey, side.meta, band)[0]
            for side in (first, second)
        )
        if abs(one / other - 1) > 1e-6:
            raise CutoutError(
                "two cut-outs in one unit must have the same zero point; in band "
                f"{band!r} a unit is {one:.6g} and {other:.6g} nJy. Multiply one of "
                "them by the ratio and set its meta['MAGZERO'] first."
            )


def _combined_samples(name, sides, result):
    """Samples (S, C, ny, nx) of a result whose other side is known exactly."""
    parts, sampled = [], 0
    for side in sides:
        samples = getattr(side, "samples", None)
        known = NDDataRef(side)
        if samples is None and known.uncertainty is not None:
            return None
        sampled += samples is not None
        parts.append(Quantity(known.data if samples is None else samples, known.unit))
    if sampled != 1:
        return None
    operation = np.true_divide if name == "divide" else getattr(np, name)
    return operation(*parts).to_value(result.unit or "").astype(result.data.dtype)


def _sliced_wcs(wcs, rows, columns):
    if hasattr(wcs, "slice"):
        return wcs.slice((rows, columns))
    from astropy.wcs.wcsapi import HighLevelWCSWrapper, SlicedLowLevelWCS

    low = getattr(wcs, "low_level_wcs", wcs)
    return HighLevelWCSWrapper(SlicedLowLevelWCS(low, (rows, columns)))
