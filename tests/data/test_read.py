# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Reading cut-outs: units, masks, WCS, positions, flags, errors."""

import warnings

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS

from astro_disentangle import (
    FLAGS,
    CutoutError,
    SurveyCutout,
    SurveyMismatchError,
    decode_flags,
    get_survey,
)
from astro_disentangle.data.measure import measure_fwhm, measure_noise, render_psf
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.units import sigma_of
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.survey import AB_FLUX_NJY

LEGACY = get_survey("legacy")
SKY = SkyCoord(150.1, 2.2, unit="deg")
NMGY = AB_FLUX_NJY * 1e-9
#: Noise of `mapping` as it is read: a map of 0.05 nmgy, corrected for correlation.
SIGMA = 0.05 * NMGY * LEGACY.noise_factor


def galaxy(shape=(50, 50), centre=None, seed=0, sigma=1.5, flux=100.0, noise=0.05):
    """An image with a round galaxy, float64."""
    y, x = np.indices(shape)
    cx, cy = ((shape[1] - 1) / 2, (shape[0] - 1) / 2) if centre is None else centre
    image = flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / sigma**2)
    return image + np.random.default_rng(seed).normal(0, noise, shape)


def mapping(image=None, bands="griz", unit="nmgy", **options):
    image = galaxy() if image is None else image
    options.setdefault("wcs", tangent_wcs(SKY, np.eye(2) / 0.262, 24.5, 24.5, (50, 50)))
    options.setdefault("psf", render_psf(1.1, 3.0, 0.262))
    error = options.pop("error", StdDevUncertainty(np.full(np.shape(image), 0.05)))
    return {
        band: CCDData(image, unit=unit, uncertainty=error, **options) for band in bands
    }


def names(read, row=0):
    return decode_flags(read.batch.flags[row])


def same(a, b, rtol=1e-5):
    for name in ("pixels", "noise", "psf_fwhm", "affine"):
        x, y = getattr(a.batch, name), getattr(b.batch, name)
        assert torch.allclose(
            x,
            y,
            rtol=rtol,
            atol=rtol * float(x.nan_to_num().abs().max()),
            equal_nan=True,
        ), name
    assert torch.equal(a.batch.good, b.batch.good)


@pytest.fixture(scope="module")
def plain():
    return read_cutouts(mapping(), survey="legacy")


def test_a_good_cutout_has_no_flags(plain):
    assert names(plain) == []
    batch = plain.batch
    assert batch.pixels.shape == (1, 4, 32, 32) and batch.pixels.dtype == torch.float32
    assert batch.good.all() and batch.keys.dtype == torch.int64
    image = galaxy()[9:41, 9:41] * NMGY
    assert np.allclose(batch.pixels[0, 2], image, rtol=1e-5)
    assert np.allclose(batch.noise, SIGMA, rtol=1e-5)
    assert np.allclose(batch.psf_fwhm, 1.1, rtol=0.01)
    assert np.allclose(batch.affine[0], [[1 / 0.262, 0, 15.5], [0, 1 / 0.262, 15.5]])
    assert plain.coord(0).separation(SKY) < 0.01 * u.arcsec


# --- forms and units ---------------------------------------------------------------


def test_forms(plain):
    views = mapping()
    wcs = views["g"].wcs
    cube = np.stack([view.data for view in views.values()])
    error = StdDevUncertainty(np.full(cube.shape, 0.05))
    psf = views["g"].psf
    options = {"unit": "nmgy", "wcs": wcs, "uncertainty": error}
    nddata = NDData(cube, meta={"bands": list("griz")}, psf=psf, **options)
    text = NDData(cube, meta={"BANDS": "g,r,i,z"}, psf=psf, **options)
    three = WCS(naxis=3)
    three.wcs.ctype = [*wcs.wcs.ctype, "WAVE"]
    three.wcs.cunit = ["deg", "deg", "m"]
    three.wcs.crval = [*wcs.wcs.crval, 5e-7]
    three.wcs.crpix = [*wcs.wcs.crpix, 1]
    three.wcs.cdelt = [-0.262 / 3600, 0.262 / 3600, 1e-7]
    solid = NDData(cube, meta={"bands": "griz"}, psf=psf, **{**options, "wcs": three})
    own = SurveyCutout(
        cube, survey="legacy", bands="g,r,i,z", psf=np.stack([psf] * 4), **options
    )
    swapped = dict(reversed(views.items()))
    for form in (nddata, text, solid, own, swapped):
        same(plain, read_cutouts(form, survey="legacy"))
    same(plain, read_cutouts(own))
    renamed = {f"DES-{band.upper()}": view for band, view in views.items()}
    same(plain, read_cutouts(renamed, survey="legacy"))
    for view in views.values():
        view.meta["SURVEY"] = "Legacy "
    same(plain, read_cutouts(views))


def test_one_band_and_generators():
    image = mapping()["r"]
    image.meta["BAND"] = "r"
    read = read_cutouts((image for _ in range(3)), survey="legacy")
    assert len(read) == len(read.batch) == 3
    assert names(read) == ["MISSING_BANDS"]
    assert read.batch.present.tolist() == [[False, True, False, False]] * 3
    assert read.object_id[0] == read.object_id[2]


@pytest.mark.parametrize(
    ("unit", "factor", "meta"),
    [
        ("nJy", NMGY, {}),
        ("uJy", NMGY * 1e-3, {}),
        ("Jy", NMGY * 1e-9, {}),
        ("mgy", 1e-9, {}),
        ("10 nmgy", 0.1, {}),
        ("nJy / pix", NMGY, {}),
        ("AB", 1e-9, {}),
        ("adu", 10**1.8, {"MAGZERO": 27.0}),
        ("adu", 10**1.8, {"magzero": 27 * u.ABmag}),
        ("adu", 10**1.8, {"MAGZERO": dict.fromkeys("griz", 27.0)}),
        ("electron", 10**1.8, {"MAGZERO": 27.0}),
        ("adu", 1.0, {}),
    ],
)
def test_units(plain, unit, factor, meta):
    views = mapping(
        galaxy() * factor,
        unit=unit,
        meta=meta,
        error=StdDevUncertainty(np.full((50, 50), 0.05 * factor)),
    )
    read = read_cutouts(views, survey="legacy")
    same(plain, read, 1e-3 if unit == "AB" else 1e-5)
    assert names(read) == []


def test_no_unit_is_flagged(plain):
    image = mapping()["g"]
    bare = NDData(image.data, uncertainty=image.uncertainty, wcs=image.wcs)
    bare.psf = image.psf
    read = read_cutouts(dict.fromkeys("griz", bare), survey="legacy")
    same(plain, read)
    assert names(read) == ["ASSUMED_UNIT"]
    read = read_cutouts(mapping(unit=""), survey="legacy")
    assert names(read) == ["ASSUMED_UNIT"]


@pytest.mark.parametrize("unit", ["nJy / sr", "nmgy / arcsec2", "m", "adu / s", "mag"])
def test_other_units_are_refused(unit):
    with pytest.raises(CutoutError, match="nJy.*got"):
        read_cutouts(mapping(unit=unit), survey="legacy")


def test_counts_without_zero_point_are_refused():
    with pytest.raises(CutoutError, match="MAGZERO"):
        read_cutouts(mapping(unit="electron"), survey="legacy")


# --- uncertainty, mask, numbers ----------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        VarianceUncertainty(np.full((50, 50), 0.05**2)),
        InverseVariance(np.full((50, 50), 0.05**-2)),
        StdDevUncertainty(np.full((50, 50), 0.05e-9), unit=u.mgy),
        VarianceUncertainty(np.full((50, 50), 0.05**2 * 1e-18), unit=u.mgy**2),
        InverseVariance(np.full((50, 50), 0.05**-2 * 1e18), unit=u.mgy**-2),
    ],
)
def test_uncertainties(plain, error):
    same(plain, read_cutouts(mapping(error=error), survey="legacy"))


def test_bad_variance_is_a_bad_pixel():
    weight = np.full((50, 50), 400.0)
    weight[20, 20:24] = [0, -1, np.nan, np.inf]
    read = read_cutouts(mapping(error=InverseVariance(weight)), survey="legacy")
    assert not read.batch.good[0, 0, 11, 11:15].any()
    assert read.batch.good[0].sum() == 4 * (1024 - 4)
    assert names(read) == []
    assert np.allclose(read.batch.noise, SIGMA, rtol=1e-5)


def test_uncertainty_of_another_unit_or_kind():
    with pytest.raises(CutoutError, match="goes with the image's 'nmgy'; got 'm'"):
        sigma_of("std", u.m, u.nmgy, 1.0)
    unknown = UnknownUncertainty(np.ones((50, 50)))
    with pytest.raises(CutoutError, match="StdDevUncertainty"):
        read_cutouts(mapping(error=unknown), survey="legacy")
    wrong = CCDData(galaxy(), unit="nmgy", uncertainty=StdDevUncertainty(np.ones(3)))
    with pytest.raises(CutoutError, match="shape"):
        read_cutouts({"g": wrong}, survey="legacy")


def test_noise_from_the_image():
    read = read_cutouts(mapping(error=None), survey="legacy")
    assert names(read) == ["NO_UNCERTAINTY"]
    rho = LEGACY.noise_correlation
    expected = 0.05 * NMGY / np.sqrt((3 - 4 * rho[1]) / 3)
    assert np.allclose(read.batch.noise, expected, rtol=0.1)
    white = np.random.default_rng(1).normal(0, 2, (96, 96)) + 0.1 * np.arange(96)
    assert measure_noise(white, white < 1e9, ()) == pytest.approx(2, rel=0.06)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -1e38])
def test_bad_numbers_are_bad_pixels(value):
    image = galaxy().astype(np.float32)
    image[24, 24] = value
    read = read_cutouts(mapping(image), survey="legacy")
    assert not read.batch.good[0, :, 15, 15].any()
    assert read.batch.good[0].sum() == 4 * 1023
    assert torch.isfinite(read.batch.pixels).all()
    assert (read.batch.pixels[0, :, 15, 15] == 0).all()


@pytest.mark.parametrize(
    ("share", "flags"),
    [(0.04, 0), (0.06, FLAGS.BAD_PIXELS), (0.6, FLAGS.BAD_PIXELS | FLAGS.UNUSABLE)],
)
def test_masks(share, flags):
    mask = np.zeros((50, 50), bool)
    mask[9:41, 9:41].flat[: int(share * 1024)] = True
    read = read_cutouts(mapping(mask=mask), survey="legacy")
    assert read.batch.flags[0] == flags
    if flags & FLAGS.UNUSABLE:
        assert not read.batch.good.any() and not read.batch.pixels.any()
    else:
        assert not read.batch.good[0, 0].numpy()[mask[9:41, 9:41]].any()


def test_awkward_arrays(plain):
    image = np.round(galaxy() * 64) / 64
    expected = read_cutouts(mapping(image), survey="legacy")
    wide = np.zeros((100, 100))
    wide[::2, ::2] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    for other in (
        image.astype(">f8"),
        image.astype(">f4"),
        image.astype(np.float32),
        np.asfortranarray(image),
        wide[::2, ::2],
        frozen,
    ):
        same(expected, read_cutouts(mapping(other), survey="legacy"), 1e-6)
    whole = np.round(galaxy() * 10).astype(">i2")
    same(
        read_cutouts(mapping(whole.astype(float)), survey="legacy"),
        read_cutouts(mapping(whole), survey="legacy"),
        1e-6,
    )
    same(
        read_cutouts(dict.fromkeys("griz", image * u.nmgy), survey="legacy"),
        read_cutouts(mapping(image, wcs=None, psf=None, error=None), survey="legacy"),
        1e-6,
    )


def test_large_images_stay_on_disk(tmp_path):
    image = np.memmap(tmp_path / "x", np.float32, "w+", shape=(30000, 30000))
    image[9975:10025, 19975:20025] = galaxy()
    big = NDData(image, unit="nmgy")
    read = read_cutouts({"r": big}, survey="legacy", position=(19999.5, 9999.5))
    assert np.allclose(read.batch.pixels[0, 1], galaxy()[9:41, 9:41] * NMGY, atol=0.1)


def test_inputs_are_not_modified():
    views = mapping(meta={"SURVEY": "legacy", "OBJECT": "a"})
    views["g"].data[3, 3] = np.nan
    before = {
        band: (
            view.data.copy(),
            dict(view.meta),
            view.wcs.to_header_string(),
            view.uncertainty.array.copy(),
            view.psf.copy(),
        )
        for band, view in views.items()
    }
    read_cutouts(views)
    for band, (data, meta, wcs, error, psf) in before.items():
        view = views[band]
        assert np.array_equal(view.data, data, equal_nan=True)
        assert dict(view.meta) == meta and view.wcs.to_header_string() == wcs
        assert np.array_equal(view.uncertainty.array, error)
        assert np.array_equal(view.psf, psf)


# --- WCS and positions -------------------------------------------------------------


def turned(angle, parity, scale=0.262):
    """Pixels (x, y) per arcsec (west, north)."""
    a = np.deg2rad(angle)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return rotation @ np.diag([parity, 1.0]) / scale


@pytest.mark.parametrize("angle", [0, 90, 180, 270, 17, 0.3])
@pytest.mark.parametrize("parity", [1, -1])
def test_orientation(angle, parity):
    """A second source north-west of the galaxy shows up there."""
    place = np.array([40.3, 38.6])
    matrix = turned(angle, parity)
    wcs = tangent_wcs(SKY, matrix, *place, (80, 80))
    image = galaxy((80, 80), place)
    image += galaxy((80, 80), place + matrix @ [1.5, 2.0], noise=0, flux=50)
    options = {"wcs": wcs, "error": StdDevUncertainty(np.full((80, 80), 0.05))}
    read = read_cutouts(mapping(image, **options), survey="legacy", position=SKY)
    assert names(read) == []
    x, y = read.batch.affine[0, :, 2].tolist()
    ny, nx = read.batch.pixels.shape[-2:]
    assert abs(x - (nx - 1) / 2) <= 0.51 and abs(y - (ny - 1) / 2) <= 0.51
    assert torch.det(read.batch.affine[0, :, :2]) > 0
    if angle % 90 < 1:
        assert (ny, nx) == (32, 32)
    pixels, good = read.batch.view()
    assert good[0, 0, 4:44, 4:44].all()
    axis = (np.arange(48) - 23.5) * 0.168
    peak = np.exp(-((axis[None] - 1.5) ** 2 + (axis[:, None] - 2.0) ** 2) / 2 / 0.3**2)
    picture = pixels[0, 0].numpy() * peak
    total = picture.sum()
    # Centroids under a window that is centred on the source.
    assert abs((picture * axis).sum() / total - 1.5) < 0.02
    assert abs((picture * axis[:, None]).sum() / total - 2.0) < 0.02
    # Half of the flux within about the half-light radius of the galaxy.
    radius = np.hypot(axis, axis[:, None])
    flux = float(pixels[0, 0].numpy()[radius < 0.8].sum())
    expected = 100 * 2 * np.pi * 1.5**2 * (1 - np.exp(-((0.8 / 0.393) ** 2) / 2))
    assert flux == pytest.approx(expected * NMGY, rel=0.04)


def test_positions(plain):
    views = mapping()
    for position in (SKY, (24.5, 24.5), [SKY], [(24.5, 24.5)], SKY.galactic, [None]):
        read = read_cutouts(
            [views] if isinstance(position, list) else views,
            survey="legacy",
            position=position,
        )
        same(plain, read)
    moved = SKY.spherical_offsets_by(-2 * 0.262 * u.arcsec, 3.2 * 0.262 * u.arcsec)
    read = read_cutouts(views, survey="legacy", position=moved)
    assert np.allclose(read.batch.affine[0, :, 2], [15.5, 15.7], atol=1e-3)
    other = read_cutouts(views, survey="legacy", position=(26.5, 27.7))
    assert torch.equal(read.batch.pixels, other.batch.pixels)
    both = read_cutouts(
        [views, views], survey="legacy", position=SkyCoord([SKY, moved])
    )
    assert torch.equal(both.batch.pixels[1], read.batch.pixels[0])
    assert torch.equal(both.batch.pixels[0], plain.batch.pixels[0])


@pytest.mark.parametrize(
    "position",
    [(-1, 3), (3, 50), (np.nan, 3), "here", 3, (1, 2, 3), SkyCoord(10, 2, unit="deg")],
)
def test_positions_outside_are_refused(position):
    with pytest.raises(CutoutError, match="position"):
        read_cutouts(mapping(), survey="legacy", position=position)


def test_sky_position_needs_a_wcs():
    with pytest.raises(CutoutError, match="needs a WCS"):
        read_cutouts(mapping(wcs=None), survey="legacy", position=SKY)


def test_rows_do_not_depend_on_their_neighbours(plain):
    wcs = tangent_wcs(SKY, turned(30, 1), 39.5, 39.5, (80, 80))
    error = StdDevUncertainty(np.full((80, 80), 0.05))
    other = mapping(galaxy((80, 80)), wcs=wcs, error=error)
    both = read_cutouts([mapping(), other], survey="legacy")
    assert both.batch.pixels.shape[-1] > 32
    a, good = both.batch.view()
    b, good_b = plain.batch.view()
    assert torch.equal(good[0], good_b[0])
    assert torch.allclose(a[0], b[0], rtol=1e-5, atol=1e-3)
    assert torch.equal(both.batch.stamp()[0][0], plain.batch.pixels[0])
    assert both.batch.keys[0] == plain.batch.keys[0]
    assert both.object_id[0] == plain.object_id[0]


def test_no_wcs():
    read = read_cutouts(mapping(wcs=None), survey="legacy")
    assert names(read) == ["NO_WCS"] and read.coord(0) is None
    read = read_cutouts(mapping(wcs=None, meta={"PIXSCALE": 0.2}), survey="legacy")
    assert names(read) == ["NO_WCS", "PIXEL_SCALE"]
    assert read.batch.affine[0, 0, 0] == pytest.approx(5)


@pytest.mark.parametrize("scale", [0.08, 0.9])
def test_far_pixel_scales_are_refused(scale):
    views = mapping(wcs=tangent_wcs(SKY, np.eye(2) / scale, 24.5, 24.5, (50, 50)))
    with pytest.raises(SurveyMismatchError, match=f"0.262.*{scale}"):
        read_cutouts(views, survey="legacy")


def bad_wcs(kind):
    wcs = tangent_wcs(SKY, np.eye(2) / 0.262, 24.5, 24.5, (50, 50))
    if kind == "zero":
        wcs.wcs.cd = np.zeros((2, 2))
    elif kind == "singular":
        wcs.wcs.cd = np.ones((2, 2)) * 1e-4
    elif kind == "nan":
        wcs.wcs.crval = [np.nan, 2]
    elif kind == "default":
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    elif kind == "linear":
        wcs = WCS(naxis=2)
    return wcs


@pytest.mark.parametrize("kind", ["zero", "singular", "nan", "default", "linear"])
def test_degenerate_wcs_are_refused(kind):
    image = NDData(galaxy(), unit="nmgy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.wcs = bad_wcs(kind)
        with pytest.raises(CutoutError, match="wcs"):
            read_cutouts({"g": image}, survey="legacy")


def test_noise_factor_of_the_header():
    """A noise that is already that of the sky is not corrected again."""
    read = read_cutouts(mapping(meta={"NOISEFAC": 1.0}), survey="legacy")
    assert np.allclose(read.batch.noise, 0.05 * NMGY, rtol=1e-5)


def seen(angle, parity, scale, shape, place, sigma=0.5, flux=100.0, noise=0.0):
    """An image and WCS of two Gaussians as wide as the seeing of Legacy."""
    matrix = turned(angle, parity, scale)
    wcs = tangent_wcs(SKY, matrix, *place, shape)
    image = np.random.default_rng(5).normal(0, noise, shape)
    for (west, north), part in (((0, 0), flux), ((1.5, 2.0), flux / 2)):
        where = np.asarray(place) + matrix @ [west, north]
        width = {"shape": shape, "centre": where, "sigma": sigma / scale, "noise": 0}
        image += galaxy(**width, flux=part * scale**2)
    return image, wcs


def band(*arguments, error=0.05, **options):
    image, wcs = seen(*arguments, **options)
    error = StdDevUncertainty(np.full(image.shape, error))
    psf = render_psf(1.1, 3.0, arguments[2])
    return CCDData(image, unit="nmgy", wcs=wcs, uncertainty=error, psf=psf)


def test_bands_of_other_sizes_and_shifts_are_cut_not_resampled():
    whole = band(0, 1, 0.262, (60, 60), (30.2, 29.7))
    part = CCDData(
        whole.data[5:55, 9:58],
        unit="nmgy",
        wcs=whole.wcs[5:55, 9:58],
        uncertainty=StdDevUncertainty(np.full((50, 49), 0.05)),
        psf=whole.psf,
    )
    both = read_cutouts({"g": whole, "r": part}, survey="legacy", position=SKY)
    pixels, good = both.batch.pixels[0], both.batch.good[0]
    assert torch.equal(pixels[0], pixels[1]) and good[:2].all()


@pytest.mark.parametrize(
    ("angle", "parity", "scale"),
    [(0, 1, 0.262), (33, 1, 0.262), (-20, -1, 0.3), (90, 1, 0.4), (5, -1, 0.262)],
)
def test_bands_on_different_grids_are_brought_to_the_finest(angle, parity, scale):
    """The same sky in a band on other pixels gives the same picture."""
    first = band(0, 1, 0.262, (60, 60), (30.2, 29.7))
    other = band(angle, parity, scale, (70, 76), (37.4, 33.8), error=0.1)
    read = read_cutouts({"r": other, "g": first}, survey="legacy", position=SKY)
    pixels, good = read.batch.pixels[0], read.batch.good[0]
    assert good[0].all() and good[1].all()
    assert read.batch.affine[0, 0, 0] == pytest.approx(1 / 0.262, rel=1e-6)
    difference = (pixels[0] - pixels[1]).abs().max() / pixels[0].max()
    assert difference < (1e-3 if scale == 0.262 else 1e-2)
    # Noise of the same power per area, in the survey's own pixels.
    native = LEGACY.noise_factor if scale == 0.262 else 0.262 / scale
    assert read.batch.noise[0, 1] == pytest.approx(0.1 * NMGY * native, rel=1e-3)
    assert read.batch.psf_fwhm[0, 1] == pytest.approx(1.1, rel=0.01)


def test_bands_that_do_not_reach_the_galaxy_are_missing():
    first = band(0, 1, 0.262, (60, 60), (30.2, 29.7))
    away = band(0, 1, 0.262, (60, 60), (-40.0, 29.7))
    read = read_cutouts({"r": away, "g": first}, survey="legacy", position=SKY)
    assert not read.batch.good[0, 1].any() and "MISSING_BANDS" in names(read)
    with pytest.raises(CutoutError, match="in none of them"):
        read_cutouts(
            {"r": away, "g": first},
            survey="legacy",
            position=SkyCoord(150.2, 2.2, unit="deg"),
        )
    with pytest.raises(CutoutError, match="brought together by their WCS"):
        read_cutouts(
            {"g": first, "r": CCDData(galaxy((50, 51)), unit="nmgy")}, survey="legacy"
        )


def test_small_images_and_edges():
    image = galaxy((25, 25))
    error = StdDevUncertainty(np.full((25, 25), 0.05))
    wcs = tangent_wcs(SKY, np.eye(2) / 0.262, 12, 12, (25, 25))
    read = read_cutouts(mapping(image, error=error, wcs=wcs), survey="legacy")
    assert names(read) == ["PADDED"]
    assert read.batch.good[0, 0].sum() == 625
    read = read_cutouts(mapping(galaxy(centre=(10, 25))), "legacy", (10, 25))
    assert names(read) == ["PADDED"]
    read = read_cutouts(mapping(galaxy(centre=(0, 0))), "legacy", (0, 0))
    assert names(read) == ["UNUSABLE", "PADDED"]
    tiny = CCDData(np.ones((12, 12)), unit="nmgy")
    with pytest.raises(SurveyMismatchError, match="half of the field.*8.38.*3.14"):
        read_cutouts({"r": tiny}, survey="legacy")


# --- PSF and names ---------------------------------------------------------------


@pytest.mark.parametrize("fwhm", [0.6, 0.9, 1.3])
@pytest.mark.parametrize("beta", [2.0, 3.0, 10.0])
@pytest.mark.parametrize("shift", [(0, 0), (0.4, -0.3)])
def test_psf_fwhm(fwhm, beta, shift):
    scale, over = 0.262, 9
    fine = (np.arange(41 * over) - (41 * over - 1) / 2) / over * scale
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    square = (fine - shift[0] * scale) ** 2 + (fine[:, None] - shift[1] * scale) ** 2
    psf = (1 + square / alpha**2) ** -beta
    psf = psf.reshape(41, over, 41, over).mean((1, 3))
    assert measure_fwhm(psf, scale) == pytest.approx(fwhm, rel=0.03)
    assert measure_fwhm(psf[1:], scale) == pytest.approx(fwhm, rel=0.03)


def test_psf_from_the_header():
    for value in (1.2, 1200 * u.mas, dict.fromkeys("griz", 1.2)):
        read = read_cutouts(mapping(psf=None, meta={"PSF_FWHM": value}), "legacy")
        assert names(read) == [] and np.allclose(read.batch.psf_fwhm, 1.2)
    for options in ({}, {"meta": {"PSF_FWHM": 0.0}}):
        read = read_cutouts(mapping(psf=None, **options), "legacy")
        assert names(read) == ["NO_PSF"] and read.batch.psf_fwhm.isnan().all()
    read = read_cutouts(mapping(psf=np.zeros((15, 15))), "legacy")
    assert names(read) == ["NO_PSF"]
    with pytest.raises(CutoutError, match="PSF_FWHM"):
        read_cutouts(mapping(psf=None, meta={"PSF_FWHM": "wide"}), "legacy")


def test_names_and_keys():
    def read(**meta):
        return read_cutouts(mapping(meta=meta), survey="legacy")

    first, second = read(OBJECT="a"), read(OBJECT_ID="a", OBJECT="b")
    assert first.object_id == ["a"]
    assert torch.equal(first.batch.keys, second.batch.keys)
    # A name may be that of a whole field: the key is that of the pixels.
    assert torch.equal(read(OBJECT="c").batch.keys, first.batch.keys)
    unnamed = read()
    assert torch.equal(unnamed.batch.keys, read().batch.keys)
    brighter = read_cutouts(mapping(galaxy() * 1.001), survey="legacy")
    assert not torch.equal(unnamed.batch.keys, brighter.batch.keys)
    assert read_cutouts(mapping(meta={"object_id": 12}), "legacy").object_id == ["12"]


# --- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        np.ones((50, 50), complex),
        np.ones((50, 50), bool),
        np.full((50, 50), "a"),
        np.full((50, 50), None),
        np.ones(50),
        np.ones((1, 1, 50, 50)),
        np.ones((0, 50)),
        np.float64(3),
    ],
)
def test_arrays_that_are_no_images(image):
    with pytest.raises(CutoutError):
        read_cutouts({"g": image}, survey="legacy")


@pytest.mark.parametrize(
    "cutouts",
    [{}, [], None, 3, "file.fits", [None], ["a"], {3: np.ones((50, 50))}],
    ids=repr,
)
def test_things_that_are_no_cutouts(cutouts):
    with pytest.raises(CutoutError):
        read_cutouts(cutouts, survey="legacy")


def test_cubes_and_images_must_name_their_bands():
    with pytest.raises(CutoutError, match="meta\\['BAND'\\]"):
        read_cutouts(CCDData(galaxy(), unit="nmgy"), survey="legacy")
    with pytest.raises(CutoutError, match="bands"):
        read_cutouts(NDData(np.ones((3, 50, 50))), survey="legacy")
    with pytest.raises(CutoutError, match="bands"):
        read_cutouts(NDData(np.ones((3, 50, 50)), meta={"bands": "gr"}), "legacy")


def test_surveys_that_do_not_fit():
    with pytest.raises(SurveyMismatchError, match="survey='hsc'"):
        read_cutouts(mapping())
    with pytest.raises(SurveyMismatchError, match="panstarrs"):
        read_cutouts(mapping(meta={"SURVEY": "panstarrs"}))
    with pytest.raises(SurveyMismatchError, match="'y'"):
        read_cutouts(mapping(bands="gy"), survey="legacy")
    with pytest.raises(CutoutError, match="once"):
        read_cutouts({**mapping(bands="g"), **mapping(bands="G")}, survey="legacy")
    a, b = mapping(meta={"SURVEY": "legacy"}), mapping(meta={"SURVEY": "hsc"})
    with pytest.raises(SurveyMismatchError, match="one survey"):
        read_cutouts([a, {band: b[band] for band in "gr"}])
    with pytest.raises(SurveyMismatchError, match="one survey"):
        read_cutouts({"g": a["g"], "r": b["r"]})
    own = SurveyCutout(np.ones((1, 50, 50)), survey="hsc", bands="g")
    with pytest.raises(SurveyMismatchError, match="legacy.*hsc"):
        read_cutouts(own, survey="legacy")


def test_masks_of_another_shape():
    image = NDData(galaxy(), unit="nmgy", mask=np.zeros((3, 3), bool))
    with pytest.raises(CutoutError, match="mask"):
        read_cutouts({"g": image}, survey="legacy")


# --- what is in the field ------------------------------------------------------------


def test_blank_and_large():
    assert names(read_cutouts(mapping(galaxy(flux=0)), "legacy")) == ["BLANK"]
    assert names(read_cutouts(mapping(galaxy(flux=0.15)), "legacy")) == []
    assert names(read_cutouts(mapping(galaxy(sigma=12, flux=3)), "legacy")) == ["LARGE"]
    assert names(read_cutouts(mapping(galaxy(sigma=4, flux=3)), "legacy")) == []


def load(folder, survey_bands):
    return {
        band: CCDData.read(folder / f"{band}.fits")
        for band in survey_bands
        if (folder / f"{band}.fits").is_file()
    }


CENTRES = {
    "des_spiral": ("legacy", {"NO_PSF", "LARGE"}),
    "hsc_cosmos_blend": ("hsc", {"NO_WCS"}),
    "hsc_cosmos_group": ("hsc", {"NO_WCS", "NO_UNCERTAINTY"}),
    "hsc_lsb_galaxy": ("hsc", {"NO_WCS", "NO_UNCERTAINTY", "LARGE"}),
    "hsc_field": ("hsc", {"MISSING_BANDS", "NO_UNCERTAINTY", "NO_PSF", "LARGE"}),
    "hsc_field_with_variance": ("hsc", {"MISSING_BANDS"}),
    "legacy_bass_field": ("legacy", {"MISSING_BANDS", "NO_PSF", "BLANK"}),
    "legacy_decals_galaxy": (
        "legacy",
        {"MISSING_BANDS", "NO_UNCERTAINTY", "NO_PSF", "LARGE"},
    ),
    "legacy_viewer_resampled_c": (
        "legacy",
        {"MISSING_BANDS", "NO_UNCERTAINTY", "NO_PSF", "PIXEL_SCALE", "LARGE"},
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", CENTRES)
def test_flags_of_real_images(real_data, folder):
    survey, expected = CENTRES[folder]
    read = read_cutouts(load(real_data / folder, "grizy"), survey=survey)
    assert set(names(read)) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("folder", "survey"),
    [("hsc_field_with_variance", "hsc"), ("legacy_bass_field", "legacy")],
)
def test_small_real_galaxies_are_neither_large_nor_blank(real_data, folder, survey):
    from astropy.table import Table

    catalog = Table.read(real_data / folder / "catalog.ecsv")
    views = load(real_data / folder, "gr")
    use = (catalog["r50_arcsec"] < 1.3) & (catalog["edge_arcsec"] > 5)
    places = [(row["x"], row["y"]) for row in catalog[use]][:25]
    read = read_cutouts([views] * len(places), survey=survey, position=places)
    flags = read.batch.flags.numpy()
    assert ((flags & FLAGS.LARGE) != 0).mean() < 0.1
    assert not (flags & (FLAGS.BLANK | FLAGS.UNUSABLE)).any()
    # The galaxy is where the catalogue has it.
    pixels, _ = read.batch.view()
    axis = np.arange(48) - 23.5
    near = np.hypot(axis, axis[:, None]) < 9
    band = int(read.batch.present[0].nonzero()[0, 0])
    pixels = pixels[:, band].numpy() * near
    peaks = [np.unravel_index(p.argmax(), p.shape) for p in pixels]
    offset = np.median(np.array(peaks) - 23.5, 0)
    assert (np.abs(offset) < 1).all()


@pytest.mark.filterwarnings("ignore")
def test_noise_of_real_images(real_data):
    image = CCDData.read(real_data / "hsc_field_with_variance" / "r.fits")
    bare = image.copy()
    bare.uncertainty = None
    places = [(100, 100), (200, 300), (350, 150)]
    known = read_cutouts([{"r": image}] * 3, "hsc", places).batch.noise[:, 1]
    found = read_cutouts([{"r": bare}] * 3, "hsc", places).batch.noise[:, 1]
    assert np.allclose(found, known, rtol=0.08)


@pytest.mark.parametrize("row", range(6))
def test_congruent_bands_are_never_a_pixel_apart(row):
    """The galaxy in the middle of a pixel, up to rounding that differs by band."""
    rng = np.random.default_rng(row)
    images = {}
    for band, (x, y) in {"g": (30, 29), "r": (33, 34), "z": (31, 28)}.items():
        place = np.array([x, y]) + rng.normal(0, 1e-7, 2) + 0.01 * (band == "z")
        image, wcs = seen(0, 1, 0.262, (64, 64), place)
        images[band] = CCDData(image, unit="nmgy", wcs=wcs)
    for read in (
        read_cutouts(images, survey="legacy", position=SKY),
        read_cutouts(SurveyCutout.from_image(images, SKY, survey="legacy")),
    ):
        peaks = {int(read.batch.pixels[0, i].argmax()) for i in (0, 1, 3)}
        assert len(peaks) == 1


def test_what_is_usable_does_not_depend_on_the_orientation():
    """Near an edge the same part of the field is there, however the image lies."""
    found = {}
    for angle in (0, 45):
        matrix = turned(angle, 1)
        place = np.array([6.0, 40.0])
        wcs = tangent_wcs(SKY, matrix, *place, (80, 80))
        image = galaxy((80, 80), place)
        error = StdDevUncertainty(np.full((80, 80), 0.05))
        found[angle] = names(
            read_cutouts(mapping(image, wcs=wcs, error=error), "legacy", SKY)
        )
    assert found[0] == found[45] == ["PADDED"]


def test_rows_keep_their_bits_beside_larger_windows():
    plain = mapping()
    others = []
    for angle in (20, 40):
        wcs = tangent_wcs(SKY, turned(angle, 1), 39.5, 39.5, (80, 80))
        error = StdDevUncertainty(np.full((80, 80), 0.05))
        others.append(mapping(galaxy((80, 80)), wcs=wcs, error=error))
    for image in plain.values():
        image.wcs = tangent_wcs(SKY, np.eye(2) / 0.262, 24.3137, 24.7771, (50, 50))
    views = [
        read_cutouts([plain, other], survey="legacy", position=SKY).batch.view()[0][0]
        for other in others
    ]
    assert torch.equal(*views)
