# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Simulated pairs for users: cut-outs of two surveys and a table of truth."""

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.data.pairs import PairedCutouts
from astro_disentangle.keys import seed_of
from astro_disentangle.quality import check_count
from astro_disentangle.simulation.sky import Simulation, simulate
from astro_disentangle.surveys import get_survey

__all__ = ["as_pairs", "simulate_pairs"]

_CHUNK = 32
_UNITS = {
    "log_mass": u.dex(u.solMass),
    "magnitude": u.ABmag,
    "west": u.arcsec,
    "north": u.arcsec,
    "ebv": u.mag,
    "psf_fwhm": u.arcsec,
    "depth": u.ABmag,
    "noise": u.nJy,
}


def simulate_pairs(
    n,
    *,
    surveys=("hsc", "legacy"),
    random_state=None,
    group_size=8,
    visit=0,
    neighbours=0,
    progress=False,
):
    """
    Simulate galaxies as two surveys would observe them.

    Parameters
    ----------
    n : int
        Number of galaxies.
    surveys : tuple of str or `Survey`
        The surveys.
    random_state : int, `numpy.random.Generator` or None
        Seed; the same seed gives the same pairs.
    group_size : int
        Galaxies that share seeing, depth, extinction and zero point.
    visit : int
        Another visit has the same galaxies under other conditions and noise.
    neighbours : int or None
        Another number puts other neighbours around the same galaxies, None puts
        none there.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pairs : `PairedCutouts`
        Cut-outs, groups and ``truth``: a `~astropy.table.QTable` with
        ``redshift``, ``log_mass``, ``magnitude`` (HSC i), ``r_half`` (arcsec),
        ``bulge_fraction``, ``e1``, ``e2``, ``ebv``, ``is_star``, and
        ``psf_fwhm``, ``depth`` and ``noise`` per band of each survey. Its
        ``meta["neighbours"]`` is a table of what stands around the galaxies: ``row``,
        ``west`` and ``north`` of the galaxy, ``magnitude`` (HSC i), ``redshift``,
        ``r_half``, ``is_star``.

    Raises
    ------
    ValueError
        If ``n`` or ``group_size`` is not a positive integer.
    SurveyMismatchError
        If a survey is unknown.

    Examples
    --------
    >>> from astro_disentangle import simulate_pairs
    >>> pairs = simulate_pairs(4, random_state=1)
    >>> len(pairs), pairs.surveys
    (4, ('hsc', 'legacy'))
    """
    from tqdm import tqdm

    n, group_size = check_count("n", n), check_count("group_size", group_size)
    surveys = tuple(get_survey(survey) for survey in surveys)
    seed = seed_of(random_state)
    n_groups = -(-n // group_size)
    parts = []
    with tqdm(total=n, disable=not progress, unit="galaxy") as bar:
        for step, start in enumerate(range(0, n_groups, _CHUNK)):
            size = min(_CHUNK, n_groups - start)
            part = simulate(
                size,
                group_size,
                surveys,
                seed=seed,
                step=step,
                visit=visit,
                neighbours=neighbours,
            )
            parts.append((start, part))
            bar.update(len(part))
    names = [survey.name for survey in surveys]
    batches = {
        name: CutoutBatch.concatenate([part.batches[name] for _, part in parts])[:n]
        for name in names
    }
    noiseless = {
        name: torch.cat([part.noiseless[name] for _, part in parts])[:n]
        for name in names
    }
    joined = {
        field: {
            name: torch.cat([getattr(part, field)[name] for _, part in parts])[:n]
            for name in getattr(parts[0][1], field)
        }
        for field in ("truth", "neighbours")
    }
    group = torch.cat([start + part.group for start, part in parts])[:n]
    sky = Simulation(surveys, batches, group, noiseless=noiseless, **joined)
    return as_pairs(sky, name=f"simulated-{seed}")


def as_pairs(sky, *, name="simulated"):
    """
    Simulated skies as pairs, with their truth as a table.

    Parameters
    ----------
    sky : `~astro_disentangle.simulation.Simulation`
        N scenes in two surveys.
    name : str
        Beginning of the names of the galaxies.

    Returns
    -------
    pairs : `PairedCutouts`
        As from `simulate_pairs`.

    Examples
    --------
    >>> from astro_disentangle.simulation import simulate
    >>> from astro_disentangle.simulation.pairs import as_pairs
    >>> as_pairs(simulate(1, 2, ["hsc", "legacy"], seed=0)).object_id
    ['simulated-0', 'simulated-1']
    """
    table = _table({key: value.numpy() for key, value in sky.truth.items()})
    others = {key: value.numpy() for key, value in sky.neighbours.items()}
    table.meta["neighbours"] = _neighbour_table(others)
    return PairedCutouts(
        sky.batches,
        object_id=[f"{name}-{row}" for row in range(len(sky))],
        groups=sky.group.numpy(),
        truth=table,
        noiseless=sky.noiseless,
    )


def _neighbour_table(others):
    """One row for each neighbour, from arrays (n, M)."""
    present = others.pop("present")
    columns = {name: values[present] for name, values in others.items()}
    table = _table(columns)
    table.add_column(np.nonzero(present)[0], name="row", index=0)
    return table


def _table(truth):
    """The truth with units, and the size in arcsec."""
    table = QTable()
    for name, values in truth.items():
        if name == "log_size":
            table["r_half"] = np.power(10.0, values) * u.arcsec
            continue
        unit = next(
            (u_ for start, u_ in _UNITS.items() if name.startswith(start)), None
        )
        table[name] = values if unit is None else u.Quantity(values, unit, subok=True)
    return table
