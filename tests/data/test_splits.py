# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Parts of the sky have nothing in common."""

import itertools
import time
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, search_around_sky
from astropy_healpix import HEALPix

from astro_disentangle import CutoutError, PairedCutouts, simulate_pairs
from astro_disentangle.data.groups import group_by_position
from astro_disentangle.data.splits import split_by_sky

NAMES = ("train", "validation", "test")


def survey(count, seed=0):
    """Places in 100 square degrees over the border of 0 deg, with repeated ones."""
    generator = np.random.default_rng(seed)
    ra = generator.uniform(-5, 5, count) % 360
    places = np.stack([ra, generator.uniform(40, 53, count)], 1)
    places[: count // 100] = places[count // 2 : count // 2 + count // 100]
    return places


def overlaps(places, parts, margin=3 * u.arcmin):
    """Pairs of galaxies of different parts within the margin."""
    sky = {
        name: SkyCoord(*places[parts == name].T, unit="deg") for name in {*parts} - {""}
    }
    return sum(
        len(search_around_sky(sky[a], sky[b], margin)[0])
        for a, b in itertools.combinations(sorted(sky), 2)
    )


@pytest.mark.parametrize(
    "count", [200_000, pytest.param(1_000_000, marks=pytest.mark.nightly)]
)
def test_no_pair_across_parts(count):
    places = survey(count)
    begin = time.process_time()
    parts = split_by_sky(places)
    seconds = time.process_time() - begin
    shares = {name: float((parts == name).mean()) for name in (*NAMES, "")}
    print(f"{count} rows in {seconds:.2f} s: {shares}")
    assert overlaps(places, parts) == 0
    assert seconds < count / 20_000
    # There were some before.
    assert overlaps(places, split_by_sky(places, margin=1 * u.arcsec)) > 1000
    assert shares["train"] > 0.6 and shares[""] < 0.2
    assert min(shares["validation"], shares["test"]) > 0.03


def test_the_place_alone_decides():
    places = survey(20_000)
    parts = split_by_sky(places)
    some = np.random.default_rng(1).permutation(20_000)[:5000]
    of_some = split_by_sky(places[some])
    # The test set is whole in every table; others are where they were, or in none.
    assert (of_some[parts[some] == "test"] == "test").all()
    assert ((of_some == parts[some]) | (parts[some] == "")).all()
    assert (parts[some] == "").sum() > (of_some == "").sum() > 0
    assert split_by_sky(places, random_state=0).tolist() == parts.tolist()
    other = split_by_sky(places, random_state=1)
    assert (other != parts).mean() > 0.1


def test_shares_are_those_of_the_sky():
    generator = np.random.default_rng(0)
    dec = np.degrees(np.arcsin(generator.uniform(-1, 1, 50_000)))
    places = np.stack([generator.uniform(0, 360, 50_000), dec], 1)
    parts = split_by_sky(places, {"a": 0.5, "b": 0.3, "c": 0.2})
    for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        assert abs((parts == name).mean() - share) < 0.02, name


def test_only_the_earlier_part_gives_up_galaxies():
    places = survey(20_000)
    shares = {"train": 0.5, "test": 0.5}
    whole = split_by_sky(places, shares, margin=1e-6 * u.arcsec)
    parts = split_by_sky(places, shares)
    assert ((parts == "test") == (whole == "test")).all()
    test = SkyCoord(*places[whole == "test"].T, unit="deg")
    lost = SkyCoord(*places[(whole == "train") & (parts == "")].T, unit="deg")
    _, apart, _ = lost.match_to_catalog_sky(test)
    assert len(lost) > 100 and (apart <= 3 * u.arcmin).all()


def test_no_group_in_two_parts():
    places = survey(20_000)
    groups = group_by_position(places)
    parts = split_by_sky(places)
    kept = parts != ""

    def straddling(parts, kept):
        seen = np.unique(np.stack([groups[kept].astype(str), parts[kept]]), axis=1)
        return seen.shape[1] - len(np.unique(groups[kept]))

    assert straddling(parts, kept) > 0, "groups are wider than the margin"
    parts = split_by_sky(places, groups=groups)
    assert straddling(parts, parts != "") == 0
    assert (parts == "test").sum() == (split_by_sky(places) == "test").sum()


def test_rows_without_a_position_are_in_no_part():
    places = survey(1000)
    places[::10] = np.nan
    parts = split_by_sky(places)
    assert (parts[::10] == "").all() and (parts[1::10] != "").any()


def test_a_small_area_is_said():
    shift = np.random.default_rng(0).uniform(-0.1, 0.1, (500, 2))
    middle = HEALPix(nside=64, order="nested").healpix_to_lonlat(20_000)
    places = shift + [angle.to_value(u.deg) for angle in middle]
    with pytest.warns(UserWarning, match="order=") as caught:
        split_by_sky(places)
    assert "1 cells of order 6" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = split_by_sky(places, {"a": 0.5, "b": 0.5}, order=9)
    assert {*parts} == {"a", "b", ""} and overlaps(places, parts) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fractions": {"train": 0.5, "test": 0.6}}, "the sum is 1"),
        ({"fractions": {"train": 1.5, "test": -0.5}}, "positive"),
        ({"fractions": {"": 1.0}}, "by name"),
        ({"order": -1}, "'order'"),
        ({"order": 2.5}, "'order'"),
        ({"order": 10}, "lower order"),
        ({"margin": 3 * u.m}, "'margin'"),
        ({"groups": [1, 2]}, "'groups'"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(ValueError, match=text):
        split_by_sky(survey(100), **options)


def test_pairs_are_split():
    pairs = simulate_pairs(32, random_state=1)
    places = np.stack([np.arange(32) * 0.7, np.zeros(32)], 1)
    # A group over several cells.
    groups = np.arange(32)
    groups[::4] = 0
    pairs = PairedCutouts(
        {name: pairs.batch(name) for name in pairs.surveys},
        coords=places,
        object_id=pairs.object_id,
        groups=groups,
        truth=pairs.truth,
    )
    parts = pairs.split({"train": 0.5, "test": 0.5}, random_state=2)
    assert list(parts) == ["train", "test"]
    names = [set(part.object_id) for part in parts.values()]
    assert not names[0] & names[1] and min(map(len, names)) > 4
    assert not {*parts["train"].groups} & {*parts["test"].groups}
    assert len(names[0] | names[1]) < 32, "a group over the border is not kept whole"
    assert len(parts["train"].truth) == len(parts["train"])
    places[::2] = np.nan
    half = PairedCutouts(
        {name: pairs.batch(name) for name in pairs.surveys}, coords=places
    )
    with pytest.warns(UserWarning, match="16 of 32 pairs have no position"):
        parts = half.split({"train": 0.5, "test": 0.5})
    assert sum(map(len, parts.values())) == 16
    with pytest.raises(CutoutError, match="coords="):
        simulate_pairs(4, random_state=1).split()
