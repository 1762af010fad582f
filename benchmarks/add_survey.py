# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A further survey from few pairs: the scoreboard against their number.

``python benchmarks/add_survey.py [--survey kids] [--pairs 200 2000] [--steps 300]``
adds a survey to the packaged weights (or those of ``--weights``) with so many simulated
pairs with HSC, and scores the model on 512 other ones: once as it begins, with no step
at all, then for each number of pairs. The last column is that of aperture photometry or
PSF matching, where a row has one. ``--against`` scores on pairs with another survey of
the weights, which the new one was never paired with. Torch has one thread.
"""

import argparse
import time
from pathlib import Path

import torch
from astropy.table import QTable, join

from astro_disentangle import Disentangler, get_survey, simulate_pairs
from astro_disentangle.evaluation.scoreboard import scoreboard

SEED, TEST_SEED = 5, 11
KNOWN = "hsc"
ROWS = (
    "R2 redshift, ridge",
    "R2 of redshift lost",
    "R2 magnitude, ridge",
    "R2 of magnitude lost",
    "R2 log_size, ridge",
    "survey accuracy, logistic",
    "recall@1",
    "recall@10",
    "recall@1, oracle",
    "recall@1, shuffled pairs",
    "RMS of mean - truth over noise, median galaxy",
    "RMS of truth over noise, blank, median galaxy",
    "RMS of mean - truth, where PSF matching can be, median galaxy",
    "width of pixel z, galaxies",
    "width of pixel z, sky",
    "coverage of 2 arcsec flux, 68%",
)


def added(weights, survey, n_pairs, steps):
    """The model with a survey, and the seconds that it took."""
    model = Disentangler.load(weights).set_params(
        n_steps=steps if n_pairs else 1,
        batch_size=32,
        learning_rate=1e-3 if n_pairs else 1e-12,
        progress=False,
        random_state=0,
    )
    pairs = simulate_pairs(max(n_pairs, 64), surveys=(KNOWN, survey), random_state=SEED)
    start = time.monotonic()
    model.add_survey(survey, pairs)
    return model, time.monotonic() - start


def scores(model, test, name, *, baselines):
    table = scoreboard(
        model.network_, test, n_views=48, n_samples=8, baselines=baselines
    )
    keep = [row["measure"] in ROWS for row in table]
    table = table[keep]["measure", "where", "value", "classical"]
    table.rename_column("value", name)
    if not baselines:
        table.remove_column("classical")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--survey", default="kids")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--against", default=KNOWN)
    parser.add_argument(
        "--output", type=Path, help="folder for the weights with most pairs"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    survey = get_survey(options.survey)
    both = options.against, survey
    test = simulate_pairs(512, surveys=both, random_state=TEST_SEED)
    table = None
    for number in (0, *options.pairs):
        model, taken = added(options.weights, survey, number, options.steps)
        print(f"{survey.name}, {number} pairs: {taken:.0f} s", flush=True)
        last = number == options.pairs[-1]
        found = scores(model, test, f"{number} pairs", baselines=last)
        keys = ["measure", "where"]
        table = found if table is None else join(table, found, keys=keys)
    order = {measure: place for place, measure in enumerate(ROWS)}
    table = QTable(sorted(table, key=lambda row: (order[row["measure"]], row["where"])))
    for name in table.colnames[2:]:
        table[name].info.format = ".3f"
    table.pprint_all()
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        model.save(options.output / f"{survey.name}.safetensors")


if __name__ == "__main__":
    main()
