# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whole mosaics as another survey would show them."""

import dataclasses

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData
from astropy.wcs import WCS
from photutils.aperture import ApertureStats, CircularAperture, aperture_photometry

from astro_disentangle import (
    CutoutError,
    SurveyCutout,
    SurveyMismatchError,
    get_survey,
)
from astro_disentangle.keys import torch_generator
from astro_disentangle.mosaics.grid import grid_of
from astro_disentangle.mosaics.sources import Sources
from astro_disentangle.mosaics.translate import _on_grid
from astro_disentangle.simulation.field import simulate_field
from astro_disentangle.simulation.population import galaxies_of


def _told(field, name):
    """The conditions of a field in a survey."""
    known, bands = field.conditions[name], field.mosaics[name].bands
    fwhm = known.psf_fwhm[0].tolist() * u.arcsec
    depth = known.depth[0].tolist() * u.ABmag
    return {
        "psf_fwhm": dict(zip(bands, fwhm, strict=True)),
        "depth": dict(zip(bands, depth, strict=True)),
    }


@pytest.fixture(scope="module")
def field():
    return simulate_field(44 * u.arcsec, random_state=8)


@pytest.fixture(scope="module", params=["hsc", "legacy"])
def painted(request, model, field):
    """A view on the target's own pixels, under its own conditions; and the truth."""
    (target,) = set(field.mosaics) - {request.param}
    view, sources = model.translate_mosaic(
        field.mosaics[request.param],
        survey=target,
        wcs=field.mosaics[target].wcs,
        n_samples=3,
        random_state=1,
        **_told(field, target),
    )
    return view, sources, field.mosaics[target], field.noiseless[target]


def test_the_sky_has_its_noise_everywhere(painted, field):
    """Where tiles overlap they are painted from the same noise: there is no seam."""
    view, _, observed, truth = painted
    sigma = observed.uncertainty.array[:, :1, :1]
    sky = (truth < 0.2 * sigma).all(0) & ~view.mask.any(0)
    # What a survey cannot tell about galaxies is no noise.
    x, y = np.indices(sky.shape)[::-1]
    seen = field.sources["coord"][field.sources["magnitude"] < 26 * u.ABmag]
    for place in np.stack(view.wcs.world_to_pixel(seen), 1):
        away = np.hypot(x - place[0], y - place[1]) * view.survey.pixel_scale
        sky &= away > 2.5
    assert sky.mean() > 0.3
    noise = (view.samples - truth) / sigma
    real = (observed.data - truth)[None] / sigma
    for band in range(len(truth)):
        assert 0.88 < noise[:, band, sky].std() < 1.12
        # Galaxies too faint for Legacy are spread over the sky of an HSC view.
        limit = 0.08 if view.survey.name == "legacy" else 0.3
        assert abs(noise[:, band, sky].mean()) < limit
    # In every part of it, also those that are all overlap, samples differ by it.
    count = len(view.samples)
    spread = (view.samples - view.samples.mean(0)) / sigma
    spread *= np.sqrt(count / (count - 1))
    side = len(sky) // 8
    for y in range(0, len(sky) - side + 1, side):
        for x in range(0, len(sky) - side + 1, side):
            part = np.s_[y : y + side, x : x + side]
            if sky[part].mean() > 0.5:
                there = spread[(..., *part)][..., sky[part]]
                assert 0.85 < there.std() < 1.3

    def correlation(noise):
        both = sky[:, 1:] & sky[:, :-1]
        product = (noise[..., 1:] * noise[..., :-1])[..., both]
        return product.mean() / np.square(noise[..., sky]).mean()

    assert correlation(noise) == pytest.approx(correlation(real), abs=limit / 2)


def test_galaxies_have_their_flux(painted, field):
    view, _, observed, truth = painted
    scale = view.survey.pixel_scale
    table = field.sources[field.sources["magnitude"] < 22.5 * u.ABmag]
    place = np.stack(view.wcs.world_to_pixel(table["coord"]), 1)
    size = view.shape[-1]
    place = place[((place > 4 / scale) & (place < size - 4 / scale)).all(1)]
    assert len(place) > 2
    circles = CircularAperture(place, 1.0 / scale)
    band = view.bands.index("i")
    flux, goal = (
        circles.do_photometry(np.asarray(image[band], float))[0]
        for image in (view.data, truth)
    )
    assert np.all(np.abs(flux / goal - 1) < 0.3)
    assert np.median(np.abs(flux / goal - 1)) < 0.12
    # Mean and samples of one image, in the unit of the survey, with its errors.
    assert view.unit == observed.unit
    table = aperture_photometry(view["i"], circles)
    np.testing.assert_allclose(table["aperture_sum"].value, flux, rtol=1e-5)
    assert np.isfinite(table["aperture_sum_err"]).all()


def test_galaxies_stay_in_their_place(painted, field):
    view, _, _, truth = painted
    scale, band = view.survey.pixel_scale, view.bands.index("i")
    table = field.sources[field.sources["magnitude"] < 22.5 * u.ABmag]
    place = np.stack(view.wcs.world_to_pixel(table["coord"]), 1)
    size = view.shape[-1]
    place = place[((place > 4 / scale) & (place < size - 4 / scale)).all(1)]
    circles = CircularAperture(place, 0.8 / scale)
    found, true = (
        np.reshape(
            ApertureStats(np.asarray(image[band], float), circles).centroid, (-1, 2)
        )
        for image in (view.data, truth)
    )
    # Half a pixel is the most that a tile may be off its place; from Legacy, two thirds
    # of a Legacy pixel are one of HSC, and a few hundredths of an arcsec unknown.
    limit = 0.12 if view.survey.name == "legacy" else 0.35
    assert np.median(np.hypot(*(found - true).T)) < limit


def test_sources_are_told(painted, field):
    view, sources, _, _ = painted
    assert sources.colnames == ["coord", "x", "y", "flags", "painted", "reason"]
    x, y = view.wcs.world_to_pixel(sources["coord"])
    np.testing.assert_allclose(sources["x"], x, atol=1e-4)
    np.testing.assert_allclose(sources["y"], y, atol=1e-4)
    bright = field.sources[field.sources["magnitude"] < 22 * u.ABmag]
    x, y = view.wcs.world_to_pixel(bright["coord"])
    size = view.shape[-1]
    inside = (x > 2) & (x < size - 3) & (y > 2) & (y < size - 3)
    assert inside.sum() > 2
    _, away, _ = bright["coord"][inside].match_to_catalog_sky(sources["coord"])
    assert away.max() < 0.5 * u.arcsec
    assert [not reason for reason in sources["reason"]] == sources["painted"].tolist()


@pytest.mark.parametrize("turn", [0, 40])
def test_moments_and_fluxes_on_other_pixels(turn):
    """An ellipse of 2 by 1 arcsec along the axes of the image."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (60.5, 60.5)
    wcs.wcs.cd = 0.168 / 3600 * np.array([[-cos, sin], [sin, cos]])
    pixels = np.ones((1, 120, 120))
    image = SurveyCutout(pixels, survey="hsc", bands="i", unit=u.nJy, wcs=wcs)
    grid = grid_of(image, get_survey("legacy"))
    moments = np.diag([2.0, 1.0]) ** 2 / 0.168**2
    found = Sources(np.array([[59.5, 59.5]]), moments[None], np.array([100.0]))
    place, covariance, flux = _on_grid(found, image, grid)
    x, y = grid.wcs.world_to_pixel(wcs.pixel_to_world(59.5, 59.5))
    np.testing.assert_allclose(place, [[x, y]], atol=1e-5)
    values, axes = np.linalg.eigh(covariance[0] * 0.262**2)
    np.testing.assert_allclose(values, [1, 4], rtol=1e-3)
    # North is up there: the x axis of the image points away from west by the angle.
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180
    east = (wcs.pixel_to_world(59.5, 59.5), wcs.pixel_to_world(69.5, 59.5))
    expected = (east[0].position_angle(east[1]).deg + 90) % 180
    assert angle == pytest.approx(expected, abs=0.5) or turn == 0
    # A larger pixel has more noise, as its side.
    assert flux[0] == pytest.approx(100 * 0.168 / 0.262, rel=1e-3)


def _small(model, field, **options):
    options = {"survey": "legacy", "bands": "r", "random_state": 3} | options
    return model.translate_mosaic(field.mosaics["hsc"], **options)


@pytest.fixture(scope="module")
def small():
    return simulate_field(24 * u.arcsec, surveys=["hsc"], random_state=9)


def test_what_is_painted_depends_on_the_seed_alone(model, small):
    state = torch.get_rng_state()
    first, _ = _small(model, small)
    again, _ = _small(model, small, batch_size=5)
    other, _ = _small(model, small, random_state=4)
    sigma = first.uncertainty.array
    np.testing.assert_allclose(first.data / sigma, again.data / sigma, atol=1e-3)
    noise = np.nanstd((first.data - other.data) / sigma)
    assert 1.2 < noise < 1.6
    assert torch.equal(torch.get_rng_state(), state)
    assert first.meta["SOURCE"] == "hsc"
    assert first.meta["NTILES"] > 10
    assert first.bands == ("r",)


def test_mosaics_agree_where_they_overlap(model, small):
    whole = small.mosaics["hsc"]
    length = whole.shape[-1]
    views = []
    for columns in (slice(0, 100), slice(length - 100, length)):
        planes = {
            band: CCDData(
                whole[band].data[:, columns],
                unit=whole.unit,
                wcs=whole[band].wcs[:, columns],
                uncertainty=whole[band].uncertainty[:, columns],
                meta=dict(whole[band].meta),
            )
            for band in whole.bands
        }
        view, _ = model.translate_mosaic(
            planes, source="hsc", survey="legacy", bands="r", random_state=3
        )
        views.append(view)
    left, right = views
    sky = left.wcs.pixel_to_world(0, 0)
    shift = np.array(right.wcs.world_to_pixel(sky))
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-4)
    x, y = np.round(shift).astype(int)
    assert y == 0
    # West is right: the second one lies to that side.
    assert x < 0
    overlap = left.data[0][:, -x:], right.data[0][:, : left.shape[-1] + x]
    assert overlap[0].shape[1] > 30
    sigma = np.median(left.uncertainty.array)
    inner = np.s_[4:-4, 4:-4]
    difference = (overlap[0] - overlap[1])[inner] / sigma
    # Two images with noise of their own would differ by 1.4.
    assert np.isfinite(difference).mean() > 0.5
    assert np.nanmedian(np.abs(difference)) / 0.6745 < 0.4


def test_what_is_larger_than_the_field_is_refused(model):
    one = galaxies_of(torch.tensor([16.5]), torch_generator(1, "large"))
    factor = 4 / one.r_half
    radii = ("r_half", "disc_radius", "bulge_radius")
    one = dataclasses.replace(one, **{n: getattr(one, n) * factor for n in radii})
    field = simulate_field(
        48 * u.arcsec, surveys=["hsc"], random_state=8, added=(one, torch.zeros(1, 2))
    )
    image = field.mosaics["hsc"]
    view, sources = _small(model, field)
    refused = sources[[bool(reason) for reason in sources["reason"]]]
    assert "larger than the field of the model" in refused["reason"]
    middle = [(length - 1) / 2 for length in view.shape[:0:-1]]
    x, y = np.round(middle).astype(int)
    assert view.mask[0, y - 3 : y + 4, x - 3 : x + 4].all()
    assert np.isnan(view.data[0, y, x])
    # The rest of the image is there.
    assert 0.01 < view.mask.mean() < 0.6
    assert not view.mask[0, 4:20, 4:20].all()
    assert sources["painted"].sum() > 5
    # Or painted all the same, as well as that can be done.
    view, again = _small(model, field, paint_large=True, n_samples=2)
    assert not view.mask[0, y - 3 : y + 4, x - 3 : x + 4].any()
    assert "larger than the field of the model" not in again["reason"]
    assert (again["flags"] == sources["flags"]).all()
    circle = CircularAperture(middle, 4 / 0.262)
    own = CircularAperture(
        [(length - 1) / 2 for length in image.shape[:0:-1]], 4 / 0.168
    )
    found = circle.do_photometry(view.data[0])[0][0] * view.survey.nanojansky
    band = image.bands.index("r")
    true = own.do_photometry(field.noiseless["hsc"][band])[0][0]
    assert found / (true * image.survey.nanojansky) == pytest.approx(1, abs=0.35)


def test_beyond_the_mosaic_there_is_nothing(model, small):
    image = small.mosaics["hsc"]
    mask = np.zeros(image.shape, bool)
    mask[:, :, 90:] = True
    planes = {
        band: CCDData(
            image[band].data,
            unit=image.unit,
            wcs=image[band].wcs,
            mask=mask[index],
            meta=dict(image[band].meta),
        )
        for index, band in enumerate(image.bands)
    }
    view, sources = model.translate_mosaic(planes, source="hsc", survey="legacy")
    column = 90 * 0.168 / 0.262
    assert view.mask[:, :, int(column) + 2 :].all()
    assert view.mask[:, :, : int(column) - 2].mean() < 0.05
    assert np.all(sources["x"] < column + 1)


def test_files_on_disk(model, small, tmp_path):
    image = small.mosaics["hsc"]
    for band in image.bands:
        image[band].write(tmp_path / f"{band}.fits")
    planes = {band: CCDData.read(tmp_path / f"{band}.fits") for band in image.bands}
    view, _ = model.translate_mosaic(
        planes, source="hsc", survey="legacy", bands="r", random_state=3
    )
    expected, _ = _small(model, small)
    sigma = expected.uncertainty.array
    np.testing.assert_allclose(view.data / sigma, expected.data / sigma, atol=1e-2)
    view["r"].write(tmp_path / "view.fits")
    again = CCDData.read(tmp_path / "view.fits")
    np.testing.assert_allclose(again.data, view.data[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"survey": "kids"}, SurveyMismatchError, "kids"),
        ({"n_samples": 0}, ValueError, "'n_samples'"),
        ({"psf_fwhm": 0.1 * u.arcsec}, ValueError, "psf_fwhm"),
        ({"bands": "y"}, SurveyMismatchError, "y"),
        ({"wcs": 3}, CutoutError, "wcs"),
    ],
)
def test_errors(model, small, options, error, message):
    with pytest.raises(error, match=message):
        _small(model, small, **options)


def test_a_mosaic_needs_a_wcs(model, small):
    image = small.mosaics["hsc"]
    planes = {b: CCDData(image[b].data, unit=image.unit) for b in image.bands}
    with pytest.raises(CutoutError, match="WCS"):
        model.translate_mosaic(planes, source="hsc", survey="legacy")


def test_a_real_mosaic(model, real_data):
    """No PSF and no variance, three bands of five, many galaxies."""
    folder = real_data / "hsc_field"
    planes = {path.stem: CCDData.read(path) for path in folder.glob("*.fits")}
    view, sources = model.translate_mosaic(
        planes, source="hsc", survey="legacy", random_state=0, n_samples=4
    )
    ny, _ = next(iter(planes.values())).shape
    assert view.shape[1] == pytest.approx(ny * 0.168 / 0.262, abs=2)
    assert view.mask.mean() < 0.25
    assert sources["painted"].sum() > 60
    assert view["r"].unit == u.Unit("nmgy")
    # What is bright enough keeps its flux: HSC's zero point is 27, that of nmgy 22.5.
    painted = sources[sources["painted"]]
    seen = planes["i"]
    place = np.stack(seen.wcs.world_to_pixel(painted["coord"]), 1)
    goal = CircularAperture(place, 1.0 / 0.168).do_photometry(seen.data)[0]
    goal = goal * 10 ** (-0.4 * (27 - 22.5))
    place = np.stack([painted["x"], painted["y"]], 1)
    flux = CircularAperture(place, 1.0 / 0.262).do_photometry(view["i"].data)[0]
    good = np.isfinite(flux) & (goal > 0.1)
    assert good.sum() > 10
    assert flux[good].sum() / goal[good].sum() == pytest.approx(1, abs=0.25)
