# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Randomness depends on its key and on nothing else."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from astro_disentangle.keys import key, numpy_generator, seed_of, torch_generator


def test_every_part_matters():
    keys = {
        key(0, "a", 1),
        key(1, "a", 1),
        key(0, "b", 1),
        key(0, "a", 2),
        key(0, "a", 1, 0),
        key(0, "a"),
        key(0, "a1"),
    }
    assert len(keys) == 7


def test_same_in_another_process():
    code = "from astro_disentangle.keys import key; print(key(3, 'noise', 'x', 7))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(out.stdout) == key(3, "noise", "x", 7)


def test_global_states_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    torch.randn(3, generator=torch_generator(0, "x"))
    numpy_generator(0, "x").normal()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])


def test_seed_of():
    assert seed_of(5) == 5
    assert seed_of(np.int64(5)) == 5
    assert seed_of(None) == 0
    generator = np.random.default_rng(1)
    assert seed_of(generator) != seed_of(generator)
    with pytest.raises(TypeError, match="random_state"):
        seed_of("five")
