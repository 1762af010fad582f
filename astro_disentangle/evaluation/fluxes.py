# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Aperture fluxes of views: of bright sources, and by predicted magnitude."""

from dataclasses import dataclass

import numpy as np

from astro_disentangle.evaluation.photometry import aperture_sums, flux_bias
from astro_disentangle.evaluation.scores import bootstrap
from astro_disentangle.survey import AB_FLUX_NJY

__all__ = ["FluxBins", "bin_fluxes", "bins_of_views", "score_fluxes"]

#: Signal to noise of a bright source, and fewest galaxies of a score or a bin.
_BRIGHT, _FEWEST = 20, 10
#: Width of a bin in magnitudes.
_WIDTH = 0.5


@dataclass(frozen=True)
class FluxBins:
    """
    Bias of fluxes in K bins of predicted magnitude.

    Parameters
    ----------
    magnitude : `~numpy.ndarray`
        Shape (K,), mean predicted AB magnitude.
    bias, error : `~numpy.ndarray`
        Shape (K,), sum of predicted over sum of true fluxes minus one, and its
        standard error.
    count : `~numpy.ndarray`
        Shape (K,), galaxies.
    """

    magnitude: np.ndarray
    bias: np.ndarray
    error: np.ndarray
    count: np.ndarray


def bin_fluxes(selecting, predicted, true):
    r"""
    Bias of fluxes in bins of predicted magnitude.

    Bins of the true flux would be biased for any posterior mean, and so would be bins
    of the mean of a few samples, whose own scatter selects: one half of the samples
    sorts, the other is compared. The standard error is that of a ratio of sums,

    .. math:: \sigma^2 = \frac{n}{n - 1} \sum_i (p_i - (1 + b) t_i)^2
              \Big/ \Big(\sum_i t_i\Big)^2

    with the bias :math:`b` (Cochran 1977, Sampling Techniques).

    Parameters
    ----------
    selecting, predicted : array_like
        Shape (N,), nJy, the predicted fluxes that sort galaxies into bins, and those
        that are compared. Galaxies without a positive one to sort by are left out.
    true : array_like
        Shape (N,), nJy.

    Returns
    -------
    bins : `FluxBins`
        Half a magnitude each, of at least 10 galaxies, bright to faint.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.fluxes import bin_fluxes
    >>> flux = np.linspace(2000.0, 2200.0, 20)
    >>> bins = bin_fluxes(flux, 1.1 * flux, flux)
    >>> bins.bias.round(3), bins.count
    (array([0.1]), array([20]))
    """
    seen = np.asarray(selecting) > 0
    selecting, predicted, true = (
        np.asarray(part, float)[seen] for part in (selecting, predicted, true)
    )
    magnitude = -2.5 * np.log10(selecting / AB_FLUX_NJY)
    place = np.floor(magnitude / _WIDTH)
    rows = []
    for number in np.unique(place):
        within = place == number
        count, whole = within.sum(), true[within].sum()
        if count < _FEWEST or whole <= 0:
            continue
        bias = predicted[within].sum() / whole - 1
        rest = predicted[within] - (1 + bias) * true[within]
        error = np.sqrt(count / (count - 1) * np.square(rest).sum()) / whole
        rows.append((magnitude[within].mean(), bias, error, count))
    columns = np.array(rows).reshape(-1, 4).T
    return FluxBins(*columns[:3], columns[3].astype(int))


def bins_of_views(views, truth, known):
    """
    `bin_fluxes` of each band of views.

    Parameters
    ----------
    views : `~astro_disentangle.evaluation.views.Views`
        Of N pairs.
    truth : `~numpy.ndarray`
        Shape (N, C, H, W), nJy, what they are compared with.
    known : `~numpy.ndarray`
        Shape (N, C), bool, where the true aperture flux is known.

    Returns
    -------
    bins : dict of str to `FluxBins`
        By band.
    """
    survey, sums = views.batch.survey, views.sums
    true = aperture_sums(truth, survey, views.offset)
    # A single sample has to do both.
    selecting, predicted = sums[:, ::2].mean(1), sums[:, 1 % sums.shape[1] :: 2].mean(1)
    return {
        letter: bin_fluxes(
            *(part[known[:, band], band] for part in (selecting, predicted, true))
        )
        for band, letter in enumerate(survey.bands)
    }


def score_fluxes(views, truth, known, signal, matched):
    """
    Bias and scatter of the fluxes within 2 arcsec.

    Parameters
    ----------
    views, truth, known
        As in `bins_of_views`.
    signal : `~numpy.ndarray`
        Shape (N,), signal to noise of the sources.
    matched : `~numpy.ndarray`, optional
        Shape (N, C, H, W), nJy, what PSF matching makes of the source; NaN where it
        cannot.

    Returns
    -------
    scores : list of tuple
        Group, measure, and value, low, high and number of galaxies.
    baselines : dict of (str, str) to float
        Scores of PSF matching by group and measure.
    """
    found, baselines = [], {}
    survey = views.batch.survey
    true = aperture_sums(truth, survey, views.offset)
    predicted, other = views.sums.mean(1), np.full_like(true, np.nan)
    if matched is not None:
        other = aperture_sums(matched, survey, views.offset)
    for band, letter in enumerate(survey.bands):
        bright = (signal >= _BRIGHT) & known[:, band]
        if bright.sum() < _FEWEST:
            continue
        fine = bright & np.isfinite(other[:, band])
        for kind, statistic in _STATISTICS.items():
            measure = f"2 arcsec flux {letter}, S/N >= {_BRIGHT}: {kind}"
            score = bootstrap(statistic, predicted[bright, band], true[bright, band])
            found.append(("flux", measure, score))
            if fine.any():
                baselines["flux", measure] = statistic(
                    other[fine, band], true[fine, band]
                )
    for letter, bins in bins_of_views(views, truth, known).items():
        if score := _worst_faint(bins):
            measure = f"2 arcsec flux {letter}, fainter half: worst bin, sigma"
            found.append(("flux", measure, score))
    return found, baselines


def _worst_faint(bins):
    """Bias over its error in the worst bin of the fainter half, plus and minus one."""
    half = np.cumsum(bins.count) > bins.count.sum() / 2
    faint = np.flatnonzero(half & (bins.error > 0))
    if not len(faint):
        return None
    off = bins.bias[faint] / bins.error[faint]
    worst = np.abs(off).argmax()
    value = float(off[worst])
    return value, value - 1, value + 1, int(bins.count[faint[worst]])


def _median_bias(predicted, true):
    return float(np.median(predicted / true) - 1)


def _scatter(predicted, true):
    low, high = np.percentile(predicted / true, [16, 84])
    return float((high - low) / 2)


_STATISTICS = {"sum": flux_bias, "median": _median_bias, "scatter": _scatter}
