# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Matches as a table."""

import numpy as np
from astropy.table import QTable

from astro_disentangle.quality import FLAGS, CutoutError, check_count
from astro_disentangle.search.catalog import METHODS, LatentCatalog
from astro_disentangle.search.exact import nearest

__all__ = ["match_latents"]


def match_latents(query, catalog, k, method="auto"):
    """
    Matches of latents.

    Parameters
    ----------
    query : `~astropy.table.QTable`
        Q rows, as `Disentangler.transform` gives them.
    catalog : `~astropy.table.QTable` or `~astro_disentangle.search.LatentCatalog`
        N rows.
    k : int
        Number of matches for each query.
    method : {"auto", "exact", "approximate"}
        As `LatentCatalog.nearest`; the search of a table is exact.

    Returns
    -------
    matches : `~astropy.table.QTable`
        ``query`` (name), ``rank`` (from 1), ``distance``, ``row`` (of the catalogue),
        and the other columns of a table but the latents, or those of
        `LatentCatalog.rows`, for each match; a query that cannot be used has none.

    Raises
    ------
    CutoutError
        If a table is not one of latents, or the two are of different weights, or a
        catalogue cannot be searched.
    ImportError
        If an index is needed and FAISS is not there.
    ValueError
        If ``k`` is no positive integer, or there is no such method.
    """
    k = check_count("k", k)
    stored = isinstance(catalog, LatentCatalog)
    if method not in METHODS or (method == "approximate" and not stored):
        raise ValueError(
            f"'method' must be one of {METHODS}, and a table is not searched by "
            f"'approximate'; got {method!r}. embed_catalog makes catalogues on disk."
        )
    tables = {"query": query} if stored else {"query": query, "catalog": catalog}
    for name, table in tables.items():
        missing = [c for c in ("object_id", "physics") if c not in table.colnames]
        if missing or np.ndim(table["physics"]) != 2:
            raise CutoutError(
                f"{name!r} must be a table of latents from transform(); it lacks the "
                f"columns {missing or ['physics (N, P)']}."
            )
    sizes = [
        query["physics"].shape[1],
        catalog.size if stored else catalog["physics"].shape[1],
    ]
    digests = [latents.meta.get("NETWORK", "") for latents in (query, catalog)]
    if sizes[0] != sizes[1] or (all(digests) and digests[0] != digests[1]):
        raise CutoutError(
            "'query' and 'catalog' must be latents of the same weights; got "
            f"{sizes[0]} numbers of {digests[0][:12] or 'unknown'!r} and {sizes[1]} of "
            f"{digests[1][:12] or 'unknown'!r}."
        )
    if stored:
        rows, distances = catalog.nearest(_usable(query), k, method)
    else:
        rows, distances = nearest(_usable(query), _usable(catalog), k)
    number, rank = np.nonzero(rows >= 0)
    chosen = rows[number, rank]
    matches = QTable()
    matches["query"] = np.asarray(query["object_id"])[number]
    matches["rank"] = rank + 1
    matches["distance"] = distances[number, rank]
    matches["row"] = chosen
    found = catalog.rows(chosen) if stored else catalog
    own = ("physics", "instrument", *matches.colnames)
    for name in found.colnames:
        if name not in own:
            matches[name] = found[name] if stored else found[name][chosen]
    return matches


def _usable(table):
    """Physics latents of a table, (N, P); NaN where its flags say UNUSABLE."""
    if "flags" not in table.colnames:
        return table["physics"]
    unusable = (np.asarray(table["flags"]) & FLAGS.UNUSABLE) != 0
    return np.where(unusable[:, None], np.nan, table["physics"])
