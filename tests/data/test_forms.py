# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Forms of cut-outs besides astropy's own: MMU rows, AION-1 objects, PSF models."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.modeling.models import Gaussian2D
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.table import QTable, Table
from photutils.psf import CircularGaussianPSF, ImagePSF, MoffatPSF

from astro_disentangle import (
    FLAGS,
    CutoutError,
    PairedCutouts,
    SurveyCutout,
    SurveyMismatchError,
    decode_flags,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.data.aion import to_aion
from astro_disentangle.data.measure import render_psf
from astro_disentangle.data.mmu import is_row
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.stream import is_one

NAMES = {
    "hsc": ["hsc-g", "hsc-r", "hsc-i", "hsc-z", "hsc-y"],
    "legacy": ["des-g", "des-r", "des-i", "des-z"],
}


def stamps(survey, size=160, seed=4):
    """Bands (C, size, size) of a galaxy as MMU has it: at 78.5 of 0 to 159."""
    here = get_survey(survey)
    x = np.arange(size) - ((size - 1) / 2 - 1)
    width = 0.5 / here.pixel_scale
    galaxy = np.exp(-(x[:, None] ** 2 + x**2) / 2 / width**2)
    noise = np.random.default_rng(seed).normal(size=(len(here.bands), size, size))
    sigma = np.array(here.pixel_noise()) / here.nanojansky
    return ((300 * galaxy + noise) * sigma[:, None, None]).astype(np.float32)


def row_of(survey, **changes):
    """A row with the fields of the Multimodal Universe and all of its traps."""
    here = get_survey(survey)
    flux = stamps(survey)
    sigma = np.array(here.pixel_noise()) / here.nanojansky
    mask = np.ones(flux.shape, bool)
    mask[0, 78, 70:74] = False
    image = {
        "band": NAMES[survey],
        "flux": flux,
        "ivar": np.ones_like(flux) * (sigma**-2)[:, None, None],
        "mask": mask,
        "psf_fwhm": np.array([0.0, *here.psf_fwhm[1:]], np.float32),
        "scale": np.full(len(here.bands), here.pixel_scale, np.float32),
    }
    row = {"image": image, "ra": 150.1, "dec": 2.2, "object_id": "b'4281'"}
    row["image"] |= changes
    return row


@pytest.mark.parametrize("survey", ["hsc", "legacy"])
def test_mmu_row(survey):
    read = read_cutouts(row_of(survey))
    batch, here = read.batch, get_survey(survey)
    assert batch.survey == here and read.object_id == ["4281"]
    # The Gaussian of 0.5 arcsec is as wide as a star in Legacy.
    star = ["POINT_SOURCE"] if survey == "legacy" else []
    assert decode_flags(batch.flags[0]) == ["NO_WCS", "NO_PSF", *star]
    widths = batch.psf_fwhm[0].numpy()
    assert np.isnan(widths[0]) and np.allclose(widths[1:], here.psf_fwhm[1:])
    noise = np.array(here.pixel_noise()) * here.noise_factor
    assert np.allclose(batch.noise[0].numpy(), noise, rtol=1e-4)
    # The mask says what is good, and there are four bad pixels.
    assert (~batch.good[0]).sum() == 4 and not batch.good[0, 0].all()
    assert np.allclose(read.sky[0], [150.1, 2.2], atol=1e-9)
    pixels, _ = batch.view()
    light = pixels[0, 1, 14:34, 14:34].clamp(min=0).numpy()
    axis = (np.arange(20) - 9.5) * 0.168
    light = np.where(light > 0.05 * light.max(), light, 0)
    assert abs((light * axis).sum() / light.sum()) < 0.03
    assert abs((light * axis[:, None]).sum() / light.sum()) < 0.03


def test_mmu_spellings():
    """Lists, lists of bands, tensors, object columns and Series are one thing."""
    row = row_of("legacy")
    image = row["image"]
    expected = read_cutouts(row)
    lists = {name: np.asarray(values).tolist() for name, values in image.items()}
    bands = [
        {name: values[index] for name, values in image.items()} for index in range(4)
    ]
    nested = dict(image)
    nested["flux"] = np.empty(4, object)
    for index in range(4):
        nested["flux"][index] = list(image["flux"][index])
    spellings = [{**row, "image": spelling} for spelling in (lists, bands, nested)]
    row_like = SimpleNamespace(**row)
    row_like.keys = row.keys
    type_ = type("Row", (), {"keys": row.keys, "__getitem__": lambda _, k: row[k]})
    spellings.append(type_())
    for spelling in spellings:
        read = read_cutouts(spelling)
        assert torch.equal(read.batch.pixels, expected.batch.pixels)
        assert torch.equal(read.batch.good, expected.batch.good)
        assert read.object_id == expected.object_id
    alone = read_cutouts(image)
    assert torch.equal(alone.batch.pixels, expected.batch.pixels)
    assert alone.object_id != expected.object_id


@pytest.mark.parametrize("field", ["ivar", "mask", "psf_fwhm", "scale"])
def test_mmu_fields_that_are_null_are_unknown(field):
    row = row_of("hsc")
    null = {**row, "image": {**row["image"], field: None}}
    without = {k: v for k, v in row["image"].items() if k != field}
    a, b = (read_cutouts(r).batch for r in (null, {**row, "image": without}))
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.good, b.good)
    assert torch.equal(a.noise.nan_to_num(), b.noise.nan_to_num())


def test_mmu_pairs_and_streams(model):
    hsc, legacy = row_of("hsc"), row_of("legacy")
    row = {
        "hsc_image": hsc["image"],
        "legacysurvey_image": legacy["image"],
        "ra": 150.1,
        "dec": 2.2,
    }
    with pytest.raises(SurveyMismatchError, match="which of them"):
        read_cutouts(row)
    for survey in ("hsc", "legacy"):
        one = {"hsc": hsc, "legacy": legacy}[survey]
        assert torch.equal(
            read_cutouts(row, survey=survey).batch.pixels,
            read_cutouts(one).batch.pixels,
        )
    table = model.transform((row for _ in range(3)), survey="hsc")
    assert len(table) == 3 and np.isfinite(table["physics"]).all()
    view = model.translate(hsc, survey="legacy", n_steps=1)
    x, y = view.wcs.world_to_pixel(table["coord"][0])
    assert abs(float(x) - 15.5) < 0.01 and abs(float(y) - 15.5) < 0.01


def test_mmu_pair_sets():
    """Rows of a pair set, given for both sides, are pairs with places on the sky."""
    rows = []
    for number in range(3):
        hsc, legacy = row_of("hsc"), row_of("legacy")
        rows.append(
            {
                "hsc_image": hsc["image"],
                "legacysurvey_image": legacy["image"],
                "ra": 150.1 + 0.02 * number,
                "dec": 2.2,
                "object_id": str(number),
            }
        )
    pairs = PairedCutouts.from_nddata(rows, rows, surveys=("hsc", "legacy"))
    assert len(pairs) == 3 and pairs.surveys == ("hsc", "legacy")
    assert pairs.object_id == ["0", "1", "2"] and pairs.groups.tolist() == [0, 0, 0]
    assert not (pairs.flags & FLAGS.UNUSABLE).any()
    for survey in pairs.surveys:
        size = get_survey(survey).stamp_size
        assert pairs.batch(survey).pixels.shape[-2:] == (size, size)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"flux": np.ones((3, 160, 160))}, "each of its bands"),
        ({"flux": np.ones((4, 160))}, "2 dimensions|no image"),
        ({"flux": [[[1.0, "x"]]] * 4}, "no image"),
        ({"mask": np.ones((4, 5, 5), bool)}, "mask"),
        ({"ivar": np.ones((4, 5, 5))}, "ivar"),
        ({"band": ["u", "v", "w", "x"]}, "survey"),
    ],
)
def test_mmu_refusals(changes, text):
    with pytest.raises((CutoutError, SurveyMismatchError), match=text):
        read_cutouts(row_of("legacy", **changes))


@pytest.mark.parametrize("survey", ["hsc", "legacy"])
def test_aion_both_ways(survey, model):
    pairs = simulate_pairs(3, random_state=2)
    cutouts = pairs.cutouts(survey)
    image = to_aion(cutouts)
    here = get_survey(survey)
    camera = {"hsc": "HSC", "legacy": "DES"}[survey]
    assert image.bands == [f"{camera}-{band.upper()}" for band in here.bands]
    assert image.flux.shape == (3, len(here.bands), here.stamp_size, here.stamp_size)
    read, plain = read_cutouts(image), read_cutouts(cutouts)
    assert read.batch.survey == here and len(read) == 3
    good = read.batch.good & plain.batch.good
    assert torch.allclose(
        read.batch.pixels[good], plain.batch.pixels[good], rtol=1e-5, atol=1e-2
    )
    assert all(flags & FLAGS.NO_WCS for flags in read.batch.flags)
    one = SimpleNamespace(flux=image.flux[0], bands=image.bands)
    assert len(model.transform(one)) == 1
    views = model.translate(image, survey="legacy", n_steps=1)
    assert len(views) == 3
    with pytest.raises(CutoutError, match="plane for each"):
        read_cutouts(SimpleNamespace(flux=image.flux[0], bands=["HSC-G"]))
    with pytest.raises(CutoutError, match=r"\(batch, band, y, x\)"):
        read_cutouts(SimpleNamespace(flux=np.ones(3), bands=["HSC-G"]))
    with pytest.raises(SurveyMismatchError, match="AION-1"):
        to_aion({"r": CCDData(np.ones((40, 40)), unit="adu")}, survey="des")


@pytest.mark.parametrize("over", [1, 2, 4])
def test_psf_forms(over):
    """The same PSF as an image, an oversampled ImagePSF, a model and a number."""
    scale, fwhm = 0.262, 1.2
    fine = render_psf(fwhm, 3.0, scale / over, size=31 * over // 2 * 2 + 1)
    forms = [
        ImagePSF(fine, oversampling=over),
        MoffatPSF(
            alpha=fwhm / scale / 2 / np.sqrt(2 ** (1 / 3) - 1), beta=3.0, flux=1.0
        ),
        CircularGaussianPSF(fwhm=fwhm / scale, x_0=40, y_0=7),
        render_psf(fwhm, 3.0, scale),
    ]
    image = np.random.default_rng(0).normal(size=(40, 40))
    for psf in forms:
        data = NDData(
            image, unit="nmgy", psf=psf, uncertainty=StdDevUncertainty(0 * image + 1)
        )
        read = read_cutouts({"r": data}, survey="legacy")
        assert not read.batch.flags[0] & FLAGS.NO_PSF
        # A model that is not integrated over pixels looks that much narrower.
        assert read.batch.psf_fwhm[0, 1] == pytest.approx(fwhm, rel=0.03)
    for psf in ("wide", np.ones(5), np.array([["a"] * 5] * 5)):
        data = NDData(image, unit="nmgy", psf=psf)
        with pytest.raises(CutoutError, match="psf"):
            read_cutouts({"r": data}, survey="legacy")


class Frame:
    """As much of a pandas DataFrame as tells what it is."""

    def __init__(self, rows):
        self.rows = rows

    def keys(self):
        return list(self.rows[0])

    def __getitem__(self, name):
        return [row[name] for row in self.rows]

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.keys())

    def iterrows(self):
        return enumerate(self.rows)


def tables():
    rows = [row_of("legacy") | {"object_id": f"{number}"} for number in range(3)]
    columns = {name: [row[name] for row in rows] for name in ("ra", "dec", "object_id")}
    images = np.empty(3, object)
    images[:] = [row["image"] for row in rows]
    table = Table(columns)
    table["image"] = images
    return {"Table": table, "QTable": QTable(table), "DataFrame": Frame(rows)}


@pytest.mark.parametrize("kind", ["Table", "QTable", "DataFrame"])
def test_tables_are_rows(kind, model):
    table = tables()[kind]
    read = read_cutouts(table)
    assert read.object_id == ["0", "1", "2"]
    expected = read_cutouts(row_of("legacy"))
    assert torch.equal(read.batch.pixels[2], expected.batch.pixels[0])
    assert not is_row(table) and not is_one(table)
    latents = model.transform(table)
    assert len(latents) == 3 and np.isfinite(latents["physics"]).all()
    if kind != "DataFrame":
        # One row of a table is one cut-out.
        assert is_one(table[1]) and read_cutouts(table[1]).object_id == ["1"]
        assert len(model.transform(table[:1])) == 1
        assert isinstance(model.translate(table[:1], survey="legacy", n_steps=1), list)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ra": "x"}, "'ra'"),
        ({"dec": [1, 2]}, "'dec'"),
        ({"dec": 100.0}, "'dec'.*100"),
    ],
)
def test_mmu_places_that_are_none(changes, text):
    with pytest.raises(CutoutError, match=text):
        read_cutouts(row_of("legacy") | changes)


def test_mmu_bands_are_there_once():
    row = row_of("legacy", band=["des-g", "des-r", "des-r", "des-z"])
    with pytest.raises(CutoutError, match="once.*des-r"):
        read_cutouts(row)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_aion_tensors_of_any_precision(dtype):
    flux = torch.as_tensor(stamps("legacy", 96))
    bands = ["DES-G", "DES-R", "DES-I", "DES-Z"]
    read = read_cutouts(SimpleNamespace(flux=flux.to(dtype), bands=bands))
    expected = read_cutouts(SimpleNamespace(flux=flux, bands=bands))
    assert torch.allclose(read.batch.pixels, expected.batch.pixels, rtol=0.01, atol=1)


def test_models_that_name_their_centre_otherwise():
    image = np.random.default_rng(0).normal(size=(40, 40))
    data = NDData(image, unit="nmgy", psf=Gaussian2D(1, 25, 25, 2, 2))
    read = read_cutouts({"r": data}, survey="legacy")
    expected = 2 * 2.3548 * 0.262
    assert read.batch.psf_fwhm[0, 1] == pytest.approx(expected, rel=0.03)


def image_of(survey):
    noise = np.random.default_rng(0).normal(size=(60, 60))
    return NDData(noise, unit="nmgy", meta={"SURVEY": survey})


@pytest.mark.parametrize("survey", ["sdss", "kids"])
def test_every_band_must_be_of_the_survey(survey):
    bands = {"g": image_of("legacy"), "r": image_of(survey)}
    with pytest.raises(SurveyMismatchError, match=f"'legacy'.*'{survey}'.*'r'|'r'"):
        read_cutouts(bands, survey="legacy")
    with pytest.raises(SurveyMismatchError, match=survey):
        read_cutouts({"r": image_of(survey)}, survey="legacy")
    cutout = SurveyCutout(image_of("legacy").data[None], survey="legacy", bands="r")
    with pytest.raises(SurveyMismatchError, match="SurveyCutout"):
        read_cutouts(cutout, survey="hsc")


@pytest.mark.parametrize(
    ("told", "survey", "passes"),
    [
        ("des", "legacy", True),
        ("legacy", "des", True),
        ("kids", "sdss", False),
        ("sdss", "kids", False),
        ("legacy-north", "legacy", False),
        ("of my own", "sdss", True),
    ],
)
def test_surveys_of_one_camera(told, survey, passes):
    if passes:
        assert read_cutouts({"r": image_of(told)}, survey=survey).batch.survey.name
        return
    with pytest.raises(SurveyMismatchError, match=told):
        read_cutouts({"r": image_of(told)}, survey=survey)
