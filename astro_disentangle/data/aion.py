# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Image objects of AION-1: ``.flux`` and ``.bands``, and nothing else.

The objects are recognised by these two attributes alone, and any class that takes them
as keywords can be made: AION-1 need not be installed.
"""

from dataclasses import dataclass

import numpy as np
from astropy.nddata import CCDData

from astro_disentangle.data.mmu import images_of
from astro_disentangle.quality import CutoutError, SurveyMismatchError

__all__ = ["AIONImage", "images_of_aion", "is_aion", "split_aion", "to_aion"]

#: How the bands of a survey are named there.
_CAMERAS = {"hsc": "HSC", "legacy": "DES"}


@dataclass(frozen=True, eq=False)
class AIONImage:
    """
    Images as AION-1 takes them, for example ``HSCImage(**vars(image))``.

    Parameters
    ----------
    flux : `torch.Tensor`
        Shape (B, C, H, W), float32, in the survey's own unit.
    bands : list of str
        C names, such as ``"HSC-G"`` and ``"DES-G"``.
    """

    flux: object
    bands: list


def is_aion(value):
    """
    Whether something is an image object of AION-1.

    Parameters
    ----------
    value : object
        What a user gave as cut-outs.

    Returns
    -------
    image : bool
        Whether it has ``flux`` and ``bands``.

    Examples
    --------
    >>> from astro_disentangle.data.aion import AIONImage, is_aion
    >>> is_aion(AIONImage([[[1.0]]], ["HSC-G"])), is_aion({"g": 1})
    (True, False)
    """
    return hasattr(value, "flux") and hasattr(value, "bands")


def split_aion(image):
    """
    The cut-outs of an image object, one for each row of its batch.

    Parameters
    ----------
    image : object
        With ``flux`` (B, C, H, W) or (C, H, W) and ``bands``.

    Yields
    ------
    image : `AIONImage`
        With ``flux`` (C, H, W).

    Raises
    ------
    CutoutError
        If the flux has other dimensions.
    """
    shape = np.shape(image.flux)
    if len(shape) not in (3, 4):
        raise CutoutError(
            "'flux' must have the shape (batch, band, y, x) or (band, y, x); got "
            f"{shape}."
        )
    for flux in image.flux if len(shape) == 4 else [image.flux]:
        yield AIONImage(flux, list(image.bands))


def images_of_aion(image, survey=None):
    """
    The bands of one image object.

    Parameters
    ----------
    image : object
        With ``flux`` (C, H, W) and ``bands``.
    survey : str, optional
        Name of the survey; by default that of the camera in the names of the bands.

    Returns
    -------
    images : dict of str to `~astropy.nddata.CCDData`
        By name of the band; ``meta["SURVEY"]`` says the survey.

    Raises
    ------
    CutoutError
        If the bands are not as many as the planes of the flux.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.aion import AIONImage, images_of_aion
    >>> image = AIONImage(np.ones((1, 96, 96)), ["DES-G"])
    >>> str(images_of_aion(image)["DES-G"].unit)
    'nmgy'
    """
    flux = image.flux
    if hasattr(flux, "detach"):
        # numpy has no bfloat16.
        flux = flux.detach().cpu().float().numpy()
    flux = np.asarray(flux)
    if flux.ndim != 3 or len(flux) != len(image.bands):
        raise CutoutError(
            f"'flux' must have a plane for each of the bands {list(image.bands)}; got "
            f"the shape {flux.shape}."
        )
    images = images_of({"band": list(image.bands), "flux": list(flux)}, survey)
    for band, plane in images.items():
        # Only the stamps of the Multimodal Universe are off their middle.
        meta = {k: v for k, v in plane.meta.items() if k in ("BAND", "SURVEY")}
        images[band] = CCDData(plane.data, unit=plane.unit, meta=meta)
    return images


def to_aion(cutouts, *, survey=None):
    """
    Cut-outs as an image object of AION-1.

    Parameters
    ----------
    cutouts : cut-out or iterable of them
        In any form that the package reads, of hsc or legacy, all with the same bands
        and shape. Masked pixels become 0.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.

    Returns
    -------
    image : `AIONImage`
        In nanomaggies for legacy, and in counts of zero point 27 for hsc.

    Raises
    ------
    SurveyMismatchError
        If AION-1 does not know the survey, or the cut-outs are of two.
    CutoutError
        If bands or shapes differ.

    Examples
    --------
    >>> from astro_disentangle.data.aion import to_aion
    >>> from astro_disentangle.samples import load_sample
    >>> image = to_aion(load_sample("hsc_red"))
    >>> image.bands, image.flux.shape[:2]
    (['HSC-G', 'HSC-R', 'HSC-I', 'HSC-Z', 'HSC-Y'], torch.Size([1, 5]))
    """
    import torch

    from astro_disentangle.data.match import match_bands, survey_of
    from astro_disentangle.data.stream import each_cutout
    from astro_disentangle.data.unpack import unpack

    rows, kinds = [], []
    for cutout, _ in each_cutout(cutouts, None):
        planes = unpack(cutout, survey)
        own = survey_of(planes, survey)
        if own.name not in _CAMERAS:
            raise SurveyMismatchError(
                f"AION-1 has images of {sorted(_CAMERAS)}; got {own.name!r}."
            )
        matched = match_bands(planes, own)
        rows.append([_in_own_unit(plane, own) for plane in matched.values()])
        bands = [f"{_CAMERAS[own.name]}-{own.bands[i].upper()}" for i in matched]
        kinds.append((bands, {image.shape for image in rows[-1]}))
    if not rows or any(kind != kinds[0] for kind in kinds) or len(kinds[0][1]) > 1:
        raise CutoutError(
            "'cutouts' must be of one survey, with the same bands and shape, at least "
            f"one; got {len(rows)} of {len({str(kind) for kind in kinds})} kinds."
        )
    return AIONImage(torch.tensor(np.array(rows, dtype=np.float32)), kinds[0][0])


def _in_own_unit(plane, survey):
    """Data of a band in the survey's own unit, 0 where masked."""
    from astro_disentangle.data.units import nanojansky_per

    factor, _ = nanojansky_per(plane.unit, survey, plane.meta, plane.band)
    good = np.isfinite(plane.data)
    if plane.mask is not None:
        good &= np.asarray(plane.mask) == 0
    return np.where(good, plane.data, 0.0) * (factor / survey.nanojansky)
