# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Where the galaxy is in an image, and how the image lies on the sky."""

import functools
import math
import numbers
from dataclasses import dataclass, replace

import numpy as np

from astro_disentangle.data.units import lookup
from astro_disentangle.data.wcs import directions, pixel_of
from astro_disentangle.quality import CutoutError, SurveyMismatchError

__all__ = ["OutsideError", "Place", "locate", "on_grid", "window_size", "within"]


class OutsideError(CutoutError):
    """A position is not in the image."""


#: Side of the field that the encoders see in arcsec.
_FIELD = 48 * 0.168
#: A stamp of the survey's own size is cut where no pixel is farther than this
#: many pixels from its place on the survey's own grid.
_GRID_SHIFT = 0.5


@dataclass(frozen=True)
class Place:
    """
    The position of a galaxy in an image and the directions there.

    Parameters
    ----------
    x, y : float
        0-based pixel of the galaxy.
    matrix : `~numpy.ndarray`
        Shape (2, 2), pixels (x, y) per arcsec (west, north).
    sky : (float, float) or None
        Right ascension and declination, ICRS, degrees.
    swap, flip_x, flip_y : bool
        How arrays are turned so that x goes to the west and y to the north:
        swap the axes, then mirror. ``x``, ``y`` and ``matrix`` are after it.
    """

    x: float
    y: float
    matrix: np.ndarray
    sky: tuple | None = None
    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @functools.cached_property
    def scale(self):
        """Pixel scale in arcsec: square root of the area of a pixel."""
        (a, b), (c, d) = self.matrix.tolist()
        return 1 / math.sqrt(abs(a * d - b * c))

    def turn(self, array):
        """A view of a 2-D array, turned as said."""
        array = array.T if self.swap else array
        return array[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def upright(self, shape):
        """The same place in the turned image, which has shape (ny, nx) before."""
        ny, nx = shape
        x, y, matrix = self.x, self.y, self.matrix
        swap = abs(matrix[0, 1]) + abs(matrix[1, 0]) > abs(np.diag(matrix)).sum()
        if swap:
            x, y, nx, ny, matrix = y, x, ny, nx, matrix[::-1]
        flip_x, flip_y = bool(matrix[0, 0] < 0), bool(matrix[1, 1] < 0)
        x = nx - 1 - x if flip_x else x
        y = ny - 1 - y if flip_y else y
        sign = np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
        return replace(
            self,
            x=x,
            y=y,
            matrix=sign[:, None] * matrix,
            swap=bool(swap),
            flip_x=flip_x,
            flip_y=flip_y,
        )


def locate(wcs, shape, survey, *, meta=None, position=None, upright=True):
    """
    Find the galaxy in an image.

    Parameters
    ----------
    wcs : WCS or None
        2-D celestial WCS of the image.
    shape : tuple of int
        (ny, nx).
    survey : `~astro_disentangle.Survey`
        Whose pixel scale is expected.
    meta : mapping, optional
        May hold ``PIXSCALE`` in arcsec, used without a WCS, and ``XGALAXY`` and
        ``YGALAXY``, the 0-based pixel of the galaxy.
    position : `~astropy.coordinates.SkyCoord` or (float, float), optional
        Sky position or 0-based pixel (x, y); the centre of the image by default.
    upright : bool
        Turn the image so that x goes west and y goes north.

    Returns
    -------
    place : `Place`
        In the image as it is, or turned.

    Raises
    ------
    CutoutError
        If the WCS is degenerate or the position is not in the image.
    SurveyMismatchError
        If the pixel scale is beyond a factor 3 from the survey's.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.geometry import locate
    >>> place = locate(None, (48, 48), get_survey("hsc"))
    >>> place.x, round(place.scale, 3)
    (23.5, 0.168)
    """
    x, y = _pixel(wcs, shape, meta, position)
    if not within(x, y, shape):
        raise OutsideError(
            f"'position' must be in the image of {shape[1]} x {shape[0]} px; got pixel "
            f"({x:.1f}, {y:.1f})."
        )
    if wcs is None:
        scale = _assumed_scale(meta, survey)
        place = Place(x, y, np.eye(2) / scale)
    else:
        sky, matrix = directions(wcs, x, y)
        place = Place(x, y, matrix, sky)
    ratio = place.scale / survey.pixel_scale
    # The plates of a camera are a little off three times the pixels of another.
    if not 1 / 3.05 <= ratio <= 3.05:
        raise SurveyMismatchError(
            f"the pixel scale must be within a factor 3 of that of {survey.name}, "
            f"{survey.pixel_scale} arcsec; got {place.scale:.4g} arcsec. Check the "
            "WCS and 'survey'."
        )
    return place.upright(shape) if upright else place


def within(x, y, shape):
    """Whether a pixel is in an image of shape (ny, nx), bool."""
    return bool(-0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5)


def _pixel(wcs, shape, meta, position):
    from astropy.coordinates import SkyCoord

    if position is None:
        stored = lookup(meta, "XGALAXY"), lookup(meta, "YGALAXY")
        if all(isinstance(v, numbers.Real) and math.isfinite(v) for v in stored):
            return float(stored[0]), float(stored[1])
        return (shape[1] - 1) / 2, (shape[0] - 1) / 2
    if isinstance(position, SkyCoord):
        if not position.isscalar:
            raise CutoutError(
                "'position' must be one SkyCoord for each cut-out; got one of "
                f"shape {position.shape}."
            )
        if wcs is None:
            raise CutoutError(
                "'position' on the sky needs a WCS, and the cut-out has none; give "
                "a pixel (x, y)."
            )
        sky = position.icrs
        x, y = (float(v) for v in pixel_of(wcs, sky.ra.deg, sky.dec.deg))
    else:
        try:
            x, y = (float(value) for value in position)
        except (TypeError, ValueError, OverflowError):
            raise CutoutError(
                f"'position' must be a SkyCoord or a pixel (x, y); got {position!r}."
            ) from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise OutsideError(f"'position' must be in the image; got pixel ({x}, {y}).")
    return x, y


def _assumed_scale(meta, survey):
    given = lookup(meta, "PIXSCALE")
    if given is None:
        return survey.pixel_scale
    try:
        scale = float(given.to_value("arcsec") if hasattr(given, "unit") else given)
    except (TypeError, ValueError):
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise CutoutError(
            "meta['PIXSCALE'] must be a positive angle, a plain number in arcsec; "
            f"got {given!r}."
        )
    return scale


def window_size(place, survey):
    """
    Native pixels on a side of the window that covers the model's field.

    The survey's own stamp size where the image is on the survey's own grid, else
    as many pixels as the field needs, even or odd like the stamp.

    Parameters
    ----------
    place : `Place`
        From `locate`.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    size : int
        Pixels.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.geometry import locate, window_size
    >>> window_size(locate(None, (99, 99), get_survey("legacy")), get_survey("legacy"))
    32
    """
    if on_grid(place, survey):
        return survey.stamp_size
    half = max(_FIELD, survey.field) / 2
    size = math.ceil(2 * half * np.abs(place.matrix).sum(1).max()) + 2
    return size + (size - survey.stamp_size) % 2


def on_grid(place, survey):
    """Whether an image lies on the survey's own grid, to half a pixel (bool)."""
    ratio = place.scale / survey.pixel_scale
    ideal = np.eye(2) / place.scale
    shift = np.abs(place.matrix - ideal).sum(1).max() * survey.field / 2
    return bool(abs(ratio - 1) <= 0.02 and shift < _GRID_SHIFT)
