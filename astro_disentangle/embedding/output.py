# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The catalogue of latents on disk.

A partition is written under a temporary name, flushed and renamed: a file that has its
name is whole, and the run that finds it there leaves it alone. What HATS wants to know
about all partitions is written at the end. The folder ``.embedding`` holds the plan of
the run, marks of partitions without rows and what is not finished.
"""

import contextlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from astro_disentangle.quality import CutoutError, SurveyMismatchError

__all__ = ["Output"]


@dataclass(frozen=True)
class Output:
    """
    A folder for a catalogue of latents.

    Parameters
    ----------
    path : str
        The folder, which all workers see.
    plan : dict
        What is done, JSON-serialisable: all that two runs must agree on to be one.
    """

    path: str
    plan: dict

    @property
    def root(self):
        """The folder (`~pathlib.Path`)."""
        return Path(self.path)

    @property
    def work(self):
        """The folder of what is not part of the catalogue (`~pathlib.Path`)."""
        return self.root / ".embedding"

    def begin(self):
        """
        Make the folder, or see that it holds a part of the same work.

        Raises
        ------
        SurveyMismatchError
            If it holds latents of another model, survey, catalogue or of other
            columns.
        CutoutError
            If it holds something else, or cannot be written.
        """
        path = self.work / "plan.json"
        try:
            if path.is_file():
                self._check(json.loads(path.read_text(encoding="utf-8")))
            elif self.root.is_dir() and set(self.root.iterdir()) - {self.work}:
                raise CutoutError(
                    f"'path' must be a new folder or one of an earlier run; "
                    f"'{self.root}' holds something else. Give another one."
                )
            for folder in ("partial", "empty"):
                (self.work / folder).mkdir(parents=True, exist_ok=True)
            for left in (self.work / "partial").iterdir():
                left.unlink(missing_ok=True)
            if not path.is_file():
                text = json.dumps(self.plan, indent=1)
                self._keep(path, lambda file: file.write_text(text, encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise CutoutError(
                f"'path' must be a folder that can be written; '{self.root}' cannot: "
                f"{error}. Give another one."
            ) from error

    def _check(self, found):
        """Raise if the plan of an earlier run is another one."""
        for name, value in self.plan.items():
            if found.get(name) != value:
                raise SurveyMismatchError(
                    f"'{self.root}' holds latents with {name} = {found.get(name)!r}; "
                    f"got {value!r}. Give another folder, or remove this one."
                )

    def file(self, pixel):
        """
        Where the latents of a partition are.

        Parameters
        ----------
        pixel : ``hats.HealpixPixel``
            The partition.

        Returns
        -------
        path : `~pathlib.Path`
            The Parquet file.
        """
        from hats.io import pixel_catalog_file

        return Path(pixel_catalog_file(self.root, pixel).path)

    def has(self, pixel):
        """
        Whether a partition is done.

        Parameters
        ----------
        pixel : ``hats.HealpixPixel``
            The partition.

        Returns
        -------
        done : bool
            True if its file is there, or it has no rows.
        """
        return self.file(pixel).is_file() or self._mark(pixel).is_file()

    def _mark(self, pixel):
        return self.work / "empty" / f"{pixel.order}_{pixel.pixel}"

    def write(self, pixel, table):
        """
        Keep the latents of a partition.

        Parameters
        ----------
        pixel : ``hats.HealpixPixel``
            The partition.
        table : `pyarrow.Table` or None
            Its latents; None for a partition without rows.
        """
        from hats.io.file_io.file_io import get_parquet_write_table_kwargs
        from pyarrow import parquet

        if table is None:
            self._keep(self._mark(pixel), lambda file: file.touch())
            return
        settings = get_parquet_write_table_kwargs(table.schema)
        self._keep(
            self.file(pixel), lambda file: parquet.write_table(table, file, **settings)
        )

    def _keep(self, path, write):
        """Write under a temporary name, flush, rename, flush the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self.work / "partial" / f"{path.name}.{uuid.uuid4().hex}"
        try:
            write(part)
            _flush(part)
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        _flush(path.parent)

    def keep_weights(self, file):
        """
        Keep the weights of the run where all workers see them.

        Parameters
        ----------
        file : `~pathlib.Path`
            The weights.

        Returns
        -------
        path : str
            Where they are now, until the end of the run.
        """
        path = self.work / "weights.safetensors"
        self._keep(path, lambda part: shutil.copyfile(file, part))
        return os.fspath(path)

    def end(self):
        """Remove what only workers need."""
        (self.work / "weights.safetensors").unlink(missing_ok=True)


def _flush(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
