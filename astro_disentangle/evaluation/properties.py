# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Physical properties from latents: what a head was fitted to, and its results.

`Properties` are names and units beside a `~astro_disentangle.model.heads.Head`, so that
numbers of tables go in and Quantities come out.
"""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from astro_disentangle.model.heads import Head, fit_head
from astro_disentangle.quality import CutoutError

__all__ = ["SIMULATED", "Properties", "fit_properties"]

#: What the packaged heads say that they were fitted to.
SIMULATED = "simulated galaxies"
_TAKEN = ("object_id", "survey", "coord", "flags")


@dataclass(frozen=True, eq=False)
class Properties:
    """
    What is read from a kind of latent.

    Parameters
    ----------
    names : tuple of str
        K names.
    units : tuple of str
        Their units, as `astropy.units` writes them; ``""`` for plain numbers.
    source : str
        What the head was fitted to.
    head : `torch.nn.Module`
        The head.
    """

    names: tuple
    units: tuple
    source: str
    head: object

    def read(self, latents):
        """
        Properties of latents.

        Parameters
        ----------
        latents : array_like
            Shape (N, P).

        Returns
        -------
        table : `~astropy.table.QTable`
            A column for each property and, as ``NAME_err``, its standard deviation;
            NaN for latents that are.
        """
        with torch.inference_mode():
            z = torch.as_tensor(np.array(latents, dtype=np.float32))
            mean, sigma = (part.numpy() for part in self.head(z))
        table = QTable()
        for index, (name, text) in enumerate(zip(self.names, self.units, strict=True)):
            unit = u.Unit(text)
            table[name] = u.Quantity(mean[:, index], unit, subok=True)
            table[f"{name}_err"] = u.Quantity(sigma[:, index], _of_error(unit))
        return table

    def describe(self):
        """All but the numbers of the head, for JSON (dict)."""
        shape = self.head.layers[0].weight.shape
        return {
            "names": list(self.names),
            "units": list(self.units),
            "source": self.source,
            "size": shape[1],
            "hidden": shape[0],
        }

    @classmethod
    def from_description(cls, description, state):
        """From what `describe` gave and the state of the head."""
        names = tuple(description["names"])
        head = Head.empty(description["size"], len(names), description["hidden"])
        head.load_state_dict(state)
        units = tuple(description["units"])
        return cls(names, units, str(description["source"]), head.eval())


def _of_error(unit):
    """Unit of a difference of two values: dex and magnitudes lose their zero point."""
    return getattr(unit, "function_unit", unit)


def fit_properties(latents, table, group, *, source, seed):
    """
    Fit a head to columns of a table.

    Parameters
    ----------
    latents : array_like
        Shape (N, P); rows that are not finite are left out.
    table : `~astropy.table.Table` or mapping of str to array
        N rows of numbers or Quantities; what is masked or not finite is unknown.
    group : array_like
        Shape (N,), int: rows of one galaxy have one number.
    source : str
        What the table is.
    seed : int
        Key of the random numbers.

    Returns
    -------
    properties : `Properties`
        For latents of this kind.

    Raises
    ------
    CutoutError
        If lengths differ, or a column does not hold numbers.
    ValueError
        If fewer than 20 rows have a value of each property.
    """
    latents = np.asarray(latents, dtype=np.float32)
    names = list(getattr(table, "colnames", table))
    odd = [
        n for n in names if n in _TAKEN or n.removesuffix("_err") in set(names) - {n}
    ]
    if odd:
        raise CutoutError(
            f"a property cannot be called {odd[0]!r}: predict() has that column for "
            "something else. Rename it or leave it out."
        )
    columns, units = [], []
    for name in names:
        column = table[name]
        unit = getattr(column, "unit", None)
        values = getattr(column, "value", column)
        try:
            values = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
        except (TypeError, ValueError) as error:
            raise CutoutError(
                f"the property {name!r} must be a column of numbers: {error}"
            ) from error
        if values.shape != (len(latents),):
            raise CutoutError(
                f"the property {name!r} must have a value for each of the "
                f"{len(latents)} galaxies; got the shape {values.shape}."
            )
        columns.append(values)
        units.append("" if unit is None else unit.to_string())
    if not columns:
        raise CutoutError("'table' must have at least one column; got none.")
    good = np.isfinite(latents).all(1)
    head = fit_head(
        torch.from_numpy(latents[good]),
        torch.from_numpy(np.stack(columns, 1)[good]),
        torch.as_tensor(np.asarray(group, dtype=np.int64)[good]),
        seed=seed,
    )
    return Properties(tuple(names), tuple(units), source, head)
