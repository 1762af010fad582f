# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whether two views of a galaxy meet in the latent space."""

import numpy as np

from astro_disentangle.evaluation.scores import bootstrap

__all__ = [
    "centred_kernel_alignment",
    "mutual_nearest",
    "neighbourhood_overlap",
    "ranks_of_diagonal",
    "ranks_of_own",
    "recall_at",
    "recall_curve",
]

#: Rows of a matrix of distances that are sorted at once.
_CHUNK = 512


def ranks_of_own(queries, gallery):
    """
    Place of each query's own galaxy among those of the gallery.

    Parameters
    ----------
    queries, gallery : array_like
        Shape (N, P), latents of the same galaxies in two surveys; similarity
        is the cosine.

    Returns
    -------
    rank : `~numpy.ndarray`
        Shape (N,), int, 0 for the nearest.

    Raises
    ------
    ValueError
        If a latent is not finite or zero.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import ranks_of_own
    >>> ranks_of_own(np.eye(3), np.eye(3)).tolist()
    [0, 0, 0]
    """
    return ranks_of_diagonal(_cosines(queries, gallery))


def ranks_of_diagonal(similarity):
    """
    Place of each row's own column.

    Parameters
    ----------
    similarity : `~numpy.ndarray`
        Shape (N, N), of queries and gallery.

    Returns
    -------
    rank : `~numpy.ndarray`
        Shape (N,), int, 0 for the most similar. Ties count against: latents that are
        all alike find nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import ranks_of_diagonal
    >>> ranks_of_diagonal(np.array([[3, 1], [2, 2]]))
    array([0, 1])
    """
    return (similarity >= np.diag(similarity)[:, None]).sum(1) - 1


def recall_at(k, queries, gallery):
    """
    Share of queries whose own galaxy is among the k nearest of the gallery.

    Parameters
    ----------
    k : int
        Number of neighbours.
    queries, gallery : array_like
        As in `ranks_of_own`.

    Returns
    -------
    recall : float
        Between 0 and 1; chance is k / N.

    Raises
    ------
    ValueError
        If a latent is not finite or zero.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import recall_at
    >>> recall_at(1, np.eye(4), np.eye(4))
    1.0
    """
    return float((ranks_of_own(queries, gallery) < k).mean())


def recall_curve(ranks, counts):
    """
    Recall at several numbers of neighbours, and its interval.

    Parameters
    ----------
    ranks : array_like
        Shape (N,), from `ranks_of_own`.
    counts : array_like
        Shape (K,), int, numbers of neighbours.

    Returns
    -------
    recall, low, high : `~numpy.ndarray`
        Shape (K,), the share of ranks below each number, and the 16th and 84th
        percentile of its bootstrap.

    Examples
    --------
    >>> from astro_disentangle.evaluation.alignment import recall_curve
    >>> recall_curve([0, 0, 1, 3], [1, 2, 4])[0]
    array([0.5 , 0.75, 1.  ])
    """
    ranks = np.asarray(ranks)
    curve = [bootstrap(np.mean, ranks < count)[:3] for count in counts]
    return tuple(np.array(curve).T)


def mutual_nearest(latents, other_latents):
    """
    Whether each galaxy and its nearest in the other survey choose one another.

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), as in `ranks_of_own`.

    Returns
    -------
    mutual : `~numpy.ndarray`
        Shape (N,), bool: the galaxy of ``latents`` is the nearest of its nearest of
        ``other_latents``.

    Raises
    ------
    ValueError
        If a latent is not finite or zero.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import mutual_nearest
    >>> a, b = [[1, 0], [0, 1]], [[1, 0.1], [1, 0.2]]  # both of b are next to a[0]
    >>> mutual_nearest(a, b)
    array([ True, False])
    """
    similarity = _cosines(latents, other_latents)
    there, back = similarity.argmax(1), similarity.argmax(0)
    return back[there] == np.arange(len(similarity))


def neighbourhood_overlap(latents, other_latents, k=10):
    r"""
    Overlap of each galaxy's neighbourhoods in the two surveys.

    The mutual nearest neighbour measure of arXiv:2405.07987,
    :math:`|N_k^a(i) \cap N_k^b(i)| / k`, with the :math:`k` galaxies nearest to
    galaxy :math:`i` among the others of its own survey.

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.
    k : int
        Number of neighbours, less than N.

    Returns
    -------
    overlap : `~numpy.ndarray`
        Shape (N,), 0 to 1; chance is k / (N - 1).

    Raises
    ------
    ValueError
        If a latent is not finite or zero.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import neighbourhood_overlap
    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> float(neighbourhood_overlap(x, 2 * x).mean())
    1.0
    """
    a, b = np.asarray(latents), np.asarray(other_latents)
    overlap = []
    for start in range(0, len(a), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(a)))
        # Ties count against: the first of them in one survey, the last in the other.
        both = _nearest(a, rows, k, 1) & _nearest(b, rows, k, -1)
        overlap.append(both.sum(1) / k)
    return np.concatenate(overlap)


def centred_kernel_alignment(latents, other_latents):
    r"""
    Linear centred kernel alignment of two sets of latents, without bias.

    The alignment of arXiv:1905.00414 with the unbiased estimator of the
    Hilbert-Schmidt independence criterion (HSIC_1 of Song et al. 2012, J. Mach. Learn.
    Res. 13, 1393),

    .. math::

        \mathrm{CKA} = \frac{h(K, L)}{\sqrt{h(K, K) \, h(L, L)}}, \quad
        h(K, L) = \frac{1}{N (N - 3)} \left[ \mathrm{tr} \tilde K \tilde L
        + \frac{1^T \tilde K 1 \, 1^T \tilde L 1}{(N - 1)(N - 2)}
        - \frac{2}{N - 2} 1^T \tilde K \tilde L 1 \right]

    where :math:`\tilde K` is :math:`K = X X^T` without its diagonal, and :math:`L` is
    :math:`Y Y^T`. With the diagonal, latents of nothing in common would align by about
    P / N. Of latents whose mean is zero, the bracket is

    .. math::

        \|X^T Y\|^2 - \frac{N}{N - 2} \sum_i |x_i|^2 |y_i|^2
        + \frac{\sum_i |x_i|^2 \, \sum_i |y_i|^2}{(N - 1)(N - 2)} .

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.

    Returns
    -------
    alignment : float
        1 where one is a rotation of the other, times a number; about 0, of either
        sign, for latents of nothing in common. NaN for fewer than 4 galaxies, or
        latents that do not vary.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import centred_kernel_alignment
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(centred_kernel_alignment(x, 2 * x[:, ::-1]), 6)
    1.0
    """
    if len(latents) < 4:
        return np.nan
    x, y = (
        np.asarray(part, float) - np.mean(part, 0) for part in (latents, other_latents)
    )
    scale = _independence(x, x) * _independence(y, y)
    return float(_independence(x, y) / np.sqrt(scale)) if scale > 0 else np.nan


def _independence(x, y):
    """N (N - 3) h of `centred_kernel_alignment`, of latents whose mean is zero."""
    rows = len(x)
    a, b = np.square(x).sum(1), np.square(y).sum(1)
    both = np.square(x.T @ y).sum() - rows / (rows - 2) * (a @ b)
    return both + a.sum() * b.sum() / ((rows - 1) * (rows - 2))


def _nearest(latents, rows, k, step):
    """Which are the k nearest of some rows, themselves left out, (R, N) bool.

    Of equally near ones the first, or with a step of -1 the last.
    """
    distance = -_cosines(latents[rows], latents)
    distance[np.arange(len(rows)), rows] = np.inf
    order = np.argsort(distance[:, ::step], axis=1, kind="stable")[:, :k]
    near = np.zeros(distance.shape, dtype=bool)
    np.put_along_axis(near[:, ::step], order, values=True, axis=1)
    return near


def _cosines(latents, other_latents):
    """Cosine of each latent with each of the others, (N, M)."""
    a, b = (
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (np.asarray(latents, float), np.asarray(other_latents, float))
    )
    cosines = a @ b.T
    if not np.isfinite(cosines).all():
        raise ValueError("latents must be finite and not zero.")
    return cosines
