# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The default recipe with one change at a time, small and equal.

``python benchmarks/ablations.py --output OUT`` trains a network of reduced size once
for each row, from the same first weights on the same galaxies for the same number of
steps, scores it on the same simulated pairs, and prints a table, one column a row.
``OUT`` keeps a JSON file of each; what is there is not done again. A thousand steps of
32 pairs are about eight minutes on one core. The last columns are the number of
parameters and the times of both encoders and of one evaluation of the decoder, over
those of the default.

One run of each: differences of a few hundredths are within what another seed does.
"""

import argparse
import dataclasses
import json
import timeit
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
    "encoder narrower": {"physics_widths": (16, 32, 64)},
    "encoder wider": {"physics_widths": (36, 72, 144)},
    "encoder deeper": {"physics_depths": (1, 2, 2)},
    "decoder narrower": {"decoder_width": 32},
    "decoder wider": {"decoder_width": 72},
    "decoder deeper": {"decoder_depth": 2},
    "patches smaller": {"patch_size": (2, 1)},
    "patches larger": {"patch_size": (4, 4)},
}
#: Cut-outs of which the cost is measured.
BATCH = 32
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


def surveys_of(change):
    """HSC and Legacy, with the patches of a row."""
    patches = change.get("patch_size", (None, None))
    return [
        survey if patch is None else dataclasses.replace(survey, patch_size=patch)
        for survey, patch in zip(
            map(get_survey, ("hsc", "legacy")), patches, strict=True
        )
    ]


def new_network(change):
    """A network of the sizes of a row, from the same seed."""
    names = {field.name for field in dataclasses.fields(NetworkConfig)}
    sizes = {name: value for name, value in change.items() if name in names}
    if change.get("recipe") == "counterfactual":
        sizes["outlined"] = False
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        return Network(surveys_of(change), NetworkConfig(**{**SIZES, **sizes}))


def train(change, n_steps):
    """A network trained with one change of the recipe."""
    recipe = RECIPES[change.get("recipe", "default")]
    names = {field.name for field in dataclasses.fields(Objective)}
    terms = {name: value for name, value in change.items() if name in names}
    objective = dataclasses.replace(recipe, **terms)
    surveys, network = surveys_of(change), new_network(change)
    elsewhere = change.get("elsewhere", True)
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


@torch.inference_mode()
def cost(change, sky):
    """Parameters, seconds of both encoders and of one evaluation of the decoder."""
    network = new_network(change).eval()
    view = network.view(sky.batches["hsc"])
    target = surveys_of(change)[1]
    shape = len(view.x), len(target.bands), target.stamp_size, target.stamp_size
    members = network.instrument.members(view)
    z = network.instrument.pool(members, torch.eye(len(members), dtype=torch.bool))
    prepared = network.prepare(
        network.physics(view),
        z,
        source="hsc",
        target="legacy",
        observation=view.observation,
        offset=torch.zeros(len(z), 2),
    )
    state, time = torch.zeros(shape), torch.full(shape[:1], 0.5)

    def encode():
        return network.physics(view), network.instrument.members(view)

    def evaluate():
        return network.decoder(state, time, prepared)

    return (
        sum(tensor.numel() for tensor in network.parameters()),
        *(min(timeit.repeat(f, number=1, repeat=5)) for f in (encode, evaluate)),
    )


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
    sky = simulate(4, BATCH // 4, surveys_of({}), seed=SEED + 2)
    costs = {row: cost(ROWS[row], sky) for row in done}
    unit = costs.get("default") or cost({}, sky)
    names = [name for _, name in SHOWN] + ["parameters", "encoders", "evaluation"]
    print(f"{'':28s}", *(f"{name:>14s}" for name in names))
    for row, scores in done.items():
        cells = [
            " ".join(f"{v:.2f}" for (m, _), v in scores.items() if m == measure)
            for measure, _ in SHOWN
        ]
        cells += [
            f"{value / one:.2f}" for value, one in zip(costs[row], unit, strict=True)
        ]
        print(f"{row:28s}", *(f"{cell:>14s}" for cell in cells))


if __name__ == "__main__":
    main()
