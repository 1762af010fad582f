# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The two encoders.

Both see a cut-out on the common grid (`View`): stretched pixels, which of them
are good, and what is known of the observation. What belongs to one survey, its
first convolution and its reading of the observation, is a layer per survey;
the rest is shared.

The physics encoder maps one view to ``z_physics``. The instrument encoder maps
each member of a set to a feature and a weight, and the set to the weighted
mean: the result depends neither on the order nor on the size of the set, and
members that say more, such as bright stars, may count for more.
"""

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from astro_disentangle.data.batch import COMMON_SCALE, COMMON_SIZE
from astro_disentangle.model.blocks import Tower

__all__ = [
    "APERTURES",
    "InstrumentEncoder",
    "PhysicsEncoder",
    "Stem",
    "View",
    "filled",
    "light",
]

#: Widths of the apertures of `light`, arcsec.
APERTURES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class View:
    """
    Cut-outs of one survey as the encoders see them.

    Parameters
    ----------
    survey : str
        Name of the survey; C is the number of its bands.
    x : `torch.Tensor`
        Shape (B, C, 48, 48), stretched pixels, as `filled` where not good.
    good : `torch.Tensor`
        Shape (B, C, 48, 48), 1 where good, else 0.
    observation : `torch.Tensor`
        Shape (B, 5 C): band presence; PSF known, log2 of FWHM over the
        survey's typical one, times 5; noise known, log2 of noise over the
        typical one, times 2.5. The factors make both vary by about one.
    """

    survey: str
    x: torch.Tensor
    good: torch.Tensor
    observation: torch.Tensor

    def __getitem__(self, rows):
        """The rows of a slice or index."""
        return View(self.survey, self.x[rows], self.good[rows], self.observation[rows])

    @functools.cached_property
    def images(self):
        """
        What the convolutions see, (B, 2 C + 1, 48, 48), channels last.

        The mean of the bands, how each of them differs from it, and what is good:
        colours, which would be small differences of large numbers, are numbers of their
        own.
        """
        mean = self.x.mean(1, keepdim=True)
        images = torch.cat([2 * mean, 4 * (self.x - mean), self.good], 1)
        return images.contiguous(memory_format=torch.channels_last)


def filled(x, good):
    """
    Stretched pixels with the mean of the other bands where they are not good.

    A missing band then looks like no colour instead of no light: zeros there would
    be hundreds of times the size of a colour and hide it from a young network.

    Parameters
    ----------
    x : `torch.Tensor`
        Shape (B, C, H, W), stretched pixels.
    good : `torch.Tensor`
        Shape (B, C, H, W), 1 where good, else 0.

    Returns
    -------
    x : `torch.Tensor`
        Shape (B, C, H, W); 0 where no band is good.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.model.encoder import filled
    >>> x = torch.tensor([1.0, 3.0, 9.0]).reshape(1, 3, 1, 1)
    >>> good = torch.tensor([1.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    >>> filled(x, good).flatten().tolist()
    [1.0, 3.0, 2.0]
    """
    mean = (x * good).sum(1, keepdim=True) / good.sum(1, keepdim=True).clamp(min=1)
    return torch.where(good > 0, x, mean)


def light(view):
    """
    Light around the galaxy, as an aperture would measure it.

    Means under Gaussians of 0.5, 1 and 2 arcsec about the centre, over the noise
    they would have at the survey's typical depth and compressed by arcsinh. What
    convolutions would have to gather from many pixels is there from the start.

    Parameters
    ----------
    view : `View`
        B cut-outs of C bands.

    Returns
    -------
    numbers : `torch.Tensor`
        Shape (B, 3 C), float32.
    """
    axis = torch.arange(COMMON_SIZE, device=view.x.device) - (COMMON_SIZE - 1) / 2
    radius = (axis[:, None] ** 2 + axis**2).sqrt() * COMMON_SCALE
    weight = torch.stack([(-0.5 * (radius / s) ** 2).exp() for s in APERTURES])
    with torch.autocast(view.x.device.type, enabled=False):
        good = view.good.float()
        linear = view.x.float().sinh() * good
        sums, shares = (
            (part.flatten(2) @ weight.flatten(1).T).transpose(1, 2)
            for part in (linear, good)
        )
        scale = weight.square().sum((1, 2)).sqrt() / weight.sum((1, 2))
        means = sums / shares.clamp(min=1e-3)
        return torch.asinh(means / scale[:, None]).flatten(1)


def roughness(view):
    """
    Logarithm of the pixel noise, from neighbouring pixels in the quiet parts.

    The root mean square difference of neighbours in blocks of 6 x 6 pixels, of which
    the first quartile is taken: most of a galaxy's light is left out.

    Parameters
    ----------
    view : `View`
        B cut-outs of C bands.

    Returns
    -------
    numbers : `torch.Tensor`
        Shape (B, C), float32; 0 where a band has too few good pixels.
    """
    with torch.autocast(view.x.device.type, enabled=False):
        x, good = view.x.float(), view.good.float()
        both = good[..., 1:] * good[..., :-1]
        square = (x[..., 1:] - x[..., :-1]).square() * both
        square, both = (
            functional.avg_pool2d(part[..., :42], 6) for part in (square, both)
        )
        block = (square / both.clamp(min=1e-3)).masked_fill(both < 0.5, torch.inf)
        quiet = block.flatten(2).sort(2).values[:, :, block[0, 0].numel() // 4]
        known = quiet.isfinite()
        return torch.where(known, quiet + 1e-6, 1.0).log() / 2


class Stem(nn.Module):
    """
    First convolution and observation layer of each survey.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys that can be read.
    width : int
        Channels of the convolution, which sees `View.images`.
    condition : int
        Length of the conditioning vectors.
    measured : callable
        What else is measured on a view, with a layer of its own.
    numbers : int
        How many numbers it gives for each band.
    """

    def __init__(self, surveys, width, condition, measured, numbers):
        super().__init__()
        self.measured = measured
        self.pixels = nn.ModuleDict(
            {s.name: nn.Conv2d(2 * len(s.bands) + 1, width, 4, 2, 1) for s in surveys}
        )
        self.observation = nn.ModuleDict(
            {
                s.name: nn.Sequential(
                    nn.Linear(5 * len(s.bands), condition),
                    nn.SiLU(),
                    nn.Linear(condition, condition),
                )
                for s in surveys
            }
        )
        self.numbers = nn.ModuleDict(
            {
                s.name: nn.Sequential(
                    nn.Linear(numbers * len(s.bands), condition),
                    nn.SiLU(),
                    nn.Linear(condition, condition),
                )
                for s in surveys
            }
        )

    def forward(self, view):
        """Map a view to (B, width, 24, 24), and two times (B, condition)."""
        return (
            self.pixels[view.survey](view.images),
            self.observation[view.survey](view.observation),
            self.numbers[view.survey](self.measured(view)),
        )


class PhysicsEncoder(nn.Module):
    """
    One view of a galaxy to its physics latent.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys the encoder can read.
    size : int
        Length P of the latent.
    widths, depths : sequence of int
        Channels and residual blocks of each level, 24 px and downwards.
    condition : int
        Length of the conditioning vector.
    """

    def __init__(self, surveys, size, widths, depths, condition):
        super().__init__()
        self.stem = Stem(surveys, widths[0], condition, light, len(APERTURES))
        self.tower = Tower(widths, depths, condition, 24, 24, size)
        for survey in surveys:
            self.register_buffer(f"centre_{survey.name}", torch.zeros(size))

    def centre(self, survey):
        """What is subtracted from latents of a survey, (P,), 0 before `centring`."""
        return getattr(self, f"centre_{survey}")

    def forward(self, view):
        """Map a view to ``z_physics`` (B, P), zero mean and unit variance per row."""
        images, told, measured = self.stem(view)
        z = self.tower(images, told + measured).float()
        z = functional.layer_norm(z, z.shape[-1:]) - self.centre(view.survey)
        return functional.layer_norm(z, z.shape[-1:])


class InstrumentEncoder(nn.Module):
    """
    A set of cut-outs taken under the same conditions to the instrument latent.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        Surveys the encoder can read.
    size : int
        Length I of the latent.
    widths, depths : sequence of int
        Channels and residual blocks of each level, 24 px and downwards.
    condition : int
        Length of the conditioning vector.
    """

    def __init__(self, surveys, size, widths, depths, condition):
        super().__init__()
        self.stem = Stem(surveys, widths[0], condition, roughness, 1)
        self.tower = Tower(widths, depths, condition, 24, 8, condition)
        self.blind = nn.Parameter(torch.zeros(condition))
        self.merge = nn.Sequential(
            nn.Linear(2 * condition, 2 * condition),
            nn.SiLU(),
            nn.Linear(2 * condition, condition + 1),
        )
        self.output = nn.Sequential(
            nn.Linear(condition, 2 * condition),
            nn.SiLU(),
            nn.Linear(2 * condition, size),
        )
        self.reading = nn.ModuleDict(
            {s.name: nn.Linear(size, 2 * len(s.bands)) for s in surveys}
        )

    def members(self, view, seen=None):
        """
        Feature and weight of each member of a set.

        Parameters
        ----------
        view : `View`
            B cut-outs.
        seen : `torch.Tensor`, optional
            Shape (B,), bool: False where only the observation's numbers count
            and the pixels are not looked at. All True by default.

        Returns
        -------
        members : `torch.Tensor`
            Shape (B, condition + 1); the last number is the log weight.
        """
        images, told, measured = self.stem(view)
        h = self.tower(images, told + measured) + measured
        if seen is not None:
            h = torch.where(seen[:, None], h, self.blind.to(h.dtype))
        return self.merge(torch.cat([h, told], 1)).float()

    def described(self, survey, observation):
        """Members that are known by the numbers of their observation alone."""
        c = self.stem.observation[survey](observation)
        h = self.blind.to(c.dtype).expand(len(c), -1)
        return self.merge(torch.cat([h, c], 1)).float()

    def pool(self, members, chosen):
        """
        The latents of sets of members.

        Parameters
        ----------
        members : `torch.Tensor`
            Shape (B, condition + 1).
        chosen : `torch.Tensor`
            Shape (S, B), bool, the members of each of S sets, at least one each.

        Returns
        -------
        z_instrument : `torch.Tensor`
            Shape (S, I), zero mean and unit variance per row.
        """
        features, logits = members[:, :-1], members[:, -1]
        logits = logits.clamp(-8, 8).expand(len(chosen), -1)
        weight = logits.masked_fill(~chosen, -torch.inf).softmax(1)
        z = self.output(weight @ features).float()
        return functional.layer_norm(z, z.shape[-1:])
