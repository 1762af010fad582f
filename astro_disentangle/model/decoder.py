# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""The decoder: an outline of the image, and the flow of what it leaves open.

What depends only on the galaxy and the conditions is computed once
(`Decoder.prepare`): a conditioning vector; a canvas, feature maps of 16 and 8
patches on a side that hold what is to be painted where; and, painted from the
canvas, the outline: mean and variance of every stretched pixel of the target,

.. math:: v = \frac{v_\mathrm{sky}}{\cosh^2 m} + v_\mathrm{galaxy} .

The first part is the variance of the sky noise which the instrument latent tells
for each band, at the slope that the arcsinh stretch has there: depth is painted as
asked, and a learned variance only adds to it. Each evaluation then reads the state
of the flow (`astro_disentangle.model.flow`) in patches of the target survey and
returns its velocity, which is zero for what the outline has already said.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from astro_disentangle.model.blocks import ResidualBlock, TimeEmbedding

__all__ = ["PATCHES", "Decoder", "Prepared"]

#: Patches on a side of a stamp, for every survey.
PATCHES = 16
#: Logarithm of the learned variance before it is learned, and how far it may go.
_LOG_VARIANCE, _LOG_RANGE = -4.0, 8.0


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
    mean, variance : `torch.Tensor`
        Shape (B, C, N, N), the outline, float32.
    """

    target: str
    c: torch.Tensor
    fine: torch.Tensor
    coarse: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    def repeat(self, count):
        """Every row ``count`` times, one after the other."""
        rows = (self.c, self.fine, self.coarse, self.mean, self.variance)
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
        self.outline = nn.ModuleDict(
            {
                s.name: nn.Conv2d(width, 2 * len(s.bands) * s.patch_size**2, 1)
                for s in surveys
            }
        )
        for layer in (*self.paint.values(), *self.outline.values()):
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
        return Prepared(target, c, fine, coarse, *self._outline(fine, target, sky))

    def _outline(self, fine, target, sky):
        """Mean and variance of the target's stretched pixels, (B, C, N, N)."""
        # Half precision would be coarser than the noise of bright pixels.
        with torch.autocast(fine.device.type, enabled=False):
            h = self.outline[target](fine.float())
            h = functional.pixel_shuffle(h, self.shapes[target][1])
            mean, log_variance = h.chunk(2, 1)
            slope = mean.detach().clamp(-20, 20).cosh()
            learned = log_variance.clamp(-_LOG_RANGE, _LOG_RANGE) + _LOG_VARIANCE
            return mean, sky[:, :, None, None] / slope**2 + learned.exp()

    def forward(self, y, t, prepared):
        """
        Velocity of the flow at time ``t``.

        Parameters
        ----------
        y : `torch.Tensor`
            Shape (B, C, N, N), state of the flow.
        t : `torch.Tensor`
            Shape (B,), times from 0 (noise) to 1 (image).
        prepared : `Prepared`
            From `prepare`.

        Returns
        -------
        velocity : `torch.Tensor`
            Shape (B, C, N, N), float32, per radian.
        """
        target = prepared.target
        c = functional.silu(prepared.c + self.time(t))
        y = y.contiguous(memory_format=torch.channels_last)

        h = self.patch[target](y) + prepared.fine
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
        return functional.pixel_shuffle(h, self.shapes[target][1]).float()


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
        self.sixth = ResidualBlock(width, condition)

    def forward(self, z_physics, c):
        """Map (B, P) and (B, D) to maps of 16 x 16 and 8 x 8 patches."""
        h = self.seed(torch.cat([z_physics, c.to(z_physics.dtype)], 1))
        h = h.reshape(-1, 2 * self.width, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        h = functional.pixel_shuffle(self.second(self.first(h, c)), 2)
        coarse = self.third(h, c)
        fine = functional.pixel_shuffle(self.fourth(coarse), 2)
        return self.sixth(self.fifth(fine, c), c), coarse


def _blocks(width, depth, condition):
    return nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
