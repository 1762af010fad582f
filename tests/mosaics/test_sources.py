# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Sources of a mosaic are found, each where it is."""

import sys

import astropy.units as u
import numpy as np
import pytest

from astro_disentangle import SurveyCutout
from astro_disentangle.mosaics.sources import find_sources
from astro_disentangle.simulation.field import simulate_field


@pytest.fixture(scope="module")
def field():
    return simulate_field(60 * u.arcsec, random_state=1)


@pytest.mark.parametrize(("survey", "limit"), [("hsc", 25.0), ("legacy", 23.5)])
def test_bright_sources_are_found_where_they_are(field, survey, limit):
    image = field.mosaics[survey]
    found = find_sources(image)
    table = field.sources[field.sources["magnitude"] < limit * u.ABmag]
    x, y = image.wcs.world_to_pixel(table["coord"])
    ny, nx = image.shape[1:]
    inside = (x > 3) & (x < nx - 4) & (y > 3) & (y < ny - 4)
    assert inside.sum() > 5
    away = np.hypot(
        found.place[:, 0][:, None] - x[inside], found.place[:, 1][:, None] - y[inside]
    )
    scale = image.survey.pixel_scale
    assert np.mean(away.min(0) * scale < 0.4) > 0.8
    assert (found.flux > 0).all()
    assert (np.linalg.det(found.covariance) > 0).all()


def test_sources_that_touch_are_told_apart():
    axis = np.arange(100.0)
    pixels = np.random.default_rng(0).normal(size=(5, 100, 100))
    for place in (46, 54):
        square = (axis - place) ** 2 + (axis[:, None] - 50) ** 2
        pixels += 60 * np.exp(-square / 2 / 2.0**2)
    found = find_sources(SurveyCutout(pixels, survey="hsc", bands="grizy", unit=u.nJy))
    near = np.abs(found.place[:, 1] - 50) < 2
    np.testing.assert_allclose(
        np.sort(found.place[near & (found.flux > 500), 0]), [46, 54], atol=0.7
    )


@pytest.mark.parametrize("kind", ["noise", "constant", "masked"])
def test_where_there_is_nothing_nothing_is_found(kind):
    pixels = np.zeros((5, 80, 80))
    if kind == "noise":
        pixels += np.random.default_rng(1).normal(size=pixels.shape)
    mask = np.full(pixels.shape, True) if kind == "masked" else None
    image = SurveyCutout(pixels, survey="hsc", bands="grizy", unit=u.nJy, mask=mask)
    assert len(find_sources(image)) < 10


def test_masked_pixels_are_no_sources(field):
    image = field.mosaics["hsc"]
    pixels, mask = image.data.copy(), np.zeros(image.shape, bool)
    pixels[:, 100:130, 100:130] = 1e6
    mask[:, 100:130, 100:130] = True
    found = find_sources(
        SurveyCutout(pixels, survey="hsc", bands="grizy", unit=u.nJy, mask=mask)
    )
    inside = ((found.place > 100) & (found.place < 129)).all(1)
    assert not inside.any()


def test_the_extra_is_named(field, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"astro_disentangle\[mosaic\]"):
        find_sources(field.mosaics["hsc"])


def test_the_field_is_the_same_sky_in_both_surveys(field):
    again = simulate_field(60 * u.arcsec, random_state=1)
    other = simulate_field(60 * u.arcsec, random_state=1, visit=1)
    for name, image in field.mosaics.items():
        np.testing.assert_array_equal(image.data, again.mosaics[name].data)
        noise = (image.data - field.noiseless[name]) / image.uncertainty.array
        assert noise.std() == pytest.approx(1, abs=0.05)
        both = [f.noiseless[name].ravel() for f in (field, other)]
        assert 0.7 < np.corrcoef(*both)[0, 1] < 0.9999
    with pytest.raises(ValueError, match="'side' must be positive"):
        simulate_field(-1 * u.arcsec)
    with pytest.raises(ValueError, match="'side' must be an angle"):
        simulate_field(3 * u.s)
