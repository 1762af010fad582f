# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Training learns, survives being killed, and refuses what does not fit."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from astro_disentangle import DisentangleError, WeightsError
from astro_disentangle.checkpoint import read_checkpoint
from astro_disentangle.training.loop import Settings, Trainer, learning_rate
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.source import PairsSource, SimulatedSource, Step

SETTINGS = Settings(n_steps=12, warmup=3, save_every=2, log_every=2, seed=3)

PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from astro_disentangle import get_survey
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.source import SimulatedSource
surveys = get_survey("hsc"), get_survey("legacy")
torch.manual_seed(0)
network = Network(surveys, NetworkConfig(physics_size=16, instrument_size=8,
    physics_widths=(8, 8, 16), physics_depths=(1, 1, 1),
    instrument_widths=(8, 8, 8), decoder_width=16, condition=16))
source = SimulatedSource(surveys, n_groups=2, group_size=4, seed=5, revisit_every=3)
settings = Settings(n_steps=12, warmup=3, save_every=2, log_every=2, seed=3)
trainer = Trainer(network, source, RECIPES["default"], settings, sys.argv[1])
trainer.resume()
print("ready", flush=True)
trainer.run(progress=False)
"""


def _start(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _same_but_for_time(one, other):
    tensors, config, _ = read_checkpoint(one / "training.safetensors")
    tensors_2, config_2, _ = read_checkpoint(other / "training.safetensors")
    assert set(tensors) == set(tensors_2)
    different = [
        name for name in tensors if not torch.equal(tensors[name], tensors_2[name])
    ]
    assert different == []
    for rows in (config["history"], config_2["history"]):
        for row in rows:
            row.pop("seconds")
    assert config == config_2


def test_killed_and_resumed_gives_the_same_bits(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with _start(whole) as process:
        assert process.wait(timeout=240) == 0
    kills = 0
    while True:
        with _start(broken) as process:
            process.stdout.readline()
            # Any moment will do: in a step, in a write, before the first one.
            time.sleep(0.35 + 0.17 * kills)
            if kills < 4 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
            assert process.wait(timeout=240) == 0
            break
    assert kills >= 2
    _same_but_for_time(whole, broken)


def _trainer(network, surveys, folder=None, **changes):
    source = SimulatedSource(surveys, n_groups=2, group_size=4, seed=5)
    settings = dataclasses.replace(SETTINGS, **changes)
    return Trainer(network, source, RECIPES["default"], settings, folder)


def test_loss_falls(tiny_network, surveys):
    history = _trainer(
        tiny_network, surveys, n_steps=60, learning_rate=3e-3, log_every=10
    ).run(progress=False)
    assert history[-1]["flow"] < history[0]["flow"] - 0.05
    assert [row["step"] for row in history] == [10, 20, 30, 40, 50, 60]


def test_global_randomness_is_left_alone(tiny_network, surveys):
    before = torch.get_rng_state()
    _trainer(tiny_network, surveys, n_steps=2).run(progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_settings_are_refused(tiny_network, surveys, tmp_path):
    _trainer(tiny_network, surveys, tmp_path, n_steps=2).run(progress=False)
    other = _trainer(tiny_network, surveys, tmp_path, n_steps=2, clip=0.5)
    with pytest.raises(WeightsError, match="'clip' was 1.0 and is 0.5"):
        other.resume()


def test_schedule_is_one_cosine():
    settings = Settings(n_steps=1000, warmup=100, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert max(rates) == rates[100] == 1.0
    assert all(a < b for a, b in itertools.pairwise(rates[:100]))
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_nan_steps_are_skipped_and_then_end_the_run(tiny_network, surveys, tmp_path):
    source = SimulatedSource(surveys, n_groups=1, group_size=4, seed=5)

    def broken(step):
        sound = source(step)
        if step < 4:
            return sound
        batches = {
            name: dataclasses.replace(batch, pixels=batch.pixels * torch.nan)
            for name, batch in sound.batches.items()
        }
        return Step(batches, sound.group)

    settings = dataclasses.replace(SETTINGS, n_steps=20)
    trainer = Trainer(tiny_network, broken, RECIPES["default"], settings, tmp_path)
    with pytest.raises(DisentangleError, match="3 times in a row, last at step 6"):
        trainer.run(progress=False)
    assert all(p.isfinite().all() for p in tiny_network.parameters())
    assert read_checkpoint(trainer.path)[1]["step"] in (4, 6)


def test_pairs_source_keeps_groups_together_and_covers_an_epoch(surveys):
    simulated = SimulatedSource(surveys, n_groups=8, group_size=4, seed=0)(1)
    source = PairsSource(simulated.batches, simulated.group, batch_size=16, seed=2)
    seen = []
    for step in range(2):
        part = source(step)
        assert len(part.group.unique()) == 4
        for batch in part.batches.values():
            seen += batch.keys.tolist() if batch.survey.name == "hsc" else []
    assert sorted(seen) == sorted(simulated.batches["hsc"].keys.tolist())
    first, again = source(1), source(1)
    assert torch.equal(first.batches["hsc"].pixels, again.batches["hsc"].pixels)


def test_interrupt_in_an_update_keeps_the_last_whole_checkpoint(
    tiny_network, surveys, tmp_path, monkeypatch
):
    trainer = _trainer(tiny_network, surveys, tmp_path, save_every=2)
    update = trainer.optimizer.step

    def interrupted():
        update()
        if trainer.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.optimizer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(progress=False)
    assert read_checkpoint(trainer.path)[1]["step"] == 2


def test_interrupt_between_updates_saves_where_it_is(tiny_network, surveys, tmp_path):
    trainer = _trainer(tiny_network, surveys, tmp_path, save_every=100, log_every=4)
    source = trainer.source

    def interrupted(step):
        if step == 5:
            raise KeyboardInterrupt
        return source(step)

    trainer.source = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run(progress=False)
    config = read_checkpoint(trainer.path)[1]
    assert config["step"] == 5
    assert len(config["window"]) == 1


def test_gradient_is_clipped(tiny_network, surveys):
    """AdamW forgets the scale of a gradient, its moments do not."""
    norms = []
    for clip in (1e-3, 1e3):
        trainer = _trainer(tiny_network, surveys, n_steps=1, clip=clip)
        trainer.run(progress=False)
        moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
        total = torch.stack([m.square().sum() for m in moments]).sum().sqrt()
        norms.append(total.item() / (1 - 0.9))
    assert norms[0] == pytest.approx(1e-3, rel=0.01)
    assert norms[1] > 1e-2


def test_pairs_are_turned_and_mirrored_together(surveys):
    simulated = SimulatedSource(surveys, n_groups=1, group_size=4, seed=0)(1)
    source = PairsSource(simulated.batches, simulated.group, batch_size=4, seed=2)
    seen = set()
    for step in range(24):
        part = source(step)
        views = []
        for name, batch in part.batches.items():
            row = batch.keys.tolist().index(simulated.batches[name].keys[0].item())
            original = simulated.batches[name].pixels[0]
            for turns, flip in itertools.product(range(4), (False, True)):
                turned = original.flip(-1) if flip else original
                turned = torch.rot90(turned, -turns, (-2, -1))
                if torch.equal(batch.pixels[row], turned):
                    views.append((turns, flip))
        assert len(views) == 2
        assert views[0] == views[1]
        seen.add(views[0])
    assert len(seen) >= 6


def test_other_pairs_are_not_resumed(tiny_network, surveys, tmp_path):
    def trainer(seed):
        pairs = SimulatedSource(surveys, n_groups=1, group_size=4, seed=seed)(1)
        source = PairsSource(pairs.batches, pairs.group, batch_size=4)
        settings = dataclasses.replace(SETTINGS, n_steps=2)
        return Trainer(tiny_network, source, RECIPES["default"], settings, tmp_path)

    trainer(0).run(progress=False)
    assert trainer(0).resume()
    with pytest.raises(WeightsError, match="data are not the same"):
        trainer(1).resume()
