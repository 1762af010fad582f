# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The nearest latents, by a look at each of them."""

import numpy as np
import torch

__all__ = ["nearest", "nearest_in_parts", "unit"]

#: Rows of the gallery, and queries, that are looked at together.
_CHUNK = 65536
_QUERIES = 64

#: Sign-less part of a float32, and the number of rows that a key has room for.
_MAGNITUDE = 0x7FFFFFFF
_ROWS = 1 << 32


def nearest(queries, gallery, k):
    """
    The k nearest latents of a gallery, exactly.

    Parameters
    ----------
    queries, gallery : array_like
        Shape (Q, P) and (N, P), float32; a gallery may be memory-mapped. Rows that are
        not finite are never found and find nothing.
    k : int
        Number of neighbours; N if there are fewer.

    Returns
    -------
    rows : `~numpy.ndarray`
        Shape (Q, k), int64, nearest first; -1 where there is none.
    distances : `~numpy.ndarray`
        Shape (Q, k), float32, cosine distance; NaN where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.search.exact import nearest
    >>> rows, distances = nearest([[1.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]], 2)
    >>> rows.tolist(), distances.tolist()
    ([[1, 0]], [[0.0, 1.0]])
    """
    starts = range(0, len(gallery), _CHUNK)
    parts = (gallery[start : start + _CHUNK] for start in starts)
    return nearest_in_parts(queries, parts, min(k, len(gallery)))


def nearest_in_parts(queries, parts, k):
    """
    The k nearest latents of a gallery that comes in parts.

    Memory is that of a part and of the answer.

    Parameters
    ----------
    queries : array_like
        Shape (Q, P), float32.
    parts : iterable of array_like
        Of shape (n, P), float32; rows are numbered through all parts.
    k : int
        Number of neighbours.

    Returns
    -------
    rows, distances : `~numpy.ndarray`
        As `nearest`, (Q, k).

    Examples
    --------
    >>> from astro_disentangle.search.exact import nearest_in_parts
    >>> parts = iter([[[0.0, 1.0]], [[2.0, 0.0]]])
    >>> nearest_in_parts([[1.0, 0.0]], parts, 1)[0].tolist()
    [[1]]
    """
    queries = unit(queries)
    best = torch.full((len(queries), k), torch.iinfo(torch.int64).min)
    start = 0
    for part in parts:
        part = unit(part)
        rows = torch.arange(start, start + len(part))
        start += len(part)
        for first in range(0, len(queries), _QUERIES):
            some = slice(first, first + _QUERIES)
            keys = _keys(queries[some] @ part.T, rows)
            new = keys.topk(min(k, len(part))).values
            best[some] = torch.cat([best[some], new], 1).topk(k).values
    rows, cosine = _unlock(best)
    found = cosine > -torch.inf
    distances = torch.where(found, (1 - cosine).clamp(min=0), torch.nan)
    return torch.where(found, rows, -1).numpy(), distances.numpy()


def _keys(cosine, rows):
    """
    Integers in the order of the cosines and, of equal ones, of the rows, (Q, N) int64.

    So ties keep the order of the catalogue, however it is cut into parts. The bits of
    a float, but those of the magnitude turned if it is negative, are in its order.
    """
    # Adding 0 makes -0 a 0.
    bits = (cosine.nan_to_num(nan=-torch.inf) + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & _MAGNITUDE)
    return ordered.to(torch.int64) * _ROWS + (_ROWS - 1 - rows)


def _unlock(keys):
    """Rows (int64) and cosines (float32) of keys; NaN of one that was never set."""
    rows = _ROWS - 1 - (keys & (_ROWS - 1))
    ordered = (keys >> 32).to(torch.int32)
    return rows, (ordered ^ ((ordered >> 31) & _MAGNITUDE)).view(torch.float32)


def unit(latents):
    """
    Latents of length 1.

    Parameters
    ----------
    latents : array_like
        Shape (N, P).

    Returns
    -------
    unit : `~torch.Tensor`
        Shape (N, P), float32; a row that is not finite has NaN.

    Examples
    --------
    >>> from astro_disentangle.search.exact import unit
    >>> unit([[0.0, 2.0]]).tolist()
    [[0.0, 1.0]]
    """
    latents = torch.as_tensor(np.array(latents, dtype=np.float32))
    return torch.nn.functional.normalize(latents, dim=1)
