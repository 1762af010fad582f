# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Arrays give what images give."""

import dataclasses

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, StdDevUncertainty

from astro_disentangle import (
    FLAGS,
    CutoutError,
    Cutouts,
    Disentangler,
    SurveyMismatchError,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.samples import load_sample, sample_names


def arrays(name, size=12, pad=3):
    """Images of simulated galaxies in the unit of a survey, some of them bad."""
    batch = simulate_pairs(size, random_state=3).batch(name)
    survey, around = batch.survey, ((0, 0), (0, 0), (pad, pad), (pad, pad))
    flux = np.pad(batch.pixels.numpy() / survey.nanojansky, around, mode="reflect")
    noise = batch.noise.numpy() / survey.nanojansky
    noise[np.isnan(noise)] = 1.0
    mask = np.pad(~batch.good.numpy(), around)
    width = batch.psf_fwhm.numpy().copy()
    flux[1, 0] = np.nan
    flux[2, :, 5:9] = np.inf
    flux[3, 1] = 7.0
    mask[4] = True
    mask[5, 0, 20:30] = True
    flux[6] = np.random.default_rng(0).normal(0, noise[6, :, None, None], flux[6].shape)
    width[7] = np.nan
    noise[8, 1] = 1e30
    flux[9] *= 40
    return survey, flux.astype(np.float32), noise, mask, width


def images(survey, flux, noise, mask, width, *, known=True, bands=None):
    """The same as mappings of CCDData."""
    bands = bands or survey.bands
    rows = []
    for row in range(len(flux)):
        images = {}
        for index, band in enumerate(bands):
            meta = {"OBJECT": f"galaxy {row}"}
            if np.isfinite(width[row, index]):
                meta["PSF_FWHM"] = float(width[row, index])
            sigma = np.full(flux.shape[2:], noise[row, index])
            images[band] = CCDData(
                flux[row, index],
                unit=survey.unit,
                mask=mask[row, index],
                uncertainty=StdDevUncertainty(sigma) if known else None,
                meta=meta,
            )
        rows.append(images)
    return rows


def check_same(got, expected):
    assert got.object_id == expected.object_id
    for field in dataclasses.fields(expected.batch):
        a, b = getattr(got.batch, field.name), getattr(expected.batch, field.name)
        if field.name in ("survey", "flags"):
            assert (a == b) if field.name == "survey" else a.tolist() == b.tolist()
        else:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0, equal_nan=True)
    np.testing.assert_array_equal(got.sky, expected.sky)


@pytest.mark.parametrize("known", [True, False], ids=["noise", "no noise"])
@pytest.mark.parametrize("name", ["hsc", "legacy"])
def test_arrays_give_what_images_give(name, known):
    survey, *values = arrays(name)
    flux, noise, mask, width = values
    expected = read_cutouts(images(survey, *values, known=known), survey=name)
    got = Cutouts.from_arrays(
        flux,
        name,
        unit=survey.unit,
        noise=noise if known else None,
        mask=mask,
        psf_fwhm=width,
        object_id=[f"galaxy {row}" for row in range(len(flux))],
    )
    check_same(got, expected)
    # The rows are what they were made to be.
    flags = got.batch.flags.numpy()
    assert flags[4] & FLAGS.UNUSABLE and not flags[0] & FLAGS.UNUSABLE
    assert flags[1] & flags[3] & FLAGS.MISSING_BANDS
    assert flags[5] & FLAGS.BAD_PIXELS and flags[7] & FLAGS.NO_PSF
    assert bool(flags[0] & FLAGS.NO_UNCERTAINTY) == (not known)
    assert not known or flags[6] & FLAGS.BLANK


def test_some_bands_and_small_images():
    survey, flux, noise, mask, width = arrays("hsc", pad=0)
    chosen, inner = [3, 1], (..., slice(5, -5), slice(5, -5))
    part = [flux[:, chosen][inner], noise[:, chosen], mask[:, chosen][inner]]
    part.append(width[:, chosen])
    rows = images(survey, *part, bands=("z", "r"))
    expected = read_cutouts(rows, survey="hsc")
    got = Cutouts.from_arrays(
        part[0],
        "hsc",
        bands=["z", "r"],
        unit=survey.unit,
        noise=part[1],
        mask=part[2],
        psf_fwhm=part[3],
        object_id=expected.object_id,
    )
    check_same(got, expected)
    assert got.batch.flags[0] & FLAGS.PADDED


def test_real_stars_and_galaxies():
    for name in sample_names():
        cutout = load_sample(name)
        survey = get_survey(next(iter(cutout.values())).meta["SURVEY"])
        if len({image.shape for image in cutout.values()}) > 1:
            continue
        flux = np.stack([cutout[band].data for band in cutout])[None]
        plain = {b: CCDData(i.data, unit=i.unit) for b, i in cutout.items()}
        got = Cutouts.from_arrays(
            flux, survey, bands=list(cutout), unit=next(iter(cutout.values())).unit
        )
        check_same(got, read_cutouts(plain, survey=survey))


def test_the_model_takes_them():
    survey, flux, noise, mask, _ = arrays("hsc", size=40)
    sky = SkyCoord(np.arange(40.0), np.zeros(40), unit="deg")
    cutouts = Cutouts.from_arrays(
        flux, "hsc", unit=survey.unit, noise=noise, mask=mask, coords=sky
    )
    model = Disentangler.load()
    whole = model.transform(cutouts)
    parts = model.transform(cutouts, batch_size=7)
    for name in ("physics", "instrument"):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5)
        assert np.isnan(whole[name][4]).all() and np.isfinite(whole[name][0]).all()
    assert whole["coord"][5].ra.deg == 5
    views = model.translate(cutouts[:3], survey="legacy", bands=["r"])
    assert [view["r"].shape for view in views] == [(32, 32)] * 3
    assert len(model.similar(cutouts[:3], whole, k=2)) == 6
    with pytest.raises(SurveyMismatchError, match="of hsc; got 'legacy'"):
        model.transform(cutouts, survey="legacy")
    with pytest.raises(CutoutError, match="'position'"):
        model.transform(cutouts, position=(3, 4))
    with pytest.raises(CutoutError, match="at least one"):
        model.transform(cutouts[:0])


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"flux": np.ones((5, 48, 48))}, CutoutError, "'flux'.*shape"),
        ({"flux": np.ones((2, 4, 48, 48))}, CutoutError, "one image for each"),
        ({"flux": np.ones((2, 5, 12, 48))}, SurveyMismatchError, "half of the field"),
        ({"flux": np.full((2, 5, 48, 48), "a")}, CutoutError, "'flux'.*numbers"),
        ({"bands": list("grizx")}, SurveyMismatchError, "'bands'.*hsc"),
        ({"bands": list("grizz")}, SurveyMismatchError, "'bands'.*different"),
        ({"unit": u.m}, CutoutError, "flux"),
        ({"noise": np.ones(3)}, CutoutError, "'noise'.*\\(2, 5\\)"),
        ({"psf_fwhm": "wide"}, CutoutError, "'psf_fwhm'"),
        ({"mask": np.ones((2, 5, 3, 3))}, CutoutError, "'mask'"),
        ({"object_id": ["a"]}, CutoutError, "'object_id'.*2 names"),
        ({"coords": SkyCoord(1, 1, unit="deg")}, CutoutError, "'coords'.*2 places"),
        ({"survey": "none"}, SurveyMismatchError, "none"),
    ],
)
def test_refusals(changes, error, text):
    given = {"flux": np.ones((2, 5, 48, 48)), "survey": "hsc", **changes}
    with pytest.raises(error, match=text):
        Cutouts.from_arrays(given.pop("flux"), given.pop("survey"), **given)
