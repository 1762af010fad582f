# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Test pairs whose images GalSim paints, not the training simulator.

``python -m astro_disentangle.evaluation.galsim_pairs --pairs 4096 --seed 1234
--output FILE.safetensors`` renders a test set once and keeps it.

The scenes, the conditions and the truth are drawn as in training, but every random
number has a key of its own, (seed, ``"galsim"``, ...): no seed of training makes the
same scene. Profiles, PSF and pixel are GalSim's. What the detector adds is recorded
as in `~astro_disentangle.simulation.sky`, with the noise, background, halos and masks
of `~astro_disentangle.simulation.noise`, which never meet the training renderer.

With HST morphology, the central galaxies are stamps of the Hubble Space Telescope in
place of profiles: of the eight nearest in magnitude one at random, turned, mirrored or
not, with the flux of the drawn galaxy in each band. They are used as they are, the
PSF of HST (0.1 arcsec) being far sharper than that of the ground, and count as the
galaxy itself: sizes and ellipticities in the truth are measured on them.
"""

import argparse
import cmath
import functools
import math
from pathlib import Path

import numpy as np
import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.evaluation.galsim_shapes import (
    galsim_galaxy,
    load_galsim,
    read_stamps,
)
from astro_disentangle.evaluation.pair_files import save_pairs
from astro_disentangle.keys import key, torch_generator
from astro_disentangle.quality import check_count
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
from astro_disentangle.simulation.render import component_fluxes
from astro_disentangle.simulation.scene import BOX, FIRST, draw_scene
from astro_disentangle.simulation.sky import (
    MEAN_EBV,
    NOISE_SCATTER,
    Simulation,
    neighbours_of,
    place_on_pixels,
    truth_of,
)
from astro_disentangle.surveys import get_survey

__all__ = ["render_pairs"]

_MORPHOLOGIES = ("parametric", "hst")
#: Stamps that may stand for a galaxy: the nearest ones in magnitude.
_NEAREST = 8


def render_pairs(
    n,
    surveys=("hsc", "legacy"),
    *,
    seed,
    morphology="parametric",
    stamps=None,
    group_size=8,
    neighbours=0,
    visit=0,
    progress=False,
):
    """
    Simulate pairs whose images GalSim paints.

    Parameters
    ----------
    n : int
        Number of scenes; the first of them are the same whatever the number.
    surveys : sequence of str or `~astro_disentangle.Survey`
        The surveys.
    seed : int
        The user's seed.
    morphology : {"parametric", "hst"}
        What the central galaxies are: profiles and knots, or stamps of HST.
    stamps : str or `~pathlib.Path`, optional
        Folder of the stamps in the format of GalSim's real galaxies: a FITS table
        whose columns ``GAL_FILENAME``, ``GAL_HDU``, ``PIXEL_SCALE`` (arcsec) and
        ``MAG`` (AB) say where they are.
    group_size : int
        Scenes under the same conditions.
    neighbours : int or None
        Another number puts other neighbours around the same galaxies, None puts
        none there.
    visit : int
        Another number shows the same scenes under other conditions.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pairs : `~astro_disentangle.simulation.Simulation`
        The cut-outs and their truth. For a stamp of HST, ``log_size``, ``e1`` and
        ``e2`` are measured on it and ``bulge_fraction`` is NaN.

    Raises
    ------
    ImportError
        If GalSim is not installed.
    FileNotFoundError
        If the folder holds no stamps.
    SurveyMismatchError
        If a survey is unknown.
    ValueError
        If a number is not positive, two surveys have one name, the morphology is
        unknown, or the stamps are not named.

    Examples
    --------
    .. doctest-requires:: galsim

        >>> from astro_disentangle.evaluation.galsim_pairs import render_pairs
        >>> pairs = render_pairs(1, ["legacy"], seed=0)
        >>> pairs.batches["legacy"].pixels.shape
        torch.Size([1, 4, 32, 32])
    """
    from tqdm import tqdm

    n, group_size = check_count("n", n), check_count("group_size", group_size)
    surveys = tuple(get_survey(survey) for survey in surveys)
    names = [survey.name for survey in surveys]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"'surveys' must have different names, at least one; got {names}."
        )
    if morphology not in _MORPHOLOGIES:
        raise ValueError(
            f"'morphology' must be one of {_MORPHOLOGIES}; got {morphology!r}."
        )
    if morphology == "hst" and stamps is None:
        raise ValueError("'stamps' must name a folder for the morphology 'hst'.")
    library = read_stamps(stamps) if morphology == "hst" else None
    parts = []
    total = n * len(surveys)
    with tqdm(total=total, disable=not progress, unit="cut-out") as bar:
        for number, start in enumerate(range(0, n, group_size)):
            random = functools.partial(_generator, seed, number)
            seen = functools.partial(random, visit=visit)
            group = _draw_group(random, group_size, neighbours, library)
            keys = [key(seed, "galsim", "object", number, i) for i in range(group_size)]
            # Scenes past the last one stay blank and are cut off below.
            rows = min(group_size, n - start)
            parts.append(_render(surveys, group, seen, torch.tensor(keys), rows, bar))
    return _join(parts, n, group_size)


def _generator(seed, number, purpose, *more, visit=0):
    """Random numbers of a group; no key of training has this form."""
    more += ("visit", visit) if visit else ()
    return torch_generator(seed, "galsim", purpose, number, *more)


def _draw_group(random, size, neighbours, library):
    """Scenes of a group, E(B-V) (1,), truth, and stamps in GalSim by row."""
    around = None
    if neighbours is not None:
        around = random("neighbours", *([neighbours] if neighbours else []))
    scene = draw_scene(size, random("galaxies"), around)
    ebv = MEAN_EBV * torch.empty(1).exponential_(generator=random("extinction"))
    centre = scene.sources.map(lambda tensor: tensor.unflatten(0, (size, -1))[:, 0])
    truth = truth_of(centre, ebv.repeat(size))
    stamps = {}
    which, turn, mirror = torch.rand(3, size, generator=random("stamps")).tolist()
    for row in (~truth["is_star"]).nonzero()[:, 0].tolist() if library else ():
        magnitude = truth["magnitude"][row].item()
        near = sorted(library, key=lambda stamp: abs(stamp.magnitude - magnitude))
        stamp = near[int(which[row] * min(_NEAREST, len(near)))]
        angle, flip = 2 * math.pi * turn[row], mirror[row] < 0.5
        stamps[row] = stamp.shape(angle, flip=flip)
        e = stamp.ellipticity.conjugate() if flip else stamp.ellipticity
        e *= cmath.rect(1, 2 * angle)
        truth["e1"][row], truth["e2"][row] = e.real, e.imag
        truth["log_size"][row] = math.log10(stamp.r_half)
        truth["bulge_fraction"][row] = math.nan
    return scene, ebv, truth, stamps


def _render(surveys, group, random, keys, rows, bar):
    """A `Simulation` of one group, with images in its first rows."""
    scene, ebv, truth, stamps = group
    sources = scene.sources.map(lambda tensor: tensor.unflatten(0, (len(keys), -1)))
    shapes = []
    for row in range(rows):
        count = int(scene.present[row].sum())
        one = (sources.map(lambda x, i=row, m=m: x[i, m][None]) for m in range(count))
        shapes.append([functools.partial(galsim_galaxy, source) for source in one])
        if row in stamps:
            shapes[row][0] = lambda fluxes, stamp=stamps[row]: sum(fluxes) * stamp
    truth, batches, noiseless = dict(truth), {}, {}
    for survey in surveys:
        name = survey.name
        observed = _observe(survey, scene, ebv, shapes, random, keys, bar)
        batches[name], noiseless[name], conditions, depth = observed
        truth[f"psf_fwhm_{name}"] = conditions.psf_fwhm.repeat(len(keys), 1)
        truth[f"depth_{name}"] = depth
        truth[f"noise_{name}"] = pixel_noise(survey, depth, conditions.psf_fwhm)
    group = torch.zeros(len(keys), dtype=torch.int64)
    return Simulation(surveys, batches, group, truth, noiseless, neighbours_of(scene))


def _observe(survey, scene, ebv, shapes, random, keys, bar):
    """Cut-outs of a group, noiseless images, conditions and depths in a survey."""

    def of_survey(purpose):
        return random(purpose, survey.name)

    size, bands, side = len(scene.position), len(survey.bands), survey.stamp_size
    conditions = draw_conditions(survey, 1, of_survey("conditions"))
    affine, position = place_on_pixels(
        survey, scene.position, of_survey("registration")
    )
    response = 10 ** (-0.4 * (extinction(survey, ebv) + conditions.zero_point))
    fluxes = component_fluxes(survey, scene.sources).unflatten(0, (size, -1)) * response
    images = torch.zeros(size, bands, side, side)
    for row, makers in enumerate(shapes):
        images[row] = _paint(survey, conditions, makers, fluxes[row], position[row])
        bar.update()
    # From here on as `sky` does it.
    uneven = NOISE_SCATTER * torch.randn(size, 1, generator=of_survey("coverage"))
    depth = conditions.depth - 2.5 / math.log(10) * uneven
    sigma = pixel_noise(survey, depth, conditions.psf_fwhm)
    noise = correlated_noise(survey, images.shape, of_survey("noise"))
    noise = noise * photon_factor(survey, images)
    noise += draw_background(survey, size, of_survey("background"))
    unseen = fluxes[:, 1:FIRST].sum((1, 2)) * (survey.pixel_scale / BOX) ** 2
    pixels = images + noise * sigma[:, :, None, None] - unseen[:, :, None, None]
    near = torch.isfinite(scene.halo[:, 2])
    pixels[near] += halo_light(survey, affine[near], scene.halo[near])
    present = conditions.present.repeat(size, 1)
    good = draw_good(survey, present, of_survey("mask")) & ~saturated(survey, images)
    batch = CutoutBatch(
        survey=survey,
        pixels=pixels * good,
        good=good,
        noise=sigma.masked_fill(~present, torch.nan),
        psf_fwhm=conditions.psf_fwhm.repeat(size, 1).masked_fill(~present, torch.nan),
        affine=affine,
        flags=torch.zeros(size, dtype=torch.int64),
        keys=keys,
    )
    return batch, images, conditions, depth


def _paint(survey, conditions, makers, fluxes, position):
    """
    The noiseless image of a scene by GalSim, (C, N, N) in nJy.

    ``makers`` give the shape of each source from the fluxes of its parts; ``fluxes``
    (M, 3, C) in nJy, pixels ``position`` (M, 2), ``conditions`` of one group.
    """
    galsim, accuracy = load_galsim()
    side = survey.stamp_size
    offsets = (position - (side - 1) / 2).tolist()
    painted = np.zeros((len(survey.bands), side, side))
    for band, array in enumerate(painted):
        image = galsim.Image(array)
        e1, e2 = conditions.psf_ellipticity[0, band].tolist()
        psf = galsim.Moffat(
            conditions.psf_beta[0, band].item(),
            fwhm=conditions.psf_fwhm[0, band].item(),
        ).shear(e1=e1, e2=e2)
        in_band = fluxes[:, :, band].tolist()
        for make, flux, (x, y) in zip(makers, in_band, offsets, strict=False):
            seen = galsim.Convolve([make(flux), psf], gsparams=accuracy)
            seen.drawImage(
                image, scale=survey.pixel_scale, offset=(x, y), add_to_image=True
            )
    return torch.from_numpy(painted).float()


def _join(parts, n, group_size):
    """The first n scenes of groups, as one `Simulation`."""
    first = parts[0]

    def joined(of):
        return {
            name: torch.cat([of(part)[name] for part in parts])[:n]
            for name in of(first)
        }

    return Simulation(
        surveys=first.surveys,
        batches={
            name: CutoutBatch.concatenate([part.batches[name] for part in parts])[:n]
            for name in first.batches
        },
        group=torch.arange(n) // group_size,
        truth=joined(lambda part: part.truth),
        noiseless=joined(lambda part: part.noiseless),
        neighbours=joined(lambda part: part.neighbours),
    )


def main(arguments=None):
    """
    Command line of the renderer.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4096, metavar="N")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--morphology", choices=_MORPHOLOGIES, default="parametric")
    parser.add_argument("--stamps", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    # Before the work, not after it.
    if not options.output.parent.is_dir():
        parser.error(f"there is no folder '{options.output.parent}'.")
    drawn = {"seed": options.seed, "morphology": options.morphology}
    pairs = render_pairs(options.pairs, **drawn, stamps=options.stamps, progress=True)
    save_pairs(options.output, pairs, **drawn)


if __name__ == "__main__":
    main()
