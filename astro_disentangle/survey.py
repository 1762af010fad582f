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

__all__ = ["AB_FLUX_NJY", "Survey"]

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
        seeing, depth and noise, or of the patches a decoder paints; its images stay the
        same.

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
