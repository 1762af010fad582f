# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Scenes: a galaxy, what stands around it, and stars.

Counts per square arcmin, to i = 25.5 in a box of 11 arcsec around the galaxy:

- galaxies :math:`N(<i) = 46 \cdot 10^{0.31 (i - 25)}` (LSST Science Book,
  equation 3.7), 2.2 of them on average, and companions, by which galaxies cluster:
  0.35 more within 5 arcsec, as :math:`\theta^{-0.8}` above the mean density;
- stars :math:`N(<i) = 0.55 \cdot 10^{0.13 (i - 20)}` from i = 14 (about what high
  Galactic latitudes have), half of them near the turn-off and half M dwarfs.

Galaxies between i = 25.5 and 27.5, too faint to be told apart, are one more source
of the scene that is made of knots alone. Far from the field, a bright star may lend
its halo.
"""

import math
from dataclasses import dataclass, replace

import torch

from astro_disentangle.simulation.population import (
    Sources,
    galaxies_of,
    sample_galaxies,
)
from astro_disentangle.simulation.shapes import ARM_KNOTS, BAR_KNOTS

__all__ = [
    "Scene",
    "draw_field",
    "draw_scene",
    "sample_neighbours",
    "sample_stars",
]

#: Side of the box around a galaxy that neighbours may stand in, arcsec.
BOX = 11.0
MAX_NEIGHBOURS = 8
#: Slots before the neighbours: the central object and the faint field.
FIRST = 2
_GALAXIES, _STARS = (46 * 10 ** (0.31 * 0.5), 0.31), (0.55 * 10 ** (0.13 * 5.5), 0.13)
_BRIGHTEST_GALAXY, _BRIGHTEST_STAR, _FAINTEST, _UNSEEN = 18.0, 14.0, 25.5, 27.5
_COMPANIONS, _NEAREST, _FARTHEST = 0.35, 0.5, 5.0
_CENTRAL_STAR_SHARE = 0.03
#: Stars whose halo may reach the field: their number, magnitudes and distance.
_HALO_RATE, _HALO_MAGNITUDES, _HALO_FIELD = 0.2, (10.0, 15.0), (6.0, 45.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """
    B scenes of M sources; the first of them is the galaxy in the middle.

    Parameters
    ----------
    sources : `~astro_disentangle.simulation.population.Sources`
        B * M sources.
    position : `torch.Tensor`
        Shape (B, M, 2), offset (west, north) from the central object, arcsec.
    present : `torch.Tensor`
        Shape (B, M), bool; a scene's sources fill its first slots.
    halo : `torch.Tensor`
        Shape (B, 3), a bright star outside the field: offset (west, north) in
        arcsec and HSC i magnitude, infinite where there is none.
    """

    sources: Sources
    position: torch.Tensor
    present: torch.Tensor
    halo: torch.Tensor


def _uniform(shape, generator, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=generator)


def _magnitudes(n, generator, bright, faint, slope):
    """Magnitudes (n,) between two, whose number rises by ``slope`` dex per mag."""
    rise = 10 ** (slope * (faint - bright)) - 1
    return bright + torch.log10(1 + rise * _uniform(n, generator)) / slope


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
        Points on the stellar locus.

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
    noise = torch.randn(n, generator=generator)
    dwarf = torch.rand(n, generator=generator) < 0.5
    color = torch.where(dwarf, 2.2 + 0.45 * noise, 0.75 + 0.25 * noise)
    return Sources(
        redshift=nan,
        log_mass=nan,
        magnitude_i=magnitude,
        sed_type=zero,
        reddening=zero,
        r_half=zero,
        bulge_fraction=zero,
        bulge_radius=zero,
        disc_radius=zero,
        bulge_ratio=zero + 1,
        disc_ratio=zero + 1,
        bulge_index=zero + 4,
        disc_index=zero + 1,
        angle=zero,
        arm_fraction=zero,
        bar_fraction=zero,
        knots=torch.zeros(n, ARM_KNOTS + BAR_KNOTS, 4),
        star_color=color.clamp(0.2, 3.2),
        is_star=torch.ones(n, dtype=torch.bool),
    )


def _choose(is_star, stars, galaxies):
    """Stars where asked, galaxies elsewhere."""

    def where(star, galaxy):
        there = is_star.reshape(-1, *(1,) * (star.ndim - 1))
        return torch.where(there, star, galaxy)

    return stars.map(where, galaxies)


def sample_neighbours(n, generator):
    """
    What stands around each of n galaxies.

    Parameters
    ----------
    n : int
        Number of scenes.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    sources : `Sources`
        ``n * 8`` sources, eight slots for each scene.
    position : `torch.Tensor`
        Shape (n, 8, 2), offset (west, north) from the galaxy in arcsec.
    present : `torch.Tensor`
        Shape (n, 8), bool, the slots that hold a source; mean number 2.7.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import sample_neighbours
    >>> sample_neighbours(2, torch_generator(0, "demo"))[1].shape
    torch.Size([2, 8, 2])
    """
    slots = n * MAX_NEIGHBOURS
    area = (BOX / 60) ** 2
    rate = torch.tensor([_GALAXIES[0] * area, _STARS[0] * area, _COMPANIONS])
    number = torch.poisson(rate.sum().expand(n, 1), generator=generator)
    present = torch.arange(MAX_NEIGHBOURS) < number
    kind = torch.multinomial(rate, slots, replacement=True, generator=generator)
    position = _uniform((slots, 2), generator, -BOX / 2, BOX / 2)
    low, high = _NEAREST**1.2, _FARTHEST**1.2
    radius = _uniform(slots, generator, low, high) ** (1 / 1.2)
    angle = _uniform(slots, generator, 0, 2 * math.pi)
    near = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    position = torch.where((kind == 2)[:, None], near, position)
    galaxies = galaxies_of(
        _magnitudes(slots, generator, _BRIGHTEST_GALAXY, _FAINTEST, _GALAXIES[1]),
        generator,
    )
    stars = sample_stars(
        _magnitudes(slots, generator, _BRIGHTEST_STAR, _FAINTEST, _STARS[1]), generator
    )
    sources = _choose(kind == 1, stars, galaxies)
    return sources, position.reshape(n, MAX_NEIGHBOURS, 2), present


def draw_field(side, generator):
    """
    Galaxies and stars of a part of the sky, of the counts above, unclustered.

    Parameters
    ----------
    side : float
        Side of the square in arcsec.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    sources : `Sources`
        S sources, the galaxies first.
    position : `torch.Tensor`
        Shape (S, 2), offset (west, north) from the middle in arcsec.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import draw_field
    >>> sources, position = draw_field(60.0, torch_generator(0, "demo"))
    >>> len(sources) == len(position), len(sources) > 40
    (True, True)
    """
    area = (side / 60) ** 2
    rate = torch.tensor([_GALAXIES[0] * area, _STARS[0] * area])
    galaxies, stars = torch.poisson(rate, generator=generator).int().tolist()
    position = _uniform((galaxies + stars, 2), generator, -side / 2, side / 2)
    sources = galaxies_of(
        _magnitudes(galaxies, generator, _BRIGHTEST_GALAXY, _FAINTEST, _GALAXIES[1]),
        generator,
    )
    points = sample_stars(
        _magnitudes(stars, generator, _BRIGHTEST_STAR, _FAINTEST, _STARS[1]), generator
    )
    return sources.map(lambda a, b: torch.cat([a, b]), points), position


def sample_unseen(n, generator):
    """
    The galaxies that are too faint to be told apart, one source for each scene.

    Parameters
    ----------
    n : int
        Number of scenes.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    sources : `Sources`
        ``n`` sources, all of whose light is in the knots.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import sample_unseen
    >>> sample_unseen(2, torch_generator(0, "demo")).arm_fraction.tolist()
    [1.0, 1.0]
    """
    shape = (n, ARM_KNOTS)
    ratio = 10 ** (_GALAXIES[1] * (_UNSEEN - _FAINTEST))
    mean = _GALAXIES[0] * (ratio - 1) * (BOX / 60) ** 2
    number = torch.poisson(torch.full((n, 1), mean), generator=generator).clamp(1)
    magnitude = _magnitudes(shape, generator, _FAINTEST, _UNSEEN, _GALAXIES[1])
    flux = 10 ** (-0.4 * magnitude) * (torch.arange(ARM_KNOTS) < number)
    total = flux.sum(1, keepdim=True)
    galaxies = galaxies_of(torch.full((n,), 26.0), generator)
    knots = torch.zeros(n, ARM_KNOTS + BAR_KNOTS, 4)
    knots[:, :ARM_KNOTS, :2] = _uniform((*shape, 2), generator, -BOX / 2, BOX / 2)
    knots[:, :ARM_KNOTS, 2] = _uniform(shape, generator, 0.1, 0.3)
    knots[:, :ARM_KNOTS, 3] = flux / total
    one, zero = torch.ones(n), torch.zeros(n)
    return replace(
        galaxies,
        magnitude_i=-2.5 * total[:, 0].log10(),
        bulge_fraction=zero,
        disc_radius=one,
        angle=zero,
        arm_fraction=one,
        bar_fraction=zero,
        knots=knots,
    )


def _draw_halo(n, generator):
    """Bright stars outside the field, (n, 3); see `Scene`."""
    radius = [x**2 for x in _HALO_FIELD]
    radius = _uniform(n, generator, *radius).sqrt()
    angle = _uniform(n, generator, 0, 2 * math.pi)
    magnitude = _magnitudes(n, generator, *_HALO_MAGNITUDES, _STARS[1])
    none = torch.rand(n, generator=generator) >= _HALO_RATE
    return torch.stack(
        [
            radius * angle.cos(),
            radius * angle.sin(),
            magnitude.masked_fill(none, math.inf),
        ],
        1,
    )


def draw_scene(n, generator, neighbour_generator=None, magnitude=None):
    """
    Central objects and neighbours of n scenes.

    Parameters
    ----------
    n : int
        Number of scenes.
    generator : `torch.Generator`
        Source of the random numbers of the central objects.
    neighbour_generator : `torch.Generator`, optional
        Of everything else; without it the central objects stand alone.
    magnitude : `torch.Tensor`, optional
        Shape (n,), HSC i of the central objects in place of drawn ones.

    Returns
    -------
    scene : `Scene`
        Scenes of ten sources, or of one; the central object is a star in 3%.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.scene import draw_scene
    >>> a, b = (torch_generator(0, name) for name in ("galaxies", "neighbours"))
    >>> len(draw_scene(2, a, b).sources), len(draw_scene(2, a).sources)
    (20, 2)
    """
    if magnitude is None:
        galaxies = sample_galaxies(n, generator)
    else:
        galaxies = galaxies_of(magnitude.to(torch.float32), generator)
    is_star = torch.rand(n, generator=generator) < _CENTRAL_STAR_SHARE
    stars = sample_stars(galaxies.magnitude_i, generator)
    centre = _choose(is_star, stars, galaxies)
    alone = Scene(
        sources=centre,
        position=torch.zeros(n, 1, 2),
        present=torch.ones(n, 1, dtype=torch.bool),
        halo=torch.tensor([0.0, 0.0, math.inf]).expand(n, 3),
    )
    if neighbour_generator is None:
        return alone
    others, position, present = sample_neighbours(n, neighbour_generator)
    unseen = sample_unseen(n, neighbour_generator)

    def join(a, b, c):
        return torch.cat([a[:, None], b[:, None], c.unflatten(0, (n, -1))], 1).flatten(
            0, 1
        )

    return Scene(
        sources=centre.map(join, unseen, others),
        position=torch.cat([torch.zeros(n, FIRST, 2), position], 1),
        present=torch.cat([torch.ones(n, FIRST, dtype=torch.bool), present], 1),
        halo=_draw_halo(n, neighbour_generator),
    )
