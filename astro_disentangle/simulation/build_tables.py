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
- ``star_colors``: the same for black bodies;
- ``extinction``: A / E(B-V) of each filter (Schlafly & Finkbeiner 2011, table 6,
  R_V = 3.1, interpolated in wavelength);
- ``mixture_*``: a Gaussian mixture in (redshift, mass, magnitude, type), each
  unbounded by `to_unbounded`, fitted to zCOSMOS galaxies. Only the fitted numbers
  are kept.
"""

import argparse
import json
from pathlib import Path

import numpy as np

__all__ = ["build", "main"]

#: Filter systems that get a place in the table.
SYSTEMS = ("hsc2017", "decamDR1", "lsst2023", "sdss2010", "panstarrs", "BASS", "MzLS")
REFERENCE = "hsc2017-i2"
TYPES = ("E", "Sbc", "Scd", "Im")
SERSIC_INDEX = np.geomspace(0.5, 6.0, 56)
MOFFAT_INDEX = np.linspace(1.5, 4.5, 49)
LOG_K = np.linspace(-7.0, 6.0, 512)
REDSHIFT = np.linspace(0.0, 2.0, 101)
TEMPERATURE = np.geomspace(3000.0, 10000.0, 25)
#: Bounds of the transformed variables: faintest i and the last SED type.
FAINTEST, LAST_TYPE = 22.85, 3.0
#: Wavelength (angstrom) and A / E(B-V) of SDSS u and DECam grizY.
_LAW = (
    (3550.0, 4862.0, 6461.0, 7851.0, 9199.0, 9907.0),
    (4.239, 3.214, 2.165, 1.592, 1.211, 1.064),
)


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


def color_tables(curves):
    """Log10 flux ratios to the first of ``curves``: galaxies and stars."""
    galaxies = np.array(
        [
            [[band_flux(c, w * (1 + z), f) for c in curves] for z in REDSHIFT]
            for w, f in load_templates()
        ]
    )
    grid = np.linspace(3000.0, 12000.0, 4000)
    stars = np.array(
        [
            [
                band_flux(c, grid, grid**-5 / np.expm1(1.4388e8 / grid / t))
                for c in curves
            ]
            for t in TEMPERATURE
        ]
    )
    return [np.log10(t / t[..., :1]) for t in (galaxies, stars)]


def to_unbounded(redshift, log_mass, magnitude, sed_type):
    """
    Variables without bounds, in which the mixture is fitted.

    Inverse softplus of redshift and of the magnitudes left to the faintest one,
    logit of the SED type; returns an array of shape (N, 4).
    """
    share = sed_type / LAST_TYPE
    return np.stack(
        [
            np.log(np.expm1(redshift)),
            log_mass,
            np.log(np.expm1(FAINTEST - magnitude)),
            np.log(share / (1 - share)),
        ],
        1,
    )


def fit_types(magnitudes, redshift, log_ratio):
    """
    SED type of each galaxy by least squares over a grid of types.

    Magnitudes (N, F) with NaN where missing, colours (4, Z, F); returns the type
    (N,), the residuals (N, F) in mag and the model colours (N, F) in mag.
    """
    grid = np.linspace(0.0, LAST_TYPE, 121)
    low = np.minimum(grid.astype(int), len(TYPES) - 2)
    share = (grid - low)[:, None, None]
    model = -2.5 * (log_ratio[low] * (1 - share) + log_ratio[low + 1] * share)
    row = np.rint(redshift / REDSHIFT[1]).astype(int)
    residual = magnitudes[None] - model[:, row]
    residual -= np.nanmean(residual, 2, keepdims=True)
    best = np.nansum(residual**2, 2).argmin(0)
    rows = np.arange(len(row))
    return grid[best], residual[best, rows], model[best, row]


def fit_population(folder, components=12):
    """Weights, means and covariances of the mixture from the catalogue."""
    import speclite.filters
    from astropy.table import Table
    from sklearn.mixture import GaussianMixture

    table = Table.read(Path(folder) / "cosmos_zspec_mass_photometry.fits")
    columns = ("b", "v", "g", "r", "i", "z")
    names = (
        "bessell-B",
        "bessell-V",
        *(f"hsc2017-{b}" for b in ("g", "r2", "i2", "z")),
    )
    curves = list(speclite.filters.load_filters(REFERENCE, *names))
    magnitudes = np.stack([np.asarray(table[f"mag_{c}"], float) for c in columns], 1)
    magnitudes[np.abs(magnitudes) > 90] = np.nan
    z, mass, total = (
        np.asarray(table[name], float) for name in ("z_spec", "logmass", "mag_I")
    )
    good = (np.asarray(table["flag"]) == 1) & (z > 0.02) & (z < 1.98)
    good &= (np.abs(total) < 90) & (mass > 7) & (mass < 12.3)
    good &= np.isfinite(magnitudes).sum(1) >= 5
    z, mass, total, magnitudes = z[good], mass[good], total[good], magnitudes[good]
    log_ratio = color_tables(curves)[0][:, :, 1:]
    kind, residual, model = fit_types(magnitudes, z, log_ratio)
    print("rms residual per band, mag:", np.nanstd(residual, 0).round(3))
    # The total magnitude is F814W; HSC i lies bluer: a quarter of i - z.
    magnitude = total + 0.25 * (model[:, 4] - model[:, 5])
    random = np.random.default_rng(0)
    kind = np.abs(kind + random.normal(0, 0.1, len(kind)))
    kind = LAST_TYPE - np.abs(LAST_TYPE - kind)
    kind = kind.clip(0.01, LAST_TYPE - 0.01)
    keep = (magnitude < FAINTEST - 0.02) & (magnitude > 16)
    values = to_unbounded(z[keep], mass[keep], magnitude[keep], kind[keep])
    mixture = GaussianMixture(components, random_state=0, n_init=3).fit(values)
    print("rows:", keep.sum(), "log likelihood:", mixture.score(values))
    return mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_)


def build(folder, path):
    """
    Compute all tables and write them.

    Parameters
    ----------
    folder : str or `pathlib.Path`
        Where ``cosmos_zspec_mass_photometry.fits`` is.
    path : str or `pathlib.Path`
        The file to write.
    """
    import speclite.filters
    from safetensors.numpy import save_file

    loaded = [speclite.filters.load_filters(f"{s}-*") for s in SYSTEMS]
    curves = {
        name: c for group in loaded for name, c in zip(group.names, group, strict=True)
    }
    names = [REFERENCE, *(name for name in curves if name != REFERENCE)]
    curves = [curves[name] for name in names]
    galaxies, stars = color_tables(curves)
    wavelength = [float(c.effective_wavelength.value) for c in curves]
    weights, means, factors = fit_population(folder)
    tensors = {
        "sersic": sersic_table(),
        "moffat": moffat_table(),
        "galaxy_colors": galaxies,
        "star_colors": stars,
        "extinction": np.interp(wavelength, *_LAW),
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
        "log_temperature": json.dumps(list(np.log(TEMPERATURE[[0, -1]]))),
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
