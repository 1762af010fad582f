# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One translation against the published decoder, on one core, in one run.

``python benchmarks/published.py`` (extra ``bench``) builds the published U-Net
(arXiv:2604.09787: widths 128, 256, 512 and 512, cross-attention to 24 tokens of 16
numbers in every block, 161 million parameters) with diffusers at random weights, times
one of its evaluations on one image of 48 x 48 px of four bands, and takes 250 of them,
the published number of Euler steps. Beside it stands `Disentangler.translate` of one
HSC galaxy to Legacy from images to a cut-out, and the network alone. Float32, medians.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from astro_disentangle import Disentangler, get_survey
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.model.conditions import typical_conditions
from astro_disentangle.model.flow import EVALUATIONS, SOLVER, STEPS
from astro_disentangle.samples import load_sample, sample_names
from astro_disentangle.translation import noise_of_objects, paint

PUBLISHED_STEPS = 250


def published_decoder():
    """The published decoder at random weights."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=48,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("CrossAttnDownBlock2D",) * 4,
        up_block_types=("CrossAttnUpBlock2D",) * 4,
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()


def seconds(function, repeats):
    """Median time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    decoder = published_decoder()
    state, tokens = torch.randn(1, 4, 48, 48), torch.randn(1, 24, 16)
    model = Disentangler.load()
    galaxy = load_sample(sample_names(survey="hsc")[0])
    conditions = typical_conditions(model.bank_, get_survey("legacy"))
    batch = read_cutouts(galaxy, "hsc").batch
    noise = noise_of_objects(0, batch.keys, conditions.survey)
    with torch.inference_mode():
        one = seconds(lambda: decoder(state, 0.5, tokens), options.repeats)
        network = seconds(
            lambda: paint(
                model.network_,
                batch,
                conditions,
                n_samples=1,
                n_steps=STEPS,
                noise=noise,
            ),
            10 * options.repeats,
        )
    public = seconds(
        lambda: model.translate(galaxy, survey="legacy", source="hsc"),
        10 * options.repeats,
    )
    found = {
        "parameters of the published decoder": sum(
            p.numel() for p in decoder.parameters()
        ),
        "one evaluation of it, s": one,
        f"{PUBLISHED_STEPS} evaluations, s": PUBLISHED_STEPS * one,
        "our evaluations": STEPS * EVALUATIONS[SOLVER],
        "our networks, s": network,
        "translate(), s": public,
        "times faster, networks": PUBLISHED_STEPS * one / network,
        "times faster, translate()": PUBLISHED_STEPS * one / public,
    }
    for name, value in found.items():
        print(f"{name:40s}{value:14.6g}")
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
