# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Figures of a report: the scoreboard to look at."""

import numpy as np

from astro_disentangle.evaluation.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    finish,
    new_axes,
)
from astro_disentangle.quality import FLAGS

__all__ = ["plot_latents", "plot_leakage", "plot_retention", "plot_views"]


def plot_retention(table, path=None):
    """
    R² of properties in each survey, beside the baselines.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `~astro_disentangle.evaluation.scoreboard.scoreboard`.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None where the table has no such rows.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from astro_disentangle.evaluation.figures import plot_retention
    >>> table = QTable({"group": ["retention"], "measure": ["R2 redshift, ridge"],
    ...                 "where": ["hsc"], "value": [0.7], "low": [0.6], "high": [0.8],
    ...                 "untrained": [0.3], "classical": [0.65]})
    >>> plot_retention(table).axes[0].get_ylabel()
    'R²'
    """
    kept = table[table["group"] == "retention"]
    kept = kept[[text.endswith("ridge") for text in kept["measure"]]]
    if not len(kept):
        return None
    surveys = list(dict.fromkeys(kept["where"]))
    figure, axes = new_axes(1, len(surveys), width=4.4, height=3.4)
    for axis, survey in zip(axes, surveys, strict=True):
        rows = kept[kept["where"] == survey]
        place = np.arange(len(rows))
        error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        bars = (
            ("physics latents", "value", BLUE, np.abs(error)),
            ("aperture photometry, trees", "classical", ORANGE, None),
            ("untrained network", "untrained", GREY, None),
        )
        for number, (label, column, colour, spread) in enumerate(bars):
            axis.bar(
                place + 0.27 * (number - 1),
                np.clip(rows[column], 0, None),
                0.25,
                yerr=spread,
                color=colour,
                label=label,
            )
        names = [
            text.split()[1].strip(",").replace("_", " ") for text in rows["measure"]
        ]
        axis.set_xticks(place, [n.replace("_", " ") for n in names], rotation=40)
        axis.set(title=survey, ylabel="R²", ylim=(0, 1))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return finish(figure, path)


def plot_leakage(table, path=None):
    """
    What should not be readable, beside the untrained network and the aim.

    Parameters
    ----------
    table, path
        As in `plot_retention`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None where the table has no such rows.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from astro_disentangle.evaluation.figures import plot_leakage
    >>> table = QTable({"group": ["leakage"], "measure": ["R2 depth from physics"],
    ...                 "where": ["hsc"], "value": [0.1], "low": [0.0], "high": [0.2],
    ...                 "untrained": [0.3], "aim": ["<= 0.05"]})
    >>> len(plot_leakage(table).axes)
    1
    """
    rows = table[table["group"] == "leakage"]
    if not len(rows):
        return None
    figure, axes = new_axes(1, 1, width=8, height=0.8 + 0.24 * len(rows))
    place = -np.arange(len(rows))
    axes[0].barh(place, rows["value"], 0.6, color=BLUE, label="this model")
    axes[0].plot(rows["untrained"], place, "|", ms=11, color=ORANGE, label="untrained")
    aims = [float(text.split()[-1]) if text else np.nan for text in rows["aim"]]
    axes[0].plot(aims, place, "|", ms=11, color=GREEN, label="aim, at most")
    axes[0].hlines(place, rows["low"], rows["high"], color="black", lw=1)
    names = [f"{m} ({w})" for m, w in zip(rows["measure"], rows["where"], strict=True)]
    axes[0].set_yticks(place, names, fontsize=7)
    axes[0].set(xlim=(-0.1, 1), xlabel="R² or accuracy (chance: 0 or 0.5)")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    return finish(figure, path)


def plot_latents(latents, labels, path=None):
    """
    The two first principal components, by survey and by property.

    Parameters
    ----------
    latents : dict of str to `~numpy.ndarray`
        Physics latents of the same galaxies in two surveys, shape (N, P).
    labels : dict of str to `~numpy.ndarray`
        Up to three properties, shape (N,); NaN where unknown.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.figures import plot_latents
    >>> z = np.random.default_rng(0).normal(size=(20, 4))
    >>> len(plot_latents({"hsc": z, "legacy": z}, {}).axes)
    1
    """
    chosen = list(labels.items())[:3]
    stacked = np.concatenate(list(latents.values()))
    centre = stacked.mean(0)
    _, _, axes_of_z = np.linalg.svd(stacked - centre, full_matrices=False)
    places = {name: (z - centre) @ axes_of_z[:2].T for name, z in latents.items()}
    figure, axes = new_axes(1, 1 + len(chosen), width=3.4, height=3.2)
    for (name, xy), colour in zip(places.items(), (BLUE, ORANGE), strict=True):
        axes[0].plot(*xy.T, ".", ms=3, color=colour, alpha=0.6, label=name)
    axes[0].legend(frameon=False, fontsize=8)
    for axis, (label, value) in zip(axes[1:], chosen, strict=True):
        low, high = np.nanpercentile(value, [2, 98])
        for xy in places.values():
            points = axis.scatter(
                *xy.T, s=4, c=value, vmin=low, vmax=high, cmap="cividis"
            )
        figure.colorbar(points, ax=axis, label=label.replace("_", " "))
    for axis in axes:
        axis.set(xlabel="first component", ylabel="second component")
    return finish(figure, path)


def plot_views(views, pairs, path=None, *, band=None, count=4):
    """
    Source, view, target, and the difference in units of the noise.

    Parameters
    ----------
    views : `~astro_disentangle.evaluation.views.Views`
        Of N pairs.
    pairs : `~astro_disentangle.PairedCutouts`
        The pairs.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.
    band : str, optional
        Band to show; by default the one that most galaxies have in both surveys, of
        several the middle one.
    count : int
        Galaxies to show, the first usable ones that have the band, of known noise, in
        both surveys.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None where no galaxy has the band in both.

    Examples
    --------
    >>> from astro_disentangle import Disentangler, simulate_pairs
    >>> from astro_disentangle.evaluation.figures import plot_views
    >>> from astro_disentangle.evaluation.views import Views
    >>> pairs = simulate_pairs(8, random_state=1)
    >>> views = Views(Disentangler.load().network_, pairs, "hsc", "legacy",
    ...               n_samples=2, n_steps=1, seed=0)
    >>> len(plot_views(views, pairs, count=1).axes) > 4
    True
    """
    source, survey = pairs.batch(views.source), views.batch.survey
    usable = ((source.flags | views.batch.flags) & FLAGS.UNUSABLE) == 0
    seen = {
        letter: usable & _seen(source, letter) & _seen(views.batch, letter)
        for letter in source.survey.bands
        if letter in survey.bands and band in (None, letter)
    }
    best = max((int(rows.sum()) for rows in seen.values()), default=0)
    if best == 0:
        return None
    letters = [letter for letter, rows in seen.items() if rows.sum() == best]
    band = letters[len(letters) // 2]
    here, there = source.survey.bands.index(band), survey.bands.index(band)
    rows = seen[band].nonzero()[:count, 0].tolist()
    titles = (
        f"{views.source} {band}",
        f"as {views.target}: one sample",
        "mean of samples",
        f"{views.target} observed",
        "(observed - mean) / noise",
    )
    figure, axes = new_axes(len(rows), 5, width=2.1, height=2.0)
    axes = axes.reshape(len(rows), 5)
    own = source.stamp()[0]
    for line, row in zip(axes, rows, strict=True):
        noise = float(views.batch.noise[row, there])
        target = views.pixels[row, there].numpy()
        target = np.where(views.good[row, there].numpy(), target, np.nan)
        mean = views.mean[row, there]
        images = [own[row, here].numpy(), views.samples[row, 0, there], mean, target]
        scales = [float(source.noise[row, here]), noise, noise, noise]
        for axis, image, scale in zip(line, images, scales, strict=False):
            axis.imshow(np.arcsinh(image / scale / 2), cmap="gray", origin="lower")
        shown = line[4].imshow(
            (target - mean) / noise, vmin=-5, vmax=5, cmap="RdBu", origin="lower"
        )
        figure.colorbar(shown, ax=line[4], label="sigma", fraction=0.05)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return finish(figure, path)


def _seen(batch, band):
    """Rows that have the band, and of known noise, (N,) bool."""
    place = batch.survey.bands.index(band)
    return batch.present[:, place] & batch.noise[:, place].isfinite()
