# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Throughput, memory and resumption of the embedding of a catalogue.

``python benchmarks/embedding.py [--galaxies 2000]`` needs ``pip install ".[hats]"`` and
``psutil``. It writes a HATS catalogue of simulated HSC galaxies with the schema of the
Multimodal Universe and stamps of 52 pixels, and prints

- galaxies per second of the network alone, of ``transform`` on rows in memory, and of
  ``embed_catalog`` in this process and with one and two workers of one thread, their
  start left out, the loading of the model included;
- the peak memory of a worker;
- how many rows are lost or doubled, and how far latents are from those of a run that
  nobody stopped, when the process of the client is killed several times.

Torch has one thread everywhere. Two workers need two free cores to be faster than one.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import distributed
import lsdb
import nested_pandas as npd
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import torch
from pyarrow import parquet

from astro_disentangle import Disentangler, embed_catalog, get_survey, simulate_pairs
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.embedding.rows import rows_of_batch
from astro_disentangle.embedding.source import open_source

SURVEY = "hsc"
AROUND = ((0, 0), (0, 0), (1, 3), (1, 3))


def lists(values):
    """An array (N, ...) as nested lists of Arrow, without a copy of each number."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        offsets = pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32))
        array = pa.ListArray.from_arrays(offsets, array)
    return array


def images(pairs):
    """Images of the Multimodal Universe: good is True, one pixel off the middle."""
    batch, here = pairs.batch(SURVEY), get_survey(SURVEY)
    flux = np.pad(batch.pixels.numpy() / here.nanojansky, AROUND)
    sigma = (batch.noise.numpy() / here.nanojansky)[:, :, None, None]
    scale = np.full(batch.noise.shape, here.pixel_scale, np.float32)
    fields = {
        "band": lists(np.tile([f"hsc-{band}" for band in here.bands], (len(flux), 1))),
        "flux": lists(flux),
        "ivar": lists((sigma**-2 + 0 * flux).astype(np.float32)),
        "mask": lists(np.pad(batch.good.numpy(), AROUND)),
        "psf_fwhm": lists(np.nan_to_num(batch.psf_fwhm.numpy())),
        "scale": lists(scale),
    }
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def write(path, galaxies, partition_rows):
    """A catalogue of simulated galaxies on 10 by 10 degrees."""
    parts = [
        images(simulate_pairs(min(250, galaxies - start), random_state=1 + start))
        for start in range(0, galaxies, 250)
    ]
    ra, dec = np.random.default_rng(0).uniform((150, 0), (160, 10), (galaxies, 2)).T
    names = [f"galaxy-{number}" for number in range(galaxies)]
    frame = npd.NestedFrame(pd.DataFrame({"ra": ra, "dec": dec, "object_id": names}))
    column = pa.chunked_array(parts)
    frame["image"] = pd.Series(column, dtype=npd.NestedDtype(column.type))
    catalog = lsdb.from_dataframe(
        frame,
        catalog_name="galaxies",
        partition_rows=partition_rows,
        margin_threshold=None,
    )
    catalog.write_catalog(path, progress_bar=False)


def in_memory(path, size=512):
    """The first rows of a catalogue."""
    source = open_source(path)
    rows = []
    for pixel in source.pixels():
        for batch in source.batches(pixel, 64):
            rows += rows_of_batch(batch, source.columns)
        if len(rows) >= size:
            break
    return rows[:size]


def seconds(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


@torch.inference_mode()
def network_alone(model, rows):
    """Galaxies per second of both encoders, on batches of 64."""
    network = model.network_
    batch = read_cutouts(rows[:64]).batch

    def encode():
        view = network.view(batch)
        return network.physics(view), network.instrument.members(view)

    encode()
    return 64 * 5 / seconds(lambda: [encode() for _ in range(5)])[0]


def peak():
    """Peak memory of this process, MB; run on a worker, Linux alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024


def with_workers(path, output, workers):
    """Seconds, peak memory per worker before and after, MB."""
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(lambda: (__import__("astro_disentangle.embedding"), None)[1])
        client.run(torch.set_num_threads, 1)
        before = max(client.run(peak).values())
        taken, _ = seconds(lambda: embed_catalog("default", path, output, client))
        return taken, before, max(client.run(peak).values())


def files_of(path):
    return sorted(Path(path).rglob("Npix=*.parquet"))


def kill(path, output, share, workers=2):
    """Kill the client when a share of the partitions is done; how many were then."""
    words = [sys.executable, __file__, "--embed", path, output]
    wanted = max(1, int(share * len(files_of(path))))
    words += ["--workers", workers]
    process = subprocess.Popen([str(word) for word in words])  # noqa: S603
    while len(files_of(output)) < wanted and process.poll() is None:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(files_of(output))
    # Workers see that their scheduler is gone.
    _, alive = psutil.wait_procs(workers, timeout=60)
    for one in alive:
        one.kill()
    return done


def embed_for_kill(path, output, workers):
    """What the process that is killed does."""
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        embed_catalog("default", path, output, client)


def rows_in(path):
    """Names, and latents by name, of all rows on disk."""
    names, latents = [], []
    for file in files_of(path):
        table = parquet.read_table(file)
        names += table.column("object_id").to_pylist()
        column = table.column("physics").combine_chunks()
        latents.append(column.to_numpy_ndarray())
    return names, dict(zip(names, np.concatenate(latents), strict=True))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--galaxies", type=int, default=2000, metavar="N")
    parser.add_argument("--partition-rows", type=int, default=100, metavar="N")
    parser.add_argument("--kills", type=int, default=3, metavar="N")
    parser.add_argument("--workers", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--embed", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.embed:
        embed_for_kill(*options.embed, options.workers)
        return
    n = options.galaxies
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        taken, _ = seconds(
            lambda: write(folder / "in", n, options.partition_rows),
        )
        size = sum(file.stat().st_size for file in files_of(folder / "in"))
        print(
            f"{n} galaxies in {len(files_of(folder / 'in'))} partitions, "
            f"{size / 1e6:.0f} MB, simulated and written in {taken:.0f} s; "
            f"{len(os.sched_getaffinity(0))} cores"
        )
        model, rows = Disentangler.load(), in_memory(folder / "in")
        alone = network_alone(model, rows)
        print(f"\n{'galaxies per second':<44}{'':>9}{'of network':>12}")
        rates = {"network alone, batches of 64": alone}
        taken, _ = seconds(lambda: model.transform(rows))
        rates["transform, rows in memory"] = len(rows) / taken
        with dask.config.set(scheduler="synchronous"):
            taken, _ = seconds(
                lambda: embed_catalog("default", folder / "in", folder / "whole")
            )
        rates["embed_catalog, this process, one thread"] = n / taken
        memory = {}
        for workers in (1, 2):
            taken, *memory[workers] = with_workers(
                folder / "in", folder / f"by{workers}", workers
            )
            rates[f"embed_catalog, workers: {workers}"] = n / taken
        for name, rate in rates.items():
            print(f"{name:<44}{rate:>9.1f}{rate / alone:>12.2f}")
        one, two = (rates[f"embed_catalog, workers: {w}"] for w in (1, 2))
        print(f"{'two workers over one':<44}{two / one:>9.2f}")
        for workers, (before, after) in memory.items():
            print(
                f"peak memory per worker, workers: {workers:<11}"
                f"{after:>9.0f} MB, {after - before:.0f} MB above the imports"
            )
        done = [
            kill(folder / "in", folder / "killed", (number + 1) / (options.kills + 1))
            for number in range(options.kills)
        ]
        last = embed_catalog("default", folder / "in", folder / "killed")
        names, latents = rows_in(folder / "killed")
        _, whole = rows_in(folder / "whole")
        worst = max(np.nanmax(np.abs(latents[name] - whole[name])) for name in latents)
        print(
            f"\nclient killed {options.kills} times with {done} partitions done, the "
            f"rest ({last.n_new}) by a last call: {len(set(whole) - set(names))} rows "
            f"lost, {len(names) - len(set(names))} doubled; latents differ by at most "
            f"{worst:.1e}"
        )


if __name__ == "__main__":
    main()
