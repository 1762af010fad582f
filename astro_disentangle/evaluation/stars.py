# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Whether painted stars have the PSF that was asked for."""

import numpy as np
import torch

from astro_disentangle.evaluation.photometry import image_fwhm
from astro_disentangle.evaluation.scores import Score, bootstrap
from astro_disentangle.evaluation.views import source_signal
from astro_disentangle.keys import torch_generator

__all__ = ["score_stars"]

#: Fewest stars for a score, and their least signal to noise.
_FEWEST, _SIGNAL = 12, 50


@torch.inference_mode()
def score_stars(network, pairs, star, *, n_samples, n_steps, seed):
    """
    FWHM of translated stars against that of their noiseless images.

    Conditions are given as numbers. Widths are those of Moffat fits in the survey's
    sharpest usual band.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.
    star : `~numpy.ndarray`
        Shape (N,), bool, which of them are stars.
    n_samples, n_steps : int
        Samples of each star and steps of the solver.
    seed : int
        Key of the noise.

    Returns
    -------
    scores : list of `Score`
        None where there are fewer than 12 bright stars, or no noiseless images.
    """
    rows = []
    if pairs.noiseless is None or not star.any():
        return rows
    a, b = pairs.surveys
    device = next(network.parameters()).device
    for source, target in ((a, b), (b, a)):
        bright = star & (source_signal(pairs.batch(source)) > _SIGNAL)
        if bright.sum() < _FEWEST:
            continue
        chosen = torch.from_numpy(np.flatnonzero(bright))
        batch, goal = (
            pairs.batch(name)[chosen].to(device) for name in (source, target)
        )
        survey = goal.survey
        band = int(np.argmin(survey.psf_fwhm))
        view, offset = network.view(batch), goal.stamp()[2]
        shape = (len(goal), n_samples, len(survey.bands), *2 * [survey.stamp_size])
        noise = torch.randn(shape, generator=torch_generator(seed, "stars", target))
        z_physics = network.physics(view)
        samples = network.translate(
            z_physics,
            network.describe(target, goal.psf_fwhm, goal.noise),
            noise.to(device),
            prepare={
                "source": source,
                "observation": view.observation,
                "target": target,
                "noise": goal.noise,
                "offset": offset,
                "residual": network.residual_of(view, z_physics, target),
            },
            n_steps=n_steps,
        )
        scale = survey.pixel_scale
        reached = image_fwhm(samples.mean(1)[:, band].cpu().numpy(), scale)
        asked = image_fwhm(pairs.noiseless[target][chosen, band].numpy(), scale)
        fine = np.isfinite(reached) & np.isfinite(asked)
        if fine.sum() < _FEWEST:
            continue
        parts = reached[fine], asked[fine]
        direction, letter = f"{source}->{target}", survey.bands[band]
        for measure, statistic in (
            (f"FWHM {letter} reached over asked - 1, median", _median),
            (f"slope of FWHM {letter} reached against asked", _slope),
        ):
            found = bootstrap(statistic, *parts)
            rows.append(Score("stars", measure, direction, *found))
    return rows


def _median(reached, asked):
    return float(np.median(reached / asked) - 1)


def _slope(reached, asked):
    return float(np.polyfit(asked, reached, 1)[0])
