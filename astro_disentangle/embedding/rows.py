# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From the columns of a catalogue to rows of the Multimodal Universe."""

__all__ = ["rows_of_batch"]
__doctest_requires__ = {"rows_of_batch": ["pyarrow"]}


def rows_of_batch(batch, columns):
    """
    Rows as `Disentangler.transform` takes them.

    Parameters
    ----------
    batch : `pyarrow.RecordBatch`
        Rows of a catalogue.
    columns : `~astro_disentangle.embedding.source.Columns`
        What its columns are.

    Returns
    -------
    rows : list of dict
        One mapping for each row, with the image, ``ra``, ``dec`` and ``object_id``.

    Examples
    --------
    >>> import pyarrow
    >>> from astro_disentangle.embedding.rows import rows_of_batch
    >>> from astro_disentangle.embedding.source import Columns
    >>> columns = Columns("image", ("band", "flux"), "ra", "dec", None, None, ())
    >>> image = {"band": ["des-g"], "flux": [[[1.0, 2.0]]]}
    >>> table = {"image": [image], "ra": [1.0], "dec": [2.0]}
    >>> batch = pyarrow.RecordBatch.from_pydict(table)
    >>> rows_of_batch(batch, columns)[0]["image"]["flux"].shape
    (1, 1, 2)
    """
    names = {"ra": columns.ra, "dec": columns.dec, "object_id": columns.object_id}
    if columns.image is None:
        names |= {field: field for field in columns.fields}
    else:
        names[columns.image] = columns.image
    parts = {key: batch.column(name) for key, name in names.items() if name is not None}
    return [
        {key: _value(part[row]) for key, part in parts.items()}
        for row in range(len(batch))
    ]


def _value(scalar):
    """An Arrow scalar as Python or numpy has it; lists of numbers are arrays."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.FixedShapeTensorScalar):
        return scalar.to_numpy()
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(scalar[name]) for name in scalar.keys()}  # noqa: SIM118
    if isinstance(getattr(scalar, "values", None), pa.Array):
        return _values(scalar.values)
    return scalar.as_py()


def _values(array):
    """A list of lists as one array if all of them are equally long."""
    import pyarrow as pa
    from pyarrow.compute import list_value_length

    shape, inner = [len(array)], array
    while pa.types.is_nested(inner.type):
        if pa.types.is_struct(inner.type):
            return array.to_pylist()
        sizes = list_value_length(inner).unique().to_pylist()
        if len(sizes) != 1 or None in sizes:
            return array.to_pylist()
        shape.append(sizes[0])
        inner = inner.flatten()
    if not pa.types.is_primitive(inner.type):
        return array.to_pylist()
    if pa.types.is_boolean(inner.type):
        # A pixel that nobody calls good is not.
        inner = inner.fill_null(False)
    return inner.to_numpy(zero_copy_only=False).reshape(shape)
