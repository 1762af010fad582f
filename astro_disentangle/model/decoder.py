# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""The decoder: velocity of the flow in the native pixels of the target.

What depends only on the galaxy and the conditions is computed once
(`Decoder.prepare`): a conditioning vector and a canvas, feature maps of 16 and
8 patches on a side that hold what is to be painted where. Each evaluation then
reads :math:`x_t` in patches of the target survey and returns

.. math:: u = a(t)\,x_t + b(t)\,F(x_t, t), \qquad
   a = \frac{t v - (1 - t)}{t^2 v + (1 - t)^2}, \qquad
   b^2 = \frac{v}{t^2 v + (1 - t)^2} .

For a pixel of pure noise of variance :math:`v`, :math:`a(t) x_t` is the exact
mean velocity :math:`E[x_1 - x_0 | x_t]` and :math:`b` is the standard deviation
about it, so that the network :math:`F` has a target of unit variance at every
time and starts from the right answer for empty sky. The variance is that of the
stretched sky noise which the instrument latent tells for each band: depth is
painted as asked even where :math:`x_t` itself would betray it to the network.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from astro_disentangle.model.blocks import ResidualBlock, TimeEmbedding

__all__ = ["PATCHES", "Decoder", "Prepared", "precondition"]

#: Patches on a side of a stamp, for every survey.
PATCHES = 16


def precondition(t, v):
    """
    Factors of the pixels and of the network in the velocity.

    Parameters
    ----------
    t : `torch.Tensor`
        Times, any shape.
    v : `torch.Tensor`
        Variance of the stretched sky noise, of a shape that goes with ``t``.

    Returns
    -------
    a, b : `torch.Tensor`
        Factors of ``x_t`` and of the network's output.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.decoder import precondition
    >>> a, b = precondition(torch.tensor([0.0, 1.0]), torch.tensor(0.2))
    >>> a.tolist()
    [-1.0, 1.0]
    """
    total = t**2 * v + (1 - t) ** 2
    return (t * v - (1 - t)) / total, (v / total).sqrt()


@dataclass(frozen=True)
class Prepared:
    """
    All that the decoder knows before the flow starts.

    Parameters
    ----------
    target : str
        Survey to paint, of C bands.
    c : `torch.Tensor`
        Shape (B, D), conditioning vector.
    fine, coarse : `torch.Tensor`
        Shapes (B, W, 16, 16) and (B, 2 W, 8, 8), the canvas.
    sky : `torch.Tensor`
        Shape (B, C), variance of the stretched sky noise.
    """

    target: str
    c: torch.Tensor
    fine: torch.Tensor
    coarse: torch.Tensor
    sky: torch.Tensor

    def repeat(self, count):
        """Every row ``count`` times, one after the other."""
        rows = (self.c, self.fine, self.coarse, self.sky)
        return Prepared(self.target, *(r.repeat_interleave(count, 0) for r in rows))


class Decoder(nn.Module):
    """
    Velocity of the flow from noise to an image of the target survey.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys the decoder reads from and paints.
    physics, instrument : int
        Lengths P and I of the latents.
    width : int
        Channels of the maps of 16 x 16 patches; 8 x 8 maps have twice as many.
    depth : int
        Residual blocks at each of the three stages.
    condition : int
        Length of the conditioning vector.
    """

    def __init__(self, surveys, physics, instrument, width, depth, condition):
        super().__init__()
        self.shapes = {
            s.name: (len(s.bands), s.patch_size, s.stamp_size) for s in surveys
        }
        for survey in surveys:
            if survey.stamp_size != PATCHES * survey.patch_size:
                raise ValueError(
                    f"'stamp_size' must be {PATCHES} times 'patch_size'; got "
                    f"{survey.stamp_size} and {survey.patch_size} for {survey.name}."
                )
        self.source = nn.ModuleDict(
            {s.name: nn.Linear(5 * len(s.bands), condition) for s in surveys}
        )
        self.target = nn.ParameterDict(
            {s.name: nn.Parameter(0.02 * torch.randn(condition)) for s in surveys}
        )
        self.merge = nn.Sequential(
            nn.Linear(physics + instrument + 2, condition),
            nn.SiLU(),
            nn.Linear(condition, condition),
        )
        self.time = TimeEmbedding(condition)
        self.canvas = _Canvas(physics, condition, width)

        self.patch = nn.ModuleDict(
            {
                s.name: nn.Conv2d(len(s.bands), width, s.patch_size, s.patch_size)
                for s in surveys
            }
        )
        self.fine = _blocks(width, depth, condition)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse = _blocks(2 * width, depth, condition)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.finish = _blocks(width, depth, condition)
        self.paint = nn.ModuleDict(
            {
                s.name: nn.Conv2d(width, len(s.bands) * s.patch_size**2, 1)
                for s in surveys
            }
        )
        for layer in self.paint.values():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def prepare(
        self, z_physics, z_instrument, *, source, observation, target, offset, sky
    ):
        """
        All that does not depend on the time of the flow.

        Parameters
        ----------
        z_physics, z_instrument : `torch.Tensor`
            Shapes (B, P) and (B, I).
        source : str
            Survey from which ``z_physics`` was read.
        observation : `torch.Tensor`
            Shape (B, 5 C), the source's observation, as in `View`.
        target : str
            Survey to paint.
        offset : `torch.Tensor`
            Shape (B, 2), galaxy minus centre of the stamp in target pixels.
        sky : `torch.Tensor`
            Shape (B, C), variance of the target's stretched sky noise.

        Returns
        -------
        prepared : `Prepared`
            For `forward`.
        """
        c = self.merge(torch.cat([z_physics, z_instrument, offset], 1))
        c = c + self.source[source](observation) + self.target[target]
        fine, coarse = self.canvas(z_physics, functional.silu(c))
        return Prepared(target, c, fine, coarse, sky)

    def forward(self, x_t, t, prepared):
        """
        Velocity at time ``t``.

        Parameters
        ----------
        x_t : `torch.Tensor`
            Shape (B, C, N, N), stretched pixels of the target survey.
        t : `torch.Tensor`
            Shape (B,), times from 0 (noise) to 1 (image).
        prepared : `Prepared`
            From `prepare`.

        Returns
        -------
        u : `torch.Tensor`
            Shape (B, C, N, N), float32.
        """
        target = prepared.target
        a, b = precondition(t[:, None], prepared.sky)
        a, b = a[:, :, None, None], b[:, :, None, None]
        c = functional.silu(prepared.c + self.time(t))
        scaled = x_t / (t**2 + (1 - t) ** 2).sqrt()[:, None, None, None]
        scaled = scaled.contiguous(memory_format=torch.channels_last)

        h = self.patch[target](scaled) + prepared.fine
        for block in self.fine:
            h = block(h, c)
        skip = h
        h = self.down(h) + prepared.coarse
        for block in self.coarse:
            h = block(h, c)
        h = functional.pixel_shuffle(self.up(h), 2)
        h = self.join(torch.cat([h, skip], 1))
        for block in self.finish:
            h = block(h, c)
        h = self.paint[target](h)
        painted = functional.pixel_shuffle(h, self.shapes[target][1])
        return a * x_t + b * painted.float()


class _Canvas(nn.Module):
    """Feature maps of what is to be painted where, from the physics latent."""

    def __init__(self, physics, condition, width):
        super().__init__()
        self.width = width
        self.seed = nn.Linear(physics + condition, 16 * 2 * width)
        self.first = ResidualBlock(2 * width, condition)
        self.second = nn.Conv2d(2 * width, 8 * width, 1)
        self.third = ResidualBlock(2 * width, condition)
        self.fourth = nn.Conv2d(2 * width, 4 * width, 1)
        self.fifth = ResidualBlock(width, condition)

    def forward(self, z_physics, c):
        """Map (B, P) and (B, D) to maps of 16 x 16 and 8 x 8 patches."""
        h = self.seed(torch.cat([z_physics, c.to(z_physics.dtype)], 1))
        h = h.reshape(-1, 2 * self.width, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        h = functional.pixel_shuffle(self.second(self.first(h, c)), 2)
        coarse = self.third(h, c)
        fine = functional.pixel_shuffle(self.fourth(coarse), 2)
        return self.fifth(fine, c), coarse


def _blocks(width, depth, condition):
    return nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
