# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real survey images through the packaged model: what comes out, and is it usable?

``python benchmarks/real_images.py DIR`` takes a folder of folders, each with one
FITS file per band, and prints one line per image and position.
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from photutils.aperture import CircularAperture, aperture_photometry

from astro_disentangle import DisentangleError, Disentangler, decode_flags

OTHER = {"hsc": "legacy", "legacy": "hsc"}


def read_folder(folder):
    """All bands of a folder."""
    return {path.stem: CCDData.read(path) for path in sorted(folder.glob("*.fits"))}


def positions(folder, shape, limit):
    """The brightest catalogued sources away from the edge, with the field's centre."""
    table = Table.read(folder / "catalog.ecsv")
    table = table[np.asarray(table["edge_arcsec"], float) > 4.5]
    table.sort("mag")
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return [centre, *zip(table["x"][:limit], table["y"][:limit], strict=True)]


def check(model, cutout, survey, position):
    """One line of the table."""
    latents = model.transform(cutout, survey=survey, position=position)
    flags = int(latents["flags"][0])
    finite = bool(np.isfinite(latents["physics"]).all())
    target = OTHER[survey]
    view = model.translate(cutout, survey=target, source=survey, position=position)
    image = view["r"]
    first = next(iter(cutout.values()))
    shift = np.nan
    if first.wcs is not None and image.wcs is not None:
        sky = first.wcs.celestial.pixel_to_world(*position)
        x, y = image.wcs.world_to_pixel(sky)
        middle = (image.shape[0] - 1) / 2
        shift = float(np.hypot(x - middle, y - middle))
    aperture = CircularAperture(((image.shape[0] - 1) / 2,) * 2, 4)
    total = aperture_photometry(image, aperture)["aperture_sum"][0]
    return (
        finite,
        str(image.unit),
        "-" if np.isnan(shift) else f"{shift:.3f}",
        "yes" if image.psf is not None else "no",
        "none" if image.mask is None else int(np.sum(image.mask)),
        f"{total:.3g}",
        ", ".join(decode_flags(flags)),
    )


def main():
    """Command line of the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=3)
    options = parser.parse_args()
    model = Disentangler.load()
    rows = []
    for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        cutout = read_folder(folder)
        survey = "hsc" if folder.name.startswith("hsc") else "legacy"
        shape = next(iter(cutout.values())).shape
        for position in positions(folder, shape, options.limit):
            place = f"{position[0]:.0f}, {position[1]:.0f}"
            try:
                row = check(model, cutout, survey, position)
            except DisentangleError as error:
                row = ("refused", "", "", "", "", "", str(error)[:100])
            rows.append((folder.name, survey, place, *row))
    names = ("folder", "as", "x, y", "finite", "unit", "shift px", "psf", "masked")
    table = Table(rows=rows, names=(*names, "flux r=4px", "flags"))
    table.pprint_all(align="<")
    for survey in (None, "sdss"):
        cutout = read_folder(options.folder / "sdss_spiral_wrong_wcs")
        try:
            model.transform(cutout, survey=survey)
        except DisentangleError as error:
            print(f"sdss_spiral_wrong_wcs, survey={survey}: refused: {error}")


if __name__ == "__main__":
    main()
