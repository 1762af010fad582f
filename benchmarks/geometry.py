# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Resampling of real images: against reproject, and in awkward orientations.

``python benchmarks/geometry.py DIR --output geometry.png`` takes a folder of folders,
each with one FITS file per band. It prints how far the package's resampling is from
reproject's cubic spline, how long both take, and draws a real galaxy in turned,
mirrored and distorted images as it is given and as the encoders see it.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS, Sip
from reproject import reproject_interp

from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.resample import resample
from astro_disentangle.data.wcs import directions

SIZE, SCALE = 48, 0.168
IMAGES = {
    "hsc_field": "r",
    "hsc_field_with_variance": "r",
    "legacy_decals_galaxy": "r",
    "legacy_bass_field": "g",
    "des_spiral": "i",
}
ANGLES = (0, 33, -70)


def turn(angle):
    """A rotation from x towards y."""
    a = np.deg2rad(angle)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def grid(ra, dec, angle=0, parity=1, *, size=SIZE, scale=SCALE, sip=0.0):
    """A WCS that is centred on a position, turned, mirrored and distorted."""
    wcs = WCS(naxis=2)
    suffix = "-SIP" if sip else ""
    wcs.wcs.ctype = [f"RA---TAN{suffix}", f"DEC--TAN{suffix}"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    wcs.wcs.cd = np.diag([-1, 1]) @ turn(angle) @ np.diag([parity, 1]) * scale / 3600
    wcs.pixel_shape = (size, size)
    if sip:
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2], b[1, 1] = sip, -sip / 2, -sip, sip / 3
        # The galaxy is far from the middle of the distortion.
        wcs.sip = Sip(a, b, None, None, [(size + 1) / 2 + 120, (size + 1) / 2 - 90])
        shift = wcs.wcs_world2pix([[ra, dec]], 1) - wcs.all_world2pix([[ra, dec]], 1)
        wcs.wcs.crpix = wcs.wcs.crpix + shift[0]
    return wcs


def areas(wcs, scale):
    """Area of every pixel of a WCS in square arcsec, (ny, nx)."""
    nx, ny = wcs.pixel_shape
    y, x = np.indices((ny, nx)).astype(float)
    u, v = (
        np.array(wcs.wcs_world2pix(*wcs.all_pix2world(x + dx, y + dy, 0), 0))
        - np.array(wcs.wcs_world2pix(*wcs.all_pix2world(x - dx, y - dy, 0), 0))
        for dx, dy in ((0.5, 0), (0, 0.5))
    )
    return scale**2 * np.abs(u[0] * v[1] - u[1] * v[0])


def brightest(image):
    """Pixel of the brightest source away from the edges."""
    inner = image[60:-60, 60:-60]
    row, column = np.unravel_index(inner.argmax(), inner.shape)
    return column + 60.0, row + 60.0


def against_reproject(folder, name, band, angle):
    """Largest difference over the peak, and milliseconds of both."""
    data = CCDData.read(folder / name / f"{band}.fits")
    image, wcs = np.nan_to_num(np.asarray(data.data, float)), data.wcs.celestial
    x, y = brightest(image)
    (ra, dec), matrix = directions(wcs, x, y)
    matrix = matrix @ turn(angle)
    part = image[int(y) - 50 : int(y) + 50, int(x) - 50 : int(x) + 50]
    centre = [x - int(x) + 50, y - int(y) + 50]
    affine = torch.tensor(np.column_stack([matrix, centre]))[None]
    pixels = torch.tensor(part)[None, None]
    good = torch.ones_like(pixels, dtype=torch.bool)
    start = time.perf_counter()
    out, _ = resample(pixels, good, affine, size=SIZE, scale=SCALE)
    ours = time.perf_counter() - start
    target = grid(ra, dec, angle)
    start = time.perf_counter()
    cut = wcs[int(y) - 50 : int(y) + 50, int(x) - 50 : int(x) + 50]
    peer, _ = reproject_interp(
        (part, cut), target, shape_out=(SIZE, SIZE), order="bicubic"
    )
    theirs = time.perf_counter() - start
    peer = peer * SCALE**2 * abs(np.linalg.det(matrix))
    apart = np.abs(out[0, 0].numpy() - peer).max() / peer.max()
    return apart, 1e3 * ours, 1e3 * theirs


ORIENTATIONS = {
    "as it is": None,
    "turned by 33 degrees": {"angle": 33},
    "mirrored": {"parity": -1},
    "mirrored, turned, distorted": {"angle": -140, "parity": -1, "sip": 4e-5},
}


def draw(folder, path):
    """A real galaxy in images of any orientation, and as the encoders see it."""
    from matplotlib.figure import Figure

    data = CCDData.read(folder / "legacy_decals_galaxy" / "r.fits")
    image, wcs = np.asarray(data.data, float), data.wcs.celestial
    sky = wcs.pixel_to_world(*brightest(image))
    figure = Figure(figsize=(8, 2.75 * len(ORIENTATIONS)), layout="constrained")
    axes = figure.subplots(len(ORIENTATIONS), 3)
    reference = None
    rows = []
    for row, (name, options) in zip(axes, ORIENTATIONS.items(), strict=True):
        if options is None:
            given, where = image, wcs
        else:
            where = grid(sky.ra.deg, sky.dec.deg, size=121, scale=0.262, **options)
            given, _ = reproject_interp(
                (image, wcs), where, shape_out=(121, 121), order="bicubic"
            )
            # A distorted image has pixels of unlike areas, and so of unlike fluxes.
            given = given * areas(where, 0.262) / 0.262**2
        cutout = CCDData(given, unit="nmgy", wcs=where)
        read = read_cutouts({"r": cutout}, survey="legacy", position=sky)
        pixels, good = read.batch.view()
        seen = np.where(good[0, 1], pixels[0, 1], np.nan)
        reference = seen if reference is None else reference
        peak = np.nanmax(reference)
        x, y = (round(float(v)) for v in where.world_to_pixel(sky))
        window = given[y - 20 : y + 21, x - 20 : x + 21]
        apart = (seen - reference) / peak
        rows.append((name, np.nanmax(np.abs(apart[8:-8, 8:-8]))))
        pictures = (window, seen, apart)
        for axis, picture, title in zip(
            row, pictures, (name, "common grid", "difference"), strict=True
        ):
            last = title == "difference"
            shown = picture if last else np.arcsinh(10 * picture / np.nanmax(picture))
            limits = {"vmin": -0.01, "vmax": 0.01} if last else {}
            drawn = axis.imshow(
                shown, origin="lower", cmap="RdBu" if last else "gray_r", **limits
            )
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("x (px)", fontsize=7)
            axis.set_ylabel("y (px)", fontsize=7)
            axis.tick_params(labelsize=6)
            if last:
                bar = figure.colorbar(drawn, ax=axis)
                bar.set_label("difference / peak", fontsize=7)
                bar.ax.tick_params(labelsize=6)
    figure.savefig(path, dpi=80)
    return rows


def main():
    """Command line of the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("geometry.png"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name, band in IMAGES.items():
        for angle in ANGLES:
            apart, ours, theirs = against_reproject(options.folder, name, band, angle)
            rows.append((name, angle, f"{apart:.1e}", f"{ours:.1f}", f"{theirs:.1f}"))
    names = ("image", "angle (deg)", "difference / peak", "ms", "ms of reproject")
    Table(rows=rows, names=names).pprint(max_lines=-1, max_width=-1, align="<")
    print(
        "\nlargest difference of the picture from that of the first row, over the peak"
    )
    for name, apart in draw(options.folder, options.output):
        print(f"{name:<30}{apart:.1e}")
    print(options.output)


if __name__ == "__main__":
    main()
