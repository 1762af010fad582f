# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Latents of all surveys have one mean, where the galaxies can tell."""

import pytest
import torch

from astro_disentangle.evaluation.probes import probe_survey
from astro_disentangle.model.centring import centre_physics
from astro_disentangle.simulation import simulate


def _batches(surveys, seed, count=32):
    return simulate(count // 8, 8, surveys, seed=seed).batches


@torch.no_grad()
def _latents(network, batches):
    return {n: network.physics(network.view(b)) for n, b in batches.items()}


def _offset(z):
    return (z["hsc"].mean(0) - z["legacy"].mean(0)).norm().item()


def test_means_meet_on_other_galaxies(tiny_network, surveys):
    test = _batches(surveys, 2, 256)
    before = _latents(tiny_network, test)
    portions = [_batches(surveys, seed, 128) for seed in (3, 4, 5)]
    moved = centre_physics(tiny_network, portions)
    after = _latents(tiny_network, test)
    assert _offset(after) < 0.2 * _offset(before)
    told = [
        probe_survey(z["hsc"].numpy(), z["legacy"].numpy()) for z in (before, after)
    ]
    assert told[0] > 0.95
    assert told[1] < told[0] - 0.1
    assert (moved["hsc"] + moved["legacy"]).abs().max() < 1e-6
    for z in after.values():
        assert z.mean(1).abs().max() < 1e-5
        assert (z.var(1, unbiased=False) - 1).abs().max() < 1e-3


def test_portions_do_not_matter(tiny_network, surveys):
    batches = _batches(surveys, 3)
    parts = [
        {name: batch[rows] for name, batch in batches.items()}
        for rows in (slice(0, 5), slice(5, 32))
    ]
    centre_physics(tiny_network, parts)
    first = tiny_network.physics.centre("hsc").clone()
    for name in batches:
        tiny_network.physics.centre(name).zero_()
    centre_physics(tiny_network, [batches])
    assert torch.allclose(first, tiny_network.physics.centre("hsc"), atol=1e-6)


def test_what_is_chance_is_left_alone(tiny_network, surveys):
    """Views of one survey under two visits differ by chance: nothing is moved."""
    hsc = surveys[:1]
    views = [simulate(4, 8, hsc, seed=6, visit=v).batches["hsc"] for v in (0, 1)]
    network = tiny_network

    class _Two:
        """The two visits as if they were of two surveys."""

        physics = network.physics
        parameters = network.parameters
        view = network.view

    swapped = [
        {
            "hsc": views[row % 2][row : row + 1],
            "legacy": views[1 - row % 2][row : row + 1],
        }
        for row in range(32)
    ]
    moved = centre_physics(_Two, swapped)
    assert moved["hsc"].abs().max() == pytest.approx(0, abs=1e-3)
