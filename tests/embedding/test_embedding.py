# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Latents of catalogues, on real HATS catalogues and real Dask workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from astro_disentangle import (
    FLAGS,
    CutoutError,
    Disentangler,
    SurveyMismatchError,
    WeightsError,
    embed_catalog,
    simulate_pairs,
)
from astro_disentangle.cli import main
from astro_disentangle.embedding.output import Output
from astro_disentangle.embedding.partition import Job, latents_of_rows
from astro_disentangle.embedding.rows import rows_of_batch
from astro_disentangle.embedding.source import open_source
from astro_disentangle.embedding.table import table_of

lsdb = pytest.importorskip("lsdb", exc_type=ImportError)
import cloudpickle  # noqa: E402
import distributed  # noqa: E402
import hats  # noqa: E402
import nested_pandas as npd  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from embedding import catalogues  # noqa: E402
from hats.io.validation import is_valid_catalog  # noqa: E402
from nested_pandas.tensors import TensorExtensionArray  # noqa: E402
from pyarrow import parquet  # noqa: E402

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings(
    # Clusters leave sockets and threads to the garbage collector.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:Right catalog does not have a margin:RuntimeWarning",
)


@pytest.fixture(scope="module")
def rows():
    """24 galaxies."""
    return catalogues.rows_of_pairs(simulate_pairs(24, random_state=1), "hsc")


@pytest.fixture(scope="module")
def stored(rows, tmp_path_factory):
    """The catalogue of these galaxies; nobody changes it."""
    return catalogues.write_catalog(rows, tmp_path_factory.mktemp("hats") / "galaxies")


@pytest.fixture
def catalog(stored, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(stored, tmp_path / "galaxies"))


@pytest.fixture(scope="module")
def expected(rows):
    """What transform makes of them."""
    return Disentangler.load().transform(rows)


def read(path):
    """All rows of a catalogue of latents."""
    return lsdb.open_catalog(path).compute(progress_bar=False)


def vectors(frame, name):
    return frame[name].array.to_stack()


def check_same(frame, expected, *, without=()):
    """Each galaxy is there once, with the latents that transform gives it."""
    every = list(expected["object_id"])
    kept = [row for row, name in enumerate(every) if name not in without]
    order = {name: row for row, name in enumerate(frame["object_id"])}
    assert len(order) == len(frame), "a row is there twice"
    names = [every[row] for row in kept]
    assert sorted(order) == sorted(names), "rows are lost"
    places = [order[name] for name in names]
    for name in ("physics", "instrument"):
        got = vectors(frame, name)[places]
        np.testing.assert_allclose(got, expected[name][kept], atol=1e-5, rtol=0)
    assert frame["flags"].to_numpy()[places].tolist() == list(expected["flags"][kept])


def names_in(file):
    """Names in a file of a partition, without the traps."""
    column = parquet.read_table(file, columns=["object_id"]).column("object_id")
    return [str(name)[2:-1] for name in column.to_pylist()]


def largest(path):
    """Name and file of the partition with the most rows."""
    files = catalogues.files_of(path)
    return max(files.items(), key=lambda item: parquet.read_metadata(item[1]).num_rows)


def test_threads_give_what_transform_gives(stored, expected, tmp_path):
    done = embed_catalog(
        "default", stored, tmp_path / "out", columns=["magnitude"], batch_size=4
    )
    partitions = len(catalogues.files_of(stored))
    assert partitions > 4 and done.n_partitions == done.n_new == partitions
    assert done.n_rows == 24 and done.broken == {} and done.n_unreadable == 0
    frame = read(done.path)
    check_same(frame, expected)
    assert set(frame["survey"]) == {"hsc"} and frame["flags"].dtype.kind == "i"
    assert " ".join(frame.columns) == (
        "ra dec object_id magnitude survey flags physics instrument"
    )
    whole = lsdb.open_catalog(stored).compute(progress_bar=False)
    assert (frame.index == whole.index).all()
    names = [str(name)[2:-1] for name in whole["object_id"]]
    assert list(frame["object_id"]) == names
    for name in ("ra", "dec", "magnitude"):
        assert (frame[name].to_numpy() == whole[name].to_numpy()).all()


def test_precision_is_that_of_the_model(stored, rows, tmp_path):
    half = Disentangler.load(dtype="bfloat16")
    done = embed_catalog(half, stored, tmp_path / "out", batch_size=24)
    exact = embed_catalog(half, stored, tmp_path / "exact", dtype="float32")
    one, other = (read(each.path).sort_values("object_id") for each in (done, exact))
    assert list(one["object_id"]) == list(other["object_id"]) and len(one) == 24
    error = vectors(one, "physics") - vectors(other, "physics")
    assert 0 < np.sqrt(np.mean(error**2)) < 1e-2
    with pytest.raises(SurveyMismatchError, match="dtype = 'bfloat16'"):
        embed_catalog("default", stored, tmp_path / "out")


def test_the_catalogue_says_where_it_is_from(stored, expected, tmp_path):
    done = embed_catalog("default", stored, tmp_path / "out", survey="hsc", name="mine")
    assert is_valid_catalog(done.path, strict=True)
    properties = hats.read_hats(done.path).catalog_info.model_dump()
    assert properties["catalog_name"] == "mine" and properties["total_rows"] == 24
    file = next(iter(catalogues.files_of(done.path).values()))
    stamped = parquet.read_metadata(file).metadata
    for name, key in (
        ("sha256", "SHA256"),
        ("model", "MODEL"),
        ("version", "MODELVER"),
    ):
        entry = f"astro_disentangle_{name}"
        assert properties[entry] == expected.meta[key]
        assert stamped[entry.encode()].decode() == expected.meta[key]
    assert properties["astro_disentangle_survey"] == "hsc"
    kind = parquet.read_schema(file).field("physics").type
    assert kind == pa.fixed_shape_tensor(pa.float32(), [128])
    # The columns survive what LSDB does with a catalogue.
    latents = lsdb.open_catalog(done.path)
    near = latents.cone_search(20, 0, 20 * 3600)
    near.write_catalog(tmp_path / "near", progress_bar=False)
    assert vectors(read(tmp_path / "near"), "physics").shape[1] == 128
    both = latents.crossmatch(
        lsdb.open_catalog(stored, columns=["ra", "dec", "magnitude"]),
        radius_arcsec=1,
        suffixes=("", "_input"),
        suffix_method="overlapping_columns",
        require_right_margin=False,
    ).compute(progress_bar=False)
    assert len(both) == 24 and vectors(both, "instrument").shape == (24, 24)


def test_an_extension_of_the_input(stored, expected, tmp_path):
    embed_catalog("default", stored, tmp_path / "out", extension="latents")
    joined = lsdb.open_catalog(stored).load_extension(
        tmp_path / "out" / "latents.properties"
    )
    frame = joined.compute(progress_bar=False)
    assert {"image", "magnitude", "physics", "flags"} <= set(frame.columns)
    frame["object_id"] = [str(name)[2:-1] for name in frame["object_id"]]
    check_same(frame, expected)


def count_loads():
    """Run on a worker: count how often weights are loaded there."""
    original = Disentangler.load.__func__

    def load(cls, *args, **options):
        Disentangler.loads_seen = getattr(Disentangler, "loads_seen", 0) + 1
        return original(cls, *args, **options)

    Disentangler.load = classmethod(load)


@pytest.fixture
def by_value():
    """Functions of this module go to workers, which cannot import it."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def test_two_processes(stored, expected, tmp_path, by_value):
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(count_loads)
        model = Disentangler.load()
        done = embed_catalog(model, stored, tmp_path / "out", client, progress=True)
        loads = client.run(lambda: getattr(Disentangler, "loads_seen", 0))
        with client.as_current():
            again = embed_catalog("default", stored, tmp_path / "again")
        unseen = client.run(lambda: getattr(Disentangler, "loads_seen", 0))
        assert client.status == "running"
    assert done.n_new == again.n_new > 4
    assert max(loads.values()) == 1 and sum(loads.values()) >= 1
    assert sum(unseen.values()) > sum(loads.values())
    check_same(read(done.path), expected)
    check_same(read(again.path), expected)
    assert model.sha256_ == expected.meta["SHA256"]
    assert not (done.path / ".embedding" / "weights.safetensors").exists()


def test_a_process_loads_the_model_once(stored, tmp_path):
    """Dask gives a worker as many copies of the job as it likes."""
    digest = Disentangler.load().sha256_
    settings = {"weights": "default", "digest": digest, "survey": "hsc"}
    job = Job(open_source(stored), Output(str(tmp_path), {}), **settings)
    copies = [cloudpickle.loads(cloudpickle.dumps(job)) for _ in range(3)]
    assert len({id(copy) for copy in copies}) == 3
    assert len({id(copy.model()) for copy in copies}) == 1
    other = Job(job.source, job.output, **settings, dtype="bfloat16")
    assert other.model().dtype == "bfloat16" and job.model().dtype == "float32"
    with pytest.raises(WeightsError, match="Install one version everywhere"):
        Job(job.source, job.output, **{**settings, "digest": "0" * 64}).model()


def test_only_needed_columns_are_read(catalog, expected, tmp_path):
    """Columns that nobody asked for may be unreadable."""
    for file in catalogues.files_of(catalog).values():
        chunk = parquet.read_metadata(file).row_group(0)
        for place in range(chunk.num_columns):
            column = chunk.column(place)
            if column.path_in_schema in ("unused", "magnitude"):
                start = column.dictionary_page_offset or column.data_page_offset
                content = bytearray(file.read_bytes())
                end = start + column.total_compressed_size
                content[start:end] = b"\xff" * (end - start)
                file.write_bytes(content)
    with pytest.raises(OSError, match="column|deserialize|[Pp]age"):
        parquet.read_table(file)
    done = embed_catalog("default", catalog, tmp_path / "out")
    assert done.broken == {}
    check_same(read(done.path), expected)


def test_nothing_of_the_images_stays(stored, tmp_path):
    """Of a batch only the columns of the output are kept, and batches are small."""
    source = open_source(stored, columns=["magnitude"])
    plan = {"survey": "hsc", "extension": None}
    model = Disentangler.load()
    for pixel in source.pixels():
        for batch in source.batches(pixel, 2):
            assert len(batch) <= 2
            rows = rows_of_batch(batch, source.columns)
            latents = latents_of_rows(model, rows, "hsc")
            table = table_of(batch, latents, source.columns, plan)
            assert table.get_total_buffer_size() < 0.01 * batch.get_total_buffer_size()


BROKEN_ROWS = {
    "no image": lambda image: None,
    "no flux": lambda image: image | {"flux": None},
    "fields of other lengths": lambda image: image | {"psf_fwhm": [0.8]},
    "a ragged plane": lambda image: image | {"flux": [[[1.0]], *image["flux"][1:]]},
    "no bands": lambda image: {name: [] for name in image},
    "another survey": lambda image: image | {"band": [f"x-{n}" for n in "grizy"]},
}


@pytest.mark.parametrize("kind", BROKEN_ROWS)
def test_a_broken_row_harms_no_other(kind, catalog, expected, tmp_path):
    _, file = largest(catalog)
    (name, *_) = names_in(file)
    catalogues.change_image(file, 0, BROKEN_ROWS[kind])
    with pytest.warns(UserWarning, match="1 rows must be images.*UNUSABLE") as warned:
        done = embed_catalog("default", catalog, tmp_path / "out", survey="hsc")
    assert len(warned) == 1
    assert (done.n_rows, done.n_unusable, done.n_unreadable) == (24, 1, 1)
    frame = read(done.path)
    bad = [str(own).strip("b'") == name for own in frame["object_id"]]
    assert sum(bad) == 1
    assert frame["flags"][bad].tolist() == [FLAGS.UNUSABLE]
    assert np.isnan(vectors(frame, "physics")[bad]).all()
    assert np.isnan(vectors(frame, "instrument")[bad]).all()
    finite = np.isfinite(vectors(frame, "physics")).all(1)
    assert (finite != (frame["flags"].to_numpy() & FLAGS.UNUSABLE > 0)).all()
    check_same(frame[~np.array(bad)], expected, without=[name])


def test_masked_rows_are_flagged(catalog, expected, tmp_path):
    """A row that can be read, and holds nothing good, is no trouble at all."""
    _, file = largest(catalog)
    bad = [[False] * 52] * 52
    catalogues.change_image(file, 0, lambda i: i | {"mask": [bad] * len(i["band"])})
    done = embed_catalog("default", catalog, tmp_path / "out")
    assert (done.n_unusable, done.n_unreadable) == (1, 0)


def test_a_broken_partition_harms_no_other(catalog, expected, tmp_path):
    name, file = largest(catalog)
    lost, content = names_in(file), file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=f"1 partitions must be mended.*{name}"):
        done = embed_catalog("default", catalog, tmp_path / "out")
    assert list(done.broken) == [name] and "Parquet" in done.broken[name]
    frame = read(done.path)
    check_same(frame, expected, without=lost)
    info = hats.read_hats(done.path).catalog_info.model_dump()
    assert info["astro_disentangle_broken"] == name
    # The next call tries it again, and nothing else.
    file.write_bytes(content)
    mended = embed_catalog("default", catalog, tmp_path / "out")
    assert (mended.n_new, mended.n_rows, mended.broken) == (1, 24, {})
    check_same(read(mended.path), expected)
    info = hats.read_hats(done.path).catalog_info.model_dump()
    assert "astro_disentangle_broken" not in info
    # A file that is not there at all.
    file.unlink()
    with pytest.warns(UserWarning, match=name):
        embed_catalog("default", catalog, tmp_path / "other")


def test_a_partition_of_another_survey_is_broken(stored, tmp_path):
    """Where no row can be read the argument is wrong, not the rows."""
    with pytest.warns(UserWarning, match="none of its .* rows can be read"):
        done = embed_catalog("default", stored, tmp_path / "out", survey="legacy")
    assert len(done.broken) == len(catalogues.files_of(stored)) and done.n_rows == 0


def test_an_empty_partition(catalog, expected, tmp_path):
    name, file = largest(catalog)
    lost = names_in(file)
    parquet.write_table(parquet.read_table(file).slice(0, 0), file)
    done = embed_catalog("default", catalog, tmp_path / "out")
    assert done.broken == {} and done.n_new == len(catalogues.files_of(catalog))
    check_same(read(done.path), expected, without=lost)
    assert name not in catalogues.files_of(done.path)
    assert embed_catalog("default", catalog, tmp_path / "out").n_new == 0


def test_what_lsdb_makes_of_a_catalogue(stored, expected, tmp_path):
    """A search leaves partitions empty, and is another catalogue than its like."""
    code = (
        "import sys, lsdb; from astro_disentangle.embedding.source import open_source; "
        "near = lsdb.open_catalog(sys.argv[1]).cone_search(20, 0, 12 * 3600); "
        "print(open_source(near).identity())"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, str(stored)]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    whole = lsdb.open_catalog(stored)
    near = whole.cone_search(20, 0, 12 * 3600)
    kept = near.compute(progress_bar=False)
    assert 2 < len(kept) < 24
    done = embed_catalog("default", near, tmp_path / "out", columns=["magnitude"])
    assert done.n_rows == len(kept)
    names = {str(name)[2:-1] for name in kept["object_id"]}
    frame = read(done.path)
    check_same(frame, expected, without=set(expected["object_id"]) - names)
    assert "unused" not in frame.columns
    plan = json.loads((done.path / ".embedding" / "plan.json").read_text())
    assert said.stdout.strip() == plan["catalog"]
    same = lsdb.open_catalog(stored).cone_search(20, 0, 12 * 3600)
    again = embed_catalog("default", same, tmp_path / "out", columns=["magnitude"])
    assert again.n_new == 0
    other = whole.cone_search(20, 0, 13 * 3600)
    with pytest.raises(SurveyMismatchError, match="catalog = .*Give another folder"):
        embed_catalog("default", other, tmp_path / "out", columns=["magnitude"])


def test_the_survey_chooses_the_image(rows, expected, tmp_path):
    """Rows of a pair set have two images; only one of them is read."""
    pairs = [row | {"hsc_image": row["image"]} for row in rows]
    for row in pairs:
        image = row.pop("image")
        row["legacysurvey_image"] = {name: [] for name in image}
    stored = catalogues.write_catalog(pairs, tmp_path / "pairs")
    for name, catalog in (("path", stored), ("lsdb", lsdb.open_catalog(stored))):
        done = embed_catalog("default", catalog, tmp_path / name, survey="hsc")
        check_same(read(done.path), expected)
    with pytest.raises(SurveyMismatchError, match="say by survey= which"):
        embed_catalog("default", stored, tmp_path / "none")


def test_columns_of_tensors(rows, tmp_path):
    """The fields of an image may be columns, and stacks of planes tensors."""
    whole = [row for row in rows if len(row["image"]["band"]) == 5]
    table = {name: [row[name] for row in whole] for name in ("ra", "dec", "object_id")}
    frame = npd.NestedFrame(table)
    for name in ("band", "psf_fwhm", "scale"):
        kind = pa.string() if name == "band" else pa.float32()
        values = pa.array([row["image"][name] for row in whole], pa.list_(kind))
        frame[name] = pd.Series(values, dtype=pd.ArrowDtype(values.type))
    for name, kind in (("flux", "f4"), ("ivar", "f4"), ("mask", "u1")):
        stack = np.array([row["image"][name] for row in whole], dtype=kind)
        frame[name] = TensorExtensionArray.from_stack(stack)
    catalog = lsdb.from_dataframe(
        frame, catalog_name="tensors", partition_rows=6, margin_threshold=None
    )
    catalog.write_catalog(tmp_path / "tensors", progress_bar=False)
    expected = Disentangler.load().transform(whole)
    for name, given in (("path", tmp_path / "tensors"), ("lsdb", catalog)):
        done = embed_catalog("default", given, tmp_path / name)
        check_same(read(done.path), expected)


SLOW = """
import sys, time
from astro_disentangle import Disentangler, embed_catalog
original = Disentangler.transform
def slow(*args, **options):
    time.sleep(0.3)
    return original(*args, **options)
Disentangler.transform = slow
embed_catalog("default", sys.argv[1], sys.argv[2])
"""
HALF = """
import os, signal, sys
from pyarrow import parquet
from astro_disentangle import embed_catalog
original = parquet.write_table
seen = []
def half(table, path, **options):
    original(table, path, **options)
    seen.append(path)
    if len(seen) == 3:
        content = open(path, "rb").read()
        open(path, "wb").write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
parquet.write_table = half
embed_catalog("default", sys.argv[1], sys.argv[2])
"""


def start(code, *words):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)])


@pytest.mark.parametrize("code", [SLOW, HALF], ids=["between", "half a file"])
def test_a_killed_run_goes_on(code, stored, expected, tmp_path):
    out = tmp_path / "out"
    process = start(code, stored, out)
    end = time.monotonic() + 60
    while not catalogues.files_of(out) and time.monotonic() < end:
        time.sleep(0.01)
    if code == SLOW:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    before = catalogues.files_of(out)
    kept = {name: file.stat().st_mtime_ns for name, file in before.items()}
    partitions = len(catalogues.files_of(stored))
    assert 0 < len(kept) < partitions
    assert not (out / "hats.properties").exists()
    done = embed_catalog("default", stored, out)
    assert done.n_new == partitions - len(kept)
    after = catalogues.files_of(out)
    assert {name: after[name].stat().st_mtime_ns for name in kept} == kept
    assert not list((out / ".embedding" / "partial").iterdir())
    check_same(read(out), expected)


def test_another_run_is_refused(stored, tmp_path):
    out = tmp_path / "out"
    model = Disentangler.load()
    assert embed_catalog(model, stored, out, survey="hsc").n_rows == 24
    before = catalogues.files_of(out)
    stamps = [file.stat().st_mtime_ns for file in before.values()]
    other = Disentangler.load()
    next(other.network_.physics.parameters()).data += 1.0
    other.sha256_ = ""
    for changes, text in (
        ({"model": other}, "model = "),
        ({"survey": None}, "survey = 'hsc'"),
        ({"columns": ["magnitude"]}, "columns = "),
        ({"extension": "latents"}, "extension = "),
        ({"donors": "neighbours"}, "donors = None"),
    ):
        settings = {"model": model, "survey": "hsc", **changes}
        with pytest.raises(SurveyMismatchError, match=f"{text}.*Give another folder"):
            embed_catalog(catalog=stored, path=out, **settings)
    assert stamps == [f.stat().st_mtime_ns for f in catalogues.files_of(out).values()]
    # The same model, given otherwise, is the same.
    assert embed_catalog("default", stored, out, survey="hsc").n_new == 0
    # A folder that was begun before there were donors goes on.
    plan = json.loads((out / ".embedding" / "plan.json").read_text())
    assert plan.pop("donors", 0) is None
    (out / ".embedding" / "plan.json").write_text(json.dumps(plan))
    largest(out)[1].unlink()
    assert embed_catalog("default", stored, out, survey="hsc").n_new == 1


def test_donors_are_neighbours(rows, tmp_path, capsys):
    shift = np.random.default_rng(0).uniform(-0.05, 0.05, (24, 2))
    near = [
        {**row, "ra": (359.99 + west) % 360, "dec": -3 + north}
        for row, (west, north) in zip(rows, shift, strict=True)
    ]
    # One is far from all others, and one cannot be read.
    near[5]["dec"] = 30.0
    wrong = [f"{name}x" for name in near[7]["image"]["band"]]
    near[7]["image"] = {**near[7]["image"], "band": wrong}
    folder = catalogues.write_catalog(near, tmp_path / "near", 100)
    good = [row for number, row in enumerate(near) if number != 7]
    expected = Disentangler.load().transform(good, donors="neighbours")
    assert expected["n_donors"].max() == 8 and expected["n_donors"][5] == 0
    words = ["embed", str(folder), "--donors", "neighbours", "--batch-size", "5"]
    words += ["--survey", "hsc", "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    frame = read(tmp_path / "out")
    unread = frame["object_id"] == str(near[7]["object_id"])
    assert unread.sum() == 1 and frame["n_donors"][unread].item() == 0
    assert np.isnan(vectors(frame[unread], "instrument")).all()
    frame = frame[~unread]
    check_same(frame, expected)
    count = dict(zip(frame["object_id"], frame["n_donors"], strict=True))
    assert [count[name] for name in expected["object_id"]] == list(expected["n_donors"])
    own = Disentangler.load().transform(good)
    assert np.abs(own["instrument"] - expected["instrument"])[0].max() > 0.05
    properties = (tmp_path / "out" / "hats.properties").read_text()
    assert "astro_disentangle_donors=neighbours" in properties
    assert main([w for w in words if w not in ("--donors", "neighbours")]) == 2
    assert "donors = 'neighbours'" in capsys.readouterr().err


def test_neighbours_are_of_one_survey(tmp_path):
    pairs = simulate_pairs(12, random_state=2)
    sides = [catalogues.rows_of_pairs(pairs, name) for name in pairs.surveys]
    shift = np.random.default_rng(0).uniform(-0.02, 0.02, (12, 2))
    for side in sides:
        for row, (east, north) in zip(side, shift, strict=True):
            row |= {"ra": 10 + east, "dec": north}
    folder = catalogues.write_catalog(
        [*sides[0][:6], *sides[1][6:]], tmp_path / "in", 100
    )
    done = embed_catalog("default", folder, tmp_path / "out", donors="neighbours")
    frame = read(done.path)
    model = Disentangler.load()
    for name, side in (("hsc", sides[0][:6]), ("legacy", sides[1][6:])):
        part = frame[frame["survey"] == name]
        check_same(part, model.transform(side, donors="neighbours"))
        assert (part["n_donors"] == 5).all()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"catalog": "nowhere"}, CutoutError, "'catalog'.*nowhere"),
        ({"columns": ["colour"]}, CutoutError, "'columns'.*colour"),
        ({"survey": "sdss"}, SurveyMismatchError, "knows the surveys.*sdss"),
        ({"model": "none.safetensors"}, WeightsError, "none.safetensors"),
        ({"extension": "a/b"}, CutoutError, "'extension'.*a/b"),
        ({"batch_size": 0}, ValueError, "'batch_size'"),
        ({"donors": "stars"}, ValueError, "'donors'.*stars"),
    ],
)
def test_refusals(changes, error, text, stored, tmp_path):
    settings = {"model": "default", "catalog": stored, "path": tmp_path / "out"}
    with pytest.raises(error, match=text):
        embed_catalog(**{**settings, **changes})
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(stored, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CutoutError, match="'path'.*something else"):
        embed_catalog("default", stored, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command(catalog, expected, tmp_path, capsys):
    words = ["embed", str(catalog), "--survey", "hsc", "--columns", "magnitude"]
    words += ["--output", str(tmp_path / "out")]
    name, file = largest(catalog)
    content = file.read_bytes()
    file.write_bytes(content[:100])
    assert main(words) == 2
    said = capsys.readouterr()
    assert name in said.err and "Traceback" not in said.err
    file.write_bytes(content)
    assert main([*words, "--workers", "1"]) == 0
    assert "24 rows" in capsys.readouterr().out
    frame = read(tmp_path / "out")
    check_same(frame, expected)
    assert "magnitude" in frame.columns
    words[1] = "nowhere"
    assert main(words) == 2
    assert "nowhere" in capsys.readouterr().err
