# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The columns of the output, of one partition."""

__all__ = ["PREFIX", "add_columns", "join_tables", "table_of"]

#: Begins the names of our entries in properties and in the metadata of files.
PREFIX = "astro_disentangle_"


def table_of(batch, latents, columns, plan):
    """
    Latents with what the output has of the input.

    Parameters
    ----------
    batch : `pyarrow.RecordBatch`
        N rows of the input.
    latents : dict
        What `~astro_disentangle.embedding.partition.latents_of_rows` made of them.
    columns : `~astro_disentangle.embedding.source.Columns`
        What the columns of the batch are.
    plan : dict
        What is done.

    Returns
    -------
    table : `pyarrow.Table`
        N rows of the spatial index, the place, ``object_id``, what is carried,
        ``survey``, ``flags`` (int64), ``physics`` and, if it is there, ``instrument``
        (tensors of float32). It keeps nothing of the images.
    """
    import pyarrow as pa

    made = {
        columns.healpix or "_healpix_29": _spatial_index(batch, columns),
        columns.ra: batch.column(columns.ra),
        columns.dec: batch.column(columns.dec),
        "object_id": _names(batch, latents, columns, plan),
    }
    for name in columns.carried:
        made.setdefault(name, batch.column(name))
    survey = plan["survey"] or ""
    made["survey"] = pa.array([own or survey for own in latents["survey"]])
    made["flags"] = pa.array(latents["flags"])
    for name in ("physics", "instrument"):
        if name in latents:
            made[name] = _tensors(latents[name])
    return pa.table(made)


def add_columns(table, columns):
    """
    A table with what is known when all rows are.

    Parameters
    ----------
    table : `pyarrow.Table`
        N rows.
    columns : dict of str to `~numpy.ndarray`
        Shapes (N,) or (N, K).

    Returns
    -------
    table : `pyarrow.Table`
        With these columns as its last.
    """
    import pyarrow as pa

    for name, values in columns.items():
        column = pa.array(values) if values.ndim == 1 else _tensors(values)
        table = table.append_column(name, column)
    return table


def join_tables(tables, meta, plan):
    """
    The tables of a partition as one, with their provenance.

    Parameters
    ----------
    tables : list of `pyarrow.Table`
        From `table_of`.
    meta : dict
        Provenance of the latents.
    plan : dict
        What is done.

    Returns
    -------
    table : `pyarrow.Table` or None
        The provenance is in the metadata of its schema; None if there are no rows.
    """
    import pyarrow as pa

    if not tables:
        return None
    table = pa.concat_tables(tables)
    surveys = sorted(set(table.column("survey").to_pylist()) - {""})
    facts = {
        "model": meta.get("MODEL", ""),
        "version": meta.get("MODELVER", ""),
        "network": meta.get("NETWORK", ""),
        "sha256": plan["model"],
        "survey": " ".join(surveys),
    }
    if plan["donors"] is not None:
        facts["donors"] = plan["donors"]
    named = {PREFIX + name: value for name, value in facts.items()}
    return table.replace_schema_metadata(named)


def _names(batch, latents, columns, plan):
    """Names as `Disentangler.transform` gives them; to be joined by, as they are."""
    import pyarrow as pa

    if columns.object_id is None:
        return pa.array(latents["object_id"])
    own = batch.column(columns.object_id)
    if plan["extension"] is not None:
        return own
    names = zip(latents["object_id"], own.to_pylist(), strict=True)
    return pa.array([name or str(raw) for name, raw in names])


def _spatial_index(batch, columns):
    """The spatial index of order 29, (N,) int64."""
    import pyarrow as pa
    from hats.pixel_math.spatial_index import compute_spatial_index

    if columns.healpix is not None:
        return batch.column(columns.healpix)
    places = [batch.column(name).to_numpy() for name in (columns.ra, columns.dec)]
    return pa.array(compute_spatial_index(*places))


def _tensors(values):
    """Vectors (N, K) as one column of tensors, which LSDB and plain Arrow both read."""
    import pyarrow as pa

    length = values.shape[1]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), length)
    kind = pa.fixed_shape_tensor(pa.float32(), [length])
    return pa.ExtensionArray.from_storage(kind, flat)
