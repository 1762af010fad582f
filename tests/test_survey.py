# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Surveys are frozen values that go to JSON and back."""

import dataclasses
import json

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty

from astro_disentangle import Survey, SurveyMismatchError, get_survey
from astro_disentangle.data.batch import COMMON_SCALE, COMMON_SIZE
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.surveys import SURVEYS


@pytest.mark.parametrize("name", SURVEYS)
def test_json_round_trip(name):
    survey = get_survey(name)
    again = Survey.from_json(survey.to_json())
    assert again == survey
    assert hash(again) == hash(survey)


def test_zero_points():
    assert get_survey("hsc").nanojansky == pytest.approx(
        (27 * u.ABmag).to_value(u.nJy), rel=1e-12
    )
    assert get_survey("legacy").nanojansky == pytest.approx(
        (22.5 * u.ABmag).to_value(u.nJy), rel=1e-12
    )


@pytest.mark.parametrize("name", SURVEYS)
def test_fields_cover_the_common_grid(name):
    assert COMMON_SIZE * COMMON_SCALE - 1e-9 <= get_survey(name).field <= 8.42


#: Source of each: the surveys' own pages, in microjansky of one unit of an image.
UNITS = {
    "hsc": 0.057544,
    "legacy": 3.6308,
    "legacy-north": 3.6308,
    "des": 0.0036308,
    "sdss": 3.6308,
    "kids": 3630.78e6,
    "lsst": 0.001,
    "euclid": 1.0,
}


@pytest.mark.parametrize("name", SURVEYS)
def test_described_surveys_read_images(name, model):
    """Native images of every survey become tensors; two surveys have weights."""
    survey = get_survey(name)
    assert survey.nanojansky == pytest.approx(UNITS[name] * 1e3, rel=2e-3)
    noise = np.array(survey.pixel_noise()) / survey.nanojansky
    assert (noise > 0).all()
    rng = np.random.default_rng(3)
    images = {}
    for band, sigma in zip(survey.bands, noise, strict=True):
        image = rng.normal(0, sigma, (90, 90))
        image[40:50, 40:50] += 20 * sigma
        error = StdDevUncertainty(np.full(image.shape, sigma))
        images[band] = CCDData(image, unit=survey.unit, uncertainty=error)
    read = read_cutouts(images, survey=name)
    batch = read.batch
    assert batch.survey == survey and batch.good.all()
    expected = np.array(survey.pixel_noise()) * survey.noise_factor
    assert np.allclose(batch.noise[0].numpy(), expected, rtol=1e-4)
    pixels, good = batch.view()
    assert pixels.shape == (1, len(survey.bands), COMMON_SIZE, COMMON_SIZE)
    # A galaxy between two pixels of an odd stamp leaves an edge uncovered.
    assert good.float().mean() > 0.9 and good[..., 4:-4, 4:-4].all()
    if name not in model.network_.surveys:
        with pytest.raises(SurveyMismatchError, match=f"knows the surveys.*{name}"):
            model.transform(images, survey=name)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_survey("hsc").pixel_scale = 1.0


def test_own_survey():
    mine = dataclasses.replace(get_survey("hsc"), name="mine", zero_point=30.0)
    assert get_survey(mine) is mine
    assert mine.nanojansky == pytest.approx(
        get_survey("hsc").nanojansky / 10 ** (0.4 * 3)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": ()}, "bands"),
        ({"bands": ("g", "g", "i", "z", "y")}, "bands"),
        ({"depth": (1.0,)}, "depth"),
        ({"pixel_scale": -1.0}, "pixel_scale"),
        ({"psf_fwhm": (0.0, 1, 1, 1, 1)}, "psf_fwhm"),
        ({"patch_size": 5}, "patch_size"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_survey("hsc"), **change)


def test_json_is_strict():
    values = json.loads(get_survey("hsc").to_json())
    with pytest.raises(ValueError, match="colour"):
        Survey.from_json({**values, "colour": 1})
    del values["depth"]
    with pytest.raises(ValueError, match="depth"):
        Survey.from_json(values)


def test_unknown_name():
    with pytest.raises(SurveyMismatchError, match="'wise'"):
        get_survey("wise")


def test_pixel_noise_gives_the_depth_back(surveys):
    """A point source of magnitude m5 has S/N 5 with the optimal PSF weight."""
    import numpy as np

    for survey in surveys:
        y, x = np.mgrid[-40:41, -40:41] * 1.0
        beta = survey.psf_beta
        for fwhm, m5, sigma in zip(
            survey.psf_fwhm, survey.depth, survey.pixel_noise(), strict=True
        ):
            alpha = fwhm / survey.pixel_scale / (2 * np.sqrt(2 ** (1 / beta) - 1))
            psf = (1 + (x**2 + y**2) / alpha**2) ** -beta
            psf *= (beta - 1) / (np.pi * alpha**2)
            flux = (m5 * u.ABmag).to_value(u.nJy)
            snr = flux * np.sqrt((psf**2).sum()) / sigma
            assert snr == pytest.approx(5, rel=0.02)


def test_patches_of_the_decoder_are_no_matter_of_the_images():
    hsc = get_survey("hsc")
    assert hsc.has_images_of(dataclasses.replace(hsc, patch_size=3))
    assert not hsc.has_images_of(dataclasses.replace(hsc, stamp_size=64))
