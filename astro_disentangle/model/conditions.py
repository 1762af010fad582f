# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Conditions to paint under: the usual ones, those of numbers, those of cut-outs."""

import torch

from astro_disentangle.model.bank import Conditions

__all__ = ["described_conditions", "observed_conditions", "typical_conditions"]


def typical_conditions(bank, survey):
    """
    Typical conditions of a survey; its own numbers where the bank has none.

    Parameters
    ----------
    bank : `~astro_disentangle.model.bank.InstrumentBank`
        Conditions that the model has seen.
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    conditions : `~astro_disentangle.model.bank.Conditions`
        With FWHM and noise in every band.
    """
    z, psf_fwhm, noise = bank.typical(survey.name)
    usual = torch.tensor([survey.psf_fwhm, survey.pixel_noise()])
    return Conditions(
        survey,
        z,
        torch.where(psf_fwhm.isfinite(), psf_fwhm, usual[0]),
        torch.where(noise.isfinite(), noise, usual[1]),
    )


@torch.inference_mode()
def described_conditions(network, survey, psf_fwhm, noise):
    """
    Conditions that are given as numbers.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    survey : `~astro_disentangle.Survey`
        The survey, of C bands.
    psf_fwhm, noise : array_like
        Shape (C,), arcsec and nJy per native pixel.

    Returns
    -------
    conditions : `~astro_disentangle.model.bank.Conditions`
        With their latent.
    """
    fwhm, noise = (
        torch.as_tensor(value, dtype=torch.float32) for value in (psf_fwhm, noise)
    )
    device = next(network.parameters()).device
    z = network.describe(survey.name, fwhm[None].to(device), noise[None].to(device))
    return Conditions(survey, z, fwhm, noise)


@torch.inference_mode()
def observed_conditions(network, bank, batches):
    """
    Conditions under which a set of cut-outs was observed.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    bank : `~astro_disentangle.model.bank.InstrumentBank`
        For what the cut-outs do not tell.
    batches : sequence of `~astro_disentangle.data.batch.CutoutBatch`
        Usable cut-outs of one survey, at least one.

    Returns
    -------
    conditions : `~astro_disentangle.model.bank.Conditions`
        The latent of the set, and the medians of FWHM and noise.
    """
    device = next(network.parameters()).device
    members = torch.cat(
        [network.instrument.members(network.view(b.to(device))) for b in batches]
    )
    every = torch.ones(1, len(members), dtype=torch.bool, device=device)
    typical = typical_conditions(bank, batches[0].survey)
    noise = torch.cat([b.noise for b in batches]).nanmedian(0).values
    return Conditions(
        typical.survey,
        network.instrument.pool(members, every),
        torch.cat([b.psf_fwhm for b in batches]).nanmedian(0).values,
        # Every painted band has noise, also one that the donors lack.
        torch.where(noise.isfinite(), noise, typical.noise),
    )
