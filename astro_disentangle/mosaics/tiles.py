# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Where tiles lie, and what each of them has to say.

A tile lies on every source, and on the sky where sources leave gaps. Pixel p of the
mosaic is the mean of the tiles i that reach it, with the weights

.. math:: w_i(p) = T_i(p)\,[\,S_i(p)^2 + \epsilon_i\,] ,

where :math:`T` falls from 1 to 0 at the edge of the tile and :math:`S` is an
exponential profile of flux and moments of its source, in units of the noise: what a
galaxy's pixels are is said by the tile in whose middle it is, for this is what the
model was trained for, and the border between two tiles is where their galaxies are
equally bright. :math:`\epsilon` decides where there is no light.

What a tile on empty sky says of its middle counts nothing: the model was trained on
cut-outs with a galaxy there, and paints one, as faint as it has to be. Such tiles stand
so close that each middle is in others, where that is not so.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Tiles", "lay_tiles"]

#: What a tile says of empty sky, if it lies on a source, or on nothing.
_AROUND, _EMPTY = 1e-2, 1e-4
#: Part of half of a tile, from the middle, beyond which it begins to fade.
_CORE = 0.5
#: Where the tiles of sources have faded to less than this, sky gets its own.
_COVERED = 0.3
#: Of half of a tile on empty sky, from the middle: where it begins to count, and does.
_HOLE = 0.25, 0.5
#: Tiles on empty sky along the side of one.
_STEPS = 3


@dataclass(frozen=True)
class Tiles:
    """
    T tiles on the pixels of an image.

    Parameters
    ----------
    place : `~numpy.ndarray`
        Shape (T, 2), pixel (x, y) of what each is about.
    covariance, flux : `~numpy.ndarray`
        Shapes (T, 2, 2) and (T,), second moments in square pixels and flux in units of
        the noise; flux 0 of those on empty sky.
    size : int
        Pixels on a side.
    """

    place: np.ndarray
    covariance: np.ndarray
    flux: np.ndarray
    size: int

    def __len__(self):
        return len(self.flux)

    @property
    def corner(self):
        """Pixel (x, y) of the image that is (0, 0) of each tile, (T, 2), int."""
        return np.round(self.place - (self.size - 1) / 2).astype(int)

    @property
    def offset(self):
        """What each is about minus its middle, (T, 2), px, at most a half."""
        return self.place - self.corner - (self.size - 1) / 2

    def fading(self, row):
        """How a tile fades towards its edge, (size, size), from 1 to 0."""
        lines = []
        for away in self._away(row):
            part = np.abs(away) / (self.size / 2)
            part = np.clip((part - _CORE) / (1 - _CORE), 0, 1)
            lines.append(np.cos(np.pi / 2 * part) ** 2)
        return lines[1][:, None] * lines[0]

    def weight(self, row):
        """Weight of a tile's pixels, (size, size)."""
        if not self.flux[row]:
            x, y = self._away(row)
            radius = np.hypot(x, y[:, None]) / (self.size / 2)
            counts = np.clip((radius - _HOLE[0]) / (_HOLE[1] - _HOLE[0]), 0, 1)
            return self.fading(row) * counts * _EMPTY
        return self.fading(row) * (self.light(row) ** 2 + _AROUND)

    def _away(self, row):
        """How far columns and rows are from what a tile is about, px."""
        axis = np.arange(self.size) - (self.size - 1) / 2
        return [axis - offset for offset in self.offset[row]]

    def light(self, row):
        """Light of a tile's own source, in units of the noise, (size, size)."""
        x, y = self._away(row)
        # An exponential disc of scale h has the moments 3 h^2 along each axis.
        scale = self.covariance[row] / 3
        inverse = np.linalg.inv(scale)
        square = (
            inverse[0, 0] * x**2
            + 2 * inverse[0, 1] * x * y[:, None]
            + inverse[1, 1] * y[:, None] ** 2
        )
        peak = self.flux[row] / (2 * np.pi * np.sqrt(np.linalg.det(scale)))
        return peak * np.exp(-np.sqrt(square))


def lay_tiles(place, covariance, flux, seen, size):
    """
    Tiles on sources, and on the sky between them.

    Parameters
    ----------
    place, covariance, flux : `~numpy.ndarray`
        Of S sources, as in `Tiles`.
    seen : `~numpy.ndarray`
        Shape (ny, nx), bool, pixels that are to be painted.
    size : int
        Pixels on a side of a tile.

    Returns
    -------
    tiles : `Tiles`
        The sources' first, in their order.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.mosaics.tiles import lay_tiles
    >>> place, moments = np.array([[20.0, 31.3]]), 4 * np.eye(2)[None]
    >>> tiles = lay_tiles(place, moments, np.array([50.0]), np.ones((64, 64), bool), 32)
    >>> len(tiles), tiles.corner[0].tolist(), np.round(tiles.offset[0], 3).tolist()
    (46, [4, 16], [0.5, -0.2])
    """
    sources = Tiles(place, covariance, flux, size)
    covered = np.zeros(seen.shape)
    for row in range(len(sources)):
        window, part = clipped(seen.shape, sources.corner[row], size)
        covered[window] = np.maximum(covered[window], sources.fading(row)[part])
    bare = seen & (covered < _COVERED)
    step = size // _STEPS
    ny, nx = seen.shape

    def inside(start, length):
        # A tile that lies over the edge would show less sky than it could.
        middle, half = start + (step - 1) / 2, (size - 1) / 2
        if length < size:
            return (length - 1) / 2
        return min(max(middle, half), length - 1 - half)

    free = [
        (inside(x, nx), inside(y, ny))
        for y in range(0, ny, step)
        for x in range(0, nx, step)
        if bare[y : y + step, x : x + step].any()
    ]
    free = np.reshape(free, (-1, 2)).astype(float)
    return Tiles(
        np.concatenate([place, free]),
        np.concatenate([covariance, np.tile(np.eye(2), (len(free), 1, 1))]),
        np.concatenate([flux, np.zeros(len(free))]),
        size,
    )


def clipped(shape, corner, size):
    """Slices of an image (ny, nx), and of a tile, where they overlap."""
    image, tile = [], []
    for length, start in zip(shape, reversed(tuple(corner)), strict=True):
        low, high = max(int(start), 0), min(int(start) + size, length)
        image.append(slice(low, max(high, low)))
        tile.append(slice(low - int(start), max(high, low) - int(start)))
    return tuple(image), tuple(tile)
