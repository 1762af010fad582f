# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The same galaxies as two surveys saw them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from astro_disentangle.data.groups import group_by_position, places_of
from astro_disentangle.data.splits import FRACTIONS, split_by_sky
from astro_disentangle.quality import CutoutError, SurveyMismatchError
from astro_disentangle.surveys import get_survey

__all__ = ["PairedCutouts"]
__doctest_requires__ = {
    "PairedCutouts.from_mmu": ["pyarrow"],
    "PairedCutouts.from_hats": ["lsdb"],
}


class PairedCutouts:
    """
    Cut-outs of the same galaxies in two surveys.

    Parameters
    ----------
    batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        Two batches of N rows by name of the survey. Rows of which a view is
        unusable are kept; their flags say so.
    coords : `~astropy.coordinates.SkyCoord`, array_like or sequence, optional
        Shape (N,), or right ascension and declination of shape (N, 2), ICRS, degrees;
        None, as a whole or for a galaxy, or NaN, where it is unknown.
    object_id : sequence of str, optional
        N names; the keys of the first batch by default.
    groups : array_like, optional
        Shape (N,), int. Galaxies of one group share their conditions in each of
        the surveys; each galaxy is its own group by default.
    truth : `~astropy.table.QTable`, optional
        N rows of what is known about the galaxies.
    noiseless : dict of str to `torch.Tensor`, optional
        Images without noise, shape (N, C, H, W), nJy.

    Raises
    ------
    SurveyMismatchError
        If there are not two surveys.
    ValueError
        If lengths differ.

    Examples
    --------
    >>> from astro_disentangle import PairedCutouts
    >>> from astro_disentangle.simulation import simulate
    >>> sky = simulate(2, 3, ["hsc", "legacy"], seed=0)
    >>> pairs = PairedCutouts(sky.batches, groups=sky.group)
    >>> len(pairs), pairs.surveys, len(pairs[1:3])
    (6, ('hsc', 'legacy'), 2)
    """

    def __init__(
        self,
        batches,
        *,
        coords=None,
        object_id=None,
        groups=None,
        truth=None,
        noiseless=None,
    ):
        if len(batches) != 2:
            raise SurveyMismatchError(
                f"'batches' must be of two surveys; got {sorted(batches)}."
            )
        for name, batch in batches.items():
            if batch.survey.name != name:
                raise SurveyMismatchError(
                    f"'batches' must be by name of the survey; {name!r} is of "
                    f"{batch.survey.name!r}."
                )
        self._batches = dict(batches)
        count = len(self)
        if groups is None:
            groups = np.arange(count)
        elif hasattr(groups, "cpu"):
            groups = groups.cpu().numpy()
        self._groups = np.asarray(groups, dtype=np.int64)
        if object_id is None:
            first = next(iter(self._batches.values()))
            object_id = [f"{number:016x}" for number in first.keys.tolist()]
        self._object_id = [str(name) for name in object_id]
        unknown = np.full((count, 2), np.nan)
        self._sky = unknown if coords is None else places_of(coords)
        self._truth = truth
        self.noiseless = None if noiseless is None else dict(noiseless)
        lengths = {
            **{name: len(batch) for name, batch in self._batches.items()},
            "groups": len(self._groups),
            "object_id": len(self._object_id),
            "coords": len(self._sky),
            "truth": count if truth is None else len(truth),
        }
        if set(lengths.values()) != {count}:
            raise ValueError(f"pairs must have parts of one length; got {lengths}.")

    def __len__(self):
        return len(next(iter(self._batches.values())))

    def __repr__(self):
        return f"<PairedCutouts {' and '.join(self.surveys)}, {len(self)} galaxies>"

    @property
    def surveys(self):
        """Names of the two surveys (tuple of str)."""
        return tuple(self._batches)

    @property
    def groups(self):
        """Which galaxies share conditions, (N,) int64."""
        return self._groups

    @property
    def object_id(self):
        """Names of the galaxies (list of str)."""
        return list(self._object_id)

    @property
    def sky(self):
        """Right ascension and declination, ICRS, degrees, (N, 2); NaN if unknown."""
        return self._sky

    @property
    def coords(self):
        """Sky positions, ICRS (list of `~astropy.coordinates.SkyCoord` or None)."""
        return [_coord(place) for place in self._sky]

    @property
    def truth(self):
        """What is known about the galaxies (`~astropy.table.QTable`), or None."""
        return self._truth

    @property
    def flags(self):
        """Row flags of the two views together, (N,) int64."""
        first, second = (b.flags.cpu().numpy() for b in self._batches.values())
        return first | second

    def batch(self, survey):
        """
        The views of one survey as tensors.

        Parameters
        ----------
        survey : str or `~astro_disentangle.Survey`
            One of the two surveys.

        Returns
        -------
        batch : `~astro_disentangle.data.batch.CutoutBatch`
            N rows.

        Raises
        ------
        SurveyMismatchError
            If the pairs are of other surveys.

        Examples
        --------
        >>> from astro_disentangle import PairedCutouts
        >>> from astro_disentangle.simulation import simulate
        >>> pairs = PairedCutouts(simulate(1, 2, ["hsc", "legacy"], seed=0).batches)
        >>> len(pairs.batch("legacy"))
        2
        """
        name = getattr(survey, "name", survey)
        if name not in self._batches:
            raise SurveyMismatchError(f"the pairs are of {self.surveys}; got {name!r}.")
        return self._batches[name]

    def cutouts(self, survey):
        """
        The views of one survey as astropy objects.

        Parameters
        ----------
        survey : str or `~astro_disentangle.Survey`
            One of the two surveys.

        Returns
        -------
        cutouts : sequence of `~astro_disentangle.SurveyCutout`
            N of them, made when they are asked for.

        Raises
        ------
        SurveyMismatchError
            If the pairs are of other surveys.

        Examples
        --------
        >>> from astro_disentangle import PairedCutouts
        >>> from astro_disentangle.simulation import simulate
        >>> pairs = PairedCutouts(simulate(1, 2, ["hsc", "legacy"], seed=0).batches)
        >>> pairs.cutouts("legacy")[0]["r"].shape
        (32, 32)
        """
        return _Views(self.batch(survey), self._sky, self._object_id)

    def __getitem__(self, rows):
        """Some of the pairs, by slice, integers or bool array."""
        if isinstance(rows, (int, np.integer)):
            rows = [range(len(self))[rows]]
        index = np.arange(len(self))[rows]
        noiseless = self.noiseless
        if noiseless is not None:
            noiseless = {name: images[index] for name, images in noiseless.items()}
        return type(self)(
            {name: batch[index] for name, batch in self._batches.items()},
            coords=self._sky[index],
            object_id=[self._object_id[row] for row in index],
            groups=self._groups[index],
            truth=None if self._truth is None else self._truth[index],
            noiseless=noiseless,
        )

    def split(self, fractions=None, *, order=6, margin=None, random_state=None):
        """
        Parts of the sky for training, validation and test.

        Parameters
        ----------
        fractions : dict of str to float, optional
            Share of the sky by name of the part; by default 0.8 for ``"train"``, 0.1
            for ``"validation"`` and 0.1 for ``"test"``.
        order : int
            HEALPix order of the cells of the sky, each of which is in one part: 6 has
            cells of 55 arcmin, 8 of 14 arcmin.
        margin : `~astropy.units.Quantity`, optional
            Galaxies within this angle of one of a later part are in none, 3 arcmin by
            default.
        random_state : int, `numpy.random.Generator` or None
            Another seed is another split of the sky.

        Returns
        -------
        parts : dict of str to `PairedCutouts`
            By the names of ``fractions``. No galaxy, and no group, is in two of them.
            In which part a galaxy is depends on where it is, and not on the other
            pairs; `~astro_disentangle.data.splits.split_by_sky` says more.

        Raises
        ------
        CutoutError
            If no pair has a position.
        ValueError
            If ``fractions``, ``order`` or ``margin`` are out of range.

        Warns
        -----
        UserWarning
            If a part is empty, or pairs have no position.

        Examples
        --------
        >>> import numpy as np
        >>> from astro_disentangle import PairedCutouts
        >>> from astro_disentangle.simulation import simulate
        >>> sky = simulate(8, 4, ["hsc", "legacy"], seed=0)
        >>> places = np.stack([np.arange(32) * 3.0, np.zeros(32)], 1)
        >>> pairs = PairedCutouts(sky.batches, coords=places)
        >>> parts = pairs.split({"train": 0.7, "test": 0.3})
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 25, 'test': 7}
        """
        fractions = FRACTIONS if fractions is None else fractions
        known = np.isfinite(self._sky[:, 0])
        if not known.any():
            raise CutoutError(
                "pairs must have positions on the sky to be split by it; none of these "
                "has one. Give coords=, or cut-outs with a WCS."
            )
        if not known.all():
            warnings.warn(
                f"{(~known).sum()} of {len(self)} pairs have no position, and are in "
                "no part.",
                stacklevel=2,
            )
        parts = split_by_sky(
            self._sky,
            fractions,
            order=order,
            margin=margin,
            random_state=random_state,
            groups=self._groups,
        )
        return {name: self[parts == name] for name in fractions}

    def labelled(self, table):
        """
        The same pairs with other truth.

        Parameters
        ----------
        table : `~astropy.table.Table`
            N rows, in the order of the pairs; or any rows with a column
            ``object_id`` that has all of theirs.

        Returns
        -------
        pairs : `PairedCutouts`
            With ``table`` as ``truth``.

        Raises
        ------
        CutoutError
            If there is not a row for each pair.

        Examples
        --------
        >>> from astropy.table import QTable
        >>> from astro_disentangle import simulate_pairs
        >>> pairs = simulate_pairs(2, random_state=1)
        >>> pairs.labelled(QTable({"z": [0.1, 0.2]})).truth["z"].tolist()
        [0.1, 0.2]
        """
        if "object_id" in table.colnames:
            names = np.asarray(table["object_id"])
            names = np.char.decode(names) if names.dtype.kind == "S" else names
            place = {str(name): row for row, name in enumerate(names)}
            missing = [name for name in self._object_id if name not in place]
            if missing:
                raise CutoutError(
                    f"the labels must have a row for each pair; 'object_id' lacks "
                    f"{missing[0]!r} and {len(missing) - 1} more."
                )
            table = table[[place[name] for name in self._object_id]]
        elif len(table) != len(self):
            raise CutoutError(
                f"the labels must have a row for each of {len(self)} pairs, or a "
                f"column 'object_id'; got {len(table)} rows."
            )
        return type(self)(
            self._batches,
            coords=self._sky,
            object_id=self._object_id,
            groups=self._groups,
            truth=table,
            noiseless=self.noiseless,
        )

    @classmethod
    def from_nddata(
        cls, a, b, *, surveys=None, positions=None, groups=None, radius=None
    ):
        """
        Pairs from cut-outs of the same galaxies in two surveys.

        Parameters
        ----------
        a, b : iterable of cut-outs
            Equally many, in the same order, in any form that
            `~astro_disentangle.data.read.read_cutouts` reads.
        surveys : tuple of str or `~astro_disentangle.Survey`, optional
            Survey of ``a`` and of ``b``; ``meta["SURVEY"]`` by default.
        positions : `~astropy.coordinates.SkyCoord` or sequence, optional
            Where the galaxies are; the centres of the images by default.
        groups : array_like, optional
            Shape (N,), int: which galaxies share conditions. By default those
            within ``radius`` of one of them, where sky positions are known.
        radius : `~astropy.units.Quantity`, optional
            An angle; 3 arcmin by default.

        Returns
        -------
        pairs : `PairedCutouts`
            The pairs.

        Raises
        ------
        CutoutError
            If a cut-out cannot be read, or is not on the pixel grid of its
            survey, north up: the decoder learns to paint native pixels; or the
            two cut-outs of a pair are more than 2 arcsec apart on the sky.
        SurveyMismatchError
            If a cut-out does not fit its survey, or the surveys are the same.
        ValueError
            If ``a`` and ``b`` differ in length.

        Examples
        --------
        >>> from astro_disentangle import PairedCutouts
        >>> from astro_disentangle.simulation import simulate
        >>> sky = PairedCutouts(simulate(1, 2, ["hsc", "legacy"], seed=0).batches)
        >>> a, b = sky.cutouts("hsc"), sky.cutouts("legacy")
        >>> len(PairedCutouts.from_nddata(a, b))
        2
        """
        from astro_disentangle.data.read import check_native, read_cutouts
        from astro_disentangle.data.stream import each_cutout

        a, b = ([cutout for cutout, _ in each_cutout(views, None)] for views in (a, b))
        if len(a) != len(b) or not a:
            raise ValueError(
                "'a' and 'b' must hold the same galaxies in the same order; got "
                f"{len(a)} and {len(b)} cut-outs."
            )
        names = (None, None) if surveys is None else tuple(surveys)
        if len(names) != 2:
            raise SurveyMismatchError(f"'surveys' must be two; got {surveys!r}.")
        reads = [
            read_cutouts(views, survey=name, position=positions)
            for views, name in zip((a, b), names, strict=True)
        ]
        found = [read.batch.survey.name for read in reads]
        if found[0] == found[1]:
            raise SurveyMismatchError(
                f"'a' and 'b' must be of two surveys; both are of {found[0]}."
            )
        for read in reads:
            check_native(read)
        first, second = (read.sky for read in reads)
        _check_same_sky(first, second)
        sky = np.where(np.isfinite(first), first, second)
        if groups is None:
            groups = group_by_position(sky, radius)
        return cls(
            {read.batch.survey.name: read.batch for read in reads},
            coords=sky,
            object_id=reads[0].object_id,
            groups=groups,
        )

    @classmethod
    def from_images(
        cls,
        images_a,
        images_b,
        positions,
        *,
        surveys=None,
        object_id=None,
        groups=None,
        radius=None,
    ):
        """
        Pairs from the mosaics of two surveys and a catalogue.

        Parameters
        ----------
        images_a, images_b : mapping of str to `~astropy.nddata.CCDData`, or cube
            Mosaics of the two surveys, as `SurveyCutout.from_image` takes them.
        positions : `~astropy.coordinates.SkyCoord`
            Shape (N,), the galaxies.
        surveys : tuple of str or `~astro_disentangle.Survey`, optional
            Survey of ``images_a`` and of ``images_b``; ``meta["SURVEY"]`` by default.
        object_id : sequence of str, optional
            N names.
        groups, radius
            As for `from_nddata`.

        Returns
        -------
        pairs : `PairedCutouts`
            N pairs; a galaxy that one of the surveys does not reach is flagged
            ``UNUSABLE``, and `Disentangler.fit` leaves it out.

        Raises
        ------
        CutoutError
            If a mosaic cannot be read, has no WCS, or is not on the pixel grid of its
            survey, north up.
        SurveyMismatchError
            If mosaics and surveys do not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> from astropy.coordinates import SkyCoord
        >>> from astropy.nddata import CCDData
        >>> from astro_disentangle import PairedCutouts
        >>> from astro_disentangle.data.wcs import tangent_wcs
        >>> sky = SkyCoord([150, 150.002], [2, 2], unit="deg")
        >>> mosaics = []
        >>> for size, scale in ((251, 0.168), (161, 0.262)):
        ...     noise = np.random.default_rng(0).normal(size=(size, size))
        ...     middle = size // 2
        ...     matrix = np.eye(2) / scale
        ...     wcs = tangent_wcs(sky[0], matrix, middle, middle, noise.shape)
        ...     mosaics.append({"r": CCDData(noise, unit="nJy", wcs=wcs)})
        >>> pairs = PairedCutouts.from_images(*mosaics, sky, surveys=("hsc", "legacy"))
        >>> len(pairs), pairs.groups.tolist()
        (2, [0, 0])
        """
        from astropy.coordinates import SkyCoord

        from astro_disentangle.data.cutout import SurveyCutout

        if not isinstance(positions, SkyCoord):
            raise CutoutError(
                "'positions' must be a SkyCoord: pixels are those of one survey; got "
                f"{type(positions).__name__}."
            )
        names = (None, None) if surveys is None else tuple(surveys)
        if len(names) != 2:
            raise SurveyMismatchError(f"'surveys' must be two; got {surveys!r}.")
        views = [
            SurveyCutout.from_image(
                images, positions.reshape(-1), survey=name, object_id=object_id
            )
            for images, name in zip((images_a, images_b), names, strict=True)
        ]
        return cls.from_nddata(*views, groups=groups, radius=radius)

    @classmethod
    def from_folder(cls, path, *, surveys=("hsc", "legacy")):
        """
        Pairs from FITS files that `SurveyCutout.write` or `write` wrote.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            Folder with a folder for each survey, and in these one file for each
            galaxy, under the same name in both.
        surveys : tuple of str
            The two surveys.

        Returns
        -------
        pairs : `PairedCutouts`
            In the order of the names.

        Raises
        ------
        CutoutError
            If a folder or a file is missing or cannot be read.
        """
        from astro_disentangle.data.cutout import SurveyCutout

        folders = [Path(path) / get_survey(survey).name for survey in surveys]
        names = []
        for folder in folders:
            if not folder.is_dir():
                raise CutoutError(f"there is no folder '{folder}'.")
            names.append({file.name for file in folder.glob("*.fits")})
        if names[0] != names[1] or not names[0]:
            odd = sorted(names[0] ^ names[1])[:3]
            raise CutoutError(
                f"'{path}' must hold the same FITS files for both surveys; files "
                f"of one alone: {odd}."
            )
        views = [
            [SurveyCutout.read(folder / name) for name in sorted(names[0])]
            for folder in folders
        ]
        return cls.from_nddata(*views, surveys=surveys)

    @classmethod
    def from_mmu(
        cls,
        path,
        *,
        surveys=("hsc", "legacy"),
        columns=(),
        radius=None,
        n_max=None,
        progress=False,
    ):
        """
        Pairs from files of the Multimodal Universe.

        Parameters
        ----------
        path : str, `~pathlib.Path` or pair of them
            A Parquet file, a folder of them, a pattern such as ``"set/*.parquet"`` or
            a HATS catalogue, each of whose rows has an image of both surveys, as
            ``hsc_image`` and ``legacysurvey_image``. Or two of these, or two of HDF5
            files, with an ``image`` of one survey each; their galaxies are matched by
            ``ra`` and ``dec``. Files are read in batches of rows, and only the columns
            that are needed.
        surveys : tuple of str or `~astro_disentangle.Survey`
            The two surveys, in the order of a pair of paths.
        columns : sequence of str
            Columns of numbers to keep as ``truth``; of two tables with one of the same
            name, the first one's.
        radius : `~astropy.units.Quantity`, optional
            Within which galaxies of two tables match, 1 arcsec by default and at most
            2 arcsec. Who has more than one match is left out.
        n_max : int, optional
            At most this many pairs, the first that can be used.
        progress : bool
            Show a progress bar.

        Returns
        -------
        pairs : `PairedCutouts`
            In the order of the rows; of two tables, of the first one's. A row that
            cannot be used is left out, and a warning says how many are and why.

        Raises
        ------
        CutoutError
            If a file is missing or cannot be read, a column is missing, or there is
            no pair that can be used.
        SurveyMismatchError
            If ``surveys`` are not two.
        ImportError
            If pyarrow, or h5py, is not installed.
        ValueError
            If ``radius`` or ``n_max`` is out of range.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from pyarrow import parquet
        >>> from astro_disentangle import PairedCutouts
        >>> def image(band, scale):
        ...     flux = np.random.default_rng(0).normal(size=(1, 96, 96))
        ...     return {"band": [band], "flux": flux.tolist(), "scale": [scale]}
        >>> row = {"ra": 150.1, "dec": 2.2, "object_id": "17", "z": 0.3}
        >>> row["hsc_image"] = image("hsc-i", 0.168)
        >>> row["legacysurvey_image"] = image("des-r", 0.262)
        >>> path = Path(tempfile.mkdtemp()) / "pairs.parquet"
        >>> parquet.write_table(pa.Table.from_pylist([row]), path)
        >>> pairs = PairedCutouts.from_mmu(path, columns=["z"])
        >>> pairs, pairs.object_id, pairs.truth["z"].tolist()
        (<PairedCutouts hsc and legacy, 1 galaxies>, ['17'], [0.3])
        """
        from astro_disentangle.data.pair_sets import read_mmu

        return cls(
            **read_mmu(
                path,
                surveys=surveys,
                columns=columns,
                radius=radius,
                n_max=n_max,
                progress=progress,
            )
        )

    @classmethod
    def from_hats(
        cls,
        left,
        right,
        *,
        surveys=("hsc", "legacy"),
        radius=None,
        columns=(),
        n_max=None,
        progress=False,
    ):
        """
        Pairs from two HATS catalogues, which LSDB matches.

        Parameters
        ----------
        left, right : str, `~pathlib.Path` or ``lsdb.Catalog``
            Catalogues with an ``image`` of the Multimodal Universe. Of a path only the
            columns that are needed are read. LSDB has a partition of both in memory at
            a time. The right one should have a margin of ``radius`` or more, as
            collections do, or matches at the borders of partitions are missed.
        surveys : tuple of str or `~astro_disentangle.Survey`
            Survey of the left and of the right one.
        radius : `~astropy.units.Quantity`, optional
            Within which galaxies match, 1 arcsec by default and at most 2 arcsec. Who
            has more than one match is left out.
        columns : sequence of str
            Columns of numbers to keep as ``truth``; of two of the same name, that of
            the left catalogue.
        n_max : int, optional
            At most this many pairs, the first that are read.
        progress : bool
            Show a progress bar.

        Returns
        -------
        pairs : `PairedCutouts`
            In the order of right ascension. A galaxy that cannot be used is left out,
            and a warning says how many are and why.

        Raises
        ------
        CutoutError
            If a catalogue cannot be opened or lacks a column, or there is no pair that
            can be used.
        SurveyMismatchError
            If ``surveys`` are not two.
        ImportError
            If LSDB is not installed.
        ValueError
            If ``radius`` or ``n_max`` is out of range.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import lsdb
        >>> import numpy as np
        >>> from nested_pandas import NestedFrame
        >>> from astro_disentangle import PairedCutouts
        >>> folder = Path(tempfile.mkdtemp())
        >>> for band, scale in (("hsc-i", 0.168), ("des-r", 0.262)):
        ...     flux = np.random.default_rng(0).normal(size=(1, 96, 96)).tolist()
        ...     image = NestedFrame({"band": [band], "flux": flux, "scale": [scale]})
        ...     galaxies = NestedFrame({"ra": [150.1], "dec": [2.2]})
        ...     galaxies = galaxies.join_nested(image, "image")
        ...     catalog = lsdb.from_dataframe(galaxies, catalog_name=band)
        ...     catalog.write_catalog(folder / band, progress_bar=False)
        >>> PairedCutouts.from_hats(folder / "hsc-i", folder / "des-r")
        <PairedCutouts hsc and legacy, 1 galaxies>
        """
        from astro_disentangle.data.pair_sets import read_hats

        return cls(
            **read_hats(
                left,
                right,
                surveys=surveys,
                radius=radius,
                columns=columns,
                n_max=n_max,
                progress=progress,
            )
        )

    def write(self, path, *, overwrite=False):
        """
        Write the pairs as a folder that `from_folder` reads.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The folder; it is made.
        overwrite : bool
            Replace files that are there.

        Raises
        ------
        OSError
            If a file is there and ``overwrite`` is False.
        """
        for survey in self.surveys:
            folder = Path(path) / survey
            folder.mkdir(parents=True, exist_ok=True)
            for row, cutout in enumerate(self.cutouts(survey)):
                cutout.write(folder / f"{row:06d}.fits", overwrite=overwrite)


class _Views(Sequence):
    """Cut-outs made from the rows of a batch when they are asked for."""

    def __init__(self, batch, sky, object_id):
        self._batch, self._sky, self._object_id = batch, sky, object_id

    def __len__(self):
        return len(self._batch)

    def __getitem__(self, row):
        from astro_disentangle.data.write import row_to_cutout

        if isinstance(row, slice):
            return [self[index] for index in range(len(self))[row]]
        row = range(len(self))[row]
        meta = {"OBJECT": self._object_id[row]}
        coord = _coord(self._sky[row])
        return row_to_cutout(self._batch, row, coord=coord, meta=meta)


def _coord(place):
    """A place as a SkyCoord, or None where it is unknown."""
    from astropy.coordinates import SkyCoord

    return SkyCoord(*place, unit="deg") if np.isfinite(place).all() else None


def _check_same_sky(first, second):
    """Raise where the two cut-outs of a pair are not of one place on the sky."""
    from astropy.coordinates import angular_separation

    places = np.radians([*first.T, *second.T])
    apart = np.degrees(angular_separation(*places)) * 3600
    if (wrong := apart > 2).any():
        row = int(np.argmax(wrong))
        raise CutoutError(
            "the cut-outs of a pair must show the same galaxy; those of pair "
            f"{row} are {apart[row]:.1f} arcsec apart. Are both sides in one order?"
        )
