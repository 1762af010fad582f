# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real HSC galaxies as Legacy would see them, beside PSF matching, and back again.

``python benchmarks/real_views.py DIR --output OUT`` takes a folder of folders of HSC
images, one FITS file per band. Every catalogued source with enough signal is painted
by the packaged model under Legacy's conditions, and the same pixels are brought to
these conditions without a network: matched in PSF by photutils, resampled along the
WCS, times a colour term (the filters are not the same; fitted to simulated galaxies,
whose true images are known). The table has, band by band,

- 2 arcsec flux of the model's mean over that of the matched image, minus one;
- width of a Moffat fit to the model's mean over that of the matched image, minus one;
- root mean square of one model image minus the matched image within 2 arcsec, over the
  noise asked for: 1 if the two differ by noise alone.

Then the matched image, with noise added, is translated back to HSC and compared with
the real HSC image, beside a Wiener deconvolution; the last columns are root mean
squares over the noise of the real image. ``OUT`` gets ``views.ecsv`` and a picture of
every galaxy.
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable, Table

from astro_disentangle import DisentangleError, Disentangler, get_survey, simulate_pairs
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.write import to_cutout
from astro_disentangle.evaluation.baselines import match_psf
from astro_disentangle.evaluation.photometry import aperture_sums, image_fwhm

#: Seeing that is asked for, arcsec; distance and brightness of neighbours that count.
FWHM = 1.3
ISOLATED, FAINTER = 3.0, 2.0
#: Sources that are looked at: distance to the edge, arcsec, signal to noise, magnitude
#: and half-light radius, arcsec; what is brighter or larger is beyond the model.
EDGE, LEAST_SIGNAL, BRIGHTEST, LARGEST = 4.2, 30, 18.5, 2.0
MIDDLE = [[0.0, 0.0]]


def sources(folder, scale, limit):
    """The brightest sources that fit the model: x and y, mag, whether each is alone."""
    table = Table.read(folder / "catalog.ecsv")
    table.sort("mag")
    use = np.asarray(table["edge_arcsec"], float) > EDGE
    use &= np.asarray(table["snr"]) > LEAST_SIGNAL
    use &= np.asarray(table["mag"]) > BRIGHTEST
    use &= np.asarray(table["r50_arcsec"]) < LARGEST
    for row in table[use][:limit]:
        distance = np.hypot(table["x"] - row["x"], table["y"] - row["y"]) * scale
        near = (distance > 0.1) & (distance < ISOLATED)
        alone = not (near & (table["mag"] < row["mag"] + FAINTER)).any()
        yield (float(row["x"]), float(row["y"])), float(row["mag"]), alone


class ColourTerms:
    """Legacy over matched HSC flux, as a function of a colour, from simulated pairs."""

    def __init__(self, pairs):
        import dataclasses

        hsc = pairs.batch("hsc")
        legacy = pairs.batch("legacy")
        # The true images: no noise, and no pixel lost.
        size = hsc.survey.stamp_size
        corner = (hsc.pixels.shape[-1] - size) // 2
        affine = hsc.affine.clone()
        affine[:, :, 2] -= corner
        true = pairs.noiseless["hsc"]
        hsc = dataclasses.replace(hsc, pixels=true, good=true.isfinite(), affine=affine)
        widths = [pairs.truth[f"psf_fwhm_{n}"].value for n in ("hsc", "legacy")]
        offset = legacy.stamp()[2]
        matched = match_psf(hsc, legacy, *widths).numpy()
        found = aperture_sums(matched, legacy.survey, offset)
        true = aperture_sums(pairs.noiseless["legacy"].numpy(), legacy.survey, offset)
        self.bands = legacy.survey.bands
        with np.errstate(all="ignore"):
            ratio = np.log(true / found)
            colour = self._colours(np.log(found))
        self.terms = []
        for band in range(len(self.bands)):
            use = np.isfinite(ratio[:, band]) & np.isfinite(colour[:, band])
            self.terms.append(np.polyfit(colour[use, band], ratio[use, band], 2))
        self.usual = np.nanmedian(ratio, 0)

    @staticmethod
    def _colours(logs):
        """Difference of neighbouring bands, one for each band."""
        steps = np.diff(logs, axis=-1)
        return np.concatenate([steps[..., :1], steps], -1)

    def __call__(self, fluxes):
        """Factors for 2 arcsec fluxes (C,); the usual one where there is no colour."""
        with np.errstate(all="ignore"):
            colour = self._colours(np.log(fluxes))
        return np.array(
            [
                np.exp(np.polyval(term, c) if np.isfinite(c) else usual)
                for term, c, usual in zip(self.terms, colour, self.usual, strict=True)
            ]
        )


def compare(model, cutout, position, terms, seed):
    """Rows of the table of one galaxy, and its images."""
    legacy = get_survey("legacy")
    asked = {"psf_fwhm": FWHM * u.arcsec, "position": position}
    one = model.translate(
        cutout, survey="legacy", source="hsc", random_state=seed, **asked
    )
    samples = model.translate(
        cutout,
        survey="legacy",
        source="hsc",
        n_samples=16,
        return_samples=True,
        random_state=seed + 1,
        **asked,
    )
    noise = np.array([np.median(one[b].uncertainty.array) for b in legacy.bands])
    samples, noise = (
        u.Quantity(part, legacy.unit).value * legacy.nanojansky
        for part in (samples, noise)
    )
    mean = samples.mean(0)
    hsc = read_cutouts(cutout, "hsc", position=position).batch
    target = read_cutouts(one, "legacy").batch
    usual = np.array(hsc.survey.psf_fwhm)
    width = hsc.psf_fwhm[0].numpy()
    width = np.where(np.isfinite(width), width, usual)
    wide = np.full((1, len(legacy.bands)), FWHM)
    matched = match_psf(hsc, target, width[None], wide)[0].numpy()
    sums = aperture_sums(matched[None], legacy, MIDDLE)[0]
    matched = matched * terms(sums)[:, None, None]

    y, x = np.mgrid[: mean.shape[-2], : mean.shape[-1]] - (mean.shape[-1] - 1) / 2
    inner = np.hypot(x, y) * legacy.pixel_scale < 2
    residual = (samples[0] - matched) / noise[:, None, None]
    flux = aperture_sums(np.stack([mean, matched]), legacy, MIDDLE * 2)
    widths = [image_fwhm(part, legacy.pixel_scale) for part in (mean, matched)]
    there_and_back = _back(model, hsc, matched, noise, seed)
    for place, band in enumerate(legacy.bands):
        if np.isfinite(sums[place]):
            yield {
                "band": band,
                "flux": flux[0, place] / flux[1, place] - 1,
                "fwhm": widths[0][place] / widths[1][place] - 1,
                "rms": np.sqrt(np.mean(residual[place][inner] ** 2)),
                **there_and_back.get(band, {}),
                "images": (samples[0, place], mean[place], matched[place]),
                "noise": noise[place],
            }


def _back(model, hsc, matched, noise, seed):
    """Made-up Legacy image to HSC, and by deconvolution, against the real one."""
    legacy = get_survey("legacy")
    generator = np.random.default_rng(seed)
    # Beyond the edge of the HSC image there is nothing: masked.
    known = np.isfinite(matched).any((1, 2))
    noisy = matched + noise[:, None, None] * generator.normal(size=matched.shape)
    bands = [b for b, k in zip(legacy.bands, known, strict=True) if k]
    made_up = to_cutout(
        noisy[known],
        legacy,
        bands=bands,
        noise=noise[known],
        psf_fwhm=np.full(len(bands), FWHM),
    )
    asked = {}
    width, depth = hsc.psf_fwhm[0].numpy(), hsc.noise[0].numpy()
    names = hsc.survey.bands
    if np.isfinite(width).any():
        asked["psf_fwhm"] = {
            b: w * u.arcsec for b, w in zip(names, width, strict=True) if w > 0
        }
    view = model.translate(
        made_up,
        survey="hsc",
        n_samples=16,
        random_state=seed,
        return_samples=True,
        **asked,
    )
    mean = u.Quantity(view, hsc.survey.unit).value.mean(0) * hsc.survey.nanojansky
    pixels, good, offset = hsc.stamp()
    usual = np.where(np.isfinite(width), width, hsc.survey.psf_fwhm)
    read = read_cutouts(made_up, "legacy").batch
    sharp = match_psf(read, hsc, np.full((1, len(legacy.bands)), FWHM), usual[None])[
        0
    ].numpy()
    # The view has the galaxy in its middle, the stamp has it where it happens to be.
    shift = -offset[0].numpy()
    found = {}
    y, x = np.mgrid[: mean.shape[-2], : mean.shape[-1]] - (mean.shape[-1] - 1) / 2
    inner = np.hypot(x - offset[0, 0].item(), y - offset[0, 1].item())
    inner = inner * hsc.survey.pixel_scale < 2
    from scipy.ndimage import shift as moved

    for place, band in enumerate(names):
        use = inner & good[0, place].numpy()
        if not use.any() or band not in bands or not depth[place] > 0:
            continue
        real = pixels[0, place].numpy()
        ours = moved(mean[place], -shift[::-1], order=3, mode="nearest")
        found[band] = {
            name: np.sqrt(np.mean(((image - real)[use] / depth[place]) ** 2))
            for name, image in (("back", ours), ("wiener", sharp[place]))
        }
    return found


def picture(rows, path, title):
    """What the model painted, what matching made, and the difference."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(rows), 4, figsize=(8, 2.1 * len(rows)), squeeze=False, layout="constrained"
    )
    for axis, row in zip(axes, rows, strict=True):
        sample, mean, matched = row["images"]
        scale = row["noise"]
        parts = [sample, mean, matched, (sample - matched) / scale]
        for place, (a, image) in enumerate(zip(axis, parts, strict=True)):
            if place < 3:
                a.imshow(np.arcsinh(image / scale / 3), origin="lower", cmap="gray")
            else:
                a.imshow(image, origin="lower", cmap="RdBu", vmin=-4, vmax=4)
            a.set_xticks([])
            a.set_yticks([])
        axis[0].set_ylabel(row["band"])
    names = "one image", "mean", "PSF matching", "difference / noise"
    for a, name in zip(axes[0], names, strict=True):
        a.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=12, help="sources of a folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    model = Disentangler.load()
    terms = ColourTerms(simulate_pairs(512, random_state=41))
    table, scale = [], get_survey("hsc").pixel_scale
    for folder in sorted(options.folder.glob("hsc_*")):
        cutout = {p.stem: CCDData.read(p) for p in sorted(folder.glob("*.fits"))}
        for number, (position, mag, alone) in enumerate(
            sources(folder, scale, options.limit)
        ):
            name = f"{folder.name} {number}"
            try:
                rows = list(compare(model, cutout, position, terms, number))
            except DisentangleError as error:
                print(f"{name}: {error}")
                continue
            path = options.output / f"{name.replace(' ', '_')}.png"
            picture(rows, path, f"{name}, {mag:.1f} mag")
            for row in rows:
                kept = {k: v for k, v in row.items() if k not in ("images", "noise")}
                table.append({"name": name, "mag": mag, "alone": alone, **kept})
    columns = ("name", "mag", "alone", "band", "flux", "fwhm", "rms", "back", "wiener")
    table = QTable({c: [row.get(c, np.nan) for row in table] for c in columns})
    for column in columns:
        if column not in ("name", "alone", "band"):
            table[column].info.format = ".3f"
    table.write(options.output / "views.ecsv", overwrite=True)
    table.pprint_all()
    for alone in (True, False):
        part = table[table["alone"] == alone]
        middle = {c: np.nanmedian(part[c]) for c in columns[4:]} if len(part) else {}
        numbers = ", ".join(f"{c} {v:.3f}" for c, v in middle.items())
        print(f"{'isolated' if alone else 'blended'}, {len(part)} rows: {numbers}")


if __name__ == "__main__":
    main()
