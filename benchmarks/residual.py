# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What residual latents buy: views with them, without them, and by PSF matching.

``python benchmarks/residual.py`` translates simulated galaxies between HSC and Legacy
and, from another visit, within each of them; ``--hst DIR`` does the same for stamps of
HST in the format of GalSim's real galaxies, painted by GalSim (0.7 s a galaxy). Every
number is one of the same galaxies with residual latents / without / by PSF matching
(upwards a Wiener deconvolution), with the true PSFs.

- error: root mean square of mean - truth over the noise, median galaxy;
- structure: of the light that differs from the mean of its ellipse, within 3 arcsec of
  galaxies of S/N > 50, the share that is there (1 is all), and the error left (0 is
  none, that of an image without any structure is 1);
- noise: how much of the source's noise is in the view, as a slope;
- power, fluxes, coverage as in the report;
- another galaxy's: a control, the error with residual latents mixed up.
"""

import argparse

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from astro_disentangle import Disentangler, simulate_pairs
from astro_disentangle.evaluation.views import Views, score_views, source_signal

DIRECTIONS = (
    ("hsc", "hsc"),
    ("legacy", "legacy"),
    ("hsc", "legacy"),
    ("legacy", "hsc"),
)
SHOWN = (
    ("RMS of mean - truth, where PSF matching can be, median galaxy", "error"),
    ("RMS of mean - truth, where PSF matching can be", "error, all"),
    ("sample over observed, middle frequencies", "power, middle"),
    ("sample over observed, Nyquist frequencies", "power, Nyquist"),
    ("2 arcsec flux r, S/N >= 20: scatter", "flux r, scatter"),
    ("2 arcsec flux r, S/N >= 20: sum", "flux r, sum"),
    ("coverage of 2 arcsec flux, 68%", "coverage 68%"),
    ("width of pixel z, galaxies", "width of z"),
)


def structure(image, offset, e1, e2, scale):
    """The image minus the mean of each ellipse about the galaxy; 0 beyond 3 arcsec."""
    size = image.shape[-1]
    axis = np.arange(size) - (size - 1) / 2
    x, y = axis[None, :] - offset[0], axis[:, None] - offset[1]
    square = (1 + e1**2 + e2**2) * (x**2 + y**2)
    square = square - 2 * e1 * (x**2 - y**2) - 4 * e2 * x * y
    radius = np.sqrt(np.maximum(square, 0) / max(1 - e1**2 - e2**2, 0.05)) * scale
    ring = np.minimum((radius / (1.5 * scale)).astype(int), 40)
    total = np.bincount(ring.ravel(), image.ravel(), 41)
    count = np.bincount(ring.ravel(), minlength=41)
    profile = total / np.maximum(count, 1)
    smooth = map_coordinates(
        profile, [radius.ravel() / (1.5 * scale) - 0.5], order=1, mode="nearest"
    ).reshape(image.shape)
    return np.where(np.hypot(x, y) * scale < 3, image - smooth, 0)


def structures(images, views, pairs, rows, band):
    """Structure of some galaxies in a band, (M, N, N), over the noise."""
    scale, noise = views.batch.survey.pixel_scale, views.batch.noise.numpy()
    truth = pairs.truth
    return np.stack(
        [
            structure(
                np.nan_to_num(images[row, band]),
                views.offset[row].numpy(),
                float(truth["e1"][row]),
                float(truth["e2"][row]),
                scale,
            )
            / noise[row, band]
            for row in rows
        ]
    )


def score(views, pairs):
    """All numbers of the views of one direction: ours, and PSF matching's."""
    rows, baselines = score_views(views, pairs)
    values = {row.measure: row.value for row in rows}
    matched = {measure: value for (_, measure, _), value in baselines.items()}
    found = {
        name: (values.get(measure, np.nan), matched.get(measure, np.nan))
        for measure, name in SHOWN
    }
    survey = views.batch.survey
    band, truth = survey.bands.index("r"), pairs.noiseless[views.target].numpy()
    signal = source_signal(views.seen.batch(views.source))
    known = views.batch.noise[:, band].isfinite().numpy()
    star = np.asarray(pairs.truth["is_star"], bool)
    chosen = np.flatnonzero((signal > 50) & known & ~star)
    want, have = (
        structures(images, views, pairs, chosen, band) for images in (truth, views.mean)
    )
    per_row = np.square(want).sum((1, 2))
    share = (want * have).sum((1, 2)) / per_row
    left = np.square(want - have).sum((1, 2)) / per_row
    found["structure, share"] = np.median(share), np.nan
    found["structure, error"] = np.median(left), np.nan
    if views.source == views.target:
        seen = views.seen
        noise = seen.batch(views.source).stamp()[0] - seen.noiseless[views.source]
        noise = noise[:, band].numpy()
        wrong = (views.mean - truth)[:, band]
        good = views.good[:, band] & seen.batch(views.source).stamp()[1][:, band]
        good = good.numpy() & (np.abs(truth[:, band]) < noise.std())
        slope = (noise * wrong)[good].sum() / np.square(noise)[good].sum()
        found["noise of the source"] = slope, np.nan
    return found


def mixed_up(network, pairs, source, target, **settings):
    """The error with the residual latents of another galaxy: a control."""
    original = network.residual_of
    network.residual_of = lambda *known: original(*known).roll(1, 0)
    try:
        views = Views(network, pairs, source, target, **settings)
    finally:
        del network.residual_of
    return score(views, pairs)["error"][0]


def two_visits(options):
    """The same galaxies twice."""
    if options.hst is None:
        return [
            simulate_pairs(options.pairs, random_state=options.seed, visit=visit)
            for visit in (0, 1)
        ]
    from astro_disentangle.evaluation.galsim_pairs import render_pairs
    from astro_disentangle.simulation.pairs import as_pairs

    known = {"seed": options.seed, "morphology": "hst", "stamps": options.hst}
    return [
        as_pairs(render_pairs(options.pairs, visit=visit, progress=True, **known))
        for visit in (0, 1)
    ]


def main():
    """Translate, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--hst", metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = Disentangler.load(options.weights).network_
    pairs, again = two_visits(options)
    settings = {"n_samples": options.samples, "n_steps": 4, "seed": 0}
    columns = {}
    for source, target in DIRECTIONS:
        seen = again if source == target else pairs
        for residual in (True, False):
            views = Views(
                network,
                pairs,
                source,
                target,
                seen=seen,
                residual=residual,
                **settings,
            )
            columns[source, target, residual] = score(views, pairs)
        columns[source, target, True]["error, another galaxy's"] = (
            mixed_up(network, pairs, source, target, seen=seen, **settings),
            np.nan,
        )
    print(f"{'':24s}", *(f"{a + ' -> ' + b:>20s}" for a, b in DIRECTIONS))
    for name in columns["hsc", "hsc", True]:
        cells = []
        for direction in DIRECTIONS:
            ours, plain = (
                columns[*direction, r].get(name, (np.nan, np.nan))
                for r in (True, False)
            )
            cells.append(f"{ours[0]:.3f} {plain[0]:.3f} {ours[1]:.3f}")
        print(f"{name:24s}", *(f"{cell:>20s}" for cell in cells))


if __name__ == "__main__":
    main()
