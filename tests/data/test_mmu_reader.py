# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""``CCDData.read(path, format="mmu")`` on real files."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, InverseVariance

from astro_disentangle import (
    CutoutError,
    SurveyMismatchError,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.data.read import read_cutouts

pytest.importorskip("pyarrow")
import pyarrow as pa
from embedding import catalogues
from pyarrow import parquet

MAGGIES = u.zero_point_flux(u.ABflux)
COLUMNS = {"hsc": "hsc_image", "legacy": "legacysurvey_image"}


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(5, random_state=8)


@pytest.fixture(scope="module")
def rows(pairs):
    """By survey; a bad pixel in each, and no FWHM of the first band of the first."""
    made = {name: catalogues.rows_of_pairs(pairs, name) for name in pairs.surveys}
    for side in made.values():
        for row in side:
            mask = np.array(row["image"]["mask"])
            mask[1, 6, 4] = False
            row["image"]["mask"] = mask.tolist()
    return made


def table_of(rows):
    """An Arrow table of rows."""
    kinds = {name: catalogues.image_type() for name in rows[0] if "image" in name}
    return pa.table(
        {n: pa.array([row[n] for row in rows], type=kinds.get(n)) for n in rows[0]}
    )


def write_hdf5(rows, path):
    """Rows as the HDF5 files of the Multimodal Universe have them."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as handle:
        for name in ("ra", "dec"):
            handle[name] = np.array([row[name] for row in rows])
        handle["object_id"] = [row["object_id"][2:-1].encode() for row in rows]
        for field in ("band", "flux", "ivar", "mask", "psf_fwhm", "scale"):
            values = np.array([row["image"][field] for row in rows])
            values = values.astype("S5") if field == "band" else values
            handle[f"image_{field}"] = values
    return path


@pytest.fixture(scope="module", params=["parquet", "hdf5", "folder", "hats"])
def files(request, rows, tmp_path_factory):
    """The same rows of one survey in each kind of files, in the order of the files."""
    folder, side = tmp_path_factory.mktemp(request.param), rows["legacy"]
    if request.param == "hdf5":
        return write_hdf5(side, folder / "a.hdf5")
    if request.param == "hats":
        pytest.importorskip("lsdb", exc_type=ImportError)
        return catalogues.write_catalog(side, folder / "hats")
    if request.param == "folder":
        parquet.write_table(table_of(side[:2]), folder / "a.parquet")
        parquet.write_table(table_of(side[2:]), folder / "b.parquet")
        return folder
    # Several row groups.
    parquet.write_table(table_of(side), folder / "a.parquet", row_group_size=2)
    return folder / "a.parquet"


def test_an_image_is_that_of_the_row(files, rows, pairs):
    legacy, noise = get_survey("legacy"), pairs.batch("legacy").noise
    for number, row in enumerate(rows["legacy"]):
        name = row["object_id"][2:-1]
        image = CCDData.read(files, format="mmu", object_id=name, band="r")
        assert image.meta["OBJECT"] == name and image.meta["SURVEY"] == "legacy"
        assert image.meta["BAND"] == "des-r"
        assert image.meta["PSF_FWHM"] == pytest.approx(row["image"]["psf_fwhm"][1])
        assert image.meta["PIXSCALE"] == pytest.approx(legacy.pixel_scale)
        # The galaxy is one pixel off the middle, and at its place.
        x, y = image.meta["XGALAXY"], image.meta["YGALAXY"]
        assert (x, y) == ((image.shape[1] - 1) / 2 - 1, (image.shape[0] - 1) / 2 - 1)
        place = image.wcs.world_to_pixel(SkyCoord(row["ra"], row["dec"], unit="deg"))
        assert np.hypot(place[0] - x, place[1] - y) < 0.1
        north = image.wcs.pixel_to_world(x, y + 10)
        assert north.dec.deg - row["dec"] == pytest.approx(10 * 0.262 / 3600, rel=1e-3)
        # Flux, mask and noise are those that went in.
        inside = slice(1, -3), slice(1, -3)
        flux = (image.data * image.unit)[inside].to_value("nJy", MAGGIES)
        truth = pairs.cutouts("legacy")[number]["r"]
        good = ~truth.mask
        good[5, 3] = False
        np.testing.assert_array_equal(image.mask[inside], ~good)
        truth = (truth.data * truth.unit).to_value("nJy", MAGGIES)
        np.testing.assert_allclose(flux[good], truth[good], rtol=1e-5)
        assert isinstance(image.uncertainty, InverseVariance)
        sigma = image.uncertainty.array[10, 10] ** -0.5 * image.unit
        assert sigma.to_value("nJy", MAGGIES) == pytest.approx(
            float(noise[number, 1]), rel=1e-4
        )


def test_the_latents_are_those_of_the_row(files, rows, model):
    row = rows["legacy"][3]
    name = row["object_id"][2:-1]
    read = {
        band: CCDData.read(files, format="mmu", object_id=name, band=band)
        for band in "griz"
    }
    wanted, found = model.transform(row), model.transform(read)
    for column in ("physics", "instrument"):
        np.testing.assert_allclose(found[column], wanted[column], atol=1e-5, rtol=0)
    assert found["flags"].tolist() == wanted["flags"].tolist()
    assert found["object_id"].tolist() == wanted["object_id"].tolist()
    assert found["coord"].separation(wanted["coord"])[0] < 0.0262 * u.arcsec


def test_rows_are_in_the_order_of_the_files(rows, tmp_path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(table_of(rows["hsc"]), path, row_group_size=2)
    for number in range(5):
        image = CCDData.read(path, format="mmu", row=number, band="HSC-I")
        assert image.meta["OBJECT"] == rows["hsc"][number]["object_id"][2:-1]
        assert image.unit == u.adu and image.meta["MAGZERO"] == 27.0
        wanted = read_cutouts(rows["hsc"][number])
        found = read_cutouts({"i": image})
        assert (found.batch.pixels[0, 2] == wanted.batch.pixels[0, 2]).all()
        assert (found.batch.noise[0, 2] == wanted.batch.noise[0, 2]).all()
    first = CCDData.read(path, format="mmu", band="g")
    assert first.meta["OBJECT"] == rows["hsc"][0]["object_id"][2:-1]
    assert "PSF_FWHM" not in first.meta, "a FWHM of 0 is an unknown one"


def test_a_fits_file_of_it_is_the_same(rows, tmp_path, model):
    path = tmp_path / "rows.parquet"
    parquet.write_table(table_of(rows["legacy"]), path)
    read, again = {}, {}
    for band in "griz":
        read[band] = CCDData.read(path, format="mmu", row=3, band=band)
        read[band].write(tmp_path / f"{band}.fits")
        again[band] = CCDData.read(tmp_path / f"{band}.fits")
    wanted, found = model.transform(read), model.transform(again)
    np.testing.assert_allclose(found["physics"], wanted["physics"], atol=1e-5)
    assert found["flags"].tolist() == wanted["flags"].tolist()
    assert found["object_id"].tolist() == wanted["object_id"].tolist()


def test_rows_with_two_images(rows, tmp_path):
    both = []
    for hsc, legacy in zip(rows["hsc"], rows["legacy"], strict=True):
        row = {name: hsc[name] for name in ("ra", "dec", "object_id")}
        both.append(
            {**row, "hsc_image": hsc["image"], COLUMNS["legacy"]: legacy["image"]}
        )
    path = tmp_path / "both.parquet"
    parquet.write_table(table_of(both), path)
    for survey in COLUMNS:
        given = get_survey(survey) if survey == "hsc" else survey
        image = CCDData.read(path, format="mmu", survey=given, band="g")
        assert image.meta["SURVEY"] == survey
    with pytest.raises(SurveyMismatchError, match="survey="):
        CCDData.read(path, format="mmu", band="g")


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("none.parquet", {}, "got 0 files"),
        ("rows.parquet", {"row": 5}, "'row' must be from 0 to 4.*got 5"),
        ("rows.parquet", {"row": -1}, "'row'.*got -1"),
        ("rows.parquet", {"row": 1.5}, "'row'.*got 1.5"),
        ("rows.parquet", {"row": True}, "'row'.*got True"),
        ("rows.parquet", {"object_id": "17"}, "'object_id'.*'17'.*0 rows"),
        ("rows.parquet", {"row": 0, "object_id": "17"}, "must not both"),
        ("rows.parquet", {"band": "u"}, "'band' must be one of.*hsc-g.*got 'u'"),
        ("rows.parquet", {"band": None}, "'band' must be one of"),
        ("rows.parquet", {"band": 3}, "'band' must be the name"),
        ("rows.parquet", {"survey": "nowhere"}, "nowhere"),
        ("twice.parquet", {"object_id": "a"}, "2 rows"),
        ("plain.parquet", {"object_id": "a"}, "a column 'object_id'"),
        ("plain.parquet", {}, "must have"),
        ("text.parquet", {}, "cannot read"),
    ],
)
def test_errors(rows, tmp_path, name, options, text):
    parquet.write_table(table_of(rows["hsc"]), tmp_path / "rows.parquet")
    twice = [{**row, "object_id": "a"} for row in rows["hsc"][:2]]
    parquet.write_table(table_of(twice), tmp_path / "twice.parquet")
    parquet.write_table(pa.table({"ra": [1.0]}), tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises((CutoutError, SurveyMismatchError), match=text):
        CCDData.read(tmp_path / name, format="mmu", **{"band": "g", **options})


@pytest.mark.parametrize(
    "imports",
    [
        "from astropy.nddata import CCDData; import astro_disentangle",
        "import astro_disentangle.data.read; from astropy.nddata import CCDData",
        "from astro_disentangle import Cutouts; from astropy.nddata import CCDData",
        "import astro_disentangle as a; a.Disentangler; from astropy.nddata import *",
    ],
)
def test_when_the_format_is_there(imports):
    code = (
        f"{imports}\nfrom astropy.io import registry\n"
        "print('mmu' in registry.get_formats(CCDData, 'Read')['Format'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_other_formats_are_read_as_before(tmp_path):
    CCDData(np.ones((3, 3)), unit="nJy").write(tmp_path / "plain.fits")
    assert CCDData.read(tmp_path / "plain.fits").unit == u.nJy
