# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The packaged property heads: what simulated galaxies say of the latents."""

import dataclasses

import astropy.units as u
import numpy as np
import torch

from astro_disentangle.evaluation.properties import SIMULATED, fit_properties
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation import simulate

__all__ = ["simulated_heads"]

_CHUNK = 32
#: Share of cut-outs whose PSF and noise are not told.
_WITHHELD = 0.4


def simulated_heads(network, surveys, *, n_groups, seed):
    """
    Heads for the properties of galaxies and of observations.

    Physics heads see both views of each galaxy, stars left out; instrument heads, one
    for each survey, see single cut-outs. In part of them PSF and noise are withheld.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The trained network.
    surveys : sequence of `~astro_disentangle.Survey`
        Its surveys.
    n_groups : int
        Groups of eight galaxies that share their conditions.
    seed : int
        Key of the galaxies; not that of training.

    Returns
    -------
    heads : dict of str to `~astro_disentangle.evaluation.properties.Properties`
        ``"physics"`` and ``"instrument.NAME"`` for each survey.
    """
    names = [survey.name for survey in surveys]
    physics = {name: [] for name in names}
    instrument = {name: [] for name in names}
    truth = []
    for step, start in enumerate(range(0, n_groups, _CHUNK)):
        count = min(_CHUNK, n_groups - start)
        sky = simulate(count, 8, surveys, seed=seed, step=step)
        truth.append(sky.truth)
        for name, batch in sky.batches.items():
            z_physics, z_instrument = _encode(network, batch, seed, step, name)
            physics[name].append(z_physics)
            instrument[name].append(z_instrument)
    truth = {name: torch.cat([t[name] for t in truth]).numpy() for name in truth[0]}
    galaxies = {
        "redshift": truth["redshift"],
        "log_mass": u.Quantity(truth["log_mass"], u.dex(u.solMass), subok=True),
        "magnitude": u.Quantity(truth["magnitude"], u.ABmag, subok=True),
        "r_half": 10 ** truth["log_size"] * u.arcsec,
        "bulge_fraction": truth["bulge_fraction"],
        "e1": truth["e1"],
        "e2": truth["e2"],
    }
    both = np.concatenate([torch.cat(physics[name]).numpy() for name in names])
    rows = np.arange(len(truth["redshift"]))
    doubled = {name: _repeated(v, len(names)) for name, v in galaxies.items()}
    options = {"source": SIMULATED, "seed": seed}
    heads = {
        "physics": fit_properties(both, doubled, np.tile(rows, len(names)), **options)
    }
    for survey in surveys:
        told = {}
        for index, band in enumerate(survey.bands):
            fwhm = truth[f"psf_fwhm_{survey.name}"][:, index]
            depth = truth[f"depth_{survey.name}"][:, index]
            told[f"psf_fwhm_{band}"] = fwhm * u.arcsec
            told[f"depth_{band}"] = u.Quantity(depth, u.ABmag, subok=True)
        z = torch.cat(instrument[survey.name]).numpy()
        # Galaxies of a group share their conditions and are held out together.
        heads[f"instrument.{survey.name}"] = fit_properties(
            z, told, rows // 8, **options
        )
    return heads


def _repeated(values, count):
    """A column, and its unit, several times over."""
    numbers = np.tile(getattr(values, "value", values), count)
    unit = getattr(values, "unit", None)
    return numbers if unit is None else u.Quantity(numbers, unit, subok=True)


@torch.inference_mode()
def _encode(network, batch, seed, step, name):
    """Latents of single cut-outs, with PSF and noise withheld from some."""
    generator = torch_generator(seed, "withhold", step, name)
    parts = []
    for value in (batch.psf_fwhm, batch.noise):
        hidden = torch.rand(len(batch), 1, generator=generator) < _WITHHELD
        parts.append(value.masked_fill(hidden.to(value.device), torch.nan))
    view = network.view(dataclasses.replace(batch, psf_fwhm=parts[0], noise=parts[1]))
    members = network.instrument.members(view)
    own = torch.eye(len(batch), dtype=torch.bool, device=members.device)
    return network.physics(view).cpu(), network.instrument.pool(members, own).cpu()
