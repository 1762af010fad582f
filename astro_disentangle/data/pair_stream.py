# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Pairs of so many files that they are read when they are needed."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.data.pair_sets import pair_columns, read_blocks
from astro_disentangle.data.pairs import PairedCutouts
from astro_disentangle.data.tables import open_table
from astro_disentangle.keys import key
from astro_disentangle.quality import CutoutError, SurveyMismatchError, check_count
from astro_disentangle.surveys import get_survey

__all__ = ["PairStream"]
__doctest_requires__ = {"PairStream*": ["pyarrow"]}


class PairStream:
    """
    Pairs in files of the Multimodal Universe, read partition by partition.

    `PairedCutouts.from_mmu` reads all of them into memory, where training is fastest.
    This keeps a block of a partition, the row group of a Parquet file or a whole HDF5
    file, at a time: `Disentangler.fit` takes it too.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A file, a folder of them, a pattern or a HATS catalogue, each of whose rows has
        an image of both surveys, as for `PairedCutouts.from_mmu`.
    surveys : tuple of str or `~astro_disentangle.Survey`
        The two surveys.
    block_rows : int
        Rows in memory at a time, at most, about 80 kB each; their order is shuffled,
        and which share conditions is told among them. The blocks of a partition are of
        one size as far as that can be.

    Raises
    ------
    CutoutError
        If a file is missing or cannot be read, or has not two images.
    SurveyMismatchError
        If ``surveys`` are not two.
    ImportError
        If pyarrow, or h5py, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from pyarrow import parquet
    >>> from astro_disentangle.data.pair_stream import PairStream
    >>> def image(band, scale):
    ...     flux = np.random.default_rng(0).normal(size=(1, 96, 96))
    ...     return {"band": [band], "flux": flux.tolist(), "scale": [scale]}
    >>> row = {"ra": 150.1, "dec": 2.2, "object_id": "17"}
    >>> row["hsc_image"] = image("hsc-i", 0.168)
    >>> row["legacysurvey_image"] = image("des-r", 0.262)
    >>> path = Path(tempfile.mkdtemp()) / "pairs.parquet"
    >>> table = pa.Table.from_pylist(5 * [row])
    >>> parquet.write_table(table, path, row_group_size=2)
    >>> pairs = PairStream(path)
    >>> len(pairs), pairs.rows
    (5, [2, 2, 1])
    """

    def __init__(self, path, *, surveys=("hsc", "legacy"), block_rows=512):
        self._surveys = [get_survey(survey) for survey in surveys]
        if len({survey.name for survey in self._surveys}) != 2:
            raise SurveyMismatchError(f"'surveys' must be two; got {surveys!r}.")
        self.path = Path(path)
        self.block_rows = check_count("block_rows", block_rows)
        table = open_table(path)
        self._sides = pair_columns(table, self._surveys, path)
        self._partitions = [part for part in table.partitions() if len(part)]
        #: Rows of each partition (list of int).
        self.rows = [len(part) for part in self._partitions]
        if not self.rows:
            raise CutoutError(f"'{path}' must hold at least one row; it has none.")

    def __len__(self):
        return sum(self.rows)

    def __repr__(self):
        return (
            f"<PairStream {' and '.join(self.surveys)}, {len(self)} rows in "
            f"{len(self.rows)} partitions>"
        )

    @property
    def surveys(self):
        """Names of the two surveys (tuple of str)."""
        return tuple(survey.name for survey in self._surveys)

    @property
    def fingerprint(self):
        """A number that tells these rows, in these blocks, from others (int)."""
        parts = [
            f"{Path(str(part)).name} {rows}"
            for part, rows in zip(self._partitions, self.rows, strict=True)
        ]
        surveys = [survey.to_json() for survey in self._surveys]
        return key(0, "stream", self.block_rows, *parts, *surveys)

    def blocks(self, partition, first=0):
        """
        Pairs of a partition.

        Parameters
        ----------
        partition : int
            Its number.
        first : int
            Number of the block to begin with.

        Yields
        ------
        pairs : `PairedCutouts` or None
            Of the rows of each block those that can be used; None if there
            are none.

        Raises
        ------
        CutoutError
            If the file cannot be read.

        Examples
        --------
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from pyarrow import parquet
        >>> import tempfile
        >>> from astro_disentangle.data.pair_stream import PairStream
        >>> image = {"band": ["hsc-i"], "flux": np.ones((1, 96, 96)).tolist()}
        >>> row = {"hsc_image": image, "legacysurvey_image": None}
        >>> path = tempfile.mkdtemp() + "/pairs.parquet"
        >>> parquet.write_table(pa.Table.from_pylist([row]), path)
        >>> list(PairStream(path).blocks(0))
        [None]
        """
        for parts, _ in self._read(partition, first):
            yield None if parts is None else PairedCutouts(**parts)

    def block_sizes(self, partition):
        """
        Rows of the blocks of a partition.

        Parameters
        ----------
        partition : int
            Its number.

        Returns
        -------
        sizes : list of int
            In the order of the blocks.

        Examples
        --------
        >>> from astro_disentangle.data.pair_stream import PairStream
        >>> PairStream("data", block_rows=512).block_sizes(0)  # doctest: +SKIP
        [334, 334, 332]
        """
        rows = self.rows[partition]
        size = -(-rows // -(-rows // self.block_rows))
        return [min(size, rows - start) for start in range(0, rows, size)]

    def _read(self, partition, first=0):
        return read_blocks(
            self._partitions[partition],
            self._sides,
            surveys=self._surveys,
            size=self.block_sizes(partition)[0],
            first=first,
        )

    def sample(self, size, *, seed=0):
        """
        Some of the pairs.

        Parameters
        ----------
        size : int
            At most so many pairs, the first of partitions in random order.
        seed : int
            Key of the order.

        Returns
        -------
        pairs : `PairedCutouts`
            The pairs.

        Raises
        ------
        CutoutError
            If no pair can be used.

        Warns
        -----
        UserWarning
            If rows that were read cannot be used: how many, and why.

        Examples
        --------
        >>> from astro_disentangle.data.pair_stream import PairStream
        >>> PairStream("legacysurvey_hsc_crossmatched/data").sample(
        ...     256)  # doctest: +SKIP
        <PairedCutouts hsc and legacy, 256 galaxies>
        """
        found, left_out, count = [], Counter(), 0
        numbers = range(len(self.rows))
        for number in sorted(numbers, key=lambda n: key(seed, "sample", n)):
            for parts, reasons in self._read(number):
                left_out.update(reasons)
                if parts is not None:
                    found.append(PairedCutouts(**parts)[: size - count])
                    count += len(found[-1])
                if count >= size:
                    break
            if count >= size:
                break
        reasons = "; ".join(f"{n} {reason}" for reason, n in left_out.items())
        if not found:
            raise CutoutError(
                f"'{self.path}' must hold a pair that can be used; got {reasons}."
            )
        if left_out:
            total = sum(left_out.values())
            warnings.warn(
                f"{total} of the first {total + count} galaxies of '{self.path}' "
                f"cannot be used, nor will others like them: {reasons}.",
                stacklevel=2,
            )
        return _joined(found)


def _joined(parts):
    """The pairs of all parts; galaxies of two of them share no conditions."""
    groups, count = [], 0
    for pairs in parts:
        groups.append(pairs.groups + count)
        count += int(pairs.groups.max()) + 1
    return PairedCutouts(
        {
            name: CutoutBatch.concatenate(pairs.batch(name) for pairs in parts)
            for name in parts[0].surveys
        },
        coords=np.concatenate([pairs.sky for pairs in parts]),
        object_id=[name for pairs in parts for name in pairs.object_id],
        groups=np.concatenate(groups),
    )
