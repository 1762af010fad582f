# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One band of a cut-out, whatever form it came in."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Plane"]


@dataclass(frozen=True)
class Plane:
    """
    One band of a cut-out as it was given.

    Parameters
    ----------
    band : str
        Name of the band.
    data : `~numpy.ndarray`
        Shape (ny, nx), a real number type.
    mask : `~numpy.ndarray` or None
        Shape (ny, nx), not zero where a pixel is bad.
    unit : `~astropy.units.Unit` or None
        Unit of ``data``.
    uncertainty : tuple or None
        Type ("std", "var", "ivar"), array (ny, nx) and unit.
    wcs : WCS or None
        2-D.
    psf : `~numpy.ndarray` or None
        Shape (h, w).
    meta : mapping
        Header.
    """

    band: str
    data: np.ndarray
    mask: np.ndarray | None
    unit: object
    uncertainty: tuple | None
    wcs: object
    psf: np.ndarray | None
    meta: Mapping
