# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Resampling against reproject on real images and against GalSim on drawn ones."""

import galsim
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData
from astropy.wcs import WCS, Sip
from reproject import reproject_interp

from astro_disentangle.data.resample import resample
from astro_disentangle.data.wcs import directions, sky_of

REAL = {
    "hsc_field": "r",
    "hsc_field_with_variance": "r",
    "legacy_decals_galaxy": "r",
    "legacy_bass_field": "g",
    "des_spiral": "i",
    "legacy_viewer_resampled_a": "r",
    "legacy_viewer_resampled_e": "g",
}
SIZE, SCALE = 48, 0.168


def turn(angle):
    a = np.deg2rad(angle)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def target_wcs(ra, dec, angle, parity):
    """A grid that is centred on a position, turned and mirrored."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(SIZE + 1) / 2] * 2
    wcs.wcs.cd = np.diag([-1, 1]) @ turn(angle) @ np.diag([parity, 1]) * SCALE / 3600
    wcs.pixel_shape = (SIZE, SIZE)
    return wcs


def reference(image, wcs, target, ratio):
    """The mean of reproject's spline over the square that a coarser pixel adds."""
    side = np.sqrt(max(ratio**2 - 1, 0)) / ratio
    steps = (np.arange(6) + 0.5) / 6 - 0.5 if side > 0 else [0.0]
    total = 0.0
    # The square lies along the pixels of the image.
    axes = np.linalg.inv(target.wcs.cd) @ wcs.pixel_scale_matrix * ratio
    for dx in steps:
        for dy in steps:
            moved = target.deepcopy()
            shift = axes @ [dx * side, dy * side]
            moved.wcs.crpix = moved.wcs.crpix - shift
            total = (
                total
                + reproject_interp(
                    (image, wcs), moved, shape_out=(SIZE, SIZE), order="bicubic"
                )[0]
            )
    return total / len(steps) ** 2


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("angle", "parity"), [(0, 1), (33, 1), (-70, -1)])
def test_agrees_with_reproject_on_real_images(real_data, name, angle, parity):
    data = CCDData.read(real_data / name / f"{REAL[name]}.fits")
    image = np.nan_to_num(np.asarray(data.data, float))
    wcs = data.wcs.celestial
    inner = image[40:-40, 40:-40]
    row, column = np.unravel_index(inner.argmax(), inner.shape)
    x, y = column + 39.6, row + 40.3
    (ra, dec), matrix = directions(wcs, x, y)
    matrix = matrix @ turn(angle) @ np.diag([parity, 1])
    affine = torch.tensor(np.column_stack([matrix, [x, y]]))[None]
    pixels = torch.tensor(image)[None, None]
    out, good = resample(pixels, pixels > -np.inf, affine, size=SIZE, scale=SCALE)
    assert good.all()
    ratio = SCALE * np.sqrt(abs(np.linalg.det(matrix)))
    peer = reference(image, wcs, target_wcs(ra, dec, angle, parity), ratio) * ratio**2
    apart = np.abs(out[0, 0].numpy() - peer).max() / peer.max()
    print(f"{name} {angle} {parity}: {apart:.1e} of the peak")
    assert apart < 1e-3


PROFILES = {
    "hsc star": (galsim.Moffat(beta=2.3, fwhm=0.7), 0.168),
    "legacy star": (galsim.Moffat(beta=3.0, fwhm=1.1), 0.262),
    "hsc galaxy": (
        galsim.Convolve(
            galsim.Sersic(n=2, half_light_radius=0.4).shear(g1=0.2, g2=0.1),
            galsim.Moffat(beta=2.3, fwhm=0.7),
        ),
        0.168,
    ),
}


def moments(image, scale):
    """Centroid in arcsec with a Gaussian weight that follows it."""
    axis = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2) * scale
    x0 = y0 = 0.0
    for _ in range(30):
        weight = np.exp(-((axis - x0) ** 2 + (axis[:, None] - y0) ** 2) / 2 / 0.5**2)
        total = (image * weight).sum()
        x0 += 2 * ((image * weight * (axis - x0)).sum() / total)
        y0 += 2 * ((image * weight * (axis[:, None] - y0)).sum() / total)
    return x0, y0


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("angle", [0, 20, 90])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.2), (0.5, 0.5)])
def test_agrees_with_galsim(name, angle, offset):
    """An image drawn elsewhere, resampled, is the image drawn here; nothing moves."""
    profile, native = PROFILES[name]
    size = 96
    image = profile.drawImage(nx=size, ny=size, scale=native, offset=offset).array
    matrix = turn(angle) / native
    centre = (size - 1) / 2 + np.array(offset)
    affine = torch.tensor(np.column_stack([matrix, centre]))[None]
    pixels = torch.tensor(image.astype(float))[None, None]
    out, good = resample(pixels, pixels > -1, affine, size=SIZE, scale=SCALE)
    seen = galsim.Convolve(profile, galsim.Pixel(native)).rotate(
        -angle * galsim.degrees
    )
    truth = seen.drawImage(nx=SIZE, ny=SIZE, scale=SCALE, method="no_pixel").array
    out = out[0, 0].numpy()
    assert good.all()
    # What a cubic spline can do on the cusp of a star that is four pixels wide.
    assert (
        np.abs(out - truth).max() < (4e-3 if "star" in name else 1.5e-3) * truth.max()
    )
    assert out.sum() == pytest.approx(truth.sum(), rel=1e-4)
    shift = np.subtract(moments(out, SCALE), moments(truth, SCALE)) / native
    print(f"{name} {angle} {offset}: shift {np.hypot(*shift):.1e} px")
    assert np.hypot(*shift) < 0.02


@pytest.mark.parametrize("ratio", [1.2, 1.7, 2.5])
@pytest.mark.parametrize("angle", [0, 20])
def test_coarser_pixels_collect_what_galsim_says(ratio, angle):
    profile = PROFILES["hsc galaxy"][0]
    native = SCALE / ratio
    image = profile.drawImage(nx=200, ny=200, scale=native, offset=(0.3, -0.2)).array
    matrix = turn(angle) / native
    affine = torch.tensor(np.column_stack([matrix, [99.8, 99.3]]))[None]
    pixels = torch.tensor(image.astype(float))[None, None]
    out, _ = resample(pixels, pixels > -1, affine, size=SIZE, scale=SCALE)
    seen = profile.rotate(-angle * galsim.degrees)
    truth = seen.drawImage(nx=SIZE, ny=SIZE, scale=SCALE).array
    assert np.abs(out[0, 0].numpy() - truth).max() < 1e-3 * truth.max()


def test_distortion_is_followed():
    """A source found through a WCS with SIP terms lands in the middle."""
    plain = target_wcs(150.0, 2.0, 12, -1)
    plain.wcs.crpix = [500.0, 480.0]
    plain.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], a[1, 1], b[0, 2], b[1, 1] = 3e-5, -2e-5, 4e-5, 1e-5
    plain.sip = Sip(a, b, None, None, plain.wcs.crpix)
    x, y = 802.3, 741.6
    (ra, dec), matrix = directions(plain, x, y)
    straight = plain.deepcopy()
    straight.sip = None
    assert np.abs(matrix - directions(straight, x, y)[1]).max() > 0.05
    # Steps of an arcsec on the sky are where the matrix says they are.
    for west, north in ((1.0, 0.0), (0.0, 1.0), (-2.0, 2.0)):
        moved = matrix @ [west, north]
        there = sky_of(plain, np.array([x + moved[0]]), np.array([y + moved[1]]))
        step = -(there[0][0] - ra) * np.cos(np.radians(dec)), there[1][0] - dec
        assert np.allclose(np.array(step) * 3600, [west, north], atol=2e-3)


def star(count=1, size=48):
    image = PROFILES["hsc star"][0].drawImage(nx=size, ny=size, scale=SCALE).array
    pixels = torch.tensor(image.astype(np.float32)).repeat(count, 1, 1, 1)
    affine = torch.tensor([[[1 / SCALE, 0, 23.6], [0, 1 / SCALE, 23.2]]])
    return pixels, torch.ones_like(pixels, dtype=torch.bool), affine.repeat(count, 1, 1)


def test_bad_pixels_are_bridged():
    pixels, good, affine = star()
    plain, _ = resample(pixels, good, affine, size=SIZE, scale=SCALE)
    good[0, 0, 10, 12:15] = False
    good[0, 0, :, 30] = False
    spoilt = torch.where(good, pixels, 1e9)
    out, fine = resample(spoilt, good, affine, size=SIZE, scale=SCALE)
    assert (~fine).sum() < 120 and not fine[0, 0, :, 30].all()
    apart = (out - plain)[fine].abs().max() / plain.max()
    assert apart < 0.02
    none, fine = resample(pixels, good & False, affine, size=SIZE, scale=SCALE)
    assert not fine.any() and not none.any()


def test_rows_are_their_own():
    """Neither a rotated, nor a spoilt, nor a larger neighbour changes a row's bits."""
    pixels, good, affine = star(4)
    alone = resample(pixels[:1], good[:1], affine[:1], size=SIZE, scale=SCALE)
    affine[1, :, :2] = torch.tensor(turn(20) / SCALE)
    good[2, :, 5:9] = False
    good[3, :, :4] = False
    pixels[3] = 7.0
    out, fine = resample(pixels, good, affine, size=SIZE, scale=SCALE)
    assert torch.equal(out[0], alone[0][0]) and torch.equal(fine[0], alone[1][0])
    padded = torch.nn.functional.pad(pixels, (5, 5, 5, 5))
    known = torch.nn.functional.pad(good, (5, 5, 5, 5))
    moved = affine.clone()
    moved[:, :, 2] += 5
    again, _ = resample(padded, known, moved, size=SIZE, scale=SCALE)
    assert torch.allclose(again[0], out[0], rtol=1e-5, atol=1e-7)


def test_fluxes_keep_their_digits_under_autocast():
    pixels, good, affine = star()
    plain, _ = resample(pixels, good, affine, size=SIZE, scale=SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = resample(pixels, good, affine, size=SIZE, scale=SCALE)
    assert torch.equal(plain, mixed)
