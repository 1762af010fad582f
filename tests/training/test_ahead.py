# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Steps made ahead by other processes: the same steps, in any order of asking."""

import dataclasses

import pytest
import torch

from astro_disentangle.model.network import Network
from astro_disentangle.training.ahead import Ahead
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.source import SimulatedSource

#: More workers than processors are slow, and as good.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@dataclasses.dataclass(frozen=True)
class _Broken:
    """A source that fails at its third step."""

    source: object
    fingerprint: int = 0

    def __call__(self, step):
        if step == 2:
            raise ValueError("this disc is full of holes")
        return self.source(step)


@pytest.fixture(scope="module")
def source(surveys):
    return SimulatedSource(surveys, n_groups=1, group_size=2, seed=3)


def _tensors(step):
    batches = [*step.batches.values(), step.elsewhere, step.revisit]
    return [
        getattr(batch, name)
        for batch in batches
        if batch is not None
        for name in ("pixels", "good", "noise", "psf_fwhm", "affine", "keys")
    ]


def _same(a, b):
    pairs = zip(_tensors(a), _tensors(b), strict=True)
    return all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)


def test_steps_are_those_of_the_source(source):
    ahead = Ahead(source, n_workers=2)
    for number in (0, 1, 2, 7, 5):
        assert _same(ahead(number), source(number))


def test_what_is_made_is_shown_again_turned(source):
    ahead = Ahead(source, n_workers=1, uses=2)
    for number in range(4):
        ahead(2 * number)
    first, again = ahead(36), ahead(37)
    assert _same(first, source(18))
    made = source(2)
    assert torch.equal(again.batches["hsc"].keys, made.batches["hsc"].keys)
    flux = again.batches["hsc"].pixels, made.batches["hsc"].pixels
    assert not torch.equal(*flux)
    assert torch.allclose(*(x.sum((2, 3)) for x in flux), rtol=1e-4, atol=1.0)


def test_any_place_to_go_on_from_gives_the_same_steps(source):
    once = Ahead(source, n_workers=2, uses=2)
    steps = [once(number) for number in range(38)]
    again = Ahead(source, n_workers=1, uses=2)
    assert _same(again(37), steps[37])
    assert _same(again(3), steps[3])
    assert once.fingerprint == again.fingerprint
    assert once.fingerprint != Ahead(source, n_workers=1).fingerprint


def test_global_randomness_is_left_alone(source):
    before = torch.random.get_rng_state()
    Ahead(source, n_workers=1)(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_fails_in_a_worker_fails_here(source):
    ahead = Ahead(_Broken(source), n_workers=1)
    ahead(1)
    with pytest.raises(ValueError, match="full of holes"):
        ahead(2)


def test_numbers_of_workers_and_uses_are_checked(source):
    with pytest.raises(ValueError, match="n_workers"):
        Ahead(source, n_workers=0)
    with pytest.raises(ValueError, match="uses"):
        Ahead(source, n_workers=1, uses=0)


def test_training_goes_on_with_the_same_bits(source, tiny_network, tmp_path):
    settings = Settings(n_steps=4, seed=1)

    def trainer(folder):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            network = Network(source.surveys, tiny_network.config)
        ahead = Ahead(source, n_workers=1, uses=2)
        return Trainer(network, ahead, RECIPES["default"], settings, folder)

    whole = trainer(None)
    whole.run(progress=False)
    trainer(tmp_path).run(until=3, progress=False)
    rest = trainer(tmp_path)
    assert rest.resume()
    rest.run(progress=False)
    for name, value in whole.averaged().items():
        assert torch.equal(value, rest.averaged()[name]), name
