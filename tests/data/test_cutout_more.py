# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""SurveyCutout: arithmetic, what headers say of single bands, odd pixels and types."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS, DistortionLookupTable
from photutils.aperture import CircularAperture
from photutils.psf import CircularGaussianPSF

from astro_disentangle import CutoutError, SurveyCutout, SurveyMismatchError
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.units import nanojansky_per
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.survey import AB_FLUX_NJY
from astro_disentangle.surveys import get_survey

SKY = SkyCoord(150.1, 2.2, unit="deg")
SHAPE = (2, 40, 40)
HERE = CircularAperture((20, 20), 5)
META = {"MAGZERO": 30.0, "XGALAXY": 20.0, "YGALAXY": 20.0, "NOISEFAC": 1.0}


def make(**changes):
    rng = np.random.default_rng(3)
    values = {
        "survey": "hsc",
        "bands": ("g", "r"),
        "unit": "adu",
        "uncertainty": StdDevUncertainty(np.full(SHAPE, 0.5, np.float32)),
        "mask": rng.random(SHAPE) > 0.95,
        "psf": rng.random((2, 9, 9)),
        "meta": META | {"PSF_FWHM": {"g": 0.9, "r": 0.7}},
        "flags": 4,
        "samples": rng.normal(5, 1, (3, *SHAPE)).astype(np.float32),
    }
    data = rng.normal(5, 1, SHAPE).astype(np.float32)
    return SurveyCutout(data, **values | changes)


def flux(cutout, **kwargs):
    return cutout.aperture_flux(HERE, **kwargs)["flux"].to_value("nJy")


# --- arithmetic ----------------------------------------------------------------


OPERANDS = {
    "2": ("multiply", 2),
    "1 adu": ("add", 1 * u.adu),
    "0.25 adu": ("subtract", 0.25 * u.adu),
    "array": ("multiply", np.linspace(1, 2, 80).reshape(2, 1, 40)),
    "image": ("multiply", np.linspace(1, 2, 1600).reshape(40, 40)),
    "Quantity array": ("subtract", np.ones(SHAPE) * u.adu),
    "Quantity": ("divide", 4 * u.dimensionless_unscaled),
    "NDData": ("subtract", NDData(np.ones(SHAPE), unit="adu")),
    "CCDData": ("add", CCDData(np.ones(SHAPE[1:]), unit="adu")),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_arithmetic_with_numbers_and_images(name):
    operation, operand = OPERANDS[name]
    cutout = make()
    result = getattr(cutout, operation)(operand)
    ufunc = {"divide": np.true_divide}.get(operation, getattr(np, operation))
    value = operand.data if isinstance(operand, NDData) else u.Quantity(operand).value
    assert isinstance(result, SurveyCutout) and result.unit == u.adu
    assert np.allclose(result.data, ufunc(cutout.data, value))
    assert np.allclose(result.samples, ufunc(cutout.samples, value))
    assert result.survey == cutout.survey and result.bands == cutout.bands
    assert result.flags == 4 and np.array_equal(result.psf, cutout.psf)
    assert result.meta == cutout.meta and result.meta is not cutout.meta
    assert np.array_equal(result.mask, cutout.mask)
    noise = cutout.uncertainty.array
    if operation in ("multiply", "divide"):
        noise = ufunc(noise, value)
    assert np.allclose(result.uncertainty.array, noise)


def test_arithmetic_with_one_image_for_all_bands():
    """What it knows of its pixels goes to every band, and nothing is changed."""
    cutout = make(mask=None, uncertainty=None)
    bad = np.random.default_rng(0).random(SHAPE[1:]) > 0.9
    error = StdDevUncertainty(np.full(SHAPE[1:], 2.0))
    sky = CCDData(np.ones(SHAPE[1:]), unit="adu", mask=bad, uncertainty=error)
    result = cutout.subtract(sky)
    assert np.array_equal(result.mask, [bad, bad]) and result.samples is None
    assert (result.uncertainty.array == 2).all()
    assert result.uncertainty.array.shape == SHAPE
    assert cutout.mask is None and cutout.uncertainty is None
    assert sky.uncertainty.parent_nddata is sky
    result.mask[0, 0, 0] = True


def test_arithmetic_of_two_cutouts():
    cutout = make()
    total = cutout.add(make(flags=2))
    assert np.allclose(flux(total), 2 * flux(cutout))
    assert total.meta == cutout.meta and total.samples is None
    assert total.flags == 6
    assert np.allclose(total.uncertainty.array, 0.5 * np.sqrt(2))
    part = total[:, 2:, 3:]
    assert part.meta["XGALAXY"] == 17 and np.array_equal(part.psf, cutout.psf)
    assert np.allclose(flux(cutout.subtract(make())), 0, atol=1e-3)
    # What astropy offers besides stays: two operands, and its keywords.
    inverse = cutout.divide(1 * u.adu, cutout)
    assert np.allclose(inverse.data, 1 / cutout.data) and inverse.bands == ("g", "r")
    assert np.allclose(inverse.samples, 1 / cutout.samples)
    assert SurveyCutout.add(cutout, cutout).survey == cutout.survey
    assert cutout.add(cutout, propagate_uncertainties=None).uncertainty is None
    assert cutout.add(cutout, handle_meta=None).meta == {}


def test_arithmetic_refuses_what_would_be_wrong():
    cutout = make()
    with pytest.raises(SurveyMismatchError, match="same bands"):
        cutout.add(make(bands=("r", "g")))
    with pytest.raises(CutoutError, match="zero point"):
        cutout.subtract(make(meta={"MAGZERO": 27.0}))
    # The survey's own zero point is the one that both have.
    plain = make(meta={})
    assert plain.add(make(meta={"MAGZERO": 27.0})).unit == u.adu
    assert cutout.divide(make(meta={"MAGZERO": 27.0})).unit == u.dimensionless_unscaled
    with pytest.raises(CutoutError, match="cube"):
        cutout.add(np.ones((3, *SHAPE)) * u.adu)
    with pytest.raises(CutoutError, match="cube"):
        cutout.sum()


def test_a_cutout_from_a_cutout():
    cutout = make(wcs=tangent_wcs(SKY, np.eye(2) / 0.168, 20, 20, SHAPE[1:]))
    again = SurveyCutout(cutout)
    for name in ("survey", "bands", "flags", "unit", "meta"):
        assert getattr(again, name) == getattr(cutout, name), name
    for name in ("data", "mask", "psf", "samples"):
        assert np.array_equal(getattr(again, name), getattr(cutout, name)), name
    assert again.uncertainty.array is cutout.uncertainty.array
    assert again.meta is not cutout.meta and again.wcs is not None
    cube = NDData(cutout.data, meta={"SURVEY": "hsc", "bands": "g,r"}, unit="adu")
    assert SurveyCutout(cube).bands == ("g", "r")
    changed = SurveyCutout(cutout, flags=1, meta={})
    assert changed.flags == 1 and changed.meta == {}


# --- what headers say of single bands -------------------------------------------


TOLD = {
    "numbers": ({"g": 0.9, "r": 0.7}, {"g": 29.0, "r": 30.0}),
    "Quantities": ({"g": 0.9 * u.arcsec, "r": 0.7 * u.arcsec}, {"g": 29, "r": "30"}),
    "milliarcsec": ({"g": 900 * u.mas, "r": 700 * u.mas}, {"G": 29, "R": 30.0}),
    "magnitudes": (
        {"g": np.float32(0.9), "r": 0.7},
        {"g": 29 * u.ABmag, "r": 30 * u.mag},
    ),
}


def told(cutout, tmp_path):
    """The same cut-out in every form that it takes on its way."""
    cutout.write(tmp_path / "x.fits", overwrite=True)
    return [
        cutout,
        dict(cutout.items()),
        cutout[["g", "r"]],
        SurveyCutout.read(tmp_path / "x.fits"),
        dict(SurveyCutout.read(tmp_path / "x.fits").items()),
    ]


@pytest.mark.parametrize("name", TOLD)
def test_numbers_of_each_band_are_kept(name, tmp_path):
    width, zero = TOLD[name]
    cutout = make(psf=None, meta={"PSF_FWHM": width, "MAGZERO": zero})
    factors = AB_FLUX_NJY * 10 ** (-0.4 * np.array([29.0, 30.0]))
    expected = factors * flux(make(unit="nJy", meta={}))
    for form in told(cutout, tmp_path):
        read = read_cutouts(form, survey="hsc").batch
        assert np.allclose(read.psf_fwhm[0, :2], [0.9, 0.7])
        good = read.good[0, 0, 20:28, 20:28]
        pixels = read.pixels[0, 0, 20:28, 20:28][good].numpy()
        assert np.median(pixels) == pytest.approx(5 * factors[0], rel=0.1)
        if isinstance(form, SurveyCutout):
            assert np.allclose(flux(form), expected)
        else:
            assert form["g"].meta["PSF_FWHM"] == pytest.approx(0.9)


def test_one_quantity_for_all_bands(tmp_path):
    meta = {"PSF_FWHM": 1.3 * u.arcsec, "MAGZERO": 25 * u.ABmag}
    meta["PIXSCALE"] = 0.168 * u.arcsec
    cutout = make(psf=None, meta=meta)
    expected = AB_FLUX_NJY * 1e-10 * flux(make(unit="nJy", meta={}))
    for form in told(cutout, tmp_path):
        read = read_cutouts(form, survey="hsc").batch
        assert np.allclose(read.psf_fwhm[0, :2], 1.3)
        if isinstance(form, SurveyCutout):
            assert np.allclose(flux(form), expected)
        else:
            assert form["r"].meta["MAGZERO"] == 25.0
    cutout.write(tmp_path / "x.fits", overwrite=True)
    again = SurveyCutout.read(tmp_path / "x.fits").meta
    assert again == {"PSF_FWHM": 1.3, "MAGZERO": 25.0, "PIXSCALE": 0.168}


def test_a_band_that_is_not_told(tmp_path):
    cutout = make(psf=None, meta={"PSF_FWHM": {"r": 0.7}, "notes": {"g": [1]}})
    cutout.write(tmp_path / "x.fits")
    again = SurveyCutout.read(tmp_path / "x.fits")
    assert again.meta == {"PSF_FWHM": {"r": 0.7}}
    assert "PSF_FWHM" not in again["g"].meta
    # A flux needs the zero point of every band.
    cutout = make(meta={"MAGZERO": {"r": 27.0}})
    with pytest.raises(CutoutError, match="MAGZERO.*'g'"):
        cutout.aperture_flux(HERE)
    with pytest.raises(CutoutError, match="MAGZERO"):
        nanojansky_per("adu", get_survey("hsc"), {"MAGZERO": {"r": 27.0}})
    for wrong in (25 * u.STmag, 25 * u.m):
        with pytest.raises(CutoutError, match="AB magnitude"):
            nanojansky_per("adu", get_survey("hsc"), {"MAGZERO": wrong})


def test_counts_without_a_zero_point():
    with pytest.raises(CutoutError, match=r"\bct\b.*MAGZERO"):
        nanojansky_per("ct", get_survey("hsc"))


# --- apertures -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        StdDevUncertainty(np.full(SHAPE, 500.0), unit="nJy"),
        VarianceUncertainty(np.full(SHAPE, 2.5e5), unit=u.nJy**2),
        InverseVariance(np.full(SHAPE, 4.0), unit=u.uJy**-2),
        InverseVariance(np.full(SHAPE, 4.0)),
    ],
)
@pytest.mark.parametrize("meta", [{}, {"NOISEFAC": 1.0, "PIXSCALE": 0.168}])
def test_aperture_errors_are_in_the_unit_of_the_uncertainty(error, meta):
    changes = {"unit": "uJy", "samples": None, "meta": meta}
    found = make(uncertainty=error, **changes).aperture_flux(HERE)["flux_err"]
    expected = StdDevUncertainty(np.full(SHAPE, 0.5))
    expected = make(uncertainty=expected, **changes).aperture_flux(HERE)["flux_err"]
    assert np.allclose(found.value, expected.value) and (found.value > 1000).all()


def test_aperture_errors_need_a_known_kind():
    error = UnknownUncertainty(np.ones(SHAPE))
    with pytest.raises(CutoutError, match="uncertainty"):
        make(uncertainty=error, samples=None).aperture_flux(HERE)


@pytest.mark.parametrize("samples", [True, False])
def test_apertures_without_a_good_pixel_have_no_flux(samples):
    mask = np.zeros(SHAPE, bool)
    mask[0] = True
    mask[1, :10, :10] = True
    cutout = make(mask=mask, **({} if samples else {"samples": None}))
    places = CircularAperture([(20, 20), (4, 4), (500, 20)], 2)
    table = cutout.aperture_flux(places)
    for name in ("flux", "flux_err"):
        finite = np.isfinite(table[name].value)
        assert finite.tolist() == [[False] * 3, [True, False, False]], name
    data = make().data.copy()
    data[0] = np.nan
    table = SurveyCutout(data, survey="hsc", bands="gr").aperture_flux(HERE)
    assert np.isnan(table["flux"][0]) and np.isfinite(table["flux"][1])


def test_a_pixel_without_weight_spoils_only_its_own_apertures():
    weight = np.ones(SHAPE)
    weight[0, 3, 3] = 0.0
    cutout = make(uncertainty=InverseVariance(weight), mask=None, samples=None)
    table = cutout.aperture_flux(CircularAperture([(20, 20), (4, 4)], 2))
    assert np.isfinite(table["flux_err"].value).tolist() == [[True, False], [True] * 2]


# --- FITS ------------------------------------------------------------------------


def test_tables_of_distortion_become_a_local_wcs(tmp_path):
    """What to_header leaves out must not move the galaxy."""
    wcs = tangent_wcs(SKY, np.eye(2) / 0.168, 20, 20, SHAPE[1:])
    grid = np.full((5, 5), 3.0, np.float32)
    table = DistortionLookupTable(grid, (1.0, 1.0), (1.0, 1.0), (10.0, 10.0))
    wcs.cpdis1 = table
    cutout = make(wcs=wcs)
    cutout.write(tmp_path / "x.fits")
    again = SurveyCutout.read(tmp_path / "x.fits").wcs
    for x, y in ((19.5, 19.5), (10, 30), (30, 12)):
        apart = again.pixel_to_world(x, y).separation(wcs.pixel_to_world(x, y))
        assert apart < 0.002 * u.arcsec
    assert wcs.cpdis1 is table


class Gamma(StdDevUncertainty):
    @property
    def uncertainty_type(self):
        return "gamma"


def test_uncertainties_of_other_kinds(tmp_path):
    cutout = make(uncertainty=UnknownUncertainty(np.ones(SHAPE)))
    cutout.write(tmp_path / "x.fits")
    again = SurveyCutout.read(tmp_path / "x.fits")
    assert isinstance(again.uncertainty, UnknownUncertainty)
    assert np.array_equal(again.uncertainty.array, np.ones(SHAPE))
    with pytest.raises(CutoutError, match="'gamma'"):
        make(uncertainty=Gamma(np.ones(SHAPE))).write(tmp_path / "y.fits")
    assert not (tmp_path / "y.fits").exists()


@pytest.mark.parametrize(
    ("dtype", "written"),
    [
        (np.float16, np.float32),
        (bool, np.uint8),
        (np.longdouble, np.float64),
        (np.int8, np.int8),
        (np.uint16, np.uint16),
        (">f4", np.float32),
    ],
)
def test_numbers_that_fits_does_not_have(tmp_path, dtype, written):
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100
    cutout = make(
        uncertainty=StdDevUncertainty((data + 1).astype(dtype)),
        psf=np.ones((2, 5, 5), float if dtype is bool else dtype),
        samples=np.stack([data, data]).astype(dtype),
        mask=None,
    )
    cutout = SurveyCutout(
        data.astype(dtype), psf=cutout.psf, samples=cutout.samples, **parts(cutout)
    )
    cutout.write(tmp_path / "x.fits")
    again = SurveyCutout.read(tmp_path / "x.fits")
    for name in ("data", "psf", "samples"):
        assert np.array_equal(getattr(again, name), getattr(cutout, name)), name
        if name != "psf" or dtype is not bool:
            assert getattr(again, name).dtype == written, name
    assert np.array_equal(again.uncertainty.array, cutout.uncertainty.array)


def parts(cutout):
    names = ("survey", "bands", "unit", "uncertainty")
    return {name: getattr(cutout, name) for name in names}


def test_numbers_that_are_not_real(tmp_path):
    cutout = SurveyCutout(np.ones(SHAPE, complex), survey="hsc", bands="gr")
    with pytest.raises(CutoutError, match="complex"):
        cutout.write(tmp_path / "x.fits")


# --- indexing and construction -----------------------------------------------------


def test_bands_by_truth_and_by_name():
    cutout = make()
    for chosen in ([True, False], np.array([True, False]), (["g"]), np.array(["g"])):
        assert cutout[chosen].bands == ("g",)
    assert cutout[[False, True], 2:4].bands == ("r",)
    assert cutout[np.array([False, True]), 2:4, 3:9].shape == (1, 2, 6)
    assert cutout["r", "g"].bands == ("r", "g")
    assert cutout["r", "g"].data is not cutout.data
    assert cutout["r", 2:4].shape == (1, 2, 40)
    assert cutout[np.array([1, 0])].bands == ("r", "g")
    assert np.array_equal(cutout[[True, True]].data, cutout.data)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (np.s_["g":"r"], "names"),
        (np.s_[:, "a":"b"], "y axis"),
        (np.s_[0.5:], "whole numbers"),
        ([True], "2 bands"),
        ([True, False, True], "2 bands"),
        (np.ones(SHAPE, bool), "bands"),
        ([False, False], "at least one"),
        (True, "True"),
        ([0.5], "0.5"),
    ],
)
def test_indexing_refuses(item, text):
    with pytest.raises(CutoutError, match=text):
        make()[item]


def test_a_wcs_of_three_axes_is_its_celestial_part():
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = ["WAVE", "RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [5e-7, 150.1, 2.2]
    wcs.wcs.crpix = [1, 21, 21]
    wcs.wcs.cdelt = [1e-7, -0.168 / 3600, 0.168 / 3600]
    wcs.wcs.cunit = ["m", "deg", "deg"]
    cutout = make(wcs=wcs)
    assert cutout["g"].wcs.pixel_to_world(20, 20).separation(SKY) < 1e-3 * u.arcsec
    part = cutout[:, 5:, 4:]
    assert part.wcs.pixel_to_world(16, 15).separation(SKY) < 1e-3 * u.arcsec
    assert wcs.naxis == 3
    with pytest.raises(CutoutError, match="celestial"):
        make(wcs=WCS(naxis=2))


@pytest.mark.parametrize("bands", ["gr", "g,r", "g r", ["g", "r"], ("g", "r")])
def test_spellings_of_bands(bands):
    data = np.random.default_rng(0).normal(size=(2, 60, 60))
    cutout = SurveyCutout(data, survey="hsc", bands=bands)
    assert cutout.bands == ("g", "r")
    meta = {"SURVEY": "hsc", "bands": bands}
    assert SurveyCutout(data, meta=meta).bands == ("g", "r")
    read = read_cutouts(NDData(data, meta=meta, unit="adu"))
    assert read.batch.good[0].any(-1).any(-1).tolist() == [True, True] + [False] * 3
    for wrong in (7, "griz", [1, 2], None):
        with pytest.raises(CutoutError, match="bands"):
            SurveyCutout(data, survey="hsc", bands=wrong)


def test_models_of_the_psf_of_each_band():
    widths = np.array([0.9, 0.7])
    models = [CircularGaussianPSF(fwhm=width / 0.168) for width in widths]
    data = np.random.default_rng(0).normal(size=(2, 60, 60))
    meta = {"SURVEY": "hsc", "bands": "gr"}
    cube = NDData(data, psf=models, unit="adu", meta=meta)
    for cutout in (cube, SurveyCutout(cube), SurveyCutout(data, psf=models, meta=meta)):
        found = read_cutouts(cutout).batch.psf_fwhm[0, :2].numpy()
        assert np.allclose(found, widths, rtol=0.03)
    one = SurveyCutout(data, psf=models[0], meta=meta)
    assert one.psf.shape == (2, 31, 31)
    some = SurveyCutout(data, psf=[None, models[1]], meta=meta)
    assert some["g"].psf is None and np.array_equal(some["r"].psf, some.psf[1])
    cube = NDData(data, psf=[None, models[1]], unit="adu", meta=meta)
    found = read_cutouts(cube).batch.psf_fwhm[0, :2].numpy()
    assert np.isnan(found[0]) and np.isclose(found[1], 0.7, rtol=0.03)
    for wrong in (models[:1], ["wide"] * 2, np.ones(3), "wide"):
        with pytest.raises(CutoutError, match="psf"):
            SurveyCutout(data, psf=wrong, meta=meta)
        with pytest.raises(CutoutError, match="psf"):
            read_cutouts(NDData(data, psf=wrong, unit="adu", meta=meta))
