# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Weights are read whole and undamaged, or not at all."""

import errno
import os

import pytest
import torch

from astro_disentangle import WeightsError, checkpoint
from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, {"a": torch.arange(3.0), "b": torch.tensor(2)}, {"c": [1]})
    return path


def test_round_trip(path):
    tensors, config, digest = read_checkpoint(path)
    assert tensors["a"].tolist() == [0, 1, 2]
    assert tensors["b"].item() == 2
    assert config == {"c": [1]}
    assert len(digest) == 64


def test_every_single_bit_flip_is_refused(path):
    content = path.read_bytes()
    for position in range(len(content) * 8):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            read_checkpoint(path)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_truncation_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=path.name):
        read_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(WeightsError, match="there is no"):
        read_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path)


def test_not_finite_is_refused(tmp_path):
    path = tmp_path / "nan.safetensors"
    write_checkpoint(path, {"a": torch.tensor([1.0, torch.nan])}, {})
    with pytest.raises(WeightsError, match="'a'.*not finite"):
        read_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WeightsError, match="No space"):
        write_checkpoint(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
