# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Galaxies as they are, before any telescope.

Redshift, stellar mass, magnitude, SED type and reddening are drawn from a Gaussian
mixture fitted to zCOSMOS; `shapes` gives them sizes and structure. A tenth of the
galaxies is then made up to 1.5 mag fainter, and neighbours are of any magnitude:
they keep their type, reddening and ratio of mass to light, and move in redshift as
the LSST Science Book has it (equation 3.8, :math:`z \propto 0.0417\,i - 0.744`).
"""

from dataclasses import dataclass, fields

import torch

from astro_disentangle.simulation.shapes import draw_shapes
from astro_disentangle.simulation.tables import load_tables, mix_rows

__all__ = ["Sources", "galaxies_of", "sample_galaxies"]

_BRIGHTEST, _LIMIT = 17.0, 22.5


@dataclass(frozen=True, eq=False)
class Sources:
    """
    S sources on the sky; tensors have shape (S,) unless said, float32 or bool.

    Parameters
    ----------
    redshift, log_mass : `torch.Tensor`
        Redshift, and log10 of the stellar mass in solar masses; NaN for stars.
    magnitude_i : `torch.Tensor`
        HSC i magnitude (AB) before Galactic extinction.
    sed_type : `torch.Tensor`
        Type between 0 (elliptical) and 3 (irregular).
    reddening : `torch.Tensor`
        E(B-V) of the galaxy's own dust over that of its type, mag; may be negative.
    r_half : `torch.Tensor`
        Circularised half-light radius in arcsec; 0 for stars.
    bulge_fraction : `torch.Tensor`
        Share of the bulge in the HSC i flux.
    bulge_radius, disc_radius : `torch.Tensor`
        Circularised half-light radii in arcsec.
    bulge_ratio, disc_ratio : `torch.Tensor`
        Axis ratios, minor over major.
    bulge_index, disc_index : `torch.Tensor`
        Sersic indices.
    angle : `torch.Tensor`
        Position angle of the major axis, rad from west (x) towards north (y).
    arm_fraction, bar_fraction : `torch.Tensor`
        Shares of arms and bar in the HSC i flux of the disc; the rest is smooth.
    knots : `torch.Tensor`
        Shape (S, K, 4), round Gaussians that make up arms and bar: place (along the
        major and minor axis, as projected) and standard deviation in units of
        ``disc_radius``, and share; the shares of the first `ARM_KNOTS` add up to 1,
        and so do those of the others, the bar's.
    star_color : `torch.Tensor`
        g - i of a star in HSC, mag.
    is_star : `torch.Tensor`
        Whether the source is a star.
    """

    redshift: torch.Tensor
    log_mass: torch.Tensor
    magnitude_i: torch.Tensor
    sed_type: torch.Tensor
    reddening: torch.Tensor
    r_half: torch.Tensor
    bulge_fraction: torch.Tensor
    bulge_radius: torch.Tensor
    disc_radius: torch.Tensor
    bulge_ratio: torch.Tensor
    disc_ratio: torch.Tensor
    bulge_index: torch.Tensor
    disc_index: torch.Tensor
    angle: torch.Tensor
    arm_fraction: torch.Tensor
    bar_fraction: torch.Tensor
    knots: torch.Tensor
    star_color: torch.Tensor
    is_star: torch.Tensor

    def __len__(self):
        return len(self.redshift)

    def map(self, function, *others):
        """Sources whose tensors are a function of those of these and others."""
        names = [field.name for field in fields(self)]
        rows = [[getattr(s, name) for s in (self, *others)] for name in names]
        return Sources(*(function(*row) for row in rows))

    @property
    def ellipticity(self):
        r"""
        Components of the ellipticity, shape (S, 2).

        :math:`(1 - q^2)/(1 + q^2) (\\cos 2\\phi, \\sin 2\\phi)` of the disc and the
        bulge, averaged by their HSC i flux.
        """
        size = [(1 - q**2) / (1 + q**2) for q in (self.disc_ratio, self.bulge_ratio)]
        mean = torch.lerp(*size, self.bulge_fraction)
        twice = 2 * self.angle
        return torch.stack([mean * twice.cos(), mean * twice.sin()], -1)


def _draw_mixture(n, generator):
    """Redshift, log mass, i magnitude, SED type and reddening, (n, 5)."""
    tables = load_tables()
    faintest, last_type = tables.axes["bounds"]
    which = torch.multinomial(
        tables["mixture_weights"], n, replacement=True, generator=generator
    )
    noise = torch.randn(n, 5, 1, generator=generator)
    x = tables["mixture_means"][which]
    x = x + (tables["mixture_factors"][which] @ noise)[..., 0]
    softplus = torch.nn.functional.softplus
    return torch.stack(
        [
            softplus(x[:, 0]),
            x[:, 1],
            faintest - softplus(x[:, 2]),
            last_type * torch.sigmoid(x[:, 3]),
            x[:, 4],
        ],
        1,
    )


def _draw_physics(n, generator):
    """Rows of `_draw_mixture` within the ranges of the catalogue, (n, 5)."""
    kept = torch.empty(0, 5)
    while len(kept) < n:
        rows = _draw_mixture(2 * (n - len(kept)) + 16, generator)
        z, mass, magnitude, _, dust = rows.T
        good = (z > 0.01) & (z < 2) & (mass > 7) & (mass < 12.3)
        good &= (magnitude > _BRIGHTEST) & (magnitude < _LIMIT)
        good &= (dust > -0.3) & (dust < 0.6)
        kept = torch.cat([kept, rows[good]])
    return kept[:n]


def _move(physics, magnitude):
    """Physics (n, 5) at other magnitudes (n,): new redshifts and masses too."""
    tables = load_tables()
    z, mass, old, kind, dust = physics.T
    scale = [0.0417 * m.clamp(min=19.0) - 0.744 for m in (magnitude, old)]
    moved = (z * scale[0] / scale[1]).clamp(0.01, 2.0)
    modulus = [
        mix_rows(tables["distance_modulus"], tables.axes["redshift"], x)
        for x in (moved, z)
    ]
    # The absolute magnitude grows by what the source dims, less its distance.
    dimmer = (magnitude - old) - (modulus[0] - modulus[1])
    return torch.stack([moved, mass - 0.4 * dimmer, magnitude, kind, dust], 1)


def _complete(physics, generator):
    """Galaxies with shapes for rows of `_draw_mixture`, (n, 5)."""
    n = len(physics)
    redshift, log_mass, magnitude, sed_type, reddening = physics.T
    return Sources(
        redshift=redshift,
        log_mass=log_mass,
        magnitude_i=magnitude,
        sed_type=sed_type,
        reddening=reddening,
        **draw_shapes(magnitude, redshift, sed_type, generator),
        star_color=torch.ones(n),
        is_star=torch.zeros(n, dtype=torch.bool),
    )


def sample_galaxies(n, generator):
    """
    Galaxies of the main sample.

    Nine in ten have 17 < i < 22.5; the others are up to 1.5 mag fainter.

    Parameters
    ----------
    n : int
        Number of galaxies.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    galaxies : `Sources`
        ``n`` galaxies.

    Examples
    --------
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.population import sample_galaxies
    >>> galaxies = sample_galaxies(3, torch_generator(0, "demo"))
    >>> bool((galaxies.r_half > 0).all())
    True
    """
    physics = _draw_physics(n, generator)
    fainter = 1.5 * torch.rand(n, generator=generator)
    fainter = fainter * (torch.rand(n, generator=generator) < 0.1)
    return _complete(_move(physics, physics[:, 2] + fainter), generator)


def galaxies_of(magnitude, generator):
    """
    Galaxies of given magnitudes.

    Parameters
    ----------
    magnitude : `torch.Tensor`
        Shape (S,), HSC i.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    galaxies : `Sources`
        Galaxies of the main sample, moved to the given magnitudes.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.population import galaxies_of
    >>> galaxies = galaxies_of(torch.tensor([25.0]), torch_generator(0, "demo"))
    >>> galaxies.magnitude_i.item()
    25.0
    """
    physics = _draw_physics(len(magnitude), generator)
    return _complete(_move(physics, magnitude), generator)
