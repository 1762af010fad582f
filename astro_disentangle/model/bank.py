# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The bank of instrument latents: conditions the model has seen.

Kept with the weights, so that a translation without donors can be painted under
the typical conditions of the target survey.
"""

from dataclasses import dataclass

import torch

from astro_disentangle.survey import Survey

__all__ = ["Conditions", "InstrumentBank"]


@dataclass(frozen=True)
class Conditions:
    """
    Conditions under which an image is painted.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey to paint, of C bands.
    z_instrument : `torch.Tensor`
        Shape (1, I).
    psf_fwhm : `torch.Tensor`
        Shape (C,), arcsec; NaN where unknown.
    noise : `torch.Tensor`
        Shape (C,), standard deviation of a native pixel in nJy.
    """

    survey: Survey
    z_instrument: torch.Tensor
    psf_fwhm: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class InstrumentBank:
    """
    Instrument latents of groups of galaxies, with what is known of each.

    Parameters
    ----------
    z_instrument : dict of str to `torch.Tensor`
        Per survey, shape (M, I).
    psf_fwhm, noise : dict of str to `torch.Tensor`
        Per survey, shape (M, C), arcsec and nJy per native pixel.
    """

    z_instrument: dict
    psf_fwhm: dict
    noise: dict

    def typical(self, survey):
        """
        The entry nearest to all others of a survey, of those with every band.

        Parameters
        ----------
        survey : str
            Name of the survey.

        Returns
        -------
        z_instrument : `torch.Tensor`
            Shape (1, I), that of the medoid by the logarithms of FWHM and noise
            where these are known, else by the latents.
        psf_fwhm, noise : `torch.Tensor`
            Shape (C,), arcsec and nJy; NaN where unknown.
        """
        numbers = torch.cat([self.psf_fwhm[survey], self.noise[survey]], 1).log()
        complete = numbers.isfinite().all(1)
        if not bool(complete.any()):
            numbers, complete = self.z_instrument[survey], complete | True
        distance = torch.cdist(numbers[complete], numbers[complete]).sum(1)
        row = int(complete.nonzero()[distance.argmin(), 0])
        return (
            self.z_instrument[survey][row : row + 1],
            self.psf_fwhm[survey][row],
            self.noise[survey][row],
        )

    @classmethod
    @torch.no_grad()
    def observe(cls, network, batches, group, *, maximum=64):
        """
        The bank of the groups of a set of pairs.

        Parameters
        ----------
        network : `~astro_disentangle.model.network.Network`
            The trained network.
        batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
            N cut-outs of each survey.
        group : `torch.Tensor`
            Shape (N,), int64.
        maximum : int
            Largest number of groups to keep.

        Returns
        -------
        bank : `InstrumentBank`
            At most ``maximum`` entries a survey.
        """
        group = group.cpu()
        labels = torch.unique(group)[:maximum]
        rows = torch.isin(group, labels).nonzero()[:, 0]
        chosen = group[rows][None, :] == labels[:, None]
        device = next(network.parameters()).device
        z, psf_fwhm, noise = {}, {}, {}
        for name, batch in batches.items():
            members = torch.cat(
                [
                    network.instrument.members(network.view(batch[part].to(device)))
                    for part in rows.split(64)
                ]
            )
            z[name] = network.instrument.pool(members, chosen.to(members.device)).cpu()
            for value, store in ((batch.psf_fwhm, psf_fwhm), (batch.noise, noise)):
                value = value[rows].cpu()
                store[name] = torch.stack(
                    [value[mask].nanmedian(0).values for mask in chosen]
                )
        return cls(z, psf_fwhm, noise)

    def with_others(self, other):
        """
        The bank with what another one says of surveys that are not in it.

        Parameters
        ----------
        other : `InstrumentBank`
            The other bank.

        Returns
        -------
        bank : `InstrumentBank`
            Of the surveys of both.
        """
        parts = ("z_instrument", "psf_fwhm", "noise")
        return InstrumentBank(*(getattr(other, p) | getattr(self, p) for p in parts))

    def tensors(self):
        """The bank as a flat dict of tensors; 0 stands for what is unknown."""
        return {
            f"bank.{part}.{survey}": tensor.nan_to_num(0.0)
            for part in ("z_instrument", "psf_fwhm", "noise")
            for survey, tensor in getattr(self, part).items()
        }

    @classmethod
    def from_tensors(cls, tensors):
        """The bank from what `tensors` gave."""
        parts = {"z_instrument": {}, "psf_fwhm": {}, "noise": {}}
        for name, tensor in tensors.items():
            _, part, survey = name.split(".", 2)
            known = (tensor > 0) | (part == "z_instrument")
            parts[part][survey] = tensor.float().masked_fill(~known, torch.nan)
        return cls(**parts)
