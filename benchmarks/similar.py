# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Similar galaxies in a large catalogue: recall, time and memory.

``taskset -c 1 python benchmarks/similar.py [--rows 1000000] [--folder latents]`` needs
``pip install ".[hats,search]"`` and ``psutil``. It writes a catalogue of latents of one
survey (or takes the one that it wrote in the folder) and looks in it for galaxies of
the other survey that none of its latents were made of. It prints

- how many of the exact 1 and 10 nearest the approximate search finds;
- milliseconds for each query, one at a time and a hundred together, of both, first
  without and then with the names and places of the matches;
- the time that the index takes to build, its size, and the peak memory of a process
  that builds it, of one that searches with it and of one that searches exactly.

The latents are those of simulated HSC galaxies with a scatter of 0.3 of that between
galaxies, in all directions as it is between galaxies. Torch and FAISS have one thread.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import psutil
import pyarrow as pa
import torch

from astro_disentangle import Disentangler, simulate_pairs
from astro_disentangle.embedding.metadata import describe
from astro_disentangle.embedding.output import Output
from astro_disentangle.embedding.source import Columns
from astro_disentangle.embedding.table import join_tables, table_of
from astro_disentangle.keys import numpy_generator
from astro_disentangle.search import LatentCatalog

SCATTER = 0.3
ORDER = 2
COLUMNS = Columns(None, (), "ra", "dec", "object_id", None, ())


def simulated(model, galaxies, survey, seed):
    """Latents of simulated galaxies."""
    parts = []
    for start in range(0, galaxies, 256):
        pairs = simulate_pairs(min(256, galaxies - start), random_state=seed + start)
        parts.append(model.transform(pairs.cutouts(survey)))
    return np.concatenate([part["physics"] for part in parts]), parts[0].meta


def write(path, model, galaxies, rows):
    """A catalogue of latents around those of some simulated galaxies."""
    from hats import HealpixPixel
    from hats.pixel_math.spatial_index import compute_spatial_index

    made, meta = simulated(model, galaxies, "hsc", 10_000)
    values, axes = np.linalg.eigh(np.cov(made.T))
    spread = (axes * np.sqrt(values.clip(min=0)) * SCATTER).T.astype(np.float32)
    generator = numpy_generator(0, "benchmark of similar")
    ra = generator.uniform(0, 360, rows)
    dec = np.degrees(np.arcsin(generator.uniform(-0.5, 0.5, rows)))
    own = compute_spatial_index(ra, dec) >> 2 * (29 - ORDER)
    plan = {"survey": "hsc", "model": model.sha256_, "extension": None, "donors": None}
    output = Output(str(path.resolve()), plan)
    output.begin()
    pixels = [HealpixPixel(ORDER, int(number)) for number in np.unique(own)]
    size = made.shape[1]
    for pixel in pixels:
        here = np.flatnonzero(own == pixel.pixel)
        noise = generator.standard_normal((len(here), size), dtype=np.float32)
        latents = {
            "object_id": [f"galaxy-{row}" for row in here],
            "survey": ["hsc"] * len(here),
            "flags": np.zeros(len(here), np.int64),
            "physics": made[generator.integers(len(made), size=len(here))]
            + noise @ spread,
            "instrument": np.zeros((len(here), 1), np.float32),
        }
        place = {"ra": ra[here], "dec": dec[here], "object_id": latents["object_id"]}
        batch = pa.RecordBatch.from_pydict(place)
        table = table_of(batch, latents, COLUMNS, plan)
        output.write(pixel, join_tables([table], meta, plan))
    source = SimpleNamespace(
        pixels=lambda: pixels, columns=COLUMNS, place="", name="simulated"
    )
    describe(output, source, "simulated_latents", [])


def seconds(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def peak():
    """Peak memory of this process, MB; Linux alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024


def alone(what, path, queries):
    """What another process says of a search: peak memory, MB, and seconds."""
    words = [sys.executable, __file__, "--only", what, "--folder", path]
    words += ["--queries", queries]
    done = subprocess.run(  # noqa: S603
        [str(word) for word in words], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def only(what, path, queries):
    """Open a catalogue and search it once, in this process."""
    queries, before = np.load(queries), peak()
    taken, catalog = seconds(lambda: LatentCatalog(path))
    method = "exact" if what == "exact" else "approximate"
    search, _ = seconds(lambda: catalog.nearest(queries, 10, method))
    memory = psutil.Process().memory_info()
    private = (memory.rss - memory.shared) / 1e6
    print(json.dumps([before, peak(), taken, search, private]))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--galaxies", type=int, default=4096, metavar="N")
    parser.add_argument("--searches", type=int, default=500, metavar="N")
    parser.add_argument("--folder", type=Path, help="of the catalogue, kept")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--queries", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    if options.only:
        only(options.only, options.folder, options.queries)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(options, options.folder or Path(folder) / "latents", Path(folder))


def measure(options, path, folder):
    """Both searches in one catalogue."""
    model = Disentangler.load()
    queries, meta = simulated(model, options.searches, "legacy", 1)
    if not path.is_dir():
        taken, _ = seconds(lambda: write(path, model, options.galaxies, options.rows))
        print(f"catalogue made in {taken:.0f} s")
    np.save(folder / "some.npy", queries[:100])
    shutil.rmtree(path / ".search", ignore_errors=True)
    memory = {
        what: alone(what, path, folder / "some.npy")
        for what in ("build", "approximate", "exact")
    }
    catalog = LatentCatalog(path)
    files = list(path.glob("dataset/**/*.parquet"))
    print(
        f"{len(catalog)} rows of {catalog.size} numbers in {len(files)} partitions, "
        f"{sum(file.stat().st_size for file in files) / 1e6:.0f} MB; "
        f"{len(os.sched_getaffinity(0))} core, torch {torch.__version__}, "
        f"FAISS {faiss.__version__}"
    )
    index = sum(file.stat().st_size for file in (path / ".search").iterdir())
    built = memory["build"][3] - memory["approximate"][3]
    print(f"index built in {built:.1f} s, {index / 1e6:.0f} MB on disk")
    for what, (before, after, opened, _, private) in memory.items():
        print(
            f"{what + ', its own process:':<34}{after:>8.0f} MB peak, {before:.0f} MB "
            f"of it imports, {private:.0f} MB not of files at the end; "
            f"opened in {opened:.2f} s"
        )
    first, _ = seconds(lambda: catalog.nearest(queries[:1], 10, "approximate"))
    print(f"first approximate search, with the check of the index: {first:.2f} s")
    exact, _ = catalog.nearest(queries, 10, "exact")
    found, _ = catalog.nearest(queries, 10, "approximate")
    for k in (1, 10):
        hits = [len(set(a[:k]) & set(b[:k])) for a, b in zip(exact, found, strict=True)]
        print(f"recall at {k:<3}{np.mean(hits) / k:>37.4f} of {len(queries)} queries")
    times(model, catalog, queries, meta)


def times(model, catalog, queries, meta):
    """Milliseconds for each query."""
    from astropy.table import QTable

    print(f"\n{'milliseconds for each query':<34}{'one':>8}{'of 100':>8}")
    names = [str(number) for number in range(len(queries))]
    table = QTable({"object_id": names, "physics": queries}, meta=meta)
    for method, singles in (("approximate", 100), ("exact", 3)):
        one, hundred = (
            lambda some, method=method: catalog.nearest(queries[some], 10, method),
            lambda some, method=method: model.similar(
                table[some], catalog, method=method
            ),
        )
        for what, search in (("rows, distances", one), ("similar", hundred)):
            single, _ = seconds(
                lambda search=search, singles=singles: [
                    search(slice(number, number + 1)) for number in range(singles)
                ]
            )
            many, _ = seconds(lambda search=search: search(slice(0, 100)))
            print(
                f"{f'{method}, {what}':<34}{single / singles * 1e3:>8.1f}"
                f"{many / 100 * 1e3:>8.1f}"
            )


if __name__ == "__main__":
    main()
