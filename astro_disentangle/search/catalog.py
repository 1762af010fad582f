# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A catalogue of latents on disk, of which only what is needed is read."""

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from astro_disentangle.quality import FLAGS, CutoutError
from astro_disentangle.search.exact import nearest_in_parts
from astro_disentangle.search.index import open_index, search_index

__all__ = ["METHODS", "LatentCatalog"]
__doctest_requires__ = {"LatentCatalog*": ["lsdb"]}

#: Ways to search, and the number of rows from which "auto" is approximate.
METHODS = ("auto", "exact", "approximate")
_MANY = 1_000_000

#: What each catalogue of latents has, besides the place.
_COLUMNS = ("object_id", "survey", "flags", "physics")

#: What all partitions agree in.
_FACTS = (b"network", b"sha256")

#: Order of the spatial index.
_ORDER = 29


@dataclass(frozen=True)
class _Part:
    """A row group of a Parquet file, and the number of its first row."""

    path: Path
    group: int
    start: int
    stop: int


class LatentCatalog:
    """
    A catalogue of latents that `~astro_disentangle.embed_catalog` wrote.

    `~astro_disentangle.Disentangler.similar` takes its path, too; with one of these the
    files, and the index of an approximate search, are opened and checked once for many
    calls.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Its folder.

    Attributes
    ----------
    path : `~pathlib.Path`
        Its folder.
    size : int
        Numbers of a physics latent.
    meta : dict
        ``NETWORK`` and ``SHA256`` of the model, as in a table of latents.
    digest : str
        SHA-256 of the names and footers of its files: other rows, another digest.

    Raises
    ------
    CutoutError
        If there is no such catalogue, or its partitions are of several models.
    ImportError
        If the packages of the extra ``hats`` are not there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import lsdb
    >>> import pandas as pd
    >>> from astro_disentangle import Disentangler, embed_catalog
    >>> from astro_disentangle.samples import load_sample
    >>> from astro_disentangle.search import LatentCatalog
    >>> folder = Path(tempfile.mkdtemp())
    >>> images = load_sample("hsc_red")
    >>> row = {
    ...     "band": [f"hsc-{band}" for band in images],
    ...     "flux": [image.data.tolist() for image in images.values()],
    ... }
    >>> table = pd.DataFrame({"ra": [150.1], "dec": [2.2], "image": [row]})
    >>> galaxies = lsdb.from_dataframe(table, catalog_name="galaxies")
    >>> galaxies.write_catalog(folder / "galaxies", progress_bar=False)
    >>> done = embed_catalog("default", folder / "galaxies", folder / "latents")
    >>> catalog = LatentCatalog(folder / "latents")
    >>> len(catalog), catalog.size
    (1, 128)
    >>> query = load_sample("legacy_round")
    >>> matches = Disentangler.load().similar(query, catalog, survey="legacy")
    >>> matches["coord"].ra.deg.round(3).tolist()
    [150.1]
    """

    def __init__(self, path):
        self.path = Path(path).resolve()
        self._place = _place_columns(self.path)
        self._parts, self.size, self.meta, self.digest = self._open()
        self._index = None

    def __len__(self):
        return self._parts[-1].stop

    @property
    def colnames(self):
        """Names of the columns that are read (list of str)."""
        return [*_COLUMNS, *self._place]

    def _open(self):
        """The row groups, what all files agree in, and the digest of the footers."""
        from pyarrow import parquet

        parts, kinds, digest = [], set(), hashlib.sha256()
        paths = self.path.glob("dataset/**/Npix=*.parquet")
        for path in sorted(paths, key=_on_the_sky):
            with _readable(path), parquet.ParquetFile(path) as file:
                footer, schema = file.metadata, file.schema_arrow
            missing = {*_COLUMNS, *self._place} - set(schema.names)
            if missing:
                raise CutoutError(
                    f"'catalog' must be a catalogue of latents; '{path}' lacks the "
                    f"columns {sorted(missing)}. embed_catalog makes one."
                )
            own = schema.metadata or {}
            facts = [own.get(b"astro_disentangle_" + n, b"") for n in _FACTS]
            kinds.add((*facts, _length(schema.field("physics").type)))
            digest.update(path.relative_to(self.path).as_posix().encode())
            digest.update(_footer(path, footer.serialized_size))
            for group in range(footer.num_row_groups):
                start = parts[-1].stop if parts else 0
                stop = start + footer.row_group(group).num_rows
                parts.append(_Part(path, group, start, stop))
        if not parts or not parts[-1].stop:
            raise CutoutError(
                f"'catalog' must be a catalogue of latents; '{self.path}' has no rows."
            )
        if len(kinds) > 1:
            raise CutoutError(
                f"'catalog' must be of one model; the partitions of '{self.path}' are "
                f"of {len(kinds)}. Embed it again."
            )
        network, sha256, size = kinds.pop()
        meta = {"NETWORK": network.decode(), "SHA256": sha256.decode()}
        return parts, size, meta, digest.hexdigest()

    def parts(self):
        """
        The physics latents, a part of the catalogue at a time.

        Yields
        ------
        latents : `~numpy.ndarray`
            Shape (n, P), float32, of a row group; NaN in rows that cannot be used.
        """
        for part in self._parts:
            table = _read(part, ("physics", "flags"))
            latents = _matrix(table.column("physics"), self.size)
            unusable = (table.column("flags").to_numpy() & FLAGS.UNUSABLE) != 0
            yield np.where(unusable[:, None], np.float32(np.nan), latents)

    def rows(self, numbers):
        """
        What is known of some rows.

        Parameters
        ----------
        numbers : array_like of int
            Shape (M,), rows of the catalogue from 0, in the order in which LSDB has
            them.

        Returns
        -------
        table : `~astropy.table.QTable`
            M rows of ``object_id``, ``survey``, ``coord`` and ``flags``.
        """
        import pyarrow as pa

        numbers = np.asarray(numbers, dtype=np.int64)
        stops = np.array([part.stop for part in self._parts])
        where = np.searchsorted(stops, numbers, side="right")
        names = ("object_id", "survey", *self._place, "flags")
        pieces = []
        for number in np.unique(where) if len(where) else [0]:
            own = numbers[where == number] - self._parts[number].start
            pieces.append(_read(self._parts[number], names).take(own))
        order = np.argsort(where, kind="stable")
        found = pa.concat_tables(pieces).take(np.argsort(order))
        ra, dec = (found.column(name).to_numpy() for name in self._place)
        table = QTable()
        for name in ("object_id", "survey"):
            table[name] = np.array(found.column(name).to_pylist())
        table["coord"] = SkyCoord(ra, dec, unit="deg")
        table["flags"] = found.column("flags").to_numpy()
        return table

    def table(self):
        """
        All latents, as queries.

        Returns
        -------
        table : `~astropy.table.QTable`
            ``object_id`` and ``physics`` (N, P) float32, and ``meta``.
        """
        names = [_read(part, ["object_id"]).column(0) for part in self._parts]
        table = QTable(meta=self.meta)
        table["object_id"] = np.array([n for part in names for n in part.to_pylist()])
        table["physics"] = np.concatenate(list(self.parts()))
        return table

    def nearest(self, queries, k, method="auto"):
        """
        The k nearest rows.

        Parameters
        ----------
        queries : array_like
            Shape (Q, P), float32.
        k : int
            Number of neighbours; all rows if there are fewer.
        method : {"auto", "exact", "approximate"}
            A look at all rows, or at those that an index chooses, which is saved in
            the folder ``.search`` of the catalogue; by default an index from 1e6 rows.

        Returns
        -------
        rows : `~numpy.ndarray`
            Shape (Q, k), int64, nearest first; -1 where there is none.
        distances : `~numpy.ndarray`
            Shape (Q, k), float32, cosine distance; NaN where there is none.

        Raises
        ------
        CutoutError
            If a partition cannot be read, or the index not be written.
        ImportError
            If an index is needed and FAISS is not there.
        ValueError
            If there is no such method.

        Warns
        -----
        UserWarning
            If an index is damaged or of other rows; it is built anew.
        """
        if method not in METHODS:
            raise ValueError(f"'method' must be one of {METHODS}; got {method!r}.")
        k = min(k, len(self))
        many = method == "auto" and len(self) >= _MANY
        if not many and method != "approximate":
            return nearest_in_parts(queries, self.parts(), k)
        if self._index is None:
            self._index = open_index(self)
        return search_index(self._index, queries, k)


def _place_columns(path):
    """Names of the right ascension and the declination."""
    try:
        import pyarrow as pa  # noqa: F401
        from hats.catalog import TableProperties
    except ImportError as error:
        raise ImportError(
            "a catalogue of latents needs pyarrow and hats; install them with "
            'pip install "astro_disentangle[hats]".'
        ) from error
    try:
        properties = TableProperties.read_from_dir(path)
    except (OSError, ValueError) as error:
        raise CutoutError(
            f"'catalog' must be the folder of a catalogue of latents; '{path}' has no "
            "properties that can be read. embed_catalog writes them at its end: the "
            "same call goes on with one that was stopped."
        ) from error
    return properties.ra_column, properties.dec_column


def _on_the_sky(path):
    """The place of a partition in the order in which LSDB has them."""
    order, pixel = re.search(r"Norder=(\d+).*Npix=(\d+)", str(path)).groups()
    return int(pixel) << 2 * (_ORDER - int(order))


@contextlib.contextmanager
def _readable(path):
    """Errors of Arrow, which are of many types, as one that names the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CutoutError(
            f"'catalog' must have partitions that can be read; '{path}' cannot: "
            f"{error}. Remove it and embed the catalogue again: the others stay."
        ) from error


def _footer(path, size):
    """The metadata of a Parquet file as bytes, which come before its last 8."""
    with path.open("rb") as file:
        file.seek(-(size + 8), 2)
        return file.read()


def _read(part, columns):
    """Some columns of a part."""
    from pyarrow import parquet

    with _readable(part.path), parquet.ParquetFile(part.path) as file:
        return file.read_row_group(part.group, columns=list(columns))


def _storage(kind):
    """The type of lists beneath one of tensors."""
    return getattr(kind, "storage_type", kind)


def _length(kind):
    """Numbers of a vector, of the type of its column; -1 if they may differ."""
    return getattr(_storage(kind), "list_size", -1)


def _matrix(column, length):
    """A column of vectors as an array (N, P), float32."""
    column = column.combine_chunks()
    values = getattr(column, "storage", column).flatten()
    return values.to_numpy(zero_copy_only=False).reshape(-1, length)
