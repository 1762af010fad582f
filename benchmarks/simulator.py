# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Simulated against real data: two-sample tests and figures.

``python benchmarks/simulator.py DATA --output DIR`` takes a folder with the folders
``population`` (catalogues) and ``real`` (images). It prints a table of tests and
writes it as JSON with four figures. A test gives the distance of Kolmogorov and
Smirnov (KS) or the energy distance (E, by permutation), its probability p, and what
the simulation has more than the data: in the median and in the 16-84 % width.
"""

import argparse
import json
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import simulator_images
import torch
from astropy.table import Table
from scipy.special import gammainc, gammaincinv
from scipy.stats import ks_2samp, norm

from astro_disentangle.keys import numpy_generator, torch_generator
from astro_disentangle.simulation.population import galaxies_of, sample_galaxies
from astro_disentangle.simulation.render import component_fluxes
from astro_disentangle.simulation.scene import sample_stars
from astro_disentangle.survey import AB_FLUX_NJY
from astro_disentangle.surveys import get_survey

SEED = 0
REAL, SIMULATED = "#0072B2", "#D55E00"
N_GALAXIES = 40000
#: Effective wavelength in nm of the simulated filters and of the catalogue's.
WAVELENGTH = {
    "sdss": {"u": 355, "g": 470, "r": 617, "i": 749, "z": 893},
    "hsc": {"g": 484, "r": 626, "i": 773, "z": 891, "y": 979},
}
CATALOGUE = {"g": 478, "r": 629, "i": 768, "z": 904}
F814W = 806
COLOURS = (("g", "r"), ("r", "i"), ("i", "z"))
REDSHIFT_BINS = np.round(np.arange(0, 1.25, 0.1), 1)
MAGNITUDE_BINS = (20, 21, 22, 22.5, 23.5)
FAINT_LIMIT = 22.4


class Report:
    """Rows of the table of tests."""

    def __init__(self):
        self.rows = []

    def row(self, part, quantity, where, count, test, numbers, unit):
        """Add a row; ``numbers`` are the real one and the differences, if any."""
        name, value, p = test
        names = ("real", "d_median", "d_width")
        self.rows.append(
            {"part": part, "quantity": quantity, "bin": where}
            | {"n_real": int(count[0]), "n_sim": int(count[1])}
            | {"test": name, "value": round(float(value), 3), "p": float(f"{p:.1e}")}
            | {k: round(float(x), 4) for k, x in zip(names, numbers, strict=True)}
            | {"unit": unit}
        )

    def add(self, part, quantity, real, simulated, *, unit="", where="", test=None):
        """Compare two samples, by KS unless ``test`` is (name, value, p)."""
        real, simulated = (np.asarray(x, float) for x in (real, simulated))
        real, simulated = (x[np.isfinite(x)] for x in (real, simulated))
        if min(len(real), len(simulated)) < 2:
            return
        test = test or ("KS", *ks_2samp(real, simulated))
        shares = (16, 50, 84)
        low, middle, high = np.percentile(simulated, shares) - np.percentile(
            real, shares
        )
        numbers = (np.median(real), middle, high - low)
        count = (len(real), len(simulated))
        self.row(part, quantity, where, count, test, numbers, unit)

    def joint(self, part, quantity, real, simulated, where=""):
        """Compare two samples of vectors, (N, K) each, by the energy distance."""
        test = energy(real, simulated, numpy_generator(SEED, "energy", quantity, where))
        self.add(
            part,
            quantity,
            *(np.asarray(x)[:, 0] for x in (real, simulated)),
            where=where,
            unit="of the first",
            test=test,
        )

    def note(self, part, quantity, real, simulated, *, error, count, unit="", where=""):
        """Two numbers of ``count`` objects each, and the error of their difference."""
        apart = simulated - real
        test = ("z", apart / error, 2 * norm.sf(abs(apart / error)))
        self.row(part, quantity, where, count, test, (real, apart, 0), unit)


def energy(real, simulated, random, repeats=199, most=400):
    """Energy distance of two samples of vectors over its scale, and p-value."""
    from scipy.spatial.distance import cdist

    samples = [np.asarray(x, float) for x in (real, simulated)]
    samples = [x[np.isfinite(x).all(1)] for x in samples]
    samples = [random.permutation(x)[:most] for x in samples]
    n, joined = len(samples[0]), np.concatenate(samples)
    low, high = np.percentile(joined, (16, 84), 0)
    apart = cdist(*[joined / np.maximum(high - low, 1e-9)] * 2)

    def distance(order):
        a, b = order[:n], order[n:]
        between = 2 * apart[np.ix_(a, b)].mean()
        within = apart[np.ix_(a, a)].mean() + apart[np.ix_(b, b)].mean()
        return (between - within) / between

    rows = np.arange(len(joined))
    found = distance(rows)
    other = [distance(random.permutation(rows)) for _ in range(repeats)]
    return "E", found, (1 + np.sum(np.array(other) >= found)) / (1 + repeats)


def columns(path):
    """Columns of a FITS table as floats; values beyond 90 are missing magnitudes."""
    table = Table.read(path)
    found = {name: np.asarray(table[name], float) for name in table.colnames}
    return {
        name: np.where(np.abs(x) > 90, np.nan, x) if name.startswith("mag_") else x
        for name, x in found.items()
    }


def magnitudes(survey, sources):
    """Total magnitudes of sources in the bands of a survey, (S, C)."""
    flux = component_fluxes(get_survey(survey), sources).sum(1).double()
    return -2.5 * (flux / AB_FLUX_NJY).log10().numpy()


def at_wavelengths(sources, wavelengths):
    """Magnitudes between the simulated filters, by wavelength; (S, W)."""
    pairs = []
    for survey, bands in WAVELENGTH.items():
        drawn = magnitudes(survey, sources)
        names = get_survey(survey).bands
        pairs += [(nm, drawn[:, names.index(band)]) for band, nm in bands.items()]
    pairs.sort(key=lambda pair: pair[0])
    known = np.array([nm for nm, _ in pairs])
    values = np.stack([value for _, value in pairs], 1)
    out = []
    for nm in wavelengths:
        high = np.searchsorted(known, nm)
        share = (nm - known[high - 1]) / (known[high] - known[high - 1])
        out.append((1 - share) * values[:, high - 1] + share * values[:, high])
    return np.stack(out, 1)


def bands_of(values, place, edges, least=8):
    """Percentiles 16, 50, 84 of values in bins of ``place``, (bins, 3)."""
    rows = [values[(place >= a) & (place < b)] for a, b in pairwise(edges)]
    shares, blank = (16, 50, 84), np.full(3, np.nan)
    return np.array(
        [np.nanpercentile(r, shares) if len(r) >= least else blank for r in rows]
    )


def draw_bands(axis, edges, real, simulated, shift=0.0):
    """Medians and 16-84 % of two samples against bins."""
    middle = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
    step = shift * np.diff(edges)
    for rows, colour, marker, name, sign in (
        (real, REAL, "o", "real", -1),
        (simulated, SIMULATED, "s", "simulated", 1),
    ):
        low, mid, high = rows.T
        options = {"color": colour, "marker": marker, "ms": 4, "lw": 1.2, "label": name}
        errors = (mid - low, high - mid)
        style = "-" if sign < 0 else "--"
        axis.errorbar(middle + sign * step, mid, errors, capsize=2, ls=style, **options)


def population(folder, report, figure):
    """Redshift, mass, magnitudes and colours against zCOSMOS."""
    table = columns(folder / "cosmos_zspec_mass_photometry.fits")
    z, mass, total = table["z_spec"], table["logmass"], table["mag_I"]
    good = (table["flag"] == 1) & (total > 18) & (total < FAINT_LIMIT) & (z > 0.02)
    table = {name: value[good] for name, value in table.items()}
    z, mass, total = z[good], mass[good], total[good]
    galaxies = sample_galaxies(N_GALAXIES, torch_generator(SEED, "population"))
    drawn = at_wavelengths(galaxies, [F814W, *CATALOGUE.values()])
    keep = (drawn[:, 0] > 18) & (drawn[:, 0] < FAINT_LIMIT)
    drawn = drawn[keep]
    z_sim, mass_sim = (x.numpy()[keep] for x in (galaxies.redshift, galaxies.log_mass))
    # The errors of the real galaxy that is next in magnitude.
    order = np.argsort(total)
    place = np.searchsorted(total[order], drawn[:, 0]).clip(0, len(total) - 1)
    random = numpy_generator(SEED, "photometric errors")
    for column, band in enumerate(CATALOGUE, 1):
        error = table[f"mag_{band}_err"][order][place]
        drawn[:, column] += error * random.normal(size=len(error))
    report.add("population", "I magnitude", total, drawn[:, 0], unit="mag")
    report.add("population", "redshift", z, z_sim)
    report.add("population", "log mass", mass, mass_sim, unit="dex")
    for a, b in pairwise(REDSHIFT_BINS[::2]):
        report.add(
            "population",
            "log mass",
            mass[(z >= a) & (z < b)],
            mass_sim[(z_sim >= a) & (z_sim < b)],
            unit="dex",
            where=f"z {a}-{b}",
        )
    axes = figure.subplots(2, 3)
    real_rows, sim_rows = [z, mass, total], [z_sim, mass_sim, drawn[:, 0]]
    bands = list(CATALOGUE)
    for axis, (blue, red) in zip(axes[0], COLOURS, strict=True):
        real = table[f"mag_{blue}"] - table[f"mag_{red}"]
        sim = drawn[:, 1 + bands.index(blue)] - drawn[:, 1 + bands.index(red)]
        rows = [
            bands_of(values, where, REDSHIFT_BINS, 30)
            for values, where in ((real, z), (sim, z_sim))
        ]
        offset = np.nanmean(rows[1][1:, 1] - rows[0][1:, 1])
        name = f"{blue} - {red}"
        count = (np.isfinite(real).sum(), len(sim))
        # Zero points and filters of the catalogue are good to 0.03 mag.
        options = {"error": 0.03, "count": count, "unit": "mag"}
        report.note("population", f"{name}, mean over z", 0, offset, **options)
        for a, b in pairwise(REDSHIFT_BINS):
            report.add(
                "population",
                f"{name}, mean removed",
                real[(z >= a) & (z < b)],
                sim[(z_sim >= a) & (z_sim < b)] - offset,
                unit="mag",
                where=f"z {a}-{b}",
            )
        draw_bands(axis, REDSHIFT_BINS, *rows, shift=0.08)
        axis.set(xlabel="redshift", ylabel=f"{blue} $-$ {red} (mag)")
        real_rows.append(real)
        sim_rows.append(sim - offset)
    pair = [np.stack(rows, 1) for rows in (real_rows, sim_rows)]
    report.joint("population", "z, mass", *(rows[:, :2] for rows in pair))
    report.joint("population", "z, mass, I, colours", *pair)
    axes[0, 0].legend(fontsize=8)
    for axis, values, edges, label in (
        (axes[1, 0], (z, z_sim), np.linspace(0, 1.4, 36), "redshift"),
        (axes[1, 2], (total, drawn[:, 0]), np.arange(18, 22.5, 0.2), "I (AB mag)"),
    ):
        for x, colour, style in zip(values, (REAL, SIMULATED), "-:", strict=True):
            options = {"density": True, "histtype": "step", "color": colour, "lw": 1.5}
            axis.hist(x, edges, ls=style, **options)
        axis.set(xlabel=label, ylabel="density")
    axes[1, 2].set_yscale("log")
    axes[1, 2].set_ylabel("density (1/mag)")
    rows = [
        bands_of(m, w, REDSHIFT_BINS, 30) for m, w in ((mass, z), (mass_sim, z_sim))
    ]
    draw_bands(axes[1, 1], REDSHIFT_BINS, *rows, shift=0.08)
    axes[1, 1].set(xlabel="redshift", ylabel="log10 stellar mass (solar masses)")


def faint(folder, report):
    """Colours, redshifts and sizes of faint galaxies in HSC's own filters."""
    table = columns(folder / "real_galaxy_catalog_26_extension_example_fits.fits")
    keep = (table["HSC_i"] > 22.5) & (table["HSC_i"] < 25.5)
    table = {name: value[keep] for name, value in table.items()}
    asked = torch.tensor(np.repeat(table["HSC_i"], 20), dtype=torch.float32)
    galaxies = galaxies_of(asked, torch_generator(SEED, "faint"))
    drawn = dict(zip("grizy", magnitudes("hsc", galaxies).T, strict=True))
    for blue, red in (*COLOURS, ("z", "y")):
        real = table[f"HSC_{blue}"] - table[f"HSC_{red}"]
        name = f"{blue} - {red}"
        report.add("faint", name, real, drawn[blue] - drawn[red], unit="mag")
    report.add("faint", "redshift", table["ZPHOT"], galaxies.redshift.numpy())
    # HST's PSF has a half-light radius of about 0.07 arcsec.
    square = np.maximum((0.03 * table["flux_radius"]) ** 2 - 0.07**2, 0.03**2)
    real = np.log10(square) / 2
    report.add("faint", "log size", real, galaxies.r_half.log10().numpy(), unit="dex")


def sersic_radii(index, share):
    """Radius of a share of the light over the half-light radius."""
    b = gammaincinv(2 * index, 0.5)
    return (gammaincinv(2 * index, share) / b) ** index


def inside(radius, index):
    """Share of the light within radii in units of the half-light radius."""
    return gammainc(2 * index, gammaincinv(2 * index, 0.5) * radius ** (1 / index))


def concentration_of(galaxies):
    """log10 of r80 / r20 of the circularised bulge and disc."""
    names = [
        "bulge_fraction",
        "bulge_radius",
        "disc_radius",
        "bulge_index",
        "disc_index",
    ]
    share, bulge, disc, first, second = (
        getattr(galaxies, name).double().numpy()[:, None] for name in names
    )
    radius = np.sqrt(bulge * disc) * np.geomspace(0.02, 50, 160)
    light = share * inside(radius / bulge, first)
    light += (1 - share) * inside(radius / disc, second)
    rows = zip(np.log10(radius), light, strict=True)
    return np.array([np.diff(np.interp((0.2, 0.8), y, x))[0] for x, y in rows])


def shapes(folder, report, figure):
    """Sizes, axis ratios and concentrations against Sersic fits of COSMOS."""
    names = ("real_galaxy_23.5_500_fits", "real_galaxy_catalog_23.5_example_fits")
    parts = [Table.read(folder / f"{name}.fits") for name in names]
    fit, magnitude, redshift = (
        np.concatenate([np.asarray(part[name], float) for part in parts])
        for name in ("sersicfit", "mag_auto", "zphot")
    )
    radius, index, ratio = fit[:, 1], fit[:, 2], fit[:, 3]
    good = (ratio > 0.05) & (ratio <= 1) & (index > 0.15) & (radius > 0)
    good &= (magnitude > 20) & (magnitude < 23.5)
    radius, index, ratio = radius[good], index[good], ratio[good]
    magnitude, redshift = magnitude[good], redshift[good]
    real = {
        "log size": np.log10(0.03 * radius * np.sqrt(ratio)),
        "axis ratio": ratio,
        "log r80/r20": np.log10(sersic_radii(index, 0.8) / sersic_radii(index, 0.2)),
        "Sersic index": index,
        "redshift": redshift,
    }
    pool = sample_galaxies(2 * N_GALAXIES, torch_generator(SEED, "shapes"))
    total = at_wavelengths(pool, [F814W])[:, 0]
    order = np.argsort(total)
    # Twelve simulated galaxies of the magnitude of each real one.
    place = np.searchsorted(total[order], magnitude)[:, None] + np.arange(-6, 6)
    chosen = order[place.clip(0, len(order) - 1)].ravel()
    galaxies = pool.map(lambda tensor: tensor[torch.tensor(chosen)])
    magnitude_sim = total[chosen]
    ellipticity = galaxies.ellipticity.norm(dim=-1).double().numpy()
    concentration = concentration_of(galaxies)
    grid = np.linspace(0.15, 8, 400)
    curve = np.log10(sersic_radii(grid, 0.8) / sersic_radii(grid, 0.2))
    simulated = {
        "log size": galaxies.r_half.log10().numpy(),
        "axis ratio": np.sqrt((1 - ellipticity) / (1 + ellipticity)),
        "log r80/r20": concentration,
        "Sersic index": np.interp(concentration, curve, grid),
        "redshift": galaxies.redshift.numpy(),
    }
    units = {"log size": "dex", "log r80/r20": "dex"}
    z_edges = (0, 0.3, 0.5, 0.7, 0.9, 1.3)
    for name, values in real.items():
        for label, edges, here, there in (
            ("mag", MAGNITUDE_BINS, magnitude, magnitude_sim),
            ("zphot", z_edges, redshift, simulated["redshift"]),
        ):
            if name == "redshift" and label == "zphot":
                continue
            for a, b in pairwise(edges):
                report.add(
                    "shapes",
                    name,
                    values[(here >= a) & (here < b)],
                    simulated[name][(there >= a) & (there < b)],
                    unit=units.get(name, ""),
                    where=f"{label} {a}-{b}",
                )
    names = ("log size", "axis ratio", "log r80/r20")
    joint = [np.stack([x[n] for n in names], 1) for x in (real, simulated)]
    report.joint("shapes", "size, ratio, r80/r20", *joint)
    labels = ("log10 half-light radius (arcsec)", "axis ratio", "log10 r80 / r20")
    axes = figure.subplots(2, 3)
    for column, (name, label) in enumerate(zip(names, labels, strict=True)):
        for axis, edges, here, there, title in (
            (
                axes[0, column],
                MAGNITUDE_BINS,
                magnitude,
                magnitude_sim,
                "F814W (AB mag)",
            ),
            (axes[1, column], z_edges, redshift, simulated["redshift"], "redshift"),
        ):
            rows = (
                bands_of(real[name], here, edges),
                bands_of(simulated[name], there, edges),
            )
            draw_bands(axis, edges, *rows, shift=0.06)
            axis.set(xlabel=title, ylabel=label)
    axes[0, 0].legend(fontsize=8)


def stars(report):
    """Distance of simulated stars from the stellar locus of HSC."""
    generator = torch_generator(SEED, "stars")
    drawn = magnitudes("hsc", sample_stars(torch.full((4000,), 20.0), generator))
    g, r, i, z, _ = drawn.T
    # The real locus is 0.02 mag wide.
    locus = numpy_generator(SEED, "locus").normal(0, 0.02, 4000)
    rows = {
        "blue, g r i": (-0.274 * g + 0.803 * r - 0.529 * i + 0.041, g - r < 1.1),
        "red, g r i": (-0.680 * g + 0.731 * r - 0.051 * i + 0.792, r - i > 0.6),
        "SDSS, r i z": (-0.270 * r + 0.800 * i - 0.534 * z + 0.054, g - r < 1.1),
    }
    for name, (distance, keep) in rows.items():
        label = "distance from the locus"
        report.add("stars", label, locus, distance[keep], unit="mag", where=name)
    for low, high in pairwise((0.2, 0.4, 0.6, 0.9, 1.2, 1.6)):
        part = drawn[(g - r >= low) & (g - r < high)]
        colours = -np.diff(np.median(part, 0))[1:3].round(3)
        share = len(part) / len(drawn)
        print(f"stars of g - r {low}-{high}: {share:.0%}, r - i, i - z {colours}")


def main():
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path())
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from matplotlib.figure import Figure

    options.output.mkdir(parents=True, exist_ok=True)
    report = Report()
    catalogues, images = options.data / "population", options.data / "real"
    steps = {
        "population": lambda f: population(catalogues, report, f),
        "shapes": lambda f: shapes(catalogues, report, f),
        "noise": lambda f: simulator_images.instruments(images, report, f),
        "stamps": lambda f: simulator_images.stamps(images, report, f),
    }
    for name, step in steps.items():
        start = time.perf_counter()
        figure = Figure(figsize=(10, 6), layout="constrained")
        step(figure)
        figure.savefig(options.output / f"simulator_{name}.png", dpi=80)
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    faint(catalogues, report)
    stars(report)
    # The correlations are in the figure and in the JSON.
    shown = [row for row in report.rows if "correlation" not in row["quantity"]]
    Table(rows=shown).pprint(max_lines=-1, max_width=-1, align="<")
    (options.output / "simulator.json").write_text(json.dumps(report.rows, indent=1))


if __name__ == "__main__":
    main()
