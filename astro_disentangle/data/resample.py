# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Flux-conserving resampling of batches of images.

An output pixel at sky offset :math:`s` (arcsec, west and north of the galaxy)
lies at the native pixel :math:`p = A s + c`. Its value is the surface brightness
there, times the ratio of the areas of the two pixels,

.. math:: f_\mathrm{out}(s) = \Delta^2 |\det A| \sum_j K(p - j)\,c_j ,

with :math:`K` the product of a cubic B-spline in x and in y, and :math:`c` the
coefficients of the spline that goes through all native pixels (Unser 1999, IEEE
Signal Processing Magazine 16, 22).

A native pixel has collected the light of a square, and so should an output pixel.
Where the output is coarser, by a factor :math:`r`, the spline is averaged over a
further square of side :math:`\sqrt{r^2 - 1}` native pixels, so that the second
moments of the two squares add up to those of an output pixel.

Bad pixels are replaced by a weighted mean of the good ones around them before the
coefficients are found; an output pixel is good where more than half of the weight
of a linear interpolation is on good pixels. Beyond its last good pixels an image is
mirrored, and no pixel is good.
"""

import functools
import math

import torch

from astro_disentangle.data.constants import constant

__all__ = ["grid_offsets", "resample"]

#: Rotations that move no pixel of an 8 arcsec field by more than this many
#: native pixels are resampled one axis after the other.
_SEPARABLE_SHIFT = 0.02
#: Half the support of the cubic B-spline in native pixels.
_REACH = 2.0
#: Standard deviations in pixels of the Gaussians that fill bad pixels: the
#: narrowest whose weight on good pixels is enough is used.
_FILL_WIDTHS = (1.0, 2.5, 6.0)
_FILL_WEIGHT = 0.05


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
    size : int or (int, int)
        Pixels on a side of the output, or its (ny, nx).
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
    >>> round(out[0, 0, 4, 4].item(), 5), good.all().item()
    (4.0, True)
    """
    shape = (size, size) if isinstance(size, int) else tuple(size)
    boxes = _frames(good)
    # Fluxes keep their digits also where the networks around them are coarser.
    with torch.autocast(pixels.device.type, enabled=False):
        if len(boxes) == 1:
            (top, bottom, left, right), rows = boxes[0]
            inner = (..., slice(top, bottom), slice(left, right))
            corner = constant((left, top), affine.device).to(affine.dtype)
            moved = torch.cat([affine[:, :, :2], affine[:, :, 2:] - corner[:, None]], 2)
            return _resampled(pixels[inner], good[inner], moved, shape, scale)
        flux = pixels.new_zeros(*pixels.shape[:2], *shape)
        fine = torch.zeros_like(flux, dtype=torch.bool)
        for _, rows in boxes:
            part = resample(
                pixels[rows], good[rows], affine[rows], size=shape, scale=scale
            )
            flux[rows], fine[rows] = part
        return flux, fine


def _frames(good):
    """
    Where the images (B, C, H, W) end: (top, bottom, left, right), and their rows.

    An image ends at its last good pixel: those that are there only because another
    image of the batch is larger must not make a difference.
    """
    height, width = good.shape[-2:]
    whole = (0, height, 0, width)
    edges = (good[..., 0, :], good[..., -1, :], good[..., 0], good[..., -1])
    full = torch.stack([edge.flatten(1).any(1) for edge in edges], 1).all(1)
    if bool(full.all()):
        return [(whole, slice(None))]
    boxes = {}
    for row, known in enumerate(good.any(1).cpu()):
        y, x = known.any(1).nonzero()[:, 0], known.any(0).nonzero()[:, 0]
        box = whole
        if len(y):
            box = tuple(int(v) for v in (y[0], y[-1] + 1, x[0], x[-1] + 1))
        boxes.setdefault(box, []).append(row)
    return [(box, torch.tensor(r, device=good.device)) for box, r in boxes.items()]


def _resampled(pixels, good, affine, shape, scale):
    """The images of one frame, (B, C, H, W) to (B, C, ny, nx) and what is good."""
    matrix = affine[:, :, :2].double()
    area = scale**2 * torch.linalg.det(matrix).abs()
    half = max(shape) * scale / 2
    crossed = matrix[:, [0, 1], [1, 0]].abs().amax(1) * half < _SEPARABLE_SHIFT
    flux = _filled(pixels, good)
    weight = good.to(pixels.dtype)
    # One row's path must not depend on its neighbours in the batch.
    if bool(crossed.all()):
        flux, weight = _separable(flux, weight, affine, shape, scale)
    elif not bool(crossed.any()):
        flux, weight = _general(flux, weight, affine, shape, scale)
    else:
        out = pixels.new_empty(2, *pixels.shape[:2], *shape)
        for path, rows in ((_separable, crossed), (_general, ~crossed)):
            parts = path(flux[rows], weight[rows], affine[rows], shape, scale)
            out[0, rows], out[1, rows] = parts
        flux, weight = out
    good = weight > 0.5
    flux = flux * area.to(flux.dtype)[:, None, None, None]
    return torch.where(good, flux, torch.zeros_like(flux)), good


def _filled(pixels, good):
    """Bad pixels as a mean of the good ones around them, (B, C, H, W)."""
    rows = ~good.flatten(1).all(1)
    if not bool(rows.any()):
        return pixels
    out = pixels.clone()
    pixels, good = pixels[rows], good[rows]
    known = good.to(pixels.dtype)
    flux = torch.where(good, pixels, torch.zeros_like(pixels))
    filled = torch.zeros_like(pixels)
    for width in reversed(_FILL_WIDTHS):
        weight = _blurred(known, width)
        enough = weight > _FILL_WEIGHT
        mean = _blurred(flux, width) / torch.where(enough, weight, 1.0)
        filled = torch.where(enough, mean, filled)
    out[rows] = torch.where(good, pixels, filled)
    return out


def _blurred(images, width):
    """A Gaussian mean of images (B, C, H, W), 0 beyond their frames."""
    for axis in (-1, -2):
        place = torch.arange(images.shape[axis], device=images.device)
        kernel = (-0.5 * ((place[:, None] - place) / width).square()).exp()
        kernel = (kernel / (width * math.sqrt(2 * math.pi))).to(images.dtype)
        images = (images.transpose(axis, -1) @ kernel).transpose(axis, -1)
    return images


@functools.lru_cache(maxsize=64)
def _coefficients(count, device, dtype):
    """Matrix (count, count) from pixels to coefficients, with mirrored ends."""
    matrix = torch.zeros(count, count, dtype=torch.float64)
    place = torch.arange(count)
    last = max(count - 1, 1)
    for shift, value in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
        mirrored = (place + shift).abs()
        mirrored = last - (last - mirrored).abs()
        matrix[place, mirrored.clamp(0, count - 1)] += value
    return torch.linalg.inv(matrix).to(device=device, dtype=dtype)


def _spline(x):
    """Cubic B-spline at distances of any shape, in native pixels."""
    x = x.abs()
    inner = 2 / 3 - x.square() * (1 - x / 2)
    outer = (2 - x).clamp(min=0)
    outer = outer.square() * outer / 6
    return torch.where(x < 1, inner, outer)


def _integral(x):
    """Integral of the cubic B-spline from its middle to x."""
    a = x.abs().clamp(max=_REACH)
    inner = a * (2 / 3 - a.square() * (1 / 3 - a / 8))
    outer = 0.5 - (2 - a).pow(4) / 24
    return torch.where(a < 1, inner, outer) * x.sign()


def _kernel(distance, width):
    """B-spline averaged over a width, which broadcasts against the distance."""
    wide = width > 1e-2
    if not bool(wide.any()):
        return _spline(distance)
    half = torch.where(wide, width, torch.ones_like(width)) / 2
    mean = (_integral(distance + half) - _integral(distance - half)) / (2 * half)
    return torch.where(wide, mean, _spline(distance))


def _extra_width(step):
    """Side of the square to average over, for a step of native pixels."""
    return (step.square() - 1).clamp(min=0).sqrt()


def _folded(weights, count, margin):
    """Weights on a grid with margins, (..., count + 2 margin), mirrored into it."""
    place = torch.arange(-margin, count + margin, device=weights.device)
    period = max(2 * (count - 1), 1)
    place = place.remainder(period)
    place = torch.minimum(place, period - place).clamp(max=count - 1)
    out = weights.new_zeros(*weights.shape[:-1], count)
    return out.index_add_(-1, place, weights)


def _axis(position, count, step):
    """
    Interpolation matrices of one axis, for the flux and for what is good.

    Position (B, N) in native pixels, ``count`` native pixels, ``step`` (B,)
    native pixels per output pixel; returns two of (B, N, count).
    """
    width = _extra_width(step)[:, None, None]
    margin = math.ceil(_REACH + float(width.max()) / 2) + 2
    grid = torch.arange(
        -margin, count + margin, dtype=position.dtype, device=position.device
    )
    distance = position[:, :, None] - grid
    flux = _folded(_kernel(distance, width), count, margin)
    flux = flux @ _coefficients(count, position.device, position.dtype)
    inner = distance[:, :, margin : margin + count]
    return flux, (1 - inner.abs()).clamp(min=0)


def _separable(flux, weight, affine, shape, scale):
    """Resample one axis after the other, (B, C, H, W) to (B, C, ny, nx)."""
    height, width = flux.shape[-2:]
    a = affine.to(flux.dtype)

    def position(axis, count):
        offsets = grid_offsets(count, scale, device=flux.device).to(flux.dtype)
        return a[:, axis, axis, None] * offsets + a[:, axis, 2, None]

    rows = _axis(position(1, shape[0]), height, a[:, 1, 1].abs() * scale)
    columns = _axis(position(0, shape[1]), width, a[:, 0, 0].abs() * scale)
    flux = _both_axes(flux, rows[0], columns[0])
    if bool((weight == 1).all()):
        # The frame alone decides.
        weight = rows[1].sum(2)[:, None, :, None] * columns[1].sum(2)[:, None, None]
        return flux, weight.expand_as(flux)
    return flux, _both_axes(weight, rows[1], columns[1])


def _both_axes(images, rows, columns):
    """Matrices (B, ny, H) and (B, nx, W) on images (B, C, H, W)."""
    batch, channels, height, width = images.shape
    images = images.transpose(1, 2).reshape(batch, height, channels * width)
    images = (rows @ images).reshape(batch, -1, width) @ columns.transpose(1, 2)
    return images.unflatten(1, (-1, channels)).transpose(1, 2).contiguous()


def _general(flux, weight, affine, shape, scale):
    """Resample under any affine map, (B, C, H, W) to (B, C, ny, nx)."""
    batch, channels, height, width = flux.shape
    a = affine.to(flux.dtype)
    north, west = (
        grid_offsets(count, scale, device=flux.device).to(flux.dtype) for count in shape
    )
    x, y = (
        a[:, axis, 0, None, None] * west
        + a[:, axis, 1, None, None] * north[:, None]
        + a[:, axis, 2, None, None]
        for axis in (0, 1)
    )
    step = torch.linalg.det(a[:, :, :2].double()).abs().sqrt().to(flux.dtype) * scale
    extra = _extra_width(step)[:, None, None]
    reach = math.ceil(_REACH + float(extra.max()) / 2)
    rows, columns = (
        _coefficients(count, flux.device, flux.dtype) for count in (height, width)
    )
    spline = (rows @ flux @ columns.T).reshape(batch, channels, -1)
    flat = weight.reshape(batch, channels, -1)
    out = flux.new_zeros(2, batch, channels, shape[0] * shape[1])
    x0, y0 = x.floor(), y.floor()

    def mirrored(index, count):
        period = max(2 * (count - 1), 1)
        index = index.remainder(period)
        return torch.minimum(index, period - index).clamp(max=count - 1)

    for dy in range(1 - reach, reach + 1):
        yi = y0 + dy
        ky, gy = _kernel(y - yi, extra), (1 - (y - yi).abs()).clamp(min=0)
        for dx in range(1 - reach, reach + 1):
            xi = x0 + dx
            index = (mirrored(yi, height) * width + mirrored(xi, width)).long()
            index = index.reshape(batch, 1, -1).expand(-1, channels, -1)
            kernel = (ky * _kernel(x - xi, extra)).reshape(batch, 1, -1)
            out[0] += kernel * spline.gather(2, index)
            if dx in (0, 1) and dy in (0, 1):
                inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
                linear = inside * gy * (1 - (x - xi).abs()).clamp(min=0)
                out[1] += linear.reshape(batch, 1, -1) * flat.gather(2, index)
    return tuple(part.reshape(batch, channels, *shape) for part in out)
