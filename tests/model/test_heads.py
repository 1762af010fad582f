# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Property heads: means, honest uncertainties, missing labels, keyed randomness."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import QTable

from astro_disentangle import CutoutError
from astro_disentangle.evaluation.properties import Properties, fit_properties
from astro_disentangle.keys import torch_generator
from astro_disentangle.model.heads import fit_head


def drawn(rows=4000, seed=0):
    """Latents and a property whose scatter grows with one of them."""
    generator = torch_generator(seed, "test")
    z = torch.randn(rows, 6, generator=generator)
    sigma = 0.1 + 0.4 * torch.sigmoid(3 * z[:, 1])
    noise = torch.randn(rows, generator=generator)
    return z, 5 + z[:, 0] ** 2 + sigma * noise, sigma


def test_means_and_uncertainties_are_right():
    z, value, _ = drawn()
    head = fit_head(z, value[:, None], torch.arange(len(z)), seed=1)
    new, truth, sigma = drawn(seed=2)
    mean, found = (part[:, 0] for part in head(new))
    assert ((mean - (5 + new[:, 0] ** 2)).square().mean().sqrt()) < 0.15
    within = ((truth - mean).abs() < found).float().mean().item()
    assert within == pytest.approx(0.683, abs=0.03)
    # Where the scatter is large the uncertainty is large too.
    ratio = found[sigma > 0.45].mean() / found[sigma < 0.15].mean()
    assert ratio > 2


def test_shuffled_labels_say_nothing():
    z, value, _ = drawn()
    order = torch.randperm(len(z), generator=torch_generator(3, "test"))
    head = fit_head(z, value[order][:, None], torch.arange(len(z)), seed=1)
    new, truth, _ = drawn(seed=2)
    mean, found = (part[:, 0] for part in head(new))
    assert ((mean - truth).var() / truth.var()) > 0.9
    assert ((truth - mean).abs() < found).float().mean() == pytest.approx(
        0.68, abs=0.05
    )


def test_unknown_values_are_left_out():
    z, value, _ = drawn()
    values = torch.stack([value, value], 1)
    values[::2, 1] = torch.nan
    group = torch.arange(len(z))
    head = fit_head(z, values, group, seed=1, n_steps=400)
    mean, sigma = head(z)
    assert mean.isfinite().all() and (sigma > 0).all()
    assert (mean[:, 0] - mean[:, 1]).square().mean().sqrt() < 0.2
    values[20:, 1] = torch.nan
    with pytest.raises(ValueError, match="at least 20"):
        fit_head(z, values, group, seed=1)


def test_randomness_is_keyed():
    z, value, _ = drawn(400)
    before = torch.random.get_rng_state()
    options = {"n_steps": 60}
    heads = [
        fit_head(z, value[:, None], torch.arange(400), seed=s, **options)
        for s in (1, 1, 2)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, other = (head(z)[0] for head in heads)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_columns_with_units_and_masks():
    z, value, _ = drawn(800)
    table = QTable(masked=True)
    table["size"] = value.numpy() * u.arcsec
    table["mass"] = u.Quantity(value.numpy(), u.dex(u.solMass), subok=True)
    table["count"] = np.ma.MaskedArray(value.numpy(), np.arange(800) % 5 == 0)
    group = np.arange(800)
    found = fit_properties(z.numpy(), table, group, source="a test", seed=0)
    latents = z[:5].numpy().copy()
    latents[2] = np.nan
    read = found.read(latents)
    assert read["size"].unit == u.arcsec and read["mass_err"].unit == u.dex
    assert read["mass"].unit == u.dex(u.solMass)
    assert np.isnan(read["count"][2]) and np.isfinite(read["count"][[0, 1, 3, 4]]).all()
    again = Properties.from_description(found.describe(), found.head.state_dict())
    assert again.names == ("size", "mass", "count")
    assert u.allclose(again.read(latents[:2])["size"], read["size"][:2])
    with pytest.raises(CutoutError, match="column of numbers"):
        fit_properties(z.numpy(), {"a": ["x"] * 800}, group, source="", seed=0)
    with pytest.raises(CutoutError, match="each of the 800"):
        fit_properties(z.numpy(), {"a": [1.0]}, group, source="", seed=0)


def test_one_name_for_a_whole_field():
    """Without groups to hold out, rows are held out: errors stay honest."""
    z, value, _ = drawn(600)
    head = fit_head(z, value[:, None], torch.zeros(600, dtype=torch.int64), seed=1)
    new, truth, _ = drawn(seed=2)
    mean, found = (part[:, 0] for part in head(new))
    assert ((truth - mean).abs() < found).float().mean() == pytest.approx(
        0.68, abs=0.12
    )


@pytest.mark.parametrize("scale", [1e-16, 1e20, 1e36])
def test_units_do_not_matter(scale):
    """Fluxes in W/m2 and luminosities in W are learned as well as magnitudes."""
    z, value, _ = drawn(800)
    latents, group = z.numpy(), np.arange(800)
    one, other = (
        fit_properties(
            latents, {"a": value.double().numpy() * s}, group, source="", seed=0
        ).read(latents[:50])["a"]
        for s in (1.0, scale)
    )
    assert np.allclose(other.value / scale, one.value, rtol=1e-2)


def test_names_that_are_taken():
    z, value, _ = drawn(100)
    for name in ("object_id", "a_err"):
        table = {"a": value.numpy(), name: value.numpy()}
        with pytest.raises(CutoutError, match="cannot be called"):
            fit_properties(z.numpy(), table, np.arange(100), source="", seed=0)
