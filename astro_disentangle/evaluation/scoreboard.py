# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Scores on simulated pairs that training has never seen.

``python -m astro_disentangle.evaluation.scoreboard --simulated 1024 --seed 1``
prints every score beside that of the same network before training.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from astropy.table import QTable

from astro_disentangle.evaluation.alignment import recall_at
from astro_disentangle.evaluation.photometry import (
    aperture_sums,
    flux_bias,
    image_fwhm,
)
from astro_disentangle.evaluation.probes import probe_r2, probe_survey, transfer_r2
from astro_disentangle.keys import torch_generator
from astro_disentangle.model.network import Network

__all__ = [
    "encode_pairs",
    "score_instrument",
    "score_latents",
    "score_psf",
    "score_translation",
]

_PROPERTIES = ("redshift", "log_mass", "magnitude", "log_size", "bulge_fraction")
_CHUNK = 64


@torch.inference_mode()
def encode_pairs(network, batches):
    """
    Latents of both views of pairs.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        N cut-outs of each survey.

    Returns
    -------
    physics, members : dict of str to `torch.Tensor`
        Shapes (N, P), and (N, D) members of instrument sets without metadata.
    """
    physics, members = {}, {}
    for name, batch in batches.items():
        z, m = [], []
        for rows in torch.arange(len(batch)).split(_CHUNK):
            view = network.view(batch[rows])
            z.append(network.physics(view))
            bands = view.x.shape[1]
            blind = view.observation.clone()
            blind[:, bands:] = 0
            view = type(view)(view.survey, view.x, view.good, blind)
            m.append(network.instrument.members(view))
        physics[name], members[name] = torch.cat(z), torch.cat(m)
    return physics, members


def score_latents(physics, members, pairs, network):
    """
    Retention, transfer, leakage and alignment scores.

    Parameters
    ----------
    physics, members : dict of str to `torch.Tensor`
        From `encode_pairs`.
    pairs : `~astro_disentangle.simulation.Simulation`
        The pairs, with their truth.
    network : `~astro_disentangle.model.network.Network`
        The network that pools the members.

    Returns
    -------
    scores : list of tuple
        Group, measure, survey or direction, value.
    """
    rows = []
    a, b = physics
    galaxy = ~pairs.truth["is_star"].bool().numpy()
    for name in _PROPERTIES:
        value = pairs.truth[name].numpy()[galaxy]
        for one, other in ((a, b), (b, a)):
            z = physics[one].numpy()[galaxy]
            z_other = physics[other].numpy()[galaxy]
            rows.append(("retention", f"R2 {name}", one, probe_r2(z, value)))
            moved = transfer_r2(z, value, z_other)
            rows.append(("transfer", f"R2 {name}", f"{one}->{other}", moved))
    survey = probe_survey(physics[a].numpy(), physics[b].numpy())
    rows.append(("leakage", "survey accuracy (logistic)", "physics", survey))
    group = pairs.group.numpy()
    for name in physics:
        for part in ("psf_fwhm", "depth"):
            value = pairs.truth[f"{part}_{name}"].numpy()[:, 1]
            leak = probe_r2(physics[name].numpy(), value, group)
            rows.append(("leakage", f"R2 {part} r from physics", name, leak))
        own = _pooled(network, members[name], 1)
        for part in ("redshift", "magnitude"):
            leak = probe_r2(own[galaxy], pairs.truth[part].numpy()[galaxy])
            rows.append(("leakage", f"R2 {part} from own instrument", name, leak))
    for one, other in ((a, b), (b, a)):
        for k in (1, 10):
            recall = recall_at(k, physics[one][galaxy], physics[other][galaxy])
            rows.append(("alignment", f"recall@{k}", f"{one}->{other}", recall))
    return rows


@torch.inference_mode()
def _pooled(network, members, count):
    """Latents of consecutive sets of ``count`` members, (B / count, I)."""
    z = []
    for part in members.split(_CHUNK * count):
        sets = torch.arange(len(part)) // count
        chosen = sets[None, :] == torch.arange(len(part) // count)[:, None]
        z.append(network.instrument.pool(part, chosen))
    return torch.cat(z).numpy()


def score_instrument(network, surveys, *, n_groups, seed):
    """
    Seeing and depth read from instrument latents, metadata withheld.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    surveys : sequence of `~astro_disentangle.Survey`
        The two surveys.
    n_groups : int
        Groups of 8 galaxies under the same conditions.
    seed : int
        Key of the galaxies.

    Returns
    -------
    scores : list of tuple
        Group, measure, survey, R² from 1 and from 8 cut-outs.
    """
    from astro_disentangle.simulation import simulate

    members = {survey.name: [] for survey in surveys}
    truth = []
    for step in range(-(-n_groups // 8)):
        sky = simulate(8, 8, surveys, seed=seed, step=step)
        for name, part in encode_pairs(network, sky.batches)[1].items():
            members[name].append(part)
        truth.append(sky.truth)
    rows = []
    for survey in surveys:
        name, every = survey.name, torch.cat(members[survey.name])
        for part in ("psf_fwhm", "depth"):
            value = torch.cat([t[f"{part}_{name}"] for t in truth])[::8, 1].numpy()
            for count in (1, 8):
                # One set of each group, so that rows are independent.
                sets = every.unflatten(0, (-1, 8))[:, :count].flatten(0, 1)
                known = probe_r2(_pooled(network, sets, count), value)
                measure = f"R2 {part} r, {count} cut-outs, no metadata"
                rows.append(("instrument", measure, name, known))
    return rows


@torch.inference_mode()
def score_translation(network, pairs, *, n_samples, n_steps, seed):
    """
    Flux and error of translations in both directions, donors from the group.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    pairs : `~astro_disentangle.simulation.Simulation`
        The pairs, with their noiseless images.
    n_samples, n_steps : int
        Samples of each galaxy and steps of the integrator.
    seed : int
        Key of the noise.

    Returns
    -------
    scores : list of tuple
        Group, measure, direction, value.
    """
    rows = []
    a, b = pairs.batches
    for one, other in ((a, b), (b, a)):
        source, target = pairs.batches[one], pairs.batches[other]
        survey = target.survey
        mean, signal = [], []
        _, _, offset = target.stamp()
        for part in torch.arange(len(source)).split(_CHUNK):
            group = pairs.group[part]
            others = (group[:, None] == group[None, :]) & ~torch.eye(
                len(part), dtype=torch.bool
            )
            view = network.view(source[part])
            members = network.instrument.members(network.view(target[part]))
            generator = torch_generator(seed, "score", other, int(part[0]))
            size = (len(part), n_samples, len(survey.bands), *2 * [survey.stamp_size])
            samples = network.translate(
                network.physics(view),
                network.instrument.pool(members, others),
                torch.randn(size, generator=generator),
                prepare={
                    "source": one,
                    "observation": view.observation,
                    "target": other,
                    "offset": offset[part],
                },
                n_steps=n_steps,
                solver="midpoint",
            )
            mean.append(samples.mean(1))
            signal.append(_source_snr(source[part]))
        mean, signal = torch.cat(mean), torch.cat(signal).numpy()
        truth = pairs.noiseless[other]
        direction = f"{one}->{other}"
        predicted = aperture_sums(mean.numpy(), survey, offset)
        true = aperture_sums(truth.numpy(), survey, offset)
        for index, band in enumerate(survey.bands):
            bright = signal >= 20
            bias, error = flux_bias(predicted[bright, index], true[bright, index])
            rows.append(("flux", f"2 arcsec {band}, S/N >= 20", direction, bias))
            rows.append(("flux", f"its error {band}", direction, error))
            ratio = predicted[bright, index] / true[bright, index]
            rows.append(
                (
                    "flux",
                    f"median ratio - 1 {band}",
                    direction,
                    float(np.median(ratio) - 1),
                )
            )
            low, high = np.percentile(ratio, [16, 84])
            rows.append(("flux", f"half 16-84% {band}", direction, (high - low) / 2))
        noise = target.noise[:, :, None, None]
        error = ((mean - truth) / noise).square().nanmean().sqrt()
        empty = (truth / noise).square().nanmean().sqrt()
        rows.append(
            ("error", "RMS of mean - truth over noise", direction, float(error))
        )
        rows.append(("error", "the same for a blank image", direction, float(empty)))
    return rows


def _source_snr(batch):
    """S/N of the 2 arcsec flux in the best band, from the cut-out itself."""
    pixels, _, offset = batch.stamp()
    flux = torch.tensor(aperture_sums(pixels.numpy(), batch.survey, offset))
    area = np.pi / batch.survey.pixel_scale**2
    ratio = flux / (batch.noise * area**0.5)
    return ratio.masked_fill(~batch.present, -1).amax(1)


@torch.inference_mode()
def score_psf(network, surveys, *, n_stars, n_samples, n_steps, seed):
    """
    FWHM of translated stars against the FWHM that was asked for.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    surveys : sequence of `~astro_disentangle.Survey`
        The two surveys.
    n_stars : int
        Stars in each direction.
    n_samples, n_steps : int
        Samples of each star and steps of the integrator.
    seed : int
        Key of the stars.

    Returns
    -------
    scores : list of tuple
        Group, measure, direction, value.
    """
    from astro_disentangle.simulation import simulate

    rows = []
    stars = _stars(simulate, surveys, n_stars, seed)
    a, b = stars.batches
    for one, other in ((a, b), (b, a)):
        source, target = stars.batches[one], stars.batches[other]
        survey = target.survey
        band = survey.bands.index("r")
        view = network.view(source)
        _, _, offset = target.stamp()
        reached, truth = (
            [],
            image_fwhm(stars.noiseless[other][:, band].numpy(), survey.pixel_scale),
        )
        for part in torch.arange(len(source)).split(_CHUNK):
            shape = (len(part), n_samples, len(survey.bands), *2 * [survey.stamp_size])
            generator = torch_generator(seed, "stars", other, int(part[0]))
            samples = network.translate(
                network.physics(view[part]),
                network.describe(other, target.psf_fwhm[part], target.noise[part]),
                torch.randn(shape, generator=generator),
                prepare={
                    "source": one,
                    "observation": view.observation[part],
                    "target": other,
                    "offset": offset[part],
                },
                n_steps=n_steps,
                solver="midpoint",
            )
            images = samples.mean(1)[:, band].numpy()
            reached.append(image_fwhm(images, survey.pixel_scale))
        reached = np.concatenate(reached)
        fine = np.isfinite(reached) & np.isfinite(truth)
        ratio = reached[fine] / truth[fine] - 1
        low = high = median = slope = np.nan
        if fine.sum() > 2:
            low, median, high = np.percentile(ratio, [16, 50, 84])
            slope = np.polyfit(truth[fine], reached[fine], 1)[0]
        direction = f"{one}->{other}"
        rows += [
            ("psf", "FWHM reached / asked - 1, median", direction, median),
            ("psf", "its scatter (16-84%)/2", direction, (high - low) / 2),
            ("psf", "slope of reached against asked", direction, slope),
            ("psf", "share of stars with a fit", direction, fine.mean()),
        ]
    return rows


def _stars(simulate, surveys, n_stars, seed):
    """Bright stars in the middle, gathered from as many scenes as it takes."""
    found = []
    step = 0
    while sum(len(rows) for _, rows in found) < n_stars and step < 400:
        scene = simulate(32, 8, surveys, seed=seed, step=step)
        bright = scene.truth["is_star"].bool() & (scene.truth["magnitude"] < 21)
        rows = bright.nonzero()[:, 0]
        if len(rows):
            found.append((scene, rows))
        step += 1
    names = list(found[0][0].batches)
    gathered = {
        name: type(found[0][0].batches[name]).concatenate(
            [scene.batches[name][rows] for scene, rows in found]
        )
        for name in names
    }
    noiseless = {
        name: torch.cat([scene.noiseless[name][rows] for scene, rows in found])
        for name in names
    }
    return argparse.Namespace(batches=gathered, noiseless=noiseless)


def main(arguments=None):
    """
    Command line of the scoreboard.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.simulation import simulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--simulated", type=int, default=1024, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--groups", type=int, default=192)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--stars", type=int, default=48)
    parser.add_argument(
        "--baseline",
        type=Path,
        help="scores.json of the same settings, whose untrained column is taken",
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)

    model = Disentangler.load(options.weights)
    trained = model.network_
    surveys = tuple(trained.surveys.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Network(surveys, trained.config).eval()
    pairs = simulate(max(options.simulated // 8, 2), 8, surveys, seed=options.seed)

    columns = [_scores(trained, surveys, pairs, options)]
    if options.baseline is None:
        columns.append(_scores(untrained, surveys, pairs, options))
    else:
        earlier = json.loads(options.baseline.read_text())
        columns.append(
            [
                (*row[:3], r["untrained"])
                for row, r in zip(columns[0], earlier, strict=True)
            ]
        )
    table = QTable(
        rows=[
            (*row[:3], row[3], other[3]) for row, other in zip(*columns, strict=True)
        ],
        names=("group", "measure", "where", "value", "untrained"),
    )
    for name in ("value", "untrained"):
        table[name].info.format = ".3f"
    table.pprint_all()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        table.write(options.output / "scores.ecsv", overwrite=True)
        rows = [
            dict(zip(table.colnames, map(_plain, row), strict=True)) for row in table
        ]
        (options.output / "scores.json").write_text(json.dumps(rows, indent=1))


def _scores(network, surveys, pairs, options):
    """All rows of one network."""
    physics, members = encode_pairs(network, pairs.batches)
    rows = score_latents(physics, members, pairs, network)
    rows += score_instrument(
        network, surveys, n_groups=options.groups, seed=options.seed + 2
    )
    many = {"n_samples": options.samples, "n_steps": options.steps}
    rows += score_translation(network, pairs, **many, seed=options.seed)
    rows += score_psf(
        network, surveys, n_stars=options.stars, **many, seed=options.seed + 1
    )
    return rows


def _plain(value):
    return float(value) if isinstance(value, (float, np.floating)) else str(value)


if __name__ == "__main__":
    main()
