# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Values of Arrow columns as Python and numpy have them."""

__all__ = ["value_of"]
__doctest_requires__ = {"value_of": ["pyarrow"]}


def value_of(scalar):
    """
    An Arrow scalar without Arrow.

    Parameters
    ----------
    scalar : `pyarrow.Scalar`
        A value of a column.

    Returns
    -------
    value : object
        None for a null. Structures are dicts without the fields that are null, tensors
        and lists of numbers are arrays, lists in lists too if they are equally long;
        lists of anything else are lists.

    Examples
    --------
    >>> import pyarrow
    >>> from astro_disentangle.data.arrow import value_of
    >>> value_of(pyarrow.scalar({"flux": [[1.0, 2.0]], "ivar": None}))
    {'flux': array([[1., 2.]])}
    """
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.FixedShapeTensorScalar):
        return scalar.to_numpy()
    if isinstance(scalar, pa.StructScalar):
        values = {name: value_of(part) for name, part in scalar.items()}
        return {name: value for name, value in values.items() if value is not None}
    if isinstance(getattr(scalar, "values", None), pa.Array):
        return _array(scalar.values)
    return scalar.as_py()


def _array(values):
    """A list of lists as one array if all of them are equally long."""
    from pyarrow import types
    from pyarrow.compute import list_value_length

    shape, inner = [len(values)], values
    while types.is_nested(inner.type):
        if types.is_struct(inner.type):
            return values.to_pylist()
        sizes = list_value_length(inner).unique().to_pylist()
        if len(sizes) != 1 or None in sizes:
            return values.to_pylist()
        shape.append(sizes[0])
        inner = inner.flatten()
    if not types.is_primitive(inner.type):
        return values.to_pylist()
    if types.is_boolean(inner.type):
        # A pixel that nobody calls good is not.
        inner = inner.fill_null(False)
    return inner.to_numpy(zero_copy_only=False).reshape(shape)
