# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Simulated against real images: PSF, sky, stamps, neighbours; see `simulator`.

Real images are cut into stamps of the survey's size, simulated ones have the seeing
and the noise of the real field, and both go through the same detection, as one mosaic
of stamps. Pixels are in units of the noise of the sky.
"""

from itertools import pairwise

import numpy as np
from astropy.nddata import CCDData
from simulator_fields import FIELDS, Field, fit_moffat

from astro_disentangle.keys import numpy_generator, torch_generator
from astro_disentangle.simulation.instruments import draw_conditions
from astro_disentangle.surveys import get_survey

SEED = 0
REAL, SIMULATED = "#0072B2", "#D55E00"
PSF_FOLDERS = (
    "hsc_cosmos_blend",
    "hsc_cosmos_group",
    "hsc_lsb_galaxy",
    "hsc_field_with_variance",
)
STAMPS = {"HSC r": 25.5, "BASS g": 24.0}
LAGS = range(7)
BOOTSTRAPS = 300
RADII = (2.0, 4.0)


def psfs(folder, report, fields):
    """FWHM, index and ellipticity of PSFs against the drawn conditions."""
    found = {}
    for name in PSF_FOLDERS:
        for path in sorted((folder / name).glob("?.fits")):
            image = np.asarray(CCDData.read(path).psf, float)
            fit = fit_moffat(image / image.sum(), 1e-3, 4.0)
            row = (0.168 * fit[0], *fit[1:3])
            found.setdefault(("hsc", path.stem), []).append(row)
    for field in fields.values():
        _, fits = field.stars()
        if len(fits):
            key = (field.survey.name, field.band)
            found.setdefault(key, []).append(tuple(np.median(fits, 0)))
    ranks, shapes, drawn = [], {}, {}
    for (name, band), rows in found.items():
        survey = get_survey(name)
        if name not in drawn:
            drawn[name] = draw_conditions(survey, 4000, torch_generator(SEED, "psf"))
        index = survey.bands.index(band)
        width = drawn[name].psf_fwhm[:, index].numpy()
        real = np.array(rows)[:, 0]
        share = (width < real[:, None]).mean(1)
        ranks += list(share) if name == "hsc" else []
        report.note(
            "PSF",
            f"FWHM, real at {', '.join(f'{s:.1%}' for s in np.sort(share))}",
            real.mean(),
            np.median(width),
            error=width.std(),
            count=(len(real), len(width)),
            unit="arcsec",
            where=f"{name} {band}",
        )
        shapes.setdefault(name, []).extend(row[1:] for row in rows)
    report.add("PSF", "rank of the FWHM", ranks, np.linspace(0, 1, 1000), where="hsc")
    for name, rows in shapes.items():
        sizes = drawn[name].psf_ellipticity.norm(dim=-1)
        pair = (drawn[name].psf_beta.ravel().numpy(), sizes.ravel().numpy())
        columns = np.transpose(rows)
        for label, real, sim in zip(
            ("Moffat index", "|e|"), columns, pair, strict=True
        ):
            if len(real) > 1:
                report.add("PSF", label, real, sim, where=name)
            else:
                options = {"error": sim.std(), "count": (1, len(sim)), "where": name}
                report.note("PSF", label, real[0], np.median(sim), **options)


def sums(v, good):
    """Sums over each stamp from which `measure` takes the statistics, (n, K, 2)."""
    columns = [((v**k * good).sum((1, 2)), good.sum((1, 2))) for k in (1, 2, 3, 4)]
    for bound in (3, 4):
        for sign in (1, -1):
            hit = ((sign * v > bound) & good).sum((1, 2))
            columns.append((hit, good.sum((1, 2))))
    size = v.shape[1]
    for step in ((0, 1), (1, 0), (1, 1)):
        for lag in LAGS:
            y, x = lag * step[0], lag * step[1]
            a, b = np.s_[:, y:, x:], np.s_[:, : size - y, : size - x]
            both = good[a] & good[b]
            columns.append(((v[a] * v[b] * both).sum((1, 2)), both.sum((1, 2))))
    for side in (8, 16, 32):
        k = size // side
        cut = np.s_[:, : k * side, : k * side]
        shape = (len(v), k, side, k, side)
        number = good[cut].reshape(shape).sum((2, 4))
        total = (v * good)[cut].reshape(shape).sum((2, 4))
        full = number > 0.6 * side**2
        mean = np.where(full, total / np.maximum(number, 1), 0)
        columns.append(((mean**2).sum((1, 2)), full.sum((1, 2))))
    return np.stack([np.stack(pair, -1) for pair in columns], 1).astype(float)


def measure(weighted):
    """Statistics of the sky of sums (..., K, 2): a dict of arrays (...)."""
    ratio = weighted[..., 0] / np.maximum(weighted[..., 1], 1)
    mean, square = ratio[..., 0], ratio[..., 1]
    var = square - mean**2
    third = ratio[..., 2] - 3 * mean * square + 2 * mean**3
    fourth = ratio[..., 3] - 4 * mean * ratio[..., 2] + 6 * mean**2 * square
    fourth = fourth - 3 * mean**4
    out = {"skewness": third / var**1.5, "excess kurtosis": fourth / var**2 - 3}
    out["excess kurtosis, stamps of equal noise"] = (
        ratio[..., 35] / np.maximum(ratio[..., 33], 1e-9) ** 2 - 3
    )
    names = ("above 3", "below -3", "above 4", "below -4")
    out |= {f"share {name} sigma": ratio[..., 4 + k] for k, name in enumerate(names)}
    for k, name in enumerate(("x", "y", "diagonal")):
        lags = ratio[..., 8 + 7 * k : 15 + 7 * k]
        out |= {
            f"correlation {name} {lag}": lags[..., lag] / lags[..., 0] for lag in LAGS
        }
    for k, side in enumerate((8, 16, 32)):
        out[f"rms of means of {side} px"] = np.sqrt(ratio[..., 29 + k])
    return out


def noise_of(v, good):
    """Noise of each stamp over the mean one, (n,)."""
    spread = np.sqrt((v**2).sum((1, 2)) / good.sum((1, 2)))
    return spread / spread.mean()


def with_errors(v, good, name):
    """Statistics of the sky and their errors, stamps drawn again and again."""
    table = np.concatenate(
        [sums(v, good), sums(v / noise_of(v, good)[:, None, None], good)[:, :4]], 1
    )
    random = numpy_generator(SEED, "bootstrap", name)
    weight = random.multinomial(len(v), np.full(len(v), 1 / len(v)), BOOTSTRAPS)
    error = measure(np.einsum("bn,nkc->bkc", weight.astype(float), table))
    return measure(table.sum(0)), {k: np.nanstd(x) for k, x in error.items()}


def instruments(folder, report, figure):
    """PSF and sky of real and simulated images."""
    fields = {name: Field(folder, name) for name in FIELDS}
    psfs(folder, report, fields)
    axes = figure.subplots(2, len(fields))
    edges = np.arange(-6, 8.01, 0.25)
    for column, (name, field) in enumerate(fields.items()):
        simulated, truth = field.simulated(60, "sky")
        # The wings of bright centres are no sky.
        simulated = simulated[truth["magnitude"] > 22]
        values = {}
        for kind, part in (("real", field.tiles()), ("simulated", simulated)):
            v, good = part.sky()
            values[kind] = (v, good, *with_errors(v, good, name))
        (v, good, real, e_real), (u, fine, sim, e_sim) = values.values()
        # Pixels 5 apart are independent.
        thin = np.s_[:, ::5, ::5]
        pair = (v[thin][good[thin]], u[thin][fine[thin]])
        report.add("sky", "pixel / noise", *pair, where=name)
        pair = (noise_of(v, good), noise_of(u, fine))
        report.add("sky", "noise of a stamp / mean", *pair, where=name)
        for key in real:
            if key.endswith(" 0"):
                continue
            error, count = np.hypot(e_real[key], e_sim[key]), (len(v), len(u))
            options = {"error": error, "count": count, "where": name}
            report.note("sky", key, real[key], sim[key], **options)
        upper, lower = axes[:, column]
        draw_sky(upper, lower, values, edges)
        upper.set_title(name)
    axes[0, 0].legend(fontsize=6, loc="upper right")


def draw_sky(upper, lower, values, edges):
    """Correlation of the sky with its errors, and histogram of its pixels."""
    for kind, colour, style in (("real", REAL, "-"), ("simulated", SIMULATED, "--")):
        pixels, fair, found, error = values[kind]
        for way, marker in (("x", "o"), ("y", "^"), ("diagonal", "s")):
            rho, spread = (
                [d[f"correlation {way} {lag}"] for lag in LAGS[1:]]
                for d in (found, error)
            )
            line = upper.errorbar(LAGS[1:], rho, spread, color=colour, ls=style, lw=1)
            line[0].set(marker=marker, ms=4, label=f"{kind}, {way}")
        options = {"density": True, "histtype": "step", "color": colour, "ls": style}
        lower.hist(pixels[fair], edges, **options)
    lower.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), "k:", lw=0.8)
    upper.set(xlabel="lag (px)", ylabel="correlation", xticks=LAGS[1:])
    lower.set(xlabel="sky pixel / noise", ylabel="density")
    lower.set(yscale="log", ylim=(1e-6, 1))


def power(stamps):
    """log10 of the power of stamps over that of white noise, (n, bins)."""
    v = stamps.pixels / stamps.sigma
    size = v.shape[1]
    window = np.hanning(size)[:, None] * np.hanning(size)
    square = np.abs(np.fft.fft2(v * window)) ** 2 / (window**2).sum()
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    edges = np.linspace(0, 0.5, 13)
    rows = [square[:, (k >= a) & (k < b)].mean(1) for a, b in pairwise(edges)]
    frequency = (edges[1:] + edges[:-1]) / 2 / stamps.survey.pixel_scale
    return np.log10(np.stack(rows, 1)), frequency


def neighbours(stamps):
    """Sources other than the central one within each of `RADII`, (n, 2)."""
    middle = (stamps.pixels.shape[1] - 1) / 2
    row, x, y, _ = stamps.sources().T
    apart = np.hypot(x - middle, y - middle) * stamps.survey.pixel_scale
    out = np.zeros((len(stamps.pixels), len(RADII)))
    for stamp in range(len(out)):
        near = np.sort(apart[row == stamp])[1:]
        out[stamp] = [(near < radius).sum() for radius in RADII]
    return out


def density(stamps, faintest):
    """Sources of 21 mag to ``faintest`` beyond 2 arcsec from the middle, and area."""
    scale, size = stamps.survey.pixel_scale, stamps.pixels.shape[1]
    row, x, y, flux = stamps.sources().T
    axis = (np.arange(size) - (size - 1) / 2) * scale
    outside = np.hypot(axis, axis[:, None]) > 2
    far = np.hypot(x - (size - 1) / 2, y - (size - 1) / 2) * scale > 2
    magnitude = 31.4 - 2.5 * np.log10(np.maximum(flux, 1))
    keep = far & (magnitude > 21) & (magnitude < faintest)
    count = np.bincount(row[keep].astype(int), minlength=len(stamps.pixels))
    return count, (stamps.good & outside).sum((1, 2)) * scale**2 / 3600


def matched(real, simulated, truth, each=8):
    """Simulated galaxies of the magnitude of the real ones, ``each`` for one."""
    simulated = simulated[~truth["is_star"]]
    bright, other = (
        np.log10(np.maximum(s.aperture(1.5), 1)) for s in (real, simulated)
    )
    keep = (bright > np.quantile(other, 0.01)) & (bright < np.quantile(other, 0.99))
    nearest = np.abs(other - bright[keep, None]).argsort(1)[:, :each]
    return real[keep], simulated[nearest.ravel()]


def band(values, random):
    """Percentiles 16, 50, 84 of the mean of rows drawn again, (3, K)."""
    rows = random.integers(len(values), size=(BOOTSTRAPS, len(values)))
    return np.percentile(values[rows].mean(1), (16, 50, 84), axis=0)


def blends(report, name, real, simulated, faintest):
    """Number of sources per area, and around galaxies of equal magnitude."""
    (tiles, pool), (around, beside) = real, simulated
    (n, area), (m, sky) = (density(part, faintest) for part in (tiles, pool))
    rates = [n.sum() / area.sum(), m.sum() / sky.sum()]
    error = np.hypot(np.sqrt(n.sum() + 1) / area.sum(), np.sqrt(m.sum()) / sky.sum())
    options = {"error": error, "count": (n.sum(), m.sum()), "where": name}
    report.note("blends", f"sources 21-{faintest} per sq arcmin", *rates, **options)
    counts = [neighbours(part) for part in (around, beside)]
    for k, radius in enumerate(RADII):
        means = [c[:, k].mean() for c in counts]
        error = np.hypot(*(np.sqrt(c[:, k].sum() + 1) / len(c) for c in counts))
        options = {"error": error, "count": [len(c) for c in counts], "where": name}
        report.note("blends", f"neighbours in {radius:.0f} arcsec", *means, **options)


def stamps(folder, report, figure):
    """Galaxies of equal magnitude, their neighbours, pixels and power spectra."""
    edges = np.linspace(-3, 7, 51)
    for part, (name, faintest) in zip(
        figure.subfigures(1, len(STAMPS)), STAMPS.items(), strict=True
    ):
        field = Field(folder, name)
        pool, truth = field.simulated(250, "stamps")
        faint = pool[truth["magnitude"] > 21.5]
        real = field.galaxies(field.stars()[0])
        real, simulated = matched(real, pool, truth)
        blends(report, name, (field.tiles(), faint), (real, simulated), faintest)
        parts = (real, simulated)
        light = [p.aperture(0.5) / p.aperture(1.5) for p in parts]
        report.add("stamps", "flux in 0.5 / 1.5 arcsec", *light, where=name)
        spectra = [power(p)[0] for p in parts]
        report.joint("stamps", "log power spectrum", *spectra, where=name)
        stretched = [np.arcsinh(p.pixels / p.sigma) for p in parts]
        shares = (10, 50, 75, 90, 97, 99.5)
        quantiles = [np.percentile(x, shares, axis=(1, 2)).T for x in stretched]
        label = "quantiles of arcsinh(pixel / noise)"
        report.joint("stamps", label, *quantiles, where=name)
        part.suptitle(f"{name}, {len(real.pixels)} galaxies", fontsize=10)
        top, bottom = part.subfigures(2, 1, height_ratios=(1, 1.1))
        draw_gallery(top.subplots(2, 4), stretched)
        axes = bottom.subplots(1, 2)
        draw_stamps(axes, name, stretched, spectra, power(real)[1], edges)
        axes[0].legend(fontsize=7)


def draw_stamps(axes, name, stretched, spectra, frequency, edges):
    """Histograms and power spectra with their bootstrap bands."""
    middle = (edges[1:] + edges[:-1]) / 2
    random = numpy_generator(SEED, "bands", name)
    for k, (kind, colour, style) in enumerate(
        (("real", REAL, "-"), ("simulated", SIMULATED, "--"))
    ):
        rows = np.array([np.histogram(x, edges, density=True)[0] for x in stretched[k]])
        for axis, x, values in (
            (axes[0], middle, rows),
            (axes[1], frequency, spectra[k]),
        ):
            low, mid, high = band(values, random)
            axis.fill_between(x, low, high, color=colour, alpha=0.3, lw=0)
            axis.plot(x, mid, color=colour, ls=style, lw=1.2, label=kind)
    axes[0].set(xlabel="arcsinh(pixel / noise)", ylabel="density")
    axes[0].set(yscale="log", ylim=(1e-4, 1))
    axes[1].set(xlabel="frequency (1/arcsec)", ylabel="log10 power / white noise")


def draw_gallery(axes, stretched):
    """Real galaxies from bright to faint above simulated ones of equal magnitude."""
    number = axes.shape[1]
    order = np.argsort([-np.percentile(x, 99) for x in stretched[0]])
    chosen = order[np.linspace(0, len(order) - 1, number).astype(int)]
    for column, row in enumerate(chosen):
        pair = (stretched[0][row], stretched[1][8 * row])
        for axis, picture in zip(axes[:, column], pair, strict=True):
            # Few levels of grey make a small file.
            levels = np.round(2 * picture) / 2
            axis.imshow(levels, origin="lower", cmap="gray_r", vmin=-2, vmax=5)
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("real")
    axes[1, 0].set_ylabel("simulated")
