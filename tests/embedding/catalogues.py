# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Catalogues with the schema of the Multimodal Universe, written by LSDB."""

import numpy as np

NAMES = {"hsc": "hsc", "legacy": "des"}


def image_type():
    """The type of an image in Arrow."""
    import pyarrow as pa

    plane = pa.list_(pa.list_(pa.list_(pa.float32())))
    return pa.struct(
        [
            ("band", pa.list_(pa.string())),
            ("flux", plane),
            ("ivar", plane),
            ("mask", pa.list_(pa.list_(pa.list_(pa.bool_())))),
            ("psf_fwhm", pa.list_(pa.float32())),
            ("scale", pa.list_(pa.float32())),
        ]
    )


def image_of(cutout, widths):
    """The image of a row: mask True is good, the galaxy one pixel off the middle."""
    bands = dict(cutout.items())
    around = ((1, 3), (1, 3))
    sigma = [np.pad(b.uncertainty.array, around, mode="edge") for b in bands.values()]
    return {
        "band": [f"{NAMES[cutout.survey.name]}-{name}" for name in bands],
        "flux": [np.pad(band.data, around).tolist() for band in bands.values()],
        "ivar": [(values**-2.0).tolist() for values in sigma],
        "mask": [np.pad(~band.mask, around).tolist() for band in bands.values()],
        "psf_fwhm": [widths[cutout.survey.bands.index(name)] for name in bands],
        "scale": [cutout.survey.pixel_scale] * len(bands),
    }


def rows_of_pairs(pairs, survey, seed=0):
    """Rows, some with a FWHM of 0, with places on the sky and identifiers of bytes."""
    cutouts, widths = pairs.cutouts(survey), pairs.batch(survey).psf_fwhm.numpy().copy()
    widths[::5, 0] = 0.0
    generator = np.random.default_rng(seed)
    ra, dec = (
        generator.uniform(0, 40, len(pairs)),
        generator.uniform(-20, 20, len(pairs)),
    )
    return [
        {
            "ra": ra[row],
            "dec": dec[row],
            "object_id": f"b'{pairs.object_id[row]}'",
            "magnitude": float(pairs.truth["magnitude"][row].value),
            "unused": "x" * 10,
            "image": image_of(cutouts[row], widths[row]),
        }
        for row in range(len(pairs))
    ]


def write_catalog(rows, path, partition_rows=6):
    """A HATS catalogue of rows, with a nested column of images."""
    import lsdb
    import nested_pandas as npd
    import pandas as pd
    import pyarrow as pa

    names = [name for name in rows[0] if name.endswith("image")]
    plain = [{k: v for k, v in row.items() if k not in names} for row in rows]
    frame = npd.NestedFrame(pd.DataFrame(plain))
    for name in names:
        images = pa.array([row[name] for row in rows], type=image_type())
        frame[name] = pd.Series(images, dtype=npd.NestedDtype(images.type))
    catalog = lsdb.from_dataframe(
        frame,
        catalog_name=path.name,
        partition_rows=partition_rows,
        lowest_order=0,
        margin_threshold=None,
    )
    catalog.write_catalog(path, progress_bar=False)
    return path


def files_of(path):
    """The Parquet files of the partitions of a catalogue, by name."""
    found = sorted(path.rglob("Npix=*.parquet"))
    return {f"{file.parts[-3]}/{file.stem}": file for file in found}


def change_image(file, row, change):
    """Change the image of a row of a partition, whatever NestedFrame says of it."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(file)
    images = table.column("image").to_pylist()
    images[row] = change(images[row])
    place = table.schema.get_field_index("image")
    kind = table.schema.field("image").type
    table = table.set_column(place, "image", pa.array(images, type=kind))
    parquet.write_table(table, file)
