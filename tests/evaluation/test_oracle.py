# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What galaxies could be found by, and how the table and the figure say it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astro_disentangle import PairedCutouts, get_survey, simulate_pairs
from astro_disentangle.evaluation.baselines import catalog_ranks
from astro_disentangle.evaluation.curves import plot_coverage, plot_retrieval
from astro_disentangle.evaluation.latents import score_alignment
from astro_disentangle.evaluation.oracle import (
    expected_errors,
    likelihood_ranks,
    oracle_ranks,
)
from astro_disentangle.evaluation.scoreboard import known_of


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(64, random_state=11)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def _noisier(pairs, factor):
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    batches = {
        name: dataclasses.replace(batch, noise=factor * batch.noise)
        for name, batch in batches.items()
    }
    return PairedCutouts(batches, truth=pairs.truth, noiseless=pairs.noiseless)


def test_errors_are_those_of_a_gaussian_image(pairs):
    """Size and ellipticity by the Fisher information of a round Gaussian."""
    step, scale = 1e-4, 6.0
    y, x = np.mgrid[-40:41, -40:41]

    def image(flux, log_size, e):
        s2 = np.exp(2 * log_size)
        stretch = np.sqrt(1 - e**2)
        form = (x**2 * (1 - e) + y**2 * (1 + e)) / stretch / (2 * s2)
        return flux * np.exp(-form) / (2 * np.pi * s2)

    centre = np.array([1.0, np.log(scale), 0.0])
    slopes = [
        (image(*(centre + move)) - image(*(centre - move))).ravel() / (2 * step)
        for move in step * np.eye(3)
    ]
    errors = np.sqrt(np.diag(np.linalg.inv(np.array(slopes) @ np.array(slopes).T)))
    signal = np.sqrt(np.square(image(*centre)).sum())
    # Of a large galaxy under a narrow PSF, of S/N 100 within 2 arcsec.
    batch = pairs.batch("hsc")[:1]
    batch = dataclasses.replace(batch, psf_fwhm=torch.full_like(batch.psf_fwhm, 1e-3))
    batch = dataclasses.replace(batch, good=torch.ones_like(batch.good))
    noise = float(batch.noise[0, 1])
    flux = 100 * noise * np.sqrt(np.pi) / batch.survey.pixel_scale
    found = expected_errors([[flux]], [2.0], batch, ["r"])[0]
    assert found[0] == pytest.approx(np.hypot(2.5 / np.log(10) / 100, 0.01), rel=1e-4)
    assert found[1] * np.log(10) * 100 == pytest.approx(errors[1] * signal, rel=1e-3)
    assert found[2] * 100 == pytest.approx(errors[2] * signal, rel=1e-3)
    # As large as the PSF: half of the size of the image is the galaxy's.
    batch = dataclasses.replace(batch, psf_fwhm=torch.full_like(batch.psf_fwhm, 4.0))
    wide = expected_errors([[flux]], [2.0], batch, ["r"])[0]
    np.testing.assert_allclose(wide[1:], 2 * found[1:], rtol=1e-4)


def test_likelihood_finds_what_distance_in_sigma_finds(rng):
    x, sigma = rng.normal(size=(300, 4)), rng.uniform(0.1, 1, (300, 4))
    y, tau = x + rng.normal(size=x.shape), rng.uniform(0.1, 1, (300, 4))
    variance = sigma[:, None] ** 2 + tau**2
    surprise = ((x[:, None] - y) ** 2 / variance + np.log(variance)).sum(2)
    expected = (surprise < np.diag(surprise)[:, None]).sum(1)
    np.testing.assert_array_equal(likelihood_ranks(x, sigma, y, tau), expected)


def test_oracle_finds_less_in_more_noise(pairs):
    labels, _, star = known_of(pairs)
    galaxies = np.flatnonzero(~star)
    found = [
        (oracle_ranks(_noisier(pairs, f), labels, galaxies)["hsc->legacy"] < 1).mean()
        for f in (0.01, 30, 1e4)
    ]
    assert found[0] > 0.95
    assert found[0] > found[1] + 0.2
    assert found[1] > found[2]
    # Nothing is left but where the galaxies are in the list.
    assert found[2] < 0.15


def test_oracle_does_not_know_the_neighbours(pairs):
    """Light that is not there with other neighbours is none of the galaxy's."""
    labels, _, star = known_of(pairs)
    galaxies = np.flatnonzero(~star)
    bright = {n: 100 + 2 * images for n, images in pairs.noiseless.items()}
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    blended = PairedCutouts(batches, truth=pairs.truth, noiseless=bright)
    expected = oracle_ranks(_noisier(pairs, 20), labels, galaxies)
    found = oracle_ranks(_noisier(blended, 20), labels, galaxies, other=pairs)
    alone = oracle_ranks(_noisier(blended, 20), labels, galaxies)
    for direction, rank in expected.items():
        np.testing.assert_array_equal(found[direction], rank)
    assert any((alone[name] != rank).any() for name, rank in expected.items())


def test_oracle_needs_the_truth(pairs):
    labels, _, star = known_of(pairs)
    galaxies = np.flatnonzero(~star)
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    bare = PairedCutouts(batches, truth=pairs.truth)
    assert oracle_ranks(bare, labels, galaxies) == {}
    assert oracle_ranks(pairs, {"e1": labels["e1"]}, galaxies) == {}


def test_oracle_of_bands_that_are_missing(pairs):
    """A band that is not there tells nothing, and breaks nothing."""
    labels, _, star = known_of(pairs)
    galaxies = np.flatnonzero(~star)
    legacy = pairs.batch("legacy")
    good = torch.ones_like(legacy.good)
    good[:32, :3] = False
    batches = {
        "hsc": pairs.batch("hsc"),
        "legacy": dataclasses.replace(legacy, good=good),
    }
    less = PairedCutouts(batches, truth=pairs.truth, noiseless=pairs.noiseless)
    less = _noisier(less, 10)
    found = oracle_ranks(less, labels, galaxies)["hsc->legacy"][galaxies >= 32]
    lost = oracle_ranks(less, labels, galaxies)["hsc->legacy"][galaxies < 32]
    assert (lost < 1).mean() < (found < 1).mean()


def test_photometry_of_the_same_bands_is_compared(rng):
    """Each survey has units of its own, a band of its own, and values it lacks."""
    hsc, legacy = get_survey("hsc"), get_survey("legacy")
    catalog = rng.normal(size=(50, 32))
    common = [*range(24), 30, 31]  # g, r, i, z and the two of all bands
    other = rng.uniform(1, 100, 26) * catalog[:, common] + rng.normal(size=26)
    assert (catalog_ranks(catalog, other, hsc, legacy) == 0).all()
    assert (catalog_ranks(other, catalog, legacy, hsc) == 0).all()
    other[:, 3] = np.nan
    other[7] = np.nan
    rank = catalog_ranks(catalog, other, hsc, legacy)
    assert (np.delete(rank, 7) == 0).all()
    shuffled = catalog_ranks(catalog, rng.permutation(other), hsc, legacy)
    assert (shuffled == 0).mean() < 0.2


def test_bands_are_found_by_name(rng):
    catalog = rng.normal(size=(50, 32))
    other = catalog[:, [*range(18, 24), *range(6), 30, 31]]
    turned = SimpleNamespace(bands=("z", "g"))
    assert (catalog_ranks(catalog, other, get_survey("hsc"), turned) == 0).all()


def test_size_and_signal_of_all_bands_count(rng):
    catalog = rng.normal(size=(50, 8))
    catalog[:, :6] = np.nan
    survey = SimpleNamespace(bands=("g",))
    assert (catalog_ranks(catalog, 3 * catalog + 1, survey, survey) == 0).all()


def test_rows_of_alignment(rng):
    z = rng.normal(size=(100, 8))
    near, far = (z + s * rng.normal(size=z.shape) for s in (0.01, 0.6))
    latents = SimpleNamespace(physics={"hsc": z, "legacy": near})
    other = SimpleNamespace(physics={"hsc": z, "legacy": far})
    perfect = np.where(np.arange(100) < 80, 0, 3)
    oracle = {"hsc->legacy": perfect, "legacy->hsc": perfect}
    rows, ranks = score_alignment(latents, np.arange(100), other, oracle)
    scores = {(r.measure, r.where): r for r in rows}
    where, both = "hsc->legacy", "hsc, legacy"
    assert scores["recall@1", where].value == 1
    lost = scores["recall@1, other neighbours", where].value
    assert 0.2 < lost < 0.9
    assert scores["recall@1, oracle", where].value == 0.8
    over = scores["recall@1, other neighbours over oracle", where]
    assert over.value == pytest.approx(lost / 0.8)
    assert over.low < over.value < over.high
    assert scores["mutual nearest neighbours", both].value == 1
    mutual = scores["mutual nearest neighbours, other neighbours", both]
    assert mutual.value == pytest.approx(lost, abs=0.25)
    assert mutual.low < mutual.value < mutual.high
    overlap, less = (
        scores[f"overlap of 10 neighbours{kind}", both].value
        for kind in ("", ", other neighbours")
    )
    assert less + 0.2 < overlap <= 1
    assert list(ranks) == [
        (kind, direction)
        for kind in ("", ", other neighbours", ", oracle")
        for direction in ("hsc->legacy", "legacy->hsc")
    ]


def test_figure_of_retrieval(rng):
    rank = rng.integers(0, 50, 200)
    ranks = {("", "hsc->legacy"): rank, (", oracle", "hsc->legacy"): rank // 2}
    first, _, chance = plot_retrieval(ranks).axes[0].lines
    counts, recall = first.get_data()
    assert counts[0] == 1
    assert counts[-1] == 200
    np.testing.assert_allclose(recall, [(rank < k).mean() for k in counts])
    np.testing.assert_allclose(chance.get_ydata(), counts / 200)


def test_figures_of_calibration_need_samples():
    assert plot_coverage([SimpleNamespace(coverage=None)]) is None
