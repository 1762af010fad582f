# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From tensors back to the sky."""

import copy

import numpy as np
from astropy.nddata import StdDevUncertainty

from astro_disentangle.data.cutout import SurveyCutout
from astro_disentangle.data.geometry import locate
from astro_disentangle.data.measure import render_psf
from astro_disentangle.data.regrid import noise_gain, on_wcs, regrid_psf
from astro_disentangle.data.units import nanojansky_per
from astro_disentangle.data.wcs import celestial, tangent_wcs
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.surveys import get_survey

__all__ = [
    "checked_target",
    "row_to_cutout",
    "survey_psf",
    "to_cutout",
    "view_on_wcs",
]


def to_cutout(
    pixels,
    survey,
    *,
    bands=None,
    coord=None,
    wcs=None,
    noise=None,
    psf_fwhm=None,
    psf=None,
    good=None,
    unit=None,
    flags=0,
    meta=None,
    samples=None,
):
    """
    A cut-out of a survey from pixels in nJy.

    Parameters
    ----------
    pixels : array_like
        Shape (C, N, N), nJy per native pixel, north up and east to the left.
    survey : str or `~astro_disentangle.Survey`
        The survey.
    bands : sequence of str, optional
        C names; all bands of the survey by default.
    coord : `~astropy.coordinates.SkyCoord`, optional
        Sky position of the centre of the array, ``(N - 1) / 2``.
    wcs : `~astropy.wcs.WCS`, optional
        Used as it is instead of one that is made from ``coord``.
    noise : array_like, optional
        Shape (C,) or (C, N, N), standard deviation of the pixels in nJy.
    psf_fwhm : array_like, optional
        Shape (C,), arcsec, NaN where unknown; PSF images are Moffat profiles
        of the survey's index.
    psf : array_like, optional
        Shape (C, h, w), PSF images to use as they are.
    good : array_like, optional
        Shape (C, N, N), bool. Pixels that are not finite are masked anyway.
    unit : `~astropy.units.Unit` or str, optional
        Unit of the result; the survey's by default.
    flags : int
        Row flags.
    meta : mapping, optional
        Anything else.
    samples : array_like, optional
        Shape (S, C, N, N), nJy.

    Returns
    -------
    cutout : `~astro_disentangle.SurveyCutout`
        float32; ``meta`` has the survey's ``PIXSCALE``, ``MAGZERO`` for a unit that
        needs one, and ``NOISEFAC`` 1 for a noise that needs no correction.

    Raises
    ------
    CutoutError
        If shapes do not fit together or the unit is not a flux.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.write import to_cutout
    >>> cutout = to_cutout(np.full((5, 48, 48), 57.544), "hsc", psf_fwhm=[0.7] * 5)
    >>> cutout["i"].data[0, 0].round(3), str(cutout.unit), cutout.psf.shape
    (np.float32(1.0), 'adu', (5, 25, 25))
    """
    survey = get_survey(survey)
    bands = survey.bands if bands is None else tuple(bands)
    unit = survey.unit if unit is None else unit
    factor, assumed = nanojansky_per(unit, survey)
    pixels = np.array(pixels, dtype=np.float32)
    if pixels.ndim != 3 or len(pixels) != len(bands):
        raise CutoutError(
            f"'pixels' must have the shape ({len(bands)}, N, N); got {pixels.shape}."
        )
    meta = dict(meta or {})
    meta.setdefault("PIXSCALE", survey.pixel_scale)
    if assumed or factor == survey.nanojansky:
        meta.setdefault("MAGZERO", survey.zero_point)
    shape = pixels.shape[1:]
    if wcs is None and coord is not None:
        centre = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        wcs = tangent_wcs(coord, np.eye(2) / survey.pixel_scale, *centre, shape)
    mask = ~np.isfinite(pixels)
    if good is not None:
        mask |= ~np.asarray(good, dtype=bool)
    error = None
    if noise is not None:
        noise = np.asarray(noise, dtype=np.float32) / np.float32(factor)
        noise = noise[:, None, None] if noise.ndim == 1 else noise
        error = StdDevUncertainty(np.broadcast_to(noise, pixels.shape).copy())
        # It is the noise of the sky, and not what a coadd's map would claim.
        meta.setdefault("NOISEFAC", 1.0)
    if psf is None and psf_fwhm is not None and np.isfinite(psf_fwhm).any():
        psf = survey_psf(survey, psf_fwhm)
    if samples is not None:
        samples = np.asarray(samples, dtype=np.float32) / np.float32(factor)
    return SurveyCutout(
        pixels / np.float32(factor),
        survey=survey,
        bands=bands,
        psf=psf,
        unit=unit,
        uncertainty=error,
        mask=mask,
        wcs=wcs,
        meta=meta,
        flags=flags,
        samples=samples,
    )


def survey_psf(survey, psf_fwhm):
    """
    PSF images of a survey.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey, whose pixels and Moffat index are used.
    psf_fwhm : array_like
        Shape (C,), arcsec.

    Returns
    -------
    psf : `~numpy.ndarray`
        Shape (C, h, w), float32; NaN where the FWHM is.
    """
    return np.stack(
        [render_psf(f, survey.psf_beta, survey.pixel_scale) for f in psf_fwhm]
    )


def view_on_wcs(samples, survey, sky, wcs, *, noise, psf_fwhm):
    """
    A painted stamp in the pixels of an image of the user's.

    Parameters
    ----------
    samples : `~numpy.ndarray`
        Shape (S, C, N, N), nJy per native pixel, the galaxy in the middle.
    survey : `~astro_disentangle.Survey`
        The survey.
    sky : `~astropy.coordinates.SkyCoord` or None
        Position of the galaxy.
    wcs : `~astropy.wcs.WCS`
        2-D celestial, with ``pixel_shape``.
    noise, psf_fwhm : `~numpy.ndarray`
        Shape (C,), nJy per native pixel and arcsec.

    Returns
    -------
    samples : `~numpy.ndarray`
        Shape (S, C, ny, nx), nJy per pixel; NaN beyond the stamp.
    parts : dict
        ``wcs``; ``noise``, shape (C,), nJy; ``psf``, shape (C, h, w); ``meta`` with
        pixel scale, place of the galaxy, and ``NOISEFAC``, by which the noise of a
        pixel has to be multiplied in sums over many of them.

    Raises
    ------
    CutoutError
        If the galaxy has no position, or one outside of the image, or ``wcs`` does not
        say how large the image is.
    """
    wcs, shape = checked_target(wcs)
    if sky is None:
        raise CutoutError(
            "'wcs' needs the sky position of the galaxy, and the cut-out has no WCS."
        )
    try:
        place = locate(wcs, shape, survey, position=sky, upright=False)
    except SurveyMismatchError as error:
        raise CutoutError(f"'wcs' does not suit {survey.name}: {error}") from error
    samples, affine = on_wcs(samples, place, shape, survey.pixel_scale)
    matrix, origin = affine[:, :2], affine[:, 2]
    phase = origin - np.round(origin)
    gain = noise_gain(matrix, survey.noise_correlation, phase)
    psf = np.stack(
        [regrid_psf(image, matrix) for image in survey_psf(survey, psf_fwhm)]
    )
    ratio = place.scale / survey.pixel_scale
    meta = {
        "PIXSCALE": place.scale,
        "XGALAXY": place.x,
        "YGALAXY": place.y,
        "NOISEFAC": ratio / gain,
    }
    parts = {"wcs": wcs, "noise": noise * gain, "psf": psf.astype(np.float32)}
    return samples, parts | {"meta": meta}


def checked_target(wcs):
    """
    The WCS of an image that a view is wanted on, and the shape of the image.

    Parameters
    ----------
    wcs : WCS
        As the user gave it; it is not changed.

    Returns
    -------
    wcs : WCS
        A copy of its 2-D celestial part.
    shape : tuple of int
        (ny, nx).

    Raises
    ------
    CutoutError
        If it is no celestial WCS, or does not say how large the image is.
    """
    wcs = copy.deepcopy(celestial(wcs))
    low = getattr(wcs, "low_level_wcs", wcs)
    size = None if wcs is None else low.pixel_shape
    if size is None or len(size) != 2 or None in size:
        raise CutoutError(
            "'wcs' must be a 2-D celestial WCS that knows the size of its image; set "
            "wcs.pixel_shape = (nx, ny)."
        )
    return wcs, (int(size[1]), int(size[0]))


def row_to_cutout(batch, row, *, coord=None, meta=None):
    """
    One row of a batch as a cut-out, in its native pixels.

    Parameters
    ----------
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        The batch.
    row : int
        Number of the row.
    coord : `~astropy.coordinates.SkyCoord`, optional
        Sky position of the galaxy, from which the WCS is made; ``meta`` has its
        0-based pixel as ``XGALAXY`` and ``YGALAXY``.
    meta : mapping, optional
        Anything else.

    Returns
    -------
    cutout : `~astro_disentangle.SurveyCutout`
        With the bands that are present; all of them, masked, if none is.

    Examples
    --------
    >>> from astro_disentangle.data.write import row_to_cutout
    >>> from astro_disentangle.simulation import simulate
    >>> sky = simulate(1, 1, ["hsc"], seed=0)
    >>> row_to_cutout(sky.batches["hsc"], 0).data.shape[1:]
    (48, 48)
    """
    survey = batch.survey
    present = batch.present[row].cpu().numpy()
    index = np.flatnonzero(present if present.any() else ~present)
    affine = batch.affine[row].cpu().numpy().astype(float)
    meta = dict(meta or {})
    meta["PIXSCALE"] = float(1 / np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    x, y = (float(value) for value in affine[:, 2])
    shape = batch.pixels.shape[-2:]
    meta |= {"XGALAXY": x, "YGALAXY": y}
    wcs = None
    if coord is not None:
        wcs = tangent_wcs(coord, affine[:, :2], x, y, tuple(shape))
    # The batch has the noise of the survey's own pixels.
    noise = batch.noise[row].cpu().numpy()[index] * (
        meta["PIXSCALE"] / survey.pixel_scale
    )
    return to_cutout(
        batch.pixels[row].cpu().numpy()[index],
        survey,
        bands=[survey.bands[i] for i in index],
        wcs=wcs,
        noise=noise if np.isfinite(noise).all() else None,
        psf_fwhm=batch.psf_fwhm[row].cpu().numpy()[index],
        good=batch.good[row].cpu().numpy()[index],
        flags=int(batch.flags[row]),
        meta=meta,
    )
