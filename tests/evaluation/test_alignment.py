# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Alignment of latents whose relation is known."""

import numpy as np
import pytest

from astro_disentangle.evaluation.alignment import (
    centred_kernel_alignment,
    mutual_nearest,
    neighbourhood_overlap,
    ranks_of_own,
    recall_at,
    recall_curve,
)
from astro_disentangle.evaluation.scores import bootstrap


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_latents_of_nothing_in_common_do_not_align(rng):
    """Few galaxies and long latents: the biased estimate would be 0.67."""
    drawn = [
        centred_kernel_alignment(*rng.normal(size=(2, 64, 128))) for _ in range(40)
    ]
    assert np.mean(drawn) == pytest.approx(0, abs=0.02)
    assert max(map(abs, drawn)) < 0.2


def test_alignment_is_that_of_its_formula(rng):
    """With the kernels themselves, as in Song et al. (2012)."""
    x, noise = rng.normal(size=(2, 30, 5))
    y = x + noise
    kernels = []
    for part in (x, y):
        kernel = (part + 3) @ (part + 3).T
        np.fill_diagonal(kernel, 0)
        kernels.append(kernel)

    def independence(a, b):
        count, one = 30, np.ones(30)
        whole = (one @ a @ one) * (one @ b @ one) / ((count - 1) * (count - 2))
        cross = 2 / (count - 2) * (one @ a @ b @ one)
        return np.trace(a @ b) + whole - cross

    a, b = kernels
    expected = independence(a, b) / np.sqrt(independence(a, a) * independence(b, b))
    assert centred_kernel_alignment(x, y) == pytest.approx(expected, rel=1e-9)


def test_half_of_the_latents_in_common(rng):
    """Of two independent halves of equal strength one is shared: 1/2."""
    shared, *own = rng.normal(size=(3, 400, 8))
    a, b = (np.concatenate([shared, part], 1) for part in own)
    assert centred_kernel_alignment(a, b) == pytest.approx(0.5, abs=0.05)


def test_alignment_of_what_does_not_vary_is_not_known(rng):
    x = rng.normal(size=(20, 3))
    assert np.isnan(centred_kernel_alignment(x, np.ones((20, 3))))
    assert np.isnan(centred_kernel_alignment(x[:3], x[:3]))


def test_interval_of_a_statistic_of_pairs(rng):
    """The draws must scatter as new samples do, about the same value."""

    def sample():
        shared, *own = rng.normal(size=(3, 100, 4))
        return [np.concatenate([shared, part], 1) for part in own]

    values = [centred_kernel_alignment(*sample()) for _ in range(100)]
    value, low, high, count = bootstrap(
        centred_kernel_alignment, *sample(), halves=True
    )
    assert low < value < high
    assert (high - low) / 2 == pytest.approx(np.std(values), rel=0.4)
    assert count == 100
    # A row and its copy would be two galaxies that have something in common.
    nothing = rng.normal(size=(2, 64, 128))
    _, low, high, _ = bootstrap(centred_kernel_alignment, *nothing, halves=True)
    assert low < 0.05
    assert -0.2 < low < high < 0.2


def test_mutual_neighbours_of_equal_and_of_shuffled_latents(rng):
    z = rng.normal(size=(200, 16))
    near = z + 0.01 * rng.normal(size=z.shape)
    assert mutual_nearest(z, near).all()
    assert neighbourhood_overlap(z, near).mean() > 0.9
    shuffled = rng.permutation(z)
    assert mutual_nearest(z, shuffled).all()  # whoever they are
    assert recall_at(1, z, shuffled) < 0.05
    chance = neighbourhood_overlap(z, shuffled, k=20).mean()
    assert chance == pytest.approx(20 / 199, abs=0.03)


def test_the_same_neighbours_far_from_their_own(rng):
    """A turn keeps neighbourhoods, and no galaxy finds itself."""
    z = rng.normal(size=(200, 16))
    turned = z @ np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert neighbourhood_overlap(z, turned).mean() == pytest.approx(1)
    assert mutual_nearest(z, turned).mean() < 0.6
    assert recall_at(1, z, turned) < 0.1


def test_overlap_of_more_galaxies_than_are_sorted_at_once(rng):
    z = rng.normal(size=(600, 4))
    other = z + 0.5 * rng.normal(size=z.shape)
    named = []
    for part in (z, other):
        unit = part / np.linalg.norm(part, axis=1, keepdims=True)
        nearest = np.argsort(-unit @ unit.T, axis=1)[:, 1:11]  # the first is itself
        named.append([set(row) for row in nearest])
    expected = [len(a & b) / 10 for a, b in zip(*named, strict=True)]
    np.testing.assert_allclose(neighbourhood_overlap(z, other), expected)


def test_collapsed_latents_have_no_neighbours():
    z = np.ones((50, 3))
    assert neighbourhood_overlap(z, z).mean() == 0
    assert mutual_nearest(z, z).mean() == 1 / 50


def test_curve_of_recall_is_that_of_its_points(rng):
    z = rng.normal(size=(100, 4))
    other = z + rng.normal(size=z.shape)
    recall, low, high = recall_curve(ranks_of_own(z, other), [1, 10, 100])
    assert recall.tolist() == [recall_at(k, z, other) for k in (1, 10, 100)]
    assert recall[-1] == low[-1] == high[-1] == 1
    assert (low[:2] < recall[:2]).all()
    assert (recall[:2] < high[:2]).all()
