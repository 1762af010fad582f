# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Numbers of a survey as tensors, made once for each device."""

import functools

import torch

__all__ = ["constant"]


@functools.lru_cache(maxsize=256)
def constant(values, device):
    """
    A tuple of numbers as a tensor that is kept.

    A GPU is waited for whenever a new tensor is sent to it, so what never changes is
    sent once.

    Parameters
    ----------
    values : tuple of float
        N numbers.
    device : `torch.device`
        Where the tensor lives.

    Returns
    -------
    tensor : `torch.Tensor`
        Shape (N,), float32; not to be changed.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.data.constants import constant
    >>> constant((1.0, 2.0), torch.device("cpu"))
    tensor([1., 2.])
    """
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=torch.float32, device=device)
