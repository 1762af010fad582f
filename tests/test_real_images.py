# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real survey images of a development folder: finite or flagged, and usable."""

import numpy as np
import pytest
from astropy.nddata import CCDData
from photutils.aperture import CircularAperture, aperture_photometry

from astro_disentangle import FLAGS, SurveyMismatchError, get_survey

SURVEY_OF = {
    "hsc_cosmos_blend": "hsc",
    "hsc_cosmos_group": "hsc",
    "hsc_field": "hsc",
    "hsc_field_with_variance": "hsc",
    "hsc_lsb_galaxy": "hsc",
    "legacy_bass_field": "legacy",
    "legacy_decals_galaxy": "legacy",
    "legacy_viewer_resampled_a": "legacy",
    "legacy_viewer_resampled_e": "legacy",
    "des_spiral": "legacy",
}
OTHER = {"hsc": "legacy", "legacy": "hsc"}


def _read(folder):
    return {path.stem: CCDData.read(path) for path in sorted(folder.glob("*.fits"))}


@pytest.mark.parametrize("name", SURVEY_OF)
def test_folder_through_transform_and_translate(model, real_data, name):
    cutout, survey = _read(real_data / name), SURVEY_OF[name]
    target = get_survey(OTHER[survey])
    latents = model.transform(cutout, survey=survey)
    unusable = bool(latents["flags"][0] & FLAGS.UNUSABLE)
    assert np.isfinite(latents["physics"]).all() != unusable
    view = model.translate(cutout, survey=target, source=survey, n_steps=1)
    first, image = next(iter(cutout.values())), view["r"]
    assert str(image.unit) == target.unit
    assert image.psf is not None
    assert not image.mask.any()
    middle = (target.stamp_size - 1) / 2
    total = aperture_photometry(image, CircularAperture((middle, middle), r=4))
    assert np.isfinite(total["aperture_sum"][0].value)
    if first.wcs is not None:
        ny, nx = first.shape
        sky = first.wcs.celestial.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
        x, y = image.wcs.world_to_pixel(sky)
        assert np.hypot(x - middle, y - middle) < 0.1


def test_what_must_be_flagged(model, real_data):
    large = model.transform(_read(real_data / "des_spiral"), survey="legacy")
    assert large["flags"][0] & FLAGS.LARGE
    empty = model.transform(_read(real_data / "legacy_bass_field"), survey="legacy")
    assert empty["flags"][0] & FLAGS.BLANK
    scaled = model.transform(
        _read(real_data / "legacy_viewer_resampled_a"), survey="legacy"
    )
    assert scaled["flags"][0] & FLAGS.PIXEL_SCALE


def test_wrong_wcs_is_refused_or_flagged(model, real_data):
    cutout = _read(real_data / "sdss_spiral_wrong_wcs")
    with pytest.raises(SurveyMismatchError, match="'sdss'"):
        model.transform(cutout)
    with pytest.raises(SurveyMismatchError, match="'legacy'.*'sdss'"):
        model.transform(cutout, survey="legacy")
    with pytest.raises(SurveyMismatchError, match="'legacy'.*'sdss'"):
        model.transform({"r": cutout["r"]}, survey="legacy")
    del cutout["r"].meta["SURVEY"]
    alone = model.transform({"r": cutout["r"]}, survey="legacy")
    assert alone["flags"][0] & FLAGS.PIXEL_SCALE
