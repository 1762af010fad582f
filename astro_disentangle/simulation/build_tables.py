# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Build the tables of the simulator: ``tables.safetensors``.

Run once by a developer (``python -m astro_disentangle.simulation.build_tables
--data DIR``); the simulator itself needs only torch and the file. It holds

- ``sersic``: Fourier transform of a round Sersic profile of flux 1 and half-light
  radius :math:`h` on a grid of (log of the index, :math:`\ln k h`);
- ``moffat``: Fourier transform of a round Moffat profile of flux 1,

  .. math:: T(k) = \frac{2}{\Gamma(\beta - 1)} \left(\frac{k\alpha}{2}\right)^{\beta-1}
            K_{\beta-1}(k\alpha),

  on a grid of (index, :math:`\ln k w`) with :math:`w` the FWHM;
- ``galaxy_colors``: log10 of the flux density in a filter over that in HSC i, for
  Coleman, Wu & Weedman (1980) types (E, Sbc, Scd, Im) redshifted to z;
- ``star_colors``: the same for stars along HSC's stellar locus, by their g - i;
- ``wavelength``: effective wavelength of each filter, angstrom;
- ``extinction``: A / E(B-V) of each filter (Schlafly & Finkbeiner 2011, table 6,
  R_V = 3.1, interpolated in wavelength);
- ``distance_modulus``: mag, flat universe of H0 = 70 km/s/Mpc, Omega_m = 0.3;
- ``mixture_*``: a Gaussian mixture in (redshift, mass, magnitude, type, reddening),
  unbounded by `to_unbounded`, fitted to zCOSMOS galaxies; ``bulge_fraction``: the
  quantiles of the share of the bulge in COSMOS galaxies. Only the fitted numbers
  are kept.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from astro_disentangle.simulation.dust import attenuation

__all__ = ["build", "main"]

#: Filter systems that get a place in the table.
SYSTEMS = (
    "hsc2017",
    "decamDR1",
    "lsst2023",
    "sdss2010",
    "panstarrs",
    "BASS",
    "MzLS",
    "Euclid",
)
REFERENCE = "hsc2017-i2"
TYPES = ("E", "Sbc", "Scd", "Im")
SERSIC_INDEX = np.geomspace(0.5, 6.0, 56)
MOFFAT_INDEX = np.linspace(1.5, 4.5, 49)
LOG_K = np.linspace(-7.0, 6.0, 512)
REDSHIFT = np.linspace(0.0, 2.0, 101)
STAR_COLOR = np.linspace(0.2, 3.2, 31)
#: Bounds of the transformed variables: faintest i and the last SED type.
FAINTEST, LAST_TYPE = 22.85, 3.0
#: Wavelength (angstrom) and A / E(B-V) of SDSS u and DECam grizY; 2MASS J, H, K.
_LAW = (
    (3550.0, 4862.0, 6461.0, 7851.0, 9199.0, 9907.0, 12350.0, 16620.0, 21590.0),
    (4.239, 3.214, 2.165, 1.592, 1.211, 1.064, 0.709, 0.449, 0.302),
)

#: Effective wavelength (angstrom) of Suprime-Cam's filters (Capak et al. 2007).
_SUPRIME = (("g", 4777.0), ("r2", 6289.0), ("i2", 7684.0), ("z", 9037.0))
#: Rough temperature (K) of a star of g - i = 0.2 to 3.2 mag.
_HEAT = ((0.2, 0.57, 1.0, 1.5, 2.0, 3.2), (7200, 5800, 5000, 4300, 3700, 2900))


def sersic_table():
    """Transform of Sersic profiles, shape (56, 512), by GalSim."""
    import galsim

    loose = galsim.GSParams(folding_threshold=1e-4, kvalue_accuracy=1e-7)
    profiles = [
        galsim.Sersic(n, half_light_radius=1, gsparams=loose) for n in SERSIC_INDEX
    ]
    return np.array([[p.kValue(k, 0).real for k in np.exp(LOG_K)] for p in profiles])


def moffat_table():
    """Transform of Moffat profiles, shape (49, 512), closed form."""
    from scipy.special import gamma, kv

    beta = MOFFAT_INDEX[:, None]
    x = np.exp(LOG_K) / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return 2 / gamma(beta - 1) * (x / 2) ** (beta - 1) * kv(beta - 1, x)


def load_templates():
    """Wavelength (angstrom) and flux density per wavelength of each SED type."""
    import galsim

    folder = Path(galsim.meta_data.share_dir) / "SEDs"
    return [np.loadtxt(folder / f"CWW_{name}_ext.sed").T for name in TYPES]


def band_flux(curve, wavelength, flux):
    """AB flux (arbitrary unit) of flux densities per wavelength in a filter."""
    grid = np.linspace(curve.wavelength[0], curve.wavelength[-1], 3000)
    response = np.interp(grid, curve.wavelength, curve.response)
    photons = np.interp(grid, wavelength, flux) * response * grid
    return photons.sum() / (response / grid).sum()


def galaxy_colors(curves):
    """Log10 flux ratios of galaxies to the first of ``curves``, (4, Z, F)."""
    table = np.array(
        [
            [[band_flux(c, w * (1 + z), f) for c in curves] for z in REDSHIFT]
            for w, f in load_templates()
        ]
    )
    return np.log10(table / table[..., :1])


def stellar_locus(color):
    """
    HSC magnitudes g, r, i, z, y, up to a constant, of stars of one g - i.

    The straight parts of the locus are those by which the survey's own quality
    analysis measures its width; z - y follows i - z by a half.
    """
    r_i = np.maximum((0.274 * color - 0.041) / 0.803, (color - 1.165) / 1.075)
    i_z = (0.27 * r_i - 0.054) / 0.534
    return np.array([color, r_i, 0.0, -i_z, -1.5 * i_z])


def star_colors(curves):
    """
    Log10 flux ratios of stars to the first of ``curves``, (S, F).

    A black body, multiplied by a function of the wavelength that is linear between
    the filters of HSC, such that its colours there are those of the locus.
    """
    import speclite.filters

    names = [f"hsc2017-{band}" for band in ("g", "r2", "i2", "z", "y")]
    hsc = list(speclite.filters.load_filters(*names))
    node = [c.effective_wavelength.value for c in hsc]
    grid = np.linspace(3000.0, 25000.0, 8000)
    table = []
    for color in STAR_COLOR:
        locus = stellar_locus(color)
        shape = grid**-5 / np.expm1(1.4388e8 / grid / np.interp(color, *_HEAT))
        bend = np.zeros(len(node))
        for _ in range(20):
            flux = shape * 10 ** np.interp(grid, node, bend)
            found = np.array([np.log10(band_flux(c, grid, flux)) for c in hsc])
            bend += -0.4 * (locus - locus[2]) - (found - found[2])
        flux = shape * 10 ** np.interp(grid, node, bend)
        table.append([band_flux(c, grid, flux) for c in curves])
    table = np.array(table)
    return np.log10(table / table[:, :1])


def to_unbounded(redshift, log_mass, magnitude, sed_type, reddening):
    """
    Variables without bounds, in which the mixture is fitted.

    Inverse softplus of redshift and of the magnitudes left to the faintest one,
    logit of the SED type; returns an array of shape (N, 5).
    """
    share = sed_type / LAST_TYPE
    return np.stack(
        [
            np.log(np.expm1(redshift)),
            log_mass,
            np.log(np.expm1(FAINTEST - magnitude)),
            np.log(share / (1 - share)),
            reddening,
        ],
        1,
    )


def fit_types(magnitudes, redshift, log_ratio, wavelength):
    """
    SED type and reddening of each galaxy by least squares over a grid of both.

    Magnitudes (N, F) with NaN where missing, colours (4, Z, F), wavelengths (F,)
    in angstrom; returns types (N,), reddenings (N,) in mag, residuals (N, F) and
    model colours (N, F) in mag. A reddening far from 0 is paid for, as if it were
    one more band.
    """
    kinds = np.linspace(0.0, LAST_TYPE, 61)
    dust = np.linspace(-0.25, 0.5, 31)
    low = np.minimum(kinds.astype(int), len(TYPES) - 2)
    share = (kinds - low)[:, None, None]
    colors = -2.5 * (log_ratio[low] * (1 - share) + log_ratio[low + 1] * share)
    row = np.rint(redshift / REDSHIFT[1]).astype(int)
    kind, red = np.empty((2, len(row)))
    residual, model = np.empty((2, *magnitudes.shape))
    for i, (z, m) in enumerate(zip(row, magnitudes, strict=True)):
        law = attenuation(wavelength / (1 + REDSHIFT[z]))
        grid = colors[:, None, z] + dust[:, None] * law
        left = m - grid
        left -= np.nanmean(left, 2, keepdims=True)
        cost = np.nansum(left**2, 2) + (0.2 * dust) ** 2
        k, d = np.unravel_index(cost.argmin(), cost.shape)
        kind[i], red[i] = kinds[k], dust[d]
        residual[i], model[i] = left[k, d], grid[k, d]
    return kind, red, residual, model


def load_photometry(folder):
    """Redshift, log mass, F814W and B V g r i z magnitudes of zCOSMOS galaxies."""
    from astropy.table import Table

    table = Table.read(Path(folder) / "cosmos_zspec_mass_photometry.fits")
    columns = ("b", "v", "g", "r", "i", "z")
    magnitudes = np.stack([np.asarray(table[f"mag_{c}"], float) for c in columns], 1)
    magnitudes[np.abs(magnitudes) > 90] = np.nan
    z, mass, total = (
        np.asarray(table[name], float) for name in ("z_spec", "logmass", "mag_I")
    )
    good = (np.asarray(table["flag"]) == 1) & (z > 0.02) & (z < 1.98)
    good &= (np.abs(total) < 90) & (mass > 7) & (mass < 12.3)
    good &= np.isfinite(magnitudes).sum(1) >= 5
    return z[good], mass[good], total[good], magnitudes[good]


def subaru_curves():
    """
    Filter curves of the catalogue's B V g r i z.

    Bessell's for B and V; HSC's, moved to the effective wavelengths of Suprime-Cam,
    for the others.
    """
    from types import SimpleNamespace

    import speclite.filters

    curves = list(speclite.filters.load_filters("bessell-B", "bessell-V"))
    for band, wavelength in _SUPRIME:
        hsc = speclite.filters.load_filter(f"hsc2017-{band}")
        moved = hsc.wavelength + wavelength - hsc.effective_wavelength.value
        curves.append(
            SimpleNamespace(
                wavelength=moved,
                response=hsc.response,
                effective_wavelength=SimpleNamespace(value=wavelength),
            )
        )
    return curves


def fit_population(folder, components=16):
    """Weights, means and covariances of the mixture from the catalogue."""
    import speclite.filters
    from sklearn.mixture import GaussianMixture

    curves = [speclite.filters.load_filter(REFERENCE), *subaru_curves()]
    wavelength = np.array([c.effective_wavelength.value for c in curves[1:]])
    z, mass, total, magnitudes = load_photometry(folder)
    log_ratio = galaxy_colors(curves)[:, :, 1:]
    # The cameras' zero points and what the templates lack: one offset per band.
    for _ in range(3):
        kind, red, residual, model = fit_types(magnitudes, z, log_ratio, wavelength)
        offset = np.nanmedian(residual, 0)
        print("offsets taken out, mag:", offset.round(3))
        magnitudes = magnitudes - offset
    print("rms residual per band, mag:", np.nanstd(residual, 0).round(3))
    # The total magnitude is F814W; HSC i lies bluer: a quarter of i - z.
    magnitude = total + 0.25 * (model[:, 4] - model[:, 5])
    random = np.random.default_rng(0)
    kind = np.abs(kind + random.normal(0, 0.05, len(kind)))
    kind = LAST_TYPE - np.abs(LAST_TYPE - kind)
    kind = kind.clip(0.01, LAST_TYPE - 0.01)
    red = red + random.uniform(-0.0125, 0.0125, len(red))
    keep = (magnitude < FAINTEST - 0.02) & (magnitude > 16)
    values = to_unbounded(z, mass, magnitude.clip(max=FAINTEST - 0.02), kind, red)
    mixture = GaussianMixture(components, random_state=0, n_init=3)
    mixture.fit(values[keep])
    print("rows:", keep.sum(), "log likelihood:", mixture.score(values[keep]))
    return mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_)


def bulge_quantiles(folder):
    """Quantiles 0 to 1 of the bulge's share in bulge and disc fits, (65,)."""
    from astropy.table import Table

    table = Table.read(Path(folder) / "real_galaxy_23.5_500_fits.fits")
    good = (table["fit_status"] > 0).all(1) & (table["mag_auto"] < FAINTEST + 0.65)
    return np.quantile(table["fit_dvc_btt"][good], np.linspace(0, 1, 65))


def build(folder, path):
    """
    Compute all tables and write them.

    Parameters
    ----------
    folder : str or `pathlib.Path`
        Where the catalogues of zCOSMOS and of the COSMOS fits are.
    path : str or `pathlib.Path`
        The file to write.
    """
    import speclite.filters
    from astropy.cosmology import FlatLambdaCDM
    from safetensors.numpy import save_file

    loaded = [speclite.filters.load_filters(f"{s}-*") for s in SYSTEMS]
    curves = {
        name: c for group in loaded for name, c in zip(group.names, group, strict=True)
    }
    names = [REFERENCE, *(name for name in curves if name != REFERENCE)]
    curves = [curves[name] for name in names]
    wavelength = [float(c.effective_wavelength.value) for c in curves]
    cosmology = FlatLambdaCDM(70, 0.3)
    weights, means, factors = fit_population(folder)
    tensors = {
        "sersic": sersic_table(),
        "moffat": moffat_table(),
        "galaxy_colors": galaxy_colors(curves),
        "star_colors": star_colors(curves),
        "wavelength": wavelength,
        "extinction": np.interp(wavelength, *_LAW),
        "distance_modulus": cosmology.distmod(REDSHIFT.clip(0.002)).value,
        "bulge_fraction": bulge_quantiles(folder),
        "mixture_weights": weights,
        "mixture_means": means,
        "mixture_factors": factors,
    }
    tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}
    metadata = {
        "filters": json.dumps(names),
        "log_k": json.dumps([LOG_K[0], LOG_K[-1]]),
        "log_sersic_index": json.dumps(list(np.log(SERSIC_INDEX[[0, -1]]))),
        "moffat_index": json.dumps(list(MOFFAT_INDEX[[0, -1]])),
        "redshift": json.dumps(list(REDSHIFT[[0, -1]])),
        "star_color": json.dumps(list(STAR_COLOR[[0, -1]])),
        "bounds": json.dumps([FAINTEST, LAST_TYPE]),
    }
    save_file(tensors, path, metadata)


def main(arguments=None):
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the catalogue")
    parser.add_argument(
        "--output", default=Path(__file__).with_name("tables.safetensors")
    )
    options = parser.parse_args(arguments)
    build(options.data, options.output)


if __name__ == "__main__":
    main()
