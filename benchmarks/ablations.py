# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The default recipe with one change at a time, small and equal.

``python benchmarks/ablations.py --output OUT`` trains a network of reduced size once
for each row, from the same first weights on the same galaxies for the same number of
steps, scores it on the same simulated pairs, and prints a table, one column a row.
``OUT`` keeps a JSON file of each; what is there is not done again. A thousand steps of
32 pairs are about eight minutes on one core.

One run of each: differences of a few hundredths are within what another seed does.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from astro_disentangle import get_survey, simulate_pairs
from astro_disentangle.evaluation.scoreboard import scoreboard
from astro_disentangle.model.centring import centre_physics
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.simulation import simulate
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES, Objective
from astro_disentangle.training.source import SimulatedSource

SEED = 20266
SIZES = {
    "physics_size": 64,
    "physics_widths": (24, 48, 96),
    "physics_depths": (1, 1, 1),
    "instrument_widths": (16, 32, 64),
    "decoder_width": 48,
    "condition": 64,
}
#: Changes of the objective, of the source of galaxies and of the sizes, by row.
ROWS = {
    "default": {},
    "no photometry": {"photometry": 0},
    "photometry x 0.1": {"photometry": 0.1},
    "no contrast": {"contrast": 0},
    "contrast x 3": {"contrast": 0.3},
    "contrast, same neighbours": {"elsewhere": False},
    "no agreement": {"agree_physics": 0, "agree_instrument": 0},
    "agreement x 5": {"agree_physics": 0.5},
    "no reading": {"reading": 0},
    "no outline": {"outlined": False, "outline": 0, "scaled": False},
    "not centred": {"centred": False},
    "all bands kept": {"drop_bands": 0},
    "latent of 128": {"physics_size": 128},
    "counterfactual": {"recipe": "counterfactual"},
}
SHOWN = (
    ("R2 redshift, ridge", "R2 redshift"),
    ("R2 log_size, ridge", "R2 size"),
    ("R2 e1, ridge", "R2 e1"),
    ("R2 of redshift lost", "redshift lost"),
    ("survey accuracy, logistic", "survey, linear"),
    ("survey accuracy, mlp", "survey, network"),
    ("recall@1", "recall@1"),
    ("recall@1, other neighbours", "recall, others"),
    ("R2 magnitude from own instrument", "own instr. mag"),
    ("R2 psf_fwhm from 8 cut-outs, told, median band", "PSF, told"),
    ("R2 depth from 8 cut-outs, median band", "depth, pixels"),
    ("RMS of mean - truth over noise, median galaxy", "RMS, median"),
    ("2 arcsec flux r, S/N >= 20: sum", "flux r, sum"),
    ("2 arcsec flux r, S/N >= 20: scatter", "flux r, scatter"),
    ("coverage of 2 arcsec flux, 68%", "coverage 68%"),
)


def train(change, n_steps):
    """A network trained with one change of the recipe."""
    change = dict(change)
    recipe = RECIPES[change.pop("recipe", "default")]
    names = {field.name for field in dataclasses.fields(Objective)}
    terms = {name: change.pop(name) for name in list(change) if name in names}
    objective = dataclasses.replace(recipe, **terms)
    elsewhere = change.pop("elsewhere", True)
    if recipe is RECIPES["counterfactual"]:
        change["outlined"] = False
    surveys = get_survey("hsc"), get_survey("legacy")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = Network(surveys, NetworkConfig(**{**SIZES, **change}))
    source = SimulatedSource(surveys, n_groups=4, seed=SEED, elsewhere=elsewhere)
    settings = Settings(n_steps=n_steps, warmup=50, ema=0.99, seed=SEED)
    trainer = Trainer(network, source, objective, settings)
    trainer.run()
    network.load_state_dict(trainer.averaged(), strict=False)
    network.eval()
    if objective.centred:
        skies = (simulate(8, 8, surveys, seed=SEED + 1, step=n) for n in range(32))
        centre_physics(network, (sky.batches for sky in skies))
    return network


def main():
    """Train, score, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pairs, other = (
        simulate_pairs(options.pairs, random_state=1, neighbours=n) for n in (0, 1)
    )
    for row in options.rows:
        path = options.output / f"{row.replace(' ', '_')}.json"
        if path.exists():
            continue
        network = train(ROWS[row], options.steps)
        table = scoreboard(
            network, pairs, other=other, n_views=64, n_samples=16, baselines=False
        )
        scores = [[r["measure"], r["where"], float(r["value"])] for r in table]
        path.write_text(json.dumps(scores, indent=1))
    done = {}
    for row in ROWS:
        path = options.output / f"{row.replace(' ', '_')}.json"
        if path.exists():
            scores = json.loads(path.read_text())
            done[row] = {(m, where): value for m, where, value in scores}
    print(f"{'':28s}", *(f"{name:>14s}" for _, name in SHOWN))
    for row, scores in done.items():
        cells = [
            " ".join(f"{v:.2f}" for (m, _), v in scores.items() if m == measure)
            for measure, _ in SHOWN
        ]
        print(f"{row:28s}", *(f"{cell:>14s}" for cell in cells))


if __name__ == "__main__":
    main()
