# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What an embedding and a translation cost."""

import time

import numpy as np
import torch

from astro_disentangle.evaluation.scores import Score
from astro_disentangle.model.conditions import described_conditions
from astro_disentangle.translation import noise_of_objects, paint

__all__ = ["score_cost"]

#: Galaxies at a time, and repetitions.
_ROWS, _TIMES = 16, 3


def score_cost(network, pairs, *, n_steps):
    """
    Evaluations of the decoder, and seconds per galaxy on the network's device.

    Of batches of up to 16 galaxies: the latents of their own cut-outs, and one sample
    in the other survey, encoders included.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        At least one pair.
    n_steps : int
        Steps of the solver.

    Returns
    -------
    scores : list of `Score`
        Seconds are the median, least and most of three times; they differ from run to
        run.

    Examples
    --------
    >>> from astro_disentangle import Disentangler, simulate_pairs
    >>> from astro_disentangle.evaluation.cost import score_cost
    >>> pairs = simulate_pairs(2, random_state=1)
    >>> rows = score_cost(Disentangler.load().network_, pairs, n_steps=4)
    >>> rows[0].measure, rows[0].where
    ('decoder evaluations of a translation', 'hsc->legacy')
    """
    rows = []
    a, b = pairs.surveys
    few = pairs[:_ROWS]
    for source, target in ((a, b), (b, a)):
        where = f"{source}->{target}"
        batch, survey = few.batch(source), few.batch(target).survey
        conditions = described_conditions(
            network, survey, survey.psf_fwhm, survey.pixel_noise()
        )
        noise = noise_of_objects(0, batch.keys, conditions.survey)
        options = {"n_samples": 1, "n_steps": n_steps, "noise": noise}
        count = _evaluations(network, batch, conditions, options)
        rows += [
            Score(
                "cost",
                "decoder evaluations of a translation",
                where,
                *(count, count, count, len(few)),
            ),
            Score(
                "cost",
                "seconds per galaxy, translation",
                where,
                *_seconds(len(few), paint, network, batch, conditions, **options),
            ),
            Score(
                "cost",
                "seconds per galaxy, embedding",
                source,
                *_seconds(len(few), _embed, network, batch),
            ),
        ]
    return rows


@torch.inference_mode()
def _embed(network, batch):
    """Both latents of every cut-out, on the CPU."""
    view = network.view(batch.to(next(network.parameters()).device))
    members = network.instrument.members(view)
    own = torch.eye(len(members), dtype=torch.bool, device=members.device)
    return network.physics(view).cpu(), network.instrument.pool(members, own).cpu()


def _evaluations(network, batch, conditions, options):
    """How often a translation asks the decoder."""
    calls = []
    hook = network.decoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        paint(network, batch, conditions, **options)
    finally:
        hook.remove()
    return float(len(calls))


def _seconds(count, function, *args, **options):
    """Median, least and most seconds per galaxy, and the number of galaxies."""
    function(*args, **options)  # warm
    times = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        function(*args, **options)
        times.append((time.perf_counter() - start) / count)
    return float(np.median(times)), min(times), max(times), count
