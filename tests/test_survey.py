# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Surveys are frozen values that go to JSON and back."""

import dataclasses
import json

import astropy.units as u
import pytest

from astro_disentangle import Survey, SurveyMismatchError, get_survey
from astro_disentangle.data.batch import COMMON_SCALE, COMMON_SIZE


@pytest.mark.parametrize("name", ["hsc", "legacy"])
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


def test_fields_cover_the_common_grid():
    for name in ("hsc", "legacy"):
        assert get_survey(name).field >= COMMON_SIZE * COMMON_SCALE - 1e-9


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
