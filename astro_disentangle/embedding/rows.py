# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From the columns of a catalogue to rows of the Multimodal Universe."""

from astro_disentangle.data.arrow import value_of

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
        {key: value_of(part[row]) for key, part in parts.items()}
        for row in range(len(batch))
    ]
