# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What HATS wants to know about all partitions, written when they are done."""

from astro_disentangle.embedding.table import PREFIX

__all__ = ["describe"]


def describe(output, source, name, broken):
    """
    Write the metadata of a catalogue of latents.

    Parameters
    ----------
    output : `~astro_disentangle.embedding.output.Output`
        The catalogue.
    source : `~astro_disentangle.embedding.source.Source`
        The input.
    name : str
        Name of the catalogue.
    broken : sequence of str
        Names of the partitions that are missing.

    Returns
    -------
    n_rows : int
        Rows of the catalogue.
    """
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io import write_parquet_metadata
    from pyarrow import parquet

    pixels = [pixel for pixel in source.pixels() if output.file(pixel).is_file()]
    if not pixels:
        return 0
    n_rows = write_parquet_metadata(output.root, create_per_partition_stats=True)
    info = PartitionInfo.from_healpix(pixels)
    info.write_to_file(output.root / "partition_info.csv")
    files = [parquet.read_metadata(output.file(pixel)) for pixel in pixels]
    facts = {
        key.decode(): value.decode()
        for key, value in files[0].metadata.items()
        if key.decode().startswith(PREFIX)
    }
    facts |= {
        PREFIX + "input": source.place or source.name,
        PREFIX + "broken": " ".join(broken),
    }
    properties = TableProperties(
        catalog_name=name,
        catalog_type="object",
        total_rows=n_rows,
        ra_column=source.columns.ra,
        dec_column=source.columns.dec,
        healpix_column=source.columns.healpix or "_healpix_29",
        healpix_order=29,
        hats_max_rows=max(file.num_rows for file in files),
        moc_sky_fraction=info.calculate_fractional_coverage(),
        hats_order=info.get_highest_order(),
        **{key: value for key, value in facts.items() if value},
        **_provenance(output),
    )
    properties.to_properties_file(output.root)
    if output.plan["extension"] is not None:
        _extend(output, source)
    return n_rows


def _provenance(output):
    from hats.catalog import TableProperties

    from astro_disentangle import __version__

    return TableProperties.new_provenance_dict(
        output.root, builder=f"astro_disentangle v{__version__}"
    )


def _extend(output, source):
    """Say that the catalogue is an extension of the input."""
    from hats.catalog import ExtensionProperties

    latents = ("survey", "flags", "physics", "instrument")
    extension = ExtensionProperties(
        name=output.plan["extension"],
        primary_catalog=source.place,
        primary_column="object_id",
        join_catalog=".",
        join_column="object_id",
        extension_columns=[*source.columns.carried, *latents],
        extension_join_style="left",
        shares_primary_coordinates=True,
        **_provenance(output),
    )
    extension.to_properties_file(output.root)
