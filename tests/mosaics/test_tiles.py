# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Where tiles lie, and what each has to say."""

import numpy as np
import pytest

from astro_disentangle.mosaics.canvas import Canvas
from astro_disentangle.mosaics.tiles import Tiles, clipped, lay_tiles

SIZE = 32
SHAPE = 90, 120


def _laid(place=((20.0, 31.3), (27.4, 33.0), (80.0, 60.2)), flux=(900.0, 300.0, 50.0)):
    place = np.array(place).reshape(-1, 2)
    moments = np.tile(4 * np.eye(2), (len(place), 1, 1))
    seen = np.ones(SHAPE, bool)
    return lay_tiles(place, moments, np.array(flux, float), seen, SIZE)


def _weights(tiles):
    total = np.zeros((len(tiles), *SHAPE))
    for row in range(len(tiles)):
        window, part = clipped(SHAPE, tiles.corner[row], SIZE)
        total[(row, *window)] = tiles.weight(row)[part]
    return total


def test_a_tile_is_about_its_place():
    tiles = _laid()
    assert np.abs(tiles.offset).max() <= 0.5
    middle = tiles.corner + (SIZE - 1) / 2 + tiles.offset
    np.testing.assert_allclose(middle, tiles.place)
    np.testing.assert_allclose(tiles.place[:3], [[20, 31.3], [27.4, 33], [80, 60.2]])


@pytest.mark.parametrize("place", [(), ((20.0, 31.3),), ((2.0, 3.0), (118.0, 88.0))])
def test_no_pixel_is_without_a_tile(place):
    tiles = _laid(place, [100.0] * len(place))
    assert _weights(tiles).sum(0).min() > 0


def test_what_a_tile_on_empty_sky_says_of_its_middle_counts_nothing():
    tiles = _laid()
    for row in range(3, len(tiles)):
        weight = tiles.weight(row)
        x, y = np.round((SIZE - 1) / 2 + tiles.offset[row]).astype(int)
        assert weight[y, x] == 0
        assert weight.max() > 0


def test_a_galaxy_is_said_by_its_own_tile():
    tiles = _laid()
    weights = _weights(tiles)
    share = weights / weights.sum(0)
    for row in range(3):
        x, y = np.round(tiles.place[row]).astype(int)
        assert share[row, y, x] > 0.85
    # The border is where both are equally bright: nearer to the fainter one.
    line = share[:2, 32, 20:29]
    border = 20 + np.flatnonzero(line[0] < line[1])[0]
    assert border in (25, 26)
    assert np.all(line[0, : border - 20] > 0.5)
    assert np.all(line[0, border - 20 :] < 0.5)
    # Each of them is left to itself within a few pixels of its middle.
    assert line[0, 0] > 0.99
    assert line[1, -2] > 0.99


def test_weights_are_smooth():
    """No tile begins or ends at once: that would be a seam."""
    tiles = _laid()
    for row in range(len(tiles)):
        fade, weight = tiles.fading(row), tiles.weight(row)
        for image, most in ((fade, 0.05), (weight, 0.05 * weight.max())):
            edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            assert edge.min() >= 0
            assert edge.max() < most
        assert np.abs(np.diff(fade, axis=0)).max() < 0.3
        assert fade.max() > 0.99


def test_sky_beyond_the_mosaic_gets_no_tile():
    seen = np.zeros(SHAPE, bool)
    seen[:40, :40] = True
    none = np.empty((0, 2)), np.empty((0, 2, 2)), np.empty(0)
    tiles = lay_tiles(*none, seen, SIZE)
    assert 0 < len(tiles) < 20
    assert tiles.place.max() < 40
    assert not len(lay_tiles(*none, np.zeros(SHAPE, bool), SIZE))


def test_a_mosaic_smaller_than_a_tile():
    none = np.empty((0, 2)), np.empty((0, 2, 2)), np.empty(0)
    tiles = lay_tiles(*none, np.ones((12, 20), bool), SIZE)
    assert len(tiles) > 0
    for row in range(len(tiles)):
        window, part = clipped((12, 20), tiles.corner[row], SIZE)
        assert tiles.weight(row)[part].shape == np.zeros((12, 20))[window].shape


def test_light_has_the_flux_and_moments_of_its_source():
    moments = np.array([[[9.0, 3.0], [3.0, 4.0]]])
    tiles = Tiles(np.array([[75.3, 75.8]]), moments, np.array([500.0]), 151)
    light = tiles.light(0)
    axis = np.arange(151) - 75.0
    x, y = axis - tiles.offset[0, 0], axis[:, None] - tiles.offset[0, 1]
    assert light.sum() == pytest.approx(500, rel=0.01)
    found = [(light * a).sum() / light.sum() for a in (x * x, x * y, y * y + 0 * x)]
    np.testing.assert_allclose(found, [9, 3, 4], rtol=0.02)


def test_a_canvas_is_a_weighted_mean():
    canvas = Canvas((2, 1, 3, 4))
    one = np.ones((2, 1, 2, 2))
    canvas.add(one, np.full((2, 2), 1.0), (0, 0))
    canvas.add(4 * one, np.full((2, 2), 2.0), (1, 0))
    canvas.refuse(np.full((2, 2), 1.5), (0, 1))
    expected = [[1, 3, 4, np.nan], [np.nan, 3, 4, np.nan], 4 * [np.nan]]
    for sample in canvas.pixels:
        np.testing.assert_allclose(sample[0], expected)
