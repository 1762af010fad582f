# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Pairs of cut-outs."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from astro_disentangle import (
    FLAGS,
    CutoutError,
    PairedCutouts,
    SurveyCutout,
    SurveyMismatchError,
)
from astro_disentangle.data.groups import group_by_position
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.simulation import simulate

COORDS = SkyCoord(150 + np.arange(6) * 0.03, np.full(6, 2.0), unit="deg")


@pytest.fixture(scope="module")
def pairs():
    sky = simulate(2, 3, ["hsc", "legacy"], seed=3)
    return PairedCutouts(
        sky.batches,
        coords=COORDS,
        groups=sky.group,
        truth=QTable({"redshift": sky.truth["redshift"].numpy()}),
        noiseless=sky.noiseless,
    )


def test_parts(pairs):
    assert len(pairs) == 6 and pairs.surveys == ("hsc", "legacy")
    assert pairs.groups.tolist() == [0, 0, 0, 1, 1, 1]
    part = pairs[2:5]
    assert len(part) == len(part.truth) == len(part.batch("hsc")) == 3
    assert part.groups.tolist() == [0, 1, 1]
    assert torch.equal(part.noiseless["hsc"], pairs.noiseless["hsc"][2:5])
    assert part.object_id == pairs.object_id[2:5]
    assert len(pairs[[0, 5]]) == 2 and len(pairs[pairs.groups == 1]) == 3
    assert len(pairs[1]) == 1
    with pytest.raises(SurveyMismatchError, match="sdss"):
        pairs.batch("sdss")


@pytest.mark.parametrize("survey", ["hsc", "legacy"])
@pytest.mark.parametrize("with_coords", [True, False])
def test_tensors_to_sky_and_back(pairs, survey, with_coords):
    if not with_coords:
        pairs = PairedCutouts({s: pairs.batch(s) for s in pairs.surveys})
    views = pairs.cutouts(survey)
    assert len(views) == 6 and isinstance(views[-1], SurveyCutout)
    assert len(views[1:3]) == 2
    position = COORDS if with_coords else None
    read = read_cutouts(views, position=position)
    batch = pairs.batch(survey)
    for name in ("pixels", "noise", "psf_fwhm", "affine"):
        before, after = getattr(batch, name), getattr(read.batch, name)
        assert torch.allclose(before, after, rtol=0.01, atol=2e-3, equal_nan=True), name
    assert torch.equal(batch.good, read.batch.good)


def test_from_nddata_and_folder(pairs, tmp_path):
    again = PairedCutouts.from_nddata(pairs.cutouts("legacy"), pairs.cutouts("hsc"))
    assert again.surveys == ("legacy", "hsc")
    assert again.groups.tolist() == [0, 0, 1, 1, 2, 2]
    pairs.write(tmp_path)
    stored = PairedCutouts.from_folder(tmp_path)
    assert torch.equal(stored.batch("hsc").pixels, again.batch("hsc").pixels)
    assert stored.object_id == pairs.object_id
    (tmp_path / "hsc" / "000003.fits").unlink()
    with pytest.raises(CutoutError, match="000003"):
        PairedCutouts.from_folder(tmp_path)
    with pytest.raises(CutoutError, match="no folder"):
        PairedCutouts.from_folder(tmp_path / "none")


def test_unusable_rows_are_kept(pairs):
    views = list(pairs.cutouts("hsc"))
    views[2].mask[:] = True
    again = PairedCutouts.from_nddata(views, pairs.cutouts("legacy"))
    unusable = (again.flags & FLAGS.UNUSABLE) != 0
    assert unusable.tolist() == [False, False, True, False, False, False]
    assert again.cutouts("hsc")[2].mask.all()


def test_refusals(pairs):
    hsc, legacy = pairs.cutouts("hsc"), pairs.cutouts("legacy")
    with pytest.raises(ValueError, match="6 and 5"):
        PairedCutouts.from_nddata(hsc, legacy[:5])
    with pytest.raises(SurveyMismatchError, match="both are of hsc"):
        PairedCutouts.from_nddata(hsc, hsc)
    with pytest.raises(SurveyMismatchError, match="two surveys"):
        PairedCutouts({"hsc": pairs.batch("hsc")})
    with pytest.raises(ValueError, match="one length"):
        PairedCutouts({s: pairs.batch(s) for s in pairs.surveys}, groups=[1])
    rotated = legacy[0]
    matrix = rotated.wcs.wcs.cd
    a = np.deg2rad(20)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    rotated.wcs.wcs.cd = turn @ matrix
    with pytest.raises(CutoutError, match="north up"):
        PairedCutouts.from_nddata([hsc[0]], [rotated])


def test_groups_by_position():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(10, 11, 400), rng.uniform(-0.5, 0.5, 400)
    coords = [*SkyCoord(ra, dec, unit="deg"), None, None]
    groups = group_by_position(coords, 6 * u.arcmin)
    assert groups[-1] != groups[-2] and (groups >= 0).all()
    sky = SkyCoord(ra, dec, unit="deg")
    for group in np.unique(groups[:-2]):
        members = sky[groups[:-2] == group]
        assert members[0].separation(members).max() < 6 * u.arcmin
    assert 20 < len(np.unique(groups)) < 120
    with pytest.raises(ValueError, match="radius"):
        group_by_position(coords, 3 * u.m)
