# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs and pairs from mosaics and a catalogue."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty
from astropy.table import Table

from astro_disentangle import (
    FLAGS,
    CutoutError,
    PairedCutouts,
    SurveyCutout,
    SurveyMismatchError,
    decode_flags,
)
from astro_disentangle.data.measure import measure_fwhm, render_psf
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.wcs import tangent_wcs

SKY = SkyCoord(150.1, 2.2, unit="deg")
#: Sources (west, north) of SKY in arcsec, and their fluxes.
SOURCES = (((0, 0), 900.0), ((25, -10), 500.0), ((-31, 18), 300.0))


def places():
    west, north = np.array([offset for offset, _ in SOURCES]).T * u.arcsec
    return SKY.spherical_offsets_by(-west, north)


def mosaic(scale, shape, angle=0.0, parity=1, seed=0, noise=0.05, **options):
    """Gaussians of the seeing of Legacy, in nJy, on any pixel grid."""
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = turn @ np.diag([parity, 1.0]) / scale
    middle = np.array([(shape[1] - 1) / 2 + 0.3, (shape[0] - 1) / 2 - 0.2])
    wcs = tangent_wcs(SKY, matrix, *middle, shape)
    y, x = np.indices(shape)
    image = np.random.default_rng(seed).normal(0, noise, shape) * scale
    width = 0.5 / scale
    for offset, flux in SOURCES:
        cx, cy = middle + matrix @ offset
        square = (x - cx) ** 2 + (y - cy) ** 2
        image += flux * np.exp(-square / 2 / width**2) / (2 * np.pi * width**2)
    options.setdefault("uncertainty", StdDevUncertainty(np.full(shape, noise * scale)))
    options.setdefault("psf", render_psf(1.18, 30.0, scale))
    return CCDData(image, unit="nJy", wcs=wcs, **options)


def test_a_cutout_is_what_reading_the_mosaic_gives():
    images = {"g": mosaic(0.262, (400, 420)), "r": mosaic(0.262, (400, 420), seed=1)}
    views = SurveyCutout.from_image(images, places(), survey="legacy")
    assert len(views) == 3 and isinstance(views[-1], SurveyCutout)
    cut = read_cutouts(views)
    whole = read_cutouts([images] * 3, survey="legacy", position=list(places()))
    assert torch.equal(cut.batch.pixels, whole.batch.pixels)
    assert torch.equal(cut.batch.flags, whole.batch.flags)
    assert torch.allclose(cut.batch.affine, whole.batch.affine, atol=1e-4)
    assert torch.equal(cut.batch.psf_fwhm.isnan(), whole.batch.psf_fwhm.isnan())
    assert np.allclose(cut.sky, whole.sky, atol=1e-9)
    for view, place in zip(views, places(), strict=True):
        x, y = view.wcs.world_to_pixel(place)
        assert np.hypot(x - view.meta["XGALAXY"], y - view.meta["YGALAXY"]) < 1e-3


@pytest.mark.parametrize(("angle", "parity"), [(0, -1), (90, 1), (31, 1), (200, -1)])
def test_mosaics_in_any_orientation(angle, parity):
    image = mosaic(0.262, (420, 400), angle, parity)
    views = SurveyCutout.from_image({"r": image}, places(), survey="legacy")
    assert views[0].psf.shape == (1, 25, 25)
    read = read_cutouts(views)
    pixels, good = read.batch.view()
    assert good[:, 1].all()
    axis = (np.arange(48) - 23.5) * 0.168
    for row, (_, flux) in enumerate(SOURCES):
        picture = pixels[row, 1].numpy()
        near = np.hypot(axis, axis[:, None]) < 2.4
        assert picture[near].sum() == pytest.approx(flux, rel=0.01)
        core = picture * (np.hypot(axis, axis[:, None]) < 1.2)
        assert abs((core * axis).sum() / core.sum()) < 0.01
        assert abs((core * axis[:, None]).sum() / core.sum()) < 0.01


def test_bands_of_mosaics_on_their_own_grids():
    images = {
        "r": mosaic(0.3, (350, 340), 20, -1, seed=1),
        "g": mosaic(0.262, (400, 420)),
        "z": mosaic(0.262, (400, 420))[3:, 7:],
    }
    images["z"].psf = images["g"].psf
    view = SurveyCutout.from_image(images, places()[1], survey="legacy")
    assert view.bands == ("g", "r", "z") and view.shape[1:] == (32, 32)
    assert np.array_equal(view["z"].data, view["g"].data)
    inner = (slice(6, -6), slice(6, -6))
    apart = view["r"].data[inner] - view["g"].data[inner]
    assert np.abs(apart).max() < 0.01 * view["g"].data.max()
    # The noise of an area is that of the mosaic, and the PSF is that of the sky.
    assert np.allclose(view["r"].uncertainty.array[inner], 0.05 * 0.262, rtol=0.02)
    assert np.allclose(measure_fwhm(view.psf, 0.262), 1.18, rtol=0.01)


def test_units_and_kinds_of_uncertainty():
    first = mosaic(0.262, (200, 200))
    other = CCDData(
        first.data / 3630.78,
        unit="nmgy",
        wcs=first.wcs,
        uncertainty=InverseVariance((0.05 * 0.262 / 3630.78) ** -2 + 0 * first.data),
        mask=first.data < -1e9,
        meta={"NOISEFAC": 1.0},
    )
    view = SurveyCutout.from_image({"g": first, "r": other}, SKY, survey="legacy")
    assert str(view.unit) == "nJy" and view.meta["NOISEFAC"] == {"r": 1.0}
    assert np.allclose(view.data[0], view.data[1], rtol=1e-5)
    assert np.allclose(view.uncertainty.array, 0.05 * 0.262, rtol=1e-4)
    alone = SurveyCutout.from_image({"r": other}, SKY, survey="legacy")
    assert str(alone.unit) == "nmgy" and alone.meta["NOISEFAC"] == 1.0
    assert alone.uncertainty.uncertainty_type == "std"


def test_beyond_the_edge():
    image = mosaic(0.262, (200, 200))
    x, y = 3.0, 60.0
    views = SurveyCutout.from_image({"r": image}, [(x, y), (-90, 5)], survey="legacy")
    assert decode_flags(views[0].flags) == ["PADDED"]
    assert views[0].mask[0, :, :12].all() and not views[0].mask[0, :, 12:].any()
    assert np.isnan(views[0].data[0, :, 0]).all()
    assert views[1].flags == FLAGS.UNUSABLE | FLAGS.PADDED and views[1].mask.all()
    away = SkyCoord(151, 3, unit="deg")
    both = SurveyCutout.from_image({"r": image}, SkyCoord([SKY, away]), survey="legacy")
    read = read_cutouts(both)
    assert [bool(f & FLAGS.UNUSABLE) for f in read.batch.flags] == [False, True]
    assert SkyCoord(*read.sky[1], unit="deg").separation(away) < 0.01 * u.arcsec
    right = views[0].wcs.pixel_to_world(views[0].meta["XGALAXY"], 16)
    left = image.wcs.pixel_to_world(x, y - views[0].meta["YGALAXY"] + 16)
    assert right.separation(left) < 1e-5 * u.arcsec


def test_a_cutout_goes_to_a_file_and_back(tmp_path):
    images = {"g": mosaic(0.262, (200, 200)), "r": mosaic(0.262, (200, 200), seed=2)}
    view = SurveyCutout.from_image(images, SKY, survey="legacy", size=41)
    assert view.shape == (2, 41, 41)
    view.write(tmp_path / "cut.fits")
    again = SurveyCutout.read(tmp_path / "cut.fits")
    assert np.array_equal(again.data, view.data) and again.flags == view.flags
    assert np.allclose(again.uncertainty.array, view.uncertainty.array)
    assert np.array_equal(again.psf, view.psf)
    first, second = read_cutouts(view), read_cutouts(again)
    assert torch.equal(first.batch.pixels, second.batch.pixels)
    assert torch.equal(first.batch.flags, second.batch.flags)


def test_mosaics_stay_on_disk(tmp_path):
    path = tmp_path / "large.fits"
    image = mosaic(0.262, (200, 200))
    fits.writeto(path, image.data.astype(">f4"), image.wcs.to_header())
    with fits.open(path, memmap=True) as hdus:
        mapped = CCDData(hdus[0].data, unit="nJy", wcs=image.wcs)
        assert mapped.data.dtype.byteorder == ">"
        view = SurveyCutout.from_image({"r": mapped}, SKY, survey="legacy")
        assert view.data.dtype == np.float32
        x, y = (round(float(v)) for v in image.wcs.world_to_pixel(SKY))
        column, row = (round(view.meta[name]) for name in ("XGALAXY", "YGALAXY"))
        assert view.data[0, row, column] == mapped.data[y, x]


def test_pairs_from_images():
    hsc = {band: mosaic(0.168, (500, 520), seed=n) for n, band in enumerate("gri")}
    legacy = {"g": mosaic(0.262, (400, 420)), "z": mosaic(0.262, (380, 400), seed=7)}
    sky = SkyCoord([*places(), SkyCoord(151, 3, unit="deg")])
    pairs = PairedCutouts.from_images(
        hsc, legacy, sky, surveys=("hsc", "legacy"), object_id=list("abcd")
    )
    assert len(pairs) == 4 and pairs.object_id == list("abcd")
    assert [bool(f & FLAGS.UNUSABLE) for f in pairs.flags] == [False] * 3 + [True]
    assert pairs.groups.tolist() == [0, 0, 0, 1]
    for row, (_, flux) in enumerate(SOURCES):
        for survey in pairs.surveys:
            pixels, _ = pairs.batch(survey)[[row]].view()
            assert pixels[0, 0, 10:38, 10:38].sum().item() == pytest.approx(
                flux, rel=0.02
            )
    turned = {"g": mosaic(0.262, (400, 400), 31)}
    with pytest.raises(CutoutError, match="north up"):
        PairedCutouts.from_images(hsc, turned, sky[:2], surveys=("hsc", "legacy"))
    with pytest.raises(CutoutError, match="SkyCoord"):
        PairedCutouts.from_images(hsc, legacy, [(1, 2)], surveys=("hsc", "legacy"))


def test_refusals():
    image = mosaic(0.262, (200, 200))
    with pytest.raises(SurveyMismatchError, match="survey="):
        SurveyCutout.from_image({"r": image}, SKY)
    with pytest.raises(CutoutError, match="positions"):
        SurveyCutout.from_image({"r": image}, [[1, 2, 3]], survey="legacy")
    with pytest.raises(CutoutError, match="WCS"):
        SurveyCutout.from_image(
            {"r": CCDData(image.data, unit="nJy")}, SKY, survey="legacy"
        )
    with pytest.raises(CutoutError, match="object_id"):
        SurveyCutout.from_image(
            {"r": image}, places(), survey="legacy", object_id=["a"]
        )


def test_noise_is_that_of_the_mosaic():
    """Also where it has to be measured, and where a band is resampled."""
    options = {"uncertainty": None, "noise": 2.0}
    images = {
        "g": mosaic(0.262, (300, 300), **options),
        "r": mosaic(0.55, (300, 300), seed=3, **options),
    }
    view = SurveyCutout.from_image(images, SKY, survey="legacy")
    assert view.uncertainty is None and set(view.meta["SKYSIGMA"]) == {"g", "r"}
    cut = read_cutouts(view)
    whole = read_cutouts(images, survey="legacy", position=SKY)
    assert "NO_UNCERTAINTY" in decode_flags(cut.batch.flags[0])
    assert torch.allclose(cut.batch.noise, whole.batch.noise, rtol=0.05, equal_nan=True)
    # White noise of 2 nJy per arcsec, whatever the pixels are.
    assert np.allclose(cut.batch.noise[0, :2].numpy(), 2.0 * 0.262, rtol=0.15)
    images["g"] = mosaic(0.262, (300, 300), noise=2.0)
    cut = read_cutouts(SurveyCutout.from_image(images, SKY, survey="legacy"))
    expected = [2.0 * 0.262 * 0.89, whole.batch.noise[0, 1].item()]
    assert np.allclose(cut.batch.noise[0, :2].numpy(), expected, rtol=0.05)


def test_arithmetic_forgets_the_noise_of_the_mosaic():
    image = {"g": mosaic(0.262, (300, 300), uncertainty=None, noise=2.0)}
    view = SurveyCutout.from_image(image, SKY, survey="legacy")
    before, after = (
        read_cutouts(c).batch.noise[0, 0].item() for c in (view, view.multiply(3))
    )
    assert after == pytest.approx(3 * before, rel=0.25)


def test_psf_of_coarser_pixels():
    images = {
        "g": mosaic(0.1, (400, 400), psf=render_psf(0.35, 3.0, 0.1, 41)),
        "r": mosaic(0.29, (300, 300), psf=render_psf(0.9, 3.0, 0.29, 24)),
    }
    view = SurveyCutout.from_image(images, SKY, survey="legacy")
    assert view.psf.shape == (2, 41, 41)
    widths = read_cutouts(view).batch.psf_fwhm[0, :2].numpy()
    assert np.allclose(widths, [0.35, 0.9], rtol=0.03)


def test_steps_of_a_variance_map():
    """A spline swings at a step, and no variance becomes zero."""
    image = mosaic(0.3, (300, 300), 20)
    error = np.where(np.arange(300) < 152, 0.1, 1.0) * np.ones((300, 300))
    images = {"g": mosaic(0.262, (300, 300)), "r": image}
    image.uncertainty = StdDevUncertainty(error)
    view = SurveyCutout.from_image(images, SKY, survey="legacy")
    scale = 0.262 / 0.3
    got = view["r"].uncertainty.array / scale
    assert got.min() > 0.099 and got.max() < 1.001 and not view["r"].mask.any()


def test_catalogues_with_holes():
    """A position that is no number is a flagged row, and so is one far away."""
    image = {"r": mosaic(0.262, (200, 200))}
    sky = SkyCoord([150.1, np.nan, 150.3], [2.2, np.nan, 2.2], unit="deg")
    views = SurveyCutout.from_image(image, sky, survey="legacy", object_id=list("abc"))
    assert [bool(v.flags & FLAGS.UNUSABLE) for v in views] == [False, True, True]
    assert views[1].wcs is None
    pairs = PairedCutouts.from_images(
        {"r": mosaic(0.168, (300, 300))}, image, sky, surveys=("hsc", "legacy")
    )
    assert [bool(f & FLAGS.UNUSABLE) for f in pairs.flags] == [False, True, True]
    assert [v.meta["OBJECT_ID"] for v in views[np.array([True, False, True])]] == [
        "a",
        "c",
    ]
    assert len(SurveyCutout.from_image(image, [], survey="legacy")) == 0
    listed = SurveyCutout.from_image(image, [sky[0], sky[2]], survey="legacy")
    assert len(listed) == 2
    views = SurveyCutout.from_image(image, [(-300.0, 5.0)], survey="legacy")
    there = image["r"].wcs.pixel_to_world(-300, 5)
    place = SkyCoord(*read_cutouts(views).sky[0], unit="deg")
    assert place.separation(there) < 0.2 * u.arcsec


def test_what_is_wrong_with_the_mosaics_is_said():
    """Only a place outside of them makes a row unusable without a word."""
    images = {
        "g": mosaic(0.262, (200, 200)),
        "r": CCDData(np.ones((90, 80)), unit="nJy"),
    }
    views = SurveyCutout.from_image(images, [(100, 100)], survey="legacy")
    with pytest.raises(CutoutError, match="brought together by their WCS"):
        views[0]
    with pytest.raises(CutoutError, match="flux per pixel"):
        SurveyCutout.from_image(
            {"r": CCDData(np.ones((90, 80)), unit="nJy / arcsec2")},
            [(40, 40)],
            survey="legacy",
        )


def test_flags_travel_with_the_cutout():
    image = {"r": mosaic(0.262, (200, 200)), "g": mosaic(0.262, (200, 200))}
    for position, name in (((6.0, 60.0), "PADDED"), ((100, 100), None)):
        cut = read_cutouts(SurveyCutout.from_image(image, position, survey="legacy"))
        whole = read_cutouts(image, survey="legacy", position=position)
        expected = set(decode_flags(whole.batch.flags[0]))
        found = set(decode_flags(cut.batch.flags[0]))
        assert expected <= found and (name is None or name in found)
    image["r"] = CCDData(image["r"].data, wcs=image["r"].wcs, unit="")
    cut = read_cutouts(SurveyCutout.from_image(image, SKY, survey="legacy"))
    assert cut.batch.flags[0] & FLAGS.ASSUMED_UNIT


def test_real_mosaics(real_data):
    """A real field and its catalogue: cut-outs are where the sources are."""
    folder = real_data / "hsc_field"
    images = {b: CCDData.read(folder / f"{b}.fits") for b in "gri"}
    table = Table.read(folder / "catalog.ecsv")
    table = table[np.asarray(table["edge_arcsec"], float) > 5][:20]
    sky = images["g"].wcs.pixel_to_world(table["x"], table["y"])
    views = SurveyCutout.from_image(images, sky)
    for view, x, y in zip(views, table["x"], table["y"], strict=True):
        column, row = (round(view.meta[name]) for name in ("XGALAXY", "YGALAXY"))
        for band, image in images.items():
            assert view[band].data[row, column] == image.data[round(y), round(x)]
    read = read_cutouts(views)
    assert not (read.batch.flags & FLAGS.UNUSABLE).any()
