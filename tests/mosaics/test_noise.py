# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The noise of a plane is a function of seed, sample and pixel alone."""

import pytest
import torch

from astro_disentangle.mosaics.noise import NoisePlane


@pytest.mark.parametrize("corner", [(0, 0), (-100, 37), (-64, 64), (1000, -3)])
@pytest.mark.parametrize("step", [(1, 0), (0, 5), (-17, 11)])
def test_windows_agree_where_they_overlap(corner, step):
    plane = NoisePlane(1, "legacy", 2)
    x, y = step
    a = plane.window(0, corner, 40)
    b = plane.window(0, (corner[0] + x, corner[1] + y), 40)
    rows = slice(max(y, 0), 40 + min(y, 0)), slice(max(-y, 0), 40 - max(y, 0))
    columns = slice(max(x, 0), 40 + min(x, 0)), slice(max(-x, 0), 40 - max(x, 0))
    assert torch.equal(a[:, rows[0], columns[0]], b[:, rows[1], columns[1]])


def test_it_is_white():
    noise = NoisePlane(0, "hsc", 3).window(0, (-77, 13), 256)
    assert noise.shape == (3, 256, 256)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    for shift in (1, 63, 64, 65):
        for axis in (1, 2):
            assert abs((noise * noise.roll(shift, axis)).mean()) < 0.01
    assert abs((noise[0] * noise[1]).mean()) < 0.02


def test_seed_sample_and_survey_have_noise_of_their_own():
    def window(seed=0, survey="hsc", sample=0):
        return NoisePlane(seed, survey, 1).window(sample, (3, 4), 32)

    first = window()
    assert torch.equal(first, window())
    for other in (window(seed=1), window(survey="legacy"), window(sample=1)):
        assert abs(
            torch.corrcoef(torch.stack([first.ravel(), other.ravel()]))[0, 1]
        ) < (0.15)


def test_global_random_state_stays():
    state = torch.get_rng_state()
    NoisePlane(0, "hsc", 1).window(0, (0, 0), 8)
    assert torch.equal(torch.get_rng_state(), state)
