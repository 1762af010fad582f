# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Latents of all galaxies of a catalogue."""

import contextlib
import copy
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from astro_disentangle.disentangler import Disentangler
from astro_disentangle.embedding.metadata import describe
from astro_disentangle.embedding.output import Output
from astro_disentangle.embedding.partition import Job
from astro_disentangle.embedding.schedule import run
from astro_disentangle.embedding.source import open_source
from astro_disentangle.quality import CutoutError, SurveyMismatchError, check_count
from astro_disentangle.serving import check_dtype
from astro_disentangle.surveys import get_survey
from astro_disentangle.weights.hub import is_address, local_file

__all__ = ["Embedding", "embed_catalog"]
__doctest_requires__ = {"embed_catalog": ["lsdb"]}

#: Partitions and rows that a message names.
_NAMED = 5


@dataclass(frozen=True)
class Embedding:
    """
    What `~astro_disentangle.embed_catalog` did.

    Parameters
    ----------
    path : `~pathlib.Path`
        The catalogue of latents; ``lsdb.open_catalog`` opens it.
    n_rows : int
        Rows of the catalogue.
    n_partitions : int
        Partitions of the input that are done, those without rows included.
    n_new : int
        Those of them that this call did.
    n_unusable : int
        New rows that are NaN and flagged ``UNUSABLE``.
    n_unreadable : int
        Those of them that are no image of the survey.
    reason : str
        Why the first of these could not be read.
    broken : dict of str to str
        Partitions that could not be embedded, by name as in the paths of HATS, and
        why; the next call tries them again.
    """

    path: Path
    n_rows: int
    n_partitions: int
    n_new: int
    n_unusable: int = 0
    n_unreadable: int = 0
    reason: str = ""
    broken: dict | None = None

    def problems(self):
        """
        What went wrong, for a person.

        Returns
        -------
        messages : list of str
            A sentence for partitions that are broken, one for rows that could not be
            read; empty if all went well.

        Examples
        --------
        >>> from astro_disentangle.embedding import Embedding
        >>> Embedding("latents", 5, 2, 2, broken={}).problems()
        []
        """
        messages = []
        if self.broken:
            named = [f"{name}: {why}" for name, why in self.broken.items()]
            rest = len(named) - _NAMED
            named = [*named[:_NAMED], *([f"and {rest} more"] if rest > 0 else [])]
            messages.append(
                f"{len(self.broken)} partitions must be mended, and are missing in "
                f"'{self.path}': {'; '.join(named)}. The same call tries them again."
            )
        if self.n_unreadable:
            messages.append(
                f"{self.n_unreadable} rows must be images of the survey to be used, "
                f"and are flagged UNUSABLE; the first is not because {self.reason}"
            )
        return messages


def embed_catalog(
    model,
    catalog,
    path,
    client=None,
    *,
    survey=None,
    columns=(),
    name=None,
    extension=None,
    batch_size=64,
    device=None,
    dtype=None,
    donors=None,
    progress=False,
):
    """
    Physics and instrument latents of a whole catalogue, as a catalogue.

    Partitions are independent. One that is done stays done: after a run that was
    stopped, or killed, the same call does the others. One that is broken, or a row that
    is, harms no other.

    Parameters
    ----------
    model : `~astro_disentangle.Disentangler`, str or `~pathlib.Path`
        The model; ``"default"``; or a file or address of weights, as
        `Disentangler.load` takes them. Each worker loads it once.
    catalog : str, `~pathlib.Path` or ``lsdb.Catalog``
        A catalogue in HATS format with rows of the Multimodal Universe. By its path it
        is read in batches, and only the columns that are needed; an ``lsdb.Catalog``,
        which may be the result of a search, by partition.
    path : str or `~pathlib.Path`
        Folder for the catalogue of latents, which all workers see.
    client : ``distributed.Client``, optional
        Your own Dask client; by default the one that is open, else Dask's default
        scheduler, which is threads.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; by default what the names of the bands tell.
    columns : sequence of str
        Columns of the input that the output has too.
    name : str, optional
        Name of the new catalogue; that of the input and ``_latents`` by default.
    extension : str, optional
        Also describe the output as extension of the input of that name:
        ``lsdb.open_catalog(catalog).load_extension(path / f"{extension}.properties")``
        joins the two by ``object_id``, which must be unique.
    batch_size : int
        Galaxies at a time.
    device : str, optional
        Where the network lives on a worker; by default where the model is, or the CPU.
    dtype : {"float32", "bfloat16"}, optional
        Precision of the matrix products; by default that of the model, or float32.
    donors : {"neighbours"}, optional
        Read ``instrument`` from up to 8 other galaxies of the same partition within
        3 arcmin, as `Disentangler.transform` does, and not from the cut-out itself. The
        partitions are not searched across their borders.
    progress : bool
        Show a progress bar.

    Returns
    -------
    embedding : `~astro_disentangle.embedding.Embedding`
        Numbers of rows and partitions, and what went wrong. The catalogue in ``path``
        has the spatial index and the place of the input, ``object_id``, the
        ``columns``, ``survey``, ``flags`` (int64), ``physics`` (P,) float32 and
        ``instrument`` (I,) float32; with ``donors`` also ``n_donors`` (int64), how many
        there are, 0 where it is the cut-out itself. Its properties, and the metadata of
        its Parquet files, hold name, package version and SHA-256 of the model.

    Raises
    ------
    CutoutError
        If the catalogue cannot be opened, lacks a column, or ``path`` holds something
        else.
    SurveyMismatchError
        If model and survey do not fit together, or ``path`` holds latents of another
        model, survey or catalogue, or with other columns or donors.
    WeightsError
        If there are no such weights.
    ImportError
        If the packages of the extra ``hats`` are not there.
    ValueError
        If ``donors`` are others.

    Warns
    -----
    UserWarning
        If a partition is broken, or a row cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import lsdb
    >>> import pandas as pd
    >>> from astro_disentangle import embed_catalog
    >>> from astro_disentangle.samples import load_sample
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
    >>> done.n_rows, done.broken
    (1, {})
    >>> latents = lsdb.open_catalog(folder / "latents").compute(progress_bar=False)
    >>> latents["physics"].array.to_stack().shape
    (1, 128)
    """
    _check_packages()
    batch_size = check_count("batch_size", batch_size)
    if donors not in (None, "neighbours"):
        raise ValueError(f"'donors' must be 'neighbours' or None; got {donors!r}.")
    source = open_source(catalog, survey=survey, columns=columns)
    with _weights(model) as weights:
        known = _check_survey(weights.surveys, survey)
        dtype = check_dtype(dtype or weights.dtype)
        plan = {
            "catalog": source.identity(),
            "survey": known,
            "columns": list(source.columns.carried),
            "model": weights.sha256,
            "extension": _extension(extension, source),
            "dtype": dtype,
            "donors": donors,
        }
        output = Output(os.fspath(Path(path).resolve()), plan)
        output.begin()
        job = Job(
            source,
            output,
            weights=weights.place or output.keep_weights(weights.file),
            digest=weights.digest,
            survey=survey,
            batch_size=batch_size,
            device=weights.device if device is None else device,
            dtype=dtype,
            donors=donors,
        )
    embedding = _embed(job, client, name or f"{source.name}_latents", progress)
    for message in embedding.problems():
        warnings.warn(message, stacklevel=2)
    return embedding


def _embed(job, client, name, progress):
    """Embed what is not done yet, and describe the whole."""
    source, output = job.source, job.output
    pixels = source.pixels()
    missing = [pixel for pixel in pixels if not output.has(pixel)]
    reports = run(job, missing, client, progress=progress) if missing else []
    broken = sorted((r for r in reports if r.error), key=lambda r: (r.order, r.pixel))
    output.end()
    n_rows = describe(output, source, name, [report.name for report in broken])
    unreadable = [report for report in reports if report.n_unreadable]
    reason = ""
    if unreadable:
        reason = f"{unreadable[0].reason} (in {unreadable[0].name})"
    return Embedding(
        path=output.root,
        n_rows=n_rows,
        n_partitions=len(pixels) - len(broken),
        n_new=len(reports) - len(broken),
        n_unusable=sum(report.n_unusable for report in reports),
        n_unreadable=sum(report.n_unreadable for report in reports),
        reason=reason,
        broken={report.name: report.error for report in broken},
    )


@dataclass(frozen=True)
class _Weights:
    """Weights of a model: where they are, or a file of them, and what they are."""

    surveys: list
    sha256: str
    digest: str
    device: str | None
    place: str = ""
    file: Path | None = None
    dtype: str = "float32"


@contextlib.contextmanager
def _weights(model):
    """The weights of a model, for workers, which cannot have the model itself."""
    if not isinstance(model, Disentangler) and is_address(model):
        # Workers need not reach the address, nor see this machine's cache.
        loaded, file = Disentangler.load(model), local_file(model)
        known = list(loaded.network_.surveys), loaded.sha256_, loaded.sha256_, None
        yield _Weights(*known, file=file)
        return
    if not isinstance(model, Disentangler):
        place = model if model == "default" else os.fspath(Path(model).resolve())
        loaded = Disentangler.load(place)
        sha256 = loaded.sha256_
        yield _Weights(list(loaded.network_.surveys), sha256, sha256, None, place=place)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        # Saving makes a model one of its file, and this file is not the user's.
        digest = copy.copy(model).save(file)
        sha256 = model.sha256_ or digest
        surveys = list(model.network_.surveys)
        own = {"file": file, "dtype": model.dtype}
        yield _Weights(surveys, sha256, digest, model.device, **own)


def _check_packages():
    try:
        import distributed  # noqa: F401
        import hats  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "embed_catalog needs lsdb and hats; install them with "
            'pip install "astro_disentangle[hats]".'
        ) from error


def _check_survey(known, survey):
    """The name of a survey that the model knows, if one was given."""
    if survey is None or survey in known:
        return survey
    name = get_survey(survey).name
    if name not in known:
        raise SurveyMismatchError(
            f"the model knows the surveys {sorted(known)}; got {name!r}. add_survey() "
            "makes a model know another one."
        )
    return name


def _extension(name, source):
    """The name of an extension, which becomes that of a file."""
    if name is None:
        return None
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise CutoutError(
            f"'extension' must be a name of letters, digits, '_', '.' and '-'; got "
            f"{name!r}."
        )
    if source.columns.object_id is None:
        raise CutoutError(
            "'extension' must have a column 'object_id' in the catalogue to join by; "
            "there is none. Leave it out."
        )
    return name
