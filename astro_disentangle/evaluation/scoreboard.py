# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The scoreboard of a model: every score beside its baselines and its aim.

Three columns stand beside a score: the same network before training, what astronomers
do without a network (boosted trees on, or neighbours in, aperture photometry; PSF
matching), and the aim. Rows of the group ``control`` must come out bad: shuffled pairs,
the wrong donors, a blank image.
"""

import importlib.util
import re
from dataclasses import dataclass

import numpy as np
import torch
from astropy.table import QTable
from tqdm import tqdm

from astro_disentangle.data.pairs import PairedCutouts
from astro_disentangle.evaluation.baselines import catalog_ranks, measured_catalog
from astro_disentangle.evaluation.cost import score_cost
from astro_disentangle.evaluation.curves import ViewCurves
from astro_disentangle.evaluation.latents import (
    Latents,
    score_alignment,
    score_instrument,
    score_physics,
)
from astro_disentangle.evaluation.oracle import oracle_ranks
from astro_disentangle.evaluation.probes import predict_held_out, r_squared
from astro_disentangle.evaluation.stars import score_stars
from astro_disentangle.evaluation.views import Views, score_views, source_signal
from astro_disentangle.model.network import Network
from astro_disentangle.quality import FLAGS, CutoutError

__all__ = ["Scored", "known_of", "scoreboard", "scored"]

#: Aims by the beginning of group and measure.
_AIMS = {
    r"transfer: .* lost": "<= 0.02",
    r"leakage: survey accuracy, logistic$": "<= 0.55",
    r"leakage: survey accuracy, (neighbours|mlp)$": "<= 0.60",
    r"leakage: R2 .* from (physics|own instrument)": "<= 0.05",
    r"instrument: R2 psf_fwhm from (?!1 ).*cut-outs, worst": ">= 0.80",
    r"instrument: R2 depth from (?!1 ).*cut-outs, worst": ">= 0.90",
    r"instrument: .* from (?!1 ).*told, worst": ">= 0.98",
    r"alignment: recall@1$": ">= 0.95",
    r"alignment: recall@1, other neighbours over oracle": ">= 0.90",
    r"flux: .* sum": "+- 0.01",
    r"flux: .* sigma": "+- 3",
    r"power: ": "1 +- 0.05",
    r"calibration: width": "1 +- 0.03",
    r"calibration: coverage .* 68%": "0.68 +- 0.02",
    r"calibration: coverage .* 95%": "0.95 +- 0.01",
    r"stars: FWHM": "+- 0.03",
    r"control: error of wrong donors": "> 1",
}
_CONDITIONS = ("psf_fwhm", "depth")
#: Views that are painted with the wrong donors too.
_CONTROLS = 64
_LOGARITHMS = {"r_half": "log_size"}
#: How tables write that something is a star, or is not.
_STAR = {"true": True, "t": True, "1": True, "1.0": True}
_STAR |= {"false": False, "f": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Scored:
    """
    A scoreboard, and what its figures show.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The scoreboard.
    pairs : `~astro_disentangle.PairedCutouts`
        The usable pairs.
    ranks : dict of (str, str) to `~numpy.ndarray`
        Of `~astro_disentangle.evaluation.latents.score_alignment`, and with the kind
        ``", photometry"`` those of the baseline.
    curves : tuple of `~astro_disentangle.evaluation.curves.ViewCurves`
        One for each direction.
    """

    table: QTable
    pairs: PairedCutouts
    ranks: dict
    curves: tuple


def scoreboard(
    network,
    pairs,
    *,
    other=None,
    n_views=256,
    n_samples=16,
    n_steps=4,
    seed=0,
    baselines=True,
    progress=False,
):
    """
    All scores of a network on pairs.

    The table of `scored`.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        Pairs that it was not trained on. Columns of numbers in their ``truth`` are the
        properties to be read; ``psf_fwhm_NAME`` and ``depth_NAME`` the conditions;
        rows with ``is_star`` are left out of both. Without a truth, or without
        noiseless images, the rows that need them are missing, or compare with the
        observed image.
    other : `~astro_disentangle.PairedCutouts`, optional
        The same galaxies with other neighbours around them.
    n_views : int
        Pairs that are translated.
    n_samples, n_steps : int
        Samples of each and steps of the solver.
    seed : int
        Key of the noise.
    baselines : bool
        Fill the columns of baselines too.
    progress : bool
        Show a progress bar.

    Returns
    -------
    table : `~astropy.table.QTable`
        Columns ``group``, ``measure``, ``where``, ``value``, ``low``, ``high`` (68%
        interval of a bootstrap over galaxies), ``n`` (galaxies, or sets of them),
        ``untrained``, ``classical`` and ``aim``.

    Raises
    ------
    CutoutError
        If fewer than 16 pairs are usable.

    Examples
    --------
    >>> from astro_disentangle import Disentangler, simulate_pairs
    >>> from astro_disentangle.evaluation.scoreboard import scoreboard
    >>> pairs = simulate_pairs(48, random_state=1)
    >>> table = scoreboard(Disentangler.load().network_, pairs, n_views=8,
    ...                    n_samples=4, n_steps=1, baselines=False)
    >>> table.colnames[:4]
    ['group', 'measure', 'where', 'value']
    """
    return scored(
        network,
        pairs,
        other=other,
        n_views=n_views,
        n_samples=n_samples,
        n_steps=n_steps,
        seed=seed,
        baselines=baselines,
        progress=progress,
    ).table


def scored(
    network,
    pairs,
    *,
    other=None,
    n_views=256,
    n_samples=16,
    n_steps=4,
    seed=0,
    baselines=True,
    progress=False,
):
    """
    All scores of a network on pairs, and what figures need.

    Parameters
    ----------
    network, pairs, other, n_views, n_samples, n_steps, seed, baselines, progress
        As in `scoreboard`.

    Returns
    -------
    scored : `Scored`
        The table, and what is behind it.

    Raises
    ------
    CutoutError
        If fewer than 16 pairs are usable.
    """
    pairs, other = _usable(pairs, other)
    labels, conditions, star = known_of(pairs)
    galaxies = np.flatnonzero(~star)
    known = labels, conditions, galaxies
    options = {"n_samples": n_samples, "n_steps": n_steps, "seed": seed}
    oracle = oracle_ranks(pairs, labels, galaxies, other=other, seed=seed)
    with tqdm(total=4 if baselines else 2, disable=not progress, unit="part") as bar:
        rows, ranks = _score_latents(network, pairs, other, oracle, *known)
        bar.update()
        # Whole groups, so that galaxies keep their donors.
        few = pairs[np.argsort(pairs.groups, kind="stable")[: max(n_views, 2)]]
        painted, matching, curves = _score_views(network, few, options)
        rows += painted
        rows += score_stars(network, pairs, star, **options)
        rows += score_cost(network, pairs, n_steps=n_steps)
        bar.update()
        untrained, classical = {}, {}
        if baselines:
            fresh = _untrained(network)
            rest, _ = _score_latents(fresh, pairs, other, oracle, *known)
            bar.update()
            rest += _score_views(fresh, few, options)[0]
            rest += score_stars(fresh, pairs, star, **options)
            untrained = {(r.group, r.measure, r.where): r.value for r in rest}
            classical, found = _classical(pairs, other, labels, galaxies)
            classical |= matching
            ranks |= found
            bar.update()
    return Scored(_table(rows, untrained, classical), pairs, ranks, curves)


def _usable(pairs, other):
    """The usable ones of pairs, enough of them, and the same of the others."""
    if importlib.util.find_spec("sklearn") is None:
        raise CutoutError(
            "a report needs scikit-learn; install it with "
            "pip install 'astro_disentangle[eval]'."
        )
    usable = (pairs.flags & FLAGS.UNUSABLE) == 0
    if usable.sum() < 16:
        raise CutoutError(
            f"'pairs' must have at least 16 usable galaxies; got {usable.sum()}."
        )
    if usable.all():
        return pairs, other
    return pairs[usable], None if other is None else other[usable]


def known_of(pairs):
    """
    Properties and conditions in the truth of pairs, and which rows are stars.

    Parameters
    ----------
    pairs : `~astro_disentangle.PairedCutouts`
        N pairs.

    Returns
    -------
    labels : dict of str to `~numpy.ndarray`
        Columns of numbers, shape (N,), NaN for stars and where unknown;
        ``log_size`` is the logarithm of ``r_half``.
    conditions : dict of (str, str) to `~numpy.ndarray`
        By survey and ``psf_fwhm`` or ``depth``, shape (N, C), NaN for stars.
    star : `~numpy.ndarray`
        Shape (N,), bool, from ``is_star``: bools, 0 and 1, or the words true and false
        or their first letters; not where masked.

    Raises
    ------
    CutoutError
        If ``is_star`` holds anything else.

    Examples
    --------
    >>> from astro_disentangle import simulate_pairs
    >>> from astro_disentangle.evaluation.scoreboard import known_of
    >>> labels, conditions, star = known_of(simulate_pairs(4, random_state=1))
    >>> sorted(labels)[:3], sorted(conditions)[0]
    (['bulge_fraction', 'e1', 'e2'], ('hsc', 'depth'))
    """
    labels, conditions = {}, {}
    star = np.zeros(len(pairs), dtype=bool)
    truth = pairs.truth
    if truth is None:
        return labels, conditions, star
    if "is_star" in truth.colnames:
        star = _are_stars(truth["is_star"])
    own = [f"{name}_{survey}" for survey in pairs.surveys for name in _CONDITIONS]
    for name in truth.colnames:
        if getattr(truth[name], "dtype", np.dtype("O")).kind not in "fiu":
            continue
        value = _numbers(truth[name])
        if name in own:
            condition, survey = name.rsplit("_", 1)
            value = value if value.ndim == 2 else value[:, None]
            conditions[survey, condition] = np.where(star[:, None], np.nan, value)
        elif value.ndim == 1 and name not in ("ebv", "object_id"):
            value = np.where(star, np.nan, value)
            if name in _LOGARITHMS:
                name, value = _LOGARITHMS[name], np.log10(value)
            if np.nanmax(value, initial=-np.inf) > np.nanmin(value, initial=np.inf):
                labels[name] = value
    return labels, conditions, star


def _are_stars(column):
    """Which rows of a column, of bools or numbers or words, say yes."""
    hidden = np.broadcast_to(getattr(column, "mask", False), len(column))
    stars = np.zeros(len(column), dtype=bool)
    for row in np.flatnonzero(~hidden):
        value = column[row]
        text = value.decode() if isinstance(value, bytes) else str(value)
        if (word := text.strip().lower()) not in _STAR:
            raise CutoutError(
                "'is_star' must be true or false, as bool, 0 or 1, or word; "
                f"got {text!r}."
            )
        stars[row] = _STAR[word]
    return stars


def _numbers(column):
    """Values of a column, Quantity or masked or neither, as floats; NaN if masked."""
    values = getattr(column, "value", column).astype(float)
    filled = getattr(values, "filled", None)
    return np.asarray(values if filled is None else filled(np.nan), dtype=float)


def _score_latents(network, pairs, other, oracle, labels, conditions, galaxies):
    """Rows, and ranks of retrieval."""
    latents = Latents(network, pairs)
    signal = source_signal(pairs.batch(pairs.surveys[0]))
    rows = score_physics(latents, labels, conditions, signal, pairs.groups)
    rows += score_instrument(latents, labels, conditions, pairs.groups, galaxies)
    elsewhere = None if other is None else Latents(network, other)
    aligned, ranks = score_alignment(latents, galaxies, elsewhere, oracle)
    return rows + aligned, ranks


def _score_views(network, pairs, options):
    """Rows, scores of PSF matching, and curves."""
    rows, matching, curves = [], {}, []
    a, b = pairs.surveys
    for source, target in ((a, b), (b, a)):
        views = Views(network, pairs, source, target, **options)
        few, wrong = pairs[:_CONTROLS], None
        sizes = np.unique(few.groups, return_counts=True)[1]
        if (sizes > 1).sum() > 1:
            wrong = Views(network, few, source, target, wrong=True, **options)
        found, baseline = score_views(views, pairs, wrong)
        rows += found
        matching |= baseline
        curves.append(ViewCurves.of(views, pairs))
    return rows, matching, tuple(curves)


def _untrained(network):
    """The same network with new weights."""
    surveys = tuple(network.surveys.values())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        fresh = Network(surveys, network.config).eval()
    return fresh.to(next(network.parameters()).device)


def _classical(pairs, other, labels, galaxies):
    """What photutils measures, read by boosted trees and searched; ranks of the latter.

    Scores are by the name of the row.
    """
    found, ranks = {}, {}
    catalogs = {name: measured_catalog(pairs.batch(name)) for name in pairs.surveys}
    for name, catalog in catalogs.items():
        for label, value in labels.items():
            known = np.isfinite(value)
            if known.sum() < 100:
                continue
            read = predict_held_out(catalog[known], value[known], probe="trees")
            score = float(r_squared(value[known], read))
            for probe in ("ridge", "mlp"):
                found["retention", f"R2 {label}, {probe}", name] = score
    galleries = {"": catalogs}
    if other is not None:
        galleries[", other neighbours"] = {
            name: measured_catalog(other.batch(name)) for name in pairs.surveys
        }
    a, b = pairs.surveys
    for kind, gallery in galleries.items():
        for one, two in ((a, b), (b, a)):
            rank = catalog_ranks(
                catalogs[one][galaxies],
                gallery[two][galaxies],
                *(pairs.batch(name).survey for name in (one, two)),
            )
            for k in (1, 10):
                score = float((rank < k).mean())
                found["alignment", f"recall@{k}{kind}", f"{one}->{two}"] = score
            if not kind:
                ranks[", photometry", f"{one}->{two}"] = rank
    return found, ranks


def _table(rows, untrained, classical):
    table = QTable(
        rows=[(r.group, r.measure, r.where, r.value, r.low, r.high, r.n) for r in rows],
        names=("group", "measure", "where", "value", "low", "high", "n"),
    )
    keys = [(r.group, r.measure, r.where) for r in rows]
    for name, column in (("untrained", untrained), ("classical", classical)):
        table[name] = [column.get(key, np.nan) for key in keys]
    table["aim"] = [_aim(r.group, r.measure) for r in rows]
    for name in ("value", "low", "high", "untrained", "classical"):
        table[name].info.format = ".3f"
    return table


def _aim(group, measure):
    text = f"{group}: {measure}"
    return next((aim for rule, aim in _AIMS.items() if re.match(rule, text)), "")
