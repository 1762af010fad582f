# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What the physics encoder reads when it is told what to read.

``python benchmarks/supervised.py --steps 1400 --output supervised.json`` trains the
encoder of the packaged model, with a new linear layer on top, on the properties of
simulated galaxies themselves, and prints the R² of each on the pairs of
``astro-disentangle report --simulated 1024 --seed 1``: the most that ``retention``
could reach with this network, these galaxies and this many steps. 15 minutes on one
core for 1,400 steps.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from astro_disentangle import get_survey, simulate_pairs
from astro_disentangle.evaluation.probes import r_squared
from astro_disentangle.evaluation.scoreboard import known_of
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.simulation import simulate

NAMES = ("redshift", "log_mass", "magnitude", "log_size", "bulge_fraction", "e1", "e2")
SEED = 20265


def main():
    """Train, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    surveys = get_survey("hsc"), get_survey("legacy")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = Network(surveys, NetworkConfig())
        layer = nn.Linear(network.config.physics_size, len(NAMES))
    centre, scale = _statistics(surveys)
    parameters = [*network.physics.parameters(), *layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.99))
    for step in tqdm(range(options.steps), unit="step"):
        share = 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min((step + 1) / 50, 0.01 + share)
        sky = simulate(8, 8, surveys, seed=SEED, step=step)
        galaxy = ~sky.truth["is_star"].bool()
        goal = (_truth(sky)[galaxy] - centre) / scale
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(
                functional.smooth_l1_loss(
                    layer(network.physics(network.view(batch)))[galaxy].float(), goal
                )
                for batch in sky.batches.values()
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    pairs = simulate_pairs(1024, random_state=1)
    labels, _, star = known_of(pairs)
    found = {}
    for survey in surveys:
        batch = pairs.batch(survey.name)
        with torch.inference_mode():
            read = torch.cat(
                [
                    layer(network.physics(network.view(batch[rows])))
                    for rows in torch.arange(len(batch)).split(64)
                ]
            )
        read = (read * scale + centre).numpy()
        for place, name in enumerate(NAMES):
            score = r_squared(labels[name][~star], read[~star, place])
            found[f"{name}, {survey.name}"] = round(score, 3)
            print(f"R2 {name:16s}{survey.name:8s}{score:8.3f}")
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1))


def _truth(sky):
    return torch.stack([sky.truth[name] for name in NAMES], 1)


def _statistics(surveys):
    """Mean and standard deviation of the properties of galaxies."""
    sky = simulate(64, 8, surveys, seed=SEED + 1)
    truth = _truth(sky)[~sky.truth["is_star"].bool()]
    return truth.mean(0), truth.std(0)


if __name__ == "__main__":
    main()
