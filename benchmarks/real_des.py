# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real DES galaxies through a model that has learned DES from simulated pairs.

``python benchmarks/real_des.py FOLDER WEIGHTS`` takes a folder of DES images, one FITS
file per band, with its ``catalog.ecsv``, and weights that ``add_survey("des", ...)``
made. Each catalogued source that is far enough from the edge is painted as Legacy would
have seen it. The table has its flags and, band by band, the 2 arcsec flux of the mean
view over that of the real image, minus one: both surveys have the same filters and
nearly the same seeing, so that it should be a few hundredths. A galaxy larger than the
field is to be flagged ``LARGE``.
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable, Table

from astro_disentangle import Disentangler, get_survey
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.evaluation.photometry import aperture_sums
from astro_disentangle.quality import decode_flags

EDGE = 4.2
MIDDLE = [[0.0, 0.0]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights")
    options = parser.parse_args()
    model = Disentangler.load(options.weights)
    cutout = {p.stem: CCDData.read(p) for p in sorted(options.folder.glob("*.fits"))}
    catalog = Table.read(options.folder / "catalog.ecsv")
    catalog = catalog[catalog["edge_arcsec"] > EDGE]
    legacy, rows = get_survey("legacy"), []
    for number, row in enumerate(catalog):
        position = float(row["x"]), float(row["y"])
        batch = read_cutouts(cutout, "des", position=position).batch
        pixels, good, offset = batch.stamp()
        real = np.where(good.numpy(), pixels.numpy(), np.nan)
        found = aperture_sums(real, batch.survey, offset)[0]
        samples = model.translate(
            cutout,
            survey="legacy",
            source="des",
            position=position,
            n_samples=16,
            return_samples=True,
            random_state=number,
        )
        mean = u.Quantity(samples, legacy.unit).value.mean(0) * legacy.nanojansky
        painted = aperture_sums(mean[None], legacy, MIDDLE)[0]
        line = {"mag": row["mag"], "r50": row["r50_arcsec"]}
        for place, band in enumerate(legacy.bands):
            line[band] = painted[place] / found[batch.survey.bands.index(band)] - 1
        line["flags"] = ", ".join(decode_flags(int(batch.flags[0])))
        rows.append(line)
    table = QTable(rows)
    for name in ("mag", "r50", *legacy.bands):
        table[name].info.format = ".3f"
    table.pprint_all()


if __name__ == "__main__":
    main()
