# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""SurveyCutout: slicing, photometry, FITS."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    VarianceUncertainty,
)
from photutils.aperture import (
    CircularAperture,
    SkyCircularAperture,
    aperture_photometry,
)

from astro_disentangle import (
    CutoutError,
    SurveyCutout,
    SurveyMismatchError,
    get_survey,
)
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.data.write import to_cutout
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation.noise import correlated_noise

SKY = SkyCoord(150.1, 2.2, unit="deg")


def make(error=StdDevUncertainty, **changes):
    rng = np.random.default_rng(0)
    shape = (3, 30, 33)
    wcs = tangent_wcs(SKY, np.eye(2) / 0.262, 16, 14.5, shape[1:])
    psf = rng.random((3, 9, 9)).astype(np.float32)
    psf[1] = np.nan
    values = {
        "survey": "legacy",
        "bands": ("g", "r", "z"),
        "psf": psf,
        "uncertainty": error(rng.random(shape).astype(np.float32) + 1),
        "mask": rng.random(shape) > 0.9,
        "wcs": wcs,
        "meta": {"OBJECT": "NGC 1", "SEED": 3, "DEPTHMAG": 24.5, "list": [1, 2]},
        "flags": 6,
        "samples": rng.random((4, *shape)).astype(np.float32),
    }
    data = rng.normal(size=shape).astype(np.float32)
    return SurveyCutout(data, **{**values, **changes})


def test_is_a_mapping_of_bands():
    cutout = make()
    assert len(cutout) == 3
    assert list(cutout) == list(cutout.keys()) == ["g", "r", "z"]
    assert "r" in cutout and "i" not in cutout
    assert [band for band, _ in cutout.items()] == ["g", "r", "z"]
    image = cutout["z"]
    assert isinstance(image, CCDData) and image.unit == u.nmgy
    assert np.array_equal(image.data, cutout.data[2])
    assert np.array_equal(image.mask, cutout.mask[2])
    assert np.array_equal(image.uncertainty.array, cutout.uncertainty.array[2])
    assert np.array_equal(image.psf, cutout.psf[2])
    assert cutout["r"].psf is None
    assert image.meta["BAND"] == "z" and image.meta["SURVEY"] == "legacy"
    with pytest.raises(KeyError, match="no band 'i'"):
        cutout["i"]


def test_slicing_moves_the_galaxy_too():
    cutout = make(meta={"XGALAXY": 16.25, "YGALAXY": 14.0})
    assert cutout[:, 4:, 6:].meta == {"XGALAXY": 10.25, "YGALAXY": 10.0}
    assert "XGALAXY" not in cutout["g"].meta


def test_slicing_keeps_psf_and_moves_wcs():
    cutout = make()
    part = cutout[:, 3:20, 4:-3]
    assert part.shape == (3, 17, 26)
    assert np.array_equal(part.psf, cutout.psf, equal_nan=True)
    assert np.allclose(part.wcs.world_to_pixel(SKY), (12, 11.5), atol=1e-6)
    assert part.samples.shape == (4, 3, 17, 26)
    assert part.flags == 6
    bands = cutout[["z", "g"]]
    assert bands.bands == ("z", "g")
    assert np.array_equal(bands.psf[1], cutout.psf[0])
    assert cutout[1:].bands == ("r", "z")
    assert cutout[["r"], 2:4].shape == (1, 2, 33)
    for bad in (np.s_[:, ::2], np.s_[:, 5], np.s_[:, 5:5], np.s_[..., 3]):
        with pytest.raises(CutoutError):
            cutout[bad]


def test_arithmetic_keeps_the_survey():
    total = make().add(make())
    assert total.survey.name == "legacy" and total.bands == ("g", "r", "z")


@pytest.mark.parametrize(
    "error", [StdDevUncertainty, VarianceUncertainty, InverseVariance]
)
def test_fits_round_trip(tmp_path, error):
    cutout = make(error)
    path = tmp_path / "a cut-out é.fits"
    cutout.write(path)
    again = SurveyCutout.read(path)
    assert again.survey == cutout.survey and again.bands == cutout.bands
    assert again.unit == cutout.unit and again.flags == 6
    for name in ("data", "mask", "psf", "samples"):
        before, after = getattr(cutout, name), getattr(again, name)
        assert after.dtype == before.dtype, name
        assert np.array_equal(before, after, equal_nan=name == "psf"), name
    assert type(again.uncertainty) is error
    assert np.array_equal(again.uncertainty.array, cutout.uncertainty.array)
    assert again.uncertainty.unit == cutout.uncertainty.unit
    assert np.allclose(again.wcs.world_to_pixel(SKY), (16, 14.5), atol=1e-6)
    assert again.meta == {"OBJECT": "NGC 1", "SEED": 3, "DEPTHMAG": 24.5}
    with pytest.raises(OSError, match="overwrite=True"):
        cutout.write(path)
    cutout.write(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_fits_of_a_survey_of_ones_own(tmp_path):
    import dataclasses

    survey = dataclasses.replace(get_survey("legacy"), name="mine", zero_point=30.0)
    cutout = SurveyCutout(np.ones((1, 8, 8)), survey=survey, bands=["g"])
    cutout.write(tmp_path / "x.fits")
    again = SurveyCutout.read(tmp_path / "x.fits")
    assert again.survey == survey
    assert again.wcs is None and again.psf is None and again.uncertainty is None


def test_bands_are_files_that_anyone_reads(tmp_path):
    make()["g"].write(tmp_path / "g.fits")
    image = CCDData.read(tmp_path / "g.fits")
    assert image.unit == u.nmgy and image.psf is not None
    assert image.meta["OBJECT"] == "NGC 1"


def test_read_refuses(tmp_path):
    with pytest.raises(CutoutError, match="no file"):
        SurveyCutout.read(tmp_path / "none.fits")
    (tmp_path / "bad.fits").write_bytes(b"nothing" * 1000)
    with pytest.raises(CutoutError, match="bad.fits"):
        SurveyCutout.read(tmp_path / "bad.fits")
    make()["g"].write(tmp_path / "g.fits")
    with pytest.raises(CutoutError, match="not a cut-out"):
        SurveyCutout.read(tmp_path / "g.fits")
    make().write(tmp_path / "cut.fits")
    content = (tmp_path / "cut.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(content[: len(content) // 3])
    with pytest.raises(CutoutError, match="cut.fits"):
        SurveyCutout.read(tmp_path / "cut.fits")


def test_photutils_takes_a_band():
    cutout = make()
    aperture = CircularAperture((16, 14.5), 4)
    table = aperture_photometry(cutout["g"], aperture)
    ours = make(samples=None).aperture_flux(aperture)
    scale = cutout.survey.nanojansky
    assert ours.colnames == ["band", "flux", "flux_err"]
    expected = table["aperture_sum"][0].to_value("nmgy") * scale
    assert np.isclose(ours["flux"][0].to_value("nJy"), expected)
    expected = table["aperture_sum_err"][0].to_value("nmgy") * scale
    assert np.isclose(ours["flux_err"][0].to_value("nJy"), expected)


def test_aperture_flux_from_samples():
    cutout = make(mask=None)
    aperture = CircularAperture([(16, 14.5), (5, 5)], 3)
    table = cutout.aperture_flux(aperture)
    assert table["flux"].shape == (3, 2)
    sums = [
        aperture_photometry(sample[1], aperture)["aperture_sum"].value
        for sample in cutout.samples
    ]
    expected = np.std(sums, 0, ddof=1) * cutout.survey.nanojansky
    assert np.allclose(table["flux_err"][1].to_value("nJy"), expected)
    sky = SkyCircularAperture(SKY, 3 * 0.262 * u.arcsec)
    found = cutout.aperture_flux(sky)["flux"]
    assert np.allclose(found, table["flux"][:, 0], rtol=1e-4)


@pytest.mark.parametrize("name", ["hsc", "legacy", "legacy-north"])
def test_aperture_errors_know_the_correlation_of_the_noise(name):
    """Sums of correlated noise scatter as they say, and not as white noise would."""
    survey = get_survey(name)
    generator = torch_generator(1, "test")
    shape = (600, 1, 24, 24)
    noise = correlated_noise(survey, shape, generator).numpy()
    apertures = CircularAperture([(11.5, 11.5), (8, 13.2)], 4)
    sums = []
    for image in noise:
        cutout = SurveyCutout(
            image,
            survey=survey,
            bands=survey.bands[:1],
            unit="nJy",
            uncertainty=StdDevUncertainty(np.ones(image.shape)),
            meta={"NOISEFAC": 1.0, "PIXSCALE": survey.pixel_scale},
        )
        table = cutout.aperture_flux(apertures)
        sums.append(table["flux"][0].value)
    claimed = table["flux_err"][0].value
    assert np.std(sums, 0) == pytest.approx(claimed, rel=0.08)
    del cutout.meta["NOISEFAC"]
    white = cutout.aperture_flux(apertures)["flux_err"][0].value
    assert white == pytest.approx(np.sqrt(np.pi) * 4, rel=1e-3)
    if name == "legacy-north":
        assert (claimed > 1.5 * white).all()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"survey": None}, SurveyMismatchError, "survey"),
        ({"survey": "panstarrs"}, SurveyMismatchError, "panstarrs"),
        ({"bands": ("g", "r")}, CutoutError, "bands"),
        ({"bands": ("g", "g", "r")}, CutoutError, "bands"),
        ({"bands": ("g", "r", "y")}, SurveyMismatchError, "'y'"),
        ({"mask": np.zeros((2, 2), bool)}, CutoutError, "mask"),
        ({"psf": np.zeros((2, 5, 5))}, CutoutError, "psf"),
        ({"samples": np.zeros((4, 2, 30, 33))}, CutoutError, "samples"),
        ({"uncertainty": StdDevUncertainty([1.0])}, CutoutError, "uncertainty"),
    ],
)
def test_constructor_refuses(changes, error, text):
    with pytest.raises(error, match=text):
        make(**changes)


def test_to_cutout_places_the_galaxy_in_the_middle():
    pixels = np.full((4, 32, 32), 3.631e3, np.float32)
    pixels[0, 3, 4] = np.nan
    cutout = to_cutout(
        pixels,
        "legacy",
        coord=SKY,
        noise=[1.0, 2.0, 3.0, 4.0],
        psf_fwhm=[1.2, 1.1, np.nan, 1.0],
        flags=2,
        meta={"OBJECT": "x"},
        samples=np.stack([pixels, pixels]),
    )
    assert np.allclose(cutout.wcs.world_to_pixel(SKY), (15.5, 15.5), atol=1e-6)
    east = SKY.directional_offset_by(90 * u.deg, 2.62 * u.arcsec)
    north = SKY.directional_offset_by(0 * u.deg, 2.62 * u.arcsec)
    assert np.allclose(cutout.wcs.world_to_pixel(east), (5.5, 15.5), atol=1e-3)
    assert np.allclose(cutout.wcs.world_to_pixel(north), (15.5, 25.5), atol=1e-3)
    assert cutout.data.dtype == np.float32 and cutout.unit == u.nmgy
    assert np.isclose(cutout.data[1, 0, 0], 1.0, rtol=1e-3)
    assert cutout.mask.sum() == 1 and cutout.mask[0, 3, 4]
    assert cutout.psf.shape == (4, 25, 25) and np.isnan(cutout.psf[2]).all()
    assert np.isclose(cutout.psf[0].sum(), 1, atol=1e-5)
    noise = cutout.uncertainty.array[3] * cutout.survey.nanojansky
    assert np.allclose(noise, 4.0)
    assert to_cutout(pixels, "legacy", unit="uJy").data[1, 0, 0] == pytest.approx(3.631)
    with pytest.raises(CutoutError, match="pixels"):
        to_cutout(pixels[0], "legacy")


def test_cutouts_and_files_need_no_torch():
    code = (
        "import sys, astro_disentangle.data.cutout, astro_disentangle.data.fits, "
        "astro_disentangle.data.write, astro_disentangle.data.unpack; "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
