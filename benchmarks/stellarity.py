# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How well stars are told from galaxies: recall and false alarms of POINT_SOURCE.

Simulated stars and galaxies of the same magnitudes, with their neighbours, are judged
with the image of their PSF and with its FWHM alone. Signal to noise is that of the fit
of the PSF to the image without noise, in all bands together. Sources with a bad pixel
in the core in all bands, as saturated stars have, are left out and counted as untold.
Last is the limit that has 1% of false alarms, and its recall. Needs the package only;
a few minutes on one core::

    python benchmarks/stellarity.py
"""

import argparse
from itertools import pairwise
from unittest import mock

import numpy as np
import torch

from astro_disentangle.data import stellarity
from astro_disentangle.data.measure import measure_fwhm, render_psf
from astro_disentangle.data.stellarity import spread_size, star_flag
from astro_disentangle.keys import numpy_generator, torch_generator
from astro_disentangle.simulation import scene, simulate
from astro_disentangle.simulation.instruments import draw_conditions
from astro_disentangle.simulation.render import psf_transform
from astro_disentangle.surveys import get_survey

SEED, GROUP, SIDE = 301, 5, 31
SIGNALS = (50, 70, 100, 200, 500, np.inf)
MAGNITUDES = (17, 19, 20, 21, 22, 23, 24)


def psf_images(survey, conditions):
    """Images of the PSF in native pixels, (G, C, 31, 31)."""
    transfer = psf_transform(survey, conditions)
    images = torch.fft.irfft2(transfer, s=(transfer.shape[-2],) * 2)
    half = SIDE // 2
    return images.roll((half, half), (-2, -1))[..., :SIDE, :SIDE].numpy()


def signal_to_noise(image, noise, psf, place):
    """That of the fit of the PSF to an image (C, N, N) without noise."""
    half = 10
    x, y = (round(value) for value in place)
    image = image[:, y - half : y + half + 1, x - half : x + half + 1]
    middle = slice(SIDE // 2 - half, SIDE // 2 + half + 1)
    psf = psf[:, middle, middle]
    flux = (image * psf).sum((1, 2)) / np.sqrt((psf**2).sum((1, 2)))
    return np.sqrt(np.nansum((flux / noise) ** 2))


def judge(survey, groups, share, magnitude):
    """Sources as rows: magnitude, S/N, told, then flag and q by image and FWHM."""
    conditions = draw_conditions(survey, groups, torch_generator(SEED, survey.name))
    psf = psf_images(survey, conditions)
    widths = measure_fwhm(psf, survey.pixel_scale)
    with mock.patch.object(scene, "_CENTRAL_STAR_SHARE", share):
        sky = simulate(
            groups,
            GROUP,
            [survey],
            seed=SEED,
            magnitude=magnitude,
            conditions={survey.name: conditions},
        )
    batch, clean = sky.batches[survey.name], sky.noiseless[survey.name].numpy()
    rows = []
    for row, group in enumerate(sky.group.tolist()):
        seen = [getattr(batch, n)[row].numpy() for n in ("pixels", "good", "noise")]
        fwhm = batch.psf_fwhm[row].numpy()
        place = batch.affine[row, :, 2].tolist()
        x, y = (round(value) for value in place)
        core = seen[1][:, y - 3 : y + 4, x - 3 : x + 4].all((1, 2))
        found = []
        for known in (
            (list(psf[group]), np.where(np.isfinite(fwhm), widths[group], np.nan)),
            (moffats(survey, fwhm), fwhm),
        ):
            given = *seen, known, (*place, survey.pixel_scale)
            found.append(star_flag(*given) != 0)
            found.append(spread_size(*given)[0])
        signal = signal_to_noise(clean[row], seen[2], psf[group], place)
        rows.append((sky.truth["magnitude"][row], signal, core.any(), *found))
    return np.array(rows, dtype=float)


def moffats(survey, fwhm):
    """PSFs of which only the FWHM is known."""
    scale, beta = survey.pixel_scale, survey.psf_beta
    return [
        render_psf(w, beta, scale, SIDE) if np.isfinite(w) else None
        for w in fwhm.tolist()
    ]


def line(name, stars, galaxies):
    """One line of the table."""
    told, kept = stars[stars[:, 2] > 0], galaxies[galaxies[:, 2] > 0]
    if not len(told) or not len(kept):
        return
    untold = 1 - len(told) / len(stars)
    parts = [f"{name:<26}{len(stars):>6}{len(galaxies):>7}{untold:>8.1%}"]
    parts += [f"{told[:, c].mean():>9.3f}{kept[:, c].mean():>8.4f}" for c in (3, 5)]
    q = [np.where(np.isfinite(x[:, 4]), x[:, 4], np.inf) for x in (told, kept)]
    q = [np.where(x > stellarity._LEAST, x, np.inf) for x in q]  # noqa: SLF001
    limit = np.quantile(q[1], 0.01, method="lower")
    parts.append(f"{limit:>10.5f}{(q[0] < limit).mean():>8.3f}")
    print("".join(parts))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--groups", type=int, default=800, help="of five galaxies")
    groups = parser.parse_args().groups
    print(
        f"{'':<26}{'stars':>6}{'gal.':>7}{'untold':>8}{'recall':>9}{'alarm':>8}"
        f"{'recall':>9}{'alarm':>8}{'q at 1%':>10}{'recall':>8}\n"
        f"{'':<47}{'PSF image':>17}{'FWHM alone':>17}"
    )
    for name in ("hsc", "legacy"):
        survey = get_survey(name)
        for kind in ("as drawn", "uniform"):
            sets = []
            for share, number in ((1.0, groups // 2), (0.0, groups)):
                rng = numpy_generator(SEED, "magnitudes", name)
                drawn = rng.uniform(MAGNITUDES[0], MAGNITUDES[-1], number * GROUP)
                magnitude = torch.tensor(drawn) if kind == "uniform" else None
                sets.append(judge(survey, number, share, magnitude))
            bright = [x[x[:, 1] >= SIGNALS[0]] for x in sets]
            line(f"{name}, {kind}, S/N > 50", *bright)
            for column, edges in ((1, SIGNALS), (0, MAGNITUDES)):
                for low, high in pairwise(edges):
                    what = f"S/N {low}-{high}" if column else f"i {low}-{high}"
                    inside = [
                        x[(x[:, column] >= low) & (x[:, column] < high)] for x in bright
                    ]
                    line(f"    {what}", *inside)


if __name__ == "__main__":
    main()
