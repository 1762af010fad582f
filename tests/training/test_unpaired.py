# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Galaxies of one survey alone are painted as the other sees them, and learned from."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from astro_disentangle import (
    CutoutError,
    Cutouts,
    Disentangler,
    SurveyMismatchError,
    WeightsError,
    simulate_pairs,
)
from astro_disentangle.keys import torch_generator
from astro_disentangle.quality import FLAGS
from astro_disentangle.training.objective import Objective
from astro_disentangle.training.source import PairsSource, Step
from astro_disentangle.training.unpaired import WithUnpaired, completed, read_unpaired

TINY = {
    "physics_widths": (8, 8, 8),
    "instrument_widths": (8, 8, 8),
    "decoder_width": 16,
    "condition": 16,
}


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(48, random_state=31)


def _step(pairs, seen="hsc", count=None):
    """Pairs, and all of their galaxies again as one survey alone saw them."""
    group = torch.as_tensor(pairs.groups)
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    few = slice(None, count)
    alone = Step({seen: batches[seen][few]}, group[few])
    few = {name: batch[few] for name, batch in batches.items()}
    return Step(few, group[:count], alone=alone)


def _cutouts(pairs, name):
    sky = np.stack([pairs.groups * 0.5, np.zeros(len(pairs))], 1)
    return Cutouts(pairs.batch(name), pairs.object_id, sky)


def _other(name):
    return {"hsc": "legacy", "legacy": "hsc"}[name]


@pytest.mark.parametrize("seen", ["hsc", "legacy"])
def test_a_painted_view_is_of_the_same_galaxy_under_conditions_that_there_are(
    model, pairs, seen
):
    step, network = _step(pairs, seen), model.network_
    whole = completed(network, step, torch_generator(3, "test"))
    assert list(whole.batches) == list(step.batches)
    assert whole.batches[seen] is step.alone.batches[seen]
    assert torch.equal(whole.group, step.alone.group)
    image, under = (part.batches[_other(seen)] for part in (whole, step))
    # Each has PSF, noise and bands of one galaxy that was observed.
    known = torch.cat([under.noise, under.psf_fwhm], 1).nan_to_num()
    rows = [
        (known == numbers).all(1).nonzero()[:, 0]
        for numbers in torch.cat([image.noise, image.psf_fwhm], 1).nan_to_num()
    ]
    assert min(len(row) for row in rows) > 0
    first = torch.stack([row[0] for row in rows])
    assert len(first.unique()) > 15
    assert torch.equal(image.present, under.present[first])
    assert not image.pixels[~image.good].any()
    assert torch.equal(image.keys, step.alone.batches[seen].keys)
    with torch.inference_mode():
        z, goal, truth = (
            functional.normalize(network.physics(network.view(batch)))
            for batch in (image, step.alone.batches[seen], under)
        )
    own = torch.arange(len(pairs))
    found = (z @ goal.T).argmax(1) == own
    assert found.float().mean() > 0.6
    assert ((z @ truth.T).argmax(1) == own).float().mean() > 0.4
    assert ((z @ goal.T).argmax(1) == own.roll(1)).float().mean() < 0.1


def test_the_painted_galaxy_is_where_its_batch_says(model):
    bright = simulate_pairs(300, random_state=5)
    rows = np.flatnonzero(
        (bright.truth["magnitude"].value < 20.5) & ~bright.truth["is_star"]
    )
    step = _step(bright[rows])
    image = completed(model.network_, step, torch_generator(1, "test")).batches[
        "legacy"
    ]
    _, _, offset = image.stamp()
    assert offset.abs().max() <= 0.5
    assert offset.std() > 0.2
    size = image.pixels.shape[-1]
    axis = torch.arange(size) - (size - 1) / 2
    flux = image.pixels[:, 1:3].sum(1).clamp(min=0)
    near = (axis[:, None] ** 2 + axis**2).sqrt() < 4
    weight = flux * near / (flux * near).sum((1, 2), keepdim=True)
    x, y = (weight.sum(dim) @ axis for dim in (1, 2))
    moved = torch.stack([x, y], 1)
    # A moment within a window follows the galaxy, if less than fully.
    for axis in (0, 1):
        both = torch.stack([moved[:, axis], offset[:, axis]])
        assert torch.corrcoef(both)[0, 1] > 0.6


def test_the_painted_sky_has_the_noise_that_it_claims(model, pairs):
    image = completed(model.network_, _step(pairs), torch_generator(2, "test"))
    image = image.batches["legacy"]
    pixels = image.pixels / image.noise[:, :, None, None]
    ratio = pixels.flatten(2).abs().median(2).values[image.present] / 0.6745
    assert 0.8 < ratio.median() < 1.25


def test_nothing_is_learned_from_the_painting(tiny_network, pairs):
    image = completed(tiny_network.train(), _step(pairs), torch_generator(4, "test"))
    assert not image.batches["legacy"].pixels.requires_grad


def test_pairs_are_learned_from_as_before(tiny_network, pairs):
    step = _step(pairs, count=8)
    loss, terms = Objective()(tiny_network, step, seed=5)
    before, known = Objective()(
        tiny_network, dataclasses.replace(step, alone=None), seed=5
    )
    assert set(terms) - set(known) == {"unpaired"}
    for name, value in known.items():
        assert torch.equal(value, terms[name]), name
    torch.testing.assert_close(loss, before + terms["unpaired"])
    half, _ = Objective(unpaired=0.5)(tiny_network, step, seed=5)
    torch.testing.assert_close(half, before + terms["unpaired"] / 2)


def test_painted_views_weigh_less_than_what_was_observed(tiny_network, pairs):
    step = _step(pairs, count=8)

    def unpaired(**weights):
        return Objective(**weights)(tiny_network, step, seed=5)[1]["unpaired"]

    instrument, some, all_of_it = (unpaired(cycle=c) for c in (0, 0.3, 1))
    torch.testing.assert_close(some - instrument, 0.3 * (all_of_it - instrument))
    torch.testing.assert_close(unpaired(), some)
    assert all_of_it != instrument
    half, whole = (unpaired(repainting=share) for share in (0.5, 1))
    torch.testing.assert_close(half - some, 0.5 * (whole - some))
    assert whole != some
    nothing = dict.fromkeys(("reading", "agree_instrument"), 0)
    assert unpaired(cycle=0, **nothing) == 0


@pytest.mark.parametrize("seen", ["hsc", "legacy"])
def test_only_what_was_observed_is_painted_at(tiny_network, pairs, seen):
    step = _step(pairs, seen, count=8)
    names = ("flow", "outline", "reading", "photometry", "contrast")
    names += ("agree_physics", "agree_instrument")

    def gradients(**weights):
        tiny_network.zero_grad()
        objective = Objective(**dict.fromkeys(names, 0) | weights)
        whole = completed(tiny_network, step, torch_generator(6, "test"))
        terms, _ = objective._terms(
            tiny_network, whole, [seen], torch_generator(6, "test"), seen
        )
        objective._total(terms).backward()
        return {
            name: 0.0 if p.grad is None else float(p.grad.abs().sum())
            for name, p in tiny_network.named_parameters()
        }

    every = dict.fromkeys(("outline", "flow", "reading", "photometry"), 1)
    other = _other(seen)
    found = gradients(**every, repainting=1)
    for layer in ("decoder.paint", "decoder.outline", "instrument.reading"):
        assert found[f"{layer}.{seen}.weight"] > 0
        assert found[f"{layer}.{other}.weight"] == 0
    # The default paints nothing from what is painted,
    found = gradients(**every)
    assert found[f"instrument.reading.{seen}.weight"] > 0
    assert not any(value for name, value in found.items() if "decoder." in name)
    # and draws the painted view to the one that was seen, not the other way.
    for name in ("agree_physics", "contrast"):
        drawn = gradients(**{name: 1})
        assert drawn[f"physics.stem.pixels.{other}.weight"] > 0
        assert drawn[f"physics.stem.pixels.{seen}.weight"] == 0


def test_sources_take_turns(pairs):
    sources = [
        PairsSource({name: pairs.batch(name)}, torch.arange(48), 8, seed)
        for seed, name in enumerate(pairs.surveys)
    ]
    both = {name: pairs.batch(name) for name in pairs.surveys}
    known = PairsSource(both, torch.as_tensor(pairs.groups), 8)
    source = WithUnpaired(known, tuple(sources), begin=2, n_shards=2)
    steps = [source(number) for number in range(8)]
    seen = [None if s.alone is None else list(s.alone.batches) for s in steps]
    assert seen == [None] * 4 + 2 * [["hsc"]] + 2 * [["legacy"]]
    for number, step in enumerate(steps):
        same = known(number)
        for name in both:
            assert torch.equal(step.batches[name].keys, same.batches[name].keys)
    assert not torch.equal(
        steps[4].alone.batches["hsc"].keys, steps[5].alone.batches["hsc"].keys
    )
    again = source(5).alone.batches["hsc"].pixels
    assert torch.equal(again, steps[5].alone.batches["hsc"].pixels)
    later = dataclasses.replace(source, begin=3)
    fewer = dataclasses.replace(source, others=tuple(sources[:1]))
    prints = {s.fingerprint for s in (source, later, fewer, known)}
    assert len(prints) == 4


def test_what_is_alone_is_turned_and_sent_too(pairs):
    step = _step(pairs, count=4)
    turned = step.turned(1, flip=True)
    expected = step.alone.batches["hsc"].turned(1, flip=True)
    assert torch.equal(turned.alone.batches["hsc"].pixels, expected.pixels)
    sent = step.to("meta")
    assert sent.alone.group.device.type == "meta"
    assert sent.alone.batches["hsc"].pixels.device.type == "meta"


def _fit(pairs, n_steps=5, **options):
    model = Disentangler(
        network=TINY, n_steps=n_steps, batch_size=8, progress=False, **options
    )
    unpaired = {name: _cutouts(pairs[16:], name) for name in pairs.surveys}
    return model, pairs[np.arange(16)], unpaired


def test_fit(pairs):
    model, few, unpaired = _fit(pairs)
    model.fit(few, unpaired=unpaired)
    assert np.isfinite(model.history_["unpaired"]).all()
    alone = _fit(pairs)[0].fit(few)
    assert "unpaired" not in alone.history_.colnames
    a, b = (m.transform(pairs.cutouts("hsc")[:2])["physics"] for m in (model, alone))
    assert not np.array_equal(a, b)


def test_pairs_come_first_unless_a_loaded_model_goes_on(pairs, monkeypatch):
    begun = []
    original = WithUnpaired.__call__

    def noted(self, number):
        step = original(self, number)
        begun.append(step.alone is not None)
        return step

    monkeypatch.setattr(WithUnpaired, "__call__", noted)
    model, few, unpaired = _fit(pairs, 10)
    model.fit(few, unpaired=unpaired)
    assert begun == [False] * 2 + [True] * 8
    begun.clear()
    model.loaded_ = True
    model.set_params(n_steps=2).fit(few, unpaired=unpaired)
    assert begun == [True] * 2


def test_interrupted_and_resumed_to_the_same_bits(pairs, tmp_path, monkeypatch):
    whole, few, unpaired = _fit(pairs)
    whole.fit(few, unpaired=unpaired)
    model, _, _ = _fit(pairs, directory=tmp_path)
    original = WithUnpaired.__call__

    def interrupted(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(WithUnpaired, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(few, unpaired=unpaired)
    with pytest.raises(WeightsError, match="its data are not the same"):
        _fit(pairs, directory=tmp_path)[0].fit(few, resume=True)
    model, _, _ = _fit(pairs, directory=tmp_path)
    model.fit(few, unpaired=unpaired, resume=True)
    state = model.network_.state_dict()
    for name, tensor in whole.network_.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_published_objective_can_be_joined(pairs):
    model, few, unpaired = _fit(pairs, recipe="counterfactual")
    model.fit(few, unpaired=unpaired)
    assert np.isfinite(model.history_["unpaired"]).all()


def test_only_usable_cutouts_are_learned_from(pairs, surveys):
    batch = pairs.batch("hsc")[:6]
    flags = batch.flags.clone()
    flags[2] |= FLAGS.UNUSABLE
    cutouts = _cutouts(pairs[np.arange(6)], "hsc")
    cutouts = dataclasses.replace(
        cutouts, batch=dataclasses.replace(batch, flags=flags)
    )
    known = {survey.name: survey for survey in surveys}
    (source,) = read_unpaired({"hsc": cutouts}, known, 8, seed=0)
    kept = set(source.batches["hsc"].keys.tolist())
    assert kept == set(batch.keys.tolist()) - {int(batch.keys[2])}
    assert len(source.group) == 5


def test_neighbours_on_the_sky_share_their_conditions(pairs, surveys):
    known = {survey.name: survey for survey in surveys}
    cutouts = _cutouts(pairs, "legacy")
    (source,) = read_unpaired({"legacy": cutouts}, known, 8, seed=0)
    same = pairs.groups[:, None] == pairs.groups
    group = source.group.numpy()
    assert np.array_equal(same, group[:, None] == group)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda own: [own], TypeError, "must be a mapping of survey .* got list"),
        (lambda _: {}, TypeError, "got an empty one"),
        (lambda own: {"kids": own}, SurveyMismatchError, "'unpaired' must be of"),
        (lambda own: {"legacy": own}, SurveyMismatchError, "cut-outs of hsc under"),
        (lambda own: {"hsc": own[:1]}, CutoutError, "two cut-outs of hsc"),
        (lambda own: {"hsc": [1.0]}, CutoutError, "cut-out"),
    ],
)
def test_errors(pairs, make, error, message):
    model, few, _ = _fit(pairs)
    with pytest.raises(error, match=message):
        model.fit(few, unpaired=make(_cutouts(pairs, "hsc")))
    assert not hasattr(model, "network_")


def test_other_pixels_are_refused(pairs):
    model, few, _ = _fit(pairs)
    own = _cutouts(pairs, "hsc")
    turned = own.batch.affine.clone()
    turned[3, :, :2] = turned[3, [1, 0], :2]
    own = dataclasses.replace(own, batch=dataclasses.replace(own.batch, affine=turned))
    with pytest.raises(CutoutError, match="pixel grid of hsc.*Use the survey's own"):
        model.fit(few, unpaired={"hsc": own})
