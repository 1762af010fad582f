# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Catalogues of latents, written as `embed_catalog` writes them."""

from types import SimpleNamespace

import numpy as np

from astro_disentangle import FLAGS

#: Every so many rows one cannot be used.
BAD = 97


def write_latents(path, latents, meta, *, seed=0, partitions=(0, 1, 2)):
    """A catalogue of latents in some pixels of order 0."""
    import pyarrow as pa
    from hats import HealpixPixel
    from hats.pixel_math.spatial_index import compute_spatial_index

    from astro_disentangle.embedding.metadata import describe
    from astro_disentangle.embedding.output import Output
    from astro_disentangle.embedding.source import Columns
    from astro_disentangle.embedding.table import join_tables, table_of

    generator = np.random.default_rng(seed)
    ra = generator.uniform(5, 85, 4 * len(latents))
    dec = generator.uniform(10, 40, 4 * len(latents))
    ra += 90 * generator.integers(len(partitions), size=len(ra))
    own = compute_spatial_index(ra, dec) >> 58
    inside = np.isin(own, partitions).nonzero()[0][: len(latents)]
    ra, dec, own = ra[inside], dec[inside], own[inside]
    columns = Columns(None, (), "ra", "dec", "object_id", None, ())
    plan = {"survey": "hsc", "model": "x", "extension": None, "donors": None}
    output = Output(str(path), plan)
    output.begin()
    pixels = [HealpixPixel(0, number) for number in partitions]
    for pixel in pixels:
        here = np.flatnonzero(own == pixel.pixel)
        part = {
            "object_id": [f"galaxy-{row}" for row in here],
            "survey": ["hsc"] * len(here),
            "flags": np.where(here % BAD == 0, FLAGS.UNUSABLE, 0),
            "physics": latents[here],
            "instrument": np.zeros((len(here), 1), np.float32),
        }
        place = {"ra": ra[here], "dec": dec[here], "object_id": part["object_id"]}
        batch = pa.RecordBatch.from_pydict(place)
        table = table_of(batch, part, columns, plan)
        output.write(pixel, join_tables([table], meta, plan))
    source = SimpleNamespace(
        pixels=lambda: pixels, columns=columns, place="", name="galaxies"
    )
    describe(output, source, "galaxies_latents", [])
    return path
