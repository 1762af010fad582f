# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Pairs from files of the Multimodal Universe and from HATS catalogues.

In the order in which data flow: `~astro_disentangle.data.tables` reads rows of files;
`_side` tells which columns are of which survey; `_match` finds the galaxies that two
tables have in common; `_Views` reads both images of a galaxy and keeps windows of
tensors, not the images. What a row of the Multimodal Universe means is known to
`~astro_disentangle.data.mmu` alone.
"""

import glob
import numbers
import re
import warnings
from pathlib import Path

import numpy as np

from astro_disentangle.data.tables import (
    BATCH,
    HDF5,
    PARQUET,
    open_table,
    optional_package,
    rows_of_batch,
)
from astro_disentangle.quality import (
    FLAGS,
    ROW_ERRORS,
    CutoutError,
    SurveyMismatchError,
    check_count,
)
from astro_disentangle.surveys import get_survey

__all__ = ["is_pair_set", "pair_columns", "read_blocks", "read_hats", "read_mmu"]

#: What is read of a galaxy.
_WORDS = ("image", "ra", "dec", "object_id")
#: Radius of matches, and the largest one: further apart are not one galaxy, arcsec.
_RADIUS, _WIDEST = 1.0, 2.0
#: What LSDB adds to names of columns of the left and of the right catalogue.
_SUFFIXES = ("_left", "_right")


def is_pair_set(path):
    """
    Whether a path is one of tables, not of a folder of FITS files for each survey.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        What a user gave as pairs.

    Returns
    -------
    pair_set : bool
        True for names of Parquet and HDF5 files, for patterns of them, and for
        folders that hold Parquet files or are HATS catalogues.

    Examples
    --------
    >>> from astro_disentangle.data.pair_sets import is_pair_set
    >>> is_pair_set("pairs.parquet"), is_pair_set("set/*.parquet"), is_pair_set("runs")
    (True, True, False)
    """
    path = Path(path)
    if not path.is_dir():
        return path.suffix in (*PARQUET, *HDF5) or glob.has_magic(str(path))
    names = ("hats.properties", "collection.properties")
    if any((path / name).is_file() for name in names):
        return True
    return not any(path.glob("*/*.fits")) and any(
        file.suffix in PARQUET for file in path.rglob("*")
    )


def read_mmu(path, *, surveys, columns=(), radius=None, n_max=None, progress=False):
    """
    Parts of `~astro_disentangle.PairedCutouts` from files.

    Parameters
    ----------
    path : str, `~pathlib.Path` or pair of them
        As for `PairedCutouts.from_mmu`, like everything else.
    surveys : tuple of str or `~astro_disentangle.Survey`
        The two surveys.
    columns : sequence of str
        Columns of numbers to keep as ``truth``.
    radius : `~astropy.units.Quantity`, optional
        Of matches between two tables.
    n_max : int, optional
        At most this many pairs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    parts : dict
        What `~astro_disentangle.PairedCutouts` is made of.

    Raises
    ------
    CutoutError
        If there are no such files, or no pair in them.
    SurveyMismatchError
        If ``surveys`` are not two.
    """
    views = _Views(surveys, columns, n_max)
    if not isinstance(path, (tuple, list)):
        table = open_table(path)
        _read_one(views, table, pair_columns(table, views.surveys, path), progress)
    else:
        if len(path) != 2:
            raise CutoutError(
                f"'path' must be one path or a pair of them; got {len(path)} paths. "
                "Give files of one survey as a folder or a pattern."
            )
        tables = [open_table(one) for one in path]
        _read_two(views, tables, path, _arcsec(radius), progress)
        path = "' and '".join(map(str, path))
    return views.parts(f"'{path}'")


def pair_columns(table, surveys, path):
    """
    Columns of a table whose rows have an image of each survey.

    Parameters
    ----------
    table : object
        From `~astro_disentangle.data.tables.open_table`.
    surveys : sequence of `~astro_disentangle.Survey`
        The two surveys.
    path : str or `~pathlib.Path`
        Where it is, for messages.

    Returns
    -------
    sides : list of dict
        For each survey, the columns of ``image``, ``ra``, ``dec`` and ``object_id``,
        as far as they are there.

    Raises
    ------
    CutoutError
        If there are not two images.
    """
    sides = [_side(table.names, survey, path) for survey in surveys]
    if sides[0]["image"] == sides[1]["image"]:
        raise CutoutError(
            f"'{path}' must have an image of each survey, as 'hsc_image' and "
            f"'legacysurvey_image'; it has {sides[0]['image']!r} alone. Give a "
            "pair of paths, one for each survey."
        )
    return sides


def read_blocks(table, sides, *, surveys, size, first=0):
    """
    Parts of `~astro_disentangle.PairedCutouts`, some rows after the other.

    Parameters
    ----------
    table : object
        From `~astro_disentangle.data.tables.open_table`.
    sides : list of dict
        From `pair_columns`.
    surveys : sequence of `~astro_disentangle.Survey`
        The two surveys.
    size : int
        Rows of a block; the last one may have fewer.
    first : int
        Number of the block to begin with.

    Yields
    ------
    parts : dict or None
        Of the pairs of a block that can be used; None if there are none.
    left_out : dict of str to int
        Why how many others cannot be.
    """
    names = {name for side in sides for name in side.values()}
    names = [name for name in table.names if name in names]
    count, views = len(table), _Views(surveys, (), None)
    for number, row in table.rows(names, range(first * size, count)):
        views.add(number, [_seen(row, side) for side in sides], row, f"row {number}")
        if (number + 1) % size == 0 or number + 1 == count:
            yield views.taken(), views.left_out
            views = _Views(surveys, (), None)


def read_hats(
    left, right, *, surveys, radius=None, columns=(), n_max=None, progress=False
):
    """
    Parts of `~astro_disentangle.PairedCutouts` from two HATS catalogues.

    Parameters
    ----------
    left, right : str, `~pathlib.Path` or ``lsdb.Catalog``
        As for `PairedCutouts.from_hats`, like everything else.
    surveys : tuple of str or `~astro_disentangle.Survey`
        Survey of the one and of the other.
    radius : `~astropy.units.Quantity`, optional
        Of matches.
    columns : sequence of str
        Columns of numbers to keep as ``truth``.
    n_max : int, optional
        At most this many pairs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    parts : dict
        What `~astro_disentangle.PairedCutouts` is made of.

    Raises
    ------
    CutoutError
        If a catalogue cannot be opened or lacks images, or there is no pair.
    ImportError
        If LSDB is not installed.
    SurveyMismatchError
        If ``surveys`` are not two.
    """
    views = _Views(surveys, columns, n_max)
    arcsec = _arcsec(radius)
    opened = [
        _open_hats(catalog, survey, views.columns)
        for catalog, survey in zip((left, right), views.surveys, strict=True)
    ]
    views.check_columns([name for names, *_ in opened for name in names])
    _read_matches(views, [parts for _, *parts in opened], arcsec, progress)
    return views.parts("the two catalogues")


def _arcsec(radius):
    """The radius of matches in arcsec."""
    import astropy.units as u

    radius = _RADIUS * u.arcsec if radius is None else u.Quantity(radius)
    if not (radius.unit.is_equivalent(u.arcsec) and 0 < radius <= _WIDEST * u.arcsec):
        raise ValueError(
            f"'radius' must be an angle of at most {_WIDEST} arcsec; got {radius}."
        )
    return radius.to_value(u.arcsec)


# --- which columns, and which galaxies --------------------------------------------


def _side(names, survey, where):
    """Columns of the image, place and name in a survey, by what they are."""
    side = {word: _column(names, word, survey) for word in _WORDS}
    if side["image"] is None:
        raise CutoutError(
            f"'{where}' must have a column 'image', or an image of {survey.name}; it "
            f"has {sorted(names)}."
        )
    return {word: name for word, name in side.items() if name is not None}


def _column(names, word, survey):
    """The column of a survey, "hsc_image" or "image_hsc", else one of no survey's."""
    root = survey.name.split("-")[0]
    own = [n for n in names if re.fullmatch(rf"{root}\w*_{word}|{word}_{root}\w*", n)]
    if len(own) > 1:
        raise CutoutError(
            f"there must be one {word!r} of {survey.name}; got the columns {own}."
        )
    return (own or [name for name in names if name == word] or [None])[0]


def _seen(row, side):
    """A row as one survey has it, in the words of the Multimodal Universe."""
    return {word: row.get(name) for word, name in side.items()}


def _match(left, right, arcsec):
    """
    Galaxies of two tables that are each other's only ones within a radius.

    Parameters
    ----------
    left, right : `~numpy.ndarray`
        Shapes (N, 2) and (M, 2), right ascension and declination, degrees, finite.
    arcsec : float
        The radius.

    Returns
    -------
    matches : `~numpy.ndarray`
        Shape (K, 2), int, rows of the two, in the order of the left.
    ambiguous : int
        Rows of the left that have a match, but not one alone.
    """
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    if not len(left) or not len(right):
        return np.empty((0, 2), int), 0
    a, b = (SkyCoord(*places.T, unit="deg") for places in (left, right))
    others, rows, *_ = a.search_around_sky(b, arcsec * u.arcsec)
    one = (np.bincount(rows)[rows] == 1) & (np.bincount(others)[others] == 1)
    matches = np.column_stack([rows[one], others[one]])
    return matches[np.argsort(matches[:, 0])], len(set(rows) - set(rows[one]))


def _ambiguous(arcsec):
    return f"with more than one match within {arcsec:g} arcsec"


def _read_one(views, table, sides, progress):
    """Read galaxies of which each row has both images."""
    from tqdm import tqdm

    views.check_columns(table.names)
    names = {name for side in sides for name in side.values()} | set(views.columns)
    rows = table.rows([name for name in table.names if name in names])
    bar = tqdm(rows, total=len(table), disable=not progress, unit="galaxy")
    for number, row in bar:
        views.add(number, [_seen(row, side) for side in sides], row, f"row {number}")
        if views.full:
            break


def _read_two(views, tables, paths, arcsec, progress):
    """Read galaxies whose images are in two tables, which are matched first."""
    views.check_columns([*tables[0].names, *tables[1].names])
    sides, places = [], []
    for table, survey, path in zip(tables, views.surveys, paths, strict=True):
        side = _side(table.names, survey, path)
        if not {"ra", "dec"} <= set(side):
            raise CutoutError(
                f"'{path}' must have columns 'ra' and 'dec', by which the galaxies of "
                f"two tables are matched; it has {sorted(table.names)}."
            )
        where = [side["ra"], side["dec"]]
        rows = [[row[name] for name in where] for _, row in table.rows(where)]
        sides.append(side)
        places.append(np.array(rows, dtype=float).reshape(-1, 2))
    known = [np.flatnonzero(np.isfinite(p).all(1)) for p in places]
    matches, ambiguous = _match(
        *(p[rows] for p, rows in zip(places, known, strict=True)), arcsec
    )
    views.leave_out(_ambiguous(arcsec), ambiguous)
    for survey, where, rows in zip(views.surveys, places, known, strict=True):
        views.leave_out(
            f"of {survey.name} without 'ra' and 'dec'", len(where) - len(rows)
        )
    rows = np.stack([p[m] for p, m in zip(known, matches.T, strict=True)], 1)
    done = 0
    while done < len(rows) and not views.full:
        # Some of them may not be usable, and as many others are read then.
        stop = len(rows) if views.room is None else min(done + views.room, len(rows))
        chosen = {number: rows[number] for number in range(done, stop)}
        _read_matched(views, tables, sides, chosen, progress)
        done = stop


def _read_matched(views, tables, sides, matches, progress):
    """Read the galaxies of some matches, which are rows of both by number."""
    from tqdm import tqdm

    for place, (table, side) in enumerate(zip(tables, sides, strict=True)):
        numbers_of = {
            int(rows[place]): number
            for number, rows in matches.items()
            if place == 0 or views.has(number)
        }
        kept = [name for name in views.columns if name in table.names]
        names = dict.fromkeys([*side.values(), *kept])
        bar = tqdm(total=len(numbers_of), disable=not progress, unit="galaxy")
        with bar:
            for row, values in table.rows(list(names), numbers_of):
                views.read(place, numbers_of[row], _seen(values, side), f"row {row}")
                views.keep(numbers_of[row], values)
                bar.update()


# --- HATS catalogues --------------------------------------------------------------


def _open_hats(catalog, survey, columns):
    """Names of a catalogue; as LSDB has it: its places, what is read; which it is."""
    lsdb = optional_package("lsdb")
    path = None if hasattr(catalog, "crossmatch") else catalog
    if path is not None:
        try:
            catalog = lsdb.open_catalog(path, columns="all")
        except Exception as error:  # readers of catalogues raise many types
            raise CutoutError(
                f"cannot open '{path}' as a HATS catalogue: {error}"
            ) from error
    names, info = list(catalog.columns), catalog.hc_structure.catalog_info
    side = _side(names, survey, info.catalog_name)
    side |= {"ra": info.ra_column, "dec": info.dec_column}
    wanted = dict.fromkeys([*side.values(), *(n for n in names if n in columns)])
    chosen = [[side["ra"], side["dec"]], list(wanted)]
    if path is None:
        places, catalog = (catalog[names] for names in chosen)
    else:
        # What is not opened is not read.
        places, catalog = (lsdb.open_catalog(path, columns=names) for names in chosen)
    return names, places, catalog, side


def _read_matches(views, opened, arcsec, progress):
    """Read galaxies whose images are in two catalogues, which LSDB matches."""
    from tqdm import tqdm

    places, catalogs, sides = zip(*opened, strict=True)
    sides = [
        {word: name + suffix for word, name in side.items()}
        for side, suffix in zip(sides, _SUFFIXES, strict=True)
    ]
    where = [side[word] for side in sides for word in ("ra", "dec")]
    near = _crossmatch(places, arcsec, 2).compute(progress_bar=False)
    near = near[where].to_numpy(dtype=float)
    known = _alone(near, arcsec)
    views.leave_out(
        _ambiguous(arcsec), len(np.unique(near[:, :2], axis=0)) - len(known)
    )
    if not known:
        return
    joined = _crossmatch(catalogs, arcsec, 1)
    both = [name + suffix for suffix in _SUFFIXES[::-1] for name in views.columns]
    kept = {name.rpartition("_")[0]: name for name in both if name in joined.columns}
    with tqdm(total=len(known), disable=not progress, unit="galaxy") as bar:
        for delayed in joined.to_delayed():
            # LSDB makes a partition as a whole; its images go before the next one.
            frame = delayed.compute(scheduler="synchronous")
            for batch in frame.to_pyarrow().to_batches(max_chunksize=BATCH):
                for _, row in rows_of_batch(batch, joined.columns):
                    number = known.get(tuple(float(row[name]) for name in where))
                    if number is not None and not views.full:
                        seen = [_seen(row, side) for side in sides]
                        values = {name: row[column] for name, column in kept.items()}
                        views.add(number, seen, values, _place(row, where))
                        bar.update()
            if views.full:
                break


def _place(row, where):
    return "the one at {:.5f}, {:.5f} deg".format(*(row[name] for name in where[:2]))


def _crossmatch(catalogs, arcsec, count):
    """Each galaxy of the left with so many of the right, the nearest ones."""
    return catalogs[0].crossmatch(
        catalogs[1],
        n_neighbors=count,
        radius_arcsec=arcsec,
        suffixes=_SUFFIXES,
        suffix_method="all_columns",
    )


def _alone(near, arcsec):
    """
    Matches that are each other's only ones.

    Parameters
    ----------
    near : `~numpy.ndarray`
        Shape (K, 4), places of the left and of the right galaxy of each match, degrees;
        each of the left is there with two matches if it has them.
    arcsec : float
        The radius.

    Returns
    -------
    numbers : dict of tuple to int
        Number of the galaxy by the places of both.
    """
    near, counts = np.unique(near, axis=0, return_counts=True)
    left, right = (np.unique(near[:, part], axis=0) for part in np.s_[:2, 2:])
    matches, _ = _match(left, right, arcsec)
    alone = {(*left[a], *right[b]) for a, b in matches}
    # Two galaxies in one place are a match twice.
    once = [tuple(row) for row, count in zip(near, counts, strict=True) if count == 1]
    return {row: number for number, row in enumerate(r for r in once if r in alone)}


# --- from rows to pairs -----------------------------------------------------------


class _Views:
    """Views of galaxies in two surveys, and why others are left out."""

    def __init__(self, surveys, columns, n_max):
        names = list(surveys)
        if len(names) != 2 or len({get_survey(name).name for name in names}) != 2:
            raise SurveyMismatchError(f"'surveys' must be two; got {surveys!r}.")
        self.surveys = [get_survey(name) for name in names]
        self.columns = [columns] if isinstance(columns, str) else list(columns)
        self.n_max = None if n_max is None else check_count("n_max", n_max)
        self._reads = {}, {}
        self._truth = {}
        self._left_out = {}

    @property
    def room(self):
        """How many more pairs are asked for; None if there is no limit."""
        return None if self.n_max is None else self.n_max - len(self._reads[1])

    @property
    def full(self):
        """Whether there are as many pairs as were asked for."""
        return self.room is not None and self.room <= 0

    def check_columns(self, names):
        """Raise where a column that was asked for is not there."""
        if missing := [name for name in self.columns if name not in names]:
            raise CutoutError(
                f"'columns' must be columns of the files; {missing} are not among "
                f"{sorted(names)}."
            )

    def leave_out(self, reason, count, first=""):
        """Count galaxies that cannot be used, and say which was the first."""
        if count:
            before, known = self._left_out.get(reason, (0, first))
            self._left_out[reason] = before + count, known

    def has(self, number):
        """Whether the first view of a galaxy could be read."""
        return number in self._reads[0]

    def add(self, number, rows, values, label):
        """Read both views of a galaxy, and what else its row says."""
        if all(self.read(place, number, row, label) for place, row in enumerate(rows)):
            self.keep(number, values)

    def read(self, place, number, row, label):
        """Read the view of one survey, if it can be used."""
        from astro_disentangle.data.read import read_cutouts

        name = self.surveys[place].name
        if row["image"] is None:
            self.leave_out(f"without an image of {name}", 1, label)
            return False
        try:
            read = read_cutouts(row, survey=self.surveys[place])
        except ROW_ERRORS as error:
            reason = f"whose image of {name} cannot be read"
            self.leave_out(reason, 1, f"{label}: {error}")
            return False
        flags = int(read.batch.flags[0])
        if flags & FLAGS.UNUSABLE:
            self.leave_out(f"with too few good pixels in {name}", 1, label)
            return False
        if flags & FLAGS.PIXEL_SCALE:
            # The decoder learns to paint the survey's own pixels.
            self.leave_out(f"not on the pixel grid of {name}", 1, label)
            return False
        if place and _apart(self._reads[0][number].sky[0], read.sky[0]) > _WIDEST:
            self.leave_out("whose two images are of different places", 1, label)
            return False
        self._reads[place][number] = read
        return True

    def keep(self, number, values):
        """Keep the numbers that were asked for of a row."""
        kept = {}
        for name in self.columns:
            if name not in values:
                continue
            value = np.nan if values[name] is None else values[name]
            if not isinstance(value, numbers.Real | np.bool_):
                raise CutoutError(
                    f"'columns' must be columns of numbers; {name!r} has {value!r}."
                )
            kept[name] = value
        # The left one of two tables is read first.
        self._truth[number] = kept | self._truth.get(number, {})

    def parts(self, where):
        """
        What `~astro_disentangle.PairedCutouts` is made of.

        Parameters
        ----------
        where : str
            What was read, for messages.

        Returns
        -------
        parts : dict
            Of the galaxies with two views, in the order of their numbers.
        """
        parts = self.taken()
        self._tell(0 if parts is None else len(parts["coords"]), where)
        return parts

    @property
    def left_out(self):
        """Why how many galaxies cannot be used (dict of str to int)."""
        return {reason: count for reason, (count, _) in self._left_out.items()}

    def taken(self):
        """
        What `~astro_disentangle.PairedCutouts` is made of.

        Returns
        -------
        parts : dict or None
            Of the galaxies with two views, in the order of their numbers; None if
            there are none.
        """
        from astropy.table import QTable

        from astro_disentangle.data.batch import CutoutBatch
        from astro_disentangle.data.groups import group_by_position

        chosen = sorted(self._reads[1].keys() & self._reads[0].keys())
        if not chosen:
            return None
        reads = [[views[number] for number in chosen] for views in self._reads]
        first, second = (
            np.array([view.sky[0] for view in views], dtype=float).reshape(-1, 2)
            for views in reads
        )
        sky = np.where(np.isfinite(first), first, second)
        truth = {
            name: np.array([self._truth[number][name] for number in chosen])
            for name in self.columns
        }
        return {
            "batches": {
                survey.name: CutoutBatch.concatenate(view.batch for view in views)
                for survey, views in zip(self.surveys, reads, strict=True)
            },
            "coords": sky,
            "object_id": [view.object_id[0] for view in reads[0]],
            "groups": group_by_position(sky),
            "truth": QTable(truth) if truth else None,
        }

    def _tell(self, count, where):
        """Warn of galaxies that are left out, and raise if there are no others."""
        out = sum(number for number, _ in self._left_out.values())
        reasons = "; ".join(
            f"{number} {reason}" + (f" ({first})" if first else "")
            for reason, (number, first) in self._left_out.items()
        )
        if not count:
            raise CutoutError(
                f"{where} must hold at least one pair that can be used; got "
                f"{reasons or 'none'}."
            )
        if out:
            warnings.warn(
                f"{out} of {out + count} galaxies of {where} are left out: {reasons}.",
                stacklevel=5,
            )


def _apart(a, b):
    """Distance of two nearby places (ra, dec), degrees, in arcsec."""
    east = (a[0] - b[0] + 180) % 360 - 180
    return 3600 * np.hypot(east * np.cos(np.radians(a[1])), a[1] - b[1])
