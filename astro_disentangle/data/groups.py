# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Galaxies that were observed under the same conditions: neighbours on the sky.

Places are right ascension and declination, ICRS, in degrees, and NaN where unknown, one
array for all galaxies. Distances are those of unit vectors, so neither the meridian of
0 deg nor the poles are special.
"""

import numpy as np

from astro_disentangle.quality import CutoutError, check_count

__all__ = [
    "group_by_position",
    "places_of",
    "sky_chord",
    "sky_neighbours",
    "sky_points",
]

#: Rows that are closer are of one galaxy, arcsec.
_SAME = 1.0
#: Rows at a time.
_CHUNK = 4096


def places_of(coords):
    """
    Places on the sky as one array.

    Parameters
    ----------
    coords : `~astropy.coordinates.SkyCoord`, array_like or sequence
        N positions: a SkyCoord of shape (N,), right ascension and declination of shape
        (N, 2), ICRS, degrees, or a sequence of SkyCoord and None.

    Returns
    -------
    places : `~numpy.ndarray`
        Shape (N, 2), float64, right ascension and declination, ICRS, degrees; NaN where
        a position is unknown.

    Raises
    ------
    CutoutError
        If they are nothing of that, or a declination is beyond a pole.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.groups import places_of
    >>> places_of([SkyCoord(10, 20, unit="deg"), None])
    array([[10., 20.],
           [nan, nan]])
    """
    if hasattr(coords, "icrs"):
        places = _degrees(coords).reshape(-1, 2)
    elif isinstance(coords, np.ndarray) and coords.dtype.kind in "fiu":
        places = np.array(coords, dtype=float)
    else:
        try:
            coords = list(coords)
            places = np.full((len(coords), 2), np.nan)
            known = [row for row, coord in enumerate(coords) if coord is not None]
            if known:
                places[known] = [_degrees(coords[row]) for row in known]
        except (AttributeError, TypeError, ValueError) as error:
            raise CutoutError(
                f"'coords' must be positions on the sky or None: {error}"
            ) from error
    if places.ndim != 2 or places.shape[1] != 2:
        raise CutoutError(
            "'coords' must be a SkyCoord, or right ascensions and declinations of the "
            f"shape (N, 2), degrees; got the shape {places.shape}."
        )
    if (beyond := np.abs(places[:, 1]) > 90).any():
        raise CutoutError(
            "'coords' must have declinations between -90 and 90 deg; got "
            f"{places[beyond, 1][0]}."
        )
    places[~np.isfinite(places).all(1)] = np.nan
    return places


def _degrees(coord):
    """Right ascension and declination, (..., 2)."""
    import astropy.units as u

    frame = coord.frame
    # Of many single ones this way is ten times as fast, for what is ICRS already.
    known = frame.name == "icrs" and hasattr(frame.data, "lon")
    sky = frame.data if known else coord.icrs.spherical
    return np.stack([sky.lon.to_value(u.deg), sky.lat.to_value(u.deg)], -1)


def sky_points(places):
    """
    Places as unit vectors.

    Parameters
    ----------
    places : `~numpy.ndarray`
        Shape (N, 2), degrees, finite.

    Returns
    -------
    points : `~numpy.ndarray`
        Shape (N, 3), float64.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.groups import sky_points
    >>> sky_points(np.array([[90.0, 0.0]])).round(9)
    array([[0., 1., 0.]])
    """
    ra, dec = np.radians(places).T
    x, y, z = np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)
    return np.stack([x, y, z], 1)


def sky_chord(name, angle):
    """
    The distance of two unit vectors at an angle.

    Parameters
    ----------
    name : str
        Name of the argument.
    angle : `~astropy.units.Quantity` or None
        The angle; 3 arcmin by default.

    Returns
    -------
    chord : float
        The distance.

    Raises
    ------
    ValueError
        If it is not a positive angle of at most 180 deg.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.data.groups import sky_chord
    >>> round(sky_chord("radius", 60 * u.deg), 9)
    1.0
    """
    import astropy.units as u

    angle = 3 * u.arcmin if angle is None else u.Quantity(angle)
    known = angle.isscalar and angle.unit.is_equivalent(u.arcmin)
    if not (known and 0 < angle <= 180 * u.deg):
        raise ValueError(f"{name!r} must be a positive angle; got {angle}.")
    return float(2 * np.sin(angle.to_value(u.rad) / 2))


def sky_neighbours(coords, n=8, radius=None):
    """
    The nearest other galaxies on the sky.

    Rows that are closer than 1 arcsec are of the same galaxy, and no neighbours of each
    other.

    Parameters
    ----------
    coords : `~astropy.coordinates.SkyCoord`, array_like or sequence
        N positions, as for `places_of`. Those of one survey: galaxies of two surveys
        never share their conditions.
    n : int
        At most so many neighbours of each.
    radius : `~astropy.units.Quantity`, optional
        Within which they are, 3 arcmin by default.

    Returns
    -------
    neighbours : `~numpy.ndarray`
        Shape (N, n), int64, rows of the neighbours, the nearest first; -1 where there
        are fewer. A row without a position has none, and is none.

    Raises
    ------
    CutoutError
        If ``coords`` are no positions.
    ValueError
        If ``n`` is not a positive integer or ``radius`` not a positive angle.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.groups import sky_neighbours
    >>> sky = SkyCoord([359.99, 0, 0.02, 20], [0, 0, 0, 0], unit="deg")
    >>> sky_neighbours(sky, n=2).tolist()
    [[1, 2], [0, 2], [1, 0], [-1, -1]]
    """
    from scipy.spatial import cKDTree

    n, chord = check_count("n", n), sky_chord("radius", radius)
    places = places_of(coords)
    neighbours = np.full((len(places), n), -1, dtype=np.int64)
    known = np.flatnonzero(np.isfinite(places[:, 0]))
    points = sky_points(places[known])
    tree = cKDTree(points)
    # The tree leaves out what is at its bound, and calls what it does not find N.
    bound, names = np.nextafter(chord, 4), np.append(known, -1)
    same = 2 * np.sin(np.radians(_SAME / 3600) / 2)
    left, size = np.arange(len(known)), n + 1
    while len(left):
        size = min(size, len(known))
        ranks = np.arange(1, size + 1)
        distance, found = tree.query(points[left], ranks, distance_upper_bound=bound)
        found = np.pad(found, ((0, 0), (0, n)), constant_values=len(known))
        own = (distance < same).sum(1)
        enough = (own + n <= size) | (size == len(known))
        others = own[enough, None] + np.arange(n)
        others = np.take_along_axis(found[enough], others, 1)
        neighbours[known[left[enough]]] = names[others]
        # A galaxy with many rows has to look at more of them.
        left, size = left[~enough], 2 * size
    return neighbours


def group_by_position(coords, radius=None):
    """
    Groups of neighbours on the sky.

    The first galaxy without a group takes all others without one that are
    within the radius; groups are never wider than two radii, however densely
    the sky is covered.

    Parameters
    ----------
    coords : `~astropy.coordinates.SkyCoord`, array_like or sequence
        N positions, as for `places_of`; each unknown one is a group of its own.
    radius : `~astropy.units.Quantity`, optional
        An angle; 3 arcmin by default.

    Returns
    -------
    groups : `~numpy.ndarray`
        Shape (N,), int64, from 0.

    Raises
    ------
    CutoutError
        If ``coords`` are no positions.
    ValueError
        If ``radius`` is not a positive angle.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.groups import group_by_position
    >>> sky = SkyCoord([10, 10.01, 20], [0, 0, 0], unit="deg")
    >>> group_by_position(sky).tolist()
    [0, 0, 1]
    """
    from scipy.spatial import cKDTree

    chord = sky_chord("radius", radius)
    places = places_of(coords)
    first = np.arange(len(places))
    known = np.flatnonzero(np.isfinite(places[:, 0]))
    points = sky_points(places[known])
    tree = cKDTree(points)
    # Most galaxies of a thin sample are alone, which is found for all of them at once.
    bound = np.nextafter(chord, 4)
    nearest, _ = tree.query(points, [2], distance_upper_bound=bound)
    crowded = np.flatnonzero(np.isfinite(nearest[:, 0]))
    free = np.ones(len(known), bool)
    for start in range(0, len(crowded), _CHUNK):
        chunk = crowded[start : start + _CHUNK]
        chunk = chunk[free[chunk]]
        for row, near in zip(
            chunk, tree.query_ball_point(points[chunk], chord), strict=True
        ):
            if free[row]:
                taken = np.array(near)
                taken = taken[free[taken]]
                free[taken] = False
                first[known[taken]] = known[row]
    return np.unique(first, return_inverse=True)[1]
