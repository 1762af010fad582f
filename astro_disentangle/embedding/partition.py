# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A partition becomes latents, on a worker.

Whatever is wrong with a partition ends up in its `Report`, never in an exception:
the other ones go on. A row that cannot be read is NaN and ``UNUSABLE``.
"""

import threading
from dataclasses import dataclass

import numpy as np
import torch

from astro_disentangle.embedding.rows import rows_of_batch
from astro_disentangle.embedding.table import add_columns, join_tables, table_of
from astro_disentangle.quality import FLAGS, ROW_ERRORS, CutoutError, WeightsError
from astro_disentangle.serving import neighbour_latents

__all__ = ["Job", "Report", "embed_partition", "latents_of_rows"]

#: The last model of this process. Dask may give a worker the same job several times.
_LOADED = {}
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Report:
    """
    What became of a partition.

    Parameters
    ----------
    order, pixel : int
        The partition.
    n_rows : int
        Its rows.
    n_unusable : int
        Those of them that are flagged ``UNUSABLE``.
    n_unreadable : int
        Those of them that are no image of the survey.
    reason : str
        Why the first of these could not be read.
    error : str
        Why the whole partition could not be embedded; empty if it was.
    """

    order: int
    pixel: int
    n_rows: int = 0
    n_unusable: int = 0
    n_unreadable: int = 0
    reason: str = ""
    error: str = ""

    @property
    def name(self):
        """Name of the partition as in the paths of HATS (str)."""
        return f"Norder={self.order}/Npix={self.pixel}"


class Job:
    """
    What a worker needs to know, and the model that its process loads once.

    Parameters
    ----------
    source : `~astro_disentangle.embedding.source.Source`
        What is read.
    output : `~astro_disentangle.embedding.output.Output`
        Where latents go.
    weights : str
        ``"default"`` or path of the weights.
    digest : str
        SHA-256 that the weights must have.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey.
    batch_size : int
        Galaxies at a time.
    device : str, optional
        Where the network lives.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products.
    donors : {"neighbours"} or None
        As for `Disentangler.transform`, of the galaxies of a partition.
    """

    def __init__(
        self,
        source,
        output,
        *,
        weights,
        digest,
        survey,
        batch_size=64,
        device=None,
        dtype="float32",
        donors=None,
    ):
        self.source = source
        self.output = output
        self.weights = weights
        self.digest = digest
        self.survey = survey
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.donors = donors

    def model(self):
        """
        The model, loaded when it is first asked for.

        Returns
        -------
        model : `~astro_disentangle.Disentangler`
            The same one at each call.

        Raises
        ------
        WeightsError
            If the weights are not there, or not those that the client has.
        """
        key = self.weights, self.digest, self.device, self.dtype
        with _LOADING:
            if key not in _LOADED:
                _LOADED.clear()
                _LOADED[key] = self._load()
            return _LOADED[key]

    def _load(self):
        from astro_disentangle.disentangler import Disentangler

        where = {"device": self.device, "dtype": self.dtype}
        model = Disentangler.load(self.weights, **where)
        if model.sha256_ != self.digest:
            raise WeightsError(
                f"the weights '{self.weights}' of the worker must have the SHA-256 "
                f"{self.digest[:12]}... of the client's; got "
                f"{model.sha256_[:12]}... Install one version everywhere."
            )
        return model


def embed_partition(job, order, pixel):
    """
    Read a partition, make its latents and write them.

    Parameters
    ----------
    job : `Job`
        What to do.
    order, pixel : int
        The partition.

    Returns
    -------
    report : `Report`
        What became of it; errors are told there.
    """
    from hats import HealpixPixel

    try:
        return _embed(job, HealpixPixel(order, pixel))
    except Exception as error:  # noqa: BLE001 - a partition may be broken in any way
        return Report(order, pixel, error=f"{type(error).__name__}: {error}")


def _embed(job, pixel):
    model, columns, plan = job.model(), job.source.columns, job.output.plan
    tables, members, reasons, meta, unusable = [], [], [], {}, 0
    for batch in job.source.batches(pixel, job.batch_size):
        if not len(batch):
            continue
        rows = rows_of_batch(batch, columns)
        latents = latents_of_rows(model, rows, job.survey, donors=job.donors)
        if job.donors is not None:
            members.append(latents.pop("instrument"))
        # The images of a batch go before the next one is read.
        tables.append(table_of(batch, latents, columns, plan))
        reasons += latents["reason"]
        meta = latents["meta"] or meta
        unusable += int(((latents["flags"] & FLAGS.UNUSABLE) != 0).sum())
    unreadable = [reason for reason in reasons if reason]
    if reasons and len(unreadable) == len(reasons):
        raise CutoutError(
            f"none of its {len(reasons)} rows can be read, the first one because "
            f"{unreadable[0]}"
        )
    table = join_tables(tables, meta, plan)
    if members:
        table = _with_neighbours(table, np.concatenate(members), model, columns)
    job.output.write(pixel, table)
    return Report(
        pixel.order,
        pixel.pixel,
        n_rows=len(reasons),
        n_unusable=unusable,
        n_unreadable=len(unreadable),
        reason=unreadable[0] if unreadable else "",
    )


def _with_neighbours(table, members, model, columns):
    """The table of a partition with instrument latents of its neighbours."""
    places = [table.column(name).to_numpy() for name in (columns.ra, columns.dec)]
    places = np.stack(places, 1).astype(float)
    instrument = np.empty((len(table), model.network_.config.instrument_size), "f4")
    count = np.empty(len(table), np.int64)
    survey = np.array(table.column("survey").to_pylist())
    for name in set(survey):
        rows = survey == name
        instrument[rows], count[rows] = neighbour_latents(
            model.network_,
            torch.from_numpy(members[rows]),
            places[rows],
            dtype=model.dtype,
        )
    return add_columns(table, {"instrument": instrument, "n_donors": count})


def latents_of_rows(model, rows, survey=None, *, donors=None):
    """
    Latents of rows of which some may not be images of the survey.

    Parameters
    ----------
    model : `~astro_disentangle.Disentangler`
        The model.
    rows : list of mapping
        N rows of the Multimodal Universe.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey.
    donors : {"neighbours"} or None
        If they are other rows, ``instrument`` are the members of which
        `~astro_disentangle.serving.neighbour_latents` makes latents.

    Returns
    -------
    latents : dict
        ``object_id`` and ``survey`` (list of str), ``physics`` (N, P) float32,
        ``instrument`` (N, I) float32 and ``flags`` (N,) int64 as from
        `Disentangler.transform`; ``reason`` (list of str), empty for rows that were
        read; ``meta`` (dict), the provenance. Rows that cannot be read are NaN and
        flagged ``UNUSABLE``, and have neither name nor survey.

    Examples
    --------
    >>> from astro_disentangle import Disentangler
    >>> from astro_disentangle.embedding.partition import latents_of_rows
    >>> from astro_disentangle.samples import load_sample
    >>> rows = [load_sample("hsc_red"), {"image": None}]
    >>> latents = latents_of_rows(Disentangler.load(), rows, "hsc")
    >>> latents["flags"] & 1, latents["survey"]
    (array([0, 1]), ['hsc', ''])
    """
    config = model.network_.config
    size = len(rows)
    width = config.instrument_size if donors is None else config.condition + 1
    latents = {
        "object_id": [""] * size,
        "survey": [""] * size,
        "physics": np.full((size, config.physics_size), np.nan, np.float32),
        "instrument": np.full((size, width), np.nan, np.float32),
        "flags": np.full(size, FLAGS.UNUSABLE, np.int64),
        "reason": [""] * size,
        "meta": {},
    }

    def transform(rows):
        options = {"donors": donors, "batch_size": len(rows), "pool": False}
        return model._latents(rows, survey, **options)  # noqa: SLF001

    for start, stop, found in _halves(transform, rows, 0):
        if isinstance(found, Exception):
            latents["reason"][start] = f"{type(found).__name__}: {found}"
            continue
        for name in ("object_id", "survey", "physics", "instrument", "flags"):
            latents[name][start:stop] = found[name]
        latents["meta"] = dict(found.meta)
    latents["survey"] = [str(name) for name in latents["survey"]]
    latents["object_id"] = [str(name) for name in latents["object_id"]]
    return latents


def _halves(transform, rows, start):
    """Tables of the largest groups of rows that can be read, errors of the others."""
    stop = start + len(rows)
    try:
        table = transform(rows)
    except ROW_ERRORS as error:
        if len(rows) == 1:
            yield start, stop, error
            return
        half = len(rows) // 2
        yield from _halves(transform, rows[:half], start)
        yield from _halves(transform, rows[half:], start + half)
        return
    yield start, stop, table
