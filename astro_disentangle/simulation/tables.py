# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""The simulator's tables, and linear interpolation in them.

A radial transform is tabulated at steps of :math:`\ln k`; the first column is 1
(the flux) and stands for everything below it. Interpolation first mixes two rows
(one per object), then gathers two columns (one per pixel).
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from astro_disentangle.quality import SurveyMismatchError

__all__ = ["Tables", "filter_columns", "load_tables", "mix_rows", "radial"]


@dataclass(frozen=True, eq=False)
class Tables:
    """
    Tables on one device; see `~astro_disentangle.simulation.build_tables`.

    Parameters
    ----------
    tensors : dict of str to `torch.Tensor`
        The tables by name, float32.
    filters : tuple of str
        Name of each filter column.
    axes : dict of str to tuple of float
        First and last value of each axis.
    """

    tensors: dict
    filters: tuple
    axes: dict

    def __getitem__(self, name):
        return self.tensors[name]


@functools.lru_cache(maxsize=8)
def load_tables(device="cpu"):
    """
    The tables of the package.

    Parameters
    ----------
    device : str
        Where the tensors live.

    Returns
    -------
    tables : `Tables`
        The tables; not to be changed.

    Examples
    --------
    >>> from astro_disentangle.simulation.tables import load_tables
    >>> load_tables().filters[0]
    'hsc2017-i2'
    """
    from safetensors import safe_open

    path = Path(__file__).with_name("tables.safetensors")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = {name: json.loads(t) for name, t in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in ("sersic", "moffat"):
        tensors[name][:, 0] = 1.0
    filters = tuple(metadata.pop("filters"))
    return Tables(tensors, filters, {k: tuple(v) for k, v in metadata.items()})


def filter_columns(survey):
    """
    Columns of the colour tables that hold the filters of a survey.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    columns : list of int
        One per band.

    Raises
    ------
    SurveyMismatchError
        If the tables lack a filter.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.simulation.tables import filter_columns
    >>> filter_columns(get_survey("hsc"))[2]
    0
    """
    names = load_tables().filters
    missing = sorted(set(survey.filters) - set(names))
    if missing:
        raise SurveyMismatchError(
            f"the simulator has no curve for {missing} of survey {survey.name!r}; "
            f"'filters' must be among {sorted(names)}."
        )
    return [names.index(name) for name in survey.filters]


def mix_rows(table, axis, value):
    """
    Rows of a table at any value of its first axis, by linear interpolation.

    Parameters
    ----------
    table : `torch.Tensor`
        Shape (R, ...).
    axis : tuple of float
        Value of the first and last row; rows are evenly spaced.
    value : `torch.Tensor`
        Shape (...), clamped to the axis.

    Returns
    -------
    rows : `torch.Tensor`
        Shape ``value.shape + table.shape[1:]``.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.simulation.tables import mix_rows
    >>> mix_rows(torch.tensor([0.0, 1.0]), (0, 10), torch.tensor([2.5])).tolist()
    [0.25]
    """
    first, last = axis
    position = (value - first) * ((len(table) - 1) / (last - first))
    position = position.clamp(0, len(table) - 1)
    low = position.floor().clamp(max=len(table) - 2)
    share = (position - low).reshape(value.shape + (1,) * (table.ndim - 1))
    return torch.lerp(table[low.long()], table[low.long() + 1], share)


def radial(rows, axis, square):
    r"""
    Radial transforms at squared wave numbers.

    Parameters
    ----------
    rows : `torch.Tensor`
        Shape (S, L), one tabulated transform per object.
    axis : tuple of float
        First and last :math:`\\ln k` of the table.
    square : `torch.Tensor`
        Shape (S, K), squared wave number in units of the inverse scale of the
        table; at most 0 where beyond its lower end.

    Returns
    -------
    values : `torch.Tensor`
        Shape (S, K).

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.simulation.tables import radial
    >>> radial(torch.tensor([[1.0, 0.0]]), (0.0, 1.0), torch.ones(1, 1)).item()
    1.0
    """
    first, last = axis
    length = rows.shape[-1]
    step = (length - 1) / (last - first)
    position = square.log().mul_(step / 2).sub_(first * step)
    position.clamp_(0, length - 1.001)
    low = position.long()
    share = position.sub_(low)
    slope = torch.diff(rows, dim=-1)
    return slope.gather(-1, low).mul_(share).add_(rows.gather(-1, low))
