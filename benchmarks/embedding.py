# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Throughput, memory and resumption of the embedding of a catalogue.

``python benchmarks/embedding.py [--galaxies 2000]`` needs ``pip install ".[hats]"``
and ``psutil``. It simulates Legacy galaxies, writes them as Parquet files with the
schema of the Multimodal Universe and stamps of 36 pixels (``--stamp 160`` for those of
the real files, the rest of which is noise here), makes a HATS catalogue of these with
hats-import, and prints

- galaxies per second of the network alone, of ``transform`` on rows in memory, and of
  ``embed_catalog`` in this process and with one and two workers of one thread, their
  start left out, the loading of the model included; all but the last on a catalogue of
  at most ``--few`` galaxies, with workers ``--repeats`` times in turn;
- the peak memory of a worker;
- how many rows are lost or doubled, and how far latents are from those of a run that
  nobody stopped, when a worker and the process of the client are killed several times.

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
import numpy as np
import psutil
import pyarrow as pa
import torch
from hats_import import pipeline
from hats_import.catalog.arguments import ImportArguments
from pyarrow import parquet

from astro_disentangle import Disentangler, embed_catalog, get_survey
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.embedding.rows import rows_of_batch
from astro_disentangle.embedding.schedule import local_client
from astro_disentangle.embedding.source import open_source
from astro_disentangle.simulation import simulate

SURVEY, BANDS = "legacy", "des"
#: Galaxies of a file that hats-import reads, and of a simulated portion.
FILE, PORTION = 4000, 200


def lists(values):
    """An array (N, ...) as nested lists of Arrow, without a copy of each number."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        offsets = pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32))
        array = pa.ListArray.from_arrays(offsets, array)
    return array


def images(batch, stamp, seed):
    """Images of the Multimodal Universe: good is True, one pixel off the middle."""
    here = get_survey(SURVEY)
    sigma = (batch.noise.numpy() / here.nanojansky)[:, :, None, None]
    first = (stamp - here.stamp_size) // 2 - 1
    part = slice(first, first + here.stamp_size)
    inside = (..., part, part)
    shape = (*batch.noise.shape, stamp, stamp)
    flux = sigma * np.random.default_rng(seed).standard_normal(shape, np.float32)
    flux[inside] = batch.pixels.numpy() / here.nanojansky
    good = np.ones(shape, bool)
    good[inside] = batch.good.numpy()
    scale = np.full(batch.noise.shape, here.pixel_scale, np.float32)
    names = np.tile([f"{BANDS}-{band}" for band in here.bands], (len(flux), 1))
    fields = {
        "band": lists(names),
        "flux": lists(flux.astype(np.float32)),
        "ivar": lists((sigma**-2 + 0 * flux).astype(np.float32)),
        "mask": lists(good),
        "psf_fwhm": lists(np.nan_to_num(batch.psf_fwhm.numpy())),
        "scale": lists(scale),
    }
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def write(path, galaxies, partition_rows, stamp):
    """A catalogue of simulated galaxies on 10 by 10 degrees."""
    survey, files = get_survey(SURVEY), []
    ra, dec = np.random.default_rng(0).uniform((150, 0), (160, 10), (galaxies, 2)).T
    parts = path.parent / f"{path.name}_parts"
    parts.mkdir()
    for first in range(0, galaxies, FILE):
        stop, found = min(first + FILE, galaxies), []
        for start in range(first, stop, PORTION):
            groups = min(PORTION, stop - start) // 8
            sky = simulate(groups, 8, (survey,), seed=1, step=start)
            found.append(images(sky.batches[SURVEY], stamp, start))
        table = pa.table(
            {
                "ra": ra[first:stop],
                "dec": dec[first:stop],
                "object_id": [f"galaxy-{number}" for number in range(first, stop)],
                "image": pa.chunked_array(found),
            }
        )
        files.append(parts / f"{first:09d}.parquet")
        parquet.write_table(table, files[-1])
    arguments = ImportArguments(
        output_path=path.parent,
        output_artifact_name=path.name,
        input_file_list=files,
        file_reader="parquet",
        pixel_threshold=partition_rows,
        progress_bar=False,
    )
    pipeline(arguments)


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
    with local_client(workers) as client:
        client.run(lambda: (__import__("astro_disentangle.embedding"), None)[1])
        client.run(torch.set_num_threads, 1)
        before = max(client.run(peak).values())
        taken, _ = seconds(lambda: embed_catalog("default", path, output, client))
        return taken, before, max(client.run(peak).values())


def files_of(path):
    return sorted(Path(path).rglob("Npix=*.parquet"))


def wait_for(output, wanted, process):
    while len(files_of(output)) < wanted and process.poll() is None:
        time.sleep(0.02)
    return len(files_of(output))


def kill(path, output, share):
    """
    Kill a worker, and then the client when a share of the partitions is done.

    How many were done at each of the two.
    """
    total, before = len(files_of(path)), len(files_of(output))
    words = [sys.executable, __file__, "--embed", str(path), str(output)]
    process = subprocess.Popen(words)  # noqa: S603
    wanted = max(before + 2, int(share * total))
    first = wait_for(output, before + (wanted - before) // 2, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    workers[0].kill()
    second = wait_for(output, wanted, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Workers see that their scheduler is gone.
    _, alive = psutil.wait_procs(workers, timeout=60)
    for one in alive:
        one.kill()
    return first, second


def embed_for_kill(path, output):
    """What the process that is killed does."""
    with local_client(2) as client:
        client.run(torch.set_num_threads, 1)
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


def size_of(path, taken):
    files = files_of(path)
    size = sum(file.stat().st_size for file in files) / 1e6
    return f"{len(files)} partitions, {size:.0f} MB, written in {taken:.0f} s"


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--galaxies", type=int, default=2000, metavar="N")
    parser.add_argument("--few", type=int, default=10_000, metavar="N")
    parser.add_argument("--partition-rows", type=int, default=100, metavar="N")
    parser.add_argument("--stamp", type=int, default=36, metavar="PIXELS")
    parser.add_argument("--kills", type=int, default=3, metavar="N")
    parser.add_argument("--repeats", type=int, default=2, metavar="N")
    parser.add_argument("--folder", type=Path, help="to work in (default: a new one)")
    parser.add_argument("--embed", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.embed:
        embed_for_kill(*options.embed)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options)


def measure(folder, options):
    n, few = options.galaxies, min(options.galaxies, options.few)
    whole, some = folder / "in", folder / "few"
    how = options.partition_rows, options.stamp
    taken, _ = seconds(lambda: write(whole, n, *how))
    print(f"{n} galaxies in {size_of(whole, taken)}", flush=True)
    taken, _ = seconds(lambda: write(some, few, *how))
    print(f"{few} galaxies in {size_of(some, taken)}", flush=True)
    print(f"{len(os.sched_getaffinity(0))} cores")

    model, rows = Disentangler.load(), in_memory(some)
    alone = network_alone(model, rows)
    print(f"\n{'galaxies per second':<52}{'':>9}{'of network':>12}")

    def show(name, rate):
        print(f"{name:<52}{rate:>9.1f}{rate / alone:>12.2f}", flush=True)
        return rate

    show("network alone, batches of 64", alone)
    taken, _ = seconds(lambda: model.transform(rows))
    show("transform, rows in memory", len(rows) / taken)
    with dask.config.set(scheduler="synchronous"):
        taken, _ = seconds(lambda: embed_catalog("default", some, folder / "here"))
    show(f"embed_catalog, {few}, this process", few / taken)
    rates, memory = {1: [], 2: []}, {}
    for workers in (1, 2) * options.repeats:
        output = folder / f"by{workers}-{len(rates[workers])}"
        taken, *memory[workers] = with_workers(some, output, workers)
        name = f"embed_catalog, {few}, workers: {workers}"
        rates[workers].append(show(name, few / taken))
    rates = {workers: max(found) for workers, found in rates.items()}
    name = "two workers over one, the fastest of each"
    print(f"{name:<52}{rates[2] / rates[1]:>9.2f}")
    taken, *memory["2, of all"] = with_workers(whole, folder / "whole", 2)
    show(f"embed_catalog, {n}, workers: 2", n / taken)
    for workers, (before, after) in memory.items():
        print(
            f"peak memory per worker, workers: {workers!s:<19}"
            f"{after:>9.0f} MB, {after - before:.0f} MB above the imports"
        )

    shares = [(number + 1) / (options.kills + 1) for number in range(options.kills)]
    done = [kill(whole, folder / "killed", share) for share in shares]
    last = embed_catalog("default", whole, folder / "killed")
    names, latents = rows_in(folder / "killed")
    _, expected = rows_in(folder / "whole")
    worst = max(np.nanmax(np.abs(latents[name] - expected[name])) for name in latents)
    print(
        f"\na worker and then the client killed {options.kills} times with {done} "
        f"partitions done, the rest ({last.n_new}) by a last call: "
        f"{len(set(expected) - set(names))} of {len(expected)} rows lost, "
        f"{len(names) - len(set(names))} doubled; latents differ by at most {worst:.1e}"
    )


if __name__ == "__main__":
    main()
