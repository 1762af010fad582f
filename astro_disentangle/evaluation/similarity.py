# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Which galaxies of a catalogue are like a given one, whatever the surveys.

Physics latents of different surveys mean the same, so that a query and a catalogue
need not be of one survey. The distance is one minus the cosine of the angle between
two latents: 0 for the same one, about 1 for unrelated ones.
"""

import numpy as np
import torch
from astropy.table import QTable

from astro_disentangle.quality import CutoutError, check_count

__all__ = ["match_latents", "nearest"]

#: Rows of the catalogue that are looked at together.
_CHUNK = 65536


def nearest(queries, gallery, k):
    """
    The k nearest latents of a gallery, exactly.

    Parameters
    ----------
    queries, gallery : array_like
        Shape (Q, P) and (N, P), float32; a gallery may be memory-mapped. Rows that are
        not finite are never found and find nothing.
    k : int
        Number of neighbours, at most N.

    Returns
    -------
    rows : `~numpy.ndarray`
        Shape (Q, k), int64, nearest first; -1 where there is none.
    distances : `~numpy.ndarray`
        Shape (Q, k), float32, cosine distance; NaN where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.similarity import nearest
    >>> rows, distances = nearest([[1.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]], 2)
    >>> rows.tolist(), distances.tolist()
    ([[1, 0]], [[0.0, 1.0]])
    """
    queries = _unit(queries)
    count = len(gallery)
    k = min(k, count)
    best = torch.full((len(queries), k), -torch.inf)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64)
    for start in range(0, count, _CHUNK):
        part = _unit(gallery[start : start + _CHUNK])
        cosine = (queries @ part.T).nan_to_num(nan=-torch.inf)
        # Ties keep the order of the catalogue, however it is cut into parts.
        joined = torch.cat([best, cosine], 1)
        order = joined.sort(dim=1, descending=True, stable=True).indices[:, :k]
        here = torch.arange(start, start + len(part)).expand(len(queries), -1)
        rows = torch.cat([rows, here], 1).gather(1, order)
        best = joined.gather(1, order)
    found = best > -torch.inf
    distances = torch.where(found, (1 - best).clamp(min=0), torch.nan)
    return torch.where(found, rows, -1).numpy(), distances.numpy()


def _unit(latents):
    """Rows of length 1, (N, P) float32."""
    latents = torch.as_tensor(np.array(latents, dtype=np.float32))
    return torch.nn.functional.normalize(latents, dim=1)


def match_latents(query, catalog, k):
    """
    Matches of tables of latents.

    Parameters
    ----------
    query, catalog : `~astropy.table.QTable`
        As `Disentangler.transform` gives them, of Q and N rows.
    k : int
        Number of matches for each query.

    Returns
    -------
    matches : `~astropy.table.QTable`
        ``query`` (name), ``rank`` (from 1), ``distance``, ``row`` (of the catalogue),
        and the catalogue's other columns but the latents, for each match; a query that
        cannot be used has none.

    Raises
    ------
    CutoutError
        If a table is not one of latents, or the two are of different weights.
    """
    k = check_count("k", k)
    for name, table in (("query", query), ("catalog", catalog)):
        missing = [c for c in ("object_id", "physics") if c not in table.colnames]
        if missing or np.ndim(table["physics"]) != 2:
            raise CutoutError(
                f"{name!r} must be a table of latents from transform(); it lacks the "
                f"columns {missing or ['physics (N, P)']}."
            )
    sizes = [table["physics"].shape[1] for table in (query, catalog)]
    digests = [table.meta.get("NETWORK", "") for table in (query, catalog)]
    if sizes[0] != sizes[1] or (all(digests) and digests[0] != digests[1]):
        raise CutoutError(
            "'query' and 'catalog' must be latents of the same weights; got "
            f"{sizes[0]} numbers of {digests[0][:12] or 'unknown'!r} and {sizes[1]} of "
            f"{digests[1][:12] or 'unknown'!r}."
        )
    rows, distances = nearest(query["physics"], catalog["physics"], k)
    number, rank = np.nonzero(rows >= 0)
    chosen = rows[number, rank]
    own = ("physics", "instrument", "query", "rank", "distance", "row")
    others = [n for n in catalog.colnames if n not in own]
    matches = QTable()
    matches["query"] = np.asarray(query["object_id"])[number]
    matches["rank"] = rank + 1
    matches["distance"] = distances[number, rank]
    matches["row"] = chosen
    for name in others:
        matches[name] = catalog[name][chosen]
    return matches
