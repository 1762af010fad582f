# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Encoders and decoder: shapes, sets, independence of rows, cost."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from astro_disentangle.model.encoder import View
from astro_disentangle.model.network import Network, NetworkConfig


def _view(survey, rows, seed=0):
    bands = len(survey.bands)
    generator = torch.Generator().manual_seed(seed)
    return View(
        survey.name,
        torch.randn(rows, bands, 48, 48, generator=generator),
        torch.ones(rows, bands, 48, 48),
        torch.rand(rows, 5 * bands, generator=generator),
    )


def _awake(network):
    """Give the layers that start at zero something to do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise)
    return network


def _prepared(network, source, target, rows=3):
    view = _view(source, rows)
    members = network.instrument.members(_view(target, rows, 1))
    z_instrument = network.instrument.pool(members, torch.eye(rows).bool())
    return network.prepare(
        network.physics(view),
        z_instrument,
        source=source.name,
        observation=view.observation,
        target=target.name,
        offset=torch.zeros(rows, 2),
    )


def _velocity(network, source, target, rows=3):
    prepared = _prepared(network, source, target, rows)
    size = target.stamp_size
    x = torch.randn(
        rows,
        len(target.bands),
        size,
        size,
        generator=torch.Generator().manual_seed(2),
    )
    return network.decoder(x, torch.linspace(0, 1, rows), prepared)


@pytest.mark.parametrize("source", ["hsc", "legacy"])
@pytest.mark.parametrize("target", ["hsc", "legacy"])
def test_every_direction(tiny_network, source, target):
    source, target = tiny_network.surveys[source], tiny_network.surveys[target]
    u = _velocity(_awake(tiny_network), source, target)
    assert u.shape == (3, len(target.bands), target.stamp_size, target.stamp_size)
    assert u.dtype == torch.float32
    assert u.isfinite().all()


def test_every_parameter_is_used(tiny_network, surveys):
    network = _awake(tiny_network)
    loss = sum(
        _velocity(network, one, other).square().mean()
        + _prepared(network, one, other).mean.square().mean()
        for one in surveys
        for other in surveys
    )
    members = network.instrument.members(
        _view(surveys[0], 2), torch.zeros(2, dtype=torch.bool)
    )
    loss = loss + members.square().mean()
    for layer in network.instrument.reading.values():
        loss = loss + layer(torch.ones(1, 8)).square().mean()
    for layer in network.photometry.values():
        loss = loss + layer(torch.ones(1, 16)).square().mean()
    loss.backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert silent == []


def test_rows_do_not_know_each_other(tiny_network, surveys):
    network = _awake(tiny_network)
    view = _view(surveys[0], 4)
    changed = View(view.survey, view.x.clone(), view.good, view.observation)
    changed.x[1:] *= 30
    assert torch.equal(network.physics(view)[0], network.physics(changed)[0])


def test_set_is_permutation_invariant_and_heeds_its_members(tiny_network, surveys):
    network = _awake(tiny_network)
    members = network.instrument.members(_view(surveys[1], 6))
    chosen = torch.tensor([[True, True, True, False, False, False]])
    z = network.instrument.pool(members, chosen)
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    torch.testing.assert_close(
        network.instrument.pool(members[order], chosen[:, order]), z
    )
    # Members outside of the set have no effect, those inside do.
    other = members.clone()
    other[4] += 10
    assert torch.equal(network.instrument.pool(other, chosen), z)
    other[1] += 10
    assert not torch.allclose(network.instrument.pool(other, chosen), z)


def test_described_conditions_are_those_of_unseen_pixels(tiny_network, surveys):
    network = _awake(tiny_network)
    view = _view(surveys[0], 3)
    told = network.instrument.described("hsc", view.observation)
    unseen = network.instrument.members(view, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(told, unseen)


def test_new_decoder_starts_from_the_sky(tiny_network, surveys):
    """Untrained, nothing is outlined but sky, and the flow adds nothing."""
    prepared = _prepared(tiny_network, *surveys)
    assert (prepared.mean == 0).all()
    assert (prepared.variance > 0).all()
    assert (_velocity(tiny_network, *surveys) == 0).all()


def test_outline_has_at_least_the_noise_that_was_told(tiny_network, surveys):
    """At a bright pixel that noise is smaller by the slope of the stretch."""
    network = _awake(tiny_network)
    legacy = surveys[1]
    noise = 2.0 * torch.tensor([legacy.pixel_noise()])
    outline = network.decoder.outline["legacy"]
    with torch.no_grad():
        outline.weight.zero_()
        outline.bias.zero_()
        # Mean of 4 and the least variance: first the C means, then the variances.
        half = len(outline.bias) // 2
        outline.bias[:half] = 4
        outline.bias[half:] = -100
        prepared = network.prepare(
            torch.zeros(1, 16),
            torch.zeros(1, 8),
            source="hsc",
            observation=torch.zeros(1, 25),
            target="legacy",
            offset=torch.zeros(1, 2),
            noise=noise,
        )
    # Noise of twice the usual, stretched at 4 with a softening of 2: 1 / cosh(4).
    sky = torch.asinh(torch.linspace(-6, 6, 20001) * 2 / 2).square()
    density = torch.exp(-0.5 * torch.linspace(-6, 6, 20001).square())
    expected = (sky * density).sum() / density.sum() / math.cosh(4) ** 2
    least = math.exp(-12)
    assert (prepared.mean == 4).all()
    assert prepared.variance.flatten().tolist() == pytest.approx(
        [expected.item() + least] * prepared.variance.numel(), rel=0.01
    )


def test_cost_is_within_the_design(surveys):
    """At most 0.3 GFLOP an evaluation and 16 MB in half precision."""
    network = Network(surveys, NetworkConfig()).eval()
    hsc = surveys[0]
    view = _view(hsc, 1)
    with torch.inference_mode():
        z_physics = network.physics(view)
        z = network.instrument.pool(
            network.instrument.members(view), torch.ones(1, 1).bool()
        )
        prepared = network.prepare(
            z_physics,
            z,
            source="hsc",
            observation=view.observation,
            target="hsc",
            offset=torch.zeros(1, 2),
        )
        with FlopCounterMode(display=False) as counter:
            network.decoder(torch.randn(1, 5, 48, 48), torch.zeros(1), prepared)
    assert counter.get_total_flops() <= 0.3e9
    assert 2 * sum(p.numel() for p in network.parameters()) <= 16e6


def test_batch_size_does_not_matter(tiny_network, surveys):
    network = _awake(tiny_network)
    view = _view(surveys[0], 7)
    with torch.inference_mode():
        together = network.physics(view)
        alone = torch.cat([network.physics(view[row : row + 1]) for row in range(7)])
    assert (together - alone).abs().max() <= 1e-5 * together.std()


def test_sky_variance_is_that_of_stretched_noise(tiny_network):
    """Against simulated noise, for the noise that the reading layer tells."""
    layer = tiny_network.instrument.reading["legacy"]
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(400_000, generator=generator)
    with torch.no_grad():
        layer.weight.zero_()
        for ratio in (0.5, 1.0, 2.0):
            layer.bias.fill_(2.5 * math.log2(ratio))
            told = tiny_network.sky_variance(torch.zeros(1, 8), "legacy")
            true = torch.asinh(ratio * normal / 2).square().mean().item()
            assert told[0].tolist() == pytest.approx([true] * 4, rel=0.01)


def test_painted_noise_follows_the_instrument(tiny_network):
    """Where no variance is learned beyond it, noise is painted as the latent tells."""
    layer = tiny_network.instrument.reading["legacy"]
    outline = tiny_network.decoder.outline["legacy"]
    with torch.no_grad():
        outline.bias[len(outline.bias) // 2 :] = -100
    x_0 = torch.randn(1, 8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    for ratio in (0.7, 1.5):
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.fill_(2.5 * math.log2(ratio))
            pixels = tiny_network.translate(
                torch.zeros(1, 16),
                torch.zeros(1, 8),
                x_0,
                prepare={
                    "source": "hsc",
                    "observation": torch.zeros(1, 25),
                    "target": "legacy",
                    "offset": torch.zeros(1, 2),
                },
                n_steps=16,
                solver="midpoint",
            )
        # The flow is Gaussian where the sky is: after the stretch.
        painted = tiny_network.stretch(pixels[0], "legacy").square().mean((0, 2, 3))
        told = tiny_network.sky_variance(torch.zeros(1, 8), "legacy")[0]
        assert painted.tolist() == pytest.approx(told.tolist(), rel=0.05)


def test_nothing_is_painted_brighter_than_a_saturated_pixel(tiny_network, surveys):
    """However sure the outline is of a brighter one."""
    outline = tiny_network.decoder.outline["hsc"]
    with torch.no_grad():
        outline.bias[: len(outline.bias) // 2] = 15
        pixels = tiny_network.translate(
            torch.zeros(1, 16),
            torch.zeros(1, 8),
            torch.zeros(1, 1, 5, 48, 48),
            prepare={
                "source": "hsc",
                "observation": torch.zeros(1, 25),
                "target": "hsc",
                "offset": torch.zeros(1, 2),
            },
            n_steps=1,
            solver="euler",
        )
    level = torch.tensor(surveys[0].saturation_level())
    torch.testing.assert_close(pixels[0, 0].amax((1, 2)), level)
