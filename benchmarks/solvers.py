# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How few evaluations of the decoder give the samples that many would.

``python benchmarks/solvers.py --pairs 64`` translates simulated pairs with the packaged
weights and every solver of the flow at several numbers of steps, and with the learned
rule of the default's four; it prints for each the error of the mean, widths of z,
coverage and power of `astro_disentangle.evaluation.views`: in the first column 64
evaluations of the midpoint rule, which stand for the solution. Seconds are those of one
core, all samples together.
"""

import argparse
import functools
import time

import torch

from astro_disentangle import Disentangler, simulate_pairs
from astro_disentangle.evaluation.views import Views, score_views
from astro_disentangle.model.flow import EVALUATIONS, STEPS

CASES = (
    ("midpoint", 32),
    ("midpoint", 4),
    ("midpoint", 2),
    ("euler", 4),
    ("adams", 2),
    ("adams", 3),
    ("adams", 4),
    ("adams", 8),
    ("learned", STEPS),
)
SHOWN = ("RMS of mean", "width of pixel z", "coverage", "sample over observed")


def main():
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--samples", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = Disentangler.load().network_
    translate = network.translate
    pairs = simulate_pairs(options.pairs, random_state=31)
    found = {}
    for case in CASES:
        solver, n_steps = case
        fixed = None if solver == "learned" else solver
        network.translate = functools.partial(translate, solver=fixed)
        for source, target in (("hsc", "legacy"), ("legacy", "hsc")):
            start = time.perf_counter()
            numbers = {"n_samples": options.samples, "n_steps": n_steps, "seed": 0}
            views = Views(network, pairs, source, target, **numbers)
            direction = f"{source}->{target}"
            seconds = found.setdefault(("seconds", direction), {})
            seconds[case] = time.perf_counter() - start
            for row in score_views(views, pairs)[0]:
                if row.measure.startswith(SHOWN):
                    found.setdefault((row.measure, direction), {})[case] = row.value
    print(" " * 62, *(f"{solver:>9s}" for solver, _ in CASES))
    evaluations = (n_steps * EVALUATIONS.get(solver, 1) for solver, n_steps in CASES)
    print(f"{'evaluations':62s}", *(f"{count:9d}" for count in evaluations))
    for (measure, direction), values in found.items():
        print(f"{measure:48s}{direction:14s}", *(f"{values[c]:9.3f}" for c in CASES))


if __name__ == "__main__":
    main()
