# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Galaxies that were observed under the same conditions."""

import numpy as np

__all__ = ["group_by_position"]


def group_by_position(coords, radius=None):
    """
    Groups of neighbours on the sky.

    The first galaxy without a group takes all others without one that are
    within the radius; groups are never wider than two radii, however densely
    the sky is covered.

    Parameters
    ----------
    coords : sequence of `~astropy.coordinates.SkyCoord` or None
        N positions; each unknown one is a group of its own.
    radius : `~astropy.units.Quantity`, optional
        An angle; 3 arcmin by default.

    Returns
    -------
    groups : `~numpy.ndarray`
        Shape (N,), int64, from 0.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.groups import group_by_position
    >>> sky = SkyCoord([10, 10.01, 20], [0, 0, 0], unit="deg")
    >>> group_by_position(list(sky)).tolist()
    [0, 0, 1]
    """
    import astropy.units as u
    from scipy.spatial import cKDTree

    radius = 3 * u.arcmin if radius is None else u.Quantity(radius)
    if not (radius.unit.is_equivalent(u.arcmin) and radius > 0):
        raise ValueError(f"'radius' must be a positive angle; got {radius}.")
    known = [row for row, coord in enumerate(coords) if coord is not None]
    points = np.array([coords[row].icrs.cartesian.xyz.value for row in known]).reshape(
        -1, 3
    )
    chord = 2 * np.sin(radius.to_value(u.rad) / 2)
    groups = np.full(len(coords), -1, dtype=np.int64)
    tree = cKDTree(points) if known else None
    count = 0
    where = {row: place for place, row in enumerate(known)}
    for row in range(len(coords)):
        if groups[row] >= 0:
            continue
        groups[row] = count
        if row in where:
            for place in tree.query_ball_point(points[where[row]], chord):
                if groups[known[place]] < 0:
                    groups[known[place]] = count
        count += 1
    return groups
