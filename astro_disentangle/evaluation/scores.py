# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A score and its interval."""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "Score",
    "bootstrap",
    "ratio_of_sums",
    "root_mean_square",
    "squares_of_rows",
]


@dataclass(frozen=True)
class Score:
    """
    One row of the scoreboard.

    Parameters
    ----------
    group, measure, where : str
        What kind of score, of what, and in which survey or direction.
    value, low, high : float
        The score, and the 68% interval of its bootstrap.
    n : int
        Galaxies behind it.
    """

    group: str
    measure: str
    where: str
    value: float
    low: float
    high: float
    n: int


def bootstrap(statistic, *parts, groups=None, n_draws=200, halves=False):
    """
    A statistic of rows, and its interval under resampling of them.

    Parameters
    ----------
    statistic : callable
        Arrays of rows to a number.
    *parts : array_like
        Shape (N, ...), rows that belong together.
    groups : array_like, optional
        Shape (N,); rows of one group, such as the two views of a galaxy, are drawn
        together.
    n_draws : int
        Number of resamplings.
    halves : bool
        Draw half of the groups without replacement, not all of them with it. The
        spread is the same, ``1 / (N / 2) - 1 / N = 1 / N`` of the variance of one
        (Politis & Romano 1994, Ann. Stat. 22, 2031), and no row meets its own copy:
        for statistics of pairs of rows.

    Returns
    -------
    value, low, high : float
        The statistic of all rows, and the 16th and 84th percentile of the draws.
    n : int
        Number of groups.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.scores import bootstrap
    >>> value, low, high, n = bootstrap(np.mean, np.arange(100.0))
    >>> value, round(high - low), n  # two standard errors of 2.9
    (49.5, 6, 100)
    """
    parts = [np.asarray(part) for part in parts]
    value = float(statistic(*parts))
    rows = len(parts[0])
    labels = np.arange(rows) if groups is None else np.asarray(groups)
    labels = np.unique(labels, return_inverse=True)[1]
    members = np.split(
        np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]
    )
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(n_draws):
        if halves:
            chosen = rng.permutation(len(members))[: len(members) // 2]
        else:
            chosen = rng.integers(len(members), size=len(members))
        index = chosen
        if groups is not None:
            index = np.concatenate([members[place] for place in chosen])
        draws.append(statistic(*(part[index] for part in parts)))
    draws = np.array(draws)[np.isfinite(draws)]
    low, high = np.percentile(draws, [16, 84]) if len(draws) else (np.nan, np.nan)
    return value, float(low), float(high), len(members)


def squares_of_rows(values, scale, chosen):
    """
    Sums of squares of images, row by row.

    Parameters
    ----------
    values : array_like
        Shape (N, C, H, W).
    scale : float or array_like
        What they are divided by, of a shape that broadcasts.
    chosen : array_like
        Shape (N, C, H, W), bool, the pixels that count.

    Returns
    -------
    squares, counts : `~numpy.ndarray`
        Shape (N,), sum of squares and number of pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.scores import squares_of_rows
    >>> squares_of_rows(np.full((1, 1, 2, 2), 6.0), 2.0, np.ones((1, 1, 2, 2), bool))
    (array([36.]), array([4]))
    """
    square = np.where(chosen, np.square(values / np.where(chosen, scale, 1)), 0)
    return square.sum((1, 2, 3)), chosen.sum((1, 2, 3))


def root_mean_square(squares, counts):
    """
    Root of the mean square of all rows of `squares_of_rows`.

    Parameters
    ----------
    squares, counts : `~numpy.ndarray`
        Shape (N,).

    Returns
    -------
    value : float
        NaN where nothing counts.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.scores import root_mean_square
    >>> root_mean_square(np.array([36.0]), np.array([4]))
    3.0
    """
    return float(np.sqrt(squares.sum() / counts.sum())) if counts.sum() else np.nan


def ratio_of_sums(part, whole):
    """
    Sum over sum.

    Parameters
    ----------
    part, whole : `~numpy.ndarray`
        Shape (N,).

    Returns
    -------
    ratio : float
        NaN where the second sum is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.scores import ratio_of_sums
    >>> ratio_of_sums(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    0.5
    """
    return float(part.sum() / whole.sum()) if whole.sum() else np.nan
