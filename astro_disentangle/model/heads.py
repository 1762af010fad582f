# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Properties read from latents, each with its uncertainty.

A head maps a latent to a mean :math:`\mu_k` and a standard deviation
:math:`\sigma_k` for each of K properties. It is fitted to the Gaussian likelihood of
the known values,

.. math:: \frac{(v_k - \mu_k)^2}{2 \sigma_k^2} + \log \sigma_k ,

with a part of the galaxies held out, on which the best state is chosen and
:math:`\sigma_k` is scaled so that 68.27% of the values are within one of it.
"""

import torch
from torch import nn

from astro_disentangle.keys import torch_generator

__all__ = ["Head", "fit_head"]

#: Share of galaxies held out, and share of a Gaussian within one standard deviation.
_HELD_OUT = 0.2
#: Of fewer groups than this none can be held out for all.
_GROUPS = 10
_WITHIN = 0.6827
#: Bounds of the logarithm of a standard deviation over the spread of the property.
_LOGS = (-6.0, 1.0)


class Head(nn.Module):
    """
    Means and standard deviations of properties from a latent.

    Parameters
    ----------
    size : int
        Length P of the latent.
    count : int
        Number K of properties.
    hidden : int
        Width of the two hidden layers.
    """

    def __init__(self, size, count, hidden=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * count),
        )
        self.register_buffer("centre", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(count, dtype=torch.float64))
        self.register_buffer("calibration", torch.ones(count))

    @classmethod
    def empty(cls, size, count, hidden=128):
        """A head without numbers, for which no random state is touched."""
        with torch.device("meta"):
            head = cls(size, count, hidden)
        head = head.to_empty(device="cpu")
        for buffer, value in ((head.centre, 0.0), (head.spread, 1.0)):
            buffer.fill_(value)
        head.calibration.fill_(1.0)
        return head

    def scaled(self, z):
        """Mean and log standard deviation over ``spread``, (B, K) each."""
        mean, log = self.layers(z).chunk(2, 1)
        return mean, log.clamp(*_LOGS)

    def forward(self, z):
        """
        Properties of latents.

        Parameters
        ----------
        z : `torch.Tensor`
            Shape (B, P).

        Returns
        -------
        mean, sigma : `torch.Tensor`
            Shape (B, K), in the units of the properties.
        """
        mean, log = self.scaled(z)
        sigma = log.exp() * self.spread * self.calibration
        return self.centre + self.spread * mean, sigma


def fit_head(z, values, group, *, seed, n_steps=1500, batch_size=512, hidden=128):
    """
    A head for the known values of properties.

    Parameters
    ----------
    z : `torch.Tensor`
        Shape (N, P), latents.
    values : `torch.Tensor`
        Shape (N, K), float32; NaN where a value is unknown.
    group : `torch.Tensor`
        Shape (N,), int64: rows of one galaxy have one number, and are held out
        together.
    seed : int
        Key of the random numbers.
    n_steps, batch_size, hidden : int
        Steps, rows of each, and width.

    Returns
    -------
    head : `Head`
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If fewer than 20 rows have a value of each property.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.keys import torch_generator
    >>> from astro_disentangle.model.heads import fit_head
    >>> z = torch.randn(400, 3, generator=torch_generator(0, "demo"))
    >>> values = 7 + 2 * z[:, :1]
    >>> head = fit_head(z, values, torch.arange(400), seed=0, n_steps=200)
    >>> mean, sigma = head(z)
    >>> bool((mean - values).square().mean() < 0.04)
    True
    """
    known = values.isfinite()
    if int(known.sum(0).min()) < 20:
        raise ValueError(
            "each property must be known for at least 20 galaxies; got "
            f"{known.sum(0).tolist()}."
        )
    generator = torch_generator(seed, "head")
    labels, place = torch.unique(group, return_inverse=True)
    if len(labels) < _GROUPS:
        # One name for a whole field is no galaxy: rows are all there is to go by.
        labels = place = torch.arange(len(z))
    held = torch.rand(len(labels), generator=generator) < _HELD_OUT
    held = held[place]
    head = Head.empty(z.shape[1], values.shape[1], hidden)
    for layer in head.layers[::2]:
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    values = values.double()
    filled = torch.where(known, values, torch.zeros_like(values))
    number = known.sum(0)
    centre = filled.sum(0) / number
    spread = (((filled - centre) * known).square().sum(0) / number).sqrt()
    # A constant has no spread; fluxes in W or luminosities in erg/s have any.
    floor = 1e-6 * torch.where(centre == 0, torch.ones_like(centre), centre.abs())
    head.spread.copy_(torch.maximum(spread, floor))
    head.centre.copy_(centre)
    target = ((filled - head.centre) / head.spread).float()

    def likelihood(rows):
        mean, log = head.scaled(z[rows])
        term = 0.5 * ((target[rows] - mean) / log.exp()).square() + log
        return (term * known[rows]).sum() / known[rows].sum().clamp(min=1)

    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    if bool(held.all()) or not bool(held.any()):
        # Too few galaxies to hold one out.
        inner = outer = torch.arange(len(z))
    else:
        inner, outer = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    best, state = torch.inf, None
    for step in range(n_steps):
        chosen = torch.randint(len(inner), (batch_size,), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        likelihood(inner[chosen]).backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49 or step == n_steps - 1:
            with torch.no_grad():
                now = float(likelihood(outer))
            if now < best:
                best = now
                state = {name: t.clone() for name, t in head.state_dict().items()}
    head.load_state_dict(state)
    _calibrate(head, z[outer], values[outer])
    return head.eval()


@torch.no_grad()
def _calibrate(head, z, values):
    """Scale the standard deviations to hold their share of the values."""
    mean, sigma = head(z)
    ratio = (values - mean).abs() / sigma
    factors = torch.nanquantile(ratio, _WITHIN, dim=0)
    head.calibration.copy_(factors.nan_to_num(1.0).clamp(0.2, 5.0))
