# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Scenes: a galaxy, what stands around it by chance, and stars.

Neighbours follow :math:`N(<i) = 46 \cdot 10^{0.31 (i - 25)}` per square arcmin
(LSST Science Book, equation 3.7) to i = 25.5 in a box of 11 arcsec, 2.2 of them on
average; a fifth are stars. Their redshifts and types are those of the main sample,
made fainter or brighter at equal mass to light. Stars are black bodies.
"""

import math

import torch

from astro_disentangle.simulation.population import (
    Sources,
    galaxies_of,
    sample_galaxies,
)

__all__ = ["draw_scene", "sample_neighbours", "sample_stars"]

#: Side of the box around a galaxy that neighbours may stand in, arcsec.
BOX = 11.0
MAX_NEIGHBOURS = 6
_BRIGHTEST, _FAINTEST, _SLOPE = 18.0, 25.5, 0.31
_STAR_SHARE, _CENTRAL_STAR_SHARE = 0.21, 0.03
#: Temperatures of stars, K.
_COOLEST, _HOTTEST = 3000.0, 7500.0


def sample_stars(magnitude, generator):
    """
    Stars of given magnitudes.

    Parameters
    ----------
    magnitude : `torch.Tensor`
        Shape (S,), HSC i.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    stars : `Sources`
        Points; temperatures are uniform in log between 3000 and 7500 K.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import sample_stars
    >>> sample_stars(torch.tensor([20.0]), torch_generator(0, "demo")).r_half.item()
    0.0
    """
    n = len(magnitude)
    zero, nan = torch.zeros(n), torch.full((n,), math.nan)
    heat = _COOLEST * (_HOTTEST / _COOLEST) ** torch.rand(n, generator=generator)
    return Sources(
        redshift=nan,
        log_mass=nan,
        magnitude_i=magnitude,
        sed_type=zero,
        r_half=zero,
        bulge_fraction=zero,
        bulge_radius=zero,
        disc_radius=zero,
        bulge_ratio=zero + 1,
        disc_ratio=zero + 1,
        angle=zero,
        sersic_index=zero + 4,
        temperature=heat,
        is_star=torch.ones(n, dtype=torch.bool),
    )


def _choose(is_star, stars, galaxies):
    """Stars where asked, galaxies elsewhere."""
    return stars.map(lambda s, g: torch.where(is_star, s, g), galaxies)


def sample_neighbours(n, generator):
    """
    What stands around each of n galaxies by chance.

    Parameters
    ----------
    n : int
        Number of scenes.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    sources : `Sources`
        ``n * 6`` sources, six slots for each scene.
    position : `torch.Tensor`
        Shape (n, 6, 2), offset (west, north) from the galaxy in arcsec.
    present : `torch.Tensor`
        Shape (n, 6), bool, the slots that hold a source; mean number 2.2.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import sample_neighbours
    >>> sample_neighbours(2, torch_generator(0, "demo"))[1].shape
    torch.Size([2, 6, 2])
    """
    slots = n * MAX_NEIGHBOURS
    mean = 46 * 10 ** (_SLOPE * (_FAINTEST - 25)) * (BOX / 60) ** 2
    number = torch.poisson(torch.full((n, 1), mean), generator=generator)
    present = torch.arange(MAX_NEIGHBOURS) < number
    position = (torch.rand(n, MAX_NEIGHBOURS, 2, generator=generator) - 0.5) * BOX
    # Inverse of the cumulative counts between the two magnitudes.
    u = torch.rand(slots, generator=generator)
    rise = 10 ** (_SLOPE * (_FAINTEST - _BRIGHTEST)) - 1
    magnitude = _BRIGHTEST + torch.log10(1 + u * rise) / _SLOPE
    galaxies = galaxies_of(magnitude, generator)
    is_star = torch.rand(slots, generator=generator) < _STAR_SHARE
    sources = _choose(is_star, sample_stars(magnitude, generator), galaxies)
    return sources, position, present


def draw_scene(n, generator, neighbour_generator):
    """
    Central objects and neighbours of n scenes.

    Parameters
    ----------
    n : int
        Number of scenes.
    generator, neighbour_generator : `torch.Generator`
        Sources of the random numbers of the central objects and of the others.

    Returns
    -------
    sources : `Sources`
        ``n * 7`` sources; the first of every seven is the central object, a star
        in 3% of the scenes.
    position : `torch.Tensor`
        Shape (n, 7, 2), offset (west, north) from the central object, arcsec.
    present : `torch.Tensor`
        Shape (n, 7), bool.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import draw_scene
    >>> a, b = (torch_generator(0, name) for name in ("galaxies", "neighbours"))
    >>> len(draw_scene(2, a, b)[0])
    14
    """
    galaxies = sample_galaxies(n, generator)
    is_star = torch.rand(n, generator=generator) < _CENTRAL_STAR_SHARE
    stars = sample_stars(galaxies.magnitude_i, generator)
    centre = _choose(is_star, stars, galaxies)
    others, position, present = sample_neighbours(n, neighbour_generator)

    def join(a, b):
        return torch.cat([a[:, None], b.reshape(n, MAX_NEIGHBOURS)], 1).reshape(-1)

    position = torch.cat([torch.zeros(n, 1, 2), position], 1)
    present = torch.cat([torch.ones(n, 1, dtype=torch.bool), present], 1)
    return centre.map(join, others), position, present
