# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Each term of the objective does what its definition says."""

import dataclasses
import math

import pytest
import torch

from astro_disentangle.training.objective import (
    RECIPES,
    Objective,
    _nearness,
    contrast,
    effective_rank,
)
from astro_disentangle.training.source import SimulatedSource

TERMS = (
    "flow",
    "outline",
    "agree_physics",
    "agree_instrument",
    "reading",
    "photometry",
    "contrast",
)


@pytest.fixture(scope="module")
def step(surveys):
    return SimulatedSource(surveys, n_groups=2, group_size=4, seed=1)(1)


def test_counterfactual_recipe_is_the_flow_alone(tiny_network, step):
    loss, terms = RECIPES["counterfactual"](tiny_network, step, seed=0)
    assert loss.item() == terms["flow"].item()


def test_default_recipe_adds_its_terms(tiny_network, step):
    recipe = RECIPES["default"]
    loss, terms = recipe(tiny_network, step, seed=0)
    expected = sum(getattr(recipe, name) * terms[name].item() for name in TERMS)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_target_is_never_encoded(tiny_network, step):
    """What the decoder is given for a target does not change with its pixels.

    Row 0 is replaced in HSC: as a target in HSC it must be told the same as
    before, as the source of a target in Legacy something else.
    """
    network = tiny_network
    objective = Objective(
        outline=0,
        agree_physics=0,
        agree_instrument=0,
        reading=0,
        photometry=0,
        contrast=0,
        described=0,
        drop_bands=0,
    )
    hsc = step.batches["hsc"]
    pixels = hsc.pixels.clone()
    pixels[0] = pixels[0].flip(-1) * 3
    changed = dataclasses.replace(
        step,
        batches={**step.batches, "hsc": dataclasses.replace(hsc, pixels=pixels)},
    )

    def told(step):
        given = {}
        original = network.prepare

        def spy(z_physics, z_instrument, **rest):
            given[rest["source"], rest["target"]] = z_physics, z_instrument
            return original(z_physics, z_instrument, **rest)

        network.prepare = spy
        try:
            objective(network, step, seed=0)
        finally:
            network.prepare = original
        return given

    before, after = told(step), told(changed)
    assert set(before) == {("hsc", "legacy"), ("legacy", "hsc")}
    physics, instrument = (
        torch.equal(a[0], b[0])
        for a, b in zip(before["legacy", "hsc"], after["legacy", "hsc"], strict=True)
    )
    assert physics
    assert instrument
    assert not torch.equal(before["hsc", "legacy"][0][0], after["hsc", "legacy"][0][0])


def test_revisit_is_the_source_in_its_own_survey(tiny_network, surveys):
    """Translation within a survey is trained on another visit, not on the target."""
    source = SimulatedSource(surveys, n_groups=2, group_size=4, revisit_every=1)
    seen = []
    original = tiny_network.prepare

    def spy(z_physics, z_instrument, **rest):
        seen.append((rest["source"], rest["target"]))
        return original(z_physics, z_instrument, **rest)

    tiny_network.prepare = spy
    RECIPES["default"](tiny_network, source(0), seed=0)
    assert sorted(seen) == [("hsc", "hsc"), ("hsc", "legacy")]
    step = source(0)
    assert not torch.equal(step.revisit.pixels, step.batches["hsc"].pixels)
    assert not torch.equal(step.revisit.psf_fwhm, step.batches["hsc"].psf_fwhm)


def test_donors_are_other_galaxies_of_the_group(tiny_network, step):
    """A galaxy's instrument latent does not change with its own pixels."""
    network = tiny_network
    generator = torch.Generator().manual_seed(0)
    objective = Objective(described=0)
    view = network.view(step.batches["hsc"])
    changed = dataclasses.replace(view, x=view.x.clone())
    changed.x[0] += 5

    def donors(view):
        generator.manual_seed(0)
        return objective._instrument(network, view, step.group, generator)

    own, borrowed = donors(view)
    own_2, borrowed_2 = donors(changed)
    assert torch.equal(borrowed[0], borrowed_2[0])
    assert not torch.equal(own[0], own_2[0])
    # Galaxies of the other group never see it.
    assert torch.equal(borrowed[4:], borrowed_2[4:])
    assert not torch.equal(borrowed[1:4], borrowed_2[1:4])


def test_withheld_bands_leave_at_least_one(tiny_network, step):
    view = tiny_network.view(step.batches["hsc"])
    generator = torch.Generator().manual_seed(0)
    shown = Objective(drop_bands=1.0)._withhold(view, generator)
    kept = (shown.good.amax((2, 3)) > 0).sum(1)
    assert (kept >= 1).all()
    assert (kept < 5).any()
    gone = shown.good.amax((2, 3)) == 0
    assert (shown.observation.reshape(-1, 5, 5).transpose(1, 2)[gone] == 0).all()


def test_the_band_that_is_left_is_one_that_is_there(tiny_network, step):
    """A view of one band must not be withheld to nothing."""
    view = tiny_network.view(step.batches["hsc"])
    bands = view.x.shape[1]
    there = torch.arange(bands) == 2
    alone = dataclasses.replace(
        view,
        good=view.good * there[:, None, None],
        observation=view.observation * there.repeat(5),
    )
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        shown = Objective(drop_bands=1.0)._withhold(alone, generator)
        assert shown.good[:, 2].flatten(1).any(1).all()
        assert (shown.observation[:, 2] == 1).all()


def test_conditions_are_described_where_a_band_is_missing(tiny_network, step):
    """What is known of the other bands is told as numbers all the same."""
    view = tiny_network.view(step.batches["hsc"])
    bands = view.x.shape[1]
    there = (torch.arange(bands) != 1).float()
    view = dataclasses.replace(
        view,
        good=view.good * there[:, None, None],
        observation=view.observation * there.repeat(5),
    )
    told = tiny_network.instrument.described("hsc", view.observation)
    every = torch.eye(len(told), dtype=torch.bool)
    expected = tiny_network.instrument.pool(told, every)
    generator = torch.Generator().manual_seed(0)
    objective = Objective(described=1.0)
    _, donors = objective._instrument(tiny_network, view, step.group, generator)
    assert torch.allclose(donors, expected, atol=1e-5)


def test_contrast_prefers_matching_views():
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    assert contrast(z, z, 0.1) < 0.1 < contrast(z, z.roll(1, 0), 0.1)


def test_contrast_punishes_a_latent_that_tells_the_survey():
    z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    mark = torch.zeros(8)
    mark[0] = 3
    assert contrast(z + mark, z - mark, 0.1) > contrast(z, z, 0.1) + 1


def test_effective_rank_bounds():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 6, generator=generator)
    assert 5.5 < effective_rank(z) <= 6
    line = z[:, :1] * torch.ones(6)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)


def test_pixels_at_the_galaxy_count_for_more(tiny_network, step):
    """An error at the galaxy weighs more than the same error at the edge."""
    flows = []
    for place in (slice(20, 28), slice(0, 8)):
        hsc = step.batches["hsc"]
        pixels = hsc.pixels.clone()
        pixels[:, :, place, place] += 50 * hsc.noise.nan_to_num(1)[:, :, None, None]
        changed = dataclasses.replace(hsc, pixels=pixels)
        batches = {"hsc": changed, "legacy": step.batches["legacy"]}
        given = dataclasses.replace(step, batches=batches)
        with_centre, without = (
            Objective(centre=centre)(tiny_network, given, seed=0)[1]["flow"].item()
            for centre in (8.0, 0.0)
        )
        flows.append(with_centre / without)
    assert flows[0] > 1.1 * flows[1]


def test_nearness_peaks_at_the_galaxy(surveys):
    offset = torch.tensor([[0.0, 0.0], [3.5, -2.5]])
    near = _nearness(surveys[0], offset)
    assert near.shape == (2, 48, 48)
    assert near[0, 23, 23].item() == pytest.approx(near[0, 24, 24].item())
    assert near[1].argmax().item() == 21 * 48 + 27
    radius = 1.5 / surveys[0].pixel_scale
    row = _nearness(surveys[0], torch.tensor([[0.5 + round(radius), 0.5]]))[0, 24]
    assert row[24].item() == pytest.approx(math.exp(-0.5), abs=0.02)


def _loss_of(network, step, *names, **settings):
    """Gradients of some terms with respect to the outline's layer and the flow's."""
    off = dict.fromkeys(TERMS, 0.0)
    objective = Objective(**{**off, **dict.fromkeys(names, 1.0), **settings})
    network.zero_grad()
    objective(network, step, seed=0)[0].backward()
    decoder = network.decoder

    def moved(layers):
        gradients = [layer.weight.grad for layer in layers.values()]
        return any(g is not None and bool(g.abs().max() > 0) for g in gradients)

    return moved(decoder.outline), moved(decoder.paint)


def test_outline_is_learned_from_its_own_term_alone(tiny_network, step):
    """The flow takes the outline as given: it could widen it to please itself."""
    assert _loss_of(tiny_network, step, "flow") == (False, True)
    assert _loss_of(tiny_network, step, "outline") == (True, False)


def test_outline_term_is_that_of_the_sky_at_first(tiny_network, step):
    """Normal in the flux where the residual is linear; the new outline is empty."""
    with torch.no_grad():
        for layer in tiny_network.instrument.reading.values():
            layer.weight.zero_()
    faint = {
        name: dataclasses.replace(batch, pixels=batch.pixels.clamp(-100, 100))
        for name, batch in step.batches.items()
    }
    step = dataclasses.replace(step, batches=faint)
    objective = Objective(centre=0, described=0, told=0)
    told = objective(tiny_network, step, seed=0)[1]["outline"].item()
    expected = []
    for name, batch in faint.items():
        pixels, good, _ = batch.stamp()
        flux = pixels / tiny_network.softening(name)
        assert flux.abs()[good].quantile(0.999) < 40
        with torch.no_grad():
            variance = tiny_network.sky_variance(torch.zeros(1, 8), name)
        variance = variance[:, :, None, None]
        # Beyond a deviation of two and four sigma the residual is logarithmic.
        linear = 2 + 4 * variance.sqrt()
        variance = variance + math.exp(-4)
        over = (flux.abs() / linear).clamp(min=1).log()
        bent = torch.where(over > 0, linear * (1 + over), flux.abs())
        term = bent.square() / variance / 2 + variance.log() / 2 + over
        expected.append((term * good).sum() / good.sum())
    assert told == pytest.approx(sum(expected).item() / 2, rel=1e-4)


def test_published_flow_is_that_of_stretched_pixels(published_network, step):
    """Of a decoder that says nothing, the error is that of the straight path."""
    network, hsc = published_network, step.batches["hsc"]
    pixels, good, _ = hsc.stamp()
    rows = len(pixels)
    settings = {**dict.fromkeys(TERMS, 0.0), "flow": 1.0, "scaled": False, "centre": 0}
    objective = Objective(**settings, told=0)
    generator = torch.Generator().manual_seed(3)
    z, z_instrument = torch.zeros(rows, 16), torch.zeros(rows, 8)
    source = network.view(step.batches["legacy"])
    flow, _ = objective._painting_errors(
        network, hsc, z, source, z_instrument, generator
    )
    generator.manual_seed(3)
    torch.rand(rows, 1, generator=generator)  # whose noise is told
    x_1 = network.stretch(pixels, "hsc")
    x_0 = torch.randn(x_1.shape, generator=generator)
    order = torch.randperm(rows, generator=generator)
    t = (order + torch.rand(rows, generator=generator)) / rows
    t = t[:, None, None, None]
    v = network.sky_variance(z_instrument, "hsc")[:, :, None, None]
    # E[x_1 - x_0 | x_t] of pure noise of variance v.
    x_t = (1 - t) * x_0 + t * x_1
    told = (t * v - (1 - t)) / (t**2 * v + (1 - t) ** 2) * x_t
    error = (told - (x_1 - x_0)).square()
    expected = (error * good).sum() / good.sum()
    assert flow.item() == pytest.approx(expected.item(), rel=1e-4)


def test_galaxies_meet_among_other_neighbours(tiny_network, surveys):
    """The surveys in turn, and only the contrast looks at it."""
    source = SimulatedSource(surveys, n_groups=2, group_size=4, seed=1, revisit_every=0)
    assert dataclasses.replace(source, elsewhere=False)(2).elsewhere is None
    step = source(2)
    own = step.batches[step.elsewhere.survey.name]
    assert torch.equal(step.elsewhere.psf_fwhm, own.psf_fwhm)
    assert not torch.equal(step.elsewhere.pixels, own.pixels)
    assert {source(n).elsewhere.survey.name for n in (2, 3)} == {"hsc", "legacy"}

    recipe, alone = RECIPES["default"], dataclasses.replace(step, elsewhere=None)
    with_it, without = (recipe(tiny_network, part, seed=0)[1] for part in (step, alone))
    different = {name for name in TERMS if with_it[name] != without[name]}
    assert different == {"contrast"}


def test_the_galaxy_itself_is_the_same_elsewhere(surveys):
    """What differs between the two views is not in the middle."""
    source = SimulatedSource(surveys, seed=3, revisit_every=0)
    step = source(0)
    own = step.batches[step.elsewhere.survey.name]
    noise = own.noise[:, :, None, None]
    apart = ((step.elsewhere.pixels - own.pixels) / noise).nanmedian(1).values.abs()
    middle = apart.shape[-1] // 2
    inner = apart[:, middle - 2 : middle + 2, middle - 2 : middle + 2].mean((1, 2))
    assert inner.median() < 0.5
    assert (apart.flatten(1).amax(1) > 3).float().mean() > 0.5
