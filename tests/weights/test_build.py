# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What a run takes over from an earlier one."""

import pytest
import torch

from astro_disentangle.checkpoint import write_checkpoint
from astro_disentangle.quality import WeightsError
from astro_disentangle.weights.build import _start_from


def _average(network):
    return {f"average.{n}": p.detach() + 1 for n, p in network.named_parameters()}


def test_mean_weights_are_taken_over(tiny_network, tmp_path):
    path = tmp_path / "training.safetensors"
    before = {n: p.detach().clone() for n, p in tiny_network.named_parameters()}
    write_checkpoint(path, _average(tiny_network), {"step": 7})
    assert _start_from(tiny_network, path) == 7
    for name, parameter in tiny_network.named_parameters():
        assert torch.equal(parameter, before[name] + 1)


def test_weights_of_another_recipe_are_refused(
    tiny_network, published_network, tmp_path
):
    """The published network has no outline: nothing is left out in silence."""
    path = tmp_path / "training.safetensors"
    write_checkpoint(path, _average(tiny_network), {"step": 7})
    with pytest.raises(WeightsError, match=r"decoder\.outline"):
        _start_from(published_network, path)


def test_new_layers_are_named(tiny_network, published_network, tmp_path, capsys):
    path = tmp_path / "training.safetensors"
    write_checkpoint(path, _average(published_network), {"step": 7})
    _start_from(tiny_network, path)
    assert "decoder.outline.hsc.weight" in capsys.readouterr().out
