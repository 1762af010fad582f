# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Simulated cut-outs of the same scenes in several surveys, with their truth.

A scene is drawn once (`scene`), each survey's conditions once per group
(`instruments`), the noiseless image is rendered (`render`), and

.. math:: d = g\,[I + H - U + \sigma\,(b + n \sqrt{1 + I/S})]

with :math:`I` the noiseless image (extinction and zero-point error included),
:math:`H` the halo of a star outside the field, :math:`U` the mean light of the unseen
galaxies, :math:`b` the background residual,
:math:`n` the correlated noise, :math:`S` the light of the sky and :math:`g` the mask
(`noise`). x increases to the west and y to the north. Every random number is a
function of (seed, what it is for, step, survey): no two steps share a galaxy.
"""

import math
from dataclasses import dataclass

import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.keys import key, torch_generator
from astro_disentangle.simulation.instruments import (
    draw_conditions,
    extinction,
    pixel_noise,
)
from astro_disentangle.simulation.noise import (
    correlated_noise,
    draw_background,
    draw_good,
    halo_light,
    photon_factor,
    saturated,
)
from astro_disentangle.simulation.render import (
    component_fluxes,
    psf_transform,
    render,
)
from astro_disentangle.simulation.scene import BOX, FIRST, draw_scene
from astro_disentangle.surveys import get_survey

__all__ = [
    "MEAN_EBV",
    "NOISE_SCATTER",
    "Simulation",
    "neighbours_of",
    "place_on_pixels",
    "simulate",
    "truth_of",
]

#: Mean Galactic reddening, mag.
MEAN_EBV = 0.03
#: Scatter of the noise of cut-outs under one set of conditions: coverage varies.
NOISE_SCATTER = 0.04


@dataclass(frozen=True, eq=False)
class Simulation:
    """
    Cut-outs of B = n_groups * group_size scenes in several surveys.

    Parameters
    ----------
    surveys : tuple of `~astro_disentangle.Survey`
        The surveys.
    batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs by name of the survey, group after group. Noise and PSF are the
        true ones; NaN for a band that is missing.
    group : `torch.Tensor`
        Shape (B,), int64: members of a group share their conditions.
    truth : dict of str to `torch.Tensor`
        Shape (B,) float32: ``redshift``, ``log_mass`` (solar masses), ``magnitude``
        (HSC i before extinction), ``log_size`` (log10 of the circularised
        half-light radius in arcsec), ``bulge_fraction``, ``e1``, ``e2`` (towards
        west, see `Sources.ellipticity`), ``ebv`` (mag); ``is_star`` bool. For a
        star, redshift, mass, size, bulge and ellipticity are NaN. For each survey
        shape (B, C): ``psf_fwhm_NAME`` (arcsec), ``depth_NAME`` (AB mag),
        ``noise_NAME`` (nJy).
    noiseless : dict of str to `torch.Tensor`
        Shape (B, C, N, N), nJy: the images without noise, background and mask,
        neighbours included.
    neighbours : dict of str to `torch.Tensor`
        Shape (B, M): ``west`` and ``north`` of the central object in arcsec,
        ``magnitude`` (HSC i), ``redshift`` and ``log_size`` (NaN for stars),
        ``is_star`` and ``present``, whether the slot holds a neighbour.
    """

    surveys: tuple
    batches: dict
    group: torch.Tensor
    truth: dict
    noiseless: dict
    neighbours: dict

    def __len__(self):
        return len(self.group)


def truth_of(centre, ebv):
    """What is true of the central objects whatever the survey."""
    e1, e2 = centre.ellipticity.unbind(-1)
    galaxy = {
        "redshift": centre.redshift,
        "log_mass": centre.log_mass,
        "log_size": centre.r_half.log10(),
        "bulge_fraction": centre.bulge_fraction,
        "e1": e1,
        "e2": e2,
    }
    star = centre.is_star
    truth = {name: x.masked_fill(star, torch.nan) for name, x in galaxy.items()}
    return {**truth, "magnitude": centre.magnitude_i, "ebv": ebv, "is_star": star}


def neighbours_of(scene):
    """The neighbours of a scene; see `Simulation`."""
    rows = len(scene.position)
    others = scene.sources.map(lambda x: x.unflatten(0, (rows, -1))[:, FIRST:])
    west, north = scene.position[:, FIRST:].unbind(-1)
    return {
        "west": west,
        "north": north,
        "magnitude": others.magnitude_i,
        "redshift": others.redshift,
        "log_size": others.r_half.log10().masked_fill(others.is_star, torch.nan),
        "is_star": others.is_star,
        "present": scene.present[:, FIRST:],
    }


def simulate(
    n_groups,
    group_size,
    surveys,
    *,
    seed,
    step=0,
    visit=0,
    neighbours=0,
    magnitude=None,
    device="cpu",
    conditions=None,
):
    """
    Simulate the same scenes as several surveys would see them.

    Parameters
    ----------
    n_groups : int
        Number of sets of conditions.
    group_size : int
        Number of scenes under each of them.
    surveys : sequence of str or `~astro_disentangle.Survey`
        The surveys, of different names; their filters must be in the tables.
    seed : int
        The user's seed.
    step : int
        Another step has other scenes, conditions and noise.
    visit : int
        Another visit has the same scenes under other conditions and noise.
    neighbours : int or None
        Another number puts other neighbours around the same galaxies, None puts
        none there; conditions and noise stay as they are.
    magnitude : `torch.Tensor`, optional
        Shape (B,), HSC i of the central objects, in place of drawn ones.
    device : str or `torch.device`
        Where to render and draw the noise. The scenes and the conditions are the
        same on every device, the noise is not.
    conditions : dict, optional
        `~astro_disentangle.simulation.instruments.Conditions` of ``n_groups``
        groups by name of the survey, in place of drawn ones.

    Returns
    -------
    simulation : `Simulation`
        The cut-outs and their truth.

    Raises
    ------
    SurveyMismatchError
        If a survey is unknown or the tables lack one of its filters.
    ValueError
        If two surveys have one name, there is no scene to simulate, ``conditions``
        are for another number of groups or bands, or ``magnitude`` is for another
        number of scenes.

    Examples
    --------
    >>> from astro_disentangle.simulation import simulate
    >>> sky = simulate(2, 3, ["hsc", "legacy"], seed=0)
    >>> sky.batches["legacy"].pixels.shape
    torch.Size([6, 4, 32, 32])
    """
    surveys = tuple(get_survey(survey) for survey in surveys)
    names = [survey.name for survey in surveys]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"'surveys' must have different names, at least one; got {names}."
        )
    if n_groups < 1 or group_size < 1:
        raise ValueError(
            f"'n_groups' and 'group_size' must be positive; got {n_groups} and "
            f"{group_size}."
        )
    rows = n_groups * group_size
    if magnitude is not None and magnitude.shape != (rows,):
        raise ValueError(
            f"'magnitude' must have one value for each of the {rows} scenes; got "
            f"shape {tuple(magnitude.shape)}."
        )

    def generator(purpose, *more, on="cpu"):
        return torch_generator(seed, purpose, step, *more, device=on)

    around = None
    if neighbours is not None:
        around = generator("neighbours", *([neighbours] if neighbours else []))
    scene = draw_scene(rows, generator("galaxies"), around, magnitude)
    ebv = torch.empty(n_groups).exponential_(generator=generator("extinction"))
    ebv = MEAN_EBV * ebv
    group = torch.arange(n_groups).repeat_interleave(group_size)
    centre = scene.sources.map(lambda tensor: tensor.unflatten(0, (rows, -1))[:, 0])
    truth = truth_of(centre, ebv[group])
    keys = torch.tensor([key(seed, "object", step, row) for row in range(rows)])
    batches, noiseless = {}, {}
    for survey in surveys:

        def of_survey(purpose, on="cpu", name=survey.name):
            return generator(purpose, name, visit, on=on)

        given = _conditions(survey, n_groups, conditions, of_survey)
        batch, image, depth = _observe(
            survey, scene, ebv, given, group, keys, of_survey, device
        )
        batches[survey.name], noiseless[survey.name] = batch, image
        sigma = pixel_noise(survey, depth, given.psf_fwhm[group])
        truth[f"psf_fwhm_{survey.name}"] = given.psf_fwhm[group]
        truth[f"depth_{survey.name}"] = depth
        truth[f"noise_{survey.name}"] = sigma
    truth = {name: tensor.to(device) for name, tensor in truth.items()}
    others = {name: tensor.to(device) for name, tensor in neighbours_of(scene).items()}
    return Simulation(surveys, batches, group.to(device), truth, noiseless, others)


def _conditions(survey, n_groups, conditions, generator):
    """The given conditions of a survey, checked, or drawn ones; on the CPU."""
    given = (conditions or {}).get(survey.name)
    if given is None:
        return draw_conditions(survey, n_groups, generator("conditions"))
    if given.psf_fwhm.shape != (n_groups, len(survey.bands)):
        raise ValueError(
            f"'conditions' of {survey.name!r} must be for {n_groups} groups and "
            f"{len(survey.bands)} bands; got {tuple(given.psf_fwhm.shape)}."
        )
    return given.map(lambda tensor: tensor.cpu())


def _observe(survey, scene, ebv, conditions, group, keys, generator, device):
    """
    Cut-outs of scenes by a survey.

    Returns the cut-outs, the noiseless images (B, C, N, N) in nJy and the depth of
    each cut-out (B, C) in mag.
    """
    rows = len(group)
    affine, images, level = _expose(
        survey, scene, ebv, conditions, group, device, generator
    )
    uneven = NOISE_SCATTER * torch.randn(rows, 1, generator=generator("coverage"))
    depth = conditions.depth[group] - 2.5 / math.log(10) * uneven
    sigma = pixel_noise(survey, depth, conditions.psf_fwhm[group]).to(device)
    noise = correlated_noise(survey, images.shape, generator("noise", device))
    noise *= photon_factor(survey, images)
    noise += draw_background(survey, rows, generator("background", device))
    pixels = noise.mul_(sigma[:, :, None, None]).add_(images)
    pixels -= level[:, :, None, None]
    near = torch.isfinite(scene.halo[:, 2]).nonzero()[:, 0].to(device)
    pixels[near] += halo_light(survey, affine[near], scene.halo.to(device)[near])
    good = draw_good(survey, conditions.present[group], generator("mask")).to(device)
    good &= ~saturated(survey, images)
    absent = ~conditions.present[group].to(device)
    batch = CutoutBatch(
        survey=survey,
        pixels=pixels.mul_(good),
        good=good,
        noise=sigma.masked_fill(absent, torch.nan),
        psf_fwhm=conditions.psf_fwhm[group].to(device).masked_fill(absent, torch.nan),
        affine=affine,
        flags=torch.zeros(rows, dtype=torch.int64, device=device),
        keys=keys.to(device),
    )
    return batch, images, depth


def _expose(survey, scene, ebv, conditions, group, device, generator):
    """
    The noiseless image of scenes in a survey.

    Returns the affine maps (B, 2, 3), the images (B, C, N, N) in nJy and the mean
    light of the unseen galaxies (B, C) in nJy per pixel, which no survey can tell
    from its sky and subtracts with it.
    """
    sources = scene.sources.map(lambda tensor: tensor.to(device))
    affine, position = place_on_pixels(
        survey, scene.position, generator("registration")
    )
    dimming = extinction(survey, ebv) + conditions.zero_point
    response = 10 ** (-0.4 * dimming[group])
    fluxes = component_fluxes(survey, sources).unflatten(0, (len(group), -1))
    fluxes = fluxes * response[:, None, None].to(device)
    images = render(
        survey,
        sources,
        fluxes,
        position.to(device),
        scene.present.to(device),
        psf_transform(survey, conditions.map(lambda tensor: tensor.to(device))),
    )
    unseen = fluxes[:, 1:FIRST].sum((1, 2))
    return affine.to(device), images, unseen * (survey.pixel_scale / BOX) ** 2


def place_on_pixels(survey, offsets, generator):
    """
    Where a survey has the sources, and where it says that the galaxy is.

    Offsets (B, M, 2) in arcsec; returns the affine maps (B, 2, 3) and the true
    pixels (B, M, 2), which the astrometric error sets apart.
    """
    rows = len(offsets)
    sub_pixel = torch.rand(rows, 1, 2, generator=generator) - 0.5
    error = torch.randn(rows, 1, 2, generator=generator) * survey.astrometric_error
    centre = (survey.stamp_size - 1) / 2 + sub_pixel
    affine = torch.zeros(rows, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 / survey.pixel_scale
    affine[:, :, 2] = centre[:, 0]
    return affine, centre + (offsets + error) / survey.pixel_scale
