# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The renderer against GalSim, and what must hold of any image."""

import dataclasses
import math

import pytest
import torch

from astro_disentangle import get_survey
from astro_disentangle.evaluation.galsim_shapes import galsim_galaxy
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation.instruments import draw_conditions
from astro_disentangle.simulation.population import sample_galaxies
from astro_disentangle.simulation.render import (
    component_fluxes,
    psf_transform,
    render,
)
from astro_disentangle.simulation.scene import sample_stars

SURVEYS = ("hsc", "legacy")


def galaxy(**values):
    """One galaxy with an n = 4 bulge."""
    drawn = sample_galaxies(1, torch_generator(0, "test"))
    fixed = {
        "bulge_fraction": 0.4,
        "bulge_radius": 0.35,
        "disc_radius": 0.6,
        "bulge_ratio": 0.8,
        "disc_ratio": 0.4,
        "angle": 0.7,
        "bulge_index": 4.0,
        "disc_index": 1.0,
        "arm_fraction": 0.0,
        "bar_fraction": 0.0,
    }
    fixed = {name: torch.tensor([x]) for name, x in {**fixed, **values}.items()}
    return dataclasses.replace(drawn, **fixed)


def conditions_of(survey):
    return draw_conditions(survey, 1, torch_generator(1, "test"))


def render_one(survey, source, position, conditions, flux=None):
    bands = len(survey.bands)
    if flux is None:
        share = source.bulge_fraction
        disc = (1 - share) * (1 - source.arm_fraction)
        flux = torch.stack([share, disc, 1 - share - disc], 1)
        flux = flux[:, :, None].expand(1, 3, bands)
    return render(
        survey,
        source,
        flux[:, None],
        torch.tensor([[position]]),
        torch.ones(1, 1, dtype=torch.bool),
        psf_transform(survey, conditions),
    )[0]


def galsim_psf(conditions, band):
    galsim = pytest.importorskip("galsim")
    e1, e2 = conditions.psf_ellipticity[0, band].tolist()
    return galsim.Moffat(
        beta=conditions.psf_beta[0, band].item(),
        fwhm=conditions.psf_fwhm[0, band].item(),
    ).shear(e1=e1, e2=e2)


def galsim_image(survey, source, position, conditions, band):
    galsim = pytest.importorskip("galsim")
    whole = galsim_galaxy(source)
    psf = galsim_psf(conditions, band)
    size = survey.stamp_size
    offset = [p - (size - 1) / 2 for p in position]
    loose = galsim.GSParams(
        folding_threshold=1e-3, kvalue_accuracy=1e-6, maximum_fft_size=16384
    )
    image = galsim.Convolve([whole, psf], gsparams=loose).drawImage(
        nx=size, ny=size, scale=survey.pixel_scale, offset=offset
    )
    return torch.tensor(image.array)


@pytest.mark.parametrize("name", SURVEYS)
@pytest.mark.parametrize("band", [0, 2])
def test_agrees_with_galsim(name, band):
    survey = get_survey(name)
    source, conditions = galaxy(), conditions_of(survey)
    centre = (survey.stamp_size - 1) / 2
    position = [centre + 0.31, centre - 0.17]
    expected = galsim_image(survey, source, position, conditions, band)

    def difference(source, position):
        ours = render_one(survey, source, position, conditions)[band]
        return ((ours - expected).abs().max() / expected.max()).item()

    error = difference(source, position)
    print(f"{name} {survey.bands[band]}: {error:.1e}")
    assert error < 1e-3
    # The comparison notices a slightly wrong galaxy and a slightly wrong place.
    assert difference(galaxy(disc_ratio=0.42), position) > 1e-3
    assert difference(source, [position[0] + 0.02, position[1]]) > 1e-3


@pytest.mark.parametrize("index", [0.5, 1.0, 2.5, 4.0, 6.0])
def test_sersic_profiles_agree_with_galsim(index):
    survey = get_survey("hsc")
    source = galaxy(bulge_fraction=1.0, bulge_index=index)
    conditions = conditions_of(survey)
    position = [23.4, 23.7]
    ours = render_one(survey, source, position, conditions)[2]
    expected = galsim_image(survey, source, position, conditions, 2)
    error = ((ours - expected).abs().max() / expected.max()).item()
    print(f"n = {index}: {error:.1e}")
    assert error < 1e-3


def test_arms_and_bar_agree_with_galsim():
    survey = get_survey("hsc")
    source = galaxy(arm_fraction=0.4, bar_fraction=0.2)
    conditions = conditions_of(survey)
    position = [23.4, 23.7]
    expected = galsim_image(survey, source, position, conditions, 2)

    def difference(source):
        ours = render_one(survey, source, position, conditions)[2]
        return ((ours - expected).abs().max() / expected.max()).item()

    assert difference(source) < 1e-3
    assert difference(galaxy(arm_fraction=0.38, bar_fraction=0.2)) > 1e-3
    assert difference(galaxy(arm_fraction=0.4, bar_fraction=0.1)) > 1e-3


@pytest.mark.parametrize("name", SURVEYS)
def test_tabulated_psf_agrees_with_galsim(name):
    galsim = pytest.importorskip("galsim")
    survey = get_survey(name)
    source, conditions = galaxy(), conditions_of(survey)
    psf = galsim_psf(conditions, 1)
    # The image of a star: its pixel is in it, and it ends somewhere.
    image = psf.drawImage(nx=45, ny=45, scale=survey.pixel_scale).array
    given = torch.tensor(image).expand(1, len(survey.bands), 45, 45)
    tabulated = dataclasses.replace(conditions, psf_image=given)
    position = [(survey.stamp_size - 1) / 2 + 0.2] * 2
    ours = render_one(survey, source, position, tabulated)[1]
    sampled = galsim.InterpolatedImage(
        galsim.Image(image, scale=survey.pixel_scale),
        x_interpolant="lanczos15",
        normalization="flux",
        flux=1.0,
    )
    size = survey.stamp_size
    offset = [p - (size - 1) / 2 for p in position]
    expected = galsim.Convolve([galsim_galaxy(source), sampled]).drawImage(
        nx=size, ny=size, scale=survey.pixel_scale, offset=offset, method="no_pixel"
    )
    error = abs(ours.numpy() - expected.array).max() / expected.array.max()
    print(f"{name}: {error:.1e}")
    assert error < 1e-3
    wide = dataclasses.replace(conditions, psf_image=torch.ones(1, 1, 300, 300))
    with pytest.raises(ValueError, match="psf_image"):
        render_one(survey, source, position, wide)


@pytest.mark.parametrize("name", SURVEYS)
def test_star_is_the_psf(name):
    galsim = pytest.importorskip("galsim")
    survey = get_survey(name)
    conditions = conditions_of(survey)
    star = sample_stars(torch.tensor([20.0]), torch_generator(0, "test"))
    centre = (survey.stamp_size - 1) / 2
    ours = render_one(survey, star, [centre, centre], conditions)[0]
    e1, e2 = conditions.psf_ellipticity[0, 0].tolist()
    psf = galsim.Moffat(
        beta=conditions.psf_beta[0, 0].item(), fwhm=conditions.psf_fwhm[0, 0].item()
    ).shear(e1=e1, e2=e2)
    size = survey.stamp_size
    image = psf.drawImage(nx=size, ny=size, scale=survey.pixel_scale)
    expected = torch.tensor(image.array)
    assert (ours - expected).abs().max() < 1e-3 * expected.max()


@pytest.mark.parametrize("name", SURVEYS)
def test_flux_is_conserved(name):
    survey = get_survey(name)
    small = galaxy(bulge_radius=0.1, disc_radius=0.15)
    centre = (survey.stamp_size - 1) / 2
    image = render_one(survey, small, [centre, centre], conditions_of(survey))
    total = image.sum((1, 2))
    assert ((total > 0.95) & (total < 1.001)).all()


def test_images_are_linear_in_flux():
    survey = get_survey("legacy")
    source, conditions = galaxy(), conditions_of(survey)
    flux = component_fluxes(survey, source)
    one, three = (
        render_one(survey, source, [15.0, 16.0], conditions, scale * flux)
        for scale in (1, 3)
    )
    assert torch.allclose(3 * one, three, rtol=1e-4, atol=1e-4 * three.max().item())


def test_a_whole_pixel_moves_the_image():
    survey = get_survey("hsc")
    source, conditions = galaxy(bulge_fraction=0.0), conditions_of(survey)
    here = render_one(survey, source, [22.3, 23.6], conditions)
    there = render_one(survey, source, [23.3, 23.6], conditions)
    difference = (here[..., :-1] - there[..., 1:]).abs().max()
    assert difference < 1e-5 * here.max()


def test_reference_flux_is_the_magnitude():
    galaxies = sample_galaxies(50, torch_generator(0, "test"))
    flux = component_fluxes(get_survey("hsc"), galaxies)[:, :, 2].sum(1)
    magnitude = 31.4 - 2.5 * flux.log10()
    assert torch.allclose(magnitude, galaxies.magnitude_i, atol=1e-3)


def test_angle_runs_from_west_to_north():
    survey = get_survey("hsc")
    thin = galaxy(bulge_fraction=0.0, disc_ratio=0.2, angle=math.pi / 4)
    image = render_one(survey, thin, [23.5, 23.5], conditions_of(survey))[2]
    axis = torch.arange(48) - 23.5
    assert (image * axis * axis[:, None]).sum() > 0
    assert thin.ellipticity[0, 1] > 0.5
