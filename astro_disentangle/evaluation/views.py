# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Scores of translated views: error, fluxes, detail, calibration."""

import functools

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


def score_views(views, pairs, wrong):
    """
    All scores of the views of one direction.

    Parameters
    ----------
    views : `Views`
        Of N pairs.
    pairs : `~astro_disentangle.PairedCutouts`
        The pairs; with their noiseless images where these are known.
    wrong : `Views`
        The same with the wrong donors, as a control.

    Returns
    -------
    scores : list of `Score`
        The rows.
    baselines : dict of (str, str, str) to float
        Scores of PSF matching by group, measure and direction.
    """
    survey, direction = views.batch.survey, f"{views.source}->{views.target}"
    signal = source_signal(pairs.batch(views.source))
    pixels, good = views.pixels.numpy(), views.good.numpy()
    noise = views.batch.noise.numpy()[:, :, None, None]
    known = pairs.noiseless is not None
    truth = pairs.noiseless[views.target].numpy() if known else pixels
    name = "truth" if known else "observed"
    rows, baselines = [], {}

    def add(group, measure, statistic, *parts, clusters=None):
        found = bootstrap(statistic, *parts, groups=clusters)
        rows.append(Score(group, measure, direction, *found))

    chosen = good & np.isfinite(noise)
    errors = {
        f"RMS of mean - {name} over noise": ("error", views.mean),
        f"RMS of mean - {name} over noise, wrong donors": ("control", wrong.mean),
        f"RMS of {name} over noise, blank": ("control", 0 * views.mean),
    }
    for measure, (group, image) in errors.items():
        add(group, measure, _rms, *_squares(image - truth, noise, chosen))
    matched = _matched(pairs, views)
    if matched is not None:
        both = chosen & np.isfinite(matched)
        add(
            "error",
            f"RMS of mean - {name}, where PSF matching can be",
            _rms,
            *_squares(views.mean - truth, noise, both),
        )
        squares = _squares(np.nan_to_num(matched) - truth, noise, both)
        key = ("error", f"RMS of mean - {name}, where PSF matching can be", direction)
        baselines[key] = _rms(*squares)

    predicted = aperture_sums(views.mean, survey, views.offset)
    true = aperture_sums(truth, survey, views.offset)
    draws = _sample_sums(views.samples, survey, views.offset)
    other = None if matched is None else aperture_sums(matched, survey, views.offset)
    for band, letter in enumerate(survey.bands):
        bright = (signal >= 20) & views.batch.present[:, band].numpy()
        if bright.sum() < 10:
            continue
        ours, right = predicted[bright, band], true[bright, band]
        measure = f"2 arcsec flux {letter}, S/N >= 20"
        add("flux", f"{measure}: sum", flux_bias, ours, right)
        add("flux", f"{measure}: median", _median_bias, ours, right)
        add("flux", f"{measure}: scatter", _scatter, ours, right)
        if other is not None and np.isfinite(other[bright, band]).any():
            fine = np.isfinite(other[bright, band])
            for kind, statistic in _FLUX.items():
                key = ("flux", f"{measure}: {kind}", direction)
                baselines[key] = statistic(other[bright, band][fine], right[fine])
    rows += _calibration(views, truth, draws, chosen, direction)
    rows += _power(views, direction)
    return rows, baselines


def _calibration(views, truth, draws, chosen, direction):
    """Widths of pixel z-scores and coverage of aperture fluxes."""
    rows, survey = [], views.batch.survey
    count = views.samples.shape[1]
    if count < 4:
        return rows
    spread = views.samples.std(1, ddof=1)
    # Mean and variance of S normal samples: z has this width when all is right.
    expected = np.sqrt((1 + 1 / count) * (count - 1) / (count - 3))
    z = (views.pixels.numpy() - views.mean) / np.maximum(spread, 1e-9) / expected
    noise = views.batch.noise.numpy()[:, :, None, None]
    lit = truth > noise
    for name, part in (("galaxies", chosen & lit), ("sky", chosen & ~lit)):
        moments = _squares(z, 1.0, part)
        rows.append(
            Score(
                "calibration",
                f"width of pixel z, {name}",
                direction,
                *bootstrap(_rms, *moments),
            )
        )
    observed = aperture_sums(views.pixels.numpy(), survey, views.offset)
    whole = views.good.all(-1).all(-1).numpy() & views.batch.present.numpy()
    below = (draws < observed[:, None]).sum(1)
    rank = (below + 0.5) / (count + 1)
    for share in _SHARES:
        inside = np.abs(rank - 0.5) < share / 2
        per_galaxy = (inside & whole).sum(1), whole.sum(1)
        measure = f"coverage of 2 arcsec flux, {share:.0%}"
        rows.append(
            Score("calibration", measure, direction, *bootstrap(_ratio, *per_galaxy))
        )
    return rows


def _power(views, direction):
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
    row = np.nonzero(usable)[0]
    rows = []
    for name, rings in (("low", (0, 3)), ("middle", (3, 6)), ("Nyquist", (6, 8))):
        parts = ours[:, slice(*rings)].mean(1), theirs[:, slice(*rings)].mean(1)
        found = bootstrap(_ratio, *parts, groups=row)
        measure = f"sample over observed, {name} frequencies"
        rows.append(Score("power", measure, direction, *found))
    return rows


def _matched(pairs, views):
    """The source matched to the target's true PSF, where both are known."""
    truth = pairs.truth
    names = [f"psf_fwhm_{name}" for name in (views.source, views.target)]
    if truth is None or any(name not in truth.colnames for name in names):
        return None
    widths = [np.asarray(truth[name].to_value("arcsec")) for name in names]
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
    return float(np.sqrt(squares.sum() / max(counts.sum(), 1)))


def _ratio(part, whole):
    return float(part.sum() / max(whole.sum(), 1e-30))


def _median_bias(predicted, true):
    return float(np.median(predicted / true) - 1)


def _scatter(predicted, true):
    low, high = np.percentile(predicted / true, [16, 84])
    return float((high - low) / 2)


_FLUX = {"sum": flux_bias, "median": _median_bias, "scatter": _scatter}
