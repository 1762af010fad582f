# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""What can be measured on a target without a network, read from its latents.

Fluxes and second moments of a galaxy (`measure`) are read by linear layers, with a
covariance: for the measurements :math:`v_b` of one kind in the bands :math:`b`,

.. math:: v_b = \mu_b + \tau\,n + \sigma_b\,n_b , \qquad n, n_b \sim N(0, 1) ,

with one deviation :math:`\tau` common to all bands and one :math:`\sigma_b` of each.
How bright a galaxy is may be known to a tenth and its colours to a hundredth; the
likelihood asks for both as well as they can be known, where a square error would only
see the first.
"""

import torch
from torch import nn

from astro_disentangle.data.constants import constant

__all__ = ["KINDS", "Photometry", "measure"]

#: Measurements in each band.
KINDS = 4
#: Widths of the Gaussian apertures, arcsec, and flux over noise that arcsinh bends at.
_SMALL, _LARGE, _BEND = 0.8, 1.6, 3.0
#: Least variance of a band, and log variances at first and at most.
_LEAST, _FIRST, _RANGE = 3e-4, -2.0, 8.0


class Photometry(nn.Module):
    """
    Linear readings of the measurements of one survey.

    Parameters
    ----------
    physics, instrument : int
        Lengths P and I of the latents.
    n_bands : int
        Number C of bands.
    """

    def __init__(self, physics, instrument, n_bands):
        super().__init__()
        self.n_bands = n_bands
        self.physics = nn.Linear(physics, KINDS * n_bands)
        self.instrument = nn.Linear(instrument, KINDS * n_bands)
        self.log_variance = nn.Linear(physics, KINDS * (n_bands + 1))
        with torch.no_grad():
            self.instrument.weight.zero_()
            self.log_variance.weight.mul_(0.1)
            self.log_variance.bias.fill_(_FIRST)

    def surprise(self, z_physics, z_instrument, values, known):
        """
        Negative logarithm of the density of measurements, up to a constant.

        Parameters
        ----------
        z_physics, z_instrument : `torch.Tensor`
            Shapes (B, P) and (B, I).
        values, known : `torch.Tensor`
            From `measure`.

        Returns
        -------
        surprise : `torch.Tensor`
            Shape (B, KINDS), the sum over the known bands.
        """
        shape = (KINDS, self.n_bands)
        z_physics, z_instrument = z_physics.float(), z_instrument.float()
        mean = self.physics(z_physics) + self.instrument(z_instrument)
        logs = self.log_variance(z_physics).clamp(-_RANGE, _RANGE)
        own, common = logs.exp().split([KINDS * self.n_bands, KINDS], 1)
        own = own.unflatten(1, shape) + _LEAST
        known = known.unflatten(1, shape)
        error = (values - mean).unflatten(1, shape)
        # The inverse of a diagonal matrix and a common term (Sherman & Morrison 1950).
        weight = known / own
        shared = 1 + common * weight.sum(2)
        square = (error.square() * weight).sum(2)
        square = square - common * (error * weight).sum(2).square() / shared
        return (square + (own.log() * known).sum(2) + shared.log()) / 2


def measure(batch):
    """
    Fluxes and second moments of a batch of native stamps.

    Four sums over the pixels of each band, with Gaussians of 0.8 and 1.6 arcsec
    about the galaxy as weights and, for the last two, the larger one times
    ``(x**2 - y**2)`` and ``2 x y``; each over its noise at the survey's typical
    depth, compressed by ``arcsinh(value / 3)``.

    Parameters
    ----------
    batch : `~astro_disentangle.data.batch.CutoutBatch`
        B cut-outs of C bands.

    Returns
    -------
    values : `torch.Tensor`
        Shape (B, 4 C), band by band for each sum in turn.
    known : `torch.Tensor`
        Same shape, 1 for bands that are present, else 0.
    """
    pixels, good, offset = batch.stamp()
    survey = batch.survey
    size = survey.stamp_size
    axis = torch.arange(size, device=offset.device) - (size - 1) / 2
    x, y = ((axis - offset[:, part, None]) * survey.pixel_scale for part in (0, 1))
    x, y = x[:, None, :], y[:, :, None]
    small, large = ((-(x**2 + y**2) / (2 * s**2)).exp() for s in (_SMALL, _LARGE))
    weights = [small, large, large * (x**2 - y**2), large * 2 * x * y]
    weights = torch.stack(weights, 1)
    sums = torch.einsum("bkyx,bcyx->bkc", weights, pixels * good)
    noise = constant(survey.pixel_noise(), pixels.device)
    scatter = weights.square().sum((2, 3)).sqrt()[:, :, None] * noise
    known = batch.present.to(pixels.dtype).repeat(1, KINDS)
    return torch.asinh(sums / (_BEND * scatter)).flatten(1), known
