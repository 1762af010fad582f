# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Training on files that are read partition by partition."""

import os
import subprocess
import sys
import warnings
from collections import Counter

import pytest
import torch
from conftest import TINY
from embedding.catalogues import image_of, image_type, write_catalog

from astro_disentangle import (
    CutoutError,
    Disentangler,
    PairedCutouts,
    PairStream,
    SurveyMismatchError,
    WeightsError,
    simulate_pairs,
)
from astro_disentangle.checkpoint import read_checkpoint
from astro_disentangle.training.source import StreamSource

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

COLUMNS = {"hsc": "hsc_image", "legacy": "legacysurvey_image"}
COUNT = 40
#: Rows that cannot be used, and rows of each file.
BAD, FILE = (3, 17), 14


@pytest.fixture(scope="module")
def sky():
    return simulate_pairs(COUNT, random_state=3)


@pytest.fixture(scope="module")
def rows(sky):
    """Rows of a pair set, in groups of four on the sky; two have no image of one."""
    made = []
    for number in range(COUNT):
        ra, dec = 150 + 0.6 * (number // 4) + 0.01 * (number % 4), 2.0
        row = {"object_id": sky.object_id[number], "ra": ra, "dec": dec}
        for survey, column in COLUMNS.items():
            widths = sky.batch(survey).psf_fwhm[number].numpy()
            row[column] = image_of(sky.cutouts(survey)[number], widths)
        made.append(row)
    for number in BAD:
        made[number]["hsc_image"] = None
    return made


@pytest.fixture(scope="module")
def files(rows, tmp_path_factory):
    """Three files of two row groups each: 7, 7, 7, 7, 7 and 5 rows."""
    folder = tmp_path_factory.mktemp("set")
    for start in range(0, COUNT, FILE):
        part = rows[start : start + FILE]
        columns = {
            name: pa.array(
                [row[name] for row in part],
                type=image_type() if name.endswith("image") else None,
            )
            for name in rows[0]
        }
        path = folder / f"{start:03d}.parquet"
        parquet.write_table(pa.table(columns), path, row_group_size=FILE // 2)
    return folder


def _names(step, sky):
    """Numbers of the galaxies of a step, by their flux."""
    flux = sky.batch("legacy").pixels.sum((1, 2, 3))
    return [
        int((flux - own).abs().argmin())
        for own in step.batches["legacy"].stamp()[0].sum((1, 2, 3))
    ]


def _same(a, b):
    pairs = zip(a.batches.values(), b.batches.values(), strict=True)
    return all(torch.equal(x.pixels, y.pixels) for x, y in pairs)


def test_all_pairs_are_those_of_the_files(files, sky):
    stream = PairStream(files, block_rows=3)
    assert len(stream) == COUNT
    assert stream.rows == [7, 7, 7, 7, 7, 5]
    found = [p for n in range(6) for p in stream.blocks(n) if p is not None]
    names = [name for pairs in found for name in pairs.object_id]
    assert names == [n for i, n in enumerate(sky.object_id) if i not in BAD]
    with pytest.warns(UserWarning, match="left out"):
        whole = PairedCutouts.from_mmu(files)
    pixels = torch.cat([pairs.batch("hsc").pixels for pairs in found])
    assert torch.equal(pixels, whole.batch("hsc").pixels)
    (last,) = stream.blocks(0, first=2)
    assert last.object_id == [sky.object_id[6]]


@pytest.mark.parametrize(
    ("lanes", "block_rows"), [(1, 512), (2, 512), (3, 4), (6, 2)], ids=str
)
def test_an_epoch_shows_each_pair_once(lanes, block_rows, files, sky):
    stream = PairStream(files, block_rows=block_rows)
    source = StreamSource(stream, 3, lanes, seed=1)
    seen, number = Counter(), 0
    for lane in range(lanes):
        number, epochs = lane, []
        while source.place(number)[0] < 2:
            epoch = source.place(number)[0]
            step = source(number)
            assert 2 <= len(step.group) <= 3
            for name in _names(step, sky):
                seen[name, epoch] += 1
            epochs.append(epoch)
            number += lanes
        assert epochs == sorted(epochs)
    # In a block with one that cannot be used others are shown twice, or none is.
    allowed = {512: {1}, 4: {1, 2}, 2: {0, 1, 2}}[block_rows]
    for name in range(COUNT):
        for epoch in (0, 1):
            assert seen[name, epoch] in ({0} if name in BAD else allowed), name
    assert stream.block_sizes(0) == {512: [7], 4: [4, 3], 2: [2, 2, 2, 1]}[block_rows]
    assert sum(seen.values()) >= 2 * (COUNT - 2 * len(BAD))


def test_the_order_is_another_one_in_each_epoch_and_for_each_seed(files, sky):
    def order(seed, epoch):
        source = StreamSource(PairStream(files), 7, 1, seed=seed)
        steps = range(epoch * 6, epoch * 6 + 6)
        return [name for number in steps for name in _names(source(number), sky)]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(sorted(names)) for names in orders}) == 1
    assert order(0, 0) == orders[0]
    # In which the row groups are read, and in which each is shown.
    groups = [list(dict.fromkeys(n // 7 for n in names)) for names in orders]
    assert len({tuple(numbers) for numbers in groups}) == 3
    within = [[n for n in names if n < 7] for names in orders]
    assert len({tuple(names) for names in within}) == 3


def test_groups_stay_together_and_keep_their_members(files, sky):
    step = StreamSource(PairStream(files), 7, 1, seed=0)(0)
    names = _names(step, sky)
    for a, one in enumerate(names):
        for b, other in enumerate(names):
            same = bool(step.group[a] == step.group[b])
            assert same == (one // 4 == other // 4)


def test_any_step_can_be_asked_for_first(files):
    stream = PairStream(files, block_rows=3)
    going = StreamSource(stream, 3, 2, seed=4)
    steps = [going(number) for number in range(30)]
    for number in (29, 7, 0, 16):
        assert _same(StreamSource(stream, 3, 2, seed=4)(number), steps[number])
        assert _same(going(number), steps[number])


def test_a_lane_reads_a_row_group_once(files, monkeypatch):
    stream, opened = PairStream(files, block_rows=3), []
    blocks = PairStream.blocks

    def counted(self, partition, first=0):
        opened.append((partition, first))
        return blocks(self, partition, first)

    monkeypatch.setattr(PairStream, "blocks", counted)
    source = StreamSource(stream, 3, 2, seed=0)
    number = 0
    while source.place(number)[0] < 1 or source.place(number + 1)[0] < 1:
        source(number), source(number + 1)
        number += 2
    assert {first for _, first in opened} == {0}
    assert len(opened) <= len(stream.rows) + 2


def test_a_step_with_too_few_pairs_shows_the_next(rows, tmp_path, sky):
    columns = {
        name: pa.array(
            [row[name] for row in rows[2:6]],
            type=image_type() if name.endswith("image") else None,
        )
        for name in rows[0]
    }
    path = tmp_path / "few.parquet"
    # Row 3 cannot be used: the first of two groups has one pair that can.
    parquet.write_table(pa.table(columns), path, row_group_size=2)
    source = StreamSource(PairStream(path), 2, 1, seed=0)
    for number in range(4):
        assert sorted(_names(source(number), sky)) == [4, 5]
    one = StreamSource(PairStream(path), 2, 2, seed=0)
    alone = next(lane for lane in (0, 1) if one.place(lane)[1] == 0)
    with pytest.raises(CutoutError, match=rf"two pairs .* share {alone} of 2 has none"):
        one(alone)


def test_a_damaged_partition_harms_no_other(files, tmp_path, sky):
    for path in files.iterdir():
        data = bytearray(path.read_bytes())
        if path.name == "014.parquet":
            data[100:9000] = bytes(8900)
        (tmp_path / path.name).write_bytes(data)
    source = StreamSource(PairStream(tmp_path), 7, 1, seed=0)
    with pytest.warns(UserWarning, match=r"left out of training.*014\.parquet"):
        shown = {name for n in range(6) for name in _names(source(n), sky)}
    assert shown >= {n for n in range(COUNT) if n not in BAD and not 14 <= n < 21}
    assert not shown & set(range(14, 21))


def test_what_cannot_be_streamed(files, rows, tmp_path):
    with pytest.raises(CutoutError, match="each of the 7 processes .* it has 6"):
        StreamSource(PairStream(files), 4, 7)
    with pytest.raises(SurveyMismatchError, match="must be two"):
        PairStream(files, surveys=("hsc", "hsc"))
    with pytest.raises(ValueError, match="block_rows"):
        PairStream(files, block_rows=0)
    with pytest.raises(CutoutError, match="no_such_folder"):
        PairStream(tmp_path / "no_such_folder")
    model = Disentangler(batch_size=6, n_shards=4, network=TINY)
    with pytest.raises(ValueError, match=r"multiple of 'n_shards', 4.*got 6"):
        model.fit(PairStream(files))
    model.set_params(n_shards=None, n_workers=-1)
    with pytest.raises(ValueError, match="'n_workers' must be a positive"):
        model.fit(PairStream(files))


def test_a_sample(files):
    stream = PairStream(files)
    with pytest.warns(UserWarning, match="2 of the first 40 galaxies .* 2 without an"):
        every = stream.sample(100)
    assert len(every) == len(set(every.object_id)) == COUNT - len(BAD)
    assert len(set(every.groups.tolist())) >= COUNT // 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        some = stream.sample(9)
        assert stream.sample(9).object_id == some.object_id
        assert stream.sample(9, seed=1).object_id != some.object_id
    assert len(some) == 9


def test_a_catalogue_and_another_format(rows, tmp_path, sky):
    pytest.importorskip("lsdb")
    good = [row for number, row in enumerate(rows) if number not in BAD]
    write_catalog(good[:24], tmp_path / "pairs", partition_rows=10)
    stream = PairStream(tmp_path / "pairs")
    assert len(stream) == 24
    assert len(stream.rows) > 1
    names = [
        n for p in range(len(stream.rows)) for n in next(stream.blocks(p)).object_id
    ]
    assert sorted(names) == sorted(row["object_id"] for row in good[:24])


def _torchrun(processes, files, output, *options):
    words = ["--standalone", "--nproc-per-node", processes, "-m"]
    words += ["astro_disentangle.training", "--pairs", files, "--stream"]
    words += ["--shards", 2, "--batch-size", 8, "--output", output, *options]
    run = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    return subprocess.run(
        [str(word) for word in (*run, *words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_torchrun_trains_on_files(files, sky, tmp_path):
    """With two processes, each with one that reads ahead, as with one alone."""
    settings = {"n_steps": 1, "batch_size": 8, "network": TINY, "progress": False}
    tiny = Disentangler(recipe="counterfactual", **settings).fit(sky[:8])
    tiny.save(tmp_path / "tiny.safetensors")
    words = ["--from", tmp_path / "tiny.safetensors", "--recipe", "counterfactual"]
    words += ["--steps", 6]
    one = _torchrun(1, files, tmp_path / "one", *words)
    two = _torchrun(2, files, tmp_path / "two", *words, "--workers", 1)
    for run in (one, two):
        assert run.returncode == 0, run.stderr
    assert two.stdout.count("40 pairs, 6 steps") == 1
    states = [
        read_checkpoint(tmp_path / name / "training.safetensors")[0]
        for name in ("one", "two")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    latents = [
        Disentangler.load(tmp_path / name / "model.safetensors").transform(
            sky.cutouts("hsc")[:3]
        )
        for name in ("one", "two")
    ]
    assert (latents[0]["physics"] == latents[1]["physics"]).all()
    again = _torchrun(2, files, tmp_path / "two", *words)
    assert again.returncode != 0
    assert "there is a run in" in again.stderr


def test_a_stream_trains_and_resumes_in_one_process(files, tmp_path):
    def model(folder):
        return Disentangler(
            recipe="counterfactual",
            n_steps=5,
            batch_size=6,
            network=TINY,
            directory=folder,
            progress=False,
        )

    with pytest.warns(UserWarning, match="cannot be used"):
        whole = model(tmp_path / "whole").fit(PairStream(files))
    broken = model(tmp_path / "broken")
    stream = PairStream(files)
    blocks, left = stream.blocks, [1]

    def stopped(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return blocks(*arguments)

    stream.blocks = stopped
    seen = pytest.warns(UserWarning, match="cannot be used")
    with seen, pytest.raises(KeyboardInterrupt):
        broken.fit(stream)
    step = read_checkpoint(tmp_path / "broken" / "training.safetensors")[1]["step"]
    assert 0 < step < 5
    seen = pytest.warns(UserWarning, match="cannot be used")
    with seen, pytest.raises(WeightsError, match="its data are not the same"):
        broken.fit(PairStream(files, block_rows=5), resume=True)
    with pytest.warns(UserWarning, match="cannot be used"):
        broken.fit(PairStream(files), resume=True)
    states = [m.network_.state_dict() for m in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
