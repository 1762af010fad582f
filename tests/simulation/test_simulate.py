# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What the simulator promises: the same bits again, shared conditions, truth."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from astro_disentangle import SurveyMismatchError, get_survey, simulate_pairs
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation import simulate
from astro_disentangle.simulation.instruments import (
    draw_conditions,
    sky_level,
)
from astro_disentangle.simulation.noise import (
    correlated_noise,
    draw_good,
    halo_light,
    saturated,
)
from astro_disentangle.surveys import SURVEYS

NAMES = ("hsc", "legacy")
GROUPS, MEMBERS = 4, 6


@pytest.fixture(scope="module")
def sky():
    return simulate(GROUPS, MEMBERS, NAMES, seed=5)


def tensors(sky):
    """Every tensor of a simulation by name."""
    out = {f"truth {name}": x for name, x in sky.truth.items()}
    for name, batch in sky.batches.items():
        for field in dataclasses.fields(batch):
            if field.name != "survey":
                out[f"{name} {field.name}"] = getattr(batch, field.name)
        out[f"{name} noiseless"] = sky.noiseless[name]
    out |= {f"neighbours {name}": x for name, x in sky.neighbours.items()}
    return out


def test_shapes_and_units(sky):
    rows = GROUPS * MEMBERS
    assert len(sky) == rows
    assert sky.group.tolist() == [i // MEMBERS for i in range(rows)]
    for survey in sky.surveys:
        batch = sky.batches[survey.name]
        shape = (rows, len(survey.bands), survey.stamp_size, survey.stamp_size)
        assert batch.pixels.shape == batch.good.shape == shape
        assert sky.noiseless[survey.name].shape == shape
        assert batch.pixels.dtype == torch.float32
        assert torch.isfinite(batch.pixels).all()
        assert (batch.pixels[~batch.good] == 0).all()
        assert (batch.flags == 0).all()
        assert batch.stamp()[2].abs().max() <= 0.5
        assert torch.equal(torch.isnan(batch.noise), ~batch.present)
        assert len(set(batch.keys.tolist())) == rows
    assert torch.equal(sky.batches["hsc"].keys, sky.batches["legacy"].keys)
    galaxy = ~sky.truth["is_star"]
    for name in ("redshift", "log_mass", "log_size", "e1", "bulge_fraction"):
        assert sky.truth[name].shape == (rows,)
        assert torch.equal(torch.isfinite(sky.truth[name]), galaxy)


def test_same_seed_and_step_give_the_same_bits(sky):
    again = tensors(simulate(GROUPS, MEMBERS, NAMES, seed=5))
    for name, tensor in tensors(sky).items():
        assert torch.equal(tensor.nan_to_num(), again[name].nan_to_num()), name


def test_other_steps_and_seeds_are_new(sky):
    for other in ({"seed": 5, "step": 1}, {"seed": 6}):
        new = simulate(GROUPS, MEMBERS, NAMES, **other)
        for name in ("magnitude", "ebv", "depth_hsc", "psf_fwhm_legacy"):
            assert not (new.truth[name] == sky.truth[name]).any()
        assert not (new.batches["hsc"].keys == sky.batches["hsc"].keys).any()


def test_another_visit_sees_the_same_scenes_under_other_conditions(sky):
    again = simulate(GROUPS, MEMBERS, NAMES, seed=5, visit=1)
    for name in ("redshift", "magnitude", "ebv"):
        same = torch.equal(again.truth[name].nan_to_num(), sky.truth[name].nan_to_num())
        assert same, name
    for name in NAMES:
        assert torch.equal(again.batches[name].keys, sky.batches[name].keys)
        for what in ("psf_fwhm", "depth"):
            key = f"{what}_{name}"
            assert not (again.truth[key] == sky.truth[key]).any()


def test_a_survey_does_not_depend_on_the_others(sky):
    alone = simulate(GROUPS, MEMBERS, ["legacy"], seed=5)
    assert torch.equal(alone.batches["legacy"].pixels, sky.batches["legacy"].pixels)


def test_global_random_states_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    simulate(1, 2, NAMES, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_conditions_are_shared_within_groups(sky):
    for name in ("ebv", *(f"psf_fwhm_{n}" for n in NAMES)):
        value = sky.truth[name].reshape(GROUPS, MEMBERS, -1)
        assert (value == value[:, :1]).all(), name
        assert not (value[0] == value[1]).any(), name
    # Coverage varies a little: by 4% of the noise, from galaxy to galaxy.
    many = simulate(2, 200, ["hsc"], seed=0).truth["depth_hsc"].reshape(2, 200, -1)
    assert torch.allclose(many.std(1), torch.tensor(0.043), atol=0.008)


def test_given_conditions_are_used():
    hsc = get_survey("hsc")
    given = draw_conditions(
        hsc, 2, torch_generator(0, "test"), psf_fwhm=0.7, depth=hsc.depth
    )
    sky = simulate(2, 2, ["hsc"], seed=0, conditions={"hsc": given})
    assert (sky.truth["psf_fwhm_hsc"] == torch.tensor(0.7)).all()
    expected = torch.tensor(hsc.pixel_noise(psf_fwhm=(0.7,) * 5))
    # Coverage scatters the noise of a cut-out by 4%, alike in all its bands.
    ratio = sky.truth["noise_hsc"] / expected
    assert torch.allclose(ratio, ratio[:, :1].expand(4, 5), rtol=1e-5)
    many = simulate(2, 500, ["hsc"], seed=0, conditions={"hsc": given})
    ratio = (many.truth["noise_hsc"] / expected)[:, 0]
    assert abs(ratio.log().mean()) < 0.005
    assert abs(ratio.log().std() - 0.04) < 0.004
    with pytest.raises(ValueError, match="must be for 3 groups"):
        simulate(3, 2, ["hsc"], seed=0, conditions={"hsc": given})


def test_affine_points_at_the_galaxy():
    sky = simulate(1, 200, NAMES, seed=1)
    alone = sky.truth["magnitude"] < 20
    for survey in sky.surveys:
        image = sky.noiseless[survey.name][:, 1][alone]
        peak = image.flatten(1).argmax(1)
        peak = torch.stack([peak % survey.stamp_size, peak // survey.stamp_size], 1)
        away = peak - sky.batches[survey.name].affine[alone, :, 2]
        assert away.abs().median() < 0.5


def test_noise_has_the_asked_size_and_correlation():
    for name in NAMES:
        survey = get_survey(name)
        size = survey.stamp_size
        generator = torch_generator(0, "test", name)
        noise = correlated_noise(survey, (400, size, size), generator)
        assert abs(noise.std() - 1) < 0.01
        # The size is the same at the edge of the stamp.
        assert abs(noise[:, 0].std() - 1) < 0.03
        for lag, rho in enumerate(survey.noise_correlation, 1):
            for a, b in (
                (noise[..., lag:], noise[..., :-lag]),
                (noise[:, lag:], noise[:, :-lag]),
            ):
                assert abs((a * b).mean() - rho) < 0.01
        rho = survey.noise_correlation[0]
        assert abs((noise[:, 1:, 1:] * noise[:, :-1, :-1]).mean() - rho**2) < 0.01


def test_pixels_are_image_plus_noise():
    sky = simulate(8, 16, NAMES, seed=2)
    for survey in sky.surveys:
        batch = sky.batches[survey.name]
        noise = sky.truth[f"noise_{survey.name}"][:, :, None, None]
        image = sky.noiseless[survey.name]
        z = (batch.pixels - image) / noise
        good = (
            batch.good & (sky.neighbours["magnitude"] > 17).all(1)[:, None, None, None]
        )
        empty = z[good & (image < noise)]
        # Percentiles: a few stamps have the halo of a bright star in them.
        low, middle, high = np.percentile(empty, [15.87, 50, 84.13])
        assert abs((high - low) / 2 - 1) < 0.02
        # The mean light of unseen galaxies went with the sky.
        assert abs(middle) < 0.01
        # Where the galaxy is as bright as the sky, the noise is 1.4 times as large.
        level = sky_level(survey)[:, None, None]
        bright = z[good & (image > level)]
        expected = (1 + image / level).sqrt()[good & (image > level)]
        assert bright.std() > 1.3
        assert abs((bright / expected).std() - 1) < 0.1


def test_neighbours_come_and_go():
    alone, crowded, other = (
        simulate(2, 8, NAMES, seed=4, neighbours=n) for n in (None, 0, 1)
    )
    assert alone.neighbours["present"].shape == (16, 0)
    assert crowded.neighbours["present"].any()
    for name in NAMES:
        assert torch.equal(alone.truth[f"noise_{name}"], crowded.truth[f"noise_{name}"])
        extra = [
            sky.noiseless[name] - alone.noiseless[name] for sky in (crowded, other)
        ]
        assert (extra[0] - extra[1]).abs().max() > 1
        # What is added to the galaxy is light.
        noise = alone.truth[f"noise_{name}"][:, :, None, None]
        assert all((x > -0.05 * noise).float().mean() > 0.999 for x in extra)
    same = alone.truth["magnitude"] == other.truth["magnitude"]
    assert same.all()
    west, north = (crowded.neighbours[x] for x in ("west", "north"))
    assert max(west.abs().max(), north.abs().max()) <= 5.5


def test_a_neighbour_stands_where_the_list_says():
    sky = simulate(4, 32, ["hsc"], seed=7)
    alone = simulate(4, 32, ["hsc"], seed=7, neighbours=None)
    listed = sky.neighbours
    inside = listed["west"].abs().maximum(listed["north"].abs()) < 3.5
    bright = torch.where(listed["present"] & inside, listed["magnitude"], 99.0)
    row, slot = divmod(bright.argmin().item(), bright.shape[1])
    image = (sky.noiseless["hsc"] - alone.noiseless["hsc"])[row, 2]
    peak = divmod(image.argmax().item(), 48)
    affine = sky.batches["hsc"].affine[row]
    place = [listed[x][row, slot] / 0.168 for x in ("west", "north")]
    assert abs(peak[1] - (affine[0, 2] + place[0])) < 1.5
    assert abs(peak[0] - (affine[1, 2] + place[1])) < 1.5


def test_magnitudes_can_be_asked_for():
    asked = torch.linspace(18, 24, 8)
    sky = simulate(1, 8, ["hsc"], seed=0, magnitude=asked)
    assert torch.equal(sky.truth["magnitude"], asked)
    with pytest.raises(ValueError, match="'magnitude' must have one value"):
        simulate(1, 7, ["hsc"], seed=0, magnitude=asked)


def test_bright_stars_saturate_and_lend_their_halo():
    hsc = get_survey("hsc")
    star = torch.zeros(1, 5, 48, 48)
    star[..., 20, 30] = 1.01 * torch.tensor(hsc.saturation_level())[None]
    assert saturated(hsc, star).sum() == 5 * 9
    affine = torch.tensor([[[1 / 0.168, 0, 23.5], [0, 1 / 0.168, 23.5]]])
    light = halo_light(hsc, affine, torch.tensor([[0.0, 20.0, 10.0]]))[0, 0]
    flux = 3.631e12 * 10**-4 * 4e-4 * 0.168**2
    assert light[23:25, 23:25].mean().item() == pytest.approx(flux / 400, rel=0.01)
    assert light[-1].mean() > light[0].mean()


@pytest.mark.parametrize("name", sorted(SURVEYS))
def test_every_described_survey_can_be_simulated(name):
    sky = simulate(1, 2, [name], seed=0)
    survey = get_survey(name)
    batch = sky.batches[name]
    assert batch.pixels.shape == (2, len(survey.bands), *[survey.stamp_size] * 2)
    assert torch.isfinite(batch.pixels).all()
    peak = sky.noiseless[name].amax((2, 3))
    assert (peak > 0).all()


def test_masks_and_missing_bands_have_their_shares():
    survey = get_survey("legacy")
    given = draw_conditions(survey, 4000, torch_generator(0, "test"))
    missing = (~given.present).float().mean(0)
    assert abs(missing[2] - 0.10) < 0.02
    assert (missing[[0, 1, 3]] < 0.015).all()
    assert given.present.any(1).all()
    present = torch.ones(2000, 4, dtype=torch.bool)
    good = draw_good(survey, present, torch_generator(0, "test"))
    hit = (~good).flatten(1).any(1).float().mean()
    assert abs(hit - 0.05) < 0.02


def test_scatter_of_conditions():
    hsc = get_survey("hsc")
    given = draw_conditions(hsc, 4000, torch_generator(0, "test"))
    fwhm, depth = given.psf_fwhm, given.depth
    assert torch.allclose(fwhm.median(0)[0], torch.tensor(hsc.psf_fwhm), rtol=0.02)
    relative = fwhm.std(0) / fwhm.mean(0)
    assert torch.allclose(relative, torch.tensor(hsc.psf_scatter), rtol=0.08)
    assert torch.allclose(depth.std(0), torch.tensor(hsc.depth_scatter), rtol=0.08)
    # Half of the variance is common to the bands.
    assert abs(torch.corrcoef(depth.T)[0, 3] - 0.5) < 0.05


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1, 1, ["hsc", "hsc"]), ValueError),
        ((1, 1, []), ValueError),
        ((0, 1, ["hsc"]), ValueError),
        ((1, 1, ["nowhere"]), SurveyMismatchError),
    ],
)
def test_refuses_what_makes_no_sky(arguments, error):
    with pytest.raises(error):
        simulate(*arguments, seed=0)


def test_any_survey_whose_filters_are_known():
    lsst = dataclasses.replace(
        get_survey("hsc"),
        name="lsst",
        filters=tuple(f"lsst2023-{band}" for band in "grizy"),
        pixel_scale=0.2,
        stamp_size=40,
        patch_size=2,
    )
    assert simulate(1, 2, [lsst], seed=0).noiseless["lsst"].shape[-1] == 40
    unknown = dataclasses.replace(lsst, filters=("nobody-g",) * 5)
    with pytest.raises(SurveyMismatchError, match="nobody-g"):
        simulate(1, 2, [unknown], seed=0)


def test_pairs_of_one_galaxy_with_and_without_its_neighbours():
    first, again, alone = (
        simulate_pairs(6, random_state=2, visit=visit, neighbours=neighbours)
        for visit, neighbours in ((0, 0), (1, 0), (0, None))
    )
    for other in (again, alone):
        assert (other.truth["magnitude"] == first.truth["magnitude"]).all()
    assert not (again.truth["depth_hsc"] == first.truth["depth_hsc"]).any()
    assert (alone.truth["depth_hsc"] == first.truth["depth_hsc"]).all()
    listed = first.truth.meta["neighbours"]
    assert len(listed) > 3
    assert len(alone.truth.meta["neighbours"]) == 0
    assert set(listed["row"]) <= set(range(6))
    assert listed["west"].unit == "arcsec"
    assert np.isfinite(listed["redshift"][~listed["is_star"]]).all()
