# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""World coordinate systems: checked, compared and made."""

import numpy as np

from astro_disentangle.quality import CutoutError

__all__ = [
    "celestial",
    "directions",
    "pixel_of",
    "same_grid",
    "sky_of",
    "tangent_wcs",
    "windowed_wcs",
]

#: A pixel and the middles of its sides.
_STEPS = np.array([[0.0, 0.5, -0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, -0.5]])
#: wcslib's WCSCOMPARE_ANCILLARY: dates and names of a header do not count.
_ANCILLARY = 1


def celestial(wcs):
    """
    The 2-D celestial part of a WCS.

    Parameters
    ----------
    wcs : WCS or None
        As astropy data objects hold it.

    Returns
    -------
    wcs : WCS or None
        With ``pixel_to_world`` and ``world_to_pixel`` of two axes.

    Raises
    ------
    CutoutError
        If it is not celestial or cannot be evaluated.

    Examples
    --------
    >>> from astro_disentangle.data.wcs import celestial
    >>> celestial(None) is None
    True
    """
    from astropy.wcs import WCS

    if wcs is None:
        return None
    if isinstance(wcs, WCS):
        numbers = []
        try:
            if wcs.has_celestial:
                wcs = wcs.celestial if wcs.naxis != 2 else wcs
                numbers = [wcs.wcs.crval, wcs.wcs.crpix, wcs.pixel_scale_matrix]
        except Exception as error:  # wcslib raises many types
            raise CutoutError(f"'wcs' cannot be evaluated: {error}") from error
        if not numbers:
            raise CutoutError(
                f"'wcs' must be celestial; got axes {list(wcs.wcs.ctype)}. Set it to "
                "None if the WCS is unknown."
            )
        if not all(np.isfinite(value).all() for value in numbers):
            raise CutoutError("'wcs' has numbers that are not finite.")
        return wcs
    low = getattr(wcs, "low_level_wcs", wcs)
    if not hasattr(low, "pixel_n_dim"):
        raise CutoutError(
            f"'wcs' must be a WCS; got {type(wcs).__name__}. Make one of a header with "
            "astropy.wcs.WCS(header)."
        )
    if low.pixel_n_dim != 2 or low.world_n_dim != 2:
        raise CutoutError(
            "'wcs' must be a 2-D celestial WCS; got one of "
            f"{low.pixel_n_dim} pixel axes. Give its celestial part."
        )
    return wcs


def sky_of(wcs, x, y):
    """
    Sky positions of pixels.

    Parameters
    ----------
    wcs : WCS
        2-D celestial.
    x, y : `~numpy.ndarray`
        Shape (N,), 0-based pixels.

    Returns
    -------
    ra, dec : `~numpy.ndarray`
        Shape (N,), ICRS, degrees; not finite where the WCS has no answer.

    Raises
    ------
    CutoutError
        If the WCS is not celestial or cannot be evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.wcs import sky_of, tangent_wcs
    >>> sky = SkyCoord(150, 2, unit="deg")
    >>> wcs = tangent_wcs(sky, np.eye(2) / 0.25, 15.5, 15.5, (32, 32))
    >>> np.round(sky_of(wcs, np.array([15.5]), np.array([15.5])), 9).tolist()
    [[150.0], [2.0]]
    """
    from astropy.coordinates import SkyCoord

    try:
        if _is_icrs(wcs):
            # SkyCoord would cost more than everything else that is done to a cut-out.
            world = wcs.pixel_to_world_values(x, y)
            return np.asarray(world[wcs.wcs.lng]), np.asarray(world[wcs.wcs.lat])
        sky = wcs.pixel_to_world(x, y)
        # The 1-D part of a WCS with no celestial axes is no SkyCoord.
        sky = sky.icrs if isinstance(sky, SkyCoord) else None
    except Exception as error:  # WCS libraries raise many types
        raise CutoutError(f"'wcs' cannot be evaluated: {error}") from error
    if sky is None:
        raise CutoutError("'wcs' must be a 2-D celestial WCS.")
    return sky.ra.deg, sky.dec.deg


def pixel_of(wcs, ra, dec):
    """
    Pixels of sky positions.

    Parameters
    ----------
    wcs : WCS
        2-D celestial.
    ra, dec : `~numpy.ndarray`
        Shape (N,), ICRS, degrees.

    Returns
    -------
    x, y : `~numpy.ndarray`
        Shape (N,), 0-based; not finite where the position is not in the plane.

    Raises
    ------
    CutoutError
        If the WCS cannot be evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.wcs import pixel_of, tangent_wcs
    >>> sky = SkyCoord(150, 2, unit="deg")
    >>> wcs = tangent_wcs(sky, np.eye(2) / 0.25, 15.5, 15.5, (32, 32))
    >>> np.round(pixel_of(wcs, np.array([150.0]), np.array([2.0])), 6).tolist()
    [[15.5], [15.5]]
    """
    from astropy.coordinates import SkyCoord

    try:
        if _is_icrs(wcs):
            world = [ra, dec] if wcs.wcs.lng < wcs.wcs.lat else [dec, ra]
            x, y = wcs.world_to_pixel_values(*world)
        else:
            x, y = wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg"))
    except Exception as error:  # WCS libraries raise many types
        raise CutoutError(
            f"'position' cannot be put into the image by its WCS: {error}"
        ) from error
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def _is_icrs(wcs):
    """Whether the world coordinates of a WCS are ICRS in degrees without asking."""
    from astropy.wcs import WCS

    if not isinstance(wcs, WCS) or wcs.naxis != 2 or not wcs.has_celestial:
        return False
    head = wcs.wcs
    if not head.ctype[head.lng].startswith("RA--") or set(map(str, head.cunit)) != {
        "deg"
    }:
        return False
    return head.radesys == "ICRS" or (not head.radesys and np.isnan(head.equinox))


def directions(wcs, x, y):
    """
    Sky position of a pixel and the directions there.

    Parameters
    ----------
    wcs : WCS
        2-D celestial.
    x, y : float
        0-based pixel.

    Returns
    -------
    sky : (float, float)
        Right ascension and declination, ICRS, degrees.
    matrix : `~numpy.ndarray`
        Shape (2, 2), pixels (x, y) per arcsec (west, north).

    Raises
    ------
    CutoutError
        If the WCS is degenerate: its pixels are of no size, or a degree wide.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.wcs import directions, tangent_wcs
    >>> sky = SkyCoord(150, 2, unit="deg")
    >>> wcs = tangent_wcs(sky, np.eye(2) / 0.25, 15.5, 15.5, (32, 32))
    >>> np.abs(directions(wcs, 15.5, 15.5)[1].round(3)).tolist()
    [[4.0, 0.0], [0.0, 4.0]]
    """
    ra, dec = sky_of(wcs, x + _STEPS[0], y + _STEPS[1])
    lon, lat = np.radians(ra), np.radians(dec)
    delta = lon - lon[0]
    sine, cosine = np.sin(lat), np.cos(lat)
    along = np.cos(delta) * cosine
    depth = sine[0] * sine + cosine[0] * along
    offset = np.array(
        [-cosine * np.sin(delta) / depth, (cosine[0] * sine - sine[0] * along) / depth]
    )
    offset = np.degrees(offset) * 3600
    jacobian = np.stack([offset[:, 1] - offset[:, 2], offset[:, 3] - offset[:, 4]], 1)
    sizes = np.full(2, np.nan)
    if np.isfinite(jacobian).all():
        sizes = np.linalg.svd(jacobian, compute_uv=False)
    if not (sizes[1] > 1e-3 and sizes[0] < 60 and sizes[0] < 5 * sizes[1]):
        raise CutoutError(
            "'wcs' must have a pixel scale of an image of galaxies, alike along both "
            f"axes; got {sizes[0]:.4g} x {sizes[1]:.4g} arcsec. Its CD or PC matrix "
            "may be zero, singular or missing."
        )
    return (float(ra[0]), float(dec[0])), np.linalg.inv(jacobian)


def same_grid(wcs, other, shape):
    """
    Whether two WCS agree to 0.05 px at the corners of an image.

    Parameters
    ----------
    wcs, other : WCS or None
        2-D celestial.
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    same : bool
        Also where both are None.

    Examples
    --------
    >>> from astro_disentangle.data.wcs import same_grid
    >>> same_grid(None, None, (3, 3))
    True
    """
    if wcs is other:
        return True
    if wcs is None or other is None:
        return False
    if _plain(wcs) and _plain(other) and wcs.wcs.compare(other.wcs, _ANCILLARY):
        return True
    ny, nx = shape
    x, y = np.array([0, nx - 1, 0, nx - 1.0]), np.array([0, 0, ny - 1, ny - 1.0])
    found = pixel_of(wcs, *sky_of(other, x, y))
    return bool(np.abs(np.array(found) - [x, y]).max() < 0.05)


def _plain(wcs):
    """Whether a WCS is all in its header, with no distortion besides."""
    from astropy.wcs import WCS

    return isinstance(wcs, WCS) and not wcs.has_distortion


def tangent_wcs(coord, matrix, x, y, shape):
    """
    A gnomonic WCS with a sky position at a pixel.

    Parameters
    ----------
    coord : `~astropy.coordinates.SkyCoord` or (float, float)
        Sky position of the pixel; or right ascension and declination, ICRS, degrees.
    matrix : array_like
        Shape (2, 2), pixels (x, y) per arcsec (west, north).
    x, y : float
        0-based pixel.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    wcs : `~astropy.wcs.WCS`
        2-D, ICRS.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.wcs import tangent_wcs
    >>> sky = SkyCoord(150, 2, unit="deg")
    >>> wcs = tangent_wcs(sky, np.eye(2) / 0.25, 15.5, 15.5, (32, 32))
    >>> wcs.wcs.crpix.tolist()
    [16.5, 16.5]
    """
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    centre = coord
    if hasattr(coord, "icrs"):
        centre = coord.icrs.ra.deg, coord.icrs.dec.deg
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [x + 1, y + 1]
    wcs.wcs.cd = np.diag([-1.0, 1.0]) @ np.linalg.inv(matrix) / 3600
    wcs.wcs.set()
    wcs.pixel_shape = (shape[1], shape[0])
    return wcs


def windowed_wcs(wcs, corner, size):
    """
    The WCS of a window, which may begin outside of the image.

    Parameters
    ----------
    wcs : WCS or None
        2-D celestial.
    corner : tuple of int
        Pixel (x, y) of the image that is (0, 0) of the window.
    size : int
        Pixels on a side of the window.

    Returns
    -------
    wcs : WCS or None
        A new one: the same, moved, or, where that cannot be had, the gnomonic one that
        agrees with it in the middle of the window.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_disentangle.data.wcs import tangent_wcs, windowed_wcs
    >>> sky = SkyCoord(150, 2, unit="deg")
    >>> wcs = tangent_wcs(sky, np.eye(2) / 0.25, 15.5, 15.5, (32, 32))
    >>> windowed_wcs(wcs, (-3, 5), 9).wcs.crpix.tolist()
    [19.5, 11.5]
    """
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS, Sip

    if wcs is None:
        return None
    x, y = corner
    if min(corner) >= 0 and hasattr(wcs, "slice"):
        moved = wcs.slice((slice(y, y + size), slice(x, x + size)))
    elif isinstance(wcs, WCS) and not _has_tables(wcs):
        # A slice may not begin at a negative pixel.
        moved = wcs.deepcopy()
        moved.wcs.crpix = moved.wcs.crpix - corner
        if wcs.sip is not None:
            sip = wcs.sip
            moved.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, sip.crpix - corner)
    else:
        # What belongs to pixels that are not there cannot be moved with them.
        middle = (size - 1) / 2
        sky, matrix = directions(wcs, x + middle, y + middle)
        sky = SkyCoord(*sky, unit="deg")
        return tangent_wcs(sky, matrix, middle, middle, (size, size))
    if isinstance(wcs, WCS):
        moved.pixel_shape = (size, size)
    return moved


def _has_tables(wcs):
    """Whether a WCS has distortions that are tables on its pixels."""
    return any(
        part is not None for part in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)
    )
