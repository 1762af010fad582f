# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Files that the commands read and write."""

import re
import sys
from pathlib import Path

__all__ = [
    "check_table",
    "distinct_names",
    "read_files",
    "read_folders",
    "read_pairs",
    "read_table",
    "read_wcs",
    "safe_name",
    "write_bands",
]

#: Formats that hold a latent of many numbers in one column.
_TABLES = (".ecsv", ".fits")


def read_pairs(path, surveys):
    """
    Pairs from folders of FITS files, or from tables of both images.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        What ``--pairs`` says.
    surveys : tuple of str or `~astro_disentangle.Survey`
        The two surveys.

    Returns
    -------
    pairs : `~astro_disentangle.PairedCutouts`
        All of them, in memory.
    """
    from astro_disentangle.data.pair_sets import is_pair_set
    from astro_disentangle.data.pairs import PairedCutouts

    if not is_pair_set(path):
        return PairedCutouts.from_folder(path, surveys=surveys)
    return PairedCutouts.from_mmu(path, surveys=surveys, progress=sys.stderr.isatty())


def read_files(paths, band):
    """
    Cut-outs from FITS files: whole ones, or one band each, by object.

    Parameters
    ----------
    paths : iterable of str or `~pathlib.Path`
        The files.
    band : str or None
        Band of files that do not say theirs.

    Returns
    -------
    cutouts : list
        `~astro_disentangle.SurveyCutout`, or dict of band to
        `~astropy.nddata.CCDData`.

    Raises
    ------
    CutoutError
        If a file cannot be read, or does not say its band, or two hold the same.
    """
    from astro_disentangle.data.headers import check_fits
    from astro_disentangle.quality import CutoutError

    whole, single = [], {}
    for path in map(Path, paths):
        check_fits(path)
        try:
            image = _read_image(path)
        except Exception as error:  # damaged files raise many types
            if isinstance(error, CutoutError):
                raise
            raise CutoutError(f"cannot read '{path}' as FITS: {error}") from error
        if not hasattr(image, "header"):
            whole.append(image)
            continue
        name = str(image.meta.get("BAND") or band or "").strip()
        if not name:
            raise CutoutError(
                f"'{path}' does not say its band; give --band or a BAND header."
            )
        stem = re.sub(rf"[_.-]?{re.escape(name)}$", "", path.stem) or path.parent.name
        found = str(image.meta.get("OBJECT", "")).strip() or stem
        image.meta["OBJECT"] = found.encode("ascii", "replace").decode()
        image.meta["BAND"] = name
        group = single.setdefault((path.parent, found), {})
        if name in group:
            raise CutoutError(f"two files hold band {name!r} of {found!r}: '{path}'.")
        group[name] = image
    return [*whole, *single.values()]


def _read_image(path):
    """A whole cut-out, or the first image of a file."""
    import astropy.units as u
    from astropy.io import fits
    from astropy.nddata import CCDData

    from astro_disentangle.data.cutout import SurveyCutout

    with fits.open(path) as hdus:
        first = hdus[0].header
        if first.get("NAXIS", 0) == 0 and {"SURVEY", "BANDS"} <= set(first):
            return SurveyCutout.read(path)
        images = [
            number
            for number, hdu in enumerate(hdus)
            if hdu.is_image and hdu.header.get("NAXIS", 0)
        ]
        number = images[0] if images else 0
        # Without a unit the reader assumes the survey's and flags the row.
        told = "BUNIT" in hdus[number].header
    return CCDData.read(
        path, hdu=number, unit=None if told else u.dimensionless_unscaled
    )


def read_wcs(path):
    """
    WCS and size of the first image of a file that has one.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    wcs : `~astropy.wcs.WCS`
        2-D celestial.

    Raises
    ------
    CutoutError
        If the file cannot be read, or has none.
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    from astro_disentangle.data.headers import check_fits
    from astro_disentangle.quality import CutoutError

    check_fits(path)
    with fits.open(path) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.header.get("NAXIS", 0) and "CTYPE1" in hdu.header:
                return WCS(hdu.header).celestial
    raise CutoutError(f"'{path}' has no image with a WCS for --wcs.")


def distinct_names(names):
    """
    The names, numbered where one stands for several objects.

    Parameters
    ----------
    names : list of str
        Names of objects.

    Returns
    -------
    names : list of str
        Each only once.

    Examples
    --------
    >>> from astro_disentangle.commands.files import distinct_names
    >>> distinct_names(["a", "b", "a"])
    ['a_1', 'b', 'a_2']
    """
    return [
        f"{name}_{names[:place].count(name) + 1}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def write_bands(view, name, folder):
    """
    Write one FITS file per band.

    Parameters
    ----------
    view : `~astro_disentangle.SurveyCutout`
        The cut-out.
    name : str
        Of the object.
    folder : `~pathlib.Path`
        Where to.

    Returns
    -------
    paths : list of `~pathlib.Path`
        The files.
    """
    safe = safe_name(name)
    paths = []
    for band, image in view.items():
        path = folder / f"translated_{safe}_{band}.fits"
        image.write(path, overwrite=True)
        paths.append(path)
    return paths


def safe_name(name):
    """
    A name that can be that of a file.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    name : str
        Without what file systems do not like.

    Examples
    --------
    >>> from astro_disentangle.commands.files import safe_name
    >>> safe_name("NGC 1/a")
    'NGC_1_a'
    """
    return re.sub(r"[^\w.+-]+", "_", name)


def read_table(path):
    """
    A table from a file.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    table : `~astropy.table.QTable`
        The table.

    Raises
    ------
    CutoutError
        If there is none, or it cannot be read.
    """
    from astropy.table import QTable

    from astro_disentangle.quality import CutoutError

    if not Path(path).is_file():
        raise CutoutError(f"there is no file '{path}'.")
    try:
        return QTable.read(path)
    except Exception as error:  # readers of tables raise many types
        raise CutoutError(f"cannot read '{path}' as a table: {error}") from error


def check_table(path):
    """
    Raise where a table of latents cannot be written to a file of that name.

    Parameters
    ----------
    path : `~pathlib.Path`
        What ``--output`` says.

    Raises
    ------
    ValueError
        If the format cannot hold a latent in a column.
    """
    if path.suffix not in _TABLES:
        raise ValueError(f"'--output' must end in one of {_TABLES}; got '{path}'.")


def read_folders(path, surveys):
    """
    Cut-outs that `~astro_disentangle.SurveyCutout.write` wrote, by survey.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Folder with a folder for each survey, or for some of them.
    surveys : iterable of str
        Their names.

    Returns
    -------
    cutouts : dict of str to list of `~astro_disentangle.SurveyCutout`
        In the order of the names of the files.

    Raises
    ------
    CutoutError
        If there is no such folder, or a file cannot be read.
    """
    from astro_disentangle.data.cutout import SurveyCutout
    from astro_disentangle.quality import CutoutError

    found = {}
    for name in surveys:
        if files := sorted((Path(path) / name).glob("*.fits")):
            found[name] = [SurveyCutout.read(file) for file in files]
    if not found:
        raise CutoutError(
            f"'{path}' must have a folder of FITS files for one of {sorted(surveys)}."
        )
    return found
