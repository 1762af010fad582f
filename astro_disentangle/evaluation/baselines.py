# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What astronomers do without a network: aperture photometry and PSF matching."""

import numpy as np
import torch

from astro_disentangle.data.resample import grid_offsets, resample
from astro_disentangle.evaluation.alignment import ranks_of_diagonal

__all__ = ["catalog_ranks", "match_psf", "measured_catalog"]

#: Radii of the apertures in arcsec.
_RADII = (0.5, 1.0, 2.0)


def measured_catalog(batch):
    """
    Fluxes, sizes and ellipticities of the galaxies in the middle, by photutils.

    Parameters
    ----------
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs of C bands, north up.

    Returns
    -------
    columns : `~numpy.ndarray`
        Shape (B, 6 C + 2): for each band arcsinh magnitudes of 0.5, 1 and 2 arcsec
        apertures, semi-axis and the two components of the ellipticity within 2
        arcsec; for the whole the noise-weighted semi-axis and signal. NaN where a
        band is missing.

    Examples
    --------
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.baselines import measured_catalog
    >>> measured_catalog(simulate_pairs(2, random_state=1).batch("hsc")).shape
    (2, 32)
    """
    import warnings

    from photutils.aperture import ApertureStats, CircularAperture

    survey = batch.survey
    present = batch.present.numpy()
    noise = np.array(survey.pixel_noise())
    rows = []
    for row in range(len(batch)):
        centre = batch.affine[row, :, 2].numpy()
        apertures = [CircularAperture(centre, r / survey.pixel_scale) for r in _RADII]
        numbers = []
        for band in range(len(survey.bands)):
            if not present[row, band]:
                numbers.append([np.nan] * 6)
                continue
            image = batch.pixels[row, band].numpy().astype(float)
            mask = ~batch.good[row, band].numpy()
            stats = [ApertureStats(image, a, mask=mask) for a in apertures]
            with warnings.catch_warnings():
                # Moments of noise may be negative; what comes out is no size then.
                warnings.simplefilter("ignore", RuntimeWarning)
                widest = stats[-1]
                axis = widest.semimajor_axis.value * survey.pixel_scale
                share = widest.ellipticity.value
                angle = 2 * widest.orientation.to_value("rad")
            light = [
                np.arcsinh(s.sum / (noise[band] * np.sqrt(a.area)))
                for s, a in zip(stats, apertures, strict=True)
            ]
            shape = (axis, share * np.cos(angle), share * np.sin(angle))
            numbers.append([*light, *shape])
        numbers = np.array(numbers, float)
        weight = np.sinh(np.clip(numbers[:, 2], 0, 20)) ** 2
        weight = np.where(np.isfinite(numbers[:, 3]), weight, 0)
        size = (np.nan_to_num(numbers[:, 3]) * weight).sum() / max(weight.sum(), 1e-9)
        rows.append([*numbers.ravel(), size, np.log1p(weight.sum())])
    return np.array(rows)


def catalog_ranks(catalog, other_catalog, survey, other_survey):
    """
    Place of each galaxy among those of the other survey by colour, size and shape.

    The columns of the bands that both surveys have, and the two of all bands, each less
    its mean and over its standard deviation over the galaxies of its survey; distances
    are Euclidean, and what is missing is at the mean.

    Parameters
    ----------
    catalog, other_catalog : `~numpy.ndarray`
        From `measured_catalog`, N galaxies each.
    survey, other_survey : `~astro_disentangle.Survey`
        Their surveys.

    Returns
    -------
    rank : `~numpy.ndarray`
        Shape (N,), int, 0 for the nearest.

    Examples
    --------
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.baselines import (
    ...     catalog_ranks, measured_catalog)
    >>> batch = simulate_pairs(4, random_state=1).batch("hsc")
    >>> catalog = measured_catalog(batch)
    >>> catalog_ranks(catalog, catalog, batch.survey, batch.survey).tolist()
    [0, 0, 0, 0]
    """
    common = [band for band in survey.bands if band in other_survey.bands]
    a, b = (
        _standardised(part[:, _columns(own, common)])
        for part, own in ((catalog, survey), (other_catalog, other_survey))
    )
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return ranks_of_diagonal(-squares)


def _columns(survey, bands):
    """Places of the columns of some bands, and of all bands, in a catalogue."""
    first = [6 * survey.bands.index(band) for band in bands]
    last = 6 * len(survey.bands)
    return [place + part for place in first for part in range(6)] + [last, last + 1]


def _standardised(columns):
    """Zero mean and unit variance, and 0 where not known."""
    known = np.isfinite(columns)
    count = np.maximum(known.sum(0), 1)
    less = np.where(known, columns - np.where(known, columns, 0).sum(0) / count, 0)
    spread = np.sqrt(np.square(less).sum(0) / count)
    return less / np.where(spread > 0, spread, 1)


def match_psf(source, target, source_fwhm, target_fwhm, *, regularization=1e-3):
    """
    A source image under the target's PSF and pixels, by photutils.

    Downwards this is what PSF matching is for; upwards it is a Wiener deconvolution
    with a Laplacian penalty. The PSFs are circular Moffat profiles of the true FWHM
    and the surveys' index. Kernels are made and applied on the source's pixels, and
    the result is resampled to the target's.

    Parameters
    ----------
    source, target : `~astro_disentangle.data.batch.CutoutBatch`
        The same B galaxies, north up.
    source_fwhm, target_fwhm : array_like
        Shapes (B, C) of the source's and of the target's bands, arcsec.
    regularization : float
        As `photutils.psf_matching.make_wiener_kernel` has it.

    Returns
    -------
    images : `torch.Tensor`
        Shape (B, C, N, N), nJy, float32; NaN where the source has no good pixel: in
        bands that it lacks, and beyond its edge.

    Examples
    --------
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.baselines import match_psf
    >>> pairs = simulate_pairs(2, random_state=1)
    >>> hsc, legacy = pairs.batch("hsc"), pairs.batch("legacy")
    >>> fwhm = [pairs.truth[f"psf_fwhm_{name}"].value for name in ("hsc", "legacy")]
    >>> match_psf(hsc, legacy, *fwhm).shape
    torch.Size([2, 4, 32, 32])
    """
    from photutils.psf_matching import make_kernel, make_wiener_kernel
    from scipy.signal import fftconvolve

    survey, wanted = source.survey, target.survey
    source_fwhm, target_fwhm = np.asarray(source_fwhm), np.asarray(target_fwhm)
    bands = [survey.bands.index(b) if b in survey.bands else None for b in wanted.bands]
    size = source.pixels.shape[-1] // 2 * 2 + 1
    matched = torch.full((len(source), len(bands), *source.pixels.shape[2:]), torch.nan)
    good = torch.zeros(matched.shape, dtype=torch.bool)
    present = source.present
    for row in range(len(source)):
        for place, band in enumerate(bands):
            if band is None or not present[row, band]:
                continue
            if not (source_fwhm[row, band] > 0 and target_fwhm[row, place] > 0):
                continue
            sharp = _moffat(source_fwhm[row, band], survey, survey.pixel_scale, size)
            wide = _moffat(target_fwhm[row, place], wanted, survey.pixel_scale, size)
            if target_fwhm[row, place] > source_fwhm[row, band]:
                kernel = make_kernel(sharp, wide)
            else:
                kernel = make_wiener_kernel(
                    sharp, wide, regularization=regularization, penalty="laplacian"
                )
            image = source.pixels[row, band].numpy()
            matched[row, place] = torch.from_numpy(
                fftconvolve(image, kernel, mode="same").astype(np.float32)
            )
            good[row, place] = source.good[row, band]
    # The target's stamp is not centred on the galaxy: neither is the new grid.
    offset = target.stamp()[2] * wanted.pixel_scale
    affine = source.affine.clone()
    affine[:, :, 2] -= (affine[:, :, :2] @ offset[:, :, None])[:, :, 0]
    images, seen = resample(
        matched.nan_to_num(0.0),
        good,
        affine,
        size=wanted.stamp_size,
        scale=wanted.pixel_scale,
    )
    return images.masked_fill(~seen.bool(), torch.nan)


def _moffat(fwhm, survey, scale, size):
    """PSF of a survey on pixels of ``scale`` arcsec, averaged over its own pixel."""
    fine = 5
    axis = grid_offsets(size * fine, scale / fine).numpy().astype(float)
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / survey.psf_beta) - 1))
    image = (1 + (axis[:, None] ** 2 + axis**2) / alpha**2) ** -survey.psf_beta
    image = image.reshape(size, fine, size, fine).mean((1, 3))
    return image / image.sum()
