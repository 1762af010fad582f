# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Residual latents: where they come from, where they go, and what they leave alone."""

import dataclasses

import numpy as np
import pytest
import torch

from astro_disentangle import (
    CutoutError,
    Disentangler,
    NotFittedError,
    SurveyMismatchError,
    WeightsError,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.data.batch import COMMON_SCALE
from astro_disentangle.model.encoder import View
from astro_disentangle.model.network import Network
from astro_disentangle.model.residual import Residual
from astro_disentangle.training.extension import extended
from astro_disentangle.training.objective import Objective
from astro_disentangle.training.residual import residual_objective, with_residual
from astro_disentangle.training.source import PairsSource, Step

TINY = {
    "physics_widths": (8, 8, 8),
    "instrument_widths": (8, 8, 8),
    "decoder_width": 16,
    "condition": 16,
    "residual_width": 8,
}


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(16, random_state=41)


@pytest.fixture(scope="module")
def again():
    return simulate_pairs(16, random_state=41, visit=1)


@pytest.fixture
def small(pairs):
    """A small model without residual latents."""
    options = {"n_steps": 2, "batch_size": 8, "progress": False}
    return Disentangler(network=TINY, **options).fit(pairs)


def _without(network):
    """The same network without residual latents."""
    plain = Network(tuple(network.surveys.values()), network.config)
    plain.load_state_dict(network.state_dict(), strict=False)
    return plain.eval()


def _prepared(network, batch, target, residual, offset=None):
    view = network.view(batch)
    z_physics = network.physics(view)
    offset = torch.zeros(len(batch), 2) if offset is None else offset
    survey = network.surveys[target]
    numbers = (
        torch.tensor(n).expand(len(batch), -1)
        for n in (survey.psf_fwhm, survey.pixel_noise())
    )
    detail = network.residual_of(view, z_physics, target) if residual else None
    return network.prepare(
        z_physics,
        network.describe(target, *numbers),
        source=batch.survey.name,
        observation=view.observation,
        target=target,
        offset=offset,
        residual=detail,
    )


# --- the map on the sky --------------------------------------------------------


@pytest.mark.parametrize("name", ["hsc", "legacy", "sdss", "lsst"])
def test_the_map_stays_in_its_place(name):
    survey = get_survey(name)
    seen = []
    layers = Residual((survey,), 2, 4, 1, 4, 8, 8)
    layers.look.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    # The map holds its own place on the sky, arcsec west and north of the galaxy.
    axis = (torch.arange(24) - 11.5) * 2 * COMMON_SCALE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    offset = torch.tensor([[0.0, 0.0], [0.4, -0.3]])
    count = survey.stamp_size // survey.patch_size
    layers.additions(
        torch.stack([x, y]).expand(2, 2, 24, 24),
        torch.zeros(2, 8, count, count),
        torch.zeros(2, 8),
        survey=survey,
        offset=offset,
    )
    found = seen[0][:, :8].unflatten(1, (2, 2, 2))
    # Quarters of a patch: two along x, two along y, at the middle of each.
    patch = survey.patch_size
    middle = torch.arange(count) * patch + (patch - 1) / 2 - (survey.stamp_size - 1) / 2
    inside = middle.abs() * survey.pixel_scale < 3.3
    for row in range(2):
        for part in range(2):
            step = (part - 0.5) * patch / 2
            place = [
                (middle + step - offset[row, axis]) * survey.pixel_scale
                for axis in (0, 1)
            ]
            west = found[row, 0, :, part][:, inside][:, :, inside]
            north = found[row, 1, part, :][:, inside][:, :, inside]
            want = place[0][inside].expand_as(west)
            torch.testing.assert_close(west, want, rtol=0, atol=1e-5)
            want = place[1][inside][:, None].expand_as(north)
            torch.testing.assert_close(north, want, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_surplus_is_what_the_own_outline_lacks(model, pairs):
    network = model.network_
    for name in pairs.surveys:
        batch = pairs.batch(name)
        view = network.view(batch)
        z_physics = network.physics(view)
        surplus = network.surplus(view, z_physics)
        # A little light more, at one place of one band, is seen there and as much.
        place, band, more = (slice(None), 1, 24, 30), 1, 0.05
        x = view.x.clone()
        x[place] = torch.asinh(x[place].sinh() + more)
        brighter = View(view.survey, x, view.good, view.observation)
        mean = _mean_of(network, view, z_physics)
        change = (network.surplus(brighter, z_physics) - surplus)[:, band, 24, 30]
        middle = (mean[:, band, 24, 30] ** 2 + 1).sqrt()
        before = surplus[:, band, 24, 30].sinh()
        expected = torch.asinh(before + more / middle) - surplus[:, band, 24, 30]
        good = view.good[:, band, 24, 30] > 0
        # The instrument latent sees the new pixel as well, and moves the mean a bit.
        torch.testing.assert_close(change[good], expected[good], rtol=0.3, atol=5e-3)
        assert not surplus[view.good == 0].any()


def _mean_of(network, view, z_physics):
    """Mean flux of the own outline, on the common grid, in units of the softening."""
    own = torch.eye(len(z_physics), dtype=torch.bool)
    z = network.instrument.pool(network.instrument.members(view), own)
    known = {"source": view.survey, "target": view.survey}
    offset = torch.zeros(len(z), 2)
    outline = network.prepare(
        z_physics, z, observation=view.observation, offset=offset, **known
    ).outline
    size, scale = outline.h.shape[-1], network.surveys[view.survey].pixel_scale
    axis = (torch.arange(48) - 23.5) * COMMON_SCALE / scale * 2 / size
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    grid = grid.expand(len(z), 48, 48, 2)
    return torch.nn.functional.grid_sample(
        outline.h.sinh(), grid, align_corners=False, padding_mode="border"
    )


@torch.inference_mode()
def test_no_surplus_where_the_image_is_the_outline(model, pairs):
    network, batch = model.network_, pairs.batch("legacy")
    view = network.view(batch)
    z_physics = network.physics(view)
    mean = _mean_of(network, view, z_physics)
    same = View(
        view.survey, torch.asinh(mean), torch.ones_like(view.good), view.observation
    )
    nothing = network.surplus(same, z_physics)
    noise = network.surplus(view, z_physics)
    assert nothing.square().mean().sqrt() < 0.25 * noise.square().mean().sqrt()


# --- what stays as it was -------------------------------------------------------


@torch.inference_mode()
def test_untrained_residuals_add_nothing(small, pairs):
    network = with_residual(small.network_, pairs.surveys, 0).eval()
    for source, target in (("hsc", "legacy"), ("legacy", "hsc"), ("hsc", "hsc")):
        batch = pairs.batch(source)
        one, other = (
            _prepared(network, batch, target, residual) for residual in (True, False)
        )
        assert torch.equal(one.outline.h, other.outline.h)
        assert torch.equal(one.fine, other.fine)


def test_all_else_is_frozen(small, pairs, again):
    galaxies = pairs.cutouts("hsc")
    before = small.transform(galaxies)
    view = small.translate(galaxies[0], survey="legacy")
    state = {n: t.clone() for n, t in small.network_.state_dict().items()}
    bank = small.bank_
    small.fit_residual(pairs, revisits=again)
    after = small.network_.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, after[name]), name
    new = set(after) - set(state)
    assert new
    assert all(name.startswith("residual.") for name in new)
    assert small.bank_ is bank
    assert all(p.requires_grad for p in small.network_.parameters())
    table = small.transform(galaxies)
    for kind in ("physics", "instrument"):
        assert np.array_equal(before[kind], table[kind])
    plain = small.translate(galaxies[0], survey="legacy", residual=False)
    assert np.array_equal(view.data, plain.data)
    moved = small.translate(galaxies[0], survey="legacy")
    assert not np.array_equal(view.data, moved.data)


def test_a_second_training_goes_on(small, pairs, again):
    small.fit_residual(pairs, revisits=again)
    first = {n: t.clone() for n, t in small.network_.residual.state_dict().items()}
    network = with_residual(small.network_, pairs.surveys, 7)
    for name, tensor in network.residual.state_dict().items():
        assert torch.equal(tensor, first[name])


# --- training -------------------------------------------------------------------


def _objective(**changes):
    return residual_objective(dataclasses.replace(Objective(), **changes))


def _step(pairs, again, name=None):
    batches = {survey: pairs.batch(survey) for survey in pairs.surveys}
    revisit = None if name is None else again.batch(name)
    return Step(batches, torch.as_tensor(pairs.groups), revisit)


@pytest.mark.parametrize("name", [None, "hsc", "legacy"])
def test_the_target_is_never_encoded(small, pairs, again, name, monkeypatch):
    network = with_residual(small.network_, pairs.surveys, 0)
    step, painted = _step(pairs, again, name), []
    original = Network.residual_of

    def noted(self, view, z_physics, target):
        painted.append((view.survey, target, view.x))
        return original(self, view, z_physics, target)

    monkeypatch.setattr(Network, "residual_of", noted)
    _, terms = _objective(drop_bands=0)(network, step, seed=0)
    directions = [(source, target) for source, target, _ in painted]
    expected = {("legacy", "hsc"), ("hsc", "legacy")} | (
        {(name, name)} if name else set()
    )
    assert set(directions) == expected
    assert len(directions) == len(expected)
    assert ("revisit" in terms) == (name is not None)
    for source, target, x in painted:
        own = network.view(step.batches[target]).x
        if source == target:
            assert torch.equal(x, network.view(again.batch(name)).x)
            assert not torch.equal(x, own)


def test_gradients_are_of_the_residual_alone(small, pairs, again):
    network = with_residual(small.network_, pairs.surveys, 0)
    # What is zero at first would hide what comes before it.
    with torch.no_grad():
        for parameter in network.residual.parameters():
            parameter.add_(0.01)
    loss, _ = _objective()(network, _step(pairs, again, "hsc"), seed=0)
    loss.backward()
    for name, parameter in network.named_parameters():
        if name.startswith("residual."):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_pairs_are_shown_with_their_revisits(pairs, again):
    batches, more = (
        {name: some.batch(name) for name in pairs.surveys} for some in (pairs, again)
    )
    group = torch.as_tensor(pairs.groups)
    source = PairsSource(batches, group, 16, revisits=more)
    kinds = [source(n).revisit.survey.name for n in range(4)]
    assert kinds == ["hsc", "legacy"] * 2
    plain = PairsSource(batches, group, 16)
    assert plain(0).revisit is None
    assert plain.fingerprint != source.fingerprint
    for number in range(4):
        step, same = source(number), plain(number)
        name = step.revisit.survey.name
        assert torch.equal(step.batches[name].pixels, same.batches[name].pixels)
        # The same galaxies, turned in the same way: light falls on the same places.
        seen, other = (
            b.pixels.sum(1).clamp(0, 200) for b in (step.batches[name], step.revisit)
        )
        third = seen.shape[-1] // 3
        for part in (seen, other):
            # Neighbours stand on one side, the galaxy itself is round enough.
            part[:, third:-third, third:-third] = 0
        alike, mirrored, turned = (
            torch.corrcoef(torch.stack([seen.flatten(), part.flatten()]))[0, 1]
            for part in (other, other.flip(-1), other.rot90(1, (-2, -1)))
        )
        assert alike > 0.1 + max(mirrored, turned)


# --- use ------------------------------------------------------------------------


@pytest.fixture
def fitted(small, pairs, again):
    return small.fit_residual(pairs, revisits=again)


def test_transform(fitted, pairs):
    cutouts = pairs.cutouts("hsc")[:3]
    bad = cutouts[1].copy() if hasattr(cutouts[1], "copy") else cutouts[1]
    bad.mask[...] = True
    table = fitted.transform([cutouts[0], bad, cutouts[2]], residual=True)
    residual = np.asarray(table["residual"])
    assert residual.shape == (3, 6, 24, 24)
    assert residual.dtype == np.float32
    assert np.isnan(residual[1]).all()
    assert np.isfinite(residual[[0, 2]]).all()
    assert "residual" not in fitted.transform(cutouts[:1]).colnames
    network, batch = fitted.network_, pairs.batch("hsc")[:1]
    with torch.inference_mode():
        view = network.view(batch)
        own = network.residual_of(view, network.physics(view), "hsc")
    # A cut-out in the unit of its survey has rounded pixels.
    np.testing.assert_allclose(residual[0], own[0], atol=1e-3 * own.std().item())


def test_rows_do_not_depend_on_one_another(fitted, pairs):
    cutouts = list(pairs.cutouts("legacy"))
    whole = fitted.transform(cutouts, residual=True)["residual"]
    parts = fitted.transform(cutouts, residual=True, batch_size=3)["residual"]
    np.testing.assert_allclose(whole, parts, atol=1e-5 * np.std(whole))


def test_reconstruction_may_use_it(fitted, pairs):
    cutout = pairs.cutouts("hsc")[0]
    with_it, without = (
        fitted.reconstruct(cutout, residual=r).data for r in (True, False)
    )
    assert not np.array_equal(with_it, without)


def test_written_and_read(fitted, pairs, tmp_path):
    fitted.save(tmp_path / "more.safetensors")
    read = Disentangler.load(tmp_path / "more.safetensors")
    assert read.network_.residual_surveys == ("hsc", "legacy")
    cutout = pairs.cutouts("hsc")[0]
    views = [m.translate(cutout, survey="legacy").data for m in (fitted, read)]
    assert np.array_equal(*views)
    assert read.network == {**TINY}


def test_a_file_that_lies_about_its_residuals(fitted, tmp_path):
    from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint

    path = tmp_path / "more.safetensors"
    fitted.save(path)
    tensors, config, _ = read_checkpoint(path)
    for names in ([], ["hsc"], ["hsc", "kids"], 3):
        write_checkpoint(path, tensors, {**config, "residual": names})
        with pytest.raises(WeightsError):
            Disentangler.load(path)


def test_none_without_training(small, pairs):
    cutout = pairs.cutouts("hsc")[0]
    with pytest.raises(
        NotFittedError, match=r"residual latents of 'hsc'.*fit_residual"
    ):
        small.transform(cutout, residual=True)
    with pytest.raises(NotFittedError, match="fit_residual"):
        small.translate(cutout, survey="legacy", residual=True)
    assert small.network_.residual_surveys == ()


def test_fine_tuning_forgets_them(fitted, pairs):
    fitted.loaded_ = True
    fitted.fit(pairs)
    assert fitted.network_.residual_surveys == ()


def test_a_further_survey_has_none(fitted):
    more = extended(fitted.network_, get_survey("des"))
    assert more.residual_surveys == ("hsc", "legacy")
    batch = simulate_pairs(2, surveys=("hsc", "des"), random_state=1)
    with torch.inference_mode():
        for source, target in (("des", "hsc"), ("hsc", "des")):
            view = more.view(batch.batch(source))
            assert more.residual_of(view, more.physics(view), target) is None
        view = more.view(batch.batch("hsc"))
        own = more.residual_of(view, more.physics(view), "legacy")
        known = fitted.network_
        old = known.residual_of(view, known.physics(view), "legacy")
    assert torch.equal(own, old)


def test_interrupted_and_resumed_to_the_same_bits(
    small, pairs, again, tmp_path, monkeypatch
):
    path = tmp_path / "small.safetensors"
    small.save(path)

    def model(**options):
        options = {"n_steps": 4, "batch_size": 8, "progress": False} | options
        return Disentangler.load(path).set_params(**options)

    whole = model().fit_residual(pairs, revisits=again)
    original = PairsSource.__call__

    def interrupted(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(PairsSource, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(directory=tmp_path).fit_residual(pairs, revisits=again)
    resumed = model(directory=tmp_path).fit_residual(pairs, revisits=again, resume=True)
    state = resumed.network_.state_dict()
    for name, tensor in whole.network_.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_errors(small, pairs, again):
    with pytest.raises(NotFittedError):
        Disentangler().fit_residual(pairs)
    des = simulate_pairs(4, surveys=("hsc", "des"), random_state=1)
    with pytest.raises(SurveyMismatchError, match="'pairs' must be of two of"):
        small.fit_residual(des)
    with pytest.raises(SurveyMismatchError, match="'revisits' must be of"):
        small.fit_residual(pairs, revisits=des)
    with pytest.raises(CutoutError, match=r"'revisits' must have as many.*16; got 15"):
        small.fit_residual(pairs, revisits=again[np.arange(15)])
    with pytest.raises(TypeError, match="'revisits'"):
        small.fit_residual(pairs, revisits=[again])
