# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The scores themselves: right where the answer is known, chance where it must be."""

import numpy as np
import pytest

from astro_disentangle import get_survey
from astro_disentangle.evaluation.alignment import (
    centred_kernel_alignment,
    recall_at,
)
from astro_disentangle.evaluation.photometry import (
    aperture_sums,
    flux_bias,
    image_fwhm,
    radial_power,
)
from astro_disentangle.evaluation.probes import probe_r2, probe_survey
from astro_disentangle.evaluation.scores import bootstrap


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_probe_of_a_linear_property_and_of_noise(rng):
    z = rng.normal(size=(400, 10))
    value = z @ rng.normal(size=10)
    assert probe_r2(z, value) > 0.999
    assert abs(probe_r2(z, rng.permutation(value))) < 0.1


def test_probe_groups_are_kept_apart(rng):
    """Rows of one group share a fingerprint; grouped folds must not profit."""
    groups = np.repeat(np.arange(80), 5)
    z = np.eye(80)[groups] + 0.01 * rng.normal(size=(400, 80))
    value = rng.normal(size=80)[groups]
    assert probe_r2(z, value, groups) < 0.1
    assert probe_r2(z, value) > 0.9


def test_transfer_notices_a_survey_that_reads_differently(rng):
    z = rng.normal(size=(400, 6))
    value = z @ rng.normal(size=6)
    assert probe_r2(z, value, others=z) > 0.999
    assert probe_r2(z, value, others=z + 2) < 0.5


@pytest.mark.parametrize("probe", ["mlp", "trees"])
def test_deeper_probes_read_what_a_line_cannot(rng, probe):
    z = rng.normal(size=(600, 4))
    value = np.abs(z[:, 0])
    assert probe_r2(z, value) < 0.1
    assert probe_r2(z, value, probe=probe) > 0.7


@pytest.mark.parametrize("probe", ["logistic", "neighbours", "mlp"])
def test_survey_accuracy(rng, probe):
    z = rng.normal(size=(300, 6))
    near = probe_survey(z, z + 0.01 * rng.normal(size=z.shape), probe=probe)
    assert near == pytest.approx(0.5, abs=0.1)
    mark = np.zeros(6)
    mark[2] = 8
    assert probe_survey(z, z + mark, probe=probe) > 0.99


def test_unknown_probes_are_named():
    with pytest.raises(ValueError, match="'best'"):
        probe_r2(np.eye(9), np.arange(9), probe="best")
    with pytest.raises(ValueError, match="'best'"):
        probe_survey(np.eye(9), np.eye(9), probe="best")


def test_interval_is_that_of_independent_groups(rng):
    """Ten copies of a row say no more than the row."""
    rows = rng.normal(size=400)
    once = bootstrap(np.mean, rows)
    copies = bootstrap(
        np.mean, np.repeat(rows, 10), groups=np.repeat(np.arange(400), 10)
    )
    assert copies[0] == pytest.approx(once[0])
    widths = [high - low for _, low, high, _ in (once, copies)]
    assert widths[0] == pytest.approx(2 / 20, rel=0.2)
    assert widths[1] == pytest.approx(widths[0], rel=0.2)
    assert copies[3] == 400


def test_kernel_alignment(rng):
    z = rng.normal(size=(300, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert centred_kernel_alignment(z, 3 * z @ turn + 7) == pytest.approx(1)
    assert centred_kernel_alignment(z, rng.permutation(z)) < 0.1


def test_power_of_a_wave_is_in_its_ring():
    """Eight periods across 32 pixels: a quarter of a cycle per pixel."""
    wave = np.cos(2 * np.pi * 8 * np.arange(32) / 32)[None, None, :] * np.ones(
        (1, 32, 1)
    )
    power = radial_power(wave + 100, bins=8)[0]
    assert power.argmax() == 4
    assert power[[0, 1, 2, 3, 5, 6, 7]].max() < 1e-12 * power[4]


def test_recall(rng):
    z = rng.normal(size=(500, 16))
    assert recall_at(1, z, z + 0.01 * rng.normal(size=z.shape)) == 1
    assert recall_at(1, z, rng.permutation(z)) < 0.02
    assert recall_at(10, z, rng.permutation(z)) == pytest.approx(0.02, abs=0.02)


def test_recall_of_collapsed_or_broken_latents():
    assert recall_at(1, np.ones((50, 3)), np.ones((50, 3))) == 0
    with pytest.raises(ValueError, match="finite"):
        recall_at(1, np.full((5, 3), np.nan), np.ones((5, 3)))


def test_aperture_follows_the_offset():
    survey = get_survey("legacy")
    image = np.zeros((2, 1, 32, 32))
    image[:, 0, 18, 20] = 7.0
    sums = aperture_sums(image, survey, [[4.5, 2.5], [-8, 0]])
    np.testing.assert_allclose(sums[:, 0], [7, 0])


def test_flux_bias_and_its_error(rng):
    true = rng.lognormal(size=500)
    bias, low, high, _ = bootstrap(
        flux_bias, true * 1.02 * rng.normal(1, 0.1, 500), true
    )
    assert bias == pytest.approx(0.02, abs=2 * (high - low))
    assert 0.002 < high - low < 0.04


@pytest.mark.parametrize("fwhm", [0.6, 1.1, 1.6])
def test_fwhm_of_a_moffat(fwhm):
    scale, beta = 0.168, 2.5
    y, x = np.mgrid[-23.5:24, -23.5:24] * scale
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    image = (1 + ((x - 0.05) ** 2 + y**2) / alpha**2) ** -beta
    assert image_fwhm(image[None], scale)[0] == pytest.approx(fwhm, rel=0.01)


def test_fwhm_of_nothing_is_nan():
    assert np.isnan(image_fwhm(np.zeros((1, 32, 32)), 0.2)[0])
    assert np.isnan(image_fwhm(np.full((1, 32, 32), np.nan), 0.2)[0])
