# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Time of one galaxy through the package, as ratios to a ResNet-18 forward pass.

``python benchmarks/speed.py`` prints a table; all rows are of one run, on one
thread, in float32, with batches of 32 simulated HSC cut-outs.
"""

import time

import torch
from torch import nn

from astro_disentangle import Disentangler, simulate_pairs
from astro_disentangle.data.read import read_cutouts

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
    cutouts = list(pairs.cutouts("hsc"))
    mappings = [dict(cutout.items()) for cutout in cutouts]
    batch = pairs.batch("hsc")
    view = network.view(batch)
    peer = resnet18(5)
    rows = {
        "ResNet-18 forward, 48 x 48 x 5": lambda: peer(view.x),
        "CCDData to tensors": lambda: read_cutouts(mappings, survey="hsc"),
        "resampling and stretch": lambda: network.view(batch),
        "physics encoder": lambda: network.physics(view),
        "instrument encoder": lambda: network.instrument.members(view),
        "transform": lambda: model.transform(mappings, survey="hsc"),
        "translate, 2 evaluations": lambda: model.translate(
            mappings, survey="legacy", source="hsc", n_steps=1
        ),
        "translate, 16 evaluations": lambda: model.translate(
            mappings, survey="legacy", source="hsc"
        ),
    }
    unit = None
    print(f"{'per galaxy':<34}{'ms':>9}{'ratio':>9}")
    for name, function in rows.items():
        taken = seconds(function, 3) / BATCH * 1e3
        unit = unit or taken
        print(f"{name:<34}{taken:>9.2f}{taken / unit:>9.2f}")


if __name__ == "__main__":
    main()
