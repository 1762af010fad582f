# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Tables in files of Parquet or HDF5, read row by row in small batches.

Only the columns and rows that are wanted are read, of an image only its fields, and
what is in memory at a time is a batch, however large the files are.
"""

import contextlib
import glob
import re
from pathlib import Path

from astro_disentangle.data.arrow import value_of
from astro_disentangle.quality import CutoutError, DisentangleError

__all__ = [
    "BATCH",
    "HDF5",
    "PARQUET",
    "open_table",
    "optional_package",
    "rows_of_batch",
]
__doctest_requires__ = {
    "open_table": ["pyarrow"],
    "rows_of_batch": ["pyarrow"],
}

#: Ends of the names of files.
PARQUET, HDF5 = (".parquet", ".parq", ".pq"), (".hdf5", ".h5", ".hdf")
#: Rows at a time, and bytes that are read at a time from a file.
BATCH, _BUFFER = 16, 2**20
#: What is read of an image.
_FIELDS = ("band", "flux", "ivar", "mask", "psf_fwhm", "scale")


def open_table(path):
    """
    The table of a file, of a folder of files, of a pattern or of a catalogue.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Files of Parquet or of HDF5, of one schema.

    Returns
    -------
    table : object
        With ``names`` of its columns, a length, ``rows(names, wanted=None)``, which
        yields number and values, a dict, of each row or of each that is wanted, and
        ``partitions()``, the tables it is made of, which can be read one by one.

    Raises
    ------
    CutoutError
        If there are no such files, or they cannot be read.
    ImportError
        If pyarrow, or h5py, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pyarrow as pa
    >>> from pyarrow import parquet
    >>> from astro_disentangle.data.tables import open_table
    >>> path = Path(tempfile.mkdtemp()) / "galaxies.parquet"
    >>> parquet.write_table(pa.table({"ra": [1.0, 2.0], "dec": [3.0, 4.0]}), path)
    >>> list(open_table(path).rows(["ra"], wanted={1}))
    [(1, {'ra': 2.0})]
    """
    path = _catalogue(Path(path))
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix in (*PARQUET, *HDF5)]
        # A HATS catalogue holds a Parquet file of samples besides its partitions.
        found = [f for f in found if any("Norder=" in p for p in f.parts)] or found
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    tables = {_table(file) for file in found}
    if len(tables) != 1 or None in tables:
        raise CutoutError(
            f"'{path}' must be Parquet files {PARQUET} or HDF5 files {HDF5}; got "
            f"{len(found)} files" + (f", like '{found[0]}'." if found else ".")
        )
    return tables.pop()(sorted(found))


def _table(file):
    """The class that reads a file, or None."""
    if file.suffix in PARQUET:
        return _Parquet
    return _Hdf5 if file.suffix in HDF5 else None


def _catalogue(path):
    """The main catalogue of a HATS collection; other paths are what they are."""
    properties = path / "collection.properties"
    if not properties.is_file():
        return path
    found = re.search(
        r"^\s*hats_primary_table_url\s*=\s*(\S+)", properties.read_text(), re.MULTILINE
    )
    if found is None:
        raise CutoutError(f"'{properties}' must have 'hats_primary_table_url'.")
    return path / found.group(1)


@contextlib.contextmanager
def _reading(path):
    """Errors of a file name it."""
    try:
        yield
    except (OSError, LookupError, ValueError) as error:
        if isinstance(error, DisentangleError):
            raise
        raise CutoutError(f"cannot read '{path}': {error}") from error


def optional_package(name):
    """
    A package of the extra ``hats``.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    module : module
        The package.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.

    Examples
    --------
    >>> from astro_disentangle.data.tables import optional_package
    >>> optional_package("no_such_package")
    Traceback (most recent call last):
    ImportError: these files need no_such_package; install it with \
pip install "astro_disentangle[hats]".
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"these files need {name.split('.')[0]}; install it with "
            'pip install "astro_disentangle[hats]".'
        ) from error


class _Parquet:
    """Rows of Parquet files of one schema, or of one row group of a file."""

    def __init__(self, files, group=None):
        self._files, self._group = files, group
        self._parquet = optional_package("pyarrow.parquet")
        with _reading(files[0]):
            self._schema = self._parquet.read_schema(files[0])
        self.names = self._schema.names

    def __len__(self):
        total = 0
        for path in self._files:
            with _reading(path):
                found = self._parquet.read_metadata(path)
            if self._group is not None:
                found = found.row_group(self._group)
            total += found.num_rows
        return total

    def __str__(self):
        return f"{self._files[0]}, row group {self._group}"

    def partitions(self):
        """Tables of the row groups of all files."""
        found = []
        for path in self._files:
            with _reading(path):
                count = self._parquet.read_metadata(path).num_row_groups
            found += [_Parquet([path], group) for group in range(count)]
        return found

    def rows(self, names, wanted=None):
        """Number and values of each row, or of each of those that are wanted."""
        chosen = [part for name in names for part in self._parts(name)]
        first = 0
        for path in self._files:
            with _reading(path), path.open("rb") as handle:
                file = self._parquet.ParquetFile(
                    handle, buffer_size=_BUFFER, pre_buffer=False
                )
                groups = None if self._group is None else [self._group]
                for batch in file.iter_batches(BATCH, groups, chosen):
                    yield from rows_of_batch(batch, names, first, wanted)
                    first += len(batch)

    def _parts(self, name):
        """What is read of a column: of an image, its fields alone."""
        kind = self._schema.field(name).type
        fields = getattr(kind, "names", ())
        return [f"{name}.{part}" for part in _FIELDS if part in fields] or [name]


class _Hdf5:
    """Rows of HDF5 files of the Multimodal Universe, each field of images a dataset."""

    def __init__(self, files):
        self._files = files
        self._open = optional_package("h5py").File
        with _reading(files[0]), self._open(files[0], "r") as handle:
            sizes = {name: getattr(part, "ndim", 0) for name, part in handle.items()}
        self._fields = {
            field: f"image_{field}" for field in _FIELDS if f"image_{field}" in sizes
        }
        if "image_array" in sizes:
            # So it is called in the first editions.
            self._fields.setdefault("flux", "image_array")
        self.names = [name for name, size in sizes.items() if size == 1]
        if {"band", "flux"} <= set(self._fields):
            self.names.append("image")

    def __len__(self):
        total = 0
        for path in self._files:
            with _reading(path), self._open(path, "r") as handle:
                total += len(handle[self.names[0]])
        return total

    def __str__(self):
        return str(self._files[0])

    def partitions(self):
        """Tables of the files."""
        return [_Hdf5([path]) for path in self._files]

    def rows(self, names, wanted=None):
        """Number and values of each row, or of each of those that are wanted."""
        plain = [name for name in names if name != "image"]
        image = self._fields if "image" in names else {}
        first = 0
        for path in self._files:
            with _reading(path), self._open(path, "r") as handle:
                size = len(handle[self.names[0]])
                for start in range(0, size, BATCH):
                    chosen = [
                        row
                        for row in range(start, min(start + BATCH, size))
                        if wanted is None or first + row in wanted
                    ]
                    if not chosen:
                        continue
                    span = slice(chosen[0], chosen[-1] + 1)
                    read = {n: handle[n][span] for n in (*plain, *image.values())}
                    for row in chosen:
                        here = {n: part[row - chosen[0]] for n, part in read.items()}
                        values = {name: here[name] for name in plain}
                        if image:
                            fields = {f: here[name] for f, name in image.items()}
                            values["image"] = fields
                        yield first + row, values
                first += size


def rows_of_batch(batch, names, first=0, wanted=None):
    """
    Rows of an Arrow batch.

    Parameters
    ----------
    batch : `pyarrow.RecordBatch`
        The rows.
    names : iterable of str
        Columns.
    first : int
        Number of the first row.
    wanted : container of int, optional
        Numbers of the rows that are wanted; all by default.

    Yields
    ------
    number : int
        Number of the row.
    values : dict
        By name of the column, as `~astro_disentangle.data.arrow.value_of` has them.

    Examples
    --------
    >>> import pyarrow
    >>> from astro_disentangle.data.tables import rows_of_batch
    >>> batch = pyarrow.RecordBatch.from_pydict({"ra": [1.0, 2.0]})
    >>> list(rows_of_batch(batch, ["ra"], 7))
    [(7, {'ra': 1.0}), (8, {'ra': 2.0})]
    """
    parts = {name: batch.column(name) for name in names}
    for row in range(len(batch)):
        if wanted is None or first + row in wanted:
            values = {name: value_of(part[row]) for name, part in parts.items()}
            yield first + row, values
