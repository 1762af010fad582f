# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whether samples scatter as much as the sky does."""

import numpy as np

from astro_disentangle.evaluation.scores import (
    bootstrap,
    ratio_of_sums,
    root_mean_square,
    squares_of_rows,
)

__all__ = [
    "LIMIT",
    "coverage_curve",
    "coverage_of",
    "covered",
    "deviations",
    "histograms",
    "score_calibration",
]

#: Deviations that a histogram shows, in units of the spread.
LIMIT = 6

_SHARES = (0.68, 0.95)
#: Fewest samples of which the spread says something.
_FEWEST = 4


def deviations(views, truth):
    r"""
    Observed minus mean over the spread of the samples, pixel by pixel.

    The mean and the standard deviation of :math:`S` normal samples are not those of
    their distribution; :math:`z = (x - m) / s` is divided by the width it has when all
    is right,

    .. math:: \sqrt{(1 + 1/S) (S - 1)/(S - 3)} .

    Parameters
    ----------
    views : `~astro_disentangle.evaluation.views.Views`
        Of N pairs, at least 4 samples each.
    truth : `~numpy.ndarray`, optional
        Shape (N, C, H, W), noiseless images in nJy; None if not known.

    Returns
    -------
    z : `~numpy.ndarray`
        Shape (N, C, H, W).
    parts : dict of str to `~numpy.ndarray`
        Which good pixels are those of ``galaxies``, brighter than the noise, and of
        the ``sky``.
    """
    count = views.samples.shape[1]
    noise = views.batch.noise.numpy()[:, :, None, None]
    good = views.good.numpy() & np.isfinite(noise)
    spread = views.samples.std(1, ddof=1)
    expected = np.sqrt((1 + 1 / count) * (count - 1) / (count - 3))
    z = (views.pixels.numpy() - views.mean) / np.maximum(spread, 1e-9) / expected
    # The observed pixels themselves would put their own noise on one side.
    lit = (views.mean if truth is None else truth) > noise
    return z, {"galaxies": good & lit, "sky": good & ~lit}


def covered(rank, count, share):
    """
    How much of a rank lies in the central part of the ranks.

    Among ``count`` samples of the same distribution the ranks 0 to ``count`` are
    equally likely. A rank stands for an interval of probability, of which a part may
    be inside.

    Parameters
    ----------
    rank : array_like
        Any shape, int, number of samples below the observed value.
    count : int
        Number of samples.
    share : float
        Probability of the central interval.

    Returns
    -------
    inside : `~numpy.ndarray`
        Same shape, 0 to 1.

    Examples
    --------
    >>> from astro_disentangle.evaluation.calibration import covered
    >>> covered([0, 1, 2, 3], 3, 0.75)
    array([0.5, 1. , 1. , 0.5])
    """
    low, high = ((count + 1) * (1 + side * share) / 2 for side in (-1, 1))
    rank = np.asarray(rank)
    return np.clip(rank + 1, low, high) - np.clip(rank, low, high)


def coverage_of(views, share):
    """
    Share of observed fluxes within 2 arcsec that the samples cover.

    Parameters
    ----------
    views : `~astro_disentangle.evaluation.views.Views`
        Of N pairs.
    share : float
        Probability of the central interval.

    Returns
    -------
    coverage, low, high : float
        Over galaxies and bands, and its 68% interval.
    n : int
        Number of galaxies.
    """
    inside = covered(views.ranks, views.samples.shape[1], share)
    whole = views.whole
    return bootstrap(ratio_of_sums, (inside * whole).sum(1), whole.sum(1))


def coverage_curve(views):
    """
    `coverage_of` at every probability.

    Parameters
    ----------
    views : `~astro_disentangle.evaluation.views.Views`
        Of N pairs.

    Returns
    -------
    curve : `~numpy.ndarray`
        Shape (4, 21): nominal and observed coverage, and the 68% interval of the
        latter. None of fewer than 4 samples.
    """
    if views.samples.shape[1] < _FEWEST:
        return None
    shares = np.linspace(0, 1, 21)
    return np.array([(s, *coverage_of(views, s)[:3]) for s in shares]).T


def histograms(views, truth):
    """
    Densities of pixel deviations in 60 bins between plus and minus 6.

    Parameters
    ----------
    views, truth
        As in `deviations`.

    Returns
    -------
    densities : dict of str to `~numpy.ndarray`
        Shape (60,), of ``galaxies`` and of the ``sky``; what lies outside is part of
        the whole. None of fewer than 4 samples.
    """
    if views.samples.shape[1] < _FEWEST:
        return None
    z, parts = deviations(views, truth)
    edges = np.linspace(-LIMIT, LIMIT, 61)
    return {
        name: np.histogram(z[part], edges)[0] / max(part.sum(), 1) / np.diff(edges)
        for name, part in parts.items()
    }


def score_calibration(views, truth):
    """
    Widths of pixel deviations and coverage of aperture fluxes.

    Parameters
    ----------
    views, truth
        As in `deviations`.

    Returns
    -------
    scores : list of tuple
        Group, measure, and value, low, high and number of galaxies; none of fewer
        than 4 samples.
    """
    found = []
    if views.samples.shape[1] < _FEWEST:
        return found
    z, parts = deviations(views, truth)
    for name, part in parts.items():
        width = bootstrap(root_mean_square, *squares_of_rows(z, 1.0, part))
        found.append(("calibration", f"width of pixel z, {name}", width))
    for share in _SHARES:
        measure = f"coverage of 2 arcsec flux, {share:.0%}"
        found.append(("calibration", measure, coverage_of(views, share)))
    return found
