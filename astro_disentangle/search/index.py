# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""An index of the latents of a catalogue, beside them.

FAISS sorts the latents into cells (``IndexIVFFlat``), and a query looks at all latents
of the cells that are nearest to it. So its distances are exact, and what is
approximate is only which rows are looked at. The cells stay on disk; the system keeps
in memory those that are in use.

The folder ``.search`` has ``cells.faiss``, an index without rows, ``latents.faiss``,
latents and row numbers cell by cell, and ``index.json``, which says of what they are,
how long, and their SHA-256. It is built under another name and renamed: an index that
is there is whole. FAISS reads nothing that does not agree with it.
"""

import hashlib
import json
import os
import shutil
import warnings

import numpy as np

from astro_disentangle.keys import key, numpy_generator
from astro_disentangle.quality import CutoutError
from astro_disentangle.search.exact import unit

__all__ = ["open_index", "search_index"]

_FOLDER, _FACTS = ".search", "index.json"
_FILES = ("cells.faiss", "latents.faiss")

#: Latents for each cell of which FAISS learns where cells are.
_SAMPLE = 64
#: Cells that a query looks at, at least, and the rows in them for each match.
_PROBES = 32
_ROWS_PER_MATCH = 64
#: Rows that are sorted in memory.
_BLOCK = 1 << 18


def open_index(catalog):
    """
    The index of a catalogue, which is built if there is none that fits.

    Parameters
    ----------
    catalog : `~astro_disentangle.search.LatentCatalog`
        The catalogue.

    Returns
    -------
    index : ``faiss.IndexIVFFlat``
        An index of all rows that can be used; its cells are on disk.

    Raises
    ------
    CutoutError
        If it cannot be written, or there are no rows that can be used.
    ImportError
        If FAISS is not there.

    Warns
    -----
    UserWarning
        If there is one that is damaged or of other rows; it is built anew.
    """
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "an approximate search needs FAISS; install it with "
            'pip install "astro_disentangle[search]", or search with method="exact".'
        ) from error
    folder = catalog.path / _FOLDER
    if folder.exists():
        try:
            return _read(folder, _identity(catalog))
        except (OSError, ValueError, RuntimeError) as error:
            warnings.warn(
                f"the search index '{folder}' must be built anew: {error}", stacklevel=2
            )
    try:
        _build(catalog, folder)
        return _read(folder, _identity(catalog))
    except (OSError, RuntimeError) as error:
        raise CutoutError(
            f"the search index must be saved beside the latents; '{folder}' cannot: "
            f'{error}. Search with method="exact".'
        ) from error


def search_index(index, queries, k):
    """
    The k nearest latents, of the cells that are nearest.

    Parameters
    ----------
    index : ``faiss.IndexIVFFlat``
        From `open_index`.
    queries : array_like
        Shape (Q, P), float32; rows that are not finite find nothing.
    k : int
        Number of neighbours.

    Returns
    -------
    rows, distances : `~numpy.ndarray`
        Shape (Q, k), int64 and float32, as from
        `~astro_disentangle.search.exact.nearest`.
    """
    import faiss

    queries = unit(queries).numpy()
    usable = np.isfinite(queries).all(1)
    rows = np.full((len(queries), k), -1)
    cosine = np.full((len(queries), k), -np.inf, np.float32)
    cells = _ROWS_PER_MATCH * k * index.nlist // max(index.ntotal, 1)
    reach = faiss.SearchParametersIVF(nprobe=min(max(_PROBES, cells), index.nlist))
    if usable.any():
        cosine[usable], rows[usable] = index.search(queries[usable], k, params=reach)
    cosine[rows < 0] = -np.inf
    # Ties are in the order of the catalogue.
    order = np.lexsort((rows, -cosine), axis=1)
    rows, cosine = (np.take_along_axis(v, order, 1) for v in (rows, cosine))
    distances = np.where(rows < 0, np.float32(np.nan), np.maximum(1 - cosine, 0))
    return rows, distances


def _identity(catalog):
    """What an index must be of, to be that of a catalogue."""
    return {
        "format": 1,
        "model": catalog.meta,
        "catalog": catalog.digest,
        "rows": len(catalog),
        "size": catalog.size,
    }


def _read(folder, identity):
    """The index in a folder; ValueError if it is not what its JSON says."""
    import faiss

    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    own = facts if isinstance(facts, dict) else {}
    others = [name for name in identity if own.get(name) != identity[name]]
    if others:
        raise ValueError(f"it is of another {' and '.join(others)}.")
    for name in _FILES:
        if own.get(name) != _fingerprint(folder / name):
            raise ValueError(f"its file {name!r} is damaged.")
    index = faiss.read_index(str(folder / _FILES[0]))
    if not isinstance(index, faiss.IndexIVFFlat) or index.d != identity["size"]:
        raise ValueError(f"its file {_FILES[0]!r} is no index of these latents.")
    return _with_latents(index, folder / _FILES[1], own["rows_of_cells"])


def _with_latents(index, path, rows):
    """An index with the latents of a file, which lie there cell by cell."""
    import faiss

    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(path))
    rows = np.array(rows, dtype=np.uint64)
    size = int(rows.sum()) * (index.code_size + np.dtype(np.int64).itemsize)
    if rows.shape != (index.nlist,) or size != path.stat().st_size:
        raise ValueError(f"its file {path.name!r} is not of the cells' length.")
    lists.read_only, lists.totsize = True, size
    lists.set_all_lists_sizes(faiss.swig_ptr(rows))
    lists.do_mmap()
    # Reading ahead starts threads for each query, and helps spinning disks alone.
    lists.prefetch_nthread = 0
    index.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = int(rows.sum())
    return index


def _fingerprint(path):
    """Length in bytes and SHA-256 of a file."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _build(catalog, folder):
    """Build the index of a catalogue under another name, and rename it."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    partial = folder.with_name(f"{_FOLDER}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        index = _cells(catalog)
        faiss.write_index(index, str(partial / _FILES[0]))
        blocks = list(_blocks(index, catalog, partial))
        merge_ondisk(index, [str(file) for file in blocks], str(partial / _FILES[1]))
        for file in blocks:
            file.unlink()
        lists = index.invlists
        facts = _identity(catalog)
        facts["rows_of_cells"] = [lists.list_size(n) for n in range(index.nlist)]
        facts |= {name: _fingerprint(partial / name) for name in _FILES}
        text = json.dumps(facts, indent=1)
        (partial / _FACTS).write_text(text, encoding="utf-8")
        for name in (*_FILES, _FACTS):
            with (partial / name).open("rb+") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _cells(catalog):
    """An index without rows that knows where cells are."""
    import faiss

    count = max(1, round(len(catalog) ** 0.5))
    size = min(_SAMPLE * count, len(catalog))
    generator = numpy_generator(0, "search", catalog.digest)
    chosen = np.sort(generator.choice(len(catalog), size, replace=False))
    sample, start = [], 0
    for part in catalog.parts():
        first, last = np.searchsorted(chosen, (start, start + len(part)))
        sample.append(_usable(part[chosen[first:last] - start])[0])
        start += len(part)
    sample = np.concatenate(sample)
    if not len(sample):
        raise CutoutError(
            f"'catalog' must have rows that can be used; those of '{catalog.path}' are "
            'UNUSABLE. Search with method="exact".'
        )
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(catalog.size),
        catalog.size,
        min(count, len(sample)),
        faiss.METRIC_INNER_PRODUCT,
    )
    index.cp.seed = key(0, "cells") >> 32
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def _blocks(index, catalog, folder):
    """Files of some rows each, so that memory is that of a block."""
    import faiss

    number, start = 0, 0
    for part in catalog.parts():
        latents, rows = _usable(part)
        index.add_with_ids(latents, rows + start)
        start += len(part)
        if index.ntotal >= _BLOCK or (start == len(catalog) and index.ntotal):
            file = folder / f"block{number}.faiss"
            faiss.write_index(index, str(file))
            index.reset()
            number += 1
            yield file


def _usable(latents):
    """Those rows of length 1 that are finite, and their numbers."""
    latents = unit(latents).numpy()
    rows = np.flatnonzero(np.isfinite(latents).all(1))
    return latents[rows], rows
