# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Pairs from real files: Parquet, HDF5 and HATS catalogues, with their traps."""

import re
import subprocess
import sys
import warnings

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import QTable
from embedding.catalogues import image_of, image_type, write_catalog

from astro_disentangle import (
    FLAGS,
    CutoutError,
    PairedCutouts,
    SurveyMismatchError,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.cli import main
from astro_disentangle.data.pair_sets import is_pair_set
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.tables import open_table
from astro_disentangle.samples import load_sample, sample_names

SURVEYS = ("hsc", "legacy")
COLUMNS = {"hsc": "hsc_image", "legacy": "legacysurvey_image"}
COUNT = 8
#: A bad pixel of each survey, (y, x) in the window.
BAD = {"hsc": (3, 5), "legacy": (4, 2)}


@pytest.fixture(scope="module")
def sky():
    """The galaxies that go into the files."""
    return simulate_pairs(COUNT, random_state=3)


def place_of(number):
    """Right ascension and declination, degrees: two and two are neighbours."""
    return 150.1 + 0.6 * (number // 2) + 0.01 * (number % 2), 2.2 - 0.5 * (number // 2)


@pytest.fixture
def rows(sky):
    """The same as rows of a pair set."""
    made = []
    for number in range(COUNT):
        ra, dec = place_of(number)
        row = {
            "object_id": f"b'{sky.object_id[number]}'",
            "ra": ra,
            "dec": dec,
            "magnitude": float(sky.truth["magnitude"][number].value),
            "name": "a galaxy",
        }
        for survey in SURVEYS:
            widths = sky.batch(survey).psf_fwhm[number].numpy().copy()
            widths[0] = 0
            image = image_of(sky.cutouts(survey)[number], widths)
            # The image of a row has a pixel more on the left and below.
            y, x = BAD[survey]
            image["mask"] = np.array(image["mask"])
            image["mask"][1, y + 1, x + 1] = False
            image["mask"] = image["mask"].tolist()
            row[COLUMNS[survey]] = image
        made.append(row)
    return made


def write_parquet(rows, path, *, shuffled=True):
    """A Parquet file, the fields of whose images are in another order."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fields = list(image_type())
    image = pa.struct(fields[::-1] if shuffled else fields)
    columns = {}
    for name in rows[0]:
        kind = image if name.endswith("image") else None
        columns[name] = pa.array([row[name] for row in rows], type=kind)
    path.parent.mkdir(exist_ok=True, parents=True)
    # Several groups of rows, none of the size of a batch.
    parquet.write_table(pa.table(columns), path, row_group_size=3)
    return path


def write_hdf5(rows, path, flux="image_flux"):
    """An HDF5 file of the Multimodal Universe, of the images of one survey."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(exist_ok=True, parents=True)
    with h5py.File(path, "w") as handle:
        for name in ("ra", "dec", "magnitude"):
            handle[name] = np.array([row[name] for row in rows])
        handle["object_id"] = np.array(
            [row["object_id"][2:-1].encode() for row in rows]
        )
        for field in ("band", "flux", "ivar", "mask", "psf_fwhm", "scale"):
            values = np.array([row["image"][field] for row in rows])
            values = values.astype("S5") if field == "band" else values
            handle[flux if field == "flux" else f"image_{field}"] = values
    return path


def one_survey(rows, survey, shift=0.0):
    """Rows of one survey, so many arcsec farther north."""
    return [
        {
            **{name: row[name] for name in ("object_id", "ra")},
            "dec": row["dec"] + shift / 3600,
            # Of two tables the first one's counts.
            "magnitude": row["magnitude"] + (survey != "hsc"),
            "image": row[COLUMNS[survey]],
        }
        for row in rows
    ]


def check_same(pairs, sky, numbers=range(COUNT)):
    """Pixels, masks and places are those that went into the files."""
    numbers = list(numbers)
    assert pairs.object_id == [sky.object_id[number] for number in numbers]
    assert pairs.surveys == SURVEYS and len(pairs) == len(numbers)
    for row, number in enumerate(numbers):
        coord = pairs.coords[row].ra.deg, pairs.coords[row].dec.deg
        assert coord == pytest.approx(place_of(number), abs=1e-9)
    for survey in SURVEYS:
        got, expected = pairs.batch(survey), sky.batch(survey)[numbers]
        good = expected.good.clone()
        good[(slice(None), 1, *BAD[survey])] = False
        assert torch.equal(got.good, good)
        pixels = torch.where(good, expected.pixels, 0)
        scale = pixels.abs().amax((2, 3), keepdim=True)
        assert ((got.pixels - pixels).abs() <= 1e-6 * scale).all()
        here = get_survey(survey)
        middle = torch.full((len(pairs), 2), (here.stamp_size - 1) / 2)
        torch.testing.assert_close(got.affine[:, :, 2], middle, atol=1e-3, rtol=0)
        turn = torch.eye(2).expand(len(pairs), 2, 2) / here.pixel_scale
        torch.testing.assert_close(got.affine[:, :, :2], turn, atol=1e-4, rtol=1e-5)
        # A FWHM of 0 is an unknown one, and nobody said that north is up.
        assert got.psf_fwhm[:, 0].isnan().all()
        torch.testing.assert_close(got.psf_fwhm[:, 1:], expected.psf_fwhm[:, 1:])
        for flag in (FLAGS.NO_PSF, FLAGS.NO_WCS):
            assert ((got.flags & flag) != 0).all()


# --- a table with both images -----------------------------------------------------


def test_pixels_and_places_come_back(rows, sky, tmp_path):
    path = write_parquet(rows, tmp_path / "set.parquet")
    pairs = PairedCutouts.from_mmu(path, columns=["magnitude"])
    check_same(pairs, sky)
    np.testing.assert_allclose(pairs.truth["magnitude"], sky.truth["magnitude"].value)
    assert pairs.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert PairedCutouts.from_mmu(str(path)).truth is None
    # The noise is what the one reader of rows makes of ivar.
    for survey in SURVEYS:
        direct = read_cutouts(rows, survey=survey)
        assert torch.equal(pairs.batch(survey).noise, direct.batch.noise)
        assert torch.equal(pairs.batch(survey).pixels, direct.batch.pixels)


def test_files_of_a_set(rows, sky, tmp_path):
    for part in (0, 1):
        name = f"part-{part}.parquet"
        write_parquet(rows[4 * part : 4 * part + 4], tmp_path / "set" / "data" / name)
    for path in (tmp_path / "set", str(tmp_path / "set" / "*" / "part-?.parquet")):
        assert is_pair_set(path)
        check_same(PairedCutouts.from_mmu(path), sky)
    check_same(PairedCutouts.from_mmu(path, n_max=5), sky, range(5))


def test_other_schemas(rows, sky, tmp_path):
    """Columns as a cross-match names them, bands as a list, and tensors."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for row in rows:
        bands = row.pop("hsc_image")
        row["image_hsc"] = [
            dict(zip(bands, band, strict=True))
            for band in zip(*bands.values(), strict=True)
        ]
        row["object_id_hsc"] = row.pop("object_id")
        for name in ("ra", "dec"):
            row[f"{name}_legacy"] = row[f"{name}_hsc"] = row.pop(name)
    images = [row.pop("legacysurvey_image") for row in rows]
    columns = {}
    for field, values in images[0].items():
        column = [image[field] for image in images]
        columns[field] = pa.array(column, type=image_type().field(field).type)
        if field in ("flux", "ivar"):
            tensors = np.array(column, np.float32)
            assert tensors.shape == (COUNT, *np.shape(values))
            columns[field] = pa.FixedShapeTensorArray.from_numpy_ndarray(tensors)
    table = pa.Table.from_pylist(rows).append_column(
        "image_legacy", pa.StructArray.from_arrays(columns.values(), list(columns))
    )
    parquet.write_table(table, tmp_path / "set.parquet", row_group_size=3)
    check_same(PairedCutouts.from_mmu(tmp_path / "set.parquet"), sky)


def test_only_what_is_needed_is_read(rows, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for row in rows:
        row["hsc_image"]["rgb"] = [[0.0] * 99]
        row["hsc_image"]["mask"] = None
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    table = open_table(tmp_path / "set.parquet")
    assert len(table) == COUNT and "legacysurvey_image" in table.names
    for number, (found, row) in enumerate(table.rows(["ra", "hsc_image"])):
        assert found == number and set(row) == {"ra", "hsc_image"}
        fields = {"band", "flux", "ivar", "psf_fwhm", "scale"}
        assert set(row["hsc_image"]) == fields


def spoil(rows):
    """Rows of which some have a flaw that matters, and the reasons."""
    rows[0]["hsc_image"] = None
    image = rows[1]["legacysurvey_image"]
    image["mask"] = [np.array(plane)[:5].tolist() for plane in image["mask"]]
    image = rows[2]["hsc_image"]
    image["flux"][2] = [row[: 5 + place] for place, row in enumerate(image["flux"][2])]
    image = rows[3]["legacysurvey_image"]
    image["mask"] = np.zeros_like(image["mask"]).tolist()
    rows[4]["hsc_image"]["scale"] = [0.262] * 5
    # A missing band and no place are flaws that a pair can have.
    image = rows[5]["hsc_image"]
    rows[5]["hsc_image"] = {name: values[:-1] for name, values in image.items()}
    rows[6]["ra"] = None
    return (
        "1 without an image of hsc (row 0)",
        "1 whose image of legacy cannot be read (row 1: 'mask' of band 'des-g'",
        "1 whose image of hsc cannot be read (row 2: 'flux' of band 'hsc-i'",
        "1 with too few good pixels in legacy (row 3)",
        "1 not on the pixel grid of hsc (row 4)",
    )


def test_what_cannot_be_used_is_counted(rows, sky, tmp_path):
    reasons = spoil(rows)
    path = write_parquet(rows, tmp_path / "set.parquet")
    with pytest.warns(UserWarning, match="5 of 8 galaxies of .* are left out") as told:
        pairs = PairedCutouts.from_mmu(path)
    assert len(told) == 1 and told[0].filename == __file__
    for reason in reasons:
        assert reason in str(told[0].message)
    assert pairs.object_id == [sky.object_id[number] for number in (5, 6, 7)]
    assert pairs.coords[1] is None and pairs.coords[0] is not None
    missing = (pairs.batch("hsc").flags & FLAGS.MISSING_BANDS) != 0
    assert missing.tolist() == [True, False, False]
    write_parquet(rows[:5], path)
    with pytest.raises(CutoutError, match="at least one pair") as error:
        PairedCutouts.from_mmu(path)
    for reason in reasons:
        assert reason in str(error.value)


def test_two_images_of_different_places(rows, tmp_path):
    for number, row in enumerate(rows):
        row["ra_legacy"] = row["ra"] + (3 / 3600 if number == 2 else 0)
        row["dec_legacy"] = row["dec"]
    path = write_parquet(rows, tmp_path / "set.parquet")
    with pytest.warns(UserWarning, match=r"1 whose two images are .* \(row 2\)"):
        assert len(PairedCutouts.from_mmu(path)) == COUNT - 1


def test_memory_is_not_that_of_the_images(rows, tmp_path):
    path = write_parquet(rows * 50, tmp_path / "set.parquet")
    # The most that Arrow ever had is that of a process of its own.
    code = (
        "import sys, pyarrow; from astro_disentangle import PairedCutouts; "
        "from pyarrow import parquet; pool = pyarrow.default_memory_pool(); "
        "pairs = PairedCutouts.from_mmu(sys.argv[1]); ours = pool.max_memory(); "
        "print(len(pairs), ours, parquet.read_table(sys.argv[1]).nbytes)"
    )
    words = [sys.executable, "-c", code, str(path)]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    count, ours, images = map(int, found.split())
    print(f"{ours / 1e6:.1f} MB of Arrow for {images / 1e6:.1f} MB of images")
    assert count == 50 * COUNT and ours < images / 3


def test_real_galaxies(tmp_path):
    row = {"ra": 10.0, "dec": -3.0, "object_id": "real"}
    expected = {}
    for survey, camera in (("hsc", "hsc"), ("legacy", "des")):
        bands = load_sample(sample_names(survey)[0])
        read = read_cutouts(bands, survey=survey)
        expected[survey] = read.batch
        # The galaxy is in the middle; a row has it one pixel off.
        around = ((1, 3), (1, 3))
        row[COLUMNS[survey]] = {
            "band": [f"{camera}-{band}" for band in bands],
            "flux": [
                np.pad(i.data, around).astype("f4").tolist() for i in bands.values()
            ],
            "ivar": None,
            "mask": [np.pad(np.ones(i.shape), around).tolist() for i in bands.values()],
            "psf_fwhm": [0.0] * len(bands),
            "scale": [get_survey(survey).pixel_scale] * len(bands),
        }
        for name in ("flux", "mask"):
            assert np.ndim(row[COLUMNS[survey]][name]) == 3
        mask = np.array(row[COLUMNS[survey]]["mask"]) > 0
        row[COLUMNS[survey]]["mask"] = mask.tolist()
    pairs = PairedCutouts.from_mmu(write_parquet([row], tmp_path / "real.parquet"))
    for survey in SURVEYS:
        got = pairs.batch(survey)
        good = got.good & expected[survey].good
        assert good.float().mean() > 0.5
        torch.testing.assert_close(
            got.pixels[good], expected[survey].pixels[good], rtol=1e-5, atol=1e-2
        )
        assert (got.flags & FLAGS.NO_UNCERTAINTY).all()


# --- two tables -------------------------------------------------------------------


@pytest.fixture(params=["hdf5", "parquet", "image_array"])
def write(request):
    """How a table of one survey is written."""
    if request.param == "parquet":
        return lambda rows, path: write_parquet(rows, path.with_suffix(".parquet"))
    flux = "image_flux" if request.param == "hdf5" else "image_array"
    return lambda rows, path: write_hdf5(rows, path.with_suffix(".hdf5"), flux)


def test_two_tables_are_matched(rows, sky, write, tmp_path):
    left = one_survey(rows, "hsc")
    right = one_survey(rows[1:], "legacy", shift=0.4)
    order = np.random.default_rng(0).permutation(len(right))
    write(left[:3], tmp_path / "hsc" / "a")
    write(left[3:], tmp_path / "hsc" / "b")
    path = write([right[place] for place in order], tmp_path / "legacy")
    given = (tmp_path / "hsc", path)
    pairs = PairedCutouts.from_mmu(given, columns="magnitude")
    check_same(pairs, sky, range(1, COUNT))
    magnitude = sky.truth["magnitude"].value[1:]
    np.testing.assert_allclose(pairs.truth["magnitude"], magnitude)
    check_same(PairedCutouts.from_mmu(list(given), n_max=2), sky, (1, 2))
    with pytest.raises(CutoutError, match="at least one pair"):
        PairedCutouts.from_mmu(given, radius=0.3 * u.arcsec)
    swapped = PairedCutouts.from_mmu(given[::-1], surveys=SURVEYS[::-1])
    assert swapped.surveys == SURVEYS[::-1]
    assert sorted(swapped.object_id) == sorted(pairs.object_id)


def crowded(rows):
    """Two tables where galaxies 1 to 5 have more than one match."""
    left, right = (one_survey(rows, survey) for survey in SURVEYS)

    def copy(side, number, shift):
        place = side[number]
        side.append({**place, "dec": place["dec"] + shift / 3600})

    # Two of the right for one of the left, and two of the left for one of the right.
    copy(right, 1, 0.5)
    copy(left, 2, 0.5)
    # The same place twice, on each side.
    copy(right, 3, 0.0)
    copy(left, 4, 0.0)
    # 5 is alone with its match on the left, which is not alone with 5: beyond it, two
    # of the right are nearer.
    copy(left, 5, -0.9)
    copy(right, 5, -1.2)
    copy(right, 5, -1.3)
    return left, right


ALONE = (0, 6, 7)


def test_ambiguous_matches_are_left_out(rows, sky, write, tmp_path):
    left, right = crowded(rows)
    given = [write(side, tmp_path / name) for side, name in ((left, "a"), (right, "b"))]
    with pytest.warns(UserWarning, match="8 with more than one match within 1 arcsec"):
        check_same(PairedCutouts.from_mmu(given), sky, ALONE)


def test_tables_with_flaws(rows, sky, write, tmp_path):
    left, right = (one_survey(rows, survey) for survey in SURVEYS)
    left[0]["ra"] = np.nan
    right[1]["dec"] = np.nan
    right[2]["image"]["mask"] = np.zeros_like(right[2]["image"]["mask"]).tolist()
    left[3]["image"]["flux"] = np.full_like(left[3]["image"]["flux"], np.nan).tolist()
    given = [write(side, tmp_path / name) for side, name in ((left, "a"), (right, "b"))]
    with pytest.warns(UserWarning, match="4 of 8 galaxies") as told:
        check_same(PairedCutouts.from_mmu(given), sky, range(4, COUNT))
    for reason in (
        "1 of hsc without 'ra' and 'dec'",
        "1 of legacy without 'ra' and 'dec'",
        "1 with too few good pixels in legacy (row 2)",
        "1 with too few good pixels in hsc (row 3)",
    ):
        assert reason in str(told[0].message)
    # As many as are asked for, the first that can be used.
    with pytest.warns(UserWarning, match="4 of 7 galaxies"):
        check_same(PairedCutouts.from_mmu(given, n_max=3), sky, (4, 5, 6))
    with pytest.warns(UserWarning, match="4 of 8 galaxies"):
        check_same(PairedCutouts.from_mmu(given, n_max=30), sky, range(4, COUNT))


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "options", "error", "text"),
    [
        ("none.parquet", {}, CutoutError, "got 0 files"),
        ("*.nothing", {}, CutoutError, "got 0 files"),
        ("empty", {}, CutoutError, "got 0 files"),
        ("text.parquet", {}, CutoutError, "cannot read .*text.parquet"),
        ("text.hdf5", {}, CutoutError, "cannot read .*text.hdf5"),
        ("text.fits", {}, CutoutError, "Parquet"),
        ("plain.parquet", {}, CutoutError, "a column 'image'"),
        ("single.parquet", {}, CutoutError, "Give a pair of paths"),
        ("set.parquet", {"columns": ["mass"]}, CutoutError, r"\['mass'\] are not"),
        ("set.parquet", {"columns": ["name"]}, CutoutError, "numbers; 'name'"),
        ("set.parquet", {"surveys": ["hsc"]}, SurveyMismatchError, "two"),
        ("set.parquet", {"surveys": ["hsc", "hsc"]}, SurveyMismatchError, "two"),
        ("set.parquet", {"n_max": 0}, ValueError, "n_max"),
        (("set.parquet",) * 3, {}, CutoutError, "got 3 paths"),
        (("set.parquet",) * 2, {"radius": 3 * u.arcsec}, ValueError, "2.0 arcsec"),
        (("set.parquet",) * 2, {"radius": 1 * u.m}, ValueError, "angle"),
        (("noplace.parquet", "set.parquet"), {}, CutoutError, "'ra' and 'dec'"),
    ],
)
def test_errors(rows, tmp_path, given, options, error, text):
    if given == "text.hdf5":
        pytest.importorskip("h5py")
    write_parquet(rows[:2], tmp_path / "set.parquet")
    write_parquet(one_survey(rows[:2], "hsc"), tmp_path / "single.parquet")
    write_parquet([{"ra": 1.0}], tmp_path / "plain.parquet")
    write_parquet([{"image": rows[0]["hsc_image"]}], tmp_path / "noplace.parquet")
    (tmp_path / "empty").mkdir()
    for name in ("text.parquet", "text.hdf5", "text.fits"):
        (tmp_path / name).write_text("no table")
    if isinstance(given, tuple):
        path = tuple(tmp_path / name for name in given)
    else:
        path = tmp_path / given
    with pytest.raises(error, match=text):
        PairedCutouts.from_mmu(path, **options)


def test_the_image_of_another_survey(rows, tmp_path):
    for row in rows:
        row["hsc_image"], row["legacysurvey_image"] = (
            row["legacysurvey_image"],
            row["hsc_image"],
        )
    path = write_parquet(rows, tmp_path / "set.parquet")
    with pytest.raises(CutoutError, match="8 whose image of hsc cannot be read"):
        PairedCutouts.from_mmu(path)


@pytest.mark.parametrize("package", ["pyarrow.parquet", "h5py", "lsdb"])
def test_missing_packages_are_named(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("a.parquet", "a.hdf5"):
        (tmp_path / name).write_text("")
    text = re.escape(f"need {package.split('.')[0]}; ") + ".*astro_disentangle.hats"
    read, given = PairedCutouts.from_mmu, [tmp_path / "a.parquet"]
    if package == "h5py":
        given = [tmp_path / "a.hdf5"]
    elif package == "lsdb":
        read, given = PairedCutouts.from_hats, [tmp_path, tmp_path]
    with pytest.raises(ImportError, match=text):
        read(*given)


# --- the command line -------------------------------------------------------------


def run(words, capsys):
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_fit_and_report_on_a_file(rows, tmp_path, capsys):
    path = write_parquet(rows * 2, tmp_path / "set.parquet")
    words = ["fit", "--pairs", path, "--from", "default", "--steps", "2"]
    words += ["--batch-size", "4", "--output", tmp_path / "run"]
    assert "16 pairs, 2 steps" in run(words, capsys)
    history = QTable.read(tmp_path / "run" / "history.ecsv")
    assert np.isfinite(history["loss"]).all()
    words = ["report", "--pairs", path, "--output", tmp_path / "report"]
    words += ["--weights", tmp_path / "run" / "model.safetensors", "--no-baselines"]
    words += ["--views", "4", "--samples", "2", "--steps", "1"]
    assert "scores of 16 pairs" in run(words, capsys)


def test_what_the_command_takes_for_a_set(rows, sky, tmp_path, capsys):
    sky.write(tmp_path / "folders")
    assert not is_pair_set(tmp_path / "folders") and not is_pair_set("nowhere")
    write_parquet(rows[:1], tmp_path / "folders" / "notes.parquet")
    assert not is_pair_set(tmp_path / "folders")
    write_parquet(rows, tmp_path / "set" / "train" / "a.parquet")
    assert is_pair_set(tmp_path / "set") and is_pair_set(tmp_path / "set" / "*" / "*")
    assert main(["fit", "--pairs", "nowhere.parquet", "--output", "x"]) == 2
    assert "nowhere.parquet" in capsys.readouterr().err


# --- HATS -------------------------------------------------------------------------

hats = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:Right catalog does not have a margin:RuntimeWarning",
)


@hats
def test_a_catalogue_with_both_images(rows, sky, tmp_path, capsys):
    lsdb = pytest.importorskip("lsdb", exc_type=ImportError)
    path = write_catalog(rows, tmp_path / "set", partition_rows=3)
    assert is_pair_set(path)
    pairs = PairedCutouts.from_mmu(path)
    order = [sky.object_id.index(name) for name in pairs.object_id]
    assert sorted(order) == list(range(COUNT))
    check_same(pairs, sky, order)
    # A collection, whose margin has galaxies that are in the main catalogue too.
    collection = tmp_path / "collection"
    lsdb.open_catalog(path, columns="all").write_catalog(
        collection / "main", as_collection=False, progress_bar=False
    )
    margin = lsdb.open_catalog(path, columns="all")
    margin.write_catalog(collection / "margin", as_collection=False, progress_bar=False)
    (collection / "collection.properties").write_text(
        "#HATS Collection\nobs_collection=set\nhats_primary_table_url=main\n"
        "all_margins=margin\ndefault_margin=margin\n"
    )
    check_same(PairedCutouts.from_mmu(collection), sky, order)
    words = ["fit", "--pairs", collection, "--steps", "1", "--batch-size", "4"]
    assert "8 pairs" in run([*words, "--output", tmp_path / "run"], capsys)


@pytest.fixture
def catalogues(rows, tmp_path):
    pytest.importorskip("lsdb", exc_type=ImportError)
    sides = crowded(rows)
    return [
        write_catalog(side, tmp_path / survey, partition_rows=4)
        for side, survey in zip(sides, SURVEYS, strict=True)
    ]


@hats
def test_catalogues_are_matched(catalogues, sky):
    import lsdb

    with pytest.warns(UserWarning, match="with more than one match within 1 arcsec"):
        pairs = PairedCutouts.from_hats(*catalogues, columns=["magnitude"])
    check_same(pairs, sky, ALONE)
    magnitude = sky.truth["magnitude"].value[list(ALONE)]
    np.testing.assert_allclose(pairs.truth["magnitude"], magnitude)
    opened = [lsdb.open_catalog(path) for path in catalogues]
    near = opened[0].cone_search(*place_of(0), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_same(PairedCutouts.from_hats(*opened), sky, ALONE)
        check_same(PairedCutouts.from_hats(near, catalogues[1]), sky, (0,))
        assert len(PairedCutouts.from_hats(*catalogues, n_max=2)) == 2


@hats
def test_errors_of_catalogues(catalogues, rows, tmp_path):
    left, right = catalogues
    with pytest.raises(CutoutError, match="cannot open"):
        PairedCutouts.from_hats(left, tmp_path / "none")
    with pytest.raises(CutoutError, match="mass"):
        PairedCutouts.from_hats(left, right, columns=["mass"])
    with pytest.raises(ValueError, match="radius"):
        PairedCutouts.from_hats(left, right, radius=5 * u.arcsec)
    away = one_survey(rows, "legacy", shift=30)
    away = write_catalog(away, tmp_path / "away")
    with pytest.raises(CutoutError, match="at least one pair"):
        PairedCutouts.from_hats(left, away)
