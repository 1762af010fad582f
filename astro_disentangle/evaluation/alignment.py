# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whether two views of a galaxy meet in the latent space."""

import numpy as np

__all__ = ["centred_kernel_alignment", "ranks_of_own", "recall_at"]


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
    queries, gallery = (
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (np.asarray(queries, float), np.asarray(gallery, float))
    )
    similarity = queries @ gallery.T
    if not np.isfinite(similarity).all():
        raise ValueError("latents must be finite and not zero.")
    # Ties count against: latents that are all alike find nothing.
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


def centred_kernel_alignment(latents, other_latents):
    """
    Linear centred kernel alignment of two sets of latents (arXiv:1905.00414).

    Parameters
    ----------
    latents, other_latents : array_like
        Shape (N, P), latents of the same galaxies in two surveys.

    Returns
    -------
    alignment : float
        1 where one is a rotation of the other, times a number; for latents of
        nothing in common about P / N.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.alignment import centred_kernel_alignment
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(centred_kernel_alignment(x, 2 * x[:, ::-1]), 6)
    1.0
    """
    a, b = (
        np.asarray(part, float) - np.mean(part, 0) for part in (latents, other_latents)
    )
    cross, own_a, own_b = (
        np.square(x.T @ y).sum() for x, y in ((a, b), (a, a), (b, b))
    )
    return float(cross / np.sqrt(own_a * own_b))
