# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Residual latents bring views nearer to the truth, in every direction."""

import numpy as np
import pytest
import torch

from astro_disentangle import simulate_pairs


@pytest.fixture(scope="module")
def visits():
    """96 galaxies, twice."""
    return [simulate_pairs(96, random_state=77, visit=visit) for visit in (0, 1)]


@torch.inference_mode()
def _errors(network, seen, wanted, source, target, residual):
    """RMS of the outline's mean about the truth over the noise, for each galaxy."""
    batch, view = wanted.batch(target), network.view(seen.batch(source))
    z_physics = network.physics(view)
    group = torch.as_tensor(wanted.groups)
    mates = (group[:, None] == group) & ~torch.eye(len(group), dtype=torch.bool)
    members = network.instrument.members(network.view(batch))
    _, _, offset = batch.stamp()
    outline = network.prepare(
        z_physics,
        network.instrument.pool(members, mates),
        source=source,
        observation=view.observation,
        target=target,
        noise=batch.noise,
        offset=offset,
        residual=residual(view, z_physics),
    ).outline
    softening = network.softening(target)
    known = batch.present
    wrong = outline.mean * softening - wanted.noiseless[target]
    square = (wrong / batch.noise[:, :, None, None]).square().mean((2, 3))
    total = torch.where(known, square, 0).sum(1) / known.sum(1)
    return total.sqrt().numpy()


@pytest.mark.parametrize("source", ["hsc", "legacy"])
@pytest.mark.parametrize("target", ["hsc", "legacy"])
def test_views_with_residual_latents_are_nearer_to_the_truth(
    model, visits, source, target
):
    network = model.network_
    wanted, again = visits
    seen = again if source == target else wanted

    def residual(view, z_physics):
        return network.residual_of(view, z_physics, target)

    def of_another(view, z_physics):
        return residual(view, z_physics).roll(1, 0)

    kinds = {"with": residual, "without": lambda *_: None, "another's": of_another}
    errors = {
        kind: _errors(network, seen, wanted, source, target, function)
        for kind, function in kinds.items()
    }
    gain = errors["with"] / errors["without"]
    assert np.exp(np.log(gain).mean()) < 0.96
    assert (gain < 1).mean() > 0.6
    # It is the galaxy's own detail that helps.
    loss = errors["another's"] / errors["without"]
    assert np.exp(np.log(loss).mean()) > 1.02
