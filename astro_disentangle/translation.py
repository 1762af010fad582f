# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From cut-outs of one survey to views of another: samples, then back to the sky."""

import astropy.units as u
import numpy as np
import torch

from astro_disentangle.data.write import checked_target, to_cutout, view_on_wcs
from astro_disentangle.keys import torch_generator
from astro_disentangle.model.flow import EVALUATIONS, SOLVER
from astro_disentangle.quality import FLAGS
from astro_disentangle.serving import check_residual, computing, pieces

__all__ = ["noise_of_objects", "paint", "to_sky"]


def paint(
    network,
    batch,
    conditions,
    *,
    n_samples,
    n_steps,
    noise,
    offset=None,
    dtype="float32",
    residual=None,
):
    """
    Samples of the views of a batch under given conditions.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs of one survey.
    conditions : `~astro_disentangle.model.bank.Conditions`
        The target survey, of C bands, and its conditions.
    n_samples, n_steps : int
        Samples S of each, and steps of the solver.
    noise : callable
        Numbers of row and sample to the noise that the sample begins with, (C, N, N)
        float32 on the CPU; `noise_of_objects` makes one.
    offset : `torch.Tensor`, optional
        Shape (B, 2), galaxy minus centre of the stamp in target pixels, at most a half;
        0 by default.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products.
    residual : bool, optional
        Paint with residual latents; by default where there are any.

    Returns
    -------
    samples : `torch.Tensor`
        Shape (B, S, C, N, N), nJy per native pixel of the target, on the CPU; NaN for
        unusable rows.

    Raises
    ------
    NotFittedError
        If residual latents are asked for and there are none.
    """
    target = conditions.survey
    if residual:
        check_residual(network, batch.survey.name, target.name)
    device = next(network.parameters()).device
    shape = (len(target.bands), target.stamp_size, target.stamp_size)

    if offset is None:
        offset = torch.zeros(len(batch), 2, dtype=torch.float32)
    samples = torch.empty(len(batch), n_samples, *shape)
    with computing(device, dtype):
        for rows in pieces(len(batch), device):
            part = batch[rows].to(device)
            view, count = network.view(part), len(part)
            z_physics, detail = network.physics(view), None
            if residual is not False:
                detail = network.residual_of(view, z_physics, target.name)
            prepared = network.prepare(
                z_physics,
                conditions.z_instrument.to(device).expand(count, -1),
                source=part.survey.name,
                observation=view.observation,
                target=target.name,
                noise=conditions.noise.to(device).expand(count, -1),
                offset=offset[rows].to(device),
                residual=detail,
            )
            numbers = range(len(batch))[rows]
            for some in pieces(n_samples, device, rows=count):
                every = range(n_samples)[some]
                x_0 = torch.stack(
                    [torch.stack([noise(row, n) for n in every]) for row in numbers]
                )
                samples[rows, some] = network.flow(
                    prepared, x_0.to(device), n_steps=n_steps
                ).cpu()
    unusable = (batch.flags & FLAGS.UNUSABLE) != 0
    return samples.masked_fill(unusable.cpu()[:, None, None, None, None], torch.nan)


def noise_of_objects(seed, keys, survey):
    """
    Noise that is drawn for each object and sample on its own.

    Parameters
    ----------
    seed : int
        The user's seed.
    keys : `torch.Tensor`
        Shape (B,), int64, keys of the objects.
    survey : `~astro_disentangle.Survey`
        The survey that is painted, of C bands.

    Returns
    -------
    noise : callable
        As `paint` takes it.
    """
    shape = (len(survey.bands), survey.stamp_size, survey.stamp_size)

    def noise(row, sample):
        generator = torch_generator(seed, "translate", int(keys[row]), sample)
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    return noise


def to_sky(samples, read, row, conditions, *, bands, wcs, return_samples, meta):
    """
    The samples of one row as a cut-out, or as a Quantity.

    Parameters
    ----------
    samples : `torch.Tensor`
        Shape (S, C, N, N), nJy.
    read : `~astro_disentangle.data.read.Cutouts`
        The cut-outs that were translated.
    row : int
        Which of them.
    conditions : `~astro_disentangle.model.bank.Conditions`
        As for `paint`.
    bands : sequence of str
        Bands of the result.
    wcs : WCS or None
        Pixels of the result; the target's own where None.
    return_samples : bool
        Give the samples themselves.
    meta : dict
        Provenance, with ``NSTEPS``.

    Returns
    -------
    view : `~astro_disentangle.SurveyCutout` or `~astropy.units.Quantity`
        Mean and spread of the samples, or the one sample with the target's noise; or
        the samples, (S, C, ny, nx).
    """
    target = conditions.survey
    index = [target.bands.index(band) for band in bands]
    samples = samples[:, index].numpy().astype(np.float32)
    noise = conditions.noise[index].numpy()
    psf_fwhm = conditions.psf_fwhm[index].numpy()
    flags = int(read.batch.flags[row])
    meta = {
        **meta,
        "OBJECT": read.object_id[row],
        "SOURCE": read.batch.survey.name,
        "NSAMPLES": len(samples),
        "NEVAL": meta["NSTEPS"] * EVALUATIONS[SOLVER],
    }
    where = {}
    if wcs is not None and flags & FLAGS.UNUSABLE:
        # A row of a catalogue that has no place, or nothing to show there.
        where["wcs"], shape = checked_target(wcs)
        samples = np.full((*samples.shape[:2], *shape), np.nan, np.float32)
    elif wcs is not None:
        options = {"noise": noise, "psf_fwhm": psf_fwhm}
        samples, where = view_on_wcs(samples, target, read.coord(row), wcs, **options)
        meta |= where.pop("meta")
        noise = where.pop("noise")
    if return_samples:
        return (samples / target.nanojansky).astype(np.float32) * u.Unit(target.unit)
    if len(samples) == 1:
        spread = np.broadcast_to(noise[:, None, None], samples.shape[1:])
    else:
        spread = samples.std(0, ddof=1)
    return to_cutout(
        samples.mean(0),
        target,
        bands=bands,
        coord=read.coord(row),
        noise=spread,
        psf_fwhm=psf_fwhm,
        flags=flags,
        samples=samples if len(samples) > 1 else None,
        meta=meta,
        **where,
    )
