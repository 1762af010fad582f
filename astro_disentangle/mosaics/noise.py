# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""White noise on a plane without end, of which tiles are cut."""

import functools

import torch

from astro_disentangle.keys import torch_generator

__all__ = ["NoisePlane"]

#: Side of the squares that have a key of their own, px, and how many are kept.
_SIDE, _KEPT = 64, 4096


class NoisePlane:
    """
    Noise that is a function of the pixel alone.

    Where tiles overlap they are painted from the same numbers, and so agree wherever
    there is nothing but noise.

    Parameters
    ----------
    seed : int
        Key of the noise.
    survey : str
        Name of the survey that is painted.
    bands : int
        Number C of its bands.

    Examples
    --------
    >>> from astro_disentangle.mosaics.noise import NoisePlane
    >>> plane = NoisePlane(0, "legacy", 4)
    >>> a, b = plane.window(0, (-7, 60), 32), plane.window(0, (-2, 62), 32)
    >>> a.shape, bool((a[:, 2:, 5:] == b[:, :-2, :-5]).all())
    (torch.Size([4, 32, 32]), True)
    """

    def __init__(self, seed, survey, bands):
        self._key = seed, "mosaic", survey
        self._bands = bands
        self._square = functools.lru_cache(maxsize=_KEPT // bands)(self._drawn)

    def _drawn(self, sample, row, column):
        """The noise of one square, (C, 64, 64)."""
        seed, *purpose = self._key
        generator = torch_generator(seed, *purpose, sample, row, column)
        shape = (self._bands, _SIDE, _SIDE)
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    def window(self, sample, corner, size):
        """
        The noise of a window.

        Parameters
        ----------
        sample : int
            Number of the sample.
        corner : tuple of int
            Pixel (x, y) of the plane that is (0, 0) of the window; may be negative.
        size : int
            Pixels on a side.

        Returns
        -------
        noise : `torch.Tensor`
            Shape (C, size, size), float32.
        """
        x, y = corner
        columns = range(x // _SIDE, (x + size - 1) // _SIDE + 1)
        rows = range(y // _SIDE, (y + size - 1) // _SIDE + 1)
        whole = torch.cat(
            [
                torch.cat([self._square(sample, row, column) for column in columns], 2)
                for row in rows
            ],
            1,
        )
        x, y = x % _SIDE, y % _SIDE
        return whole[:, y : y + size, x : x + size]
