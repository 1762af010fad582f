# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Images, PSFs and noise of one pixel grid on another.

Where :mod:`~astro_disentangle.data.resample` brings batches to the grid of the
encoders, this is for single images that users give or get. The grids are related by
:math:`p = M q + c` with :math:`p` a pixel (x, y) of the old grid and :math:`q` the
offset from the middle of the new one in its pixels.
"""

import functools
import math

import numpy as np

__all__ = ["bridge", "noise_gain", "on_wcs", "regrid", "regrid_psf"]

#: Half the side in old pixels, and sub-pixel phases along an axis, of the patch on
#: which the noise of the new pixels is computed.
_HALF = 8
_PHASES = 4
#: Old pixels around those that a window of new ones covers.
_MARGIN = 4


def bridge(place, own, size):
    """
    From the window about a galaxy in one image to its pixels in another.

    Parameters
    ----------
    place : `~astro_disentangle.data.geometry.Place`
        The galaxy in the image that has the pixels.
    own : `~astro_disentangle.data.geometry.Place`
        The galaxy in the image of the window.
    size : int
        Pixels on a side of the window.

    Returns
    -------
    corner : tuple of int
        Pixel (x, y) of the image where the part that is needed begins.
    wide : int
        Pixels on a side of that part.
    affine : `~numpy.ndarray`
        Shape (2, 3), for `regrid` of that part to the window.
    """
    from astro_disentangle.data.window import window_corner

    matrix = place.matrix @ np.linalg.inv(own.matrix)
    reach = np.abs(matrix).sum(1).max() * (size / 2 + 0.5)
    wide = 2 * math.ceil(reach + _MARGIN) + 1
    corner = window_corner(place, wide)
    middle = np.array([own.x, own.y]) - window_corner(own, size) - (size - 1) / 2
    centre = np.array([place.x, place.y]) - corner - matrix @ middle
    return corner, wide, np.column_stack([matrix, centre])


def regrid(images, good, affine, size):
    """
    Images of one grid on another, with the flux per pixel that they have there.

    Parameters
    ----------
    images, good : `~numpy.ndarray`
        Shape (..., h, w), flux per pixel, and bool.
    affine : `~numpy.ndarray`
        Shape (2, 3), the columns of ``M`` and ``c``.
    size : int
        Pixels on a side of the new grid.

    Returns
    -------
    images, good : `~numpy.ndarray`
        Shape (..., size, size); 0 where not good.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.regrid import regrid
    >>> affine = np.array([[2.0, 0.0, 7.5], [0.0, 2.0, 7.5]])
    >>> image = np.ones((16, 16))
    >>> regrid(image, image > 0, affine, 4)[0].round(6)[0].tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    import torch

    from astro_disentangle.data.resample import resample

    images = np.ascontiguousarray(images)
    flat = images.reshape(1, -1, *images.shape[-2:])
    good = np.broadcast_to(good, images.shape).reshape(flat.shape)
    out, fine = resample(
        torch.from_numpy(flat),
        torch.from_numpy(np.array(good)),
        torch.from_numpy(affine)[None],
        size=size,
        scale=1.0,
    )
    shape = (*images.shape[:-2], size, size)
    return out.numpy().reshape(shape), fine.numpy().reshape(shape)


def regrid_psf(psf, matrix):
    """
    A PSF image on the pixels of another grid.

    Parameters
    ----------
    psf : `~numpy.ndarray`
        Shape (h, w), the PSF in the middle.
    matrix : `~numpy.ndarray`
        Shape (2, 2), ``M``.

    Returns
    -------
    psf : `~numpy.ndarray`
        Shape (n, n), n odd, of sum 1.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import measure_fwhm, render_psf
    >>> from astro_disentangle.data.regrid import regrid_psf
    >>> psf = regrid_psf(render_psf(1.2, 3.0, 0.2), 0.75 * np.eye(2))
    >>> psf.shape, round(float(measure_fwhm(psf, 0.15)), 1)
    ((33, 33), 1.2)
    """
    psf = np.asarray(psf, dtype=float)
    side = int(max(psf.shape) / np.abs(matrix).sum(1).max()) // 2 * 2 + 1
    affine = np.column_stack([matrix, (np.array(psf.shape[::-1]) - 1) / 2])
    out, _ = regrid(psf, np.ones(psf.shape, bool), affine, side)
    return out / out.sum()


def noise_gain(matrix, correlation, phase):
    """
    Standard deviation of the noise of a new pixel over that of an old one.

    The weights of the old pixels in a new one are found by regridding one image for
    each old pixel, and the noise follows from them and the correlation of the old
    noise, which is separable in x and y. It is the root mean square over sub-pixel
    phases, or that of the one phase that all pixels have where the grids are turned by
    quarters and as fine as each other.

    Parameters
    ----------
    matrix : `~numpy.ndarray`
        Shape (2, 2), ``M``.
    correlation : sequence of float
        Correlation of the old noise at lags 1, 2, 3 px along an axis; 0 beyond.
    phase : sequence of float
        Distance (x, y) of a new pixel from the nearest old one.

    Returns
    -------
    gain : float
        Of an image in flux per pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.regrid import noise_gain
    >>> round(noise_gain(np.eye(2), (0.0, 0.0, 0.0), (0.0, 0.0)), 3)
    1.0
    >>> noise_gain(np.eye(2), (0.0, 0.0, 0.0), (0.5, 0.5)) < 0.8
    True
    """
    quarter = np.abs(np.abs(matrix) - np.round(np.abs(matrix))).max() < 1e-3
    if not (quarter and abs(abs(np.linalg.det(matrix)) - 1) < 1e-3):
        phase = None
    # Galaxies of one image have all but the same matrix.
    rounded = tuple(np.round(matrix, 4).ravel().tolist())
    phase = None if phase is None else tuple(np.round(phase, 3).tolist())
    return _noise_gain(rounded, tuple(correlation), phase)


@functools.lru_cache(maxsize=256)
def _noise_gain(numbers, correlation, phase):
    matrix = np.reshape(numbers, (2, 2))
    reach = _HALF + math.ceil(np.abs(matrix).sum(1).max())
    side = 2 * reach + 1
    impulses = np.eye(side * side).reshape(-1, side, side)
    lags = np.zeros(side)
    lags[0] = 1.0
    known = list(correlation)[: side - 1]
    lags[1 : 1 + len(known)] = known
    place = np.arange(side)
    along = lags[np.abs(place[:, None] - place)]
    total = 0.0
    steps = (np.arange(_PHASES) + 0.5) / _PHASES - 0.5
    phases = [(x, y) for x in steps for y in steps] if phase is None else [phase]
    for place in phases:
        affine = np.column_stack([matrix, reach + np.array(place)])
        weights, _ = regrid(impulses, np.ones_like(impulses, bool), affine, 1)
        weights = weights.reshape(side, side)
        total += (weights * (along @ weights @ along)).sum()
    return math.sqrt(max(total, 0.0) / len(phases))


def on_wcs(images, place, shape, scale):
    """
    Stamps that are centred on a galaxy, north up, in an image of any WCS.

    Parameters
    ----------
    images : `~numpy.ndarray`
        Shape (..., N, N), flux per pixel, x to the west and y to the north.
    place : `~astro_disentangle.data.geometry.Place`
        The galaxy in the new image.
    shape : tuple of int
        (ny, nx) of the new image.
    scale : float
        Pixel scale of the stamps in arcsec.

    Returns
    -------
    images : `~numpy.ndarray`
        Shape (..., ny, nx); NaN beyond the stamps.
    affine : `~numpy.ndarray`
        Shape (2, 3), the columns of ``M`` and the pixel (x, y) of the stamps at pixel
        (0, 0) of the new image.
    """
    from astro_disentangle.data.window import overlap, window_corner

    matrix = np.linalg.inv(place.matrix) / scale
    middle = (images.shape[-1] - 1) / 2
    reach = images.shape[-1] / 2 * np.abs(np.linalg.inv(matrix)).sum(1).max()
    size = 2 * math.ceil(reach) + 1
    corner = window_corner(place, size)
    offset = np.array([place.x, place.y]) - corner - (size - 1) / 2
    affine = np.column_stack([matrix, middle - matrix @ offset])
    part, good = regrid(images, np.ones(images.shape, bool), affine, size)
    out = np.full((*images.shape[:-2], *shape), np.nan, images.dtype)
    window, image = overlap(shape, corner, size)
    out[(..., *image)] = np.where(good, part, np.nan)[(..., *window)]
    origin = middle - matrix @ [place.x, place.y]
    return out, np.column_stack([matrix, origin])
