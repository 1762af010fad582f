# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The catalogue that is read, and which of its columns are.

A catalogue that is given by its path is read from its Parquet files in batches: the
memory needed is that of a batch, and what one row holds cannot hinder the reading of
another. One that is given as an ``lsdb.Catalog`` may be the result of a search or of a
cross-match; LSDB makes its partitions, a whole one at a time.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from astro_disentangle.data.mmu import is_row
from astro_disentangle.quality import CutoutError, SurveyMismatchError

__all__ = ["Columns", "Source", "open_source"]

#: What is read of an image.
_FIELDS = ("band", "flux", "ivar", "mask", "psf_fwhm", "scale")
#: Columns that the output has of its own.
_OWN = ("physics", "instrument", "flags", "survey", "n_donors")
#: Bytes that are read at a time from the file of a partition.
_BUFFER = 2**20


@dataclass(frozen=True)
class Columns:
    """
    Which columns of the input are read, and as what.

    Parameters
    ----------
    image : str or None
        The column of images; None where the fields of the image are columns.
    fields : tuple of str
        Fields of the image that are there.
    ra, dec : str
        Columns of the place on the sky, degrees.
    object_id : str or None
        Column of the name.
    healpix : str or None
        Column of the spatial index of order 29.
    carried : tuple of str
        Columns that the output has too.
    """

    image: str | None
    fields: tuple
    ra: str
    dec: str
    object_id: str | None
    healpix: str | None
    carried: tuple

    def plain(self):
        """Names of all columns but that of the image (list of str)."""
        names = [self.ra, self.dec, self.object_id, self.healpix, *self.carried]
        names += self.fields if self.image is None else ()
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Source:
    """
    A catalogue and what of it is read.

    Parameters
    ----------
    catalog : ``hats.catalog.Catalog`` or ``lsdb.Catalog``
        The catalogue.
    info : ``hats`` table properties
        Its properties.
    columns : `Columns`
        What is read.
    place : str
        Where the catalogue is.
    """

    catalog: object
    info: object
    columns: Columns
    place: str

    @property
    def name(self):
        """Name of the catalogue (str)."""
        return self.info.catalog_name

    def identity(self):
        """
        What tells this catalogue from others.

        Returns
        -------
        identity : str
            Its name and number of rows; of an ``lsdb.Catalog`` its partitions and the
            region and filters it was opened with.
        """
        if not hasattr(self.catalog, "to_delayed"):
            return f"{self.name}, {self.info.total_rows} rows"
        config = self.catalog.loading_config
        search = getattr(getattr(config, "search_filter", None), "__dict__", {})
        kinds = (bool, int, float, str, list, tuple)
        region = sorted((k, v) for k, v in search.items() if isinstance(v, kinds))
        pixels = sorted((pixel.order, pixel.pixel) for pixel in self.pixels())
        seen = repr((pixels, region, getattr(config, "filters", None)))
        return f"{self.name}, {hashlib.sha256(seen.encode()).hexdigest()[:16]}"

    def pixels(self):
        """
        The partitions.

        Returns
        -------
        pixels : list of ``hats.HealpixPixel``
            In the order of the catalogue.
        """
        return list(self.catalog.get_healpix_pixels())

    def batches(self, pixel, size):
        """
        Rows of a partition.

        Parameters
        ----------
        pixel : ``hats.HealpixPixel``
            The partition.
        size : int
            Rows at a time.

        Yields
        ------
        batch : `pyarrow.RecordBatch`
            At most ``size`` rows of the columns that are read.
        """
        if hasattr(self.catalog, "to_delayed"):
            yield from self._made(pixel, size)
        else:
            yield from self._stored(pixel, size)

    def _made(self, pixel, size):
        """Batches of a partition that LSDB makes, in this thread."""
        (delayed,) = self.catalog.partitions[[pixel]].to_delayed()
        frame = delayed.compute(scheduler="synchronous")
        yield from frame.to_pyarrow().to_batches(max_chunksize=size)

    def _stored(self, pixel, size):
        """Batches of the files of a partition."""
        from pyarrow.parquet import ParquetFile

        wanted, image = self.columns.plain(), self.columns.image
        for path in self._files(pixel):
            with path.open("rb") as handle:
                file = ParquetFile(handle, buffer_size=_BUFFER, pre_buffer=False)
                nested = [f"{image}.{field}" for field in self.columns.fields]
                yield from file.iter_batches(
                    batch_size=size,
                    columns=wanted + (nested if image is not None else []),
                )

    def _files(self, pixel):
        from hats.io import pixel_catalog_file

        path = pixel_catalog_file(
            self.catalog.catalog_base_dir, pixel, npix_suffix=self.info.npix_suffix
        )
        if self.info.npix_suffix != "/":
            return [path]
        return sorted(part for part in path.iterdir() if part.suffix == ".parquet")


def open_source(catalog, *, survey=None, columns=()):
    """
    Look at a catalogue, without reading its rows.

    Parameters
    ----------
    catalog : str, `~pathlib.Path`, ``UPath`` or ``lsdb.Catalog``
        A HATS catalogue or collection, or what LSDB made of one.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; it chooses the image of rows that have two.
    columns : sequence of str
        Columns that the output shall have too.

    Returns
    -------
    source : `Source`
        The catalogue and what of it is read.

    Raises
    ------
    CutoutError
        If there is no catalogue, or it lacks images or a column.
    SurveyMismatchError
        If it cannot be told which of its images is meant.
    """
    place = str(getattr(getattr(catalog, "hc_structure", None), "catalog_path", ""))
    if hasattr(catalog, "to_delayed"):
        names, info = list(catalog.columns), catalog.hc_structure.catalog_info
        index = catalog.meta.index.name
        chosen = _choose([*names, index], None, info, survey, columns)
        wanted = [n for n in (*chosen.plain(), chosen.image) if n not in (None, index)]
        return Source(catalog[wanted], info, chosen, place)
    catalog, place = _open(catalog)
    schema, info = catalog.schema, catalog.catalog_info
    return Source(
        catalog, info, _choose(schema.names, schema, info, survey, columns), place
    )


def _open(path):
    """The catalogue of a path, the main one of a collection, and where it is."""
    import hats

    try:
        found = hats.read_hats(path, read_moc=False)
    except Exception as error:  # readers of catalogues raise many types
        raise CutoutError(
            f"'catalog' must be a HATS catalogue; cannot open '{path}': {error}"
        ) from error
    catalog = getattr(found, "main_catalog", found)
    if getattr(catalog, "schema", None) is None:
        raise CutoutError(
            f"'catalog' must have its columns in 'dataset/_common_metadata'; '{path}' "
            "has not. Write it anew with hats-import or LSDB."
        )
    place = str(path)
    return catalog, str(Path(place).resolve()) if Path(place).exists() else place


def _choose(names, schema, info, survey, carried):
    """The columns that are read, of those that are there."""
    carried = tuple(dict.fromkeys(carried))
    missing = [name for name in (*carried, info.ra_column) if name not in names]
    if missing:
        raise CutoutError(
            f"'columns' must be columns of the catalogue; {missing} are not among "
            f"{sorted(n for n in names if n)}."
        )
    if taken := [name for name in carried if name in _OWN]:
        raise CutoutError(
            f"'columns' must not have the names of the latents; got {taken}. Rename "
            "them in the catalogue."
        )
    image, index = _image(names, survey), info.healpix_column
    fields = _FIELDS
    if image is None:
        fields = tuple(name for name in _FIELDS if name in names)
    elif schema is not None:
        there = [field.name for field in schema.field(image).type]
        fields = tuple(name for name in _FIELDS if name in there)
    return Columns(
        image=image,
        fields=fields,
        ra=info.ra_column,
        dec=info.dec_column,
        object_id="object_id" if "object_id" in names else None,
        healpix=index if index in names else None,
        carried=tuple(n for n in carried if n not in ("object_id", index)),
    )


def _image(names, survey):
    """The column of images, or None where the fields of one are columns."""
    if {"band", "flux"} <= set(names):
        return None
    images = [name for name in names if name is not None and is_row({name: None})]
    survey = str(getattr(survey, "name", survey or ""))
    if len(images) > 1 and survey:
        images = [n for n in images if n.startswith(survey)] or images
    if not images:
        raise CutoutError(
            "'catalog' must have a column 'image' of the Multimodal Universe; got the "
            f"columns {sorted(n for n in names if n)}."
        )
    if len(images) > 1:
        raise SurveyMismatchError(
            f"the catalogue has the images {images}; say by survey= which of them is "
            "meant."
        )
    return images[0]
