# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Time of one galaxy through the package, as ratios to a ResNet-18 forward pass.

``python benchmarks/speed.py`` prints a table; all rows are of one run, on one
thread, in float32, with batches of 32 simulated HSC cut-outs of five bands. Each band
is a CCDData with a WCS of its own, PSF, mask and uncertainty.
"""

import time

import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from torch import nn

from astro_disentangle import (
    Disentangler,
    PairedCutouts,
    SurveyCutout,
    simulate_pairs,
)
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.serving import latents
from astro_disentangle.simulation import simulate

BATCH = 32


class Residual(nn.Module):
    """The basic block of ResNet-18 (arXiv:1512.03385)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.skip = (
            nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet18(channels):
    """ResNet-18 for images of any number of channels."""
    layers = [nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(width, outputs, stride), Residual(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def seconds(function, repeats=5):
    """Smallest time of a few calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def main():
    """Print the table."""
    torch.set_num_threads(1)
    model = Disentangler.load()
    network = model.network_
    pairs = simulate_pairs(BATCH, random_state=1)
    sky = SkyCoord(150 + np.arange(BATCH) / 100, np.full(BATCH, 2.0), unit="deg")
    pairs = PairedCutouts({s: pairs.batch(s) for s in pairs.surveys}, coords=sky)
    cutouts = list(pairs.cutouts("hsc"))
    mappings = [dict(cutout.items()) for cutout in cutouts]
    for mapping in mappings:
        for image in mapping.values():
            image.wcs = image.wcs.deepcopy()
    bare = [{b: CCDData(i.data, unit=i.unit) for b, i in m.items()} for m in mappings]
    mosaic = {
        band: CCDData(
            np.random.default_rng(0).normal(size=(2000, 2000)).astype("f4"),
            unit="adu",
            wcs=tangent_wcs(sky[0], np.eye(2) / 0.168, 999.5, 999.5, (2000, 2000)),
        )
        for band in "grizy"
    }
    places = np.random.default_rng(1).uniform(100, 1900, (BATCH, 2))
    batch = pairs.batch("hsc")
    view = network.view(batch)
    peer = resnet18(5)
    rows = {
        "ResNet-18 forward, 48 x 48 x 5": lambda: peer(view.x),
        "CCDData to tensors": lambda: read_cutouts(mappings, survey="hsc"),
        "the same, noise unknown, no PSF": lambda: read_cutouts(bare, survey="hsc"),
        "cut from a mosaic": lambda: list(
            SurveyCutout.from_image(mosaic, places, survey="hsc")
        ),
        "resampling and stretch": lambda: network.view(batch),
        "physics encoder": lambda: network.physics(view),
        "instrument encoder": lambda: network.instrument.members(view),
        "network: grid and both encoders": lambda: latents(network, batch),
        "transform": lambda: model.transform(mappings, survey="hsc"),
        "translate, 4 evaluations": lambda: model.translate(
            mappings, survey="legacy", source="hsc"
        ),
        "translate, 64 evaluations": lambda: model.translate(
            mappings, survey="legacy", source="hsc", n_steps=64
        ),
        "simulate a pair": lambda: simulate(4, 8, model.surveys, seed=0),
    }
    unit = None
    print(f"{'per galaxy':<34}{'ms':>9}{'ratio':>9}")
    for name, function in rows.items():
        taken = seconds(function, 3) / BATCH * 1e3
        unit = unit or taken
        print(f"{name:<34}{taken:>9.2f}{taken / unit:>9.2f}")


if __name__ == "__main__":
    main()
