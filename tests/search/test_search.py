# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Similar galaxies in catalogues of latents, by a look at all and by an index."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from embedding.catalogues import rows_of_pairs, write_catalog
from search.stored import BAD, write_latents

from astro_disentangle import CutoutError, Disentangler, embed_catalog, simulate_pairs
from astro_disentangle.cli import main
from astro_disentangle.search import LatentCatalog, catalog, index

pytest.importorskip("lsdb")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
ROWS = 4000


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(48, random_state=8)


@pytest.fixture(scope="module")
def embedded(pairs, tmp_path_factory):
    """HSC galaxies, and the catalogue of their latents."""
    folder = tmp_path_factory.mktemp("embedded")
    rows = rows_of_pairs(pairs, "hsc")
    stored = write_catalog(rows, folder / "galaxies", partition_rows=12)
    embed_catalog("default", stored, folder / "latents")
    return rows, folder / "latents"


@pytest.fixture(scope="module")
def many(pairs, model, tmp_path_factory):
    """Latents around those of the galaxies, some of which cannot be used."""
    made = model.transform(pairs.cutouts("hsc"))
    generator = np.random.default_rng(0)
    latents = made["physics"][generator.integers(len(made), size=ROWS)]
    spread = 0.5 * latents.std(0)
    latents += (spread * generator.normal(size=latents.shape)).astype(np.float32)
    folder = tmp_path_factory.mktemp("many")
    return write_latents(folder / "latents", latents, made.meta), latents


@pytest.fixture
def folder(many, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(many[0], tmp_path / "latents"))


@pytest.fixture(scope="module")
def queries(pairs, model):
    """The same galaxies as the other survey saw them."""
    return model.transform(pairs.cutouts("legacy"))


def _same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_folder_is_searched_as_a_table_is(embedded, model, queries):
    rows, folder = embedded
    table = model.transform(rows)
    expected = model.similar(queries, table, k=5)
    found = model.similar(queries, folder, k=5)
    for name in ("query", "rank", "object_id", "survey", "flags"):
        assert list(found[name]) == list(expected[name]), name
    np.testing.assert_allclose(found["distance"], expected["distance"], atol=1e-6)
    assert (found["coord"].separation(expected["coord"]) < 1 * u.mas).all()
    here = {
        row["object_id"][2:-1]: SkyCoord(row["ra"], row["dec"], unit="deg")
        for row in rows
    }
    for match in found[:5]:
        assert match["coord"].separation(here[match["object_id"]]) < 1 * u.mas
    # Rows are those of the catalogue as LSDB has it.
    import lsdb

    names = lsdb.open_catalog(folder).compute(progress_bar=False)["object_id"]
    assert list(names.iloc[found["row"]]) == list(found["object_id"])
    assert not (folder / ".search").exists()


def test_a_folder_may_be_the_query(embedded, model, queries):
    _, folder = embedded
    matches = model.similar(folder, queries, k=1)
    assert len(matches) == len(queries)
    own = matches["query"] == matches["object_id"]
    assert set(matches["survey"]) == {"legacy"}
    assert np.mean(own) > 0.5


def test_an_index_finds_what_a_look_at_all_finds(folder, queries):
    pytest.importorskip("faiss")
    stored = LatentCatalog(folder)
    exact = stored.nearest(queries["physics"], 10, "exact")
    found = stored.nearest(queries["physics"], 10, "approximate")
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(exact[0], found[0], strict=True)]
    assert np.mean(hits) > 0.97
    assert np.mean(exact[0][:, 0] == found[0][:, 0]) > 0.97
    for row in range(len(queries)):
        known = dict(zip(*(part[row] for part in exact), strict=True))
        for number, distance in zip(*(part[row] for part in found), strict=True):
            if number in known:
                assert distance == pytest.approx(known[number], abs=2e-6)


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_rows_that_cannot_be_used_are_never_found(method, folder, many, model, queries):
    if method == "approximate":
        pytest.importorskip("faiss")
    bad = QTable(queries[:2], copy=True)
    # A query that is the latent of such a row, and one that cannot be used itself.
    bad["physics"][0] = many[1][BAD]
    bad["physics"][1] = np.nan
    matches = model.similar(bad, folder, k=30, method=method)
    assert len(matches) == 30
    numbers = [int(name.split("-")[1]) for name in matches["object_id"]]
    assert not [number for number in numbers if number % BAD == 0]
    assert (matches["flags"] == 0).all()


def test_many_rows_have_an_index(folder, model, queries, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(catalog, "_MANY", ROWS + 1)
    few = model.similar(queries, folder, k=3)
    assert not (folder / ".search").exists()
    monkeypatch.setattr(catalog, "_MANY", ROWS)
    matches = model.similar(queries, folder, k=3)
    assert (folder / ".search" / "index.json").is_file()
    assert np.mean(few["object_id"] == matches["object_id"]) > 0.95


def test_an_index_is_kept_and_always_the_same(folder, many, queries, tmp_path):
    pytest.importorskip("faiss")
    first = LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    files = {path: path.stat().st_mtime_ns for path in (folder / ".search").iterdir()}
    _same(first, LatentCatalog(folder).nearest(queries["physics"], 5, "approximate"))
    assert files == {path: path.stat().st_mtime_ns for path in files}
    other = Path(shutil.copytree(many[0], tmp_path / "other"))
    _same(first, LatentCatalog(other).nearest(queries["physics"], 5, "approximate"))
    for path in files:
        assert path.read_bytes() == (other / ".search" / path.name).read_bytes()


def test_an_index_of_other_rows_is_built_anew(folder, queries, many):
    pytest.importorskip("faiss")
    LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    files = sorted(folder.glob("dataset/**/Npix=*.parquet"))
    files[-1].unlink()
    stored = LatentCatalog(folder)
    with pytest.warns(UserWarning, match="built anew: it is of another catalog and ro"):
        rows, _ = stored.nearest(queries["physics"], 5, "approximate")
    assert len(stored) < ROWS and rows.max() < len(stored)
    _same(
        [rows], [LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")[0]]
    )


@pytest.mark.parametrize("name", ["cells.faiss", "latents.faiss", "index.json"])
@pytest.mark.parametrize("how", ["changed", "short", "gone", "other"])
def test_a_damaged_index_is_not_read(name, how, folder, queries):
    pytest.importorskip("faiss")
    expected = LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    file = folder / ".search" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if how == "gone":
        file.unlink()
    else:
        wrong = {"changed": content, "short": content[:40], "other": b"[1, 2]"}
        file.write_bytes(wrong[how])
    with pytest.warns(UserWarning, match="must be built anew"):
        found = LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    _same(found, expected)


def test_a_build_that_is_stopped_leaves_nothing(folder, queries, monkeypatch):
    pytest.importorskip("faiss")
    fingerprint = index._fingerprint

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "_fingerprint", stop)
    with pytest.raises(KeyboardInterrupt):
        LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    assert not list(folder.glob(".search*"))
    monkeypatch.setattr(index, "_fingerprint", fingerprint)
    LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")


def test_a_build_that_is_killed_is_done_again(folder, queries):
    pytest.importorskip("faiss")
    code = f"""
import time, numpy as np
from astro_disentangle.search import LatentCatalog, index
index._fingerprint = lambda path: time.sleep(60)
LatentCatalog({str(folder)!r}).nearest(np.ones((1, 128), np.float32), 1, "approximate")
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        wait = time.monotonic() + 60
        while not list(folder.glob(".search.partial/latents.faiss")):
            assert process.poll() is None and time.monotonic() < wait
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (folder / ".search").exists()
    LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    assert [path.name for path in folder.glob(".search*")] == [".search"]


def test_a_folder_that_cannot_be_written(folder, queries):
    pytest.importorskip("faiss")
    # A file where the folder would be built; nobody is denied anything as root.
    (folder / ".search.partial").write_text("mine")
    with pytest.raises(
        CutoutError, match=r"saved beside the latents.*method=\"exact\""
    ):
        LatentCatalog(folder).nearest(queries["physics"], 5, "approximate")
    assert (folder / ".search.partial").read_text() == "mine"
    LatentCatalog(folder).nearest(queries["physics"], 5, "exact")


def test_the_package_is_named_where_it_lacks(folder):
    code = f"""
import sys
sys.modules["faiss"] = None
import numpy as np
from astro_disentangle.search import LatentCatalog
stored, query = LatentCatalog({str(folder)!r}), np.ones((1, 128), np.float32)
print(stored.nearest(query, 1, "exact")[0].shape)
stored.nearest(query, 1, "approximate")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.stdout.split() == ["(1,", "1)"]
    assert 'pip install "astro_disentangle[search]"' in done.stderr


def test_latents_of_another_model_are_refused(folder, pairs):
    tiny = {"physics_size": 128, "physics_widths": (8, 8, 8), "decoder_width": 16}
    tiny |= {"instrument_widths": (8, 8, 8), "condition": 16}
    settings = {"n_steps": 1, "batch_size": 8, "progress": False}
    other = Disentangler(network=tiny, **settings).fit(pairs[:8])
    with pytest.raises(CutoutError, match="this model"):
        other.similar(pairs.cutouts("legacy")[:2], folder)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "fast"}, ValueError, "'method' must be one of"),
        ({"k": 0}, ValueError, "'k' must be a positive integer"),
    ],
)
def test_errors(options, error, text, folder, model, queries):
    with pytest.raises(error, match=text):
        model.similar(queries, folder, **options)


def test_folders_that_are_none(folder, model, queries, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(CutoutError, match="folder of a catalogue of latents"):
            model.similar(queries, path)
    with pytest.raises(ValueError, match="a table is not searched by 'approximate'"):
        model.similar(queries, queries, method="approximate")
    file = min(folder.glob("dataset/**/Npix=*.parquet"))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CutoutError, match="partitions that can be read"):
        model.similar(queries, folder)


def test_the_command(folder, queries, tmp_path, capsys):
    pytest.importorskip("faiss")
    queries.write(tmp_path / "queries.ecsv")
    words = ["similar", str(tmp_path / "queries.ecsv"), "--catalog", str(folder)]
    words += ["-k", "3", "--output", str(tmp_path / "matches.fits")]
    assert main([*words, "--method", "approximate"]) == 0
    matches = QTable.read(tmp_path / "matches.fits")
    assert len(matches) == 3 * len(queries)
    assert {"query", "rank", "distance", "row", "coord"} <= set(matches.colnames)
    assert (folder / ".search").is_dir()
    assert (
        f"{len(matches)} matches of {len(queries)} galaxies" in capsys.readouterr().out
    )
    assert main([*words[:3], str(tmp_path), *words[4:]]) == 2
