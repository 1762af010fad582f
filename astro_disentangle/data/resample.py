# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Flux-conserving resampling of batches of images.

An output pixel at sky offset :math:`s` (arcsec, west and north of the galaxy)
lies at the native pixel :math:`A s + c`. Its value is the Lanczos
interpolation of the surface brightness there, times the ratio of the areas of
the two pixels,

.. math:: f_\mathrm{out}(s) = \Delta^2 |\det A| \sum_j L(A s + c - j) f_j .

Where the output is coarser than the input the kernel is widened, so that
nothing finer than the output grid is folded back. Bad pixels are left out and
the weights of the others are renormalised; an output pixel is good when more
than half of its weight is.
"""

import math

import torch

__all__ = ["grid_offsets", "resample"]

_LOBES = 3
#: Rotations that move no pixel of an 8 arcsec field by more than this many
#: native pixels are resampled one axis after the other.
_SEPARABLE_SHIFT = 0.02


def grid_offsets(size, scale, *, device=None):
    """
    Sky offsets of the pixels along one axis of a grid centred on the galaxy.

    Parameters
    ----------
    size : int
        Number of pixels.
    scale : float
        Pixel scale in arcsec.
    device : `torch.device`, optional
        Where the result lives.

    Returns
    -------
    offsets : `torch.Tensor`
        Shape (size,), float32, arcsec.

    Examples
    --------
    >>> from astro_disentangle.data.resample import grid_offsets
    >>> grid_offsets(2, 0.5).tolist()
    [-0.25, 0.25]
    """
    return (torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2) * (
        scale
    )


def resample(pixels, good, affine, *, size, scale):
    """
    Resample a batch of native stamps to a grid that is centred on the galaxy.

    Parameters
    ----------
    pixels : `torch.Tensor`
        Shape (B, C, H, W), flux per native pixel.
    good : `torch.Tensor`
        Shape (B, C, H, W), bool, True where ``pixels`` can be trusted.
    affine : `torch.Tensor`
        Shape (B, 2, 3), native pixel (x, y) of a sky offset (west, north) in
        arcsec: the columns are those of ``A`` and ``c``.
    size : int
        Pixels on a side of the output.
    scale : float
        Pixel scale of the output in arcsec.

    Returns
    -------
    pixels : `torch.Tensor`
        Shape (B, C, size, size), flux per output pixel, 0 where not good.
    good : `torch.Tensor`
        Shape (B, C, size, size), bool.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.data.resample import resample
    >>> image = torch.ones(1, 1, 32, 32)
    >>> affine = torch.tensor([[[4.0, 0.0, 15.5], [0.0, 4.0, 15.5]]])
    >>> out, good = resample(image, image > 0, affine, size=8, scale=0.5)
    >>> out[0, 0, 4, 4].item(), good.all().item()
    (4.0, True)
    """
    matrix = affine[:, :, :2].double()
    area = scale**2 * torch.linalg.det(matrix).abs()
    half = size * scale / 2
    crossed = matrix[:, [0, 1], [1, 0]].abs().amax(1) * half < _SEPARABLE_SHIFT
    weight = good.to(pixels.dtype)
    flux = torch.where(good, pixels, torch.zeros((), dtype=pixels.dtype))
    stacked = torch.cat([flux, weight], 1)
    # One row's path must not depend on its neighbours in the batch.
    if bool(crossed.all()):
        out = _separable(stacked, affine, size, scale)
    elif not bool(crossed.any()):
        out = _general(stacked, affine, size, scale)
    else:
        out = torch.empty(
            *stacked.shape[:2], size, size, dtype=pixels.dtype, device=pixels.device
        )
        out[crossed] = _separable(stacked[crossed], affine[crossed], size, scale)
        out[~crossed] = _general(stacked[~crossed], affine[~crossed], size, scale)
    flux, weight = out.chunk(2, 1)
    good = weight > 0.5
    flux = flux / torch.where(good, weight, torch.ones_like(weight))
    flux = flux * area.to(flux.dtype)[:, None, None, None]
    return torch.where(good, flux, torch.zeros_like(flux)), good


def _lanczos(distance):
    """Lanczos kernel at distances in units of its own pixel; any shape."""
    inside = distance.abs() < _LOBES
    return torch.where(
        inside,
        torch.sinc(distance) * torch.sinc(distance / _LOBES),
        torch.zeros_like(distance),
    )


def _weights(position, count, step):
    """
    Interpolation matrix of one axis.

    Position (B, N) in native pixels, ``count`` native pixels, ``step`` (B,)
    native pixels per output pixel; returns (B, N, count). The rows are
    normalised by the sum over an unbounded grid, so that the frame of the
    stamp counts as missing pixels.
    """
    width = step.clamp(min=1.0)[:, None, None]
    margin = math.ceil(_LOBES * float(width.max())) + 1
    grid = torch.arange(
        -margin, count + margin, dtype=position.dtype, device=position.device
    )
    kernel = _lanczos((position[:, :, None] - grid) / width)
    total = kernel.sum(-1, keepdim=True)
    total = torch.where(total.abs() > 1e-6, total, torch.ones_like(total))
    return (kernel / total)[:, :, margin : margin + count]


def _separable(images, affine, size, scale):
    """Resample one axis after the other, (B, C, H, W) to (B, C, size, size)."""
    height, width = images.shape[-2:]
    offsets = grid_offsets(size, scale, device=images.device).to(images.dtype)
    a = affine.to(images.dtype)
    x = a[:, 0, 0, None] * offsets + a[:, 0, 2, None]
    y = a[:, 1, 1, None] * offsets + a[:, 1, 2, None]
    rows = _weights(y, height, a[:, 1, 1].abs() * scale)
    columns = _weights(x, width, a[:, 0, 0].abs() * scale)
    return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)


def _general(images, affine, size, scale):
    """Resample under any affine map, (B, C, H, W) to (B, C, size, size)."""
    batch, channels, height, width = images.shape
    offsets = grid_offsets(size, scale, device=images.device).to(images.dtype)
    a = affine.to(images.dtype)
    west, north = offsets[None, None, :], offsets[None, :, None]
    x = a[:, 0, 0, None, None] * west + a[:, 0, 1, None, None] * north
    y = a[:, 1, 0, None, None] * west + a[:, 1, 1, None, None] * north
    x, y = x + a[:, 0, 2, None, None], y + a[:, 1, 2, None, None]
    step = torch.linalg.det(a[:, :, :2].double()).abs().sqrt().to(images.dtype) * scale
    stretch = step.clamp(min=1.0)[:, None, None]
    reach = math.ceil(_LOBES * float(stretch.max()))
    x0, y0 = x.floor(), y.floor()
    flat = images.reshape(batch, channels, -1)
    out = images.new_zeros(batch, channels, size * size)
    total = images.new_zeros(batch, 1, size * size)
    for dy in range(1 - reach, reach + 1):
        yi = y0 + dy
        ky = _lanczos((y - yi) / stretch)
        for dx in range(1 - reach, reach + 1):
            xi = x0 + dx
            kernel = (ky * _lanczos((x - xi) / stretch)).reshape(batch, 1, -1)
            total += kernel
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            index = (yi.clamp(0, height - 1) * width + xi.clamp(0, width - 1)).long()
            kernel = kernel * inside.reshape(batch, 1, -1)
            index = index.reshape(batch, 1, -1).expand(-1, channels, -1)
            out += kernel * flat.gather(2, index)
    return (out / total).reshape(batch, channels, size, size)
