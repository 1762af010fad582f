# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""The decoder: an outline of the image, and the flow of what it leaves open.

What depends only on the galaxy and the conditions is computed once
(`Decoder.prepare`): a conditioning vector; a canvas, feature maps of 16 and 8
patches on a side that hold what is to be painted where, brought to the patches of the
target's stamp where these are not 16; and, painted from the canvas, the outline of the
target. Each evaluation then reads the state of the flow
(`astro_disentangle.model.flow`) in patches of the target survey and returns its
velocity, which is zero for what the outline has already said.

The outline (`Outline`) gives every pixel of flux :math:`f` a mean :math:`\mu` and a
variance :math:`V`, in units of the softening of the stretch:

.. math:: \mu = \sinh h , \qquad
   V = V_\mathrm{sky} + e^{q} \cosh^2 h .

:math:`h` and :math:`q` are painted. :math:`V_\mathrm{sky}` is the noise that the
instrument latent tells for each band, so that depth is painted as asked and a learned
variance only adds to it; :math:`e^q` is the square of a relative error. What the
outline leaves open is the residual

.. math:: r = \frac{\cosh h}{\sqrt{V}}\,\varphi(w) , \qquad
   w = \frac{f - \mu}{\cosh h} , \qquad
   \varphi(w) = \begin{cases} w & |w| \le L \\
   \pm L (1 + \ln(|w| / L)) & \text{beyond,} \end{cases} \qquad
   L = 2 + 4 \frac{\sqrt{V_\mathrm{sky}}}{\cosh h} .

Linear in the flux, it is normal where the noise is, and :math:`\mu` is the mean flux,
free of the bias that a mean of stretched pixels has. The logarithm tames sources that
nothing foretold.
"""

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from astro_disentangle.model.blocks import ResidualBlock, TimeEmbedding
from astro_disentangle.model.flow import STEPS, adams_rule
from astro_disentangle.model.stretch import arcsinh

__all__ = ["Decoder", "EmptyOutline", "Outline", "Prepared"]

#: Patches on a side of the canvas, and fewest and most of a survey's stamp.
_CANVAS, _FEWEST, _MOST = 16, 8, 32
#: Logarithm of the learned relative variance at first, and how far it may go.
_LOG_VARIANCE, _LOG_RANGE = -4.0, 8.0
#: Deviation beyond which the residual is logarithmic: of cosh(h), and of the noise.
_LINEAR, _SIGMAS = 2.0, 4.0


@dataclass(frozen=True)
class Outline:
    """
    What is said of the target's pixels before the flow starts.

    Parameters
    ----------
    h, log_variance : `torch.Tensor`
        Shape (B, C, N, N), float32: stretched mean flux, and logarithm ``q`` of the
        learned relative variance.
    sky : `torch.Tensor`
        Shape (B, C, 1, 1), variance of the noise in units of the softening squared.
    """

    h: torch.Tensor
    log_variance: torch.Tensor
    sky: torch.Tensor

    @property
    def pace(self):
        """Variance that sets how the path turns, (1,)."""
        return self.h.new_ones(1)

    @property
    def mean(self):
        """Mean flux in units of the softening, (B, C, N, N)."""
        return self.h.sinh()

    def __getitem__(self, rows):
        """The rows of a slice or index."""
        return Outline(self.h[rows], self.log_variance[rows], self.sky[rows])

    def repeat(self, count):
        """Every row ``count`` times, one after the other."""
        rows = (self.h, self.log_variance, self.sky)
        return Outline(*(r.repeat_interleave(count, 0) for r in rows))

    def detach(self):
        """The same numbers, to be learned from no more."""
        return Outline(self.h.detach(), self.log_variance.detach(), self.sky.detach())

    def residual(self, x):
        """Residuals of stretched pixels."""
        return _compressed(self._deviation(x), self._linear) / self._width

    def pixels(self, residual):
        """Stretched pixels of residuals."""
        deviation = _expanded(residual * self._width, self._linear)
        return arcsinh(self.h.sinh() + self.h.cosh() * deviation)

    def surprise(self, x):
        """Negative logarithm of the density of the fluxes, up to a constant."""
        w = self._deviation(x)
        bent = (w.abs() / self._linear).clamp(min=1).log()
        residual = _compressed(w, self._linear) / self._width
        return residual.square() / 2 + self._width.log() + bent + self.h.cosh().log()

    def _deviation(self, x):
        return (x.sinh() - self.h.sinh()) / self.h.cosh()

    @property
    def _linear(self):
        """Deviation up to which the residual is linear: not even noise goes beyond."""
        return _LINEAR + _SIGMAS * self.sky.sqrt() / self.h.cosh()

    @property
    def _width(self):
        """Standard deviation over cosh(h)."""
        return (self.sky / self.h.cosh().square() + self.log_variance.exp()).sqrt()


@dataclass(frozen=True)
class EmptyOutline:
    """
    An outline of nothing but sky, in stretched pixels, as published.

    Parameters
    ----------
    sky : `torch.Tensor`
        Shape (B, C, 1, 1), variance of the stretched noise.
    """

    sky: torch.Tensor

    @property
    def pace(self):
        """Variance that sets how the path turns, (B, C, 1, 1)."""
        return self.sky

    def __getitem__(self, rows):
        """The rows of a slice or index."""
        return EmptyOutline(self.sky[rows])

    def repeat(self, count):
        """Every row ``count`` times, one after the other."""
        return EmptyOutline(self.sky.repeat_interleave(count, 0))

    def detach(self):
        """The same numbers, to be learned from no more."""
        return EmptyOutline(self.sky.detach())

    def residual(self, x):
        """Residuals of stretched pixels."""
        return x / self.sky.sqrt()

    def pixels(self, residual):
        """Stretched pixels of residuals."""
        return residual * self.sky.sqrt()

    def surprise(self, x):
        """Negative logarithm of the density of stretched pixels, up to a constant."""
        return (x.square() / self.sky + self.sky.log()) / 2


def _compressed(w, linear):
    """Logarithmic beyond what is linear."""
    far = w.abs().clamp(min=1e-6).maximum(linear)
    return torch.where(
        w.abs() <= linear, w, w.sign() * linear * (1 + (far / linear).log())
    )


def _expanded(v, linear):
    """Inverse of `_compressed`."""
    far = (v.abs().maximum(linear) / linear - 1).clamp(max=18).exp()
    return torch.where(v.abs() <= linear, v, v.sign() * linear * far)


@dataclass(frozen=True)
class Prepared:
    """
    All that the decoder knows before the flow starts.

    Parameters
    ----------
    target : str
        Survey to paint, of C bands.
    c : `torch.Tensor`
        Shape (B, D), conditioning vector.
    fine, coarse : `torch.Tensor`
        Shapes (B, W, M, M) and (B, 2 W, M / 2, M / 2), the canvas, with M patches on
        a side of the stamp; M / 2 is rounded up.
    outline : `Outline` or `EmptyOutline`
        Of the target's pixels.
    """

    target: str
    c: torch.Tensor
    fine: torch.Tensor
    coarse: torch.Tensor
    outline: object

    def __getitem__(self, rows):
        """The rows of a slice or index."""
        some = (self.c[rows], self.fine[rows], self.coarse[rows])
        return Prepared(self.target, *some, self.outline[rows])

    def repeat(self, count):
        """Every row ``count`` times, one after the other."""
        rows = (self.c, self.fine, self.coarse)
        rows = (r.repeat_interleave(count, 0) for r in rows)
        return Prepared(self.target, *rows, self.outline.repeat(count))


class Decoder(nn.Module):
    """
    Velocity of the flow from noise to an image of the target survey.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys the decoder reads from and paints.
    physics, instrument : int
        Lengths P and I of the latents.
    width : int
        Channels of the maps of 16 x 16 patches; 8 x 8 maps have twice as many.
    depth : int
        Residual blocks at each of the three stages.
    condition : int
        Length of the conditioning vector.
    outlined : bool
        Whether the image is outlined before the flow.
    """

    def __init__(
        self, surveys, physics, instrument, width, depth, condition, *, outlined
    ):
        super().__init__()
        self.shapes = {
            s.name: (len(s.bands), s.patch_size, s.stamp_size) for s in surveys
        }
        for survey in surveys:
            patches = survey.stamp_size // survey.patch_size
            if not _FEWEST <= patches <= _MOST:
                raise ValueError(
                    f"'stamp_size' must be {_FEWEST} to {_MOST} times 'patch_size'; "
                    f"got {survey.stamp_size} and {survey.patch_size} for "
                    f"{survey.name}."
                )
        self.source = nn.ModuleDict(
            {s.name: nn.Linear(5 * len(s.bands), condition) for s in surveys}
        )
        self.target = nn.ParameterDict(
            {s.name: nn.Parameter(0.02 * torch.randn(condition)) for s in surveys}
        )
        self.merge = nn.Sequential(
            nn.Linear(physics + instrument + 2, condition),
            nn.SiLU(),
            nn.Linear(condition, condition),
        )
        self.time = TimeEmbedding(condition)
        self.canvas = _Canvas(physics, condition, width)

        self.patch = nn.ModuleDict(
            {
                s.name: nn.Conv2d(len(s.bands), width, s.patch_size, s.patch_size)
                for s in surveys
            }
        )
        self.fine = _blocks(width, depth, condition)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse = _blocks(2 * width, depth, condition)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.finish = _blocks(width, depth, condition)
        self.paint = nn.ModuleDict(
            {
                s.name: nn.Conv2d(width, len(s.bands) * s.patch_size**2, 1)
                for s in surveys
            }
        )
        self.outline = nn.ModuleDict(
            {
                s.name: nn.Conv2d(width, 2 * len(s.bands) * s.patch_size**2, 1)
                for s in surveys
                if outlined
            }
        )
        for name in self.outline:
            self.register_buffer(f"rule_{name}", adams_rule(STEPS))
        for layer in (*self.paint.values(), *self.outline.values()):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def rule(self, target):
        """The rule of few steps for a survey (`follow`), if it has one."""
        return getattr(self, f"rule_{target}", None)

    def prepare(
        self,
        z_physics,
        z_instrument,
        *,
        source,
        observation,
        target,
        offset,
        sky,
        detail=None,
    ):
        """
        All that does not depend on the time of the flow.

        Parameters
        ----------
        z_physics, z_instrument : `torch.Tensor`
            Shapes (B, P) and (B, I).
        source : str
            Survey from which ``z_physics`` was read.
        observation : `torch.Tensor`
            Shape (B, 5 C), the source's observation, as in `View`.
        target : str
            Survey to paint.
        offset : `torch.Tensor`
            Shape (B, 2), galaxy minus centre of the stamp in target pixels.
        sky : `torch.Tensor`
            Shape (B, C), variance of the target's sky noise.
        detail : callable, optional
            Canvas (B, W, M, M) and conditioning vector (B, D) to what is added to the
            canvas for the outline, and for the flow.

        Returns
        -------
        prepared : `Prepared`
            For `forward`.
        """
        c = self.merge(torch.cat([z_physics, z_instrument, offset], 1))
        c = c + self.source[source](observation) + self.target[target]
        fine, coarse = self.canvas(z_physics, functional.silu(c))
        _, patch, stamp = self.shapes[target]
        patches = stamp // patch
        if patches != _CANVAS:
            fine, coarse = _resized(fine, patches), _resized(coarse, -(-patches // 2))
        outlined = fine
        if detail is not None:
            outlined, fine = (fine + more for more in detail(fine, functional.silu(c)))
        return Prepared(target, c, fine, coarse, self._outline(outlined, target, sky))

    def _outline(self, fine, target, sky):
        """The outline of the target's pixels, from the canvas."""
        sky = sky[:, :, None, None]
        if not self.outline:
            return EmptyOutline(sky)
        # Half precision would be coarser than the noise of bright pixels.
        with torch.autocast(fine.device.type, enabled=False):
            painted = self.outline[target](fine.float())
            painted = functional.pixel_shuffle(painted, self.shapes[target][1])
            h, q = painted.chunk(2, 1)
        q = q.clamp(-_LOG_RANGE, _LOG_RANGE) + _LOG_VARIANCE
        return Outline(h.clamp(-20, 20), q, sky)

    def forward(self, y, t, prepared):
        """
        Velocity of the flow at time ``t``.

        Parameters
        ----------
        y : `torch.Tensor`
            Shape (B, C, N, N), state of the flow.
        t : `torch.Tensor`
            Shape (B,), times from 0 (noise) to 1 (image).
        prepared : `Prepared`
            From `prepare`.

        Returns
        -------
        velocity : `torch.Tensor`
            Shape (B, C, N, N), float32, per radian.
        """
        target = prepared.target
        c = functional.silu(prepared.c + self.time(t))
        y = y.contiguous(memory_format=torch.channels_last)

        h = self.patch[target](y) + prepared.fine
        for block in self.fine:
            h = block(h, c)
        skip, patches = h, h.shape[-1]
        # An odd number of patches is made even, and cut again.
        odd = patches % 2
        h = self.down(functional.pad(h, (0, odd, 0, odd))) + prepared.coarse
        for block in self.coarse:
            h = block(h, c)
        h = functional.pixel_shuffle(self.up(h), 2)[..., :patches, :patches]
        h = self.join(torch.cat([h, skip], 1))
        for block in self.finish:
            h = block(h, c)
        h = self.paint[target](h)
        return functional.pixel_shuffle(h, self.shapes[target][1]).float()


@functools.lru_cache(maxsize=64)
def _interpolation(size, count, device):
    """Matrix (size, count) of a linear interpolation between pixels' middles."""
    with torch.inference_mode(mode=False):
        unit = torch.eye(count, device=device)[:, None]
        rows = functional.interpolate(unit, size=size, mode="linear")
        return rows[:, 0].T.contiguous()


def _resized(maps, size):
    """
    Maps (B, W, M, M) of another size (B, W, size, size), bilinear.

    Two products of matrices: for maps as many and as small as these the kernel of a GPU
    for interpolation takes a hundred times as long.
    """
    rows = _interpolation(size, maps.shape[-1], maps.device).to(maps.dtype)
    maps = maps.permute(0, 2, 3, 1)
    maps = (rows @ maps.flatten(2)).unflatten(2, maps.shape[2:])
    return (rows @ maps).permute(0, 3, 1, 2)


class _Canvas(nn.Module):
    """Feature maps of what is to be painted where, from the physics latent."""

    def __init__(self, physics, condition, width):
        super().__init__()
        self.width = width
        self.seed = nn.Linear(physics + condition, 16 * 2 * width)
        self.first = ResidualBlock(2 * width, condition)
        self.second = nn.Conv2d(2 * width, 8 * width, 1)
        self.third = ResidualBlock(2 * width, condition)
        self.fourth = nn.Conv2d(2 * width, 4 * width, 1)
        self.fifth = ResidualBlock(width, condition)
        self.sixth = ResidualBlock(width, condition)

    def forward(self, z_physics, c):
        """Map (B, P) and (B, D) to maps of 16 x 16 and 8 x 8 patches."""
        h = self.seed(torch.cat([z_physics, c.to(z_physics.dtype)], 1))
        h = h.reshape(-1, 2 * self.width, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        h = functional.pixel_shuffle(self.second(self.first(h, c)), 2)
        coarse = self.third(h, c)
        fine = functional.pixel_shuffle(self.fourth(coarse), 2)
        return self.sixth(self.fifth(fine, c), c), coarse


def _blocks(width, depth, condition):
    return nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
