# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The pixels on which a mosaic is painted."""

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS

from astro_disentangle import CutoutError, SurveyCutout, get_survey
from astro_disentangle.mosaics.grid import grid_of

LEGACY = get_survey("legacy")


def _wcs(scale=0.168, crval=(150.0, 2.0), crpix=(101.0, 61.0), turn=0.0, kind="TAN"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = f"RA---{kind}", f"DEC--{kind}"
    wcs.wcs.crval, wcs.wcs.crpix = crval, crpix
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def _image(wcs, shape=(120, 200), mask=None):
    pixels = np.ones((5, *shape), np.float32)
    mask = None if mask is None else np.broadcast_to(mask, pixels.shape)
    return SurveyCutout(
        pixels, survey="hsc", bands="grizy", unit=u.nJy, wcs=wcs, mask=mask
    )


def _shape(wcs, shape=(80, 80)):
    wcs.pixel_shape = shape[::-1]
    return wcs


@pytest.mark.parametrize("turn", [0, 30, 90, 180])
def test_it_covers_the_mosaic(turn):
    image = _image(_wcs(turn=turn))
    grid = grid_of(image, LEGACY)
    corners = [(-0.5, -0.5), (199.5, -0.5), (-0.5, 119.5), (199.5, 119.5)]
    sky = image.wcs.pixel_to_world(*np.array(corners).T)
    x, y = grid.wcs.world_to_pixel(sky)
    ny, nx = grid.shape
    for place, length in ((x, nx), (y, ny)):
        assert -0.5 <= place.min() < 0.5 + 1e-6
        assert length - 1.5 - 1e-6 < place.max() <= length - 0.5 + 1e-6
    scale = grid.wcs.proj_plane_pixel_scales()[0].to_value("arcsec")
    assert scale == pytest.approx(LEGACY.pixel_scale, rel=1e-6)


def test_only_what_the_mosaic_shows_is_to_be_painted():
    mask = np.zeros((120, 200), bool)
    mask[:, :100] = True
    image = _image(_wcs(), mask=mask)
    grid = grid_of(image, LEGACY)
    seen = grid.seen(image)
    share = seen.mean(0)
    middle = np.flatnonzero(share > 0.5)
    # East is left: the masked half is the eastern one.
    assert middle.min() == pytest.approx(100 * 0.168 / 0.262, abs=1.5)
    assert seen.mean() == pytest.approx(0.5, abs=0.03)


def test_patches_of_a_tract_share_their_pixels_and_noise():
    first = grid_of(_image(_wcs(crpix=(101.0, 61.0))), LEGACY)
    second = grid_of(_image(_wcs(crpix=(1.0, 961.0))), LEGACY)
    sky = first.wcs.pixel_to_world(3, 5)
    there = np.array(second.wcs.world_to_pixel(sky))
    np.testing.assert_allclose(there, np.round(there), atol=1e-5)
    from_origin = (np.array([3, 5]) - first.origin, there - second.origin)
    np.testing.assert_allclose(*from_origin, atol=1e-5)


def test_another_projection_has_a_tangent_point_of_its_own():
    image = _image(_wcs(kind="STG"))
    grid = grid_of(image, LEGACY)
    middle = image.wcs.pixel_to_world(99.5, 59.5)
    crval = grid.wcs.wcs.crval
    assert crval == pytest.approx((middle.ra.deg, middle.dec.deg), abs=1e-6)


def test_the_pixels_asked_for():
    wcs = _shape(_wcs(scale=LEGACY.pixel_scale))
    grid = grid_of(_image(_wcs()), LEGACY, wcs)
    assert grid.shape == (80, 80)
    assert grid.wcs is wcs or grid.wcs.wcs.compare(wcs.wcs)


@pytest.mark.parametrize(
    ("wcs", "message"),
    [
        (_shape(_wcs()), r"on the pixels of legacy, north up, 0\.262 arcsec"),
        (_shape(_wcs(scale=0.262, turn=10)), r"at pixel \(0, 0\) .* px off"),
        (_shape(_wcs(scale=0.263, turn=1.2)), r"at most 0\.25 are allowed"),
        (_wcs(scale=0.262), "pixel_shape"),
    ],
)
def test_other_pixels_are_refused(wcs, message):
    with pytest.raises(CutoutError, match=message):
        grid_of(_image(_wcs()), LEGACY, wcs)


def test_far_from_its_tangent_point_near_the_pole_a_mosaic_has_its_own():
    wcs = _wcs(crval=(150.0, 89.0), crpix=(-9000.0, 61.0))
    grid = grid_of(_image(wcs), LEGACY)
    assert grid.wcs.wcs.crval[0] != pytest.approx(150.0, abs=1)
    # What is too large for one plane is refused.
    wide = _image(_wcs(scale=20.0, crval=(150.0, 88.0)))
    with pytest.raises(CutoutError, match="cannot be painted in one piece"):
        grid_of(wide, LEGACY)


def test_a_mosaic_needs_a_wcs():
    with pytest.raises(CutoutError, match="set the 'wcs' of its images"):
        grid_of(_image(None), LEGACY)
