# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One galaxy in all bands of a survey, as an astropy data object."""

import numbers
import warnings

import numpy as np
from astropy.nddata import CCDData, NDDataRef

from astro_disentangle.data.units import lookup
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.survey import get_survey

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
    data : array_like or `~astropy.units.Quantity`
        Shape (C, ny, nx), flux per pixel.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.
    bands : sequence of str, optional
        C names; ``meta["bands"]`` by default.
    psf : array_like, optional
        Shape (C, h, w), NaN for a band whose PSF is unknown.
    unit : `~astropy.units.Unit` or str, optional
        Unit of ``data``; that of the survey by default.
    uncertainty : `~astropy.nddata.NDUncertainty`, optional
        Of the shape of ``data``.
    mask : array_like, optional
        Shape (C, ny, nx), bool, True where a pixel is bad.
    wcs : `~astropy.wcs.WCS`, optional
        2-D, celestial.
    meta : mapping, optional
        Anything else; what FITS headers can hold is written to files.
    flags : int
        Row flags.
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
        flags=0,
        samples=None,
        copy=False,
    ):
        meta = getattr(data, "meta", None) if meta is None else meta
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
            wcs=wcs,
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
        self.flags = int(flags)
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
        psf = getattr(data, "psf", None) if psf is None else psf
        psf = None if psf is None else np.asarray(psf)
        if psf is not None and (psf.ndim != 3 or len(psf) != len(self)):
            raise CutoutError(
                f"'psf' must have the shape ({len(self)}, h, w); got {psf.shape}."
            )
        self._psf = psf
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
        if isinstance(item, list):
            return self._part([self._index(band) for band in item])
        parts = item if isinstance(item, tuple) else (item,)
        if not 1 <= len(parts) <= 3 or any(p is Ellipsis for p in parts):
            raise CutoutError(f"a cut-out is sliced as [bands, y, x]; got {item!r}.")
        chosen = parts[0]
        if isinstance(chosen, slice):
            chosen = list(range(len(self)))[chosen]
        elif isinstance(chosen, (list, np.ndarray)):
            chosen = [self._index(band) for band in chosen]
        else:
            chosen = [self._index(chosen)]
        spatial = [slice(None), slice(None)]
        spatial[: len(parts) - 1] = parts[1:]
        return self._part(chosen, *spatial)

    def _index(self, band):
        if isinstance(band, numbers.Integral):
            return range(len(self))[band]
        if band not in self.bands:
            raise KeyError(f"no band {band!r}; the cut-out has {self.bands}")
        return self.bands.index(band)

    def _part(self, chosen, rows=slice(None), columns=slice(None)):
        bounds = []
        for axis, part in zip("yx", (rows, columns), strict=True):
            size = self.data.shape[1 if axis == "y" else 2]
            if not isinstance(part, slice) or part.step not in (None, 1):
                raise CutoutError(
                    f"the {axis} axis is sliced without a step; got {part!r}."
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
        plain = (str, bool, numbers.Real, np.bool_)
        meta = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in self.meta.items()
            if isinstance(value, plain) and key.upper() not in _OF_THE_CUBE
        }
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

    def _arithmetic(self, *args, **kwargs):
        with warnings.catch_warnings():
            # astropy drops the PSF and says so; it is kept here.
            warnings.filterwarnings("ignore", message="Not setting psf")
            result, options = super()._arithmetic(*args, **kwargs)
        options |= {"survey": self.survey, "bands": self.bands, "flags": self.flags}
        return result, options | {"psf": self.psf}

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
            Columns ``band``, ``flux`` and ``flux_err`` in nJy, NaN where there
            is neither sample nor uncertainty; fluxes are (C,), or (C, P) for
            an aperture with P positions. Masked pixels are left out.

        Raises
        ------
        CutoutError
            If the aperture is on the sky and there is no WCS.

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
            Where the galaxies are, on the sky, or as pixels (x, y) of the first band's
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
        one = getattr(positions, "isscalar", np.ndim(positions) == 1)
        return views[0] if one else views

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
            If the WCS is not one that FITS can hold.
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
    bands = tuple(bands) if not isinstance(bands, str) else tuple(bands.split(","))
    if len(bands) != count or len(set(bands)) != count:
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


def _sliced_wcs(wcs, rows, columns):
    if hasattr(wcs, "slice"):
        return wcs.slice((rows, columns))
    from astropy.wcs.wcsapi import HighLevelWCSWrapper, SlicedLowLevelWCS

    low = getattr(wcs, "low_level_wcs", wcs)
    return HighLevelWCSWrapper(SlicedLowLevelWCS(low, (rows, columns)))
