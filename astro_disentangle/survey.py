# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A survey as a frozen value: what its images are made of.

Two surveys are two values of one class; a further one needs no new class.
Numbers are plain floats in the units that FITS headers use (arcsec and AB
magnitudes), so that a `Survey` is hashable and goes to JSON and back.
"""

import dataclasses
import json
import math
from dataclasses import dataclass

from astro_disentangle.quality import SurveyMismatchError

__all__ = ["SURVEYS", "Survey", "get_survey", "survey_table"]

#: Flux in nJy of a source of AB magnitude 0 (definition of the AB system).
AB_FLUX_NJY = 10.0 ** (-0.4 * 48.6) * 1e32

#: Parameters of a survey that its images follow from.
_OF_IMAGES = (
    "name",
    "bands",
    "filters",
    "pixel_scale",
    "zero_point",
    "unit",
    "stamp_size",
    "patch_size",
)


@dataclass(frozen=True)
class Survey:
    """
    An imaging survey.

    Parameters
    ----------
    name : str
        Short lower-case name.
    bands : tuple of str
        Band names, blue to red.
    filters : tuple of str
        Filter curve of each band, by its speclite name.
    pixel_scale : float
        Side of a pixel of the coadds in arcsec.
    zero_point : float
        AB magnitude of one flux unit of the images.
    unit : str
        Flux unit of the images, ``"adu"`` or ``"nmgy"`` or any other name that
        `astropy.units` knows.
    stamp_size : int
        Pixels on a side of the field that the model paints.
    patch_size : int
        Pixels on a side of a patch of the decoder; divides ``stamp_size``.
    psf_fwhm : tuple of float
        Median full width at half maximum of the PSF per band, arcsec.
    psf_scatter : tuple of float
        Relative standard deviation of ``psf_fwhm`` per band.
    psf_beta : float
        Moffat index of the typical PSF.
    depth : tuple of float
        Median 5 sigma point source depth per band, AB mag.
    depth_scatter : tuple of float
        Standard deviation of ``depth`` per band, mag.
    noise_correlation : tuple of float
        Correlation of the sky noise at lags 1, 2, 3, ... px along an axis.
    noise_factor : float
        Standard deviation of the sky noise of a pixel over the one that the
        uncertainty maps of the coadds claim, which know nothing of the
        correlation that resampling brings.
    psf_ellipticity : float
        Standard deviation of each component of the ellipticity of the PSF.
    zero_point_error : float
        Standard deviation of the zero points, mag.
    astrometric_error : float
        Standard deviation of positions along each axis, arcsec.
    saturation : tuple of float
        AB magnitude per band at which a point source saturates; none if empty.
    sky_brightness : tuple of float
        AB mag per square arcsec per band; that of a dark site if empty.

    Raises
    ------
    ValueError
        If a number is out of its range or the lengths differ.

    Examples
    --------
    >>> from astro_disentangle import Survey, get_survey
    >>> hsc = get_survey("hsc")
    >>> hsc.bands
    ('g', 'r', 'i', 'z', 'y')
    >>> Survey.from_json(hsc.to_json()) == hsc
    True
    """

    name: str
    bands: tuple
    filters: tuple
    pixel_scale: float
    zero_point: float
    unit: str
    stamp_size: int
    patch_size: int
    psf_fwhm: tuple
    psf_scatter: tuple
    psf_beta: float
    depth: tuple
    depth_scatter: tuple
    noise_correlation: tuple = (0.0, 0.0, 0.0)
    noise_factor: float = 1.0
    psf_ellipticity: float = 0.04
    zero_point_error: float = 0.01
    astrometric_error: float = 0.03
    saturation: tuple = ()
    sky_brightness: tuple = ()

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        per_band = ("filters", "psf_fwhm", "psf_scatter", "depth", "depth_scatter")
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(
                f"'bands' must be distinct names, at least one; got {self.bands!r}."
            )
        for name in per_band:
            if len(getattr(self, name)) != len(self.bands):
                raise ValueError(
                    f"{name!r} must have one value for each of the "
                    f"{len(self.bands)} bands; got {len(getattr(self, name))}."
                )
        for name in ("saturation", "sky_brightness"):
            if len(getattr(self, name)) not in (0, len(self.bands)):
                raise ValueError(
                    f"{name!r} must be empty or have one value for each of the "
                    f"{len(self.bands)} bands; got {len(getattr(self, name))}."
                )
        for name in ("psf_ellipticity", "zero_point_error", "astrometric_error"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name!r} must be at least 0; got {value}.")
        for name in ("pixel_scale", "psf_beta", "psf_fwhm", "noise_factor"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(x) and x > 0 for x in values):
                raise ValueError(f"{name!r} must be positive; got {value}.")
        if self.patch_size < 1 or self.stamp_size % self.patch_size:
            raise ValueError(
                "'patch_size' must divide 'stamp_size'; got "
                f"{self.patch_size} and {self.stamp_size}."
            )

    @property
    def field(self):
        """Side of the stamp in arcsec (float)."""
        return self.stamp_size * self.pixel_scale

    @property
    def nanojansky(self):
        """Flux in nJy of one flux unit of the images (float)."""
        return AB_FLUX_NJY * 10.0 ** (-0.4 * self.zero_point)

    def has_images_of(self, other):
        """
        Whether the images of two descriptions are interchangeable.

        Descriptions of one survey may come to differ in what they say of the usual
        seeing, depth and noise; its images stay the same.

        Parameters
        ----------
        other : `Survey`
            The other description.

        Returns
        -------
        same : bool
            Whether name, bands, filters, pixels, zero point and unit agree.

        Examples
        --------
        >>> import dataclasses
        >>> from astro_disentangle import get_survey
        >>> hsc = get_survey("hsc")
        >>> hsc.has_images_of(dataclasses.replace(hsc, psf_beta=2.5))
        True
        >>> hsc.has_images_of(dataclasses.replace(hsc, pixel_scale=0.2))
        False
        """
        return all(getattr(self, name) == getattr(other, name) for name in _OF_IMAGES)

    def pixel_noise(self, depth=None, psf_fwhm=None):
        """
        Standard deviation of the noise of one pixel for a given depth.

        The point source depth ``m5`` and the noise of a pixel are linked by the
        effective area of the PSF in pixels, ``N = 1 / sum(P**2)``, for a Moffat
        profile ``pi alpha**2 (2 beta - 1) / (beta - 1)**2``.

        Parameters
        ----------
        depth : sequence of float, optional
            5 sigma point source depth per band, AB mag; the survey's by default.
        psf_fwhm : sequence of float, optional
            FWHM per band, arcsec; the survey's by default.

        Returns
        -------
        sigma : tuple of float
            Noise per band in nJy.

        Examples
        --------
        >>> from astro_disentangle import get_survey
        >>> [round(s / 57.544, 3) for s in get_survey("hsc").pixel_noise()][:2]
        [0.034, 0.047]
        """
        depth = self.depth if depth is None else depth
        psf_fwhm = self.psf_fwhm if psf_fwhm is None else psf_fwhm
        beta = self.psf_beta
        sigma = []
        for m5, fwhm in zip(depth, psf_fwhm, strict=True):
            alpha = fwhm / self.pixel_scale / (2 * math.sqrt(2 ** (1 / beta) - 1))
            area = math.pi * alpha**2 * (2 * beta - 1) / (beta - 1) ** 2
            sigma.append(AB_FLUX_NJY * 10 ** (-0.4 * m5) / (5 * math.sqrt(area)))
        return tuple(sigma)

    def saturation_level(self):
        """
        Flux of a pixel that saturates.

        Returns
        -------
        level : tuple of float
            Per band in nJy: the peak of a point source of the survey's saturation
            magnitude under its usual seeing, ``F (beta - 1) / (pi alpha**2)`` for a
            Moffat profile; infinite if the survey names none.

        Examples
        --------
        >>> from astro_disentangle import get_survey
        >>> min(get_survey("legacy").saturation_level()) > 5e4
        True
        """
        if not self.saturation:
            return (math.inf,) * len(self.bands)
        beta, level = self.psf_beta, []
        for magnitude, fwhm in zip(self.saturation, self.psf_fwhm, strict=True):
            alpha = fwhm / self.pixel_scale / (2 * math.sqrt(2 ** (1 / beta) - 1))
            flux = AB_FLUX_NJY * 10 ** (-0.4 * magnitude)
            level.append(flux * (beta - 1) / (math.pi * alpha**2))
        return tuple(level)

    def to_json(self):
        """
        The survey as JSON text.

        Returns
        -------
        text : str
            JSON with one key per parameter.

        Examples
        --------
        >>> from astro_disentangle import get_survey
        >>> get_survey("legacy").to_json().startswith('{"name": "legacy"')
        True
        """
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text):
        """
        A survey from JSON text.

        Parameters
        ----------
        text : str or dict
            What `to_json` wrote, as text or already parsed.

        Returns
        -------
        survey : `Survey`
            The survey.

        Raises
        ------
        ValueError
            If a key is unknown or missing.

        Examples
        --------
        >>> from astro_disentangle import Survey, get_survey
        >>> Survey.from_json(get_survey("hsc").to_json()).name
        'hsc'
        """
        values = json.loads(text) if isinstance(text, str) else dict(text)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if name not in values and field.default is dataclasses.MISSING
        )
        if unknown or missing:
            raise ValueError(
                "a survey's JSON must have the parameters of Survey; unknown: "
                f"{unknown}, missing: {missing}."
            )
        return cls(**values)


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
    patch_size=3,
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
    patch_size=2,
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
    patch_size=2,
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
    patch_size=2,
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
    patch_size=3,
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


def survey_table():
    """
    The described surveys as reStructuredText, for the documentation.

    Returns
    -------
    text : str
        A list-table with bands, pixel scale, unit, FWHM and depth.

    Examples
    --------
    >>> from astro_disentangle.survey import survey_table
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
