# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Where the galaxy is in the image of each band, and which of them sets the grid.

Most cut-outs have all bands on one grid. Bands of another size or WCS, as mosaics of
several cameras have them, are found by the sky position of the galaxy; the band of
the finest pixels sets the grid to which the others are brought.
"""

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord

from astro_disentangle.data.geometry import OutsideError, Place, locate, within
from astro_disentangle.data.wcs import pixel_of, same_grid
from astro_disentangle.quality import CutoutError

__all__ = ["Layout", "lay_out"]

#: Bands whose pixels are this close to those of the reference, in px, are not
#: resampled.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Layout:
    """
    The bands of a cut-out about the galaxy.

    Parameters
    ----------
    place : `~astro_disentangle.data.geometry.Place`
        The galaxy in the image of the reference band.
    wcs : WCS or None
        2-D celestial WCS of that image.
    shape : tuple of int
        (ny, nx) of that image.
    bands : dict of int to tuple
        By number of the survey's band, `~astro_disentangle.data.plane.Plane` and the
        `Place` of the galaxy in its image; bands that do not reach it are left out.
    """

    place: Place
    wcs: object
    shape: tuple
    bands: dict

    def congruent(self, place, size):
        """
        Whether the pixels of a band coincide with those of the reference.

        Parameters
        ----------
        place : `~astro_disentangle.data.geometry.Place`
            The galaxy in the band.
        size : int
            Pixels on a side of the window in which they must.

        Returns
        -------
        congruent : bool
            True if no pixel is farther than 0.05 px from one of the reference.
        """
        own = self.place
        if place is own:
            return True
        turns = (own.swap, own.flip_x, own.flip_y)
        if turns != (place.swap, place.flip_x, place.flip_y):
            return False
        phase = np.array([place.x - own.x, place.y - own.y])
        change = np.abs(place.matrix @ np.linalg.inv(own.matrix) - np.eye(2))
        shift = np.abs(phase - np.round(phase)).max() + change.sum(1).max() * size / 2
        return bool(shift < _TOLERANCE)

    def corner(self, place, corner):
        """
        The pixel of a congruent band that coincides with one of the reference.

        Parameters
        ----------
        place : `~astro_disentangle.data.geometry.Place`
            The galaxy in the band.
        corner : tuple of int
            Pixel (x, y) of the reference band.

        Returns
        -------
        corner : tuple of int
            Pixel (x, y) of the band.
        """
        steps = place.x - self.place.x, place.y - self.place.y
        return tuple(c + round(s) for c, s in zip(corner, steps, strict=True))


def lay_out(matched, survey, *, meta=None, position=None, upright=True):
    """
    Find the galaxy in every band.

    Parameters
    ----------
    matched : dict of int to `~astro_disentangle.data.plane.Plane`
        The bands, from `~astro_disentangle.data.match.match_bands`.
    survey : `~astro_disentangle.Survey`
        The survey.
    meta : mapping, optional
        As for `~astro_disentangle.data.geometry.locate`.
    position : `~astropy.coordinates.SkyCoord` or (float, float), optional
        Sky position, or 0-based pixel of the bluest band's image; its centre by
        default.
    upright : bool
        As for `~astro_disentangle.data.geometry.locate`.

    Returns
    -------
    layout : `Layout`
        With at least one band.

    Raises
    ------
    CutoutError
        If the position is in no image, or bands of different shapes lack a WCS.
    SurveyMismatchError
        If a pixel scale is beyond a factor 3 from the survey's.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.data.layout import lay_out
    >>> from astro_disentangle.data.match import match_bands
    >>> from astro_disentangle.data.unpack import unpack
    >>> image = CCDData(np.ones((40, 40)), unit="nmgy")
    >>> legacy = get_survey("legacy")
    >>> lay_out(match_bands(unpack({"g": image}), legacy), legacy).place.x
    19.5
    """
    first = next(iter(matched.values()))
    shape = first.data.shape
    alike = all(
        plane.data.shape == shape and same_grid(first.wcs, plane.wcs, shape)
        for plane in matched.values()
    )
    if alike:
        place = locate(
            first.wcs, shape, survey, meta=meta, position=position, upright=upright
        )
        bands = {index: (plane, place) for index, plane in matched.items()}
        return Layout(place, first.wcs, shape, bands)
    lone = next((plane for plane in matched.values() if plane.wcs is None), None)
    if lone is not None:
        raise CutoutError(
            "bands on different pixel grids are brought together by their WCS; "
            f"{lone.band!r}, of the shape {lone.data.shape}, has none. Give every "
            "band a WCS, or images of one shape."
        )
    if isinstance(position, SkyCoord) and position.isscalar:
        sky = position.icrs.ra.deg, position.icrs.dec.deg
    else:
        sky = locate(first.wcs, shape, survey, meta=meta, position=position).sky
    bands = _reached(matched, survey, sky, upright)
    if not bands:
        raise OutsideError(
            f"'position' must be in the image of a band; ({sky[0]:.5f}, {sky[1]:.5f}) "
            "deg is in none of them."
        )
    # Of two scales that differ by less than a percent, the first band's counts.
    plane, where = min(
        bands.values(), key=lambda band: round(np.log(band[1].scale) * 100)
    )
    return Layout(where, plane.wcs, plane.data.shape, bands)


def _reached(matched, survey, sky, upright):
    """The bands whose images hold a sky position, with its place in them."""
    bands, grids = {}, []
    for index, plane in matched.items():
        shape = plane.data.shape
        known = [
            place
            for wcs, size, place in grids
            if size == shape and same_grid(wcs, plane.wcs, size)
        ]
        if known:
            place = known[0]
        else:
            x, y = (float(value) for value in pixel_of(plane.wcs, *sky))
            place = None
            if within(x, y, shape):
                place = locate(
                    plane.wcs, shape, survey, position=(x, y), upright=upright
                )
            grids.append((plane.wcs, shape, place))
        if place is not None:
            bands[index] = (plane, place)
    return bands
