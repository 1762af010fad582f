# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The command line as users call it: real files in, real files out."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable

from astro_disentangle import (
    FLAGS,
    PairedCutouts,
    SurveyCutout,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.cli import main
from astro_disentangle.data.wcs import tangent_wcs
from astro_disentangle.samples import load_sample, sample_names


@pytest.fixture
def files(tmp_path):
    """One packaged galaxy as single-band files on disk, in a folder with a space."""
    folder = tmp_path / "my galaxies"
    folder.mkdir()
    name = sample_names(survey="hsc")[0]
    paths = []
    for band, image in load_sample(name).items():
        path = folder / f"{name}_{band}.fits"
        image.write(path)
        paths.append(str(path))
    return paths


def test_transform(files, tmp_path, capsys):
    output = tmp_path / "latents.ecsv"
    status = main(["transform", *files, "--survey", "hsc", "--output", str(output)])
    assert status == 0, capsys.readouterr().err
    table = QTable.read(output)
    assert len(table) == 1
    assert np.isfinite(table["physics"]).all()


def test_translate(files, tmp_path, capsys):
    words = ["translate", *files, "--survey", "legacy", "--source", "hsc"]
    words += ["--steps", "2", "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    written = sorted((tmp_path / "out").glob("translated_*.fits"))
    assert len(written) == 4
    assert capsys.readouterr().out.splitlines() == [
        str(path) for path in sorted(written, key=lambda p: "griz".index(p.stem[-1]))
    ]
    image = CCDData.read(written[0])
    assert image.shape == (32, 32)
    assert str(image.unit) == "nmgy"


def test_demo(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path)]) == 0, capsys.readouterr().err
    latents = QTable.read(tmp_path / "latents.ecsv")
    assert len(latents) == len(sample_names())
    assert set(latents["survey"]) == {"hsc", "legacy"}
    assert (tmp_path / "demo.png").stat().st_size > 20_000
    printed = capsys.readouterr().out
    for name in sample_names():
        assert name in printed
        assert list(tmp_path.glob(f"translated_{name}_*.fits"))


def test_fit_and_use(tmp_path, capsys):
    pairs = simulate_pairs(16, random_state=4)
    places = np.stack([np.arange(16) * 2.0, np.zeros(16)], 1)
    pairs = PairedCutouts({s: pairs.batch(s) for s in pairs.surveys}, coords=places)
    for survey in pairs.surveys:
        (tmp_path / "pairs" / survey).mkdir(parents=True)
        for row, cutout in enumerate(pairs.cutouts(survey)):
            cutout.write(tmp_path / "pairs" / survey / f"{row:03d}.fits")
    words = ["fit", "--pairs", str(tmp_path / "pairs"), "--output"]
    words += [str(tmp_path / "run"), "--steps", "2", "--batch-size", "8"]
    assert main([*words, "--validation", "1.5"]) == 2
    assert "between 0 and 1" in capsys.readouterr().err
    words += ["--validation", "0.3", "--order", "5"]
    assert main(words) == 0, capsys.readouterr().err
    assert re.search(r"\d of 16 pairs are held out", capsys.readouterr().out)
    history = QTable.read(tmp_path / "run" / "history.ecsv")
    assert len(history) == 1 and np.isfinite(history["validation"]).all()
    words = ["transform", str(tmp_path / "pairs" / "legacy" / "000.fits")]
    words += ["--weights", str(tmp_path / "run" / "model.safetensors")]
    words += ["--output", str(tmp_path / "latents.ecsv")]
    assert main(words) == 0, capsys.readouterr().err
    assert QTable.read(tmp_path / "latents.ecsv")["survey"][0] == "legacy"


def test_add_survey_and_use(tmp_path, capsys):
    kids = dataclasses.replace(get_survey("kids"), name="mine")
    (tmp_path / "mine.json").write_text(kids.to_json())
    pairs = simulate_pairs(20, surveys=("legacy", kids), random_state=4)
    pairs.write(tmp_path / "pairs")
    words = ["add-survey", "--survey", str(tmp_path / "mine.json"), "--known", "legacy"]
    words += ["--pairs", str(tmp_path / "pairs"), "--output", str(tmp_path / "run")]
    words += ["--steps", "2", "--batch-size", "8"]
    assert main(words) == 0, capsys.readouterr().err
    assert "20 pairs, 2 steps" in capsys.readouterr().out
    assert main(words) == 2
    assert "resume=True" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0, capsys.readouterr().err
    weights = ["--weights", str(tmp_path / "run" / "model.safetensors")]
    galaxy = str(next((tmp_path / "pairs" / "mine").glob("*.fits")))
    words = ["translate", galaxy, *weights, "--survey", "hsc", "--source", "mine"]
    assert main([*words, "--output", str(tmp_path / "views")]) == 0
    assert len(list((tmp_path / "views").glob("*.fits"))) == 5
    words = ["report", "--pairs", str(tmp_path / "pairs"), *weights, "--no-baselines"]
    words += ["--views", "2", "--samples", "2", "--output", str(tmp_path / "report")]
    assert main([*words, "--surveys", "legacy", "kids"]) == 2
    assert "got 'kids'" in capsys.readouterr().err
    assert main([*words, "--surveys", "legacy", "mine"]) == 0, capsys.readouterr().err
    scores = QTable.read(tmp_path / "report" / "scores.ecsv")
    assert {"mine", "mine->legacy", "legacy->mine"} <= set(scores["where"])


def test_fit_residual_and_use(tmp_path, capsys):
    for visit, name in enumerate(("pairs", "again")):
        simulate_pairs(12, random_state=4, visit=visit).write(tmp_path / name)
    words = ["fit-residual", "--pairs", str(tmp_path / "pairs"), "--steps", "1"]
    words += ["--output", str(tmp_path / "run"), "--batch-size", "4"]
    again = ["--revisits", str(tmp_path / "again")]
    assert main([*words, *again, "--validation", "0.2"]) == 2
    assert "'--revisits'" in capsys.readouterr().err
    assert main([*words, *again]) == 0, capsys.readouterr().err
    assert "12 pairs, 1 steps" in capsys.readouterr().out
    weights = ["--weights", str(tmp_path / "run" / "model.safetensors")]
    galaxy = str(next((tmp_path / "pairs" / "hsc").glob("*.fits")))
    views = {}
    for name, more in (("with", []), ("without", ["--no-residual"])):
        words = ["translate", galaxy, *weights, "--survey", "legacy", *more]
        assert main([*words, "--output", str(tmp_path / name)]) == 0
        views[name] = [f.name for f in sorted((tmp_path / name).glob("*.fits"))]
    assert views["with"] == views["without"]
    images = [CCDData.read(tmp_path / name / views[name][1]).data for name in views]
    assert np.isfinite(images[0]).all()
    assert not np.array_equal(*images)


def test_fit_with_galaxies_of_one_survey(tmp_path, capsys):
    simulate_pairs(8, random_state=4).write(tmp_path / "pairs")
    simulate_pairs(4, random_state=5).write(tmp_path / "others")
    shutil.rmtree(tmp_path / "others" / "hsc")
    words = ["fit", "--pairs", str(tmp_path / "pairs"), "--from", "default"]
    words += ["--steps", "2", "--batch-size", "4", "--output", str(tmp_path / "run")]
    assert main([*words, "--unpaired", str(tmp_path)]) == 2
    assert "must have a folder of FITS files for one of" in capsys.readouterr().err
    words += ["--unpaired", str(tmp_path / "others")]
    assert main(words) == 0, capsys.readouterr().err
    history = QTable.read(tmp_path / "run" / "history.ecsv")
    assert np.isfinite(history["unpaired"]).all()


@pytest.mark.parametrize("suffix", [".ecsv", ".fits"])
def test_similar(tmp_path, capsys, suffix):
    pairs = simulate_pairs(12, random_state=6)
    paths = {}
    for survey in pairs.surveys:
        (tmp_path / survey).mkdir()
        files = []
        for row, cutout in enumerate(pairs.cutouts(survey)):
            files.append(str(tmp_path / survey / f"{row:02d}.fits"))
            cutout.write(files[-1])
        paths[survey] = str(tmp_path / f"{survey}{suffix}")
        assert main(["transform", *files, "--output", paths[survey]]) == 0
    words = ["similar", paths["hsc"], "--catalog", paths["legacy"], "-k", "3"]
    output = tmp_path / f"matches{suffix}"
    assert main([*words, "--output", str(output)]) == 0, capsys.readouterr().err
    matches = QTable.read(output)
    assert len(matches) == 36 and set(matches["rank"]) == {1, 2, 3}
    assert (
        np.asarray(matches["row"]).reshape(12, 3)[:, 0] == np.arange(12)
    ).mean() > 0.5
    words[3] = __file__
    assert main([*words, "--output", str(output)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".fits.gz", ".fits.fz"])
def test_compressed_files_and_another_wcs(files, tmp_path, capsys, suffix):
    """Compressed bands, painted into the pixels of a rotated image."""
    sky = SkyCoord(30.1, -2.6, unit="deg")
    words = []
    for path in files:
        image = CCDData.read(path)
        ny, nx = image.shape
        image.wcs = tangent_wcs(sky, np.eye(2) / 0.168, nx / 2, ny / 2, image.shape)
        out = tmp_path / f"{Path(path).stem}{suffix}"
        hdu = image.to_hdu()[0]
        if suffix.endswith("fz"):
            hdu = fits.CompImageHDU(hdu.data, hdu.header)
        hdu.writeto(out)
        words.append(str(out))
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]]) / 0.2
    wcs = tangent_wcs(sky, turn, 25, 29, (60, 50))
    fits.writeto(tmp_path / "like.fits", np.zeros((60, 50)), wcs.to_header())
    words = ["translate", *words, "--source", "hsc", "--survey", "legacy"]
    words += ["--sky", "30.1", "-2.6", "--steps", "1", "--output", str(tmp_path / "o")]
    assert main([*words, "--wcs", str(tmp_path / "like.fits")]) == 0
    (path,) = (tmp_path / "o").glob("translated_*_r.fits")
    image = CCDData.read(path)
    assert image.shape == (60, 50) and 0 < np.isfinite(image.data).mean() < 1
    x, y = image.wcs.world_to_pixel(sky)
    assert np.hypot(x - 25, y - 29) < 1e-3
    fits.writeto(tmp_path / "none.fits", np.zeros((60, 50)))
    assert main([*words, "--wcs", str(tmp_path / "none.fits")]) == 2
    assert "none.fits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transform", "none.fits", "--output", "x.ecsv"], "none.fits"),
        (
            ["translate", __file__, "--survey", "legacy", "--output", "x"],
            "not a FITS file",
        ),
        (["fit", "--pairs", "nowhere", "--output", "x"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "astro_disentangle.cli", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_survey(files, tmp_path, capsys):
    words = ["translate", *files, "--survey", "sdss", "--source", "hsc"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "'sdss'" in capsys.readouterr().err


def test_objects_of_one_name_do_not_overwrite_each_other(files, tmp_path, capsys):
    other = tmp_path / "second"
    other.mkdir()
    copies = []
    for path in files:
        copies.append(str(other / Path(path).name))
        shutil.copy(path, copies[-1])
    words = ["translate", *files, *copies, "--survey", "legacy", "--source", "hsc"]
    words += ["--steps", "1", "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("translated_*.fits"))) == 8


def test_headers_go_before_band(files, tmp_path):
    output = tmp_path / "latents.ecsv"
    words = ["transform", *files, "--survey", "hsc", "--band", "r"]
    assert main([*words, "--output", str(output)]) == 0
    assert len(QTable.read(output)) == 1


def test_unit_and_image_of_an_extension(tmp_path):
    name = sample_names(survey="hsc")[0]
    image = load_sample(name)["r"]
    header = image.wcs.to_header() if image.wcs else fits.Header()
    header["BAND"] = "r"
    rows = []
    for unit, factor in (
        ("adu", 1.0),
        ("nJy", get_survey("hsc").nanojansky),
        ("", 1.0),
    ):
        part = fits.ImageHDU(image.data * factor, header)
        if unit:
            part.header["BUNIT"] = unit
        path = tmp_path / f"galaxy{unit}.fits"
        fits.HDUList([fits.PrimaryHDU(), part]).writeto(path)
        output = tmp_path / f"latents{unit}.ecsv"
        words = ["transform", str(path), "--survey", "hsc", "--output", str(output)]
        assert main(words) == 0
        rows.append(QTable.read(output)[0])
    np.testing.assert_allclose(rows[0]["physics"], rows[1]["physics"], atol=1e-4)
    assert not rows[0]["flags"] & FLAGS.ASSUMED_UNIT
    assert rows[2]["flags"] & FLAGS.ASSUMED_UNIT


def test_table_format_is_checked_before_the_work(files, tmp_path, capsys):
    words = ["transform", *files, "--survey", "hsc", "--output", str(tmp_path / "x")]
    assert main(words) == 2
    assert ".ecsv" in capsys.readouterr().err


def test_position_on_the_image_and_on_the_sky(tmp_path):
    name = sample_names(survey="legacy")[0]
    paths = []
    for band, image in load_sample(name).items():
        paths.append(str(tmp_path / f"{name}_{band}.fits"))
        image.write(paths[-1])
    sky = image.wcs.pixel_to_world(20.0, 22.0)
    places = (
        ["--position", "20", "22"],
        ["--sky", str(sky.ra.deg), str(sky.dec.deg)],
        [],
    )
    rows = []
    for number, place in enumerate(places):
        output = str(tmp_path / f"{number}.ecsv")
        words = ["transform", *paths, "--survey", "legacy", *place]
        assert main([*words, "--output", output]) == 0
        rows.append(QTable.read(output)["physics"][0])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)
    assert np.abs(rows[0] - rows[2]).max() > 1e-2


def test_samples_are_kept(files, tmp_path, capsys):
    words = ["translate", *files, "--survey", "legacy", "--source", "hsc"]
    words += ["--steps", "1", "--samples", "3", "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    whole = SurveyCutout.read(tmp_path / "out" / f"translated_{sample_names()[0]}.fits")
    assert whole.samples.shape == (3, 4, 32, 32)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert "astro_disentangle" in capsys.readouterr().out
