# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The image in which painted tiles come together."""

import numpy as np

from astro_disentangle.mosaics.tiles import clipped

__all__ = ["Canvas"]


class Canvas:
    """
    A weighted mean of tiles.

    Parameters
    ----------
    shape : tuple of int
        (S, C, ny, nx): samples, bands and pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.mosaics.canvas import Canvas
    >>> canvas = Canvas((1, 1, 4, 4))
    >>> canvas.add(np.ones((1, 1, 2, 2)), np.ones((2, 2)), (3, -1))
    >>> canvas.pixels[0, 0, :2].tolist()
    [[nan, nan, nan, 1.0], [nan, nan, nan, nan]]
    """

    def __init__(self, shape):
        self._total = np.zeros(shape, np.float32)
        self._weight = np.zeros(shape[2:], np.float32)
        self._refused = np.zeros(shape[2:], np.float32)

    def add(self, tile, weight, corner):
        """
        Add a tile.

        Parameters
        ----------
        tile : `~numpy.ndarray`
            Shape (S, C, N, N).
        weight : `~numpy.ndarray`
            Shape (N, N).
        corner : tuple of int
            Pixel (x, y) of the image that is (0, 0) of the tile.
        """
        window, part = clipped(self._weight.shape, corner, len(weight))
        self._total[(..., *window)] += tile[(..., *part)] * weight[part]
        self._weight[window] += weight[part]

    def refuse(self, weight, corner):
        """Leave out a tile of given weight: it could not be painted."""
        window, part = clipped(self._weight.shape, corner, len(weight))
        self._refused[window] += weight[part]

    @property
    def pixels(self):
        """The mean, (S, C, ny, nx); NaN where refused tiles weigh more than others."""
        known = self._weight > self._refused
        weight = np.where(known, self._weight, np.nan)
        return self._total / weight
