# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What views are painted under, and what their scores and figures see."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astro_disentangle import simulate_pairs
from astro_disentangle.evaluation.calibration import (
    coverage_curve,
    covered,
    histograms,
)
from astro_disentangle.evaluation.cost import score_cost
from astro_disentangle.evaluation.figures import plot_views
from astro_disentangle.evaluation.fluxes import bin_fluxes, bins_of_views, score_fluxes
from astro_disentangle.evaluation.stars import score_stars
from astro_disentangle.evaluation.views import Views, source_signal
from astro_disentangle.quality import FLAGS

FEW = {"n_samples": 2, "n_steps": 1, "seed": 0}


@pytest.fixture(scope="module")
def pairs():
    """Four groups of eight."""
    return simulate_pairs(32, random_state=11)


@pytest.fixture
def asked(tiny_network, monkeypatch):
    """The noise that each call of `translate` was asked for."""
    calls, translate = [], tiny_network.translate

    def spy(*args, prepare, **options):
        calls.append(prepare.get("noise"))
        return translate(*args, prepare=prepare, **options)

    monkeypatch.setattr(tiny_network, "translate", spy)
    return calls


def test_views_have_the_noise_of_the_target(tiny_network, asked, pairs):
    Views(tiny_network, pairs, "hsc", "legacy", **FEW)
    torch.testing.assert_close(
        torch.cat(asked), pairs.batch("legacy").noise, equal_nan=True
    )


def test_wrong_views_have_the_noise_of_the_wrong_donors(tiny_network, asked, pairs):
    Views(tiny_network, pairs, "hsc", "legacy", wrong=True, **FEW)
    noise, wrong = pairs.batch("legacy").noise, torch.cat(asked)
    following = (pairs.groups + 1) % 4
    for row, group in enumerate(following):
        expected = noise[pairs.groups == group].nanmedian(0).values
        torch.testing.assert_close(wrong[row], expected, equal_nan=True)
    assert (wrong != noise).any()


def test_stars_have_the_noise_of_the_target(tiny_network, asked, pairs):
    bright = [source_signal(pairs.batch(name)) > 50 for name in pairs.surveys]
    score_stars(tiny_network, pairs, np.ones(32, dtype=bool), **FEW)
    assert len(asked) == sum(part.sum() >= 12 for part in bright) > 0
    target = pairs.batch("legacy").noise[torch.from_numpy(bright[0])]
    torch.testing.assert_close(asked[0], target, equal_nan=True)


def _gaussian_fluxes(seed, count=600):
    """True fluxes, and four samples each of their posterior, in closed form."""
    rng = np.random.default_rng(seed)
    true = rng.normal(1000.0, 100.0, count)
    told = true + rng.normal(0, 100.0, count)
    mean, spread = (true.mean() + told) / 2, 100 / np.sqrt(2)
    return true, (mean + spread * rng.normal(size=(4, count))).T


def _sigmas(bins):
    return bins.bias / bins.error


def test_bins_of_a_right_posterior_are_right():
    """Bins of the true flux are not, and those of the mean of its own samples."""
    split, own, by_truth = [], [], []
    for seed in range(40):
        true, samples = _gaussian_fluxes(seed)
        one, other, mean = (
            samples[:, ::2].mean(1),
            samples[:, 1::2].mean(1),
            samples.mean(1),
        )
        split.append(_sigmas(bin_fluxes(one, other, true)))
        own.append(_sigmas(bin_fluxes(mean, mean, true)))
        by_truth.append(_sigmas(bin_fluxes(true, mean, true)))
    split = np.concatenate(split)
    assert np.abs(split.mean()) < 0.3
    assert split.std() == pytest.approx(1, abs=0.25)
    assert max(np.abs(x).max() for x in own) > 5
    assert max(np.abs(x).max() for x in by_truth) > 5


def _points(flux):
    """Views of one band with their light in one pixel, two samples, and their truth."""
    truth = np.zeros((len(flux), 1, 32, 32))
    truth[:, 0, 16, 16] = flux
    survey = SimpleNamespace(bands=("r",), pixel_scale=0.262)
    offset = np.zeros((len(flux), 2))
    return SimpleNamespace(batch=SimpleNamespace(survey=survey), offset=offset), truth


def test_one_half_of_the_samples_sorts_and_the_other_is_compared():
    flux = np.full(20, 1000.0)
    views, truth = _points(flux)
    views.sums = np.stack([100 * flux, 2 * flux], 1)[:, :, None]
    bins = bins_of_views(views, truth, np.ones((20, 1), dtype=bool))["r"]
    assert bins.bias == pytest.approx([1])
    assert bins.magnitude == pytest.approx([31.4 - 2.5 * 5], abs=0.01)


def test_a_fault_of_faint_galaxies_alone_is_seen():
    rng = np.random.default_rng(0)
    flux = np.concatenate([rng.uniform(7e4, 8e4, 30), rng.uniform(700, 800, 40)])
    views, truth = _points(flux)
    known, signal = np.ones((70, 1), dtype=bool), np.full(70, 30.0)

    def scores(factor):
        sums = flux * np.where(flux < 1e4, factor, 1.0)
        sums = sums[:, None] * (1 + 0.05 * rng.normal(size=(70, 4)))
        views.sums = sums[:, :, None]
        rows, _ = score_fluxes(views, truth, known, signal, None)
        return {measure: score for _, measure, score in rows}

    name = "2 arcsec flux r, fainter half: worst bin, sigma"
    value, low, high, count = scores(1.0)[name]
    assert abs(value) < 3
    assert (low, high, count) == (value - 1, value + 1, 40)
    faulty = scores(1.2)
    assert faulty[name][0] > 10
    assert faulty["2 arcsec flux r, S/N >= 20: sum"][0] < 0.01


@pytest.mark.parametrize("share", [0.0, 0.3, 0.68, 0.95, 1.0])
@pytest.mark.parametrize("count", [4, 15])
def test_all_ranks_together_cover_what_they_should(count, share):
    inside = covered(np.arange(count + 1), count, share)
    assert inside.mean() == pytest.approx(share)


def _sampled(width):
    """Views of white noise, with samples of another width."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(60, 1, 32, 32, generator=generator)
    samples = width * torch.randn(60, 15, 1, 32, 32, generator=generator)
    views = Views.__new__(Views)
    views.batch = SimpleNamespace(
        survey=SimpleNamespace(bands=("r",), pixel_scale=0.262),
        noise=torch.ones(60, 1),
        present=torch.ones(60, 1, dtype=torch.bool),
    )
    views.pixels, views.samples = pixels, samples.numpy()
    views.good = torch.ones_like(pixels, dtype=torch.bool)
    views.offset = np.zeros((60, 2))
    return views


def test_curve_of_coverage():
    nominal, observed, low, high = coverage_curve(_sampled(1.0))
    assert observed == pytest.approx(nominal, abs=0.12)
    assert (low <= observed).all()
    assert (observed <= high).all()
    sure, unsure = (coverage_curve(_sampled(width))[1] for width in (0.3, 3.0))
    middle = (nominal > 0.3) & (nominal < 0.8)
    assert (sure < nominal - 0.1)[middle].all()
    assert (unsure > nominal + 0.1)[middle].all()


def test_histograms_of_deviations():
    """Fifteen samples: Student's distribution is near enough to the normal one."""
    centre = np.linspace(-6, 6, 61)[:-1] + 0.1
    normal = np.exp(-(centre**2) / 2) / np.sqrt(2 * np.pi)
    views = _sampled(1.0)
    truth = np.zeros(views.pixels.shape)
    truth[:, :, :16] = 2.0
    for density in histograms(views, truth).values():
        assert density == pytest.approx(normal, abs=0.03)
        assert density.sum() * 0.2 == pytest.approx(1, abs=1e-3)
    wide = histograms(_sampled(0.5), truth)["sky"]
    assert wide[30] == pytest.approx(normal[30] / 2, abs=0.03)


def test_too_few_samples_have_no_calibration():
    views = _sampled(1.0)
    views.samples = views.samples[:, :3]
    assert coverage_curve(views) is None
    assert histograms(views, None) is None


def _with(batch, **changes):
    return dataclasses.replace(batch, **changes)


def test_pictures_show_usable_rows_of_a_band_of_both(pairs):
    """Row 0 is flagged, row 1 has no r in the target, row 2 no noise of i."""
    source, target = (pairs.batch(name) for name in pairs.surveys)
    few, red, near = torch.arange(8), 1, 2
    flags, good, noise = target.flags[few] * 0, target.good[few], target.noise[few]
    good, noise = torch.ones_like(good), torch.ones_like(noise)
    flags[0] = int(FLAGS.UNUSABLE)
    good[1:7, red] = False
    noise[2, near] = torch.nan
    target = _with(target[few], flags=flags, good=good, noise=noise)
    source = source[few]
    source = _with(source, good=torch.ones_like(source.good), flags=source.flags * 0)
    views = Views.__new__(Views)
    views.source, views.target, views.batch = "hsc", "legacy", target
    views.pixels, views.good, _ = target.stamp()
    views.samples = views.pixels[:, None].numpy()
    both = SimpleNamespace(batch={"hsc": source, "legacy": target}.__getitem__)

    def shown(**options):
        axes = plot_views(views, both, **options).axes
        observed = axes[3].images[0].get_array()
        lines = sum(axis.get_label() == "<colorbar>" for axis in axes)
        return axes[0].get_title(), lines, np.asarray(observed)

    def stretched(row, band):
        return np.arcsinh(views.pixels[row, band].numpy() / noise[row, band].item() / 2)

    title, lines, observed = shown()
    assert (title, lines) == ("hsc z", 4)
    np.testing.assert_allclose(observed, stretched(1, 3), rtol=1e-6)
    title, lines, observed = shown(band="r", count=8)
    assert (title, lines) == ("hsc r", 1)
    np.testing.assert_allclose(observed, stretched(7, red), rtol=1e-6)
    assert plot_views(views, both, band="y") is None


def test_cost_counts_what_the_decoder_does(tiny_network, pairs):
    calls = []
    hook = tiny_network.decoder.register_forward_hook(lambda *_: calls.append(1))
    rows = score_cost(tiny_network, pairs, n_steps=3)
    hook.remove()
    counts = [r.value for r in rows if r.measure.startswith("decoder")]
    # Each direction once to count, once to warm up and three times by the clock.
    assert counts == [len(calls) / 10] * 2
    less = score_cost(tiny_network, pairs, n_steps=1)
    assert counts[0] == 3 * less[0].value > 0
    assert not tiny_network.decoder._forward_hooks
    clock = [r for r in rows if r.measure.startswith("seconds")]
    assert len(clock) == 4
    assert all(0 < r.low <= r.value <= r.high for r in clock)
    assert {r.group for r in rows} == {"cost"}
    assert {r.n for r in rows} == {16}
