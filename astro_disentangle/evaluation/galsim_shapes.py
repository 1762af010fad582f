# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Galaxies as GalSim has them: profiles, and stamps of the Hubble Space Telescope."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astro_disentangle.simulation.shapes import ARM_KNOTS

__all__ = ["Stamp", "galsim_galaxy", "load_galsim", "read_stamps"]


@functools.cache
def load_galsim():
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

        >>> from astro_disentangle.evaluation.galsim_shapes import galsim_galaxy
        >>> from astro_disentangle.keys import torch_generator
        >>> from astro_disentangle.simulation.population import sample_galaxies
        >>> galaxy = sample_galaxies(1, torch_generator(0, "demo"))
        >>> round(float(galsim_galaxy(galaxy).flux), 5)
        1.0
    """
    galsim, _ = load_galsim()
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
class Stamp:
    """A galaxy by HST: light (n, n) with sum 1, arcsec per pixel, and what it shows."""

    light: np.ndarray
    scale: float
    magnitude: float
    centre: np.ndarray
    ellipticity: complex
    r_half: float

    def shape(self, angle, *, flip):
        """The galaxy about its centroid, x mirrored or not, then turned (rad)."""
        galsim, accuracy = load_galsim()
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
    return Stamp(light, scale, magnitude, centre, ellipticity, r_half * scale)


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


def read_stamps(folder):
    """The `Stamp` of each row of the catalogue in a folder, see `render_pairs`."""
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
