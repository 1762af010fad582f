# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Partitions go to the workers of the user's own Dask client."""

import contextlib
import uuid

from astro_disentangle.embedding.partition import Report, embed_partition
from astro_disentangle.quality import check_count

__all__ = ["local_client", "run"]


def run(job, pixels, client=None, *, progress=False):
    """
    Embed partitions, each of them in a task of its own.

    Parameters
    ----------
    job : `~astro_disentangle.embedding.partition.Job`
        What to do.
    pixels : list of ``hats.HealpixPixel``
        The partitions.
    client : ``distributed.Client``, optional
        The user's; by default the one that is open, else Dask's default scheduler.
    progress : bool
        Show a progress bar.

    Returns
    -------
    reports : list of `Report`
        One for each partition, in the order in which they were done.
    """
    import dask
    from tqdm.dask import TqdmCallback

    client = _open_client() if client is None else client
    # The job is made by a task: each worker gets it once, not with each partition.
    own = dask.delayed(_begin, name=f"embedding-job-{uuid.uuid4().hex}")(job)
    tasks = [
        dask.delayed(embed_partition, pure=False)(
            own, int(pixel.order), int(pixel.pixel)
        )
        for pixel in pixels
    ]
    if client is not None:
        return list(_collect(client, tasks, pixels, progress))
    with TqdmCallback(disable=not progress, desc="partitions"):
        return list(dask.compute(*tasks))


def _begin(job):
    """The job, as the result of a task."""
    return job


def _open_client():
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _collect(client, tasks, pixels, progress):
    """Reports as partitions are done, of those too whose worker was lost."""
    from distributed import as_completed
    from tqdm import tqdm

    futures = client.compute(tasks)
    places = {future.key: pixel for future, pixel in zip(futures, pixels, strict=True)}
    done = as_completed(futures, loop=client.loop)
    del futures
    for future in tqdm(done, total=len(pixels), disable=not progress, unit="partition"):
        if future.status == "finished":
            yield future.result()
        else:
            pixel, error = places[future.key], future.exception()
            yield Report(
                pixel.order, pixel.pixel, error=f"{type(error).__name__}: {error}"
            )
        future.release()


#: Dask has the C library give back memory that is free beyond 64 kB; the next layer of
#: the network asks for it again, which costs a third of the throughput. In bytes.
WORKER_MEMORY = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**26,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
}


@contextlib.contextmanager
def local_client(workers):
    """
    A client of worker processes on this machine, for as long as it is needed.

    Parameters
    ----------
    workers : int or None
        Processes of one thread each; none are started for None.

    Yields
    ------
    client : ``distributed.Client`` or None
        The client.

    Raises
    ------
    ValueError
        If ``workers`` is not a positive integer.
    """
    if workers is None:
        yield None
        return
    from dask import config
    from distributed import Client, LocalCluster

    workers = check_count("workers", workers)
    with (
        config.set(WORKER_MEMORY),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
