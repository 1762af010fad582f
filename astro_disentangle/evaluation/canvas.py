# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Figures that need no window.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

__all__ = ["BANDS", "BLUE", "GREEN", "GREY", "ORANGE", "finish", "new_axes"]

BLUE, ORANGE, GREY, GREEN = "#0072B2", "#E69F00", "#999999", "#009E73"
#: Of bands, blue to red; a further one begins anew.
BANDS = (BLUE, GREEN, ORANGE, "#D55E00", "#CC79A7", "#000000")


def new_axes(rows, columns, *, width, height):
    """
    A figure and its axes.

    Parameters
    ----------
    rows, columns : int
        Number of panels.
    width, height : float
        Size of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure.
    axes : `~numpy.ndarray`
        Shape (rows x columns,), its axes, row by row.

    Examples
    --------
    >>> from astro_disentangle.evaluation.canvas import new_axes
    >>> new_axes(1, 2, width=3, height=3)[1].shape
    (2,)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes.ravel()


def finish(figure, path):
    """
    Write a figure where a path is given.

    Parameters
    ----------
    figure : `~matplotlib.figure.Figure`
        The figure.
    path : str or `~pathlib.Path` or None
        Where to write the picture.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The same.
    """
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
