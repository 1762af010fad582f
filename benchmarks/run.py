# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What a galaxy costs, as ratios to peers in the same run.

``python benchmarks/run.py [--output run.json]`` prints tables and writes them as JSON:

- network and ``transform``, in float32 and bfloat16, over a ResNet-18 forward pass of
  the same input (in the faster of its two memory layouts); from arrays, and from lists
  of mappings of CCDData, over the network alone;
- ``translate`` beside itself with 64 evaluations, PSF matching by photutils and, with
  the extra ``bench``, 250 evaluations of the published decoder;
- cost against batch size, number of samples and number of galaxies that are streamed
  (``--galaxies``), each of these in a process of its own, with its peak memory;
- time to import the package, and to load the model.

One thread and one processor; smallest of several times. ``--threads 2`` shows what
reading ahead is good for.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from astropy.nddata import CCDData
from speed import resnet18, seconds

from astro_disentangle import Cutouts, Disentangler, simulate_pairs
from astro_disentangle.serving import computing, latents

SIZE = 64
PUBLISHED_STEPS = 250
START_UP = {
    "python": "pass",
    "import torch and astropy": "import torch, astropy.nddata, astropy.table",
    "import astro_disentangle": "import astro_disentangle",
    "Disentangler.load()": (
        "from astro_disentangle import Disentangler; Disentangler.load()"
    ),
}


def galaxies(count, seed=1):
    """Simulated pairs: HSC as arrays and as mappings of CCDData."""
    pairs = simulate_pairs(count, random_state=seed)
    batch = pairs.batch("hsc")
    survey = batch.survey
    arrays = {
        "flux": batch.pixels.numpy() / survey.nanojansky,
        "noise": batch.noise.numpy() / survey.nanojansky,
        "mask": ~batch.good.numpy(),
        "psf_fwhm": batch.psf_fwhm.numpy(),
    }
    mappings = [dict(cutout.items()) for cutout in pairs.cutouts("hsc")]
    return arrays, mappings


def read(arrays):
    """Arrays as cut-outs."""
    return Cutouts.from_arrays(arrays["flux"], "hsc", unit="adu", **known(arrays))


def known(arrays):
    return {name: arrays[name] for name in ("noise", "mask", "psf_fwhm")}


def embedding(model, half, arrays, mappings):
    """Milliseconds of a galaxy through networks and transform."""
    network, cutouts = model.network_, read(arrays)
    view = network.view(cutouts.batch)
    peers = [resnet18(5), resnet18(5).to(memory_format=torch.channels_last)]
    image = view.x.contiguous(memory_format=torch.channels_last)
    device = torch.device("cpu")

    def peer(dtype):
        def run(one, x):
            with computing(device, dtype):
                for start in range(0, SIZE, 32):
                    one(x[start : start + 32])

        times = [
            seconds(lambda o=o, x=x: run(o, x)) for o in peers for x in (view.x, image)
        ]
        return min(times)

    rows = {"ResNet-18": peer("float32"), "ResNet-18, bfloat16": peer("bfloat16")}
    for name, one in (("", model), (", bfloat16", half)):
        rows |= {
            f"network{name}": seconds(
                lambda one=one: latents(network, cutouts.batch, dtype=one.dtype)
            ),
            f"transform, arrays{name}": seconds(lambda one=one: one.transform(cutouts)),
            f"transform, arrays and their checks{name}": seconds(
                lambda one=one: one.transform(read(arrays))
            ),
            f"transform, CCDData{name}": seconds(
                lambda one=one: one.transform(mappings, survey="hsc")
            ),
        }
    return {name: 1e3 * taken / SIZE for name, taken in rows.items()}


def matched(mappings):
    """PSF matching of every band, as astronomers do it without a network."""
    from astropy.convolution import convolve_fft
    from photutils.psf_matching import SplitCosineBellWindow, make_kernel

    from astro_disentangle.data.measure import render_psf

    window = SplitCosineBellWindow(0.4, 0.4)
    sharp, wide = (render_psf(width, 3.0, 0.168, 41) for width in (0.7, 1.3))
    for images in mappings:
        for image in images.values():
            kernel = make_kernel(sharp, wide, window=window)
            convolve_fft(image.data, kernel, boundary="wrap", allow_huge=True)


def translation(model, half, mappings):
    """Milliseconds of one galaxy to Legacy, alone."""
    one = mappings[:1]

    def paint(which, **options):
        return lambda: which.translate(one, survey="legacy", source="hsc", **options)

    rows = {
        "translate, 4 evaluations": seconds(paint(model), 20),
        "translate, 4 evaluations, bfloat16": seconds(paint(half), 20),
        "translate, 64 evaluations": seconds(paint(model, n_steps=64)),
    }
    try:
        rows["PSF matching, photutils"] = seconds(lambda: matched(one), 10)
    except ImportError as error:
        print(f"no PSF matching: {error}")
    try:
        from published import published_decoder

        decoder = published_decoder()
    except ImportError as error:
        print(f"no published decoder: {error}")
    else:
        state, tokens = torch.randn(1, 4, 48, 48), torch.randn(1, 24, 16)
        with torch.inference_mode():
            taken = seconds(lambda: decoder(state, 0.5, tokens), 3)
        rows[f"published decoder, {PUBLISHED_STEPS} evaluations"] = (
            PUBLISHED_STEPS * taken
        )
    return {name: 1e3 * taken for name, taken in rows.items()}


def scaling(model, arrays):
    """Milliseconds of a galaxy against batch size, of a sample against samples."""
    cutouts = read(arrays)
    found = {}
    for size in (1, 4, 16, 64):
        part = cutouts[:size]
        found[f"transform, batches of {size}"] = (
            1e3 * seconds(lambda part=part: model.transform(part)) / size
        )
    for count in (1, 4, 16, 64):
        taken = seconds(
            lambda count=count: model.translate(
                cutouts[:1], survey="legacy", n_samples=count
            )
        )
        found[f"translate, a sample of {count}"] = 1e3 * taken / count
    return found


def streamed(count, kind):
    """Seconds and peak memory, MB, of transform on so many galaxies."""
    torch.set_num_threads(1)
    model = Disentangler.load()
    arrays, mappings = galaxies(SIZE)
    give = {
        # New arrays each time: nothing can be remembered.
        "CCDData": lambda: (
            {b: CCDData(i, copy=True) for b, i in mappings[n % SIZE].items()}
            for n in range(count)
        ),
        "arrays": lambda: (read(arrays) for _ in range(-(-count // SIZE))),
    }[kind]
    model.transform(mappings, survey="hsc")
    before = peak(anew=True)
    start = time.perf_counter()
    if kind == "arrays":
        tables = [model.transform(part) for part in give()]
    else:
        tables = [model.transform(give(), survey="hsc")]
    taken = time.perf_counter() - start
    size = sum(t["physics"].nbytes + t["instrument"].nbytes for t in tables)
    return {
        "seconds per galaxy": taken / sum(map(len, tables)),
        "growth": peak() - before,
        "of which latents": size / 1e6,
    }


def peak(*, anew=False):
    """Peak memory of this process, MB, on Linux; from now on if it begins anew."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024


def child(*words):
    """A number that another process prints."""
    words = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def start_up(repeats=3):
    """Seconds of new processes."""
    found = {}
    for name, code in START_UP.items():
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            words = [sys.executable, "-c", code]
            subprocess.run(words, check=True)  # noqa: S603
            times.append(time.perf_counter() - start)
        found[name] = min(times)
    return found


def show(title, rows, unit, by=None):
    """A table of numbers and of their ratios to one of them."""
    by = next(iter(rows)) if by is None else by
    print(f"\n{title:<52}{unit:>10}{'ratio':>12}", flush=True)
    for name, value in rows.items():
        print(f"{name:<52}{value:>10.3f}{value / rows[by]:>12.4g}")


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--galaxies", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--stream", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        print(json.dumps(streamed(int(options.stream[0]), options.stream[1])))
        return
    torch.set_num_threads(options.threads)
    if options.threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    model, half = Disentangler.load(), Disentangler.load(dtype="bfloat16")
    arrays, mappings = galaxies(SIZE)
    found = {
        "threads": options.threads,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "embedding, ms": embedding(model, half, arrays, mappings),
    }
    show("a galaxy to latents", found["embedding, ms"], "ms")
    found["translation, ms"] = translation(model, half, mappings)
    show("a galaxy to Legacy", found["translation, ms"], "ms")
    found["scaling, ms"] = scaling(model, arrays)
    show("batches and samples", found["scaling, ms"], "ms")
    found["start-up, s"] = start_up()
    show("start-up", found["start-up, s"], "s")
    found["streamed"] = {}
    print(f"\n{'streamed':<36}{'ms each':>10}{'growth, MB':>12}{'latents, MB':>12}")
    for count, kind in itertools.product(options.galaxies, ("arrays", "CCDData")):
        name, row = f"{count} galaxies, {kind}", child("--stream", count, kind)
        found["streamed"][name] = row
        print(
            f"{name:<36}{1e3 * row['seconds per galaxy']:>10.3f}"
            f"{row['growth']:>12.0f}{row['of which latents']:>12.1f}",
            flush=True,
        )
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
