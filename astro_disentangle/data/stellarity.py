# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Whether a source looks like a star, from SPREAD_MODEL in bands of known PSF.

With :math:`p` the pixels about the source, :math:`\phi` the PSF there, :math:`G` the
PSF convolved with a circular exponential disc of scale length FWHM / 16, and
:math:`W` the weights of the pixels, the normalised linear discriminant between
:math:`\phi` and :math:`G` is (Desai et al. 2012, ApJ 757, 83; Bouy et al. 2013,
A&A 554, A101)

.. math:: s = \frac{G^T W p}{\phi^T W p} - \frac{G^T W \phi}{\phi^T W \phi},

0 for a star, positive for what is wider, negative for what is sharper. The numerator
is that of a template :math:`G - r \phi`, :math:`r = G^T W \phi / \phi^T W \phi`, to
which the PSF is orthogonal, so that the noise gives

.. math:: \sigma_s^2 = \frac{G^T W G - r\,G^T W \phi}{(\phi^T W p)^2}.

The weights are the inverse of the covariance of n good pixels of noise
:math:`\sigma` on an unknown background of standard deviation :math:`b \sigma`, so that
the light of neighbours does not pass for the wings of the source,

.. math:: W = \sigma^{-2} [1 - 1 1^T / (n + b^{-2})].

A source much smaller than the PSF has :math:`s \propto (\mathrm{size} / w)^2` for a PSF
of FWHM :math:`w`. The bands therefore agree on :math:`q = s w^2`, whose mean with the
weights of its errors is a size squared whatever the seeing. A point source is what
is detected well and has a :math:`q` about 0.
"""

import functools

import numpy as np

from astro_disentangle.data.measure import render_psf
from astro_disentangle.quality import FLAGS

__all__ = ["known_psfs", "moffat_psf", "spread_model", "spread_size", "star_flag"]

#: Radius in FWHM within which pixels count, and within which none may be bad.
_REACH, _CORE = 1.5, 0.75
#: Scale length of the disc in FWHM, and background in noise of a pixel.
_DISC, _BACKGROUND = 1 / 16, 0.25
#: FWHM in px below which an image cannot be shifted by a part of a pixel.
_SAMPLED = 2.0
#: Pixels about the reach that are read too, and that a position may be off.
_MARGIN, _ASTRAY = 2, 1.5
#: A band counts from this signal to noise on, a source is judged from that on.
_BAND_SIGNAL, _SIGNAL = 10.0, 50.0
#: A Gaussian of the FWHM of the PSF finds at least this share of the signal to noise.
_FOUND = 0.8
#: Stars have a width of 1.12, as the mean over the bands; galaxies far above end here.
_WIDEST = 1.35
#: Least and largest q of a point source, arcsec squared, from benchmarks/stellarity.py.
#: The PSF of a coadd may be given a little too wide; no galaxy is sharper than it is.
_LEAST, _LARGEST = -0.0018, 0.0009


def known_psfs(layout, psf_fwhm, survey):
    """
    Images of the PSF in the orientation of a window.

    Parameters
    ----------
    layout : `~astro_disentangle.data.layout.Layout`
        The bands.
    psf_fwhm : `~numpy.ndarray`
        Shape (C,), arcsec, NaN where unknown.
    survey : `~astro_disentangle.Survey`
        Whose Moffat index a PSF has of which only the FWHM is known.

    Returns
    -------
    images : list of `~numpy.ndarray`, callable or None
        C images (h, w), or what makes them; None where the PSF is unknown or the band
        has been brought to other pixels.
    """
    images = [None] * len(psf_fwhm)
    for index, (plane, place) in layout.bands.items():
        if not np.isfinite(psf_fwhm[index]):
            continue
        if not layout.congruent(place, survey.stamp_size):
            continue
        # What is smaller has no shape, and its FWHM is from the header.
        if plane.psf is None or min(np.shape(plane.psf)) < 5:
            images[index] = moffat_psf(psf_fwhm[index], survey, place.scale)
        else:
            images[index] = place.turn(plane.psf)
    return images


def moffat_psf(fwhm, survey, scale):
    """
    The image of a PSF of which only the FWHM is known, made when it is needed.

    Parameters
    ----------
    fwhm : float
        arcsec.
    survey : `~astro_disentangle.Survey`
        Whose Moffat index it has.
    scale : float
        Pixel scale in arcsec.

    Returns
    -------
    image : callable
        Without arguments; gives an array (h, w).
    """
    return functools.partial(_moffat, float(fwhm), survey.psf_beta, scale)


@functools.lru_cache(maxsize=256)
def _moffat(fwhm, beta, scale):
    """A Moffat PSF as far as it is looked at."""
    half = int(np.ceil(_REACH * fwhm / scale)) + 2 * _MARGIN
    return render_psf(fwhm, beta, scale, 2 * half + 1)


def star_flag(pixels, good, noise, psf, place):
    """
    Whether a window shows a point source at the position.

    Parameters
    ----------
    pixels, good, noise, psf, place
        As for `spread_size`.

    Returns
    -------
    flag : int
        ``POINT_SOURCE``, or 0, as where it cannot be told.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import render_psf
    >>> from astro_disentangle.data.stellarity import star_flag
    >>> from astro_disentangle.quality import decode_flags
    >>> star = render_psf(1.2, 3.0, 0.262, 33)[None]
    >>> psf = [star[0]], np.array([1.2])
    >>> window = 200 * star, star > 0, np.array([0.1])
    >>> decode_flags(star_flag(*window, psf, (16.4, 15.8, 0.262)))
    ['POINT_SOURCE']
    """
    size, _, signal = spread_size(pixels, good, noise, psf, place)
    found = signal >= _SIGNAL and _LEAST < size < _LARGEST
    return FLAGS.POINT_SOURCE if found else 0


def spread_size(pixels, good, noise, psf, place):
    """
    SPREAD_MODEL of all bands together, as a size.

    Parameters
    ----------
    pixels, good : `~numpy.ndarray`
        Shape (C, n, n), flux and bool.
    noise : `~numpy.ndarray`
        Shape (C,), standard deviation of a pixel; bands without it do not count.
    psf : (list, `~numpy.ndarray`)
        C images (h, w) of the PSF in the pixels of the window, or callables that make
        them, or None, and their FWHM in arcsec, shape (C,).
    place : (float, float, float)
        Pixel x and y of the source, to about a pixel, and pixel scale in arcsec.

    Returns
    -------
    size, error : float
        SPREAD_MODEL times the square of the FWHM, and its error, arcsec squared; NaN
        where no band can tell.
    signal : float
        Signal to noise of the fit of the PSF in those bands; 0 without any.
    """
    x, y, scale = place
    images, fwhm = psf
    wide = fwhm / scale
    room = min(x, y, pixels.shape[2] - 1 - x, pixels.shape[1] - 1 - y) - _MARGIN - 1
    use = (wide >= _SAMPLED) & (wide * _REACH <= room) & (noise > 0)
    use &= [image is not None for image in images]
    use = np.flatnonzero(use)
    if not use.size:
        return np.nan, np.nan, 0.0
    images = [images[index] for index in use]
    spread, error, signal = spread_model(
        pixels[use], good[use], noise[use].astype(float), (images, wide[use]), (x, y)
    )
    told = (signal >= _BAND_SIGNAL) & (error > 0)
    if not told.any():
        return np.nan, np.nan, 0.0
    square = fwhm[use][told].astype(float) ** 2
    weight = (error[told] * square) ** -2.0
    size = (weight * spread[told] * square).sum() / weight.sum()
    return size, weight.sum() ** -0.5, np.sqrt((signal[told] ** 2).sum())


def spread_model(pixels, good, noise, psf, place):
    """
    SPREAD_MODEL in each band; see the module's formula.

    Parameters
    ----------
    pixels, good : `~numpy.ndarray`
        Shape (C, n, n), flux and bool.
    noise : `~numpy.ndarray`
        Shape (C,), standard deviation of a pixel.
    psf : (list, `~numpy.ndarray`)
        C images (h, w) of the PSF in the same pixels, and their FWHM in px, shape
        (C,).
    place : (float, float)
        Pixel x and y of the source, to about a pixel, and at least 1.5 FWHM and 3 px
        from the edge.

    Returns
    -------
    spread, error : `~numpy.ndarray`
        Shape (C,), SPREAD_MODEL and SPREADERR_MODEL.
    signal : `~numpy.ndarray`
        Shape (C,), signal to noise of the fit of the PSF; 0 in all bands where it is
        clearly below 50 in all together, and in a band that cannot tell for a bad
        pixel in the core or for a source elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.data.measure import render_psf
    >>> from astro_disentangle.data.stellarity import spread_model
    >>> star, wider = (render_psf(w, 3.0, 0.262, 33)[None] for w in (1.2, 1.3))
    >>> psf = [star[0]], np.array([1.2 / 0.262])
    >>> for image in (star, wider):
    ...     s, *_ = spread_model(image, image > 0, np.array([1e-4]), psf, (16, 16))
    ...     print(round(abs(s[0]), 4))
    0.0
    0.0015
    """
    images, fwhm = psf
    half = int(np.ceil(_REACH * fwhm.max())) + _MARGIN
    corner = [int(np.floor(value + 0.5)) - half for value in place]
    window = (slice(None), *(slice(c, c + 2 * half + 1) for c in corner[::-1]))
    pixels, good = pixels[window].astype(float), good[window]
    start = np.subtract(place, corner)
    with np.errstate(all="ignore"):
        centre, light, width = _centroids(pixels, start, fwhm)
        weight = (light / noise) ** 2
        if not (
            weight.sum() > (_FOUND * _SIGNAL) ** 2
            and weight @ width < _WIDEST * weight.sum()
        ):
            return np.full((3, len(pixels)), [[np.nan], [np.nan], [0.0]])
        square = (np.arange(2 * half + 1) - centre[:, :, None]) ** 2
        square = (square[:, 1, :, None] + square[:, 0, None]) / fwhm[:, None, None] ** 2
        seen = good & (square < _REACH**2)
        vectors = np.empty((len(pixels), 4, *seen.shape[1:]))
        vectors[:, 0], vectors[:, 1] = _models(images, centre, fwhm, half)
        vectors[:, 2], vectors[:, 3] = pixels, 1.0
        vectors *= seen[:, None]
        vectors = vectors.reshape(*vectors.shape[:2], -1)
        gram = vectors @ vectors.swapaxes(1, 2)
        signal = gram[:, 0, 2] / noise / np.sqrt(gram[:, 0, 0])
        # The weights W, from the sums over the good pixels.
        sums = gram[:, 3, :, None]
        gram -= sums * sums.swapaxes(1, 2) / (sums[:, 3:] + _BACKGROUND**-2)
        pp, pg, gg = gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]
        pf, gf = gram[:, 0, 2], gram[:, 1, 2]
        spread = gf / pf - pg / pp
        error = noise * np.sqrt(gg - pg**2 / pp) / pf
    lost = (~good & (square < _CORE**2)).any((1, 2))
    lost |= ~(np.abs(centre - start).max(1) < _ASTRAY) | ~(pf > 0)
    return spread, error, np.where(lost | ~np.isfinite(spread), 0.0, signal)


def _centroids(images, start, fwhm, steps=2):
    """
    Windowed centroids of images (C, k, k), their light and their width.

    Each step moves the window, a Gaussian of ``fwhm`` (C,), by twice the offset of
    the light in it, which is what brings it to the centre of a Gaussian of the same
    width. Returns pixels x and y, (C, 2), the light in the window over the square
    root of the sum of its squares, (C,), and the mean square of its offset over the
    variance of the window, (C,), 1 for a Gaussian.
    """
    axis = np.arange(images.shape[-1])
    centre = np.empty((len(images), 2))
    centre[:] = start
    power = (-4 * np.log(2) / fwhm**2)[:, None, None]
    rows = np.empty((len(images), 2, 3, len(axis)))
    for _ in range(steps):
        offset = axis - centre[:, :, None]
        square = power * offset**2
        window = np.exp(square, out=rows[:, :, 0])
        np.multiply(window, offset, out=rows[:, :, 1])
        np.multiply(window, square, out=rows[:, :, 2])
        moments = rows[:, 1] @ images @ rows[:, 0].swapaxes(1, 2)
        light = moments[:, 0, 0]
        centre[:, 0] += np.minimum(np.maximum(2 * moments[:, 0, 1] / light, -1), 1)
        centre[:, 1] += np.minimum(np.maximum(2 * moments[:, 1, 0] / light, -1), 1)
    width = -2 * (moments[:, 0, 2] + moments[:, 2, 0]) / light
    return centre, light / np.sqrt((window**2).sum(2).prod(1)), width


def _models(images, centre, fwhm, half):
    """PSF and disc at pixels ``centre`` (C, 2) of a window, each (C, k, k)."""
    images = (image() if callable(image) else image for image in images)
    psf = np.stack([_about_peak(image, half) for image in images]).astype(float)
    # From the brightest pixel one step is enough.
    shift = centre - _centroids(psf, half, fwhm, steps=1)[0]
    size, wanted = 2 * half + 2, 2 * half + 1
    ky, kx, square = _waves(size)
    across = np.exp(-1j * shift[:, :1] * kx)[:, None]
    shifted = np.fft.rfft2(psf, s=(size, size))
    shifted *= np.exp(-1j * shift[:, 1:] * ky)[:, :, None] * across
    # The transform of an exponential disc of scale length h is (1 + (k h)^2)^(-3/2).
    disc = 1 + (_DISC * fwhm)[:, None, None] ** 2 * square
    both = np.stack([shifted, shifted / (disc * np.sqrt(disc))])
    return np.fft.irfft2(both, s=(size, size))[..., :wanted, :wanted]


@functools.lru_cache(maxsize=64)
def _waves(size):
    """Wave numbers in rad per px: y (k,), x (k/2+1,) and their square (k, k/2+1)."""
    ky, kx = 2 * np.pi * np.fft.fftfreq(size), 2 * np.pi * np.fft.rfftfreq(size)
    return ky, kx, ky[:, None] ** 2 + kx**2


def _about_peak(image, half):
    """The pixels of an image within ``half`` of its brightest, 0 beyond its edge."""
    image = np.asarray(image)
    y, x = divmod(int(image.argmax()), image.shape[1])
    if min(y, x, image.shape[0] - 1 - y, image.shape[1] - 1 - x) < half:
        image, y, x = np.pad(image, half), y + half, x + half
    return image[y - half : y + half + 1, x - half : x + half + 1]
