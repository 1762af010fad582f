# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How many galaxies must both surveys have observed?

``python benchmarks/unpaired.py --output OUT`` trains a network of reduced size on sets
of as many images, of which a share is of galaxies that both surveys observed and the
rest, half in each survey, of galaxies that one of them did: once with these and once
without. All are scored on the same other pairs. ``OUT`` keeps a JSON file of each;
what is there is not done again. 600 steps of 32 pairs are about 6 minutes on one core,
with 32 cut-outs alone in each about 11, and a score 2.

One run of each: differences of a few hundredths are within what another seed does.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from ablations import SHOWN, SIZES

from astro_disentangle import Cutouts, Disentangler, simulate_pairs
from astro_disentangle.evaluation.scoreboard import scoreboard

SEED = 20279
#: Share of pairs in per cent, and whether galaxies of one survey alone join in.
ROWS = [(3, 0), (3, 1), (10, 0), (10, 1), (1, 0), (1, 1), (100, 0), (30, 0), (30, 1)]


def cutouts_of(pairs, name):
    """The cut-outs of one survey, each group 30 arcmin from the next on the sky."""
    sky = np.stack([pairs.groups % 700 * 0.5, pairs.groups // 700 * 0.5], 1)
    return Cutouts(pairs.batch(name), pairs.object_id, sky)


def train(galaxies, n_pairs, n_steps, *, joined):
    """A model of some pairs, joined by the galaxies of one survey or not."""
    count = len(galaxies) // 2
    ends = np.cumsum([0, n_pairs, count - n_pairs, count - n_pairs])
    both, *alone = (galaxies[np.arange(*ends[i : i + 2])] for i in range(3))
    names = galaxies.surveys
    unpaired = {
        name: cutouts_of(part, name) for name, part in zip(names, alone, strict=True)
    }
    model = Disentangler(
        network=SIZES,
        n_steps=n_steps,
        batch_size=32,
        random_state=SEED,
    )
    return model.fit(both, unpaired=unpaired if joined else None)


def main():
    """Train, score, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--galaxies", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=512)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    galaxies = simulate_pairs(2 * options.galaxies, random_state=SEED)
    pairs, other = (
        simulate_pairs(options.pairs, random_state=1, neighbours=n) for n in (0, 1)
    )
    done = {}
    for share, joined in ROWS:
        path = options.output / f"{share}{'_joined' if joined else ''}.json"
        if not path.exists():
            n_pairs = options.galaxies * share // 100
            model = train(galaxies, n_pairs, options.steps, joined=bool(joined))
            table = scoreboard(
                model.network_,
                pairs,
                other=other,
                n_views=64,
                n_samples=16,
                baselines=False,
            )
            scores = [[r["measure"], r["where"], float(r["value"])] for r in table]
            path.write_text(json.dumps(scores, indent=1))
        scores = json.loads(path.read_text())
        done[share, joined] = {(m, where): value for m, where, value in scores}
    print(f"{'':20s}", *(f"{name:>14s}" for _, name in SHOWN))
    for row in sorted(done, reverse=True):
        cells = [
            " ".join(f"{v:.2f}" for (m, _), v in done[row].items() if m == measure)
            for measure, _ in SHOWN
        ]
        label = f"{row[0]}%{' and the others' if row[1] else ''}"
        print(f"{label:20s}", *(f"{cell:>14s}" for cell in cells))


if __name__ == "__main__":
    main()
