# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Pictures of cut-outs and of their translations."""

import numpy as np

__all__ = ["plot_translations", "to_rgb"]


def to_rgb(cutout, *, stretch=None):
    """
    A colour picture of a cut-out from its first three bands.

    Parameters
    ----------
    cutout : mapping of str to `~astropy.nddata.CCDData` or `SurveyCutout`
        Images by band, blue to red; all of one shape and unit.
    stretch : float, optional
        Softening of the arcsinh stretch in the unit of the images; from the
        noise of the middle band by default.

    Returns
    -------
    rgb : `~numpy.ndarray`
        Shape (y, x, 3), float, 0 to 1; the first row is the bottom one.

    Examples
    --------
    >>> from astro_disentangle.evaluation.plots import to_rgb
    >>> from astro_disentangle.samples import load_sample, sample_names
    >>> to_rgb(load_sample(sample_names(survey="hsc")[0])).shape[-1]
    3
    """
    bands = list(cutout)
    # The first three bands: every survey here has g and r, and then i or z.
    chosen = [bands[min(place, len(bands) - 1)] for place in (2, 1, 0)]
    planes = []
    for band in chosen:
        image = cutout[band]
        data = np.array(image.data, dtype=float)
        if image.mask is not None:
            data[image.mask] = 0.0
        planes.append(np.nan_to_num(data, posinf=0.0, neginf=0.0))
    # Redder bands are brighter: weights that make an average galaxy white.
    planes = np.array(planes) * np.array([0.65, 1.0, 1.7])[:, None, None]
    intensity = planes.mean(0)
    if stretch is None:
        low = intensity[intensity <= np.median(intensity)]
        stretch = 3 * np.median(np.abs(low - np.median(intensity))) + 1e-12
    top = max(np.arcsinh(intensity.max() / stretch), 1e-6)
    positive = np.maximum(intensity, 1e-12)
    scaled = np.arcsinh(np.maximum(intensity, 0) / stretch) / top / positive
    return np.clip(planes * scaled + 0.05, 0, 1).transpose(1, 2, 0)


def plot_translations(rows, *, path=None, title=None):
    """
    Real cut-outs beside what the other survey would have seen.

    Parameters
    ----------
    rows : sequence of (str, mapping, mapping)
        Label, real cut-out and translated cut-out of each galaxy.
    path : str or `~pathlib.Path`, optional
        Where to write the figure.
    title : str, optional
        Title of the figure.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        One row per galaxy and four panels: colour and middle band, real and
        translated.

    Examples
    --------
    >>> from astro_disentangle.evaluation.plots import plot_translations
    >>> from astro_disentangle.samples import load_sample, sample_names
    >>> galaxy = load_sample(sample_names(survey="hsc")[0])
    >>> figure = plot_translations([("itself", galaxy, galaxy)])
    >>> len(figure.axes)
    4
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.2 * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    heads = ("real", "translated", "real, r", "translated, r")
    for line, (label, real, view) in zip(axes, rows, strict=True):
        for column, cutout in enumerate((real, view)):
            _panel(line[column], to_rgb(cutout), _extent(cutout))
            image = cutout["r" if "r" in list(cutout) else next(iter(cutout))]
            data = np.array(image.data, dtype=float)
            # Scaled to the noise, so that both panels show it alike.
            low = np.nanpercentile(data, 5)
            high = np.nanpercentile(data, 99.5)
            _panel(
                line[2 + column],
                np.arcsinh((data - low) / max(high - low, 1e-12) * 5),
                _extent(cutout),
                cmap="viridis",
            )
        line[0].set_ylabel(label, fontsize=8)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("arcsec", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _panel(axis, image, extent, **options):
    axis.imshow(image, origin="lower", extent=extent, **options)
    axis.set_xlim(-4.2, 4.2)
    axis.set_ylim(-4.2, 4.2)
    axis.tick_params(labelsize=6)


def _extent(cutout):
    """Extent in arcsec about the centre of the image, for `imshow`."""
    image = cutout[next(iter(cutout))]
    if image.wcs is not None:
        from astropy.wcs.utils import proj_plane_pixel_scales

        scale = float(np.mean(proj_plane_pixel_scales(image.wcs.celestial))) * 3600
    else:
        scale = float(image.meta.get("PIXSCALE", 1.0))
    ny, nx = image.data.shape
    return (-nx * scale / 2, nx * scale / 2, -ny * scale / 2, ny * scale / 2)
