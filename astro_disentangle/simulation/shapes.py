# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Sizes and structure of galaxies: bulge, disc, arms and bar.

With :math:`m` the HSC i magnitude and :math:`z` the redshift, the circularised
half-light radius is

.. math:: \log_{10} h = -0.424 - 0.118\,(m - 22) + 0.12\,(z - 0.6) + 0.22\,\epsilon

(single Sersic fits of COSMOS F814W images), axis ratios follow the same fits, and
the share B of the bulge has the distribution of their fits of bulge and disc,
correlated with the SED type. The half-light radii of bulge and disc, in the ratio
:math:`\rho`, are scaled so that those of the whole galaxy come out:

.. math:: B\,\gamma(2n_b, b_b (h/h_b)^{1/n_b})
          + (1 - B)\,\gamma(2n_d, b_d (h/h_d)^{1/n_d}) = 1/2.

Part of the disc's light sits in knots, round Gaussians. Those of the arms follow
the disc's profile outwards and, in most discs, logarithmic spirals around it, which
the inclination flattens; those of the bar stand in a row through the centre.
"""

import math

import torch

from astro_disentangle.simulation.tables import load_tables, mix_rows

__all__ = ["ARM_KNOTS", "BAR_KNOTS", "draw_shapes", "half_light_radius"]

ARM_KNOTS, BAR_KNOTS = 20, 5
#: Correlation of the normal scores of SED type and of the share of the bulge.
_TYPE_BULGE = -0.6
#: Bright galaxies have larger bulges: rise of the score per mag, and where it is 0.
_BRIGHT_BULGE, _BULGE_MAGNITUDE = 0.25, 22.3
#: Mean and standard deviation of the SED type.
_TYPE_MEAN, _TYPE_SCATTER = 1.7, 0.8
_FAINTEST_ARMS = 24.0
#: Medians and logarithmic scatter: Sersic indices, ratio of bulge to disc radius.
_BULGE_INDEX, _DISC_INDEX, _RADIUS_RATIO = (4.0, 0.4), (0.85, 0.5), (0.44, 0.6)


def _uniform(n, generator, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, generator=generator)


def _lognormal(n, generator, median, scatter, low, high):
    noise = torch.randn(n, generator=generator)
    return (median * torch.exp(scatter * noise)).clamp(low, high)


def _truncated_normal(n, generator, mean, sd, low, high):
    """Normal numbers within bounds, shape (n,), by the inverse of erf."""
    mean, sd = torch.as_tensor(mean), torch.as_tensor(sd)
    a, b = (torch.erf((x - mean) / sd / math.sqrt(2)) for x in (low, high))
    u = torch.lerp(a.expand(n), b.expand(n), torch.rand(n, generator=generator))
    value = mean + sd * math.sqrt(2) * torch.erfinv(u.clamp(-1 + 1e-6, 1 - 1e-6))
    return value.clamp(low, high)


def _inside(radius, index):
    """Share of the light of a Sersic profile within radii in half-light radii."""
    # Ciotti & Bertin (1999), equation 18.
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    return torch.special.gammainc(2 * index, b * radius ** (1 / index))


def half_light_radius(bulge_fraction, ratio, bulge_index, disc_index, steps=14):
    """
    Half-light radius of a round bulge and disc over that of the disc.

    Parameters
    ----------
    bulge_fraction, ratio, bulge_index, disc_index : `torch.Tensor`
        Shape (S,): share of the bulge, its half-light radius over the disc's, and
        the Sersic indices.
    steps : int
        Bisections; each halves the logarithm of the bracket ``(ratio, 1)``.

    Returns
    -------
    radius : `torch.Tensor`
        Shape (S,).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.simulation.shapes import half_light_radius
    >>> one = torch.ones(1)
    >>> round(half_light_radius(0 * one, 0.5 * one, 4 * one, one).item(), 3)
    1.0
    """
    low = ratio.log().clamp(max=0.0)
    high = ratio.log().clamp(min=0.0)
    for _ in range(steps):
        middle = (low + high) / 2
        radius = middle.exp()
        light = torch.lerp(
            _inside(radius, disc_index),
            _inside(radius / ratio, bulge_index),
            bulge_fraction,
        )
        small = light < 0.5
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return ((low + high) / 2).exp()


def _draw_bulge_fraction(magnitude, sed_type, generator):
    """Shares of the bulge by a Gaussian copula with type and magnitude, (n,)."""
    score = (sed_type - _TYPE_MEAN) / _TYPE_SCATTER
    noise = torch.randn(len(sed_type), generator=generator)
    score = _TYPE_BULGE * score + math.sqrt(1 - _TYPE_BULGE**2) * noise
    score = score - _BRIGHT_BULGE * (magnitude - _BULGE_MAGNITUDE).clamp(-2.5, 1.5)
    rank = 0.5 * (1 + torch.erf(score / math.sqrt(2)))
    return mix_rows(load_tables()["bulge_fraction"], (0, 1), rank).clamp(0, 0.99)


def _draw_arms(disc_ratio, generator):
    """Knots of the arms, (n, ARM_KNOTS, 4); see `Sources`."""
    n = len(disc_ratio)
    shape = (n, ARM_KNOTS)

    def each(low, high):
        return _uniform((n, 1), generator, low, high)

    # Radii of an exponential disc, without its centre, in half-light radii.
    radius = -torch.rand(2, *shape, generator=generator).clamp(min=1e-3).log()
    radius = (radius.sum(0) / 1.678).clamp(0.25, 2.8)
    pitch = each(math.radians(10), math.radians(35))
    arms = torch.randint(2, 4, (n, 1), generator=generator)
    arm = torch.arange(ARM_KNOTS) % arms
    # A third of the discs has no arms: knots stand anywhere.
    spread = torch.where(each(0, 1) < 0.33, 3.0, each(0.15, 0.5))
    angle = radius.log() / pitch.tan() + 2 * math.pi * (arm / arms + each(0, 1))
    angle = angle + spread * torch.randn(shape, generator=generator)
    weight = torch.randn(shape, generator=generator).exp()
    q = disc_ratio[:, None]
    stretch = q.rsqrt()
    return torch.stack(
        [
            radius * stretch * angle.cos(),
            radius * stretch * q * angle.sin(),
            each(0.08, 0.22).expand(shape),
            weight / weight.sum(1, keepdim=True),
        ],
        -1,
    )


def _draw_bar(disc_ratio, generator):
    """Knots of the bar, (n, BAR_KNOTS, 4); see `Sources`."""
    n = len(disc_ratio)
    length = _uniform((n, 1), generator, 0.3, 0.8)
    angle = _uniform((n, 1), generator, 0, math.pi)
    place = torch.linspace(-1, 1, BAR_KNOTS) * length
    q = disc_ratio[:, None]
    stretch = q.rsqrt()
    weight = torch.tensor([0.12, 0.22, 0.32, 0.22, 0.12])
    return torch.stack(
        [
            place * stretch * angle.cos(),
            place * stretch * q * angle.sin(),
            (0.3 * length).expand(n, BAR_KNOTS),
            weight.expand(n, BAR_KNOTS),
        ],
        -1,
    )


def draw_shapes(magnitude, redshift, sed_type, generator):
    """
    Sizes and structure for magnitudes, redshifts and types.

    Parameters
    ----------
    magnitude, redshift, sed_type : `torch.Tensor`
        Shape (S,): HSC i, redshift and SED type, see
        `~astro_disentangle.simulation.population.Sources`.
    generator : `torch.Generator`
        Source of the random numbers, on the CPU.

    Returns
    -------
    shapes : dict of str to `torch.Tensor`
        The parameters of ``Sources`` from ``r_half`` to ``knots``.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.simulation.shapes import draw_shapes
    >>> magnitude, redshift, kind = torch.tensor([[21.0], [0.4], [2.0]])
    >>> shapes = draw_shapes(magnitude, redshift, kind, torch_generator(0, "demo"))
    >>> shapes["knots"].shape
    torch.Size([1, 25, 4])
    """
    n = len(magnitude)
    mean = -0.424 - 0.118 * (magnitude - 22) + 0.12 * (redshift - 0.6).clamp(-0.6, 0.6)
    log_size = _truncated_normal(
        n, generator, mean, 0.22, math.log10(0.05), math.log10(3.0)
    )
    r_half = 10**log_size
    fraction = _draw_bulge_fraction(magnitude, sed_type, generator)
    bulge_index = _lognormal(n, generator, *_BULGE_INDEX, 1.5, 6.0)
    disc_index = _lognormal(n, generator, *_DISC_INDEX, 0.5, 2.0)
    ratio = _lognormal(n, generator, *_RADIUS_RATIO, 0.1, 1.5)
    disc_radius = r_half / half_light_radius(fraction, ratio, bulge_index, disc_index)
    disc_ratio = _truncated_normal(n, generator, 0.56, 0.25, 0.15, 1.0)
    bulge_ratio = 1 - (1 - disc_ratio) * _uniform(n, generator, 0.3, 0.8)
    # Late types are clumpier, a third of the discs has a bar; not worth the work
    # where no survey resolves them.
    clumpy = torch.sigmoid(2 * (sed_type - 1.2)) * (magnitude < _FAINTEST_ARMS)
    arm = clumpy * _lognormal(n, generator, 0.22, 0.5, 0.0, 0.7)
    bar = _uniform(n, generator, 0.05, 0.25)
    bar = bar * (torch.rand(n, generator=generator) < 0.33)
    bar = bar * (magnitude < _FAINTEST_ARMS)
    knots = [draw(disc_ratio, generator) for draw in (_draw_arms, _draw_bar)]
    return {
        "r_half": r_half,
        "bulge_fraction": fraction,
        "bulge_radius": ratio * disc_radius,
        "disc_radius": disc_radius,
        "bulge_ratio": bulge_ratio,
        "disc_ratio": disc_ratio,
        "bulge_index": bulge_index,
        "disc_index": disc_index,
        "angle": _uniform(n, generator, 0.0, math.pi),
        "arm_fraction": arm,
        "bar_fraction": bar,
        "knots": torch.cat(knots, 1),
    }
