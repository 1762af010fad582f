# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The pixels of the survey to paint, over all of a mosaic."""

from dataclasses import dataclass

import numpy as np

from astro_disentangle.data.wcs import directions, pixel_of, sky_of, tangent_wcs
from astro_disentangle.data.write import checked_target
from astro_disentangle.quality import CutoutError

__all__ = ["Grid", "grid_of"]

#: Pixels by which the edge of a tile, which is north up, may miss the image's.
_MISS = 0.25
#: Rows that are mapped at a time.
_ROWS = 256


@dataclass(frozen=True)
class Grid:
    """
    Pixels of an image to be painted.

    Parameters
    ----------
    wcs : WCS
        2-D celestial, north up, of the survey's own pixels.
    shape : tuple of int
        (ny, nx).
    """

    wcs: object
    shape: tuple

    def to_sky(self, place):
        """Right ascension and declination of pixels (N, 2), ICRS, degrees, (N, 2)."""
        return np.stack(sky_of(self.wcs, *np.asarray(place, float).T), 1)

    def from_sky(self, sky):
        """Pixels (N, 2) of right ascension and declination (N, 2)."""
        return np.stack(pixel_of(self.wcs, *np.asarray(sky, float).T), 1)

    @property
    def origin(self):
        """
        The pixel (x, y) from which pixels are counted for their noise.

        It is that of the tangent point, so that mosaics of one projection have the
        same noise where they overlap; the first pixel where there is no such point.
        """
        crpix = getattr(getattr(self.wcs, "wcs", None), "crpix", (1, 1))
        return tuple(round(value) - 1 for value in crpix)

    def seen(self, image):
        """
        Which pixels a mosaic shows in at least one band, (ny, nx) bool.

        Parameters
        ----------
        image : `~astro_disentangle.SurveyCutout`
            The mosaic.
        """
        good = np.isfinite(image.data)
        if image.mask is not None:
            good &= ~image.mask
        good = good.any(0)
        seen = np.zeros(self.shape, bool)
        for start in range(0, self.shape[0], _ROWS):
            part = seen[start : start + _ROWS]
            y, x = np.indices(part.shape)
            sky = self.to_sky(np.stack([x.ravel(), y.ravel() + start], 1))
            place = np.stack(pixel_of(image.wcs, *sky.T), 1)
            inside = np.isfinite(place).all(1)
            column, row = np.round(np.where(inside[:, None], place, -1)).astype(int).T
            inside &= (column >= 0) & (column < good.shape[1])
            inside &= (row >= 0) & (row < good.shape[0])
            flat = np.zeros(part.size, bool)
            flat[inside] = good[row[inside], column[inside]]
            part[:] = flat.reshape(part.shape)
        return seen


def grid_of(image, survey, wcs=None):
    """
    The pixels on which a mosaic is painted as another survey.

    Parameters
    ----------
    image : `~astro_disentangle.SurveyCutout`
        The mosaic.
    survey : `~astro_disentangle.Survey`
        The survey to paint.
    wcs : WCS, optional
        That of the image that is wanted, with ``pixel_shape``; by default gnomonic
        about the mosaic's own tangent point, else its middle, and as large as the
        mosaic.

    Returns
    -------
    grid : `Grid`
        The pixels.

    Raises
    ------
    CutoutError
        If the mosaic has no WCS, or the pixels asked for are not those of the survey,
        north up, to a quarter of a pixel in a tile.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.mosaics.grid import grid_of
    >>> from astro_disentangle.simulation.field import simulate_field
    >>> field = simulate_field(30 * u.arcsec, surveys=["hsc"], random_state=1)
    >>> grid_of(field.mosaics["hsc"], get_survey("legacy")).shape
    (117, 117)
    """
    if image.wcs is None:
        raise CutoutError(
            "a mosaic needs a WCS to be translated; set the 'wcs' of its images."
        )
    if wcs is not None:
        grid = Grid(*checked_target(wcs))
        _check(grid, survey, "'wcs' must be that of an image on the pixels of")
        return grid
    grid = _around(image, survey)
    _check(grid, survey, "the mosaic cannot be painted in one piece on the pixels of")
    return grid


def _around(image, survey):
    """The survey's pixels over all of a mosaic."""
    ny, nx = image.shape[1:]
    x, y = np.arange(nx + 1) - 0.5, np.arange(ny + 1) - 0.5
    border = np.concatenate(
        [
            np.stack([x, 0 * x - 0.5], 1),
            np.stack([x, 0 * x + ny - 0.5], 1),
            np.stack([0 * y - 0.5, y], 1),
            np.stack([0 * y + nx - 0.5, y], 1),
        ]
    )
    sky = np.stack(sky_of(image.wcs, *border.T), 1)
    tangent = _tangent_point(image, survey)
    matrix = np.eye(2) / survey.pixel_scale
    first = Grid(tangent_wcs(tangent, matrix, 0, 0, (1, 1)), (1, 1))
    place = first.from_sky(sky)
    if not np.isfinite(place).all():
        raise CutoutError("the WCS of the mosaic cannot be evaluated at its edge.")
    low = np.floor(place.min(0) + 0.5).astype(int)
    nx, ny = (np.ceil(place.max(0) - 0.5).astype(int) - low + 1).tolist()
    wcs = tangent_wcs(tangent, matrix, *(-low).tolist(), (ny, nx))
    return Grid(wcs, (ny, nx))


def _tangent_point(image, survey):
    """Tangent point of a mosaic, its middle where that is far or there is none."""
    ny, nx = image.shape[1:]
    middle = directions(image.wcs, (nx - 1) / 2, (ny - 1) / 2)[0]
    own = getattr(image.wcs, "wcs", None)
    if own is None or not str(own.ctype[0]).endswith("TAN") or own.radesys != "ICRS":
        return middle
    point = tuple(float(value) for value in own.crval)
    # Lines to the pole close in on one another by this angle.
    turn = np.deg2rad((middle[0] - point[0] + 180) % 360 - 180)
    turn *= np.sin(np.deg2rad(middle[1]))
    return point if abs(turn) * survey.stamp_size / 2 < _MISS / 2 else middle


def _check(grid, survey, begin):
    """Raise where tiles of a survey, north up, do not lie on the pixels of a grid."""
    ny, nx = grid.shape
    for x, y in ((0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)):
        _, matrix = directions(grid.wcs, x, y)
        off = np.abs(matrix * survey.pixel_scale - np.eye(2)).sum(1).max()
        off *= survey.stamp_size / 2
        if not off <= _MISS:
            raise CutoutError(
                f"{begin} {survey.name}, north up, {survey.pixel_scale} arcsec; at "
                f"pixel ({x}, {y}) the edge of a tile would be {off:.2f} px off, at "
                f"most {_MISS} are allowed. Give smaller parts, or reproject the "
                "result."
            )
