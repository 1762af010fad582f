# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""What one image shows and the physics latent leaves out.

A physics latent that is alike in two surveys cannot hold what only one of them sees,
and a vector is a poor place for clumps, arms and neighbours. What is missing is there
to be seen: with :math:`f` the image and :math:`\mu` the mean that the decoder outlines
of it, from its own physics and instrument latents, both in units of the softening of
the stretch, the surplus is

.. math:: w = \mathrm{arcsinh} \frac{f - \mu}{\sqrt{1 + \mu^2}} ,

linear where the image is faint, relative where it is bright. An encoder makes a map of
it, ``z_residual``, of R channels on 24 x 24 pixels of twice the common grid's scale,
the galaxy in the middle. It is no part of ``z_physics``; it is read from the source,
never from the target, and goes to the decoder, where it is added to the canvas.

The map stays in its place on the sky. With :math:`u` the position of a quarter of a
patch of the target in pixels from the middle of its stamp, :math:`o` the offset of the
galaxy and :math:`\Delta` the pixel scale, the decoder sees the map, interpolated
linearly, at

.. math:: s = (u - o)\,\Delta

from the galaxy. Convolutions that know the observation of the source and the
conditions of the target then make of it what must be added to the canvas: one part to
what the outline is painted from, one to what the flow reads. Both are zero at first.
"""

import torch
from torch import nn
from torch.nn import functional

from astro_disentangle.data.batch import COMMON_SCALE
from astro_disentangle.model.blocks import ResidualBlock
from astro_disentangle.model.encoder import APERTURES, Stem, light

__all__ = ["RESIDUAL_SIZE", "Residual"]

#: Pixels on a side of the map.
RESIDUAL_SIZE = 24
#: Places at which a patch of the target looks at the map, on a side.
_LOOKS = 2


class Residual(nn.Module):
    """
    Encoder and use of the residual latents.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys with a residual.
    size : int
        Channels R of the map.
    width, depth : int
        Channels and residual blocks of the encoder, and of what reads the map.
    condition : int
        Length of its conditioning vector.
    canvas, decoder_condition : int
        Channels W of the decoder's canvas and length D of its conditioning vector.
    """

    def __init__(
        self, surveys, size, width, depth, condition, canvas, decoder_condition
    ):
        super().__init__()
        self.stem = Stem(surveys, width, condition, light, len(APERTURES))
        self.surplus = nn.ModuleDict(
            {s.name: nn.Conv2d(len(s.bands), width, 4, 2, 1) for s in surveys}
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(width, condition) for _ in range(depth)
        )
        self.output = nn.Conv2d(width, size, 1)
        self.look = nn.Conv2d(size * _LOOKS**2 + canvas, width, 1)
        self.mix = nn.ModuleList(
            ResidualBlock(width, decoder_condition) for _ in range(depth)
        )
        self.add = nn.Conv2d(width, 2 * canvas, 1)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, view, surplus):
        """Map a view and its surplus (B, C, 48, 48) to (B, R, 24, 24)."""
        x, told, measured = self.stem(view)
        x = x + self.surplus[view.survey](surplus)
        for block in self.blocks:
            x = block(x, told + measured)
        return self.output(x).float()

    def additions(self, z_residual, fine, c, *, survey, offset):
        """
        What is added to the canvas.

        Parameters
        ----------
        z_residual : `torch.Tensor`
            Shape (B, R, 24, 24).
        fine : `torch.Tensor`
            Shape (B, W, M, M), the canvas of M patches on a side.
        c : `torch.Tensor`
            Shape (B, D), the decoder's conditioning vector.
        survey : `~astro_disentangle.Survey`
            The target.
        offset : `torch.Tensor`
            Shape (B, 2), galaxy minus centre of the stamp, (x, y) px.

        Returns
        -------
        outline, flow : `torch.Tensor`
            Shape (B, W, M, M) each, for the outline and for the flow.
        """
        seen = _looked_at(z_residual, survey, offset)
        h = self.look(torch.cat([seen.to(fine.dtype), fine], 1))
        for block in self.mix:
            h = block(h, c)
        return self.add(h).chunk(2, 1)


def _looked_at(z_residual, survey, offset):
    """The map as the patches of a target look at it, (B, 4 R, M, M)."""
    count = _LOOKS * (survey.stamp_size // survey.patch_size)
    place = torch.arange(count, device=offset.device) + 0.5
    place = place * (survey.patch_size / _LOOKS) - survey.stamp_size / 2
    scale = survey.pixel_scale / (2 * COMMON_SCALE)
    last = RESIDUAL_SIZE - 1
    with torch.autocast(offset.device.type, enabled=False):
        x, y = (
            ((place - offset[:, axis, None]) * scale + last / 2).clamp(0, last)
            for axis in (0, 1)
        )
        pixel = torch.arange(RESIDUAL_SIZE, device=offset.device)
        x, y = (
            (1 - (part[:, :, None] - pixel).abs()).clamp(min=0)[:, None]
            for part in (x, y)
        )
        seen = y @ z_residual.float() @ x.transpose(2, 3)
    return functional.pixel_unshuffle(seen, _LOOKS)
