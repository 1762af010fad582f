# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""All forms of a cut-out become a list of planes, one for each band.

Nothing is copied here and no pixel is read: large images on disk stay there.
"""

from collections.abc import Mapping

import numpy as np
from astropy.nddata import NDData

# The format "mmu" of CCDData.read comes with everything that reads cut-outs.
import astro_disentangle.data.mmu_reader  # noqa: F401
from astro_disentangle.data.aion import images_of_aion, is_aion
from astro_disentangle.data.match import band_names
from astro_disentangle.data.mmu import is_row, planes_of
from astro_disentangle.data.plane import Plane
from astro_disentangle.data.units import lookup
from astro_disentangle.data.wcs import celestial
from astro_disentangle.quality import CutoutError

__all__ = ["psf_images", "unpack"]

_FORMS = (
    "a mapping of band to CCDData, an NDData cube (band, y, x) with meta['bands'], a "
    "2-D CCDData with meta['BAND'], a SurveyCutout, a row of the Multimodal Universe, "
    "or an object with flux and bands"
)
#: Pixels on a side of the image of a PSF that is given as a model.
_PSF_SIZE = 31
#: Parameters in which astropy's models hold their centre.
_CENTRES = (("x_0", "y_0"), ("x_mean", "y_mean"))


def unpack(cutout, survey=None):
    """
    The planes of one cut-out.

    Parameters
    ----------
    cutout : cut-out
        In any of the forms that the package takes.
    survey : str or `~astro_disentangle.Survey`, optional
        Which of the images of a row with several is meant.

    Returns
    -------
    planes : list of `Plane`
        In the order given.

    Raises
    ------
    CutoutError
        If it is none of the forms, or its arrays are not images.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.data.unpack import unpack
    >>> image = CCDData(np.ones((9, 8)), unit="nmgy")
    >>> [plane.band for plane in unpack({"g": image, "r": image})]
    ['g', 'r']
    """
    name = getattr(survey, "name", survey)
    if not isinstance(cutout, NDData):
        if is_row(cutout):
            planes = planes_of(cutout, name)
            for plane in planes:
                _check_image(plane.data, 2, f"band {plane.band!r}")
            return planes
        if is_aion(cutout):
            cutout = images_of_aion(cutout, name)
    if isinstance(cutout, Mapping):
        if not cutout:
            raise CutoutError("a cut-out must have at least one band; got none.")
        return [_image(band, image) for band, image in cutout.items()]
    if not isinstance(cutout, NDData):
        raise CutoutError(f"a cut-out must be {_FORMS}; got {type(cutout).__name__}.")
    if np.ndim(cutout.data) == 2:
        band = lookup(cutout.meta, "BAND", "FILTER")
        if band is None:
            raise CutoutError(
                "a 2-D image must say its band in meta['BAND'], or be given as "
                "{band: image}."
            )
        return [_image(band, cutout)]
    _check_image(cutout.data, 3, "a cut-out")
    bands = getattr(cutout, "bands", None) or lookup(cutout.meta, "bands")
    return _cube(cutout, band_names(bands, len(cutout.data)))


def _image(band, image):
    if not isinstance(band, str):
        raise CutoutError(f"the name of a band must be a string; got {band!r}.")
    if not isinstance(image, NDData):
        image = _wrap(band, image)
    what = f"band {band!r}"
    _check_image(image.data, 2, what)
    shape = image.data.shape
    error = image.uncertainty
    if error is not None:
        error = (error.uncertainty_type, error.array, error.unit)
        _check_shape(f"'uncertainty' of {what}", error[1], shape)
    psf = _psf(image.psf, what)
    return Plane(
        band=band,
        data=image.data,
        mask=_mask(image.mask, shape, what),
        unit=image.unit,
        uncertainty=error,
        wcs=celestial(image.wcs),
        psf=psf,
        meta=image.meta,
    )


def psf_images(psf, count):
    """
    PSF images of the bands of a cube.

    Parameters
    ----------
    psf : array_like, model, sequence or None
        Shape (C, h, w), or an image (h, w) or astropy model of two inputs for all
        bands, or one of these or None for each band.
    count : int
        C, how many bands there are.

    Returns
    -------
    images : sequence of `~numpy.ndarray` or None, or None
        C images (h, w) in pixels of the cube, None or NaN for a band whose PSF is
        unknown; None without any.

    Raises
    ------
    CutoutError
        If it is none of these.

    Examples
    --------
    >>> from photutils.psf import CircularGaussianPSF
    >>> from astro_disentangle.data.unpack import psf_images
    >>> images = psf_images([None, CircularGaussianPSF(fwhm=3)], 2)
    >>> images[0], images[1].shape
    (None, (31, 31))
    """
    if psf is None:
        return None
    if _is_model(psf):
        psf = _psf(psf, "the cube")
    elif isinstance(psf, (list, tuple)) and any(p is None or _is_model(p) for p in psf):
        images = [_psf(one, "the cube") for one in psf]
        if len(images) != count:
            raise CutoutError(
                f"'psf' must have an entry for each of the {count} bands; got "
                f"{len(images)}."
            )
        return images if any(one is not None for one in images) else None
    try:
        psf = np.asarray(psf)
    except ValueError as error:
        raise CutoutError(f"'psf' cannot be read as images: {error}") from error
    psf = np.broadcast_to(psf, (count, *psf.shape)) if psf.ndim == 2 else psf
    if psf.dtype.kind not in "iuf" or psf.ndim != 3 or len(psf) != count:
        raise CutoutError(
            f"'psf' must have the shape ({count}, h, w) or (h, w), or be astropy "
            f"models of two inputs; got the shape {psf.shape}, dtype {psf.dtype}."
        )
    return psf


def _is_model(psf):
    return hasattr(psf, "evaluate") and getattr(psf, "n_inputs", 0) == 2


def _psf(psf, what):
    """A PSF image (h, w) in pixels of the image, from an image or a model."""
    if psf is None:
        return None
    if _is_model(psf):
        names = next((pair for pair in _CENTRES if hasattr(psf, pair[0])), ())
        centre = [float(getattr(psf, name).value) for name in names] or [0.0, 0.0]
        axis = np.arange(_PSF_SIZE) - (_PSF_SIZE - 1) / 2
        return np.asarray(psf(axis + centre[0], axis[:, None] + centre[1]), dtype=float)
    psf = np.asarray(psf)
    if psf.ndim != 2 or psf.dtype.kind not in "iuf":
        raise CutoutError(
            f"'psf' of {what} must be a 2-D image or an astropy model of two inputs; "
            f"got {psf.ndim} dimensions, dtype {psf.dtype}."
        )
    return psf


def _wrap(band, image):
    """Bare arrays, Quantities and lists as NDData."""
    try:
        return NDData(image)
    except (TypeError, ValueError) as error:
        raise CutoutError(f"band {band!r} cannot be read as an image: {error}") from (
            error
        )


def _cube(cutout, bands):
    shape = cutout.data.shape
    error = cutout.uncertainty
    if error is not None:
        _check_shape("'uncertainty'", error.array, shape)
    mask = _mask(cutout.mask, shape, "the cube")
    wcs = celestial(cutout.wcs)
    meta = cutout.meta
    if hasattr(cutout, "survey"):
        meta = {**meta, "SURVEY": cutout.survey}
    psf = psf_images(cutout.psf, len(bands))
    return [
        Plane(
            band=str(band),
            data=cutout.data[index],
            mask=None if mask is None else mask[index],
            unit=cutout.unit,
            uncertainty=None
            if error is None
            else (error.uncertainty_type, error.array[index], error.unit),
            wcs=wcs,
            psf=None if psf is None else psf[index],
            meta=meta,
        )
        for index, band in enumerate(bands)
    ]


def _check_image(data, dimensions, what):
    data = np.asanyarray(data)
    if data.dtype.kind not in "iuf":
        raise CutoutError(f"{what} must hold real numbers; got the dtype {data.dtype}.")
    if data.ndim != dimensions:
        raise CutoutError(
            f"{what} must have {dimensions} dimensions; got the shape {data.shape}."
        )
    if not data.size:
        raise CutoutError(f"{what} is empty: its shape is {data.shape}.")


def _check_shape(name, array, shape):
    dtype = np.asanyarray(array).dtype
    if np.shape(array) != shape:
        raise CutoutError(
            f"{name} must have the shape of the image, {shape}; got {np.shape(array)}."
        )
    if dtype.kind not in "iuf":
        raise CutoutError(f"{name} must hold real numbers; got the dtype {dtype}.")


def _mask(mask, shape, what):
    if mask is None or mask is np.ma.nomask:
        return None
    if np.ndim(mask) == 0:
        return np.broadcast_to(np.asarray(mask), shape)
    if np.shape(mask) != shape or np.asanyarray(mask).dtype.kind not in "biu":
        raise CutoutError(
            f"'mask' of {what} must be bool of the shape {shape}; got the shape "
            f"{np.shape(mask)}, dtype {np.asanyarray(mask).dtype}."
        )
    return np.asanyarray(mask)
