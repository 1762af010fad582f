# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""How well galaxies could find themselves: true parameters and the noise of surveys.

The oracle knows of every galaxy the magnitudes in the bands common to both surveys,
the logarithm of the half-light radius and two components of the ellipticity, as each
survey would measure them: truth plus normal errors. With the flux :math:`F_b` within
2 arcsec, the noise :math:`\sigma_b` of a pixel of side :math:`p`, and the FWHM of the
PSF :math:`w`,

.. math::

    \nu_b &= F_b \, p / (\sigma_b \sqrt{\pi} \, 1''), \quad \nu^2 = \sum_b \nu_b^2 \\
    \sigma(m_b)^2 &= (2.5 / \ln 10 / \nu_b)^2 + \sigma_\mathrm{zp}^2 \\
    \sigma(\log_{10} r) &= 1 / (\ln 10 \, \nu R), \quad \sigma(e) = 2 / (\nu R), \quad
    R = r^2 / (r^2 + w^2 / 4)

The errors of size and ellipticity are those of a round Gaussian image under white noise
(Fisher information; Bernstein & Jarvis 2002, AJ 123, 583, for the ellipticity), larger
by the share R of the galaxy in the size of the image. The galaxy of the other survey is
the one of the largest likelihood to have the same parameters.
"""

import numpy as np
import torch

from astro_disentangle.evaluation.photometry import aperture_sums
from astro_disentangle.keys import torch_generator

__all__ = ["expected_errors", "likelihood_ranks", "oracle_ranks"]

_SHAPES = ("log_size", "e1", "e2")
_CHUNK = 256
#: Least true flux in nJy, of which there is a magnitude.
_DARK = 1e-3


def oracle_ranks(pairs, labels, galaxies, *, other=None, seed=0):
    """
    Place of each galaxy among those of the other survey, by its true parameters.

    True fluxes are those of the noiseless images of the sharper survey. What a
    neighbour adds to them is left out as far as ``other`` tells: the smaller counts.

    Parameters
    ----------
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.
    labels : dict of str to `~numpy.ndarray`
        Shape (N,), with ``log_size`` (arcsec), ``e1`` and ``e2``; NaN where unknown.
    galaxies : `~numpy.ndarray`
        The M rows to search with and among.
    other : `~astro_disentangle.PairedCutouts`, optional
        The same galaxies with other neighbours around them.
    seed : int
        Key of the errors.

    Returns
    -------
    ranks : dict of str to `~numpy.ndarray`
        Shape (M,), 0 for the nearest, by direction. Empty where the pairs do not
        carry the truth, or the surveys have no band in common.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.oracle import oracle_ranks
    >>> from astro_disentangle.evaluation.scoreboard import known_of
    >>> pairs = simulate_pairs(24, random_state=1)
    >>> ranks = oracle_ranks(pairs, known_of(pairs)[0], np.arange(24))
    >>> bool((ranks["hsc->legacy"] == 0).mean() > 0.9)
    True
    """
    a, b = pairs.surveys
    bands = [x for x in pairs.batch(a).survey.bands if x in pairs.batch(b).survey.bands]
    if pairs.noiseless is None or not bands or not labels.keys() >= set(_SHAPES):
        return {}
    flux = _true_fluxes(pairs, bands)
    if other is not None and other.noiseless is not None:
        flux = np.minimum(flux, _true_fluxes(other, bands))
    flux = np.maximum(flux[galaxies], _DARK)
    shapes = np.stack([labels[name][galaxies] for name in _SHAPES], 1)
    true = np.concatenate([-2.5 * np.log10(flux), shapes], 1)
    measured = {}
    for name in pairs.surveys:
        batch = pairs.batch(name)[torch.from_numpy(galaxies)]
        errors = expected_errors(flux, 10 ** shapes[:, 0], batch, bands)
        generator = torch_generator(seed, "oracle", name)
        drawn = torch.randn(true.shape, generator=generator).numpy()
        measured[name] = _known(true + errors * drawn, errors, true)
    return {
        f"{one}->{two}": likelihood_ranks(*measured[one], *measured[two])
        for one, two in ((a, b), (b, a))
    }


def expected_errors(flux, size, batch, bands):
    """
    Errors of magnitudes, log size and ellipticity, as this module's formulas have them.

    Parameters
    ----------
    flux : array_like
        Shape (N, B), true fluxes within 2 arcsec, nJy.
    size : array_like
        Shape (N,), half-light radius, arcsec.
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        N cut-outs, of which noise and PSF are used.
    bands : sequence of str
        The B bands.

    Returns
    -------
    errors : `~numpy.ndarray`
        Shape (N, B + 3); NaN in bands that are missing or whose noise is not known,
        and where nothing is known of the galaxy.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.oracle import expected_errors
    >>> batch = simulate_pairs(1, random_state=1).batch("hsc")
    >>> errors = expected_errors([[3e3]], [1.0], batch, ["r"])  # 22.6 mag
    >>> errors.shape, bool(errors.max() < 0.05)
    ((1, 4), True)
    """
    survey = batch.survey
    place = [survey.bands.index(band) for band in bands]
    noise = np.where(batch.present, batch.noise, np.nan)[:, place]
    signal = np.asarray(flux) * survey.pixel_scale / (noise * np.sqrt(np.pi))
    signal = np.where(noise > 0, np.maximum(signal, 1), np.nan)
    magnitude = np.hypot(2.5 / np.log(10) / signal, survey.zero_point_error)
    whole = np.sqrt(np.nansum(signal**2, 1))
    fwhm = np.where(batch.psf_fwhm > 0, batch.psf_fwhm, survey.psf_fwhm)[:, place]
    size = np.square(size)
    whole = whole * size / (size + np.square(np.median(fwhm, 1)) / 4)
    whole = np.where(whole > 0, whole, np.nan)
    shapes = [1 / (np.log(10) * whole), 2 / whole, 2 / whole]
    # No ellipticity is further off.
    return np.concatenate([magnitude, np.minimum(shapes, 1).T], 1)


def likelihood_ranks(values, errors, other_values, other_errors):
    r"""
    Place of each galaxy by the likelihood of equal parameters.

    .. math:: -2 \ln L_{ij} = \sum_p \frac{(x_{ip} - y_{jp})^2}
              {\sigma_{ip}^2 + \tau_{jp}^2} + \ln(\sigma_{ip}^2 + \tau_{jp}^2)

    Parameters
    ----------
    values, errors : `~numpy.ndarray`
        Shape (N, P), what one survey measures, and its standard errors.
    other_values, other_errors : `~numpy.ndarray`
        Shape (N, P), the same galaxies in the other survey.

    Returns
    -------
    rank : `~numpy.ndarray`
        Shape (N,), int, 0 for the most likely; ties count against.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.oracle import likelihood_ranks
    >>> x, error = np.array([[0.0], [1.0], [5.0]]), np.ones((3, 1))
    >>> likelihood_ranks(x, error, x[[1, 0, 2]], error)
    array([1, 1, 0])
    """
    ranks = []
    for start in range(0, len(values), _CHUNK):
        rows = slice(start, start + _CHUNK)
        surprise = 0.0
        for x, sigma, y, tau in zip(
            values[rows].T,
            errors[rows].T,
            other_values.T,
            other_errors.T,
            strict=True,
        ):
            variance = np.square(sigma)[:, None] + np.square(tau)
            surprise += np.square(x[:, None] - y) / variance + np.log(variance)
        own = np.take_along_axis(
            surprise, start + np.arange(len(surprise))[:, None], axis=1
        )
        ranks.append((surprise <= own).sum(1) - 1)
    return np.concatenate(ranks)


def _true_fluxes(pairs, bands):
    """Noiseless fluxes within 2 arcsec in the survey of the sharper PSF, (N, B)."""
    batch = min(
        (pairs.batch(name) for name in pairs.surveys),
        key=lambda batch: np.median(batch.survey.psf_fwhm),
    )
    survey = batch.survey
    images = pairs.noiseless[survey.name].numpy()
    sums = aperture_sums(images, survey, batch.stamp()[2])
    return sums[:, [survey.bands.index(band) for band in bands]]


def _known(values, errors, true):
    """What is not measured is the mean of all, give or take their scatter."""
    seen = np.isfinite(values) & np.isfinite(errors)
    return (
        np.where(seen, values, np.nanmean(true, 0)),
        np.where(seen, errors, np.nanstd(true, 0)),
    )
