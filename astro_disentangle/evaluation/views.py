# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Scores of translated views: error, fluxes, detail, calibration."""

import functools

import astropy.units as u
import numpy as np
import torch

from astro_disentangle.evaluation.baselines import match_psf
from astro_disentangle.evaluation.calibration import score_calibration
from astro_disentangle.evaluation.fluxes import score_fluxes
from astro_disentangle.evaluation.photometry import aperture_sums, radial_power
from astro_disentangle.evaluation.scores import (
    Score,
    bootstrap,
    ratio_of_sums,
    root_mean_square,
    squares_of_rows,
)
from astro_disentangle.keys import torch_generator

__all__ = ["Views", "score_views", "source_signal"]

_CHUNK = 32


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

    The conditions are those of the donors, and the noise, where it is known, that of
    the target's own metadata, as `~astro_disentangle.Disentangler.translate` has it.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.
    source, target : str
        Names of the surveys.
    n_samples, n_steps : int
        Samples S of each galaxy and steps of the solver.
    seed : int
        Key of the noise.
    wrong : bool
        Take the donors, and the noise, from another group of galaxies than the
        target's.
    seen : `~astro_disentangle.PairedCutouts`, optional
        The same galaxies under other conditions, from which the views are painted;
        source and target may then be one survey.
    residual : bool
        Paint with the residual latents of the source, where there are any.

    Attributes
    ----------
    samples : `~numpy.ndarray`
        Shape (N, S, C, H, W), nJy, float32.
    """

    def __init__(
        self,
        network,
        pairs,
        source,
        target,
        *,
        n_samples,
        n_steps,
        seed,
        wrong=False,
        seen=None,
        residual=True,
    ):
        self.source, self.target = source, target
        self.batch = pairs.batch(target)
        self.pixels, self.good, self.offset = self.batch.stamp()
        donors = _donors(pairs.groups, wrong)
        sky = _noise_of(donors, self.batch.noise) if wrong else self.batch.noise
        device = next(network.parameters()).device
        survey = self.batch.survey
        shape = (n_samples, len(survey.bands), *2 * [survey.stamp_size])
        self.seen = pairs if seen is None else seen
        from_batch, parts = self.seen.batch(source), []
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
                z_physics, detail = network.physics(view), None
                if residual:
                    detail = network.residual_of(view, z_physics, target)
                samples = network.translate(
                    z_physics,
                    network.instrument.pool(members, donors[rows].to(device)),
                    noise.to(device),
                    prepare={
                        "source": source,
                        "observation": view.observation,
                        "target": target,
                        "noise": sky[rows].to(device),
                        "offset": self.offset[rows].to(device),
                        "residual": detail,
                    },
                    n_steps=n_steps,
                )
                parts.append(samples.cpu())
        self.samples = torch.cat(parts).numpy()

    @functools.cached_property
    def mean(self):
        """Mean of the samples, (N, C, H, W)."""
        return self.samples.mean(1)

    @functools.cached_property
    def sums(self):
        """Fluxes of the samples within 2 arcsec, (N, S, C), nJy."""
        rows, count, bands = self.samples.shape[:3]
        images = self.samples.reshape(rows, count * bands, *self.samples.shape[3:])
        sums = aperture_sums(images, self.batch.survey, self.offset)
        return sums.reshape(rows, count, bands)

    @functools.cached_property
    def ranks(self):
        """Samples whose flux within 2 arcsec is below the observed, (N, C)."""
        images, survey = self.pixels.numpy(), self.batch.survey
        observed = aperture_sums(images, survey, self.offset)
        return (self.sums < observed[:, None]).sum(1)

    @functools.cached_property
    def whole(self):
        """Whether no pixel of the aperture is bad, (N, C)."""
        bad = (~self.good).float().numpy()
        sums = aperture_sums(bad, self.batch.survey, self.offset)
        return (sums == 0) & self.batch.present.numpy()

    def compared_with(self, pairs):
        """Noiseless or else observed images; where fluxes of them are known, (N, C)."""
        if pairs.noiseless is None:
            return self.pixels.numpy(), self.whole
        return pairs.noiseless[self.target].numpy(), self.batch.present.numpy()


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
    truth, known = views.compared_with(pairs)
    name = "observed" if pairs.noiseless is None else "truth"
    noise = views.batch.noise.numpy()[:, :, None, None]
    chosen = views.good.numpy() & np.isfinite(noise)
    matched = _matched(pairs, views)
    baselines = {}
    found = _errors(views, truth, name, noise, chosen, wrong)
    if matched is not None:
        found += _matched_errors(views, truth, name, noise, matched, chosen, baselines)
    signal = source_signal(views.seen.batch(views.source))
    fluxes, other = score_fluxes(views, truth, known, signal, matched)
    noiseless = None if pairs.noiseless is None else truth
    found += fluxes + score_calibration(views, noiseless) + _power(views)
    baselines |= other
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
        squares = squares_of_rows(image - truth, noise, chosen)
        found.append((group, measure, bootstrap(root_mean_square, *squares)))
        # A few bright neighbours are most of that.
        middle = bootstrap(_median_rms, *squares)
        found.append((group, f"{measure}, median galaxy", middle))
    if wrong is not None:
        few = slice(0, len(wrong.mean))
        sides = (
            squares_of_rows(image[few] - truth[few], noise[few], chosen[few])[0]
            for image in (wrong.mean, views.mean)
        )
        measure = "error of wrong donors over that of right ones"
        found.append(("control", measure, bootstrap(_excess, *sides)))
    return found


def _matched_errors(views, truth, name, noise, matched, chosen, baselines):
    """The same where PSF matching has a result to compare with."""
    both = chosen & np.isfinite(matched)
    ours = squares_of_rows(views.mean - truth, noise, both)
    theirs = squares_of_rows(np.nan_to_num(matched) - truth, noise, both)
    found, measure = [], f"RMS of mean - {name}, where PSF matching can be"
    for label, statistic in (("", root_mean_square), (", median galaxy", _median_rms)):
        found.append(("error", measure + label, bootstrap(statistic, *ours)))
        baselines["error", measure + label] = statistic(*theirs)
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
        score = bootstrap(ratio_of_sums, *parts, groups=galaxy)
        found.append(("power", f"sample over observed, {name} frequencies", score))
    return found


def _matched(pairs, views):
    """The source matched to the target's true PSF, where both are known."""
    sides = ((views.seen, views.source), (pairs, views.target))
    widths = [_widths(*side) for side in sides]
    if any(width is None for width in widths):
        return None
    return match_psf(views.seen.batch(views.source), views.batch, *widths).numpy()


def _widths(pairs, survey):
    """True FWHM of the PSF, (N, C), arcsec, or None."""
    truth, name = pairs.truth, f"psf_fwhm_{survey}"
    if truth is None or name not in truth.colnames:
        return None
    width = np.ma.filled(u.Quantity(truth[name], u.arcsec).value, np.nan)
    count = len(pairs.batch(survey).survey.bands)
    return width if width.ndim == 2 else np.tile(width[:, None], count)


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


def _noise_of(donors, noise):
    """Median noise of each row's donors, (N, C)."""
    return torch.stack([noise[chosen].nanmedian(0).values for chosen in donors])


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
