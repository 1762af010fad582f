# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs.utils import proj_plane_pixel_scales

from astro_disentangle.samples import load_sample, sample_names
from astro_disentangle.samples.build_samples import SAMPLES, SIZE, build_sample
from astro_disentangle.surveys import get_survey


def test_names():
    assert sample_names() == sorted(row[0] for row in SAMPLES)
    assert set(sample_names("hsc")) | set(sample_names("legacy")) == set(sample_names())
    assert min(len(sample_names("hsc")), len(sample_names("legacy"))) >= 4


def test_unknown():
    with pytest.raises(ValueError, match="'survey' must be one of"):
        sample_names("sdss")
    with pytest.raises(ValueError, match="'name' must be one of"):
        load_sample("hsc_")


@pytest.mark.parametrize("name", sample_names())
def test_sample_is_what_its_header_says(name):
    images = load_sample(name)
    assert len(images) >= 3
    for band, image in images.items():
        survey = get_survey(image.meta["SURVEY"])
        assert band == image.meta["BAND"]
        assert band in survey.bands
        assert image.shape == (SIZE[survey.name],) * 2
        assert image.data.dtype.itemsize == 4
        assert image.unit.to_string() == survey.unit
        assert image.meta["OBJECT"] == name
        assert image.meta["PIXSCALE"] == survey.pixel_scale
        assert image.meta["MAGZERO"] == survey.zero_point
        assert image.meta["SOURCE"]
        assert image.meta["LICENSE"] == "MIT"
        bad = ~np.isfinite(image.data)
        assert bad.mean() < 0.4
        if bad.any():
            assert image.mask[bad].all()
        if image.psf is not None:
            np.testing.assert_allclose(image.psf.sum(), 1, atol=1e-3)
        if image.wcs is not None:
            scale = 3600 * proj_plane_pixel_scales(image.wcs)
            np.testing.assert_allclose(scale, survey.pixel_scale, rtol=1e-6)


@pytest.mark.parametrize("name", sample_names())
def test_galaxy_is_in_the_middle(name):
    image = load_sample(name)["r"]
    data = np.nan_to_num(image.data - np.nanmedian(image.data))
    y, x = np.indices(data.shape) - (data.shape[0] - 1) / 2
    weight = data.clip(0) * (np.hypot(x, y) * image.meta["PIXSCALE"] < 1.2)
    centroid = np.hypot((weight * x).sum(), (weight * y).sum()) / weight.sum()
    assert centroid * image.meta["PIXSCALE"] < 0.35
    inner = np.hypot(x, y) * image.meta["PIXSCALE"] < 0.6
    noise = 1.48 * np.nanmedian(np.abs(image.data - np.nanmedian(image.data)))
    assert data[inner].mean() > 1.5 * noise


def test_build_keeps_what_belongs_to_the_pixels():
    rng = np.random.default_rng(1)
    shape = (70, 80)
    mask = rng.random(shape) < 0.1
    meta = {"SURVEY": "hsc", "BAND": "r", "PIXSCALE": 0.168, "MAGZERO": 27.0}
    image = CCDData(
        rng.normal(size=shape),
        unit="adu",
        mask=mask,
        uncertainty=StdDevUncertainty(rng.random(shape)),
        psf=np.ones((5, 5)) / 25,
        meta=meta | {"BUNIT": "adu", "SOURCE": "a/b@c MIT"},
    )
    cutout = build_sample(image, "name", (31.5, 40.0))
    rows, columns = slice(8, 70), slice(0, 64)
    np.testing.assert_array_equal(
        cutout.data[:62], image.data[rows, columns].astype("f4")
    )
    np.testing.assert_array_equal(cutout.mask[:62], mask[rows, columns])
    assert cutout.mask[62:].all()
    assert np.isnan(cutout.data[62:]).all()
    np.testing.assert_array_equal(
        cutout.uncertainty.array[:62],
        image.uncertainty.array[rows, columns].astype("f4"),
    )
    assert cutout.psf.shape == (5, 5)
    assert cutout.meta["SOURCE"] == "a/b@c"
