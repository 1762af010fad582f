# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""One centre for the physics latents of all surveys.

A line can tell two surveys apart as long as the means of their latents differ, however
little, in a direction in which the latents hardly vary; if the means are the same, no
linear classifier does better than chance (arXiv:2306.03819). Training brings the means
close. What is left is subtracted here, once, in closed form, as measured on galaxies
that both surveys observed:

.. math:: c_s \leftarrow c_s + \lambda\,(\bar z_s - \bar z) , \qquad
   \lambda = \max\left(0,\;
   1 - \frac{\sum_k \mathrm{var}(d_k) / N}{\sum_k \bar d_k^2} \right) ,

where :math:`d = z_s - \bar z` is how a galaxy's latent in survey :math:`s` differs from
the mean of its views. The factor :math:`\lambda` (James & Stein 1961) leaves alone what
N galaxies cannot tell from nothing.
"""

import torch

__all__ = ["centre_physics"]

_CHUNK = 64


@torch.inference_mode()
def centre_physics(network, steps, *, fixed=None):
    """
    Give the physics latents of all surveys the same mean.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The trained network; its physics encoder is changed in place.
    steps : iterable of dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        The same N galaxies in every survey, in portions of any size.
    fixed : str, optional
        Survey that stays where it is, and whose mean the others are given.

    Returns
    -------
    moved : dict of str to `torch.Tensor`
        Per survey, shape (P,), what is subtracted more than before.
    """
    device = next(network.parameters()).device
    count, total, square = 0, 0.0, 0.0
    for batches in steps:
        names = list(batches)
        rows = torch.arange(len(batches[names[0]]))
        for part in rows.split(_CHUNK):
            views = [network.view(batches[name][part].to(device)) for name in names]
            z = torch.stack([network.physics(view) for view in views]).double()
            middle = z.mean(0) if fixed is None else z[names.index(fixed)]
            difference = z - middle
            count += len(part)
            total = total + difference.sum(1)
            square = square + difference.square().sum(1)
    mean = total / count
    noise = (square - count * mean.square()).sum(1) / max(count - 1, 1) / count
    share = (1 - noise / mean.square().sum(1).clamp(min=1e-30)).clamp(min=0)
    moved = dict(zip(names, (share[:, None] * mean).float(), strict=True))
    for name, offset in moved.items():
        network.physics.centre(name).add_(offset)
    return moved
