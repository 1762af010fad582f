# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Parts of the sky for training, validation and test.

A part is a set of HEALPix cells, each of which belongs to it by a key of its own: where
a galaxy is decides, whatever else is in the table. Galaxies at a border share
conditions, and sometimes an image, with those beyond it: the part before the last gives
up who is within the margin of the last one, the part before that who is within the
margin of either, and so on. The last part, the test set, stays whole, and is the same
for every table that has its galaxies.
"""

import warnings

import numpy as np

from astro_disentangle.data.groups import places_of, sky_chord, sky_points
from astro_disentangle.keys import key, seed_of

__all__ = ["FRACTIONS", "split_by_sky"]

#: Shares of the sky, in the order in which galaxies at borders are given up.
FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
#: HEALPix orders of cells of 59 deg and of 0.4 arcsec.
_ORDERS = range(30)


def split_by_sky(
    coords, fractions=None, *, order=6, margin=None, random_state=None, groups=None
):
    """
    Split galaxies by HEALPix cells of the sky.

    Parameters
    ----------
    coords : `~astropy.coordinates.SkyCoord`, array_like or sequence
        N positions: a SkyCoord of shape (N,), right ascension and declination of shape
        (N, 2), ICRS, degrees, or a sequence of SkyCoord and None.
    fractions : dict of str to float, optional
        Share of the sky by name of the part, of which the sum is 1; by default 0.8 for
        ``"train"``, 0.1 for ``"validation"`` and 0.1 for ``"test"``. The share of the
        galaxies is that on average, and less by those at borders.
    order : int
        HEALPix order of the cells: 6, of 55 arcmin, is one for surveys. Of a few square
        degrees it makes a few cells; 8 has cells of 14 arcmin.
    margin : `~astropy.units.Quantity`, optional
        No two galaxies of different parts are within this angle, 3 arcmin by default.
    random_state : int, `numpy.random.Generator` or None
        Another seed is another split of the sky.
    groups : array_like, optional
        Shape (N,), int: no group is in two parts, however wide it is.

    Returns
    -------
    parts : `~numpy.ndarray`
        Shape (N,), str, the part of each galaxy. It is ``""`` for who is within the
        margin of a galaxy of a part that is later in ``fractions``, or in a group with
        one, or has no position.

    Raises
    ------
    CutoutError
        If ``coords`` are no positions.
    ValueError
        If ``fractions``, ``order`` or ``margin`` are out of range, or cells are not
        twice as wide as the margin.

    Warns
    -----
    UserWarning
        If a part is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.splits import split_by_sky
    >>> sky = SkyCoord(np.arange(0, 360, 3), np.zeros(120), unit="deg")
    >>> parts = split_by_sky(sky)
    >>> {name: int((parts == name).sum()) for name in ("train", "validation", "test")}
    {'train': 96, 'validation': 9, 'test': 15}
    """
    fractions = _checked(fractions)
    chord = sky_chord("margin", margin)
    _check_order(order, chord)
    places = places_of(coords)
    cells = _cells(places, order)
    part = _parts(cells, order, list(fractions.values()), seed_of(random_state))
    part = _apart(part, places, chord, groups)
    if len(empty := set(range(len(fractions))) - set(part)):
        names = list(fractions)
        warnings.warn(
            f"parts of a split must have galaxies; {[names[i] for i in sorted(empty)]} "
            f"have none. {(cells >= 0).sum()} galaxies with a position are in "
            f"{len(set(cells[cells >= 0]))} cells of order {order}: a higher order= "
            "makes more of them, another random_state= others.",
            stacklevel=2,
        )
    return np.array([*fractions, ""])[part]


def _checked(fractions):
    """Shares by name."""
    fractions = dict(FRACTIONS if fractions is None else fractions)
    shares = np.array(list(fractions.values()), dtype=float)
    named = all(isinstance(name, str) and name for name in fractions)
    if not (named and (shares > 0).all() and abs(shares.sum() - 1) < 1e-9):
        raise ValueError(
            "'fractions' must be positive shares by name, of which the sum is 1; got "
            f"{fractions}."
        )
    return fractions


def _check_order(order, chord):
    if order not in _ORDERS or isinstance(order, bool):
        raise ValueError(f"'order' must be an integer from 0 to 29; got {order!r}.")
    width = np.sqrt(np.pi / 3) / 2**order
    if width < 2 * chord:
        raise ValueError(
            f"cells must be twice as wide as 'margin'; those of order {order} are "
            f"{np.degrees(width) * 60:.1f} arcmin. Give a lower order, or another "
            "margin."
        )


def _cells(places, order):
    """Nested cells of places, (N,) int64; -1 where unknown."""
    import astropy.units as u
    from astropy_healpix import HEALPix

    cells = np.full(len(places), -1)
    known = np.isfinite(places[:, 0])
    grid = HEALPix(nside=2**order, order="nested")
    cells[known] = grid.lonlat_to_healpix(*places[known].T * u.deg)
    return cells


def _parts(cells, order, shares, seed):
    """Number of the part of each cell, (N,) int64; -1 where unknown."""
    found, place = np.unique(cells, return_inverse=True)
    keys = [key(seed, "sky split", order, cell) for cell in found.tolist()]
    edges = np.cumsum(shares)[:-1]
    part = np.searchsorted(edges, np.array(keys) / 2**63, side="right")
    part[found < 0] = -1
    return part[place]


def _apart(part, places, chord, groups):
    """The parts without who is too near to one of a later one, or in its group."""
    from scipy.spatial import cKDTree

    groups = np.arange(len(part)) if groups is None else np.asarray(groups)
    if groups.shape != part.shape:
        raise ValueError(
            f"'groups' must have one number for each of {len(part)} positions; got the "
            f"shape {groups.shape}."
        )
    bound = np.nextafter(chord, 4)
    part = part.copy()
    for number in reversed(range(part.max(initial=0))):
        later = np.flatnonzero(part > number)
        rows = np.flatnonzero(part == number)
        tree = cKDTree(sky_points(places[later]))
        nearest, _ = tree.query(sky_points(places[rows]), distance_upper_bound=bound)
        near = np.isfinite(nearest) | np.isin(groups[rows], groups[later])
        part[rows[near]] = -1
    return part
