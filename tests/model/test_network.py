# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Encoders and decoder: shapes, sets, independence of rows, cost."""

import dataclasses
import math

import pytest
import torch
from conftest import TINY
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from astro_disentangle.model.decoder import Outline, _resized
from astro_disentangle.model.encoder import View
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.surveys import SURVEYS


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
        + _prepared(network, one, other).outline.surprise(torch.ones(1)).mean()
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
        values = torch.ones(1, 4 * layer.n_bands)
        latents = torch.randn(1, 16), torch.randn(1, 8)
        loss = loss + layer.surprise(*latents, values, torch.ones_like(values)).mean()
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
    outline = _prepared(tiny_network, *surveys).outline
    assert (outline.pixels(torch.zeros(1)) == 0).all()
    assert (_velocity(tiny_network, *surveys) == 0).all()


def _outline(h, q, sky):
    shape = torch.ones(1, 1, 1, 1)
    return Outline(h * shape, q * shape, sky * shape)


@pytest.mark.parametrize("h", [0.0, 0.7, 6.0])
@pytest.mark.parametrize("q", [-12.0, -2.0, 3.0])
def test_residuals_and_pixels_are_inverse(h, q):
    outline = _outline(h, q, 0.25)
    residual = torch.linspace(-4, 4, 33)
    x = outline.pixels(residual)
    torch.testing.assert_close(
        outline.residual(x)[0, 0, 0], residual, rtol=1e-3, atol=2e-3
    )
    assert (x.diff() > 0).all()


def test_outline_is_linear_in_flux_where_the_noise_is():
    """Told noise of 0.8 and an error of a tenth, about a mean of sinh(2)."""
    outline = _outline(2.0, math.log(0.01), 0.64)
    flux = outline.pixels(torch.tensor([-1.0, 0.0, 1.0])).sinh()[0, 0, 0]
    width = math.sqrt(0.64 + 0.01 * math.cosh(2) ** 2)
    expected = [math.sinh(2) + n * width for n in (-1, 0, 1)]
    assert flux.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("h", "q"), [(0.0, -4.0), (1.0, 1.0), (3.0, -1.0)])
def test_surprise_is_that_of_a_density(h, q):
    """Its exponential has the area of a normal one, whatever the outline."""
    outline = _outline(h, q, 0.25)
    x = torch.linspace(-16, 16, 400_001, dtype=torch.float64)
    density = (-outline.surprise(x)).exp()[0, 0, 0]
    area = torch.trapezoid(density * x.cosh(), x).item()
    assert area == pytest.approx(math.sqrt(2 * math.pi), rel=1e-3)


def test_without_an_outline_the_flow_is_of_stretched_pixels(published_network, surveys):
    assert not list(published_network.decoder.outline.parameters())
    outline = _prepared(published_network, *surveys).outline
    assert outline.sky.shape == (3, 4, 1, 1)
    x = torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(outline.residual(x), x / outline.sky.sqrt())
    torch.testing.assert_close(outline.pixels(outline.residual(x)), x)
    density = torch.distributions.Normal(0.0, outline.sky.sqrt())
    constant = 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(outline.surprise(x), -density.log_prob(x) - constant)


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


def _told(network, ratio):
    """Make the reading layer tell so many times the usual noise."""
    layer = network.instrument.reading["legacy"]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(2.5 * math.log2(ratio))


def test_sky_variance_without_an_outline_is_that_of_stretched_noise(published_network):
    """Against simulated noise, for the noise that the reading layer tells."""
    network = published_network
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(400_000, generator=generator)
    for ratio in (0.5, 1.0, 2.0):
        _told(network, ratio)
        told = network.sky_variance(torch.zeros(1, 8), "legacy")
        true = torch.asinh(ratio * normal / 2).square().mean().item()
        assert told[0].tolist() == pytest.approx([true] * 4, rel=0.01)


def test_painted_noise_follows_the_instrument(tiny_network, surveys):
    """Where no variance is learned beyond it, noise is painted as the latent tells."""
    outline = tiny_network.decoder.outline["legacy"]
    with torch.no_grad():
        outline.bias[len(outline.bias) // 2 :] = -100
    x_0 = torch.randn(1, 8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    for ratio in (0.7, 1.5):
        _told(tiny_network, ratio)
        with torch.no_grad():
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
                n_steps=2,
            )
        noise = ratio * torch.tensor(surveys[1].pixel_noise())[:, None, None]
        # The noise itself, pixel by pixel: it passes through unchanged.
        torch.testing.assert_close(pixels, x_0 * noise, rtol=2e-3, atol=1e-2)


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
        )
    level = torch.tensor(surveys[0].saturation_level())
    torch.testing.assert_close(pixels[0, 0].amax((1, 2)), level)


def test_every_described_survey_can_be_painted():
    """Stamps of any number of patches, odd ones too, from one canvas."""
    surveys = list(SURVEYS.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _awake(Network(surveys, NetworkConfig(**TINY)))
    for source, target in zip(surveys, surveys[1:] + surveys[:1], strict=True):
        u = _velocity(network, source, target)
        assert u.shape == (3, len(target.bands), *2 * [target.stamp_size])
        assert u.isfinite().all()


def test_the_canvas_keeps_its_place_in_stamps_of_other_sizes(tiny_network, surveys):
    """What is painted in a corner of 16 patches is in that corner of 20 patches."""
    legacy = dataclasses.replace(surveys[1], patch_size=2)
    wide = dataclasses.replace(legacy, name="wide", stamp_size=40)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network((legacy, wide), NetworkConfig(**TINY)).eval()
    state = {
        name: network.state_dict()[name.replace("wide", "legacy")]
        for name in network.state_dict()
    }
    network.load_state_dict(state)
    _awake(network.decoder.canvas)
    generator = torch.Generator().manual_seed(2)
    alike, turned = [], []
    for _ in range(16):
        weight = network.decoder.outline["legacy"].weight
        with torch.no_grad():
            weight.normal_(0, 0.1, generator=generator)
            network.decoder.outline["wide"].weight.copy_(weight)
            images = [
                _outline_on_8(network, legacy, target) for target in (legacy, wide)
            ]
        alike.append(_correlation(*images))
        turned.append(_correlation(images[0], images[1].rot90(2, (2, 3))))
    assert sum(alike) / len(alike) > 0.9
    assert sum(turned) / len(turned) < 0.5


def _outline_on_8(network, source, target):
    prepared = _prepared(network, source, target, rows=1)
    mean = functional.avg_pool2d(prepared.outline.h, target.patch_size)
    return functional.interpolate(mean, size=8, mode="area")


def _correlation(one, other):
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]


@pytest.mark.parametrize("stamp_size", [14, 66])
def test_stamps_that_cannot_be_painted_are_refused(surveys, stamp_size):
    odd = dataclasses.replace(surveys[1], stamp_size=stamp_size, patch_size=2)
    with pytest.raises(ValueError, match=f"'stamp_size'.*{stamp_size}"):
        Network((surveys[0], odd), NetworkConfig(**TINY))


@pytest.mark.parametrize(("size", "new"), [(16, 12), (16, 8), (8, 11), (16, 21)])
def test_maps_are_resized_as_torch_would(size, new):
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 5, size, size, generator=generator)
    expected = functional.interpolate(maps, size=new, mode="bilinear")
    torch.testing.assert_close(_resized(maps, new), expected)
