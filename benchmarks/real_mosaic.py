# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A real mosaic as another survey, and as its own under other seeing.

``python benchmarks/real_mosaic.py FOLDER --output PICTURE.png`` reads a FITS file for
each band from a folder, translates, prints fluxes in apertures of 2 arcsec of the
brightest sources that are painted, over those in the image itself, and what is refused;
and draws image and views.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import astropy.units as u
import matplotlib as mpl
import numpy as np
import torch
from astropy.nddata import CCDData
from mosaics import show
from photutils.aperture import CircularAperture

from astro_disentangle import Disentangler, get_survey

mpl.use("Agg")
RADIUS = 1.0


def ratios(view, sources, planes, factor, limit):
    """Fluxes of a view over those of the image, of the brightest in each band."""
    painted = sources[sources["painted"]]
    place = np.stack([painted["x"], painted["y"]], 1)
    for band in sorted(set(planes) & set(view.bands)):
        seen = planes[band]
        there = np.stack(seen.wcs.world_to_pixel(painted["coord"]), 1)
        scale = seen.wcs.proj_plane_pixel_scales()[0].to_value("arcsec")
        goal = CircularAperture(there, RADIUS / scale).do_photometry(seen.data)[0]
        scale = view.survey.pixel_scale
        flux = CircularAperture(place, RADIUS / scale).do_photometry(view[band].data)[0]
        goal = goal * factor
        rows = [i for i in np.argsort(-goal) if np.isfinite(flux[i])][:limit]
        low, middle, high = np.percentile(flux[rows] / goal[rows], [16, 50, 84])
        total = flux[rows].sum() / goal[rows].sum()
        print(
            f"  {band}: {len(rows)} brightest, sum {total - 1:+.3f}, median "
            f"{middle - 1:+.3f}, half of the central 68% {(high - low) / 2:.3f}"
        )


def picture(images, path):
    """Images side by side, in units of the noise, on an arcsinh scale."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(4.2 * len(images), 4.4))
    for axis, (title, image) in zip(axes, images, strict=True):
        sigma = 1.4826 * np.nanmedian(np.abs(image - np.nanmedian(image)))
        show(axis, title, image / sigma)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    """Read, translate, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--survey", default="hsc")
    parser.add_argument("--target", default="legacy")
    parser.add_argument("--fwhm", type=float, default=1.0)
    parser.add_argument("--band", default="i")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--brightest", type=int, default=25)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    planes = {p.stem: CCDData.read(p) for p in sorted(options.folder.glob("*.fits"))}
    model = Disentangler.load()
    images = [(f"{options.survey}, {options.band}", planes[options.band].data)]
    own, other = (get_survey(name) for name in (options.survey, options.target))
    for survey, told in ((other, {}), (own, {"psf_fwhm": options.fwhm * u.arcsec})):
        begin = time.perf_counter()
        view, sources = model.translate_mosaic(
            planes,
            source=own.name,
            survey=survey.name,
            n_samples=options.samples,
            random_state=0,
            **told,
        )
        title = f"as {survey.name}" + (f', {options.fwhm}" seeing' if told else "")
        print(
            f"{title}: {view.meta['NTILES']} tiles, {len(sources)} sources, "
            f"{time.perf_counter() - begin:.0f} s; "
            f"{100 * view.mask.mean():.1f}% of the pixels masked; refused: "
            f"{dict(Counter(str(r) for r in sources['reason'] if r))}"
        )
        factor = own.nanojansky / survey.nanojansky
        ratios(view, sources, planes, factor, options.brightest)
        sample = view.samples[0][view.bands.index(options.band)]
        images.append((title, np.where(view.mask[0], np.nan, sample)))
    if options.output:
        picture(images, options.output)


if __name__ == "__main__":
    main()
