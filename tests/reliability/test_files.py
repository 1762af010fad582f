# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs in files: headers that lie about the sky, and odd files and paths.

The files are those of a packaged galaxy with cards changed in their raw bytes,
as no FITS library would write them.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable
from reliability.cases import check_rows, latents, peak_memory, spread_of, within

from astro_disentangle import (
    FLAGS,
    CutoutError,
    DisentangleError,
    PairedCutouts,
    SurveyCutout,
    samples,
    simulate_pairs,
)
from astro_disentangle.cli import main
from astro_disentangle.samples import load_sample

#: astropy warns of much that is odd in a header; the row is what is asked here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:astropy.wcs"),
]
SAMPLE = Path(samples.__file__).parent / "legacy" / "legacy_round_r.fits"


def card(name, value):
    return f"{name:<8}= {value:>20}".ljust(80).encode("latin-1")


def with_cards(cards):
    """Bytes of the packaged file with some cards replaced, or removed for None."""
    raw = SAMPLE.read_bytes()
    for name, value in cards.items():
        start = raw.index(f"{name:<8}= ".encode())
        new = b" " * 80 if value is None else card(name, value)
        raw = raw[:start] + new + raw[start + 80 :]
    return raw


def command(paths, folder, *words):
    """Status of the command, its table or None."""
    output = folder / "latents.ecsv"
    output.unlink(missing_ok=True)
    words = ["--survey", "legacy", *words, "--output", str(output)]
    status = main(["transform", *map(str, paths), *words])
    return status, QTable.read(output) if output.exists() else None


@pytest.fixture(scope="module")
def expected(model):
    """Latents of the packaged file as it is."""
    return model.transform({"r": CCDData.read(SAMPLE)}, survey="legacy")


def same(table, expected):
    return np.abs(latents(table) - latents(expected)).max() <= 1e-5 * spread_of(
        expected
    )


# --- R13: a degenerate WCS is refused or flagged -----------------------------------

#: In the packaged file PC is in degrees and CDELT is 1.
DEGENERATE = {
    "zero": {"PC1_1": "0.0", "PC2_2": "0.0"},
    "zero along x": {"PC1_1": "0.0"},
    "singular": {"PC1_1": "0.0", "PC2_2": "0.0", "LONPOLE": None, "LATPOLE": None},
    "missing": {"PC1_1": None, "PC2_2": None},
    "zero step": {"CDELT1": "0.0", "CDELT2": "0.0"},
    "stretched": {"CDELT1": "20.0"},
    "beyond the pole": {"CRVAL2": "95.0"},
    "position is no number": {"CRVAL1": "NaN"},
    "position is text": {"CRVAL1": "'here'"},
    "pixel is no number": {"CRPIX1": "NaN"},
    "no projection": {"CTYPE1": "'RA---XXX'"},
}


def degenerate(case):
    raw = with_cards(DEGENERATE[case])
    if case == "singular":
        start = raw.index(b"LICENSE = ")
        raw = raw[:start] + card("PC1_2", "7.3E-05") + raw[start + 80 :]
        start = raw.index(b"SOURCE  = ")
        raw = raw[:start] + card("PC2_1", "0.0") + raw[start + 80 :]
    return raw


def is_refused_or_flagged(error, table):
    if error is not None:
        assert "wcs" in error.lower() or "CRVAL" in error or "CRPIX" in error, error
        return True
    check_rows(table)
    # No sky position and no scale may come from such a header.
    return bool(table["flags"][0] & FLAGS.NO_WCS) and "coord" not in table.colnames


@pytest.mark.parametrize("case", DEGENERATE)
def test_r13_degenerate_wcs_on_the_command_line(case, tmp_path, capsys):
    path = tmp_path / "galaxy_r.fits"
    path.write_bytes(degenerate(case))
    with within(5):
        status, table = command([path], tmp_path)
    error = capsys.readouterr().err
    assert (status == 2) == (table is None)
    assert is_refused_or_flagged(error if status else None, table)


#: astropy's reader takes these cards as zero and out of the header.
UNSEEN = ("position is no number", "position is text", "pixel is no number")


@pytest.mark.parametrize("case", [name for name in DEGENERATE if name not in UNSEEN])
def test_r13_degenerate_wcs_of_ccddata(model, case, tmp_path):
    path = tmp_path / "galaxy_r.fits"
    path.write_bytes(degenerate(case))
    image = CCDData.read(path)
    error, table = None, None
    try:
        table = model.transform({"r": image}, survey="legacy")
    except CutoutError as caught:
        error = str(caught)
    assert is_refused_or_flagged(error, table)


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": "0.0"},
        {"PC1_1": "0.0", "PC2_2": "0.0"},
        {"CRVAL1": "NaN"},
        {"CRVAL1": "'x'"},
        {"CRPIX2": "NaN"},
    ],
    ids=str,
)
def test_r13_degenerate_wcs_of_a_cutout_of_ones_own(model, cards, tmp_path):
    """The same in a file that this package wrote, then damaged."""
    images = load_sample("legacy_round")
    whole = SurveyCutout(
        np.stack([image.data for image in images.values()]),
        survey="legacy",
        bands=list(images),
        wcs=images["r"].wcs,
    )
    path = tmp_path / "whole.fits"
    whole.write(path)
    raw = path.read_bytes()
    for name, value in cards.items():
        # One for each of the three bands.
        parts = raw.split(f"{name:<8}= ".encode())
        assert len(parts) == 4
        raw = parts[0] + b"".join(card(name, value) + part[70:] for part in parts[1:])
    path.write_bytes(raw)
    error, table = None, None
    try:
        table = model.transform(SurveyCutout.read(path))
    except CutoutError as caught:
        error = str(caught)
    assert is_refused_or_flagged(error, table)


# --- R15: odd files and paths ------------------------------------------------------


def write_header(path, cards):
    """The packaged image with a header of its own."""
    with fits.open(SAMPLE) as hdus:
        for key, value in cards:
            hdus[0].header[key] = value
        hdus.writeto(path)


def long_header(path, count=100_000):
    """A header of 100,000 cards before the image, 8 MB."""
    raw = SAMPLE.read_bytes()
    end = raw.index(b"END" + b" " * 77)
    more = b"".join(f"HISTORY step {n}".encode().ljust(80) for n in range(count))
    header = raw[:end] + more + raw[end : end + 80]
    data = raw[(end // 2880 + 1) * 2880 :]
    path.write_bytes(header + b" " * (-len(header) % 2880) + data)


def odd_file(case, folder):
    """A file or what stands for one, and whether its galaxy can be read."""
    path = folder / "galaxy_r.fits"
    if case == "non-ASCII path":
        folder = folder / "Galaxien für Åsa ☃"
        folder.mkdir()
        path = folder / "γαλαξίας_r.fits"
        path.write_bytes(SAMPLE.read_bytes())
    elif case == "non-ASCII header":
        path.write_bytes(with_cards({"OBJECT": "'Spirale n\xb0 1 d\xe9j\xe0'"}))
    elif case == "path with spaces":
        path = folder / "my best galaxy r.fits"
        path.write_bytes(SAMPLE.read_bytes())
    elif case == "HIERARCH":
        cards = [(f"HIERARCH ESO DET CHIP{n} NAME", "x" * 30) for n in range(40)]
        write_header(path, [*cards, ("HIERARCH lower case key with words", 3.5)])
    elif case == "symlink":
        target = folder / "target.fits"
        target.write_bytes(SAMPLE.read_bytes())
        (folder / "link.fits").symlink_to(target)
        path.symlink_to(folder / "link.fits")
    elif case == "100,000 cards":
        long_header(path)
    elif case == "FIFO":
        os.mkfifo(path)
    elif case == "directory":
        path.mkdir()
    elif case == "symlink to itself":
        path.symlink_to(path)
    elif case == "name of 5000 letters":
        path = folder / ("a" * 5000)
    elif case == "/dev/zero":
        path = Path("/dev/zero")
    return path


READABLE = (
    "non-ASCII path",
    "non-ASCII header",
    "path with spaces",
    "HIERARCH",
    "symlink",
)
REFUSED = (
    "100,000 cards",
    "FIFO",
    "directory",
    "/dev/zero",
    "symlink to itself",
    "name of 5000 letters",
)


@pytest.mark.parametrize("case", READABLE)
def test_r15_odd_files_that_are_read(case, expected, tmp_path, capsys):
    path = odd_file(case, tmp_path)
    with within(5):
        status, table = command([path], tmp_path)
    assert status == 0, capsys.readouterr().err
    assert same(table, expected)
    assert table["flags"][0] == expected["flags"][0]
    words = ["translate", str(path), "--survey", "hsc", "--source", "legacy"]
    words += ["--steps", "1", "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("translated_*.fits"))) == 5


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("case", REFUSED)
def test_r15_odd_files_that_are_refused(case, tmp_path, capsys):
    path = odd_file(case, tmp_path)
    before, handles = peak_memory(), open_files()
    with within(2), pytest.raises(CutoutError) as caught:
        SurveyCutout.read(path)
    assert str(path)[:100] in str(caught.value)
    with within(2):
        status, table = command([path], tmp_path)
    assert status == 2 and table is None
    printed = capsys.readouterr().err
    assert str(path)[:100] in printed and printed.count("\n") == 1
    assert peak_memory() - before < 200
    assert open_files() == handles


@pytest.mark.parametrize("case", ["FIFO", "100,000 cards", "directory"])
def test_r15_odd_files_among_pairs(case, tmp_path):
    for survey in ("hsc", "legacy"):
        (tmp_path / survey).mkdir()
        odd_file(case, tmp_path / survey)
    with within(2), pytest.raises(CutoutError, match="galaxy_r.fits"):
        PairedCutouts.from_folder(tmp_path)


def test_r15_own_files_at_odd_paths(model, tmp_path):
    """Written and read back, with names in and around the file that are not ASCII."""
    folder = tmp_path / "Bilder für Åsa"
    folder.mkdir()
    for number, own in enumerate(simulate_pairs(2, random_state=1).cutouts("hsc")):
        own.meta["OBJECT"] = "Spirale n° 1"
        own.meta["a key of many words"] = "λ"
        path = folder / f"λ {number}.fits"
        own.write(path)
        with within(2):
            back = SurveyCutout.read(path)
        a, b = (model.transform(view) for view in (own, back))
        assert np.array_equal(latents(a), latents(b))
        assert a["flags"][0] == b["flags"][0]
    assert sorted(path.name for path in folder.iterdir()) == ["λ 0.fits", "λ 1.fits"]


ODD_CARDS = {
    "unit is a number": {"BUNIT": "3"},
    "unit is unknown": {"BUNIT": "'bananas'"},
    "scale is text": {"PIXSCALE": "'wide'"},
    "zero point is text": {"MAGZERO": "'deep'"},
    "band is a number": {"BAND": "3"},
    "survey is a number": {"SURVEY": "3"},
    "name is a truth value": {"OBJECT": "T"},
    "name is empty": {"OBJECT": "''"},
    "type of axis is a number": {"CTYPE1": "3"},
    "card without end quote": {"LICENSE": "'MIT"},
    "zero byte": {"LICENSE": "'M\0T'"},
}


@pytest.mark.parametrize("case", ODD_CARDS)
def test_r15_odd_cards_are_read_or_refused(model, case, tmp_path, capsys):
    """One line and status 2, or a row; never a traceback."""
    path = tmp_path / "galaxy_r.fits"
    path.write_bytes(with_cards(ODD_CARDS[case]))
    with within(5):
        status, table = command([path], tmp_path)
    if status:
        assert status == 2
        assert capsys.readouterr().err.startswith("astro-disentangle: ")
    else:
        check_rows(table)
    try:
        image = CCDData.read(path)
    except (ValueError, AttributeError):
        # astropy's own reader refuses the file.
        assert status == 2
        return
    try:
        check_rows(model.transform({"r": image}, survey="legacy"))
    except DisentangleError:
        assert status == 2


def test_r15_headers_of_many_cards_in_memory(model, expected):
    """Nothing in the reading takes long over a header."""
    image = CCDData.read(SAMPLE)
    cards = [*image.meta.items(), *((f"KEY{n}", n) for n in range(20_000))]
    image.meta = fits.Header(cards)
    with within(2):
        table = model.transform({"r": image}, survey="legacy")
    assert np.array_equal(latents(table), latents(expected))
