# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whether two views of a galaxy meet in the latent space."""

import numpy as np

__all__ = ["recall_at"]


def recall_at(k, queries, gallery):
    """
    Share of queries whose own galaxy is among the k nearest of the gallery.

    Parameters
    ----------
    k : int
        Number of neighbours.
    queries, gallery : array_like
        Shape (N, P), latents of the same galaxies in two surveys; similarity
        is the cosine.

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
    queries, gallery = (
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (np.asarray(queries, float), np.asarray(gallery, float))
    )
    similarity = queries @ gallery.T
    if not np.isfinite(similarity).all():
        raise ValueError("latents must be finite and not zero.")
    # Ties count against: latents that are all alike find nothing.
    better = (similarity >= np.diag(similarity)[:, None]).sum(1) - 1
    return float((better < k).mean())
