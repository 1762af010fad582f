# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What is measured on a target, and how surprising it is."""

import math

import pytest
import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.model.photometry import KINDS, Photometry, measure


@pytest.fixture
def reading():
    """A reading of three bands, with numbers everywhere."""
    generator = torch.Generator().manual_seed(0)
    reading = Photometry(5, 2, 3)
    with torch.no_grad():
        for parameter in reading.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return reading


def _inputs(rows=6):
    generator = torch.Generator().manual_seed(1)
    sizes = (5, 2, 3 * KINDS)
    return [torch.randn(rows, size, generator=generator) for size in sizes]


def test_surprise_is_that_of_a_normal_distribution(reading):
    """One deviation of each band and one of all, against torch's distribution."""
    z, z_instrument, values = _inputs()
    known = torch.ones_like(values)
    found = reading.surprise(z, z_instrument, values, known)
    mean = (reading.physics(z) + reading.instrument(z_instrument)).unflatten(1, (4, 3))
    own, common = reading.log_variance(z).exp().split([12, 4], 1)
    covariance = torch.diag_embed(own.unflatten(1, (4, 3)) + 3e-4)
    covariance = covariance + common[:, :, None, None]
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    constant = 3 / 2 * math.log(2 * math.pi)
    expected = -normal.log_prob(values.unflatten(1, (4, 3))) - constant
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_missing_band_is_as_if_it_were_not(reading):
    """Neither its value nor what is said of it counts."""
    z, z_instrument, values = _inputs()
    known = torch.tensor([1.0, 0.0, 1.0]).repeat(KINDS).expand_as(values)
    found = reading.surprise(z, z_instrument, values, known)
    other = torch.where(known > 0, values, torch.tensor(7.0))
    assert torch.equal(found, reading.surprise(z, z_instrument, other, known))
    two = Photometry(5, 2, 2)
    keep = (known[0] > 0).nonzero()[:, 0]
    logs = torch.cat([keep, torch.arange(12, 16)])
    with torch.no_grad():
        for name, rows in (("physics", keep), ("instrument", keep)):
            getattr(two, name).weight.copy_(getattr(reading, name).weight[rows])
            getattr(two, name).bias.copy_(getattr(reading, name).bias[rows])
        two.log_variance.weight.copy_(reading.log_variance.weight[logs])
        two.log_variance.bias.copy_(reading.log_variance.bias[logs])
    expected = two.surprise(z, z_instrument, values[:, keep], known[:, keep])
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_colours_count_where_magnitudes_are_uncertain(reading):
    """Light lost in all bands surprises less than the same light lost in one."""
    z, z_instrument, _ = _inputs()
    known = torch.ones(6, 12)
    with torch.no_grad():
        reading.log_variance.weight.zero_()
        reading.log_variance.bias.copy_(torch.tensor([-6.0] * 12 + [0.0] * 4))
    mean = (reading.physics(z) + reading.instrument(z_instrument)).detach()
    one = torch.tensor([0.2, 0.0, 0.0]).repeat(KINDS)
    grey, colour = (
        reading.surprise(z, z_instrument, mean + shift, known) for shift in (0.2, one)
    )
    assert (colour > grey + 3).all()


def test_measured_fluxes_and_moments(surveys):
    """Brighter is larger, the angle is that of the galaxy, other bands are alike."""
    legacy = surveys[1]
    y, x = torch.meshgrid(*2 * [torch.arange(32.0) - 15.5], indexing="ij")

    def image(angle, flux):
        u, v = (
            x * math.cos(angle) + y * math.sin(angle),
            y * math.cos(angle) - x * math.sin(angle),
        )
        galaxy = torch.exp(-0.5 * ((u / 5) ** 2 + (v / 2) ** 2))
        return flux * galaxy.expand(4, 32, 32)

    affine = torch.tensor([[1 / 0.262, 0, 15.5], [0, 1 / 0.262, 15.5]])
    pixels = torch.stack([image(0, 1e3), image(math.pi / 4, 1e3), image(0, 1e4)])
    batch = CutoutBatch(
        legacy,
        pixels,
        torch.ones(3, 4, 32, 32, dtype=torch.bool),
        torch.ones(3, 4),
        torch.ones(3, 4),
        affine.expand(3, 2, 3),
        torch.zeros(3, dtype=torch.int64),
        torch.arange(3),
    )
    values, known = measure(batch)
    assert known.all()
    small, large, plus, cross = values.unflatten(1, (4, 4)).unbind(1)
    assert (small[2] > small[0] + 2).all()
    assert (large[2] > large[0] + 2).all()
    assert (plus[0] > 1).all()
    assert (cross[0].abs() < 1e-3).all()
    assert (cross[1] > 1).all()
    assert (plus[1].abs() < 1e-3).all()
