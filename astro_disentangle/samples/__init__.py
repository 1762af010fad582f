# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Small real cut-outs that come with the package.

Faint galaxies of Hyper Suprime-Cam and of the Legacy Surveys, one FITS file
per band, from public repositories (``CREDITS.rst``). They serve the demo, the
examples and the tests; nothing was trained on them.
"""

from pathlib import Path

__all__ = ["load_sample", "sample_names"]

_FOLDER = Path(__file__).parent


def sample_names(survey=None):
    """
    Names of the packaged cut-outs.

    Parameters
    ----------
    survey : {"hsc", "legacy"}, optional
        Only those of this survey; all of them by default.

    Returns
    -------
    names : list of str
        The names in alphabetical order.

    Raises
    ------
    ValueError
        If no cut-out of that survey is packaged.

    Examples
    --------
    >>> from astro_disentangle.samples import sample_names
    >>> sample_names("legacy")
    ['legacy_diffuse', 'legacy_faint', 'legacy_inclined', 'legacy_round']
    """
    surveys = sorted({path.parent.name for path in _FOLDER.glob("*/*.fits")})
    if survey is not None and survey not in surveys:
        raise ValueError(f"'survey' must be one of {surveys}; got {survey!r}.")
    chosen = surveys if survey is None else [survey]
    files = (path for name in chosen for path in (_FOLDER / name).glob("*.fits"))
    return sorted({path.stem.rpartition("_")[0] for path in files})


def load_sample(name):
    """
    One packaged cut-out, as it would be read from disk.

    Parameters
    ----------
    name : str
        One of `sample_names`.

    Returns
    -------
    images : dict of str to `~astropy.nddata.CCDData`
        Band to image, blue to red: 64 x 64 px (``hsc``, ``adu``) or 44 x 44 px
        (``legacy``, ``nmgy``), float32, with the galaxy in the middle, and with
        WCS, PSF, mask and uncertainty where the source has them.

    Raises
    ------
    ValueError
        If no sample has that name.

    Examples
    --------
    >>> from astro_disentangle.samples import load_sample
    >>> images = load_sample("legacy_round")
    >>> list(images), images["r"].shape, images["r"].meta["SURVEY"]
    (['g', 'r', 'z'], (44, 44), 'legacy')
    """
    from astropy.nddata import CCDData

    if name not in sample_names():
        raise ValueError(f"'name' must be one of {sample_names()}; got {name!r}.")
    paths = {path.stem[-1]: path for path in _FOLDER.glob(f"*/{name}_?.fits")}
    return {band: CCDData.read(paths[band]) for band in "grizy" if band in paths}
