# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Several processes train one network, to the bit, and fail together."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from astro_disentangle import DisentangleError, WeightsError
from astro_disentangle.checkpoint import read_checkpoint
from astro_disentangle.training.ahead import Ahead
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.parallel import Ranks, Sum
from astro_disentangle.training.source import SimulatedSource

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

#: Words: folder, steps, parts of a step; step at which rank 1 fails, or -1.
PROGRAM = """
import dataclasses, sys, time
import torch
torch.set_num_threads(1)
from astro_disentangle import get_survey
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.parallel import Ranks, process_group
from astro_disentangle.training.source import SimulatedSource

folder, steps, shards, bad = sys.argv[1], *map(int, sys.argv[2:])
surveys = get_survey("hsc"), get_survey("legacy")

@dataclasses.dataclass(frozen=True)
class Source:
    source: object
    fingerprint: int = 7
    def __call__(self, number):
        rank = Ranks.current().rank
        if number % shards == 0:
            print("step", number // shards, flush=True)
        if number // shards == bad and rank == 1:
            raise ValueError("this disc is full of holes")
        return self.source(number)

with process_group():
    torch.manual_seed(0)
    network = Network(surveys, NetworkConfig(physics_size=16, instrument_size=8,
        physics_widths=(8, 8, 16), physics_depths=(1, 1, 1),
        instrument_widths=(8, 8, 8), decoder_width=16, condition=16))
    source = SimulatedSource(surveys, n_groups=1, group_size=4, seed=5)
    settings = Settings(n_steps=steps, warmup=3, log_every=4, seed=3, n_shards=shards,
        precision="float32", save_every=1000)
    trainer = Trainer(network, Source(source), RECIPES["default"], settings, folder)
    trainer.resume()
    print("ready", trainer.step, flush=True)
    trainer.run(progress=False)
"""


def _start(processes, folder, steps, shards=4, bad=-1):
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    words = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    words += ["--standalone", "--nproc-per-node", processes, program]
    return subprocess.Popen(
        [str(word) for word in (*words, folder, steps, shards, bad)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _train(*arguments, **options):
    with _start(*arguments, **options) as process:
        text, _ = process.communicate(timeout=240)
    return process.returncode, text


def _state(folder):
    tensors, config, _ = read_checkpoint(folder / "training.safetensors")
    for row in config["history"]:
        row.pop("seconds")
    return tensors, config


def _check_same(one, other):
    tensors, config = _state(one)
    tensors_2, config_2 = _state(other)
    assert tensors.keys() == tensors_2.keys()
    unequal = [n for n in tensors if not torch.equal(tensors[n], tensors_2[n])]
    assert unequal == []
    assert config == config_2


def _ranks(process):
    """The processes that train, in the order of their ranks."""
    children = psutil.Process(process.pid).children()
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


@pytest.mark.parametrize(
    "steps", [8, pytest.param(100, marks=pytest.mark.nightly)], ids=str
)
def test_r44_any_number_of_processes_ends_with_the_same_bits(steps, tmp_path):
    for processes in (1, 2, 4):
        status, text = _train(processes, tmp_path / str(processes), steps)
        assert status == 0, text
    _check_same(tmp_path / "1", tmp_path / "2")
    _check_same(tmp_path / "1", tmp_path / "4")
    assert len(_state(tmp_path / "1")[1]["history"]) == steps // 4


def test_r45_one_killed_all_end_and_the_run_goes_on(tmp_path):
    assert _train(1, tmp_path / "whole", 24)[0] == 0
    # Before the first checkpoint: what is kept is kept because of the loss.
    with _start(2, tmp_path / "killed", 24) as process:
        while "step 3" not in process.stdout.readline():
            assert process.poll() is None
        ranks = _ranks(process)
        start = time.monotonic()
        ranks[1].send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert time.monotonic() - start < 60
    assert process.returncode != 0
    assert alive == []
    step = _state(tmp_path / "killed")[1]["step"]
    assert 3 <= step < 24
    status, text = _train(4, tmp_path / "killed", 24)
    assert status == 0, text
    assert f"ready {step}" in text
    _check_same(tmp_path / "whole", tmp_path / "killed")


def test_an_error_in_one_is_an_error_in_all(tmp_path):
    status, text = _train(2, tmp_path / "run", 8, bad=2)
    assert status != 0
    assert "ValueError: this disc is full of holes" in text
    assert "process 1 of 2 failed and ends the run: ValueError: this disc" in text


def test_parts_are_shared_out_evenly(tmp_path):
    status, text = _train(2, tmp_path / "run", 8, shards=3)
    assert status != 0
    assert "'n_shards' must be a multiple of the number of processes, 2; got 3" in text
    assert Ranks(2, 4).parts(8) == range(4, 6)
    with pytest.raises(ValueError, match="'n_shards' must be a positive integer"):
        Ranks().parts(0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_sums_do_not_depend_on_who_adds(count):
    generator = torch.Generator().manual_seed(count)
    terms = torch.randn(count, 1000, generator=generator)
    whole = Sum()
    for term in terms:
        whole.add(term)
    torch.testing.assert_close(whole.value(), terms.sum(0))
    for size in (n for n in (2, 4) if count % n == 0):
        shares, every = terms.chunk(size), Sum()
        for share in shares:
            part = Sum()
            for term in share:
                part.add(term)
            every.add(part.value())
        same = torch.equal(every.value(), whole.value())
        assert same or count // size not in (1, 2, 4)


def test_parts_of_a_step_are_averaged(tiny_network, surveys):
    source = SimulatedSource(surveys, n_groups=1, group_size=4, seed=5)
    settings = Settings(n_steps=1, seed=3, precision="float32", n_shards=2, clip=1e9)
    trainer = Trainer(tiny_network, source, RECIPES["default"], settings)
    trainer.network.train()
    parts = []
    for number in range(2):
        trainer._backward(number, logged=True)
        parts.append(trainer._gradient())
    trainer._differentiate(logged=True)
    torch.testing.assert_close(trainer._gradient(), (parts[0] + parts[1]) / 2)
    assert not torch.allclose(parts[0], parts[1])


def test_a_run_of_other_parts_is_refused(tiny_network, surveys, tmp_path):
    source = SimulatedSource(surveys, n_groups=1, group_size=4, seed=5)

    def trainer(n_shards):
        settings = Settings(n_steps=2, seed=3, n_shards=n_shards)
        recipe = RECIPES["default"]
        return Trainer(tiny_network, source, recipe, settings, tmp_path)

    trainer(1).run(until=1, progress=False)
    with pytest.raises(WeightsError, match=r"settings 'n_shards' was 1 and is 2"):
        trainer(2).resume()


def test_what_is_made_ahead_is_what_is_asked_for(surveys):
    source = SimulatedSource(surveys, n_groups=1, group_size=2, seed=3)
    ahead = Ahead(source, n_workers=1, parts=range(2, 4), n_shards=4)
    for number in (2, 3, 6, 7, 10):
        made, expected = (s(number).batches["hsc"].pixels for s in (ahead, source))
        assert torch.equal(made, expected)


def test_alone_nothing_is_told():
    ranks = Ranks.current()
    assert (ranks.rank, ranks.size) == (0, 1)
    with pytest.raises(DisentangleError, match="as it is"), ranks.one_for_all():
        raise DisentangleError("as it is")
