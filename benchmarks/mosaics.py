# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What tiled translation makes of whole fields: noise, seams, fluxes, large galaxies.

``python benchmarks/mosaics.py`` simulates fields that both surveys observed, translates
each to the other survey under the conditions of its own image, and compares with the
same field without noise.

- sky: mean, and standard deviation of a sample, in units of the noise; correlation of
  neighbouring pixels; the same of the target's own image; and of tiles that are painted
  with noise of their own each (control), for which the mean of overlapping tiles is
  quieter than the sky;
- seams: the same deviation where the two heaviest tiles weigh alike, over that where
  one of them is alone;
- fluxes in apertures of 2 arcsec, of sources with S/N above 20 there: sum and scatter
  (half of the central 68%) of view over truth - 1, of the mosaic, of the cut-out
  ``translate`` gives at the same place, and of photutils' PSF matching with true PSFs;
- ``--large``: galaxies of growing half-light radius in the middle of a field: whether
  they are refused, and the error that is made if they are painted nevertheless.
"""

import argparse
import contextlib
import dataclasses
import functools
import time

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from photutils.aperture import CircularAperture

from astro_disentangle import Disentangler
from astro_disentangle.data.mosaic import MosaicCutouts
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.evaluation.baselines import match_psf
from astro_disentangle.keys import torch_generator
from astro_disentangle.mosaics import translate
from astro_disentangle.simulation.field import simulate_field
from astro_disentangle.simulation.population import galaxies_of

DIRECTIONS = (("hsc", "legacy"), ("legacy", "hsc"))
SAMPLES = 8
#: Middle of the fields.
CENTRE = SkyCoord(150, 2, unit="deg")
#: Radius of the apertures, and how far they keep from the edge, arcsec.
RADIUS, EDGE = 1.0, 5.0


def conditions_of(field, name):
    """The conditions of a field in a survey, as `translate` takes them."""
    known, bands = field.conditions[name], field.mosaics[name].bands
    fwhm = known.psf_fwhm[0].tolist() * u.arcsec
    depth = known.depth[0].tolist() * u.ABmag
    return {
        "psf_fwhm": dict(zip(bands, fwhm, strict=True)),
        "depth": dict(zip(bands, depth, strict=True)),
    }


class Recorder(translate.Canvas):
    """A canvas that knows how many tiles, in effect, each of its pixels is of."""

    last = None

    def __init__(self, shape):
        super().__init__(shape)
        self._square = np.zeros(shape[2:])
        Recorder.last = self

    def add(self, tile, weight, corner):
        """Add a tile."""
        before = self._weight.copy()
        super().add(tile, weight, corner)
        self._square += (self._weight - before) ** 2

    @property
    def n_tiles(self):
        """Square of the sum of weights over the sum of squares."""
        return self._weight**2 / np.where(self._square > 0, self._square, np.inf)


class OwnNoise(translate.NoisePlane):
    """A control: tiles do not share their noise."""

    _count = 0

    def window(self, sample, corner, size):
        """The noise of a window, another one each time."""
        OwnNoise._count += 1
        generator = torch_generator(OwnNoise._count, "own", *corner, sample)
        shape = (self._bands, size, size)
        return torch.randn(shape, generator=generator, dtype=torch.float32)


@contextlib.contextmanager
def instead(**pieces):
    """Other pieces in the translation of mosaics."""
    before = {name: getattr(translate, name) for name in pieces}
    for name, piece in pieces.items():
        setattr(translate, name, piece)
    try:
        yield
    finally:
        for name, piece in before.items():
            setattr(translate, name, piece)


def correlation(noise, sky):
    """Correlation of neighbouring pixels along rows, where both are sky."""
    both = sky[:, 1:] & sky[:, :-1]
    product = (noise[..., 1:] * noise[..., :-1])[..., both]
    return product.mean() / np.square(noise[..., sky]).mean()


def noise_of(view, field, name):
    """Noise of a view's samples, (S, C, ny, nx), in sigma, and where sky is."""
    truth = field.noiseless[name]
    sigma = field.mosaics[name].uncertainty.array[:, :1, :1]
    sky = (truth < 0.2 * sigma).all(0) & ~view.mask.any(0)
    return (view.samples - truth) / sigma, sky


def sky_of(noise, sky, n_tiles=None):
    """Numbers of the sky: mean, deviation, correlation, and those of seams."""
    found = {
        "mean": noise[..., sky].mean(),
        "deviation": noise[..., sky].std(),
        "correlation": correlation(noise, sky),
    }
    if n_tiles is not None:
        alone, seam = sky & (n_tiles < 1.2), sky & (n_tiles > 1.8)
        found["at seams"] = noise[..., seam].std() / noise[..., alone].std()
        found["share of seams"] = seam.sum() / sky.sum()
    return found


def apertures(image, wcs, coord):
    """Fluxes of one band about places on the sky, NaN where pixels are missing."""
    x, y = wcs.world_to_pixel(coord)
    scale = np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600
    circles = CircularAperture(np.stack([x, y], 1), RADIUS / scale)
    return circles.do_photometry(np.asarray(image, float))[0]


def fluxes(model, field, view, source, target):
    """Ratios of fluxes to the truth of bright sources, (N, C) by method."""
    seen, truth = field.mosaics[target], field.noiseless[target]
    half = seen.shape[1] * view.survey.pixel_scale / 2 - EDGE
    table = field.sources
    centre = CENTRE
    east, north = (
        a.to_value("arcsec") for a in centre.spherical_offsets_to(table["coord"])
    )
    table = table[(np.abs(east) < half) & (np.abs(north) < half)]
    table = table[table["magnitude"] < 23 * u.ABmag]
    coord = table["coord"]
    sigma = seen.uncertainty.array[:, 0, 0]
    pixels = np.pi * (RADIUS / view.survey.pixel_scale) ** 2
    true = np.stack([apertures(band, seen.wcs, coord) for band in truth], 1)
    bright = true > 20 * sigma * np.sqrt(pixels)
    mosaic = [apertures(band, seen.wcs, coord) for band in view.data]
    cutouts = MosaicCutouts(field.mosaics[source], coord)
    singles = model.translate(
        cutouts, survey=target, n_samples=SAMPLES, **conditions_of(field, target)
    )
    single = [[np.nan] * len(truth)] * len(coord)
    middle = [
        CircularAperture([(s.shape[-1] - 1) / 2] * 2, RADIUS / view.survey.pixel_scale)
        for s in singles
    ]
    single = [
        [c.do_photometry(np.asarray(band, float))[0][0] for band in s.data]
        for c, s in zip(middle, singles, strict=True)
    ]
    own, wanted = (
        read_cutouts(MosaicCutouts(field.mosaics[name], coord)).batch
        for name in (source, target)
    )
    matched = match_psf(own, wanted, own.psf_fwhm.numpy(), wanted.psf_fwhm.numpy())
    offset = wanted.stamp()[2].numpy()
    half = (view.survey.stamp_size - 1) / 2
    psf = np.full(true.shape, np.nan)
    for row, images in enumerate(matched.numpy()):
        circle = CircularAperture(half + offset[row], RADIUS / view.survey.pixel_scale)
        psf[row] = [circle.do_photometry(band.astype(float))[0][0] for band in images]
    psf /= view.survey.nanojansky
    found = {"mosaic": np.stack(mosaic, 1), "cut-out": np.array(single), "PSF": psf}
    refused = ~np.isfinite(found["mosaic"])
    return {
        name: np.where(bright & ~refused, values / true - 1, np.nan)
        for name, values in found.items()
    }


def fields(model, options):
    """Noise, seams and fluxes of whole fields."""
    for source, target in DIRECTIONS:
        rows, ratios, seconds, tiles = {}, {}, 0.0, 0
        for number in range(options.fields):
            field = simulate_field(
                options.side * u.arcsec, random_state=options.seed + number
            )
            seen = field.mosaics[target]
            painted = functools.partial(
                model.translate_mosaic,
                field.mosaics[source],
                survey=target,
                wcs=seen.wcs,
                n_samples=SAMPLES,
                **conditions_of(field, target),
            )
            begin = time.perf_counter()
            with instead(Canvas=Recorder):
                view, _ = painted()
            seconds += time.perf_counter() - begin
            tiles += view.meta["NTILES"]
            noise, sky = noise_of(view, field, target)
            n_tiles = Recorder.last.n_tiles
            rows.setdefault("mosaic", []).append(sky_of(noise, sky, n_tiles))
            with instead(NoisePlane=OwnNoise):
                other, _ = painted()
            rows.setdefault("noise of their own", []).append(
                sky_of(noise_of(other, field, target)[0], sky, n_tiles)
            )
            sigma = seen.uncertainty.array[:, :1, :1]
            real = (seen.data - field.noiseless[target]) / sigma
            rows.setdefault("observed", []).append(sky_of(real[None], sky, n_tiles))
            for name, values in fluxes(model, field, view, source, target).items():
                ratios.setdefault(name, []).append(values)
        print(f"{source} -> {target}: {tiles} tiles, {seconds:.0f} s")
        names = list(rows["mosaic"][0])
        print(f"{'sky':20s}", *(f"{name:>15s}" for name in names))
        for kind, values in rows.items():
            means = (np.mean([row[name] for row in values]) for name in names)
            print(f"{kind:20s}", *(f"{mean:15.3f}" for mean in means))
        bands = view.bands
        print(f"{'flux: sum, scatter':20s}", *(f"{band:>15s}" for band in bands))
        ratios = {name: np.concatenate(values) for name, values in ratios.items()}
        for name, values in ratios.items():
            cells = []
            for column in values.T:
                column = column[np.isfinite(column)]
                low, middle, high = (
                    np.percentile(column, [16, 50, 84]) if len(column) else [np.nan] * 3
                )
                cells.append(f"{middle:+.3f} {(high - low) / 2:.3f} {len(column):3d}")
            print(f"{name:20s}", *(f"{cell:>15s}" for cell in cells))


def large(model, options):
    """Galaxies of growing size: refused, or painted wrongly."""
    print("half-light radius, i magnitude, refused; painted nevertheless, within it:")
    print("RMS of the error over that of the signal; flux less 1, median and range")
    for source, target in DIRECTIONS:
        for radius, magnitude in (
            (0.5, 20),
            (1, 19),
            (1.5, 18),
            (2, 17.5),
            (3, 17),
            (4.5, 16),
            (6, 15.5),
        ):
            refused, errors, light = [], [], []
            for number in range(options.fields):
                seed = options.seed + 100 + number
                one = galaxies_of(
                    torch.tensor([float(magnitude)]), torch_generator(seed, "large")
                )
                factor = radius / one.r_half
                one = dataclasses.replace(
                    one,
                    r_half=one.r_half * factor,
                    disc_radius=one.disc_radius * factor,
                    bulge_radius=one.bulge_radius * factor,
                )
                field = simulate_field(
                    48 * u.arcsec, random_state=seed, added=(one, torch.zeros(1, 2))
                )
                seen, truth = field.mosaics[target], field.noiseless[target]
                sigma = seen.uncertainty.array[:, :1, :1]
                painted = functools.partial(
                    model.translate_mosaic,
                    field.mosaics[source],
                    survey=target,
                    wcs=seen.wcs,
                    n_samples=4,
                    **conditions_of(field, target),
                )
                x, y = np.array(seen.wcs.world_to_pixel(CENTRE))
                py, px = np.indices(truth.shape[1:])
                scale = model.network_.surveys[target].pixel_scale
                inside = np.hypot(px - x, py - y) * scale < radius
                view, _ = painted()
                refused.append(view.mask[0][inside].mean() > 0.5)
                view, _ = painted(paint_large=True)
                band = view.bands.index("r")
                wrong = ((view.data - truth) / sigma)[band][inside]
                signal = (truth / sigma)[band][inside]
                errors.append(np.sqrt(np.mean(wrong**2) / np.mean(signal**2)))
                light.append(
                    view.data[band][inside].sum() / truth[band][inside].sum() - 1
                )
            print(
                f"{source} -> {target} {radius:5.1f} {magnitude:5.1f} "
                f"{sum(refused)}/{len(refused)} "
                f"{np.median(errors):8.3f} {np.median(light):+.3f} {np.ptp(light):.3f}",
                flush=True,
            )


def show(axis, title, image):
    """An image in units of its noise on an arcsinh scale; what is not known is grey."""
    axis.set_facecolor("0.6")
    axis.imshow(
        np.arcsinh(image / 2),
        origin="lower",
        vmin=-1,
        vmax=4,
        cmap="gray",
        interpolation="nearest",
    )
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("x [px]")
    axis.set_ylabel("y [px]")


def picture(model, options):
    """A field as both surveys observed it, and as each is painted from the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    field = simulate_field(options.side * u.arcsec, random_state=options.seed)
    figure, axes = plt.subplots(2, 2, figsize=(8, 8.4))
    for row, (source, target) in zip(axes, DIRECTIONS, strict=True):
        seen = field.mosaics[target]
        view, _ = model.translate_mosaic(
            field.mosaics[source],
            survey=target,
            wcs=seen.wcs,
            **conditions_of(field, target),
        )
        band = view.bands.index("r")
        sigma = seen.uncertainty.array[band, 0, 0]
        known = np.where(view.mask[band], np.nan, view.data[band])
        titles = f"{target}, r", f"{target} painted from {source}"
        for axis, title, image in zip(
            row, titles, (seen.data[band], known), strict=True
        ):
            show(axis, title, image / sigma)
    figure.tight_layout()
    figure.savefig(options.picture, dpi=64)


def main():
    """Simulate, translate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--side", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--picture", metavar="PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Disentangler.load(options.weights)
    chosen = picture if options.picture else large if options.large else fields
    chosen(model, options)


if __name__ == "__main__":
    main()
