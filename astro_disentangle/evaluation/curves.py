# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Figures of a report: what is behind a row, as a curve."""

from dataclasses import dataclass

import numpy as np

from astro_disentangle.evaluation.alignment import recall_curve
from astro_disentangle.evaluation.calibration import LIMIT, coverage_curve, histograms
from astro_disentangle.evaluation.canvas import (
    BANDS,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    finish,
    new_axes,
)
from astro_disentangle.evaluation.fluxes import bins_of_views

__all__ = [
    "ViewCurves",
    "plot_coverage",
    "plot_deviations",
    "plot_fluxes",
    "plot_retrieval",
]

#: Lines of the kinds of retrieval.
_STYLES = {
    "": "-",
    ", other neighbours": "--",
    ", oracle": "-.",
    ", photometry": (0, (1, 1)),
}


@dataclass(frozen=True)
class ViewCurves:
    """
    What the figures of one direction show.

    Parameters
    ----------
    direction : str
        Source and target.
    fluxes : dict of str to `~astro_disentangle.evaluation.fluxes.FluxBins`
        By band.
    coverage : `~numpy.ndarray`, optional
        Shape (4, K): nominal coverage, observed, and its 68% interval.
    deviations : dict of str to `~numpy.ndarray`, optional
        Shape (B,), density of pixel deviations of ``galaxies`` and of the ``sky``.
    """

    direction: str
    fluxes: dict
    coverage: np.ndarray | None = None
    deviations: dict | None = None

    @classmethod
    def of(cls, views, pairs):
        """
        Those of views.

        Parameters
        ----------
        views : `~astro_disentangle.evaluation.views.Views`
            Of N pairs.
        pairs : `~astro_disentangle.PairedCutouts`
            The pairs; with their noiseless images where these are known.

        Returns
        -------
        curves : `ViewCurves`
            Without calibration where there are fewer than 4 samples.
        """
        truth, known = views.compared_with(pairs)
        fluxes = bins_of_views(views, truth, known)
        noiseless = None if pairs.noiseless is None else truth
        return cls(
            f"{views.source}->{views.target}",
            fluxes,
            coverage_curve(views),
            histograms(views, noiseless),
        )


def plot_retrieval(ranks, path=None):
    """
    Share of galaxies that are found among k neighbours, against k.

    Parameters
    ----------
    ranks : dict of (str, str) to `~numpy.ndarray`
        Shape (N,), by kind and direction, as
        `~astro_disentangle.evaluation.scoreboard.Scored` has them.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture: each curve with its 68% interval, and chance, k / N.

    Examples
    --------
    >>> from astro_disentangle.evaluation.curves import plot_retrieval
    >>> figure = plot_retrieval({("", "hsc->legacy"): [0, 0, 1, 3]})
    >>> figure.axes[0].get_xscale()
    'log'
    """
    directions = dict(
        zip(dict.fromkeys(name for _, name in ranks), (BLUE, ORANGE), strict=False)
    )
    figure, (axis,) = new_axes(1, 1, width=4.8, height=3.6)
    for (kind, direction), rank in ranks.items():
        counts = np.unique(np.geomspace(1, len(rank), 25).round().astype(int))
        recall, low, high = recall_curve(rank, counts)
        colour, style = directions[direction], _STYLES[kind]
        axis.plot(counts, recall, ls=style, color=colour, label=direction + kind)
        axis.fill_between(counts, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(counts, counts / len(rank), ":", color=GREY, label="chance")
    axis.set(xscale="log", ylim=(0, 1.02), xlabel="neighbours k", ylabel="recall@k")
    axis.legend(fontsize=7, loc="lower right")
    return finish(figure, path)


def plot_fluxes(curves, path=None):
    """
    Bias of the fluxes within 2 arcsec against the predicted magnitude.

    Parameters
    ----------
    curves : sequence of `ViewCurves`
        A panel each.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None where there are too few galaxies for any bin.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.curves import ViewCurves, plot_fluxes
    >>> from astro_disentangle.evaluation.fluxes import bin_fluxes
    >>> flux = np.linspace(100.0, 300.0, 50)
    >>> curves = ViewCurves("hsc->legacy", {"r": bin_fluxes(flux, 1.1 * flux, flux)})
    >>> plot_fluxes([curves]).axes[0].get_title()
    'hsc->legacy'
    """
    if not any(len(bins.bias) for one in curves for bins in one.fluxes.values()):
        return None
    figure, axes = new_axes(1, len(curves), width=4.4, height=3.4)
    for axis, one in zip(axes, curves, strict=True):
        axis.axhspan(-0.01, 0.01, color=GREEN, alpha=0.2, lw=0, label="aim")
        axis.axhline(0, color=GREY, lw=1)
        for number, (letter, bins) in enumerate(one.fluxes.items()):
            colour = BANDS[number % len(BANDS)]
            # Shifted so that error bars do not hide one another.
            place = bins.magnitude + 0.02 * number
            axis.errorbar(
                place, bins.bias, bins.error, fmt="o-", ms=3, color=colour, label=letter
            )
        axis.set(
            title=one.direction,
            xlabel="predicted magnitude within 2 arcsec",
            ylabel="sum(predicted) / sum(true) - 1",
        )
        axis.legend(fontsize=7, ncols=3, loc="upper left")
    return finish(figure, path)


def plot_coverage(curves, path=None):
    """
    Observed against nominal coverage of the fluxes within 2 arcsec.

    Parameters
    ----------
    curves : sequence of `ViewCurves`
        A curve each.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None without a calibration. Below the diagonal samples are too
        alike, above it too different.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.curves import ViewCurves, plot_coverage
    >>> curves = ViewCurves("hsc->legacy", {}, np.tile(np.linspace(0, 1, 5), (4, 1)))
    >>> len(plot_coverage([curves]).axes[0].lines)
    2
    """
    curves = [one for one in curves if one.coverage is not None]
    if not curves:
        return None
    figure, (axis,) = new_axes(1, 1, width=4.0, height=3.8)
    axis.plot([0, 1], [0, 1], color=GREY, lw=1, label="calibrated")
    for one, colour in zip(curves, (BLUE, ORANGE), strict=False):
        nominal, observed, low, high = one.coverage
        axis.plot(nominal, observed, color=colour, label=one.direction)
        axis.fill_between(nominal, low, high, color=colour, alpha=0.2, lw=0)
    axis.set(
        xlabel="nominal coverage",
        ylabel="observed coverage",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return finish(figure, path)


def plot_deviations(curves, path=None):
    """
    Histograms of pixel deviations beside the unit normal.

    Parameters
    ----------
    curves : sequence of `ViewCurves`
        A panel each.
    path : str or `~pathlib.Path`, optional
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture; None without a calibration.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.evaluation.curves import ViewCurves, plot_deviations
    >>> parts = {"galaxies": np.full(60, 0.1), "sky": np.full(60, 0.1)}
    >>> curves = ViewCurves("hsc->legacy", {}, deviations=parts)
    >>> plot_deviations([curves]).axes[0].get_yscale()
    'log'
    """
    curves = [one for one in curves if one.deviations is not None]
    if not curves:
        return None
    figure, axes = new_axes(1, len(curves), width=4.4, height=3.4)
    for axis, one in zip(axes, curves, strict=True):
        for (name, density), colour in zip(
            one.deviations.items(), (BLUE, ORANGE), strict=True
        ):
            edges = np.linspace(-LIMIT, LIMIT, len(density) + 1)
            axis.stairs(density, edges, color=colour, label=name)
        z = np.linspace(-LIMIT, LIMIT, 200)
        normal = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        axis.plot(z, normal, color=GREY, lw=1, label="unit normal")
        axis.set(
            title=one.direction,
            yscale="log",
            ylim=(1e-6, 1),
            xlabel="(observed - mean) / spread of samples",
            ylabel="density",
        )
        axis.legend(frameon=False, fontsize=8, loc="upper right")
    return finish(figure, path)
