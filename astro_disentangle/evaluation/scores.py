# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A score and its interval."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Score", "bootstrap"]


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


def bootstrap(statistic, *parts, groups=None, n_draws=200):
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
        chosen = rng.integers(len(members), size=len(members))
        index = np.concatenate([members[place] for place in chosen])
        draws.append(statistic(*(part[index] for part in parts)))
    draws = np.array(draws)[np.isfinite(draws)]
    low, high = np.percentile(draws, [16, 84]) if len(draws) else (np.nan, np.nan)
    return value, float(low), float(high), len(members)
