# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Scores of latents: what is kept, what moves between surveys, what leaks."""

import numpy as np
import torch

from astro_disentangle.evaluation.alignment import (
    centred_kernel_alignment,
    mutual_nearest,
    neighbourhood_overlap,
    ranks_of_own,
)
from astro_disentangle.evaluation.probes import (
    predict_held_out,
    r_squared,
    survey_guesses,
)
from astro_disentangle.evaluation.scores import Score, bootstrap, ratio_of_sums

__all__ = [
    "Latents",
    "score_alignment",
    "score_instrument",
    "score_physics",
]

_CHUNK = 64
#: Fewest labelled galaxies, or sets of cut-outs, for a probe.
_FEWEST = 40
#: Kinds of retrieval.
_OTHER, _ORACLE = ", other neighbours", ", oracle"


class Latents:
    """
    Latents of both views of pairs.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.

    Attributes
    ----------
    physics : dict of str to `~numpy.ndarray`
        Per survey, shape (N, P).
    members, told : dict of str to `torch.Tensor`
        Per survey, shape (N, D): members of instrument sets, without and with the
        metadata of PSF and noise.
    """

    def __init__(self, network, pairs):
        self.network = network
        self.physics, self.members, self.told = {}, {}, {}
        for name in pairs.surveys:
            batch = pairs.batch(name)
            parts = [
                self._encode(batch[rows])
                for rows in torch.arange(len(batch)).split(_CHUNK)
            ]
            z, blind, told = (torch.cat(part) for part in zip(*parts, strict=True))
            self.physics[name] = z.numpy()
            self.members[name], self.told[name] = blind, told

    @torch.inference_mode()
    def _encode(self, batch):
        network = self.network
        view = network.view(batch.to(next(network.parameters()).device))
        bands = view.x.shape[1]
        blind = view.observation.clone()
        blind[:, bands:] = 0
        unseen = type(view)(view.survey, view.x, view.good, blind)
        return (
            network.physics(view).cpu(),
            network.instrument.members(unseen).cpu(),
            network.instrument.members(view).cpu(),
        )

    @torch.inference_mode()
    def instrument(self, survey, sets, *, told=False):
        """
        Instrument latents of sets of cut-outs.

        Parameters
        ----------
        survey : str
            Name of the survey.
        sets : sequence of array_like
            Rows of each of S sets.
        told : bool
            With the metadata of PSF and noise.

        Returns
        -------
        z_instrument : `~numpy.ndarray`
            Shape (S, I).
        """
        members = (self.told if told else self.members)[survey]
        pool = self.network.instrument.pool
        device = next(self.network.parameters()).device
        latents = []
        for rows in sets:
            part = members[torch.as_tensor(np.asarray(rows))].to(device)
            every = torch.ones(1, len(part), dtype=torch.bool, device=device)
            latents.append(pool(part, every).cpu())
        return torch.cat(latents).numpy()


def score_physics(latents, labels, conditions, signal, groups):
    """
    Retention, transfer and leakage of physics latents.

    Parameters
    ----------
    latents : `Latents`
        Of N pairs.
    labels : dict of str to `~numpy.ndarray`
        Properties, shape (N,), NaN where unknown.
    conditions : dict of (str, str) to `~numpy.ndarray`
        By survey and name of the condition, shape (N, C); NaN where unknown.
    signal : `~numpy.ndarray`
        Shape (N,), signal to noise of the galaxies.
    groups : `~numpy.ndarray`
        Shape (N,), which galaxies share conditions.

    Returns
    -------
    scores : list of `Score`
        The rows.
    """
    rows = []
    a, b = latents.physics
    for name, value in labels.items():
        known = np.isfinite(value)
        if known.sum() < _FEWEST:
            continue
        value = value[known]
        for one, other in ((a, b), (b, a)):
            z, z_other = (latents.physics[s][known] for s in (one, other))
            read = predict_held_out(z, value)
            moved = predict_held_out(z_other, value, others=z)
            found = bootstrap(r_squared, value, read)
            rows.append(Score("retention", f"R2 {name}, ridge", one, *found))
            deep = predict_held_out(z, value, probe="mlp")
            found = bootstrap(r_squared, value, deep)
            rows.append(Score("retention", f"R2 {name}, mlp", one, *found))
            loss = bootstrap(_loss, value, read, moved)
            rows.append(
                Score("transfer", f"R2 of {name} lost", f"{other}->{one}", *loss)
            )
    for probe in ("logistic", "neighbours", "mlp"):
        right = survey_guesses(latents.physics[a], latents.physics[b], probe=probe)
        pair = np.tile(np.arange(len(right) // 2), 2)
        found = bootstrap(np.mean, right, groups=pair)
        rows.append(Score("leakage", f"survey accuracy, {probe}", "physics", *found))
        if probe != "logistic":
            continue
        for low, high in ((0, 20), (20, 100), (100, np.inf)):
            within = np.tile((signal >= low) & (signal < high), 2)
            if within.sum() >= _FEWEST:
                found = bootstrap(np.mean, right[within], groups=pair[within])
                name = f"survey accuracy, {probe}, S/N {low} to {high:g}"
                rows.append(Score("leakage", name, "physics", *found))
    for (survey, name), value in conditions.items():
        scores = _per_band(latents.physics[survey], value, groups)
        rows += _worst("leakage", f"R2 {name} from physics", survey, scores, max)
    return rows


def score_instrument(latents, labels, conditions, groups, galaxies):
    """
    What instrument latents know of the conditions, and of the galaxy.

    Parameters
    ----------
    latents, labels, conditions, groups
        As in `score_physics`.
    galaxies : `~numpy.ndarray`
        Rows that are no stars: sets of cut-outs are of these.

    Returns
    -------
    scores : list of `Score`
        The rows.
    """
    rows = []
    single = [[row] for row in range(len(groups))]
    for survey in latents.physics:
        own = latents.instrument(survey, single)
        for name in ("redshift", "log_mass", "magnitude"):
            value = labels.get(name, np.full(len(groups), np.nan))
            known = np.isfinite(value)
            if known.sum() >= _FEWEST:
                read = predict_held_out(own[known], value[known])
                found = bootstrap(r_squared, value[known], read)
                label = f"R2 {name} from own instrument"
                rows.append(Score("leakage", label, survey, *found))
    of_group = groups[galaxies]
    sets = [galaxies[of_group == label] for label in np.unique(of_group)]
    # Some sets have lost a star: half of them are as large as that.
    most = int(np.median([len(s) for s in sets])) if sets else 0
    sets = [s for s in sets if len(s) >= most]
    if len(sets) < _FEWEST or most < 2:
        return rows
    for (survey, name), value in conditions.items():
        first = value[[s[0] for s in sets]]
        for count, told in ((1, False), (most, False), (most, True)):
            z = latents.instrument(survey, [s[:count] for s in sets], told=told)
            scores = _per_band(z, first, np.arange(len(sets)))
            label = f"R2 {name} from {count} cut-outs" + (", told" if told else "")
            rows += _worst("instrument", label, survey, scores, min)
    return rows


def score_alignment(latents, galaxies, other=None, oracle=None):
    """
    How well each galaxy finds itself, and its neighbours, in the other survey.

    Parameters
    ----------
    latents : `Latents`
        Of N pairs.
    galaxies : `~numpy.ndarray`
        The M rows to search with and among.
    other : `Latents`, optional
        The same galaxies with other neighbours around them.
    oracle : dict of str to `~numpy.ndarray`, optional
        From `~astro_disentangle.evaluation.oracle.oracle_ranks`.

    Returns
    -------
    scores : list of `Score`
        The rows, and the control with shuffled pairs.
    ranks : dict of (str, str) to `~numpy.ndarray`
        Shape (M,), place of each galaxy, 0 for the nearest, by kind (empty,
        ``", other neighbours"`` or ``", oracle"``) and direction.
    """
    a, b = latents.physics
    directions = {f"{one}->{two}": (one, two) for one, two in ((a, b), (b, a))}
    galleries = {"": latents} | ({_OTHER: other} if other else {})
    ranks = {
        (kind, direction): ranks_of_own(
            latents.physics[one][galaxies], gallery.physics[two][galaxies]
        )
        for kind, gallery in galleries.items()
        for direction, (one, two) in directions.items()
    }
    ranks |= {(_ORACLE, direction): rank for direction, rank in (oracle or {}).items()}
    rows = _score_recall(ranks)
    z_a, z_b = (latents.physics[name][galaxies] for name in (a, b))
    for kind, gallery in galleries.items():
        z = gallery.physics[b][galaxies]
        rows += _score_neighbours(z_a, z, kind, f"{a}, {b}")
    found = bootstrap(centred_kernel_alignment, z_a, z_b, halves=True)
    rows.append(Score("alignment", "kernel alignment", f"{a}, {b}", *found))
    shuffled = np.random.default_rng(0).permutation(len(z_b))
    found = bootstrap(np.mean, ranks_of_own(z_a, z_b[shuffled]) < 1)
    rows.append(Score("control", "recall@1, shuffled pairs", f"{a}->{b}", *found))
    return rows, ranks


def _score_recall(ranks):
    """Recall of every kind, and what other neighbours leave of the oracle's."""
    rows = []
    for (kind, direction), rank in ranks.items():
        for k in (1, 10):
            found = bootstrap(np.mean, rank < k)
            rows.append(Score("alignment", f"recall@{k}{kind}", direction, *found))
        if kind == _OTHER and (_ORACLE, direction) in ranks:
            parts = (rank < 1, ranks[_ORACLE, direction] < 1)
            found = bootstrap(ratio_of_sums, *parts)
            measure = f"recall@1{_OTHER} over oracle"
            rows.append(Score("alignment", measure, direction, *found))
    return rows


def _score_neighbours(z_a, z_b, kind, where):
    """Galaxies that choose one another, and neighbours that both surveys name."""
    k = min(10, len(z_a) - 1)
    parts = {
        "mutual nearest neighbours": mutual_nearest(z_a, z_b),
        "overlap of 10 neighbours": neighbourhood_overlap(z_a, z_b, k),
    }
    return [
        Score("alignment", measure + kind, where, *bootstrap(np.mean, part))
        for measure, part in parts.items()
    ]


def _loss(value, read, moved):
    return r_squared(value, read) - r_squared(value, moved)


def _per_band(latents, values, groups):
    """`bootstrap` of R² of each band's value, for bands that are known and vary."""
    found = []
    for value in values.T:
        known = np.isfinite(value)
        enough = known.sum() >= _FEWEST and len(np.unique(groups[known])) >= _FEWEST / 4
        if enough and value[known].std() > 0:
            read = predict_held_out(latents[known], value[known], groups[known])
            found.append(bootstrap(r_squared, value[known], read, groups=groups[known]))
    return found


def _worst(group, measure, where, found, choose):
    """The band that is worst, and the median one, as rows."""
    if not found:
        return []
    worst = choose(found)
    middle = sorted(found)[len(found) // 2]
    return [
        Score(group, f"{measure}, worst band", where, *worst),
        Score(group, f"{measure}, median band", where, *middle),
    ]
