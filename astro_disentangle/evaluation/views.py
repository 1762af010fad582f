# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Scores of translated views: error, fluxes, detail, calibration."""

import functools

import astropy.units as u
import numpy as np
import torch

from astro_disentangle.evaluation.baselines import match_psf
from astro_disentangle.evaluation.photometry import (
    aperture_sums,
    flux_bias,
    radial_power,
)
from astro_disentangle.evaluation.scores import Score, bootstrap
from astro_disentangle.keys import torch_generator

__all__ = ["Views", "score_views", "source_signal"]

_CHUNK = 32
_SHARES = (0.68, 0.95)


def source_signal(batch):
    """
    Signal to noise of the 2 arcsec flux in the best band, from the cut-outs.

    Parameters
    ----------
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs.

    Returns
    -------
    signal : `~numpy.ndarray`
        Shape (B,); -1 where the noise of no band is known.
    """
    pixels, _, offset = batch.stamp()
    flux = torch.tensor(aperture_sums(pixels.numpy(), batch.survey, offset))
    ratio = flux / (batch.noise * (np.pi / batch.survey.pixel_scale**2) ** 0.5)
    known = batch.present & ratio.isfinite()
    return ratio.masked_fill(~known, -1).amax(1).numpy()


class Views:
    """
    Samples of one survey's images, painted from the other's.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.
    source, target : str
        Names of the surveys.
    n_samples, n_steps : int
        Samples S of each galaxy and steps of the midpoint rule.
    seed : int
        Key of the noise.
    wrong : bool
        Take the donors from another group of galaxies than the target's.

    Attributes
    ----------
    samples : `~numpy.ndarray`
        Shape (N, S, C, H, W), nJy, float32.
    """

    def __init__(
        self, network, pairs, source, target, *, n_samples, n_steps, seed, wrong=False
    ):
        self.source, self.target = source, target
        self.batch = pairs.batch(target)
        self.pixels, self.good, self.offset = self.batch.stamp()
        donors = _donors(pairs.groups, wrong)
        device = next(network.parameters()).device
        survey = self.batch.survey
        shape = (n_samples, len(survey.bands), *2 * [survey.stamp_size])
        from_batch, parts = pairs.batch(source), []
        with torch.inference_mode():
            members = torch.cat(
                [
                    network.instrument.members(
                        network.view(self.batch[rows].to(device))
                    )
                    for rows in torch.arange(len(pairs)).split(64)
                ]
            )
            for rows in torch.arange(len(pairs)).split(_CHUNK):
                view = network.view(from_batch[rows].to(device))
                generator = torch_generator(seed, "score", target, int(rows[0]))
                noise = torch.randn(len(rows), *shape, generator=generator)
                samples = network.translate(
                    network.physics(view),
                    network.instrument.pool(members, donors[rows].to(device)),
                    noise.to(device),
                    prepare={
                        "source": source,
                        "observation": view.observation,
                        "target": target,
                        "offset": self.offset[rows].to(device),
                    },
                    n_steps=n_steps,
                    solver="midpoint",
                )
                parts.append(samples.cpu())
        self.samples = torch.cat(parts).numpy()

    @functools.cached_property
    def mean(self):
        """Mean of the samples, (N, C, H, W)."""
        return self.samples.mean(1)


def score_views(views, pairs, wrong=None):
    """
    All scores of the views of one direction.

    Parameters
    ----------
    views : `Views`
        Of N pairs.
    pairs : `~astro_disentangle.PairedCutouts`
        The pairs; with their noiseless images where these are known.
    wrong : `Views`, optional
        Of the first of them, with the wrong donors, as a control.

    Returns
    -------
    scores : list of `Score`
        The rows.
    baselines : dict of (str, str, str) to float
        Scores of PSF matching by group, measure and direction.
    """
    direction = f"{views.source}->{views.target}"
    known = pairs.noiseless is not None
    pixels = views.pixels.numpy()
    truth = pairs.noiseless[views.target].numpy() if known else pixels
    name = "truth" if known else "observed"
    noise = views.batch.noise.numpy()[:, :, None, None]
    chosen = views.good.numpy() & np.isfinite(noise)
    matched = _matched(pairs, views)
    baselines = {}
    found = _errors(views, truth, name, noise, chosen, wrong)
    if matched is not None:
        found += _matched_errors(views, truth, name, noise, matched, chosen, baselines)
    signal = source_signal(pairs.batch(views.source))
    found += _fluxes(views, truth, known, signal, matched, baselines)
    found += _calibration(views, truth, pixels, noise, chosen)
    found += _power(views)
    rows = [Score(group, measure, direction, *score) for group, measure, score in found]
    baselines = {(*key, direction): value for key, value in baselines.items()}
    return rows, baselines


def _errors(views, truth, name, noise, chosen, wrong):
    """Error of the mean, beside a blank image and the wrong donors."""
    found = []
    images = {
        f"RMS of mean - {name} over noise": ("error", views.mean),
        f"RMS of {name} over noise, blank": ("control", 0 * views.mean),
    }
    for measure, (group, image) in images.items():
        squares = _squares(image - truth, noise, chosen)
        found.append((group, measure, bootstrap(_rms, *squares)))
        # A few bright neighbours are most of that.
        middle = bootstrap(_median_rms, *squares)
        found.append((group, f"{measure}, median galaxy", middle))
    if wrong is not None:
        few = slice(0, len(wrong.mean))
        sides = (
            _squares(image[few] - truth[few], noise[few], chosen[few])[0]
            for image in (wrong.mean, views.mean)
        )
        measure = "error of wrong donors over that of right ones"
        found.append(("control", measure, bootstrap(_excess, *sides)))
    return found


def _matched_errors(views, truth, name, noise, matched, chosen, baselines):
    """The same where PSF matching has a result to compare with."""
    both = chosen & np.isfinite(matched)
    ours = _squares(views.mean - truth, noise, both)
    theirs = _squares(np.nan_to_num(matched) - truth, noise, both)
    found, measure = [], f"RMS of mean - {name}, where PSF matching can be"
    for label, statistic in (("", _rms), (", median galaxy", _median_rms)):
        found.append(("error", measure + label, bootstrap(statistic, *ours)))
        baselines["error", measure + label] = statistic(*theirs)
    return found


def _fluxes(views, truth, known, signal, matched, baselines):
    """Aperture fluxes of bright sources in each band."""
    survey, found = views.batch.survey, []
    predicted, true = (
        aperture_sums(images, survey, views.offset) for images in (views.mean, truth)
    )
    other = np.full_like(true, np.nan)
    if matched is not None:
        other = aperture_sums(matched, survey, views.offset)
    present = views.batch.present.numpy()
    if not known:
        present = present & _whole(views)
    for band, letter in enumerate(survey.bands):
        bright = (signal >= 20) & present[:, band]
        if bright.sum() < 10:
            continue
        fine = bright & np.isfinite(other[:, band])
        for kind, statistic in _FLUX.items():
            measure = f"2 arcsec flux {letter}, S/N >= 20: {kind}"
            score = bootstrap(statistic, predicted[bright, band], true[bright, band])
            found.append(("flux", measure, score))
            if fine.any():
                baselines["flux", measure] = statistic(
                    other[fine, band], true[fine, band]
                )
    return found


def _calibration(views, truth, pixels, noise, chosen):
    """Widths of pixel z-scores and coverage of aperture fluxes."""
    found, survey = [], views.batch.survey
    count = views.samples.shape[1]
    if count < 4:
        return found
    spread = views.samples.std(1, ddof=1)
    # Mean and variance of S normal samples: z has this width when all is right.
    expected = np.sqrt((1 + 1 / count) * (count - 1) / (count - 3))
    z = (pixels - views.mean) / np.maximum(spread, 1e-9) / expected
    # The observed pixels themselves would put their own noise on one side.
    lit = (views.mean if truth is pixels else truth) > noise
    for name, part in (("galaxies", chosen & lit), ("sky", chosen & ~lit)):
        width = bootstrap(_rms, *_squares(z, 1.0, part))
        found.append(("calibration", f"width of pixel z, {name}", width))
    observed = aperture_sums(pixels, survey, views.offset)
    whole = _whole(views)
    draws = _sample_sums(views.samples, survey, views.offset)
    rank = (draws < observed[:, None]).sum(1)
    for share in _SHARES:
        # A rank stands for an interval of probability, of which a part may be inside.
        low, high = ((count + 1) * (1 + side * share) / 2 for side in (-1, 1))
        inside = np.clip(rank + 1, low, high) - np.clip(rank, low, high)
        score = bootstrap(_ratio, (inside * whole).sum(1), whole.sum(1))
        measure = f"coverage of 2 arcsec flux, {share:.0%}"
        found.append(("calibration", measure, score))
    return found


def _power(views):
    """Power of one sample over that of the observed image, in three ranges."""
    whole = (views.good.all(-1).all(-1) & views.batch.present).numpy()
    noise = views.batch.noise.numpy()
    usable = whole & np.isfinite(noise)
    if not usable.any():
        return []
    scale = noise[usable][:, None, None]
    # A few bright neighbours would be all of the power: rows count alike.
    ours, theirs = (
        radial_power(np.arcsinh(images[usable] / scale))
        for images in (views.samples[:, 0], views.pixels.numpy())
    )
    galaxy, found = np.nonzero(usable)[0], []
    for name, rings in (("low", (0, 3)), ("middle", (3, 6)), ("Nyquist", (6, 8))):
        parts = ours[:, slice(*rings)].mean(1), theirs[:, slice(*rings)].mean(1)
        score = bootstrap(_ratio, *parts, groups=galaxy)
        found.append(("power", f"sample over observed, {name} frequencies", score))
    return found


def _matched(pairs, views):
    """The source matched to the target's true PSF, where both are known."""
    truth = pairs.truth
    names = [f"psf_fwhm_{name}" for name in (views.source, views.target)]
    if truth is None or any(name not in truth.colnames for name in names):
        return None
    widths = []
    for name, survey in zip(names, (views.source, views.target), strict=True):
        width = np.ma.filled(u.Quantity(truth[name], u.arcsec).value, np.nan)
        count = len(pairs.batch(survey).survey.bands)
        width = width if width.ndim == 2 else np.tile(width[:, None], count)
        widths.append(width)
    return match_psf(pairs.batch(views.source), views.batch, *widths).numpy()


def _donors(groups, wrong):
    """Other members of each row's group, or those of the next group, (N, N)."""
    labels, index = np.unique(groups, return_inverse=True)
    if wrong:
        chosen = (index[:, None] + 1) % len(labels) == index
    else:
        chosen = (index[:, None] == index) & ~np.eye(len(index), dtype=bool)
    # A galaxy on its own has every other one for a donor.
    alone = ~chosen.any(1)
    chosen[alone] = ~np.eye(len(index), dtype=bool)[alone]
    return torch.from_numpy(chosen)


def _whole(views):
    """Whether no pixel of the aperture is bad, (N, C)."""
    bad = (~views.good).float().numpy()
    sums = aperture_sums(bad, views.batch.survey, views.offset)
    return (sums == 0) & views.batch.present.numpy()


def _sample_sums(samples, survey, offset):
    """Aperture sums of every sample, (N, S, C)."""
    sums = [
        aperture_sums(samples[:, s], survey, offset) for s in range(samples.shape[1])
    ]
    return np.stack(sums, 1)


def _squares(values, scale, chosen):
    """Sum of squares over the scale, and number of pixels, of each galaxy."""
    square = np.where(chosen, np.square(values / np.where(chosen, scale, 1)), 0)
    return square.sum((1, 2, 3)), chosen.sum((1, 2, 3))


def _rms(squares, counts):
    return float(np.sqrt(squares.sum() / counts.sum())) if counts.sum() else np.nan


def _median_rms(squares, counts):
    seen = counts > 0
    if not seen.any():
        return np.nan
    return float(np.median(np.sqrt(squares[seen] / counts[seen])))


def _excess(wrong, right):
    seen = right > 0
    return (
        float(np.median(np.sqrt(wrong[seen] / right[seen]))) if seen.any() else np.nan
    )


def _ratio(part, whole):
    return float(part.sum() / whole.sum()) if whole.sum() else np.nan


def _median_bias(predicted, true):
    return float(np.median(predicted / true) - 1)


def _scatter(predicted, true):
    low, high = np.percentile(predicted / true, [16, 84])
    return float((high - low) / 2)


_FLUX = {"sum": flux_bias, "median": _median_bias, "scatter": _scatter}
