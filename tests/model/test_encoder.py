# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What the encoders are given beside the pixels: light and noise."""

import dataclasses
import math

import pytest
import torch

from astro_disentangle.model.encoder import View, light, roughness


def _view(x, good=None):
    good = torch.ones_like(x) if good is None else good
    return View("hsc", x, good, torch.zeros(len(x), 5 * x.shape[1]))


def test_light_is_the_signal_to_noise_of_an_aperture():
    """Against the sums for a galaxy of known shape, in noise of the typical depth."""
    axis = torch.arange(48.0) - 23.5
    radius = (axis[:, None] ** 2 + axis**2).sqrt() * 0.168
    galaxy = torch.exp(-0.5 * (radius / 0.7) ** 2)
    told = light(_view(torch.asinh(7 * galaxy)[None, None]))[0]
    for width, number in zip((0.5, 1.0, 2.0), told.tolist(), strict=True):
        weight = torch.exp(-0.5 * (radius / width) ** 2)
        ratio = (7 * galaxy * weight).sum() / weight.square().sum().sqrt()
        assert number == pytest.approx(math.asinh(ratio), rel=1e-4)


def test_light_leaves_bad_pixels_out():
    x = torch.full((1, 2, 48, 48), 0.5)
    good = torch.ones_like(x)
    good[0, 1, 20:30, 20:26] = 0
    x[0, 1, 20:30, 20:26] = 9
    first, second = light(_view(x, good))[0].unflatten(0, (3, 2)).unbind(1)
    torch.testing.assert_close(first, second)


def test_roughness_is_the_noise_whatever_the_galaxy():
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(64, 1, 48, 48, generator=generator)
    axis = torch.arange(48.0) - 23.5
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    galaxy = 4 * torch.exp(-0.5 * (radius / 4) ** 2)
    sky, louder, source = (
        roughness(_view(x))[:, 0] for x in (noise, 2 * noise, noise + galaxy)
    )
    torch.testing.assert_close(louder - sky, torch.full_like(sky, math.log(2)))
    assert sky.std() < 0.05
    assert (source - sky).abs().max() < 0.1


def test_roughness_of_a_band_without_pixels_is_finite():
    view = _view(torch.ones(1, 2, 48, 48))
    good = view.good.clone()
    good[0, 1] = 0
    told = roughness(dataclasses.replace(view, good=good))
    assert told.isfinite().all()
    assert told[0, 1] == 0
