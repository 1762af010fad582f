# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Stamps in images of any WCS: noise of pixels and of sums of them."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty
from photutils.aperture import CircularAperture

from astro_disentangle import SurveyCutout, get_survey
from astro_disentangle.data.geometry import locate
from astro_disentangle.data.regrid import noise_gain, on_wcs
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation.noise import correlated_noise

SKY = SkyCoord(150.0, 2.0, unit="deg")
LEGACY = get_survey("legacy")
DRAWS = 800


@pytest.fixture(scope="module")
def native():
    """Sky of standard deviation 1 in native pixels, (800, 32, 32)."""
    generator = torch_generator(3, "regrid")
    return correlated_noise(LEGACY, (DRAWS, 32, 32), generator).numpy()


def placed(scale, angle, shift):
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    size = int(np.ceil(13 / scale)) // 2 * 2
    middle = (size - 1) / 2 + np.array([shift, shift])
    wcs = tangent_wcs(SKY, turn / scale, *middle, (size, size))
    place = locate(wcs, (size, size), LEGACY, position=SKY, upright=False)
    return place, (size, size), middle


@pytest.mark.parametrize(
    ("scale", "angle", "shift"),
    [
        (0.131, 0, 0),
        (0.168, 20, 0.3),
        (0.262, 45, 0),
        (0.262, 0, 0.0),
        (0.262, 90, 0.0),
        (0.262, 0, 0.5),
        (0.524, 10, 0),
    ],
)
def test_noise_of_pixels_and_of_apertures(native, scale, angle, shift):
    """Both scatter as they say, though the correlation is another one there."""
    place, shape, middle = placed(scale, angle, shift)
    images, affine = on_wcs(native, place, shape, LEGACY.pixel_scale)
    matrix, origin = affine[:, :2], affine[:, 2]
    phase = origin - np.round(origin)
    gain = noise_gain(matrix, LEGACY.noise_correlation, phase)
    inner = np.isfinite(images).all(0)
    inner[:, : int(middle[0] - 2.5 / scale)] = False
    inner[:, int(middle[0] + 2.5 / scale) :] = False
    scatter = np.sqrt((images[:, inner] ** 2).mean())
    assert gain == pytest.approx(scatter, rel=0.01)
    aperture = CircularAperture(middle, 1.5 / scale)
    meta = {"PIXSCALE": scale, "NOISEFAC": scale / LEGACY.pixel_scale / gain}
    sums = []
    for image in images[:300]:
        cutout = SurveyCutout(
            image[None],
            survey="legacy",
            bands="r",
            unit="nJy",
            uncertainty=StdDevUncertainty(np.full((1, *shape), gain)),
            meta=meta,
        )
        table = cutout.aperture_flux(aperture)
        sums.append(table["flux"][0].value)
    claimed = table["flux_err"][0].value
    print(f"{scale} {angle} {shift}: claimed {claimed:.2f}, seen {np.std(sums):.2f}")
    assert claimed == pytest.approx(np.std(sums), rel=0.15)
