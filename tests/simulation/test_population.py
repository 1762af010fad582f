# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The population against what it was fitted to, and the tables against formulas."""

import math
from pathlib import Path

import pytest
import torch

import astro_disentangle.simulation.tables as tables_module
from astro_disentangle import get_survey
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation.population import (
    Sources,
    sample_galaxies,
)
from astro_disentangle.simulation.render import component_fluxes
from astro_disentangle.simulation.scene import sample_neighbours, sample_stars
from astro_disentangle.simulation.shapes import half_light_radius
from astro_disentangle.simulation.tables import load_tables, mix_rows, radial


@pytest.fixture(scope="module")
def galaxies():
    return sample_galaxies(8000, torch_generator(0, "test"))


def colors(sources):
    flux = component_fluxes(get_survey("hsc"), sources).sum(1)
    return 2.5 * torch.diff(flux.log10(), dim=1)


def test_tables_are_small_and_finite():
    path = Path(tables_module.__file__).with_name("tables.safetensors")
    assert path.stat().st_size < 300_000
    for tensor in load_tables().tensors.values():
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()


def transform(index, k):
    tables = load_tables()
    axis = tables.axes["log_sersic_index"]
    rows = mix_rows(tables["sersic"], axis, torch.tensor([math.log(index)]))
    return radial(rows, tables.axes["log_k"], k[None] ** 2)[0]


def test_exponential_disc_is_exact():
    k = torch.logspace(-2, 2, 300)
    exact = (1 + (k / 1.67834699) ** 2) ** -1.5
    assert (transform(1.0, k) - exact).abs().max() < 2e-4


def test_gaussian_is_exact():
    k = torch.logspace(-2, 2, 300)
    exact = torch.exp(-(k**2) / (4 * math.log(2)))
    assert (transform(0.5, k) - exact).abs().max() < 2e-4


def test_de_vaucouleurs_agrees_with_galsim():
    galsim = pytest.importorskip("galsim")
    k = torch.logspace(-2, 2, 60)
    profile = galsim.Sersic(4, half_light_radius=1)
    expected = torch.tensor([profile.kValue(x, 0).real for x in k.tolist()])
    assert (transform(4.0, k) - expected).abs().max() < 2e-4


def test_magnitudes_and_redshifts(galaxies):
    magnitude = galaxies.magnitude_i
    assert magnitude.min() > 17
    assert magnitude.max() < 24
    assert 0.02 < (magnitude > 22.5).float().mean() < 0.1
    # zCOSMOS: median redshift 0.56, median log mass 10.1.
    assert abs(galaxies.redshift.median() - 0.56) < 0.05
    assert abs(galaxies.log_mass.median() - 10.1) < 0.15
    assert (
        torch.corrcoef(torch.stack([galaxies.redshift, galaxies.log_mass]))[0, 1] > 0.4
    )


@pytest.mark.parametrize(
    # Medians of zCOSMOS: redshift, g - r and r - i; the tolerance covers the
    # difference of the filters and of the zero points.
    ("redshift", "g_r", "r_i"),
    [(0.15, 0.54, 0.26), (0.35, 0.98, 0.34), (0.55, 1.07, 0.50), (0.75, 0.91, 0.80)],
)
def test_colours_follow_redshift(galaxies, redshift, g_r, r_i):
    near = (galaxies.redshift - redshift).abs() < 0.05
    color = colors(galaxies)[near].median(0)[0]
    assert abs(color[0] - g_r) < 0.2
    assert abs(color[1] - r_i) < 0.2


def test_early_types_are_red_and_have_bulges(galaxies):
    early, late = galaxies.sed_type < 0.7, galaxies.sed_type > 2.3
    color = colors(galaxies)[:, 0]
    assert color[early].median() > color[late].median() + 0.5
    bulge = galaxies.bulge_fraction
    assert bulge[early].median() > bulge[late].median() + 0.3


def test_sizes_follow_magnitude(galaxies):
    # Single Sersic fits of COSMOS, and their rise with redshift.
    expected = -0.424 - 0.118 * (galaxies.magnitude_i - 22)
    expected = expected + 0.12 * (galaxies.redshift - 0.6).clamp(-0.6, 0.6)
    scatter = galaxies.r_half.log10() - expected
    assert abs(scatter.mean()) < 0.02
    assert abs(scatter.std() - 0.22) < 0.02
    for part in (galaxies.redshift < 0.35, galaxies.redshift > 0.85):
        assert abs(scatter[part].mean()) < 0.02


def test_axis_ratios_follow_the_fits():
    q = sample_galaxies(8000, torch_generator(1, "test")).disc_ratio
    low, middle, high = torch.quantile(q, torch.tensor([0.16, 0.5, 0.84])).tolist()
    assert abs(low - 0.34) < 0.04
    assert abs(middle - 0.58) < 0.04
    assert abs(high - 0.82) < 0.06


def test_half_light_radius_against_galsim():
    galsim = pytest.importorskip("galsim")
    bulge, disc = (galsim.Sersic(n, half_light_radius=r) for n, r in ((4, 0.3), (1, 1)))
    radius = half_light_radius(
        *(torch.tensor([x]) for x in (0.5, 0.3, 4.0, 1.0))
    ).item()
    inside = [profile.calculateIntegratedFlux(radius) for profile in (bulge, disc)]
    assert sum(inside) / 2 == pytest.approx(0.5, abs=1e-3)


def test_neighbours_have_their_number_and_share_of_stars():
    sources, position, present = sample_neighbours(3000, torch_generator(0, "test"))
    # 2.2 by chance, 0.35 companions, 0.1 stars; no more than eight.
    assert abs(present.float().sum(1).mean() - 2.66) < 0.1
    assert abs(sources.is_star.float().mean() - 0.036) < 0.01
    assert position.abs().max() <= 5.5
    # Within 2 arcsec of one galaxy in four: 15% by chance to i = 25.
    near = (position.norm(dim=-1) < 2) & present
    assert 0.25 < near.any(1).float().mean() < 0.40
    # The counts of galaxies rise by 0.31 dex per magnitude.
    galaxies = sources.magnitude_i[~sources.is_star]
    bright, faint = ((galaxies < m).sum() for m in (23.5, 24.5))
    assert math.log10(faint / bright) == pytest.approx(0.31, abs=0.05)


def test_stars_stand_on_the_locus():
    stars = sample_stars(torch.full((500,), 20.0), torch_generator(0, "test"))
    order = stars.star_color.argsort()
    g_r, r_i, i_z, _ = colors(stars).T
    assert (g_r[order].diff() >= -2e-2).all()
    assert torch.allclose(g_r + r_i, stars.star_color, atol=0.02)
    # HSC's stellar locus: its blue part and its red part, and r - i against i - z.
    blue, red = stars.star_color < 1.4, stars.star_color > 1.9
    width = {
        "blue": (-0.274 * g_r + 0.529 * r_i + 0.041)[blue],
        "red": (-0.680 * g_r + 0.051 * r_i + 0.792)[red],
        "rest": -0.27 * r_i + 0.534 * i_z + 0.054,
    }
    for name, away in width.items():
        assert away.abs().max() < 0.02, name
    assert isinstance(stars, Sources)
