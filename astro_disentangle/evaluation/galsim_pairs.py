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
import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.keys import key, torch_generator
from astro_disentangle.quality import WeightsError, check_count
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
from astro_disentangle.simulation.shapes import ARM_KNOTS
from astro_disentangle.simulation.sky import (
    _MEAN_EBV,
    _NOISE_SCATTER,
    Simulation,
    _neighbours,
    _place,
    _truth,
)
from astro_disentangle.survey import Survey, get_survey

__all__ = ["galsim_galaxy", "load_pairs", "render_pairs", "save_pairs"]

_CONTENT = "pairs rendered by GalSim 1"
_MORPHOLOGIES = ("parametric", "hst")
#: Stamps that may stand for a galaxy: the nearest ones in magnitude.
_NEAREST = 8
#: The tensors of a batch.
_BATCH = [field.name for field in dataclasses.fields(CutoutBatch)][1:]


@functools.cache
def _galsim():
    """GalSim, and the accuracy that images are drawn with."""
    try:
        import galsim
    except ImportError as error:
        raise ImportError(
            "rendering test pairs needs GalSim; install it with "
            "pip install 'astro_disentangle[sim]'."
        ) from error
    # Ten times coarser than GalSim's own: 1e-6 of the peak, in half the time.
    return galsim, galsim.GSParams(kvalue_accuracy=1e-4)


def galsim_galaxy(source, fluxes=None):
    """
    A source of the simulator, knots and all, as GalSim has it.

    Parameters
    ----------
    source : `~astro_disentangle.simulation.population.Sources`
        One source.
    fluxes : sequence of float, optional
        Flux of the bulge, of the disc with its bar, and of the arms, as
        `~astro_disentangle.simulation.render.component_fluxes` has them; by default
        their shares in HSC i.

    Returns
    -------
    shape : `galsim.GSObject`
        The source about its position, x to the west and y to the north, arcsec.

    Raises
    ------
    ImportError
        If GalSim is not installed.

    Examples
    --------
    .. doctest-requires:: galsim

        >>> from astro_disentangle.evaluation.galsim_pairs import galsim_galaxy
        >>> from astro_disentangle.keys import torch_generator
        >>> from astro_disentangle.simulation.population import sample_galaxies
        >>> galaxy = sample_galaxies(1, torch_generator(0, "demo"))
        >>> round(float(galsim_galaxy(galaxy).flux), 5)
        1.0
    """
    galsim, _ = _galsim()
    names = [f.name for f in dataclasses.fields(source) if f.name != "knots"]
    value = {name: getattr(source, name).item() for name in names}
    bulge, arm, bar = (value[f"{part}_fraction"] for part in ("bulge", "arm", "bar"))
    if fluxes is None:
        fluxes = bulge, (1 - bulge) * (1 - arm), (1 - bulge) * arm
    if value["is_star"]:
        return galsim.DeltaFunction(flux=sum(fluxes))
    angle, unit = value["angle"] * galsim.radians, value["disc_radius"]

    def sersic(part):
        index, radius, ratio = (
            value[f"{part}_{what}"] for what in ("index", "radius", "ratio")
        )
        round_one = galsim.Sersic(index, half_light_radius=radius)
        return round_one.shear(q=ratio, beta=angle)

    def knots(rows):
        gaussians = [
            weight * galsim.Gaussian(sigma=sigma * unit).shift(x * unit, y * unit)
            for x, y, sigma, weight in source.knots[0, rows].tolist()
            if weight
        ]
        return galsim.Add(gaussians).rotate(angle)

    beam = bar / (1 - arm) if arm < 1 else 0.0
    parts = (
        (fluxes[0], sersic, "bulge"),
        (fluxes[1] * (1 - beam), sersic, "disc"),
        (fluxes[1] * beam, knots, slice(ARM_KNOTS, None)),
        (fluxes[2], knots, slice(ARM_KNOTS)),
    )
    return galsim.Add([flux * make(what) for flux, make, what in parts if flux])


@dataclass(frozen=True, eq=False)
class _Stamp:
    """A galaxy by HST: light (n, n) with sum 1, arcsec per pixel, and what it shows."""

    light: np.ndarray
    scale: float
    magnitude: float
    centre: np.ndarray
    ellipticity: complex
    r_half: float

    def shape(self, angle, *, flip):
        """The galaxy about its centroid, x mirrored or not, then turned (rad)."""
        galsim, accuracy = _galsim()
        offset = self.centre - (np.array(self.light.shape[::-1]) - 1) / 2
        image = galsim.Image(self.light, scale=self.scale)
        shape = galsim.InterpolatedImage(
            image, flux=1.0, offset=tuple(offset), gsparams=accuracy
        )
        shape = shape.transform(-1, 0, 0, 1) if flip else shape
        return shape.rotate(angle * galsim.radians)


def _measured(image, scale, magnitude):
    """The galaxy in the middle of an image with noise, centroid (x, y) in pixels."""
    light = _isophote(image)
    y, x = np.indices(light.shape)
    place, light_ = np.stack([x, y]).reshape(2, -1), light.ravel()
    centre = place @ light_
    away = place - centre[:, None]
    second = (light_ * away) @ away.T
    (xx, xy), (_, yy) = second
    # Half of the light within an ellipse of the shape of the moments.
    square = (away * np.linalg.solve(second, away)).sum(0)
    radius = np.sqrt(square * np.sqrt(np.linalg.det(second)))
    order = radius.argsort()
    r_half = np.interp(0.5, light_[order].cumsum(), radius[order])
    ellipticity = complex(xx - yy, 2 * xy) / (xx + yy)
    return _Stamp(light, scale, magnitude, centre, ellipticity, r_half * scale)


def _isophote(image):
    """The light in the middle of an image (n, n) down to the noise, with sum 1."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image, 3)
    border = np.concatenate([smooth[[0, -1]].ravel(), smooth[:, [0, -1]].ravel()])
    level = np.median(border) + 2 * border.std()
    middle = smooth.shape[0] // 2, smooth.shape[1] // 2
    label, _ = ndimage.label(smooth > min(level, smooth[middle] / 2))
    galaxy = ndimage.gaussian_filter((label == label[middle]).astype(float), 2)
    light = image * galaxy
    return light / light.sum()


def _read_stamps(folder):
    """The `_Stamp` of each row of the catalogue in a folder, see `render_pairs`."""
    from astropy.io import fits
    from astropy.table import Table

    for path in sorted(Path(folder).glob("*.fits")):
        with fits.open(path) as file:
            if "GAL_FILENAME" in getattr(file[-1], "columns", fits.ColDefs([])).names:
                table = Table(file[-1].data)
                break
    else:
        raise FileNotFoundError(
            f"no FITS table with a column 'GAL_FILENAME' is in '{folder}'."
        )
    return [
        _measured(
            fits.getdata(path.parent / row["GAL_FILENAME"].strip(), row["GAL_HDU"]),
            float(row["PIXEL_SCALE"]),
            float(row["MAG"]),
        )
        for row in table
    ]


def render_pairs(
    n,
    surveys=("hsc", "legacy"),
    *,
    seed,
    morphology="parametric",
    stamps=None,
    group_size=8,
    neighbours=0,
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
    library = _read_stamps(stamps) if morphology == "hst" else None
    parts = []
    total = n * len(surveys)
    with tqdm(total=total, disable=not progress, unit="cut-out") as bar:
        for number, start in enumerate(range(0, n, group_size)):
            random = functools.partial(_generator, seed, number)
            group = _draw_group(random, group_size, neighbours, library)
            keys = [key(seed, "galsim", "object", number, i) for i in range(group_size)]
            # Scenes past the last one stay blank and are cut off below.
            rows = min(group_size, n - start)
            parts.append(_render(surveys, group, random, torch.tensor(keys), rows, bar))
    return _join(parts, n, group_size)


def _generator(seed, number, purpose, *more):
    """Random numbers of a group; no key of training has this form."""
    return torch_generator(seed, "galsim", purpose, number, *more)


def _draw_group(random, size, neighbours, library):
    """Scenes of a group, E(B-V) (1,), truth, and stamps in GalSim by row."""
    around = None
    if neighbours is not None:
        around = random("neighbours", *([neighbours] if neighbours else []))
    scene = draw_scene(size, random("galaxies"), around)
    ebv = _MEAN_EBV * torch.empty(1).exponential_(generator=random("extinction"))
    centre = scene.sources.map(lambda tensor: tensor.unflatten(0, (size, -1))[:, 0])
    truth = _truth(centre, ebv.repeat(size))
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
    return Simulation(surveys, batches, group, truth, noiseless, _neighbours(scene))


def _observe(survey, scene, ebv, shapes, random, keys, bar):
    """Cut-outs of a group, noiseless images, conditions and depths in a survey."""

    def of_survey(purpose):
        return random(purpose, survey.name)

    size, bands, side = len(scene.position), len(survey.bands), survey.stamp_size
    conditions = draw_conditions(survey, 1, of_survey("conditions"))
    affine, position = _place(survey, scene.position, of_survey("registration"))
    response = 10 ** (-0.4 * (extinction(survey, ebv) + conditions.zero_point))
    fluxes = component_fluxes(survey, scene.sources).unflatten(0, (size, -1)) * response
    images = torch.zeros(size, bands, side, side)
    for row, makers in enumerate(shapes):
        images[row] = _paint(survey, conditions, makers, fluxes[row], position[row])
        bar.update()
    # From here on as `sky` does it.
    uneven = _NOISE_SCATTER * torch.randn(size, 1, generator=of_survey("coverage"))
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
    galsim, accuracy = _galsim()
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


def save_pairs(path, pairs, *, seed, morphology="parametric"):
    """
    Write pairs to a safetensors file, atomically.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Destination; its folder must exist.
    pairs : `~astro_disentangle.simulation.Simulation`
        The pairs.
    seed : int
        Their seed, for the record, as is ``morphology``.
    morphology : str
        What the central galaxies are.

    Returns
    -------
    sha256 : str
        Digest that the file carries.

    Raises
    ------
    WeightsError
        If the file cannot be written; an earlier file is then intact.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astro_disentangle.evaluation.galsim_pairs import load_pairs, save_pairs
    >>> from astro_disentangle.simulation import simulate
    >>> path = Path(tempfile.mkdtemp()) / "pairs.safetensors"
    >>> digest = save_pairs(path, simulate(1, 2, ["hsc", "legacy"], seed=0), seed=0)
    >>> len(load_pairs(path))
    2
    """
    from astro_disentangle import __version__

    tensors = {"group": pairs.group}
    for part in ("truth", "noiseless", "neighbours"):
        for name, tensor in getattr(pairs, part).items():
            tensors[f"{part}/{name}"] = tensor
    for survey, batch in pairs.batches.items():
        for name in _BATCH:
            tensors[f"batches/{survey}/{name}"] = getattr(batch, name)
    # As bits: a checkpoint refuses NaN, which here says that there is no value.
    real = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors |= {name: tensors[name].contiguous().view(torch.int32) for name in real}
    config = {
        "content": _CONTENT,
        "seed": seed,
        "morphology": morphology,
        "version": __version__,
        "surveys": [dataclasses.asdict(survey) for survey in pairs.surveys],
        "float32": real,
    }
    return write_checkpoint(path, tensors, config)


def load_pairs(path):
    """
    Read what `save_pairs` wrote, after checking all of it.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    pairs : `~astro_disentangle.simulation.Simulation`
        The same bits.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds something else.
    """
    tensors, config, _ = read_checkpoint(path)
    if config.get("content") != _CONTENT:
        raise WeightsError(
            f"'{path}' does not hold {_CONTENT!r} but {config.get('content')!r}. Was "
            "it written by save_pairs?"
        )
    for name in config["float32"]:
        tensors[name] = tensors[name].view(torch.float32)
    surveys = tuple(Survey.from_json(survey) for survey in config["surveys"])
    group = tensors.pop("group")
    parts = {"batches": {}, "truth": {}, "noiseless": {}, "neighbours": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    parts["batches"] = {
        survey.name: CutoutBatch(
            survey, *(parts["batches"][f"{survey.name}/{name}"] for name in _BATCH)
        )
        for survey in surveys
    }
    return Simulation(surveys=surveys, group=group, **parts)


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
