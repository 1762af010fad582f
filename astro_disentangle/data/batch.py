# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs of one survey as tensors: all that the networks ever see."""

import dataclasses
from dataclasses import dataclass

import torch

from astro_disentangle.data.constants import constant
from astro_disentangle.data.resample import resample
from astro_disentangle.survey import Survey

__all__ = ["COMMON_SCALE", "COMMON_SIZE", "CutoutBatch"]

#: Pixels on a side of the common grid on which the encoders see every survey.
COMMON_SIZE = 48
#: Pixel scale of the common grid in arcsec.
COMMON_SCALE = 0.168


@dataclass(frozen=True)
class CutoutBatch:
    """
    A batch of cut-outs of one survey.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey; ``C`` is the number of its bands.
    pixels : `torch.Tensor`
        Shape (B, C, H, W), float32, flux per native pixel in nJy, 0 where not good.
    good : `torch.Tensor`
        Shape (B, C, H, W), bool, True where a pixel can be trusted.
    noise : `torch.Tensor`
        Shape (B, C), float32, standard deviation of the sky noise in a pixel of the
        survey's own size in nJy; NaN where unknown.
    psf_fwhm : `torch.Tensor`
        Shape (B, C), float32, arcsec; NaN where unknown.
    affine : `torch.Tensor`
        Shape (B, 2, 3), float32, native 0-based pixel (x, y) of a sky offset
        (west, north) from the galaxy in arcsec.
    flags : `torch.Tensor`
        Shape (B,), int64, row flags.
    keys : `torch.Tensor`
        Shape (B,), int64, key of each object, from which its noise is drawn.
    """

    survey: Survey
    pixels: torch.Tensor
    good: torch.Tensor
    noise: torch.Tensor
    psf_fwhm: torch.Tensor
    affine: torch.Tensor
    flags: torch.Tensor
    keys: torch.Tensor

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        """The rows of a slice, a list of integers or a bool tensor."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device, *, non_blocking=False):
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        """The same batch where a GPU can fetch it while others work."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function):
        values = {
            field.name: function(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "survey"
        }
        return dataclasses.replace(self, **values)

    @property
    def present(self):
        """Bands that have any good pixel, shape (B, C), bool."""
        return self.good.any(-1).any(-1)

    def view(self):
        """
        The cut-outs on the common grid, as the encoders see them.

        Returns
        -------
        pixels : `torch.Tensor`
            Shape (B, C, 48, 48), float32, nJy per pixel of the common grid.
        good : `torch.Tensor`
            Shape (B, C, 48, 48), bool.
        """
        return resample(
            self.pixels, self.good, self.affine, size=COMMON_SIZE, scale=COMMON_SCALE
        )

    def stamp(self):
        """
        The central native stamp, as the decoder paints it.

        Returns
        -------
        pixels : `torch.Tensor`
            Shape (B, C, N, N), float32, nJy; ``N`` is ``survey.stamp_size``.
        good : `torch.Tensor`
            Shape (B, C, N, N), bool.
        offset : `torch.Tensor`
            Shape (B, 2), float32, galaxy minus centre of the stamp, (x, y) px.
        """
        size = self.survey.stamp_size
        height, width = self.pixels.shape[-2:]
        top, left = (height - size) // 2, (width - size) // 2
        window = (..., slice(top, top + size), slice(left, left + size))
        corner = constant((left, top), self.affine.device)
        offset = self.affine[:, :, 2] - corner - (size - 1) / 2
        return self.pixels[window], self.good[window], offset

    def turned(self, quarter_turns, flip):
        """
        The batch as it would be if the sky were turned and mirrored.

        Parameters
        ----------
        quarter_turns : int
            Number of turns by 90 degrees, from x towards y.
        flip : bool
            Mirror x first.

        Returns
        -------
        batch : `CutoutBatch`
            Square stamps only: H must equal W.
        """
        mirror = -1 if flip else 1
        cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
        matrix = (mirror * cosine, -sine, mirror * sine, cosine)
        matrix = constant(matrix, self.affine.device).reshape(2, 2)

        def move(images):
            images = images.flip(-1) if flip else images
            # rot90 counts turns in an image whose first row is at the top.
            return torch.rot90(images, -quarter_turns, (-2, -1))

        centre = (self.pixels.shape[-1] - 1) / 2
        linear = matrix @ self.affine[:, :, :2] @ matrix.T
        shift = (self.affine[:, :, 2] - centre) @ matrix.T + centre
        return dataclasses.replace(
            self,
            pixels=move(self.pixels),
            good=move(self.good),
            affine=torch.cat([linear, shift[:, :, None]], 2),
        )

    @classmethod
    def concatenate(cls, batches):
        """
        One batch of several of the same survey and stamp shape.

        Parameters
        ----------
        batches : sequence of `CutoutBatch`
            At least one.

        Returns
        -------
        batch : `CutoutBatch`
            The rows in order.
        """
        batches = list(batches)
        values = {
            field.name: torch.cat([getattr(batch, field.name) for batch in batches])
            for field in dataclasses.fields(cls)
            if field.name != "survey"
        }
        return cls(survey=batches[0].survey, **values)
