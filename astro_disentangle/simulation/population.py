# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Galaxies as they are, before any telescope.

Redshift, stellar mass, magnitude and SED type are drawn from a Gaussian mixture
fitted to zCOSMOS; a tenth of the galaxies is then made up to 1.5 mag fainter at
the same redshift, at the same ratio of mass to light. With :math:`m` the HSC i
magnitude, the circularised half-light radius is

.. math:: \log_{10} h = -0.44 - 0.10\,(m - 22) + 0.26\,\epsilon

(single Sersic fits of COSMOS F814W images), and axis ratios follow the same fits.
A galaxy is a de Vaucouleurs-like bulge and an exponential disc. The half-light
radii of the two, in the ratio :math:`\rho`, are scaled so that those of the whole
galaxy come out:

.. math:: B\,\gamma(2n, b_n (h/h_b)^{1/n}) + (1 - B)\,[1 - (1 + x) e^{-x}] = 1/2,
          \quad x = 1.6783\,h / h_d.
"""

import math
from dataclasses import dataclass, fields, replace

import torch

from astro_disentangle.simulation.tables import load_tables

__all__ = ["Sources", "galaxies_of", "half_light_radius", "sample_galaxies"]

_BRIGHTEST, _LIMIT = 17.0, 22.5
#: Half-light radius of an exponential disc over its scale length.
DISC_SCALE = 1.67834699


@dataclass(frozen=True, eq=False)
class Sources:
    """
    Sources on the sky; every tensor has shape (S,) and is float32 or bool.

    Parameters
    ----------
    redshift, log_mass : `torch.Tensor`
        Redshift, and log10 of the stellar mass in solar masses; NaN for stars.
    magnitude_i : `torch.Tensor`
        HSC i magnitude (AB) before Galactic extinction.
    sed_type : `torch.Tensor`
        Type between 0 (elliptical) and 3 (irregular).
    r_half : `torch.Tensor`
        Circularised half-light radius in arcsec; 0 for stars.
    bulge_fraction : `torch.Tensor`
        Share of the bulge in the HSC i flux.
    bulge_radius, disc_radius : `torch.Tensor`
        Circularised half-light radii in arcsec.
    bulge_ratio, disc_ratio : `torch.Tensor`
        Axis ratios, minor over major.
    angle : `torch.Tensor`
        Position angle of the major axis, rad from west (x) towards north (y).
    sersic_index : `torch.Tensor`
        Sersic index of the bulge.
    temperature : `torch.Tensor`
        Temperature of a star in K.
    is_star : `torch.Tensor`
        Whether the source is a star.
    """

    redshift: torch.Tensor
    log_mass: torch.Tensor
    magnitude_i: torch.Tensor
    sed_type: torch.Tensor
    r_half: torch.Tensor
    bulge_fraction: torch.Tensor
    bulge_radius: torch.Tensor
    disc_radius: torch.Tensor
    bulge_ratio: torch.Tensor
    disc_ratio: torch.Tensor
    angle: torch.Tensor
    sersic_index: torch.Tensor
    temperature: torch.Tensor
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


def _uniform(n, generator, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, generator=generator)


def _truncated_normal(n, generator, mean, sd, low, high):
    """Normal numbers within bounds, shape (n,), by the inverse of erf."""
    mean, sd = torch.as_tensor(mean), torch.as_tensor(sd)
    a, b = (torch.erf((x - mean) / sd / math.sqrt(2)) for x in (low, high))
    u = torch.lerp(a.expand(n), b.expand(n), torch.rand(n, generator=generator))
    value = mean + sd * math.sqrt(2) * torch.erfinv(u.clamp(-1 + 1e-6, 1 - 1e-6))
    return value.clamp(low, high)


def _draw_mixture(n, generator):
    """Redshift, log mass, i magnitude and SED type from the mixture, (n, 4)."""
    tables = load_tables()
    faintest, last_type = tables.axes["bounds"]
    which = torch.multinomial(
        tables["mixture_weights"], n, replacement=True, generator=generator
    )
    noise = torch.randn(n, 4, 1, generator=generator)
    x = tables["mixture_means"][which]
    x = x + (tables["mixture_factors"][which] @ noise)[..., 0]
    softplus = torch.nn.functional.softplus
    return torch.stack(
        [
            softplus(x[:, 0]),
            x[:, 1],
            faintest - softplus(x[:, 2]),
            last_type * torch.sigmoid(x[:, 3]),
        ],
        1,
    )


def _draw_physics(n, generator):
    """Rows of `_draw_mixture` within the ranges of the catalogue, (n, 4)."""
    kept = torch.empty(0, 4)
    while len(kept) < n:
        rows = _draw_mixture(2 * (n - len(kept)) + 16, generator)
        z, mass, magnitude, _ = rows.T
        good = (z > 0.01) & (z < 2) & (mass > 7) & (mass < 12.3)
        good &= (magnitude > _BRIGHTEST) & (magnitude < _LIMIT)
        kept = torch.cat([kept, rows[good]])
    return kept[:n]


def half_light_radius(bulge_fraction, ratio, sersic_index, steps=14):
    """
    Half-light radius of a round bulge and disc over that of the disc.

    Parameters
    ----------
    bulge_fraction, ratio, sersic_index : `torch.Tensor`
        Shape (S,): share of the bulge, its half-light radius over the disc's, and
        its Sersic index.
    steps : int
        Bisections; each halves the logarithm of the bracket ``(ratio, 1)``.

    Returns
    -------
    radius : `torch.Tensor`
        Shape (S,).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.simulation.population import half_light_radius
    >>> one = torch.ones(1)
    >>> round(half_light_radius(0 * one, 0.5 * one, 4 * one).item(), 3)
    1.0
    """
    n = sersic_index
    # Ciotti & Bertin (1999), equation 18.
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    low = ratio.log().clamp(max=0.0)
    high = ratio.log().clamp(min=0.0)
    for _ in range(steps):
        middle = (low + high) / 2
        inside = torch.special.gammainc(2 * n, b * (middle.exp() / ratio) ** (1 / n))
        x = DISC_SCALE * middle.exp()
        disc = 1 - (1 + x) * torch.exp(-x)
        small = torch.lerp(disc, inside, bulge_fraction) < 0.5
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return ((low + high) / 2).exp()


def _complete(physics, generator):
    """Galaxies with shapes for redshift, mass, magnitude and type, (n, 4)."""
    n = len(physics)
    redshift, log_mass, magnitude, sed_type = physics.T
    mean = -0.44 - 0.10 * (magnitude - 22)
    log_size = _truncated_normal(
        n, generator, mean, 0.26, math.log10(0.05), math.log10(3.0)
    )
    r_half = 10**log_size
    # Early types are bulges, late ones discs; the scatter is wide.
    noise = torch.randn(n, generator=generator)
    fraction = torch.sigmoid(1.2 - 1.4 * sed_type + 1.2 * noise)
    index = 4 * torch.exp(0.25 * torch.randn(n, generator=generator))
    ratio = 0.6 * torch.exp(0.35 * torch.randn(n, generator=generator))
    ratio = ratio.clamp(0.15, 2.0)
    index = index.clamp(2.5, 5.0)
    disc_radius = r_half / half_light_radius(fraction, ratio, index)
    disc_ratio = _truncated_normal(n, generator, 0.56, 0.25, 0.15, 1.0)
    bulge_ratio = 1 - (1 - disc_ratio) * _uniform(n, generator, 0.3, 0.8)
    return Sources(
        redshift=redshift,
        log_mass=log_mass,
        magnitude_i=magnitude,
        sed_type=sed_type,
        r_half=r_half,
        bulge_fraction=fraction,
        bulge_radius=ratio * disc_radius,
        disc_radius=disc_radius,
        bulge_ratio=bulge_ratio,
        disc_ratio=disc_ratio,
        angle=_uniform(n, generator, 0.0, math.pi),
        sersic_index=index,
        temperature=torch.full((n,), 5000.0),
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
    return _complete(_dim(physics, fainter), generator)


def _dim(physics, fainter):
    """Physics (n, 4) made fainter by magnitudes (n,) at equal mass to light."""
    zero = torch.zeros_like(fainter)
    return physics + torch.stack([zero, -0.4 * fainter, fainter, zero], 1)


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
        Galaxies of the main sample, dimmed or brightened at equal mass to light;
        sizes are those of the given magnitudes.

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
    galaxies = _complete(_dim(physics, magnitude - physics[:, 2]), generator)
    return replace(galaxies, magnitude_i=magnitude)
