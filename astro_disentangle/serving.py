# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How batches pass through the network: in which pieces, when and how precisely."""

import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from astro_disentangle.data.groups import sky_neighbours
from astro_disentangle.quality import NotFittedError

__all__ = [
    "ahead",
    "check_dtype",
    "check_residual",
    "computing",
    "latents",
    "neighbour_latents",
    "pieces",
    "residual_latents",
]

#: Precisions of the matrix products, by name.
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Cut-outs that the caches of a CPU hold at a time.
_PIECE = 32
#: Sets that are pooled at a time.
_SETS = 64


def check_dtype(dtype):
    """
    A precision that there is.

    Parameters
    ----------
    dtype : object
        What the user asks for.

    Returns
    -------
    dtype : {"float32", "bfloat16"}
        The same.

    Raises
    ------
    ValueError
        If it is another one.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"'dtype' must be one of {list(_DTYPES)}; got {dtype!r}.")
    return dtype


def pieces(size, device, *, rows=1):
    """
    The parts of a batch that are fastest, one after the other.

    Parameters
    ----------
    size : int
        Length of the batch.
    device : `torch.device`
        Where the network lives.
    rows : int
        Images in each entry of the batch.

    Returns
    -------
    pieces : list of slice
        Of about 32 images on a CPU; else all of them.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.serving import pieces
    >>> pieces(40, torch.device("cpu"))
    [slice(0, 32, None), slice(32, 64, None)]
    """
    step = max(_PIECE // max(rows, 1), 1) if device.type == "cpu" else max(size, 1)
    return [slice(start, start + step) for start in range(0, size, step)]


@contextlib.contextmanager
def computing(device, dtype="float32"):
    """
    Inference with matrix products of a given precision.

    Parameters
    ----------
    device : `torch.device`
        Where the network lives.
    dtype : {"float32", "bfloat16"}
        The precision; float32 is exact. What half precision would spoil, resampling,
        photometry and outline, is float32 in either.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.serving import computing
    >>> layer = torch.nn.Linear(2, 2)
    >>> with computing(torch.device("cpu"), "bfloat16"):
    ...     layer(torch.ones(1, 2)).dtype
    torch.bfloat16
    """
    half = dtype != "float32"
    with (
        torch.inference_mode(),
        torch.autocast(device.type, _DTYPES[dtype] if half else None, enabled=half),
    ):
        yield


def latents(network, batch, *, dtype="float32", pool=True):
    """
    Physics latents of a batch, and those of each row's own instrument.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs of one of its surveys.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products.
    pool : bool
        If not, the members of which instrument latents of sets are made.

    Returns
    -------
    z_physics, z_instrument : `torch.Tensor`
        Shapes (B, P) and (B, I), float32, where the network lives; or (B, P) and the
        (B, M) of `~astro_disentangle.model.encoder.InstrumentEncoder.members`.
    """
    device = next(network.parameters()).device
    z_physics, z_instrument = [], []
    with computing(device, dtype):
        for rows in pieces(len(batch), device):
            view = network.view(batch[rows].to(device))
            members = network.instrument.members(view)
            z_physics.append(network.physics(view))
            if pool:
                own = torch.eye(len(members), dtype=torch.bool, device=device)
                members = network.instrument.pool(members, own)
            z_instrument.append(members)
        return torch.cat(z_physics), torch.cat(z_instrument)


def residual_latents(network, batch, *, dtype="float32"):
    """
    Residual latents of a batch.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs of one of its surveys.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products.

    Returns
    -------
    z_residual : `torch.Tensor`
        Shape (B, R, 24, 24), float32, where the network lives.

    Raises
    ------
    NotFittedError
        If the network has no residual latents of the survey.
    """
    check_residual(network, batch.survey.name)
    device = next(network.parameters()).device
    with computing(device, dtype):
        views = (
            network.view(batch[rows].to(device)) for rows in pieces(len(batch), device)
        )
        name = batch.survey.name
        return torch.cat(
            [network.residual_of(view, network.physics(view), name) for view in views]
        )


def check_residual(network, *surveys):
    """
    Raise where a network has no residual latents.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    *surveys : str
        Names of surveys.

    Raises
    ------
    NotFittedError
        If it has none of one of the surveys.
    """
    for survey in surveys:
        if survey not in network.residual_surveys:
            raise NotFittedError(
                f"the model has no residual latents of {survey!r}; fit_residual() "
                "learns them, or leave out 'residual'."
            )


def neighbour_latents(network, members, places, *, dtype="float32"):
    """
    Instrument latents of each row's neighbours on the sky.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    members : `torch.Tensor`
        Shape (N, M), from `latents`, of one survey; NaN for rows that are unusable.
    places : `~numpy.ndarray`
        Shape (N, 2), right ascension and declination, degrees; NaN where unknown.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products.

    Returns
    -------
    z_instrument : `torch.Tensor`
        Shape (N, I), float32, on the CPU, of up to 8 usable neighbours within 3 arcmin,
        or of the row itself where there are none; NaN for rows that are unusable.
    count : `~numpy.ndarray`
        Shape (N,), int64, how many neighbours.
    """
    usable = members[:, 0].isfinite()
    members = members.masked_fill(~usable[:, None], 0.0)
    donors = sky_neighbours(np.where(usable.numpy()[:, None], places, np.nan))
    count = (donors >= 0).sum(1)
    alone = count == 0
    donors[alone, 0] = np.flatnonzero(alone)
    # A set is the same if a member is named twice.
    donors = np.where(donors < 0, donors[:, :1], donors)
    device = next(network.parameters()).device
    z_instrument = []
    with computing(device, dtype):
        for start in range(0, len(donors), _SETS):
            rows, place = np.unique(donors[start : start + _SETS], return_inverse=True)
            chosen = np.zeros((len(place), len(rows)), bool)
            np.put_along_axis(chosen, place, values=True, axis=1)
            chosen = torch.from_numpy(chosen).to(device)
            given = members[torch.from_numpy(rows)].to(device)
            z_instrument.append(network.instrument.pool(given, chosen).cpu())
        z_instrument = torch.cat(z_instrument)
        return z_instrument.masked_fill(~usable[:, None], torch.nan), count


def ahead(function, items):
    """
    Results of a function, each made by another thread while the one before is used.

    The items are taken in the thread of the caller, one more than results. With one
    item, or one processor, no thread is started.

    Parameters
    ----------
    function : callable
        Of one item.
    items : iterable
        Of any length.

    Yields
    ------
    result : object
        In the order of the items; an error is raised where its result would be.

    Examples
    --------
    >>> from astro_disentangle.serving import ahead
    >>> list(ahead(str, range(3)))
    ['0', '1', '2']
    """
    items = iter(items)
    start = list(itertools.islice(items, 2))
    items = itertools.chain(start, items)
    if len(start) < 2 or _processors() < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(1, "astro_disentangle") as pool:
        waiting = pool.submit(function, next(items))
        for item in items:
            following = pool.submit(function, item)
            yield waiting.result()
            waiting = following
        yield waiting.result()


def _processors():
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
