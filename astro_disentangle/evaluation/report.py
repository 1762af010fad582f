# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The scoreboard as files: a table, JSON and figures."""

import json
from pathlib import Path

import numpy as np

from astro_disentangle.evaluation.curves import (
    plot_coverage,
    plot_deviations,
    plot_fluxes,
    plot_retrieval,
)
from astro_disentangle.evaluation.figures import (
    plot_latents,
    plot_leakage,
    plot_retention,
    plot_views,
)
from astro_disentangle.evaluation.latents import Latents
from astro_disentangle.evaluation.scoreboard import known_of, scored
from astro_disentangle.evaluation.views import Views

__all__ = ["write_report"]

_SHOWN = 1000


def write_report(network, pairs, directory, **options):
    """
    Score a network and write everything to a folder.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.PairedCutouts`
        Pairs that it was not trained on.
    directory : str or `~pathlib.Path`
        Folder for ``scores.ecsv``, ``scores.json``, and, as ``.png``, ``retention``,
        ``leakage``, ``latents``, ``retrieval``, ``fluxes``, ``coverage``,
        ``deviations`` and a picture of views for each direction.
    **options
        Of `~astro_disentangle.evaluation.scoreboard.scoreboard`.

    Returns
    -------
    table : `~astropy.table.QTable`
        The scoreboard.

    Examples
    --------
    >>> import tempfile
    >>> from astro_disentangle import Disentangler, simulate_pairs
    >>> from astro_disentangle.evaluation.report import write_report
    >>> network = Disentangler.load().network_
    >>> pairs = simulate_pairs(48, random_state=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_report(network, pairs, folder, n_views=8, n_samples=4,
    ...                          n_steps=1, baselines=False)
    >>> "retention" in table["group"]
    True
    """
    found = scored(network, pairs, **options)
    table, pairs = found.table, found.pairs
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    table.write(directory / "scores.ecsv", overwrite=True)
    rows = [dict(zip(table.colnames, map(_plain, row), strict=True)) for row in table]
    (directory / "scores.json").write_text(json.dumps(rows, indent=1))
    plot_retention(table, directory / "retention.png")
    plot_leakage(table, directory / "leakage.png")
    plot_retrieval(found.ranks, directory / "retrieval.png")
    plot_fluxes(found.curves, directory / "fluxes.png")
    plot_coverage(found.curves, directory / "coverage.png")
    plot_deviations(found.curves, directory / "deviations.png")
    _picture(network, pairs, directory, options.get("n_steps", 4))
    return table


def _picture(network, pairs, directory, n_steps):
    """Latents, and views of both directions."""
    few = pairs[:_SHOWN]
    labels, _, _ = known_of(few)
    named = {n: labels[n] for n in ("redshift", "magnitude", "log_size") if n in labels}
    physics = Latents(network, few).physics
    plot_latents(physics, named or labels, directory / "latents.png")
    a, b = pairs.surveys
    settings = {"n_samples": 8, "n_steps": n_steps, "seed": 0}
    for source, target in ((a, b), (b, a)):
        views = Views(network, pairs[:16], source, target, **settings)
        plot_views(views, pairs[:16], directory / f"{source}_as_{target}.png")


def _plain(value):
    """A value that JSON can hold; None for NaN."""
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return str(value)
