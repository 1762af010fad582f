# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A rule of four steps that ends where many steps do."""

import copy

import pytest
import torch

from astro_disentangle.model.flow import STEPS, adams_rule, follow, integrate
from astro_disentangle.training.few_steps import learn_rules
from astro_disentangle.training.source import SimulatedSource


@pytest.fixture(scope="module")
def source(surveys):
    return SimulatedSource(
        surveys, n_groups=2, group_size=4, seed=9, revisit_every=0, elsewhere=False
    )


@pytest.fixture
def restless(tiny_network):
    """A network whose flow has something to do."""
    network = copy.deepcopy(tiny_network)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("n_steps", [1, 4, 9])
def test_adams_as_a_rule_is_adams(n_steps):
    y = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def velocity(y, t):
        return torch.sin(3 * y) * (1 + t[:, None])

    expected = integrate(velocity, y, torch.ones_like(y), n_steps=n_steps)
    rule = adams_rule(n_steps).double()
    torch.testing.assert_close(follow(velocity, y, rule), expected, rtol=1e-5, atol=0)


def test_without_velocity_nothing_moves():
    y = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    rule = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(follow(lambda y, t: 0 * y, y, rule), y)


def test_learned_rules_end_nearer_to_many_steps(restless, source):
    before = {n: restless.decoder.rule(n).clone() for n in restless.surveys}
    weights = copy.deepcopy(dict(restless.named_parameters()))
    gain = learn_rules(restless, source, seed=1, n_pairs=16, n_updates=40)
    for name, rule in before.items():
        learned = restless.decoder.rule(name)
        assert gain[name] < 0.9
        assert not torch.equal(learned, rule)
        assert learned[0, 0] == 0
        assert (learned[:, 0].diff() > 0).all()
        assert torch.equal(learned[:, 1:], learned[:, 1:].tril())
    for name, parameter in restless.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.requires_grad


def test_what_is_learned_depends_on_the_seed_alone(restless, source):
    other = copy.deepcopy(restless)
    before = torch.random.get_rng_state()
    for network in (restless, other):
        learn_rules(network, source, seed=2, n_pairs=8, n_updates=3)
    assert torch.equal(before, torch.random.get_rng_state())
    for name in restless.surveys:
        assert torch.equal(restless.decoder.rule(name), other.decoder.rule(name))


def test_a_worse_rule_is_not_taken(restless, source, monkeypatch):
    monkeypatch.setattr("astro_disentangle.training.few_steps._RATE", 10.0)
    before = {n: restless.decoder.rule(n).clone() for n in restless.surveys}
    gain = learn_rules(restless, source, seed=1, n_pairs=8, n_updates=3)
    for name, rule in before.items():
        assert gain[name] > 1
        assert torch.equal(restless.decoder.rule(name), rule)


def test_published_network_has_no_rules(published_network, source):
    assert learn_rules(published_network, source, seed=0) == {}


def test_the_network_follows_its_rule_at_its_number_of_steps(restless, source):
    """Another rule gives other views of four steps, and the same of any other."""
    batch = source(0).batches["hsc"]
    view = restless.view(batch)
    z_physics = restless.physics(view)
    z_instrument = restless.describe("legacy", *torch.full((2, 1, 4), torch.nan))
    prepare = {
        "source": "hsc",
        "observation": view.observation,
        "target": "legacy",
        "offset": torch.zeros(len(batch), 2),
    }
    x_0 = torch.randn(8, 1, 4, 32, 32, generator=torch.Generator().manual_seed(3))

    def views(n_steps):
        z = z_instrument.expand(len(batch), -1)
        options = {"prepare": prepare, "n_steps": n_steps}
        return restless.translate(z_physics, z, x_0, **options)

    before = views(STEPS), views(STEPS + 1)
    restless.decoder.rule("legacy").mul_(0.9)
    after = views(STEPS), views(STEPS + 1)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
