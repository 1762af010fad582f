# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Neighbours on the sky, against what astropy finds."""

import time

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from astro_disentangle import CutoutError, PairedCutouts, simulate_pairs
from astro_disentangle.data.groups import (
    group_by_position,
    places_of,
    sky_neighbours,
)


def over_the_border(count, seed=0):
    """Places on both sides of 0 deg, about four neighbours each."""
    generator = np.random.default_rng(seed)
    side = np.sqrt(count / 500)
    ra = generator.uniform(-side / 2, side / 2, count) % 360
    return np.stack([ra, generator.uniform(-side / 2, side / 2, count)], 1)


def about_a_pole(count, seed=0):
    """Places within a degree of the south pole."""
    generator = np.random.default_rng(seed)
    dec = np.sqrt(generator.uniform(0, 1, count)) - 90
    return np.stack([generator.uniform(0, 360, count), dec], 1)


def with_twins(count, seed=0):
    """Many galaxies, each of which has rows within an arcsec."""
    places = over_the_border(count // 8, seed).repeat(8, 0)
    shift = np.random.default_rng(seed).uniform(-0.2, 0.2, places.shape)
    return places + shift / 3600


SKIES = (over_the_border, about_a_pole, with_twins)


def expected(sky, n, radius):
    """Distances to the n nearest others within the radius, arcsec; NaN if fewer."""
    rows, _, apart, _ = sky.search_around_sky(sky, radius)
    apart = apart.arcsec
    keep = apart >= 1.0
    order = np.lexsort([apart[keep], rows[keep]])
    rows, apart = rows[keep][order], apart[keep][order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    made = np.full((len(sky), n), np.nan)
    made[rows[rank < n], rank[rank < n]] = apart[rank < n]
    return made


@pytest.mark.parametrize("places", SKIES)
@pytest.mark.parametrize(("n", "radius"), [(8, 3 * u.arcmin), (2, 40 * u.arcsec)])
def test_the_nearest_others(places, n, radius):
    places = places(2000)
    sky = SkyCoord(*places.T, unit="deg")
    found = sky_neighbours(places, n=n, radius=radius)
    assert found.shape == (2000, n) and found.dtype == np.int64
    apart = sky[:, None].separation(sky[np.maximum(found, 0)]).arcsec
    wanted = expected(sky, n, radius)
    assert (found >= 0).any() and (found >= 0).sum() == np.isfinite(wanted).sum()
    assert ((found >= 0) == np.isfinite(wanted)).all()
    apart[found < 0] = np.nan
    np.testing.assert_allclose(apart, wanted, atol=1e-6, rtol=0, equal_nan=True)
    # None is named twice, and none is the galaxy itself.
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in found)
    assert (found != np.arange(2000)[:, None]).all()


def test_all_rows_of_one_galaxy():
    assert (sky_neighbours(np.full((300, 2), 12.0)) == -1).all()


def test_rows_without_a_position():
    places = [SkyCoord(1, 2, unit="deg"), None, SkyCoord(1.01, 2, unit="deg"), None]
    assert sky_neighbours(places, n=2).tolist() == [
        [2, -1],
        [-1, -1],
        [0, -1],
        [-1] * 2,
    ]
    assert group_by_position(places).tolist() == [0, 1, 0, 2]
    assert sky_neighbours([None] * 2).tolist() == [[-1] * 8] * 2
    assert sky_neighbours([]).shape == (0, 8) and group_by_position([]).shape == (0,)


def test_every_form_of_positions():
    sky = SkyCoord([10, 10.01, 20], [1, 1, 2], unit="deg")
    forms = [sky, list(sky), places_of(sky), list(sky.galactic), sky.fk5]
    for form in forms:
        np.testing.assert_allclose(places_of(form), places_of(sky), atol=1e-9)
        assert group_by_position(form).tolist() == [0, 0, 1]
    with pytest.raises(CutoutError, match="positions on the sky"):
        sky_neighbours([3.0, 4.0])
    with pytest.raises(CutoutError, match="shape"):
        sky_neighbours(np.zeros((4, 3)))
    with pytest.raises(CutoutError, match="between -90 and 90"):
        sky_neighbours(np.array([[0.0, 91.0]]))
    with pytest.raises(ValueError, match="'n'"):
        sky_neighbours(sky, n=0)
    for radius in (3 * u.m, 0 * u.deg, [1, 2] * u.arcmin):
        with pytest.raises(ValueError, match="'radius'"):
            sky_neighbours(sky, radius=radius)


@pytest.mark.parametrize("places", SKIES)
def test_groups_are_those_of_one_galaxy_after_the_other(places):
    places = places(1500)
    sky = SkyCoord(*places.T, unit="deg")
    groups = np.full(len(sky), -1)
    for row in range(len(sky)):
        if groups[row] < 0:
            near = sky[row].separation(sky) <= 3 * u.arcmin
            groups[near & (groups < 0)] = groups.max() + 1
    found = group_by_position(places)
    assert found.dtype == np.int64
    assert found.tolist() == groups.tolist()


def test_time():
    places = over_the_border(100_000)
    begin = time.process_time()
    sky_neighbours(places)
    middle = time.process_time()
    group_by_position(places)
    seconds = middle - begin, time.process_time() - middle
    print(f"1e5 rows: neighbours {seconds[0]:.2f} s, groups {seconds[1]:.2f} s")
    assert max(seconds) < 5


def test_pairs_keep_their_places():
    pairs = simulate_pairs(4, random_state=1)
    sky = SkyCoord([359.999, 0.001, 5, 6], [0, 0, 1, 1], unit="deg")
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    kept = PairedCutouts(batches, coords=[*sky[:3], None])
    assert kept.coords[3] is None and kept.coords[1].separation(sky[1]).arcsec < 1e-6
    assert np.isnan(kept.sky[3]).all() and kept[1:3].sky.tolist() == [
        [0.001, 0],
        [5, 1],
    ]
    views = kept.cutouts("hsc")
    assert views[3].wcs is None
    # The galaxy is within a pixel of the middle.
    middle = views[0]["r"].wcs.pixel_to_world(23.5, 23.5)
    assert middle.separation(sky[0]).arcsec < 0.25
    assert kept.labelled(pairs.truth).coords[2].ra.deg == 5
    assert pairs.coords == [None] * 4
    with pytest.raises(ValueError, match="one length"):
        PairedCutouts(batches, coords=sky[:3])
