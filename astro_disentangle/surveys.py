# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The surveys that the package describes."""

from pathlib import Path

from astro_disentangle.quality import SurveyMismatchError
from astro_disentangle.survey import Survey

__all__ = ["SURVEYS", "get_survey", "read_survey", "survey_table"]

#: Hyper Suprime-Cam, Wide layer (seeing and depth: arXiv:2108.13045, table 1).
HSC = Survey(
    name="hsc",
    bands=("g", "r", "i", "z", "y"),
    filters=(
        "hsc2017-g",
        "hsc2017-r2",
        "hsc2017-i2",
        "hsc2017-z",
        "hsc2017-y",
    ),
    pixel_scale=0.168,
    zero_point=27.0,
    unit="adu",
    stamp_size=48,
    patch_size=4,
    psf_fwhm=(0.79, 0.75, 0.61, 0.68, 0.68),
    psf_scatter=(0.12, 0.15, 0.10, 0.12, 0.13),
    psf_beta=2.3,
    depth=(26.4, 26.1, 25.9, 25.2, 24.4),
    depth_scatter=(0.30, 0.30, 0.30, 0.30, 0.30),
    noise_correlation=(0.09, -0.05, 0.03),
    saturation=(17.4, 18.1, 18.3, 17.5, 17.0),
)

#: DESI Legacy Imaging Surveys, DECam part (depth: DR9 and DR10 descriptions).
LEGACY = Survey(
    name="legacy",
    bands=("g", "r", "i", "z"),
    filters=("decamDR1-g", "decamDR1-r", "decamDR1-i", "decamDR1-z"),
    pixel_scale=0.262,
    zero_point=22.5,
    unit="nmgy",
    stamp_size=32,
    patch_size=4,
    psf_fwhm=(1.29, 1.18, 1.10, 1.11),
    psf_scatter=(0.13, 0.13, 0.13, 0.13),
    psf_beta=3.0,
    depth=(24.9, 24.4, 24.1, 23.5),
    depth_scatter=(0.30, 0.40, 0.35, 0.35),
    noise_correlation=(0.15, -0.10, 0.04),
    noise_factor=0.89,
    psf_ellipticity=0.05,
    saturation=(15.2, 15.7, 15.8, 15.5),
)

#: The northern part of the Legacy Surveys: BASS g and r, MzLS z (seeing: BASS DR2;
#: depth: DR9 description; noise of a BASS g image, whose pixels of 0.454 arcsec the
#: coadd samples finely).
LEGACY_NORTH = Survey(
    name="legacy-north",
    bands=("g", "r", "z"),
    filters=("BASS-g", "BASS-r", "MzLS-z"),
    pixel_scale=0.262,
    zero_point=22.5,
    unit="nmgy",
    stamp_size=32,
    patch_size=4,
    psf_fwhm=(1.60, 1.42, 1.04),
    psf_scatter=(0.13, 0.13, 0.13),
    psf_beta=3.5,
    depth=(24.3, 23.7, 23.35),
    depth_scatter=(0.12, 0.15, 0.15),
    noise_correlation=(0.59, -0.02, -0.13, 0.015, 0.035),
    noise_factor=0.87,
    psf_ellipticity=0.08,
)

#: Dark Energy Survey DR2 coadds (seeing: DES DR2; depth: the griz histograms of the
#: Legacy Surveys over the DES area, Y from DES DR2's 2 arcsec apertures).
DES = Survey(
    name="des",
    bands=("g", "r", "i", "z", "Y"),
    filters=("decamDR1-g", "decamDR1-r", "decamDR1-i", "decamDR1-z", "decamDR1-Y"),
    pixel_scale=0.263,
    zero_point=30.0,
    unit="adu",
    stamp_size=32,
    patch_size=4,
    psf_fwhm=(1.11, 0.95, 0.88, 0.83, 0.90),
    psf_scatter=(0.15, 0.15, 0.15, 0.15, 0.15),
    psf_beta=3.0,
    depth=(25.25, 25.05, 24.5, 23.9, 22.4),
    depth_scatter=(0.2, 0.2, 0.2, 0.2, 0.2),
    noise_correlation=(0.15, 0.0, 0.06),
    noise_factor=0.93,
    psf_ellipticity=0.05,
    saturation=(15.2, 15.7, 15.8, 15.5, 15.0),
)

#: Sloan Digital Sky Survey (seeing: quartiles in r, the other bands by the 1/5 power
#: of the wavelength; depth: magnitudes of 95% completeness).
SDSS = Survey(
    name="sdss",
    bands=("u", "g", "r", "i", "z"),
    filters=("sdss2010-u", "sdss2010-g", "sdss2010-r", "sdss2010-i", "sdss2010-z"),
    pixel_scale=0.396,
    zero_point=22.5,
    unit="nmgy",
    stamp_size=21,
    patch_size=1,
    psf_fwhm=(1.60, 1.51, 1.43, 1.38, 1.33),
    psf_scatter=(0.15, 0.15, 0.15, 0.15, 0.15),
    psf_beta=3.0,
    depth=(22.0, 22.2, 22.2, 21.3, 20.5),
    depth_scatter=(0.2, 0.2, 0.2, 0.2, 0.2),
)

#: Kilo-Degree Survey DR4 (depth in 2 arcsec apertures; OmegaCAM's filters are close
#: to those of SDSS, whose curves stand for them).
KIDS = Survey(
    name="kids",
    bands=("u", "g", "r", "i"),
    filters=("sdss2010-u", "sdss2010-g", "sdss2010-r", "sdss2010-i"),
    pixel_scale=0.20,
    zero_point=0.0,
    unit="adu",
    stamp_size=42,
    patch_size=3,
    psf_fwhm=(1.00, 0.88, 0.70, 0.80),
    psf_scatter=(0.15, 0.15, 0.15, 0.15),
    psf_beta=3.0,
    depth=(24.23, 25.12, 25.02, 23.68),
    depth_scatter=(0.2, 0.2, 0.2, 0.2),
)

#: Rubin Observatory's LSST after ten years (depth: RTN-095; seeing at airmass 1.2).
LSST = Survey(
    name="lsst",
    bands=("u", "g", "r", "i", "z", "y"),
    filters=(
        "lsst2023-u",
        "lsst2023-g",
        "lsst2023-r",
        "lsst2023-i",
        "lsst2023-z",
        "lsst2023-y",
    ),
    pixel_scale=0.20,
    zero_point=31.4,
    unit="nJy",
    stamp_size=42,
    patch_size=3,
    psf_fwhm=(0.90, 0.86, 0.81, 0.79, 0.77, 0.76),
    psf_scatter=(0.15, 0.15, 0.15, 0.15, 0.15, 0.15),
    psf_beta=3.0,
    depth=(25.73, 26.86, 26.88, 26.34, 25.63, 24.87),
    depth_scatter=(0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
)

#: Euclid's merged mosaics, VIS and NISP on pixels of 0.1 arcsec (VIS: Q1, from 10
#: sigma in 1.3 arcsec; NISP and the zero point are not yet confirmed).
EUCLID = Survey(
    name="euclid",
    bands=("VIS", "Y", "J", "H"),
    filters=("Euclid-VIS", "Euclid-Y", "Euclid-J", "Euclid-H"),
    pixel_scale=0.10,
    zero_point=23.9,
    unit="uJy",
    stamp_size=84,
    patch_size=6,
    psf_fwhm=(0.16, 0.35, 0.35, 0.35),
    psf_scatter=(0.03, 0.03, 0.03, 0.03),
    psf_beta=2.5,
    depth=(26.35, 24.3, 24.3, 24.3),
    depth_scatter=(0.1, 0.1, 0.1, 0.1),
    sky_brightness=(22.3, 22.1, 22.1, 22.2),
)

#: The surveys that the package describes, by name. The packaged weights are of the
#: first two; the others are there to read cut-outs and to train with.
SURVEYS = {
    survey.name: survey
    for survey in (HSC, LEGACY, LEGACY_NORTH, DES, SDSS, KIDS, LSST, EUCLID)
}


def get_survey(survey):
    """
    A survey by name, or the survey itself.

    Parameters
    ----------
    survey : str or `Survey`
        Name of a survey that the package describes, in any case, or a survey of
        the user's.

    Returns
    -------
    survey : `Survey`
        The survey.

    Raises
    ------
    SurveyMismatchError
        If the name is unknown.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> get_survey("legacy").pixel_scale
    0.262
    """
    if isinstance(survey, Survey):
        return survey
    try:
        return SURVEYS[survey.strip().lower()]
    except (KeyError, AttributeError):
        raise SurveyMismatchError(
            f"'survey' must be one of {sorted(SURVEYS)} or a Survey; got {survey!r}."
        ) from None


def read_survey(name):
    """
    A survey by name, or from a file that describes it.

    Parameters
    ----------
    name : str
        As `get_survey` takes it, or a file of `Survey.to_json
        <astro_disentangle.Survey.to_json>`, ``*.json``.

    Returns
    -------
    survey : `Survey`
        The survey.

    Raises
    ------
    SurveyMismatchError
        If the name is unknown.
    OSError
        If the file cannot be read.
    ValueError
        If it describes no survey.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.surveys import read_survey
    >>> path = Path(tempfile.mkdtemp()) / "kids.json"
    >>> _ = path.write_text(get_survey("kids").to_json())
    >>> read_survey(str(path)) == get_survey("kids")
    True
    """
    if name.endswith(".json"):
        return Survey.from_json(Path(name).read_text(encoding="utf-8"))
    return get_survey(name)


def survey_table():
    """
    The described surveys as reStructuredText, for the documentation.

    Returns
    -------
    text : str
        A list-table with bands, pixel scale, unit, FWHM and depth.

    Examples
    --------
    >>> from astro_disentangle.surveys import survey_table
    >>> "legacy-north" in survey_table()
    True
    """
    rows = [
        ("name", "bands", "pixel", "unit", "zero point", "FWHM", "5 sigma depth"),
        *(
            (
                f"``{survey.name}``",
                " ".join(survey.bands),
                f'{survey.pixel_scale}"',
                survey.unit,
                f"{survey.zero_point}",
                " ".join(f"{value:.2f}" for value in survey.psf_fwhm),
                " ".join(f"{value:.1f}" for value in survey.depth),
            )
            for survey in SURVEYS.values()
        ),
    ]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'*' if not i else ' '} - {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"
