# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The few layers of which encoders and decoder are made.

All of them keep images as ``B C H W`` and take a conditioning vector
``c`` of shape ``(B, D)``, which scales and shifts the channels of the normalised image
(feature-wise linear modulation, arXiv:1709.07871).
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ResidualBlock", "TimeEmbedding", "Tower", "normalise_image"]


def normalise_image(x):
    """
    Unit root mean square over the channels and pixels of every image.

    One number per image: a bright pixel stays brighter than a faint one, which a
    norm of every pixel on its own would undo.

    Parameters
    ----------
    x : `torch.Tensor`
        Shape (B, C, H, W).

    Returns
    -------
    x : `torch.Tensor`
        Shape (B, C, H, W).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.blocks import normalise_image
    >>> x = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
    >>> [round(value, 2) for value in normalise_image(x).flatten().tolist()]
    [0.85, 1.13]
    """
    norm = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True, dtype=torch.float32)
    scale = math.sqrt(x[0].numel()) / (norm + 1e-3)
    return x * scale.to(x.dtype)


class ResidualBlock(nn.Module):
    """
    Two 3 x 3 convolutions beside an identity, modulated by a vector.

    Parameters
    ----------
    channels : int
        Channels C of input and output.
    condition : int
        Length D of the conditioning vector.
    """

    def __init__(self, channels, condition):
        super().__init__()
        self.modulation = nn.Linear(condition, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()

    def forward(self, x, c):
        """Map (B, C, H, W) and (B, D) to (B, C, H, W)."""
        scale, shift = self.modulation(c)[:, :, None, None].chunk(2, 1)
        h = normalise_image(x) * (1 + scale) + shift
        return x + self.second(functional.silu(self.first(h)))


class Tower(nn.Module):
    """
    Residual blocks at falling resolution: images to a vector.

    Parameters
    ----------
    widths : sequence of int
        Channels of each level; every further level halves the resolution.
    depths : sequence of int
        Residual blocks of each level.
    condition : int
        Length of the conditioning vector.
    size : int
        Pixels on a side at the first level.
    squeeze : int
        Channels of the last feature map before it is flattened.
    output : int
        Length of the vector.
    """

    def __init__(self, widths, depths, condition, size, squeeze, output):
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths)
        )
        last = size // 2 ** (len(widths) - 1)
        self.squeeze = nn.Conv2d(widths[-1], squeeze, 1)
        self.output = nn.Linear(squeeze * last**2 + widths[-1], output)

    def forward(self, x, c):
        """Map (B, widths[0], size, size) and (B, D) to (B, output)."""
        for index, blocks in enumerate(self.levels):
            if index:
                x = self.down[index - 1](x)
            for block in blocks:
                x = block(x, c)
        place = functional.silu(self.squeeze(x)).flatten(1)
        return self.output(torch.cat([place, x.mean((2, 3))], 1))


class TimeEmbedding(nn.Module):
    """
    A vector for the time of the flow: sines and cosines, then two layers.

    Parameters
    ----------
    size : int
        Length of the vector.
    frequencies : int
        Number of frequencies, from 1/2 to 64 periods per unit of time.
    """

    def __init__(self, size, frequencies=16):
        super().__init__()
        steps = torch.linspace(math.log(0.5), math.log(64.0), frequencies)
        self.register_buffer("angular", 2 * math.pi * steps.exp(), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies, size), nn.SiLU(), nn.Linear(size, size)
        )

    def forward(self, t):
        """Map (B,) to (B, size)."""
        angle = t[:, None] * self.angular
        return self.layers(torch.cat([angle.sin(), angle.cos()], 1))
