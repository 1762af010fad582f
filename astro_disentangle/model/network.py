# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The whole network: cut-outs in, latents and pixels out."""

import dataclasses
import functools
import math
import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from astro_disentangle.data.batch import COMMON_SCALE, COMMON_SIZE
from astro_disentangle.data.constants import constant
from astro_disentangle.data.resample import resample
from astro_disentangle.model.decoder import Decoder
from astro_disentangle.model.encoder import (
    InstrumentEncoder,
    PhysicsEncoder,
    View,
    filled,
)
from astro_disentangle.model.flow import SOLVER, follow, integrate
from astro_disentangle.model.photometry import Photometry
from astro_disentangle.model.residual import Residual
from astro_disentangle.model.stretch import arcsinh

__all__ = ["Network", "NetworkConfig", "new_network"]

#: Softening of the arcsinh stretch in units of the survey's typical noise.
SOFTENING = 2.0
#: Initial weights come from torch's global generator, one network at a time.
_SEEDING = threading.Lock()
#: Factors that make the logarithms of FWHM and noise vary by about one.
_GAINS = (5.0, 2.5)


@dataclass(frozen=True)
class NetworkConfig:
    """
    Sizes of the network.

    Parameters
    ----------
    physics_size, instrument_size : int
        Lengths of the latents.
    physics_widths, physics_depths : tuple of int
        Channels and blocks of the physics encoder at 24, 12, 6 px.
    instrument_widths, instrument_depths : tuple of int
        The same for the instrument encoder.
    decoder_width, decoder_depth : int
        Channels and blocks of the decoder.
    condition : int
        Length of the conditioning vectors of the encoders; the decoder's is
        twice as long.
    outlined : bool
        Whether the decoder outlines the image before the flow.
    residual_size, residual_width, residual_depth : int
        Channels of the residual latents, where there are any; channels and blocks of
        their encoder, and of what reads them.
    """

    physics_size: int = 128
    instrument_size: int = 24
    physics_widths: tuple = (32, 64, 160)
    physics_depths: tuple = (1, 2, 2)
    instrument_widths: tuple = (16, 48, 96)
    instrument_depths: tuple = (1, 1, 1)
    decoder_width: int = 112
    decoder_depth: int = 1
    condition: int = 96
    outlined: bool = True
    residual_size: int = 6
    residual_width: int = 40
    residual_depth: int = 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))


class Network(nn.Module):
    """
    Two encoders and a decoder for a set of surveys.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        The surveys; their order has no meaning.
    config : `NetworkConfig`
        Sizes.
    residual : sequence of str
        Names of the surveys with residual latents.

    Notes
    -----
    Initial weights come from the global generator of torch; `new_network` leaves its
    state alone.
    """

    def __init__(self, surveys, config, residual=()):
        super().__init__()
        self.surveys = {survey.name: survey for survey in surveys}
        self.config = config
        surveys = list(self.surveys.values())
        self.physics = PhysicsEncoder(
            surveys,
            config.physics_size,
            config.physics_widths,
            config.physics_depths,
            config.condition,
        )
        self.instrument = InstrumentEncoder(
            surveys,
            config.instrument_size,
            config.instrument_widths,
            config.instrument_depths,
            config.condition,
        )
        self.decoder = Decoder(
            surveys,
            config.physics_size,
            config.instrument_size,
            config.decoder_width,
            config.decoder_depth,
            2 * config.condition,
            outlined=config.outlined,
        )
        sizes = config.physics_size, config.instrument_size
        self.photometry = nn.ModuleDict(
            {s.name: Photometry(*sizes, len(s.bands)) for s in surveys}
        )
        self.residual = None
        if residual:
            self.residual = Residual(
                [self.surveys[name] for name in residual],
                config.residual_size,
                config.residual_width,
                config.residual_depth,
                config.condition,
                config.decoder_width,
                2 * config.condition,
            )
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        weights = weights / weights.sum()
        self.register_buffer("nodes", torch.tensor(nodes).float(), persistent=False)
        self.register_buffer("weights", torch.tensor(weights).float(), persistent=False)
        self.to(memory_format=torch.channels_last)

    @property
    def residual_surveys(self):
        """Names of the surveys with residual latents."""
        return () if self.residual is None else tuple(self.residual.stem.pixels)

    def residual_of(self, view, z_physics, target):
        """
        The residual latents of a view, where they help to paint a survey.

        Parameters
        ----------
        view : `~astro_disentangle.model.encoder.View`
            B cut-outs.
        z_physics : `torch.Tensor`
            Shape (B, P), their physics latents.
        target : str
            Name of the survey to paint.

        Returns
        -------
        z_residual : `torch.Tensor` or None
            Shape (B, R, 24, 24); None unless both surveys have residual latents.
        """
        if not {view.survey, target} <= set(self.residual_surveys):
            return None
        return self.residual(view, self.surplus(view, z_physics))

    @torch.no_grad()
    def surplus(self, view, z_physics):
        """
        What cut-outs show beyond what their own latents paint of them.

        Parameters
        ----------
        view : `~astro_disentangle.model.encoder.View`
            B cut-outs of C bands.
        z_physics : `torch.Tensor`
            Shape (B, P), their physics latents.

        Returns
        -------
        surplus : `torch.Tensor`
            Shape (B, C, 48, 48), as `astro_disentangle.model.residual` has it; 0 where
            not good.
        """
        members = self.instrument.members(view)
        own = torch.eye(len(members), dtype=torch.bool, device=members.device)
        outline = self.prepare(
            z_physics,
            self.instrument.pool(members, own),
            source=view.survey,
            observation=view.observation,
            target=view.survey,
            offset=z_physics.new_zeros(len(members), 2),
        ).outline
        mean = _on_common_grid(outline.mean, self.surveys[view.survey].pixel_scale)
        seen = (view.x.float().sinh() - mean) / (1 + mean.square()).sqrt()
        return view.good * arcsinh(seen)

    def softening(self, survey, scale=None):
        """Softening of the stretch per band, (C, 1, 1), nJy per pixel of ``scale``."""
        survey = self.surveys[survey]
        area = 1.0 if scale is None else (scale / survey.pixel_scale) ** 2
        noise = constant(survey.pixel_noise(), next(self.parameters()).device)
        return (SOFTENING * area * noise)[:, None, None]

    def stretch(self, pixels, survey):
        """Native pixels (B, C, N, N) in nJy to stretched pixels."""
        return arcsinh(pixels / self.softening(survey))

    def unstretch(self, x, survey):
        """Stretched pixels (B, C, N, N) to native pixels in nJy."""
        return torch.sinh(x) * self.softening(survey)

    def view(self, batch):
        """
        A batch of cut-outs as the encoders see it.

        Parameters
        ----------
        batch : `~astro_disentangle.data.batch.CutoutBatch`
            B cut-outs of one of the network's surveys.

        Returns
        -------
        view : `~astro_disentangle.model.encoder.View`
            On the common grid.
        """
        name = batch.survey.name
        pixels, good = batch.view()
        x = arcsinh(pixels / self.softening(name, COMMON_SCALE))
        good = good.to(x.dtype)
        return View(name, filled(x, good), good, self.observation(batch))

    def observation(self, batch):
        """What is known of the observation, (B, 5 C), as in `View`."""
        return self._numbers(batch.survey, batch.present, batch.psf_fwhm, batch.noise)

    def _numbers(self, survey, present, psf_fwhm, noise):
        """Presence, and the known of FWHM and noise on the scale of `View`."""
        parts = [present.float()]
        typical = (survey.psf_fwhm, survey.pixel_noise())
        for value, usual, gain in zip((psf_fwhm, noise), typical, _GAINS, strict=True):
            known = present & value.isfinite() & (value > 0)
            ratio = value / constant(tuple(usual), value.device)
            ratio = torch.where(known, ratio, torch.ones_like(value))
            parts += [known.float(), gain * ratio.log2().clamp(-2, 2)]
        return torch.cat(parts, 1)

    def describe(self, survey, psf_fwhm, noise):
        """
        Instrument latents of conditions that are given as numbers.

        Parameters
        ----------
        survey : str
            Name of the survey.
        psf_fwhm, noise : `torch.Tensor`
            Shape (B, C), arcsec and nJy per native pixel; NaN where not given.

        Returns
        -------
        z_instrument : `torch.Tensor`
            Shape (B, I).
        """
        every = torch.ones_like(psf_fwhm, dtype=torch.bool)
        observation = self._numbers(self.surveys[survey], every, psf_fwhm, noise)
        members = self.instrument.described(survey, observation)
        own = torch.eye(len(members), dtype=torch.bool, device=members.device)
        return self.instrument.pool(members, own)

    def sky_variance(self, z_instrument, survey, noise=None):
        """
        Variance of the sky noise that an instrument latent tells.

        In units of the softening squared. Without an outline the flow is one of
        stretched pixels; noise of ``r`` times the survey's typical standard deviation
        then has the variance ``E[asinh(r n / SOFTENING)**2]`` with ``n`` normal, here
        by Gauss-Hermite quadrature.

        Parameters
        ----------
        z_instrument : `torch.Tensor`
            Shape (B, I).
        survey : str
            Name of the survey.
        noise : `torch.Tensor`, optional
            Shape (B, C), nJy per native pixel, where it is known as a number, which
            goes before the latent; NaN where not.

        Returns
        -------
        variance : `torch.Tensor`
            Shape (B, C), float32.
        """
        told = self.instrument.reading[survey](z_instrument).float().chunk(2, 1)[1]
        ratio = (told / _GAINS[1]).clamp(-2, 2).exp2()
        if noise is not None:
            known = noise / constant(self.surveys[survey].pixel_noise(), noise.device)
            ratio = torch.where(known > 0, known.clamp(0.25, 4), ratio)
        if self.config.outlined:
            return (ratio / SOFTENING).square()
        stretched = torch.asinh(ratio[:, :, None] * self.nodes / SOFTENING)
        return (stretched.square() * self.weights).sum(2)

    def prepare(
        self,
        z_physics,
        z_instrument,
        *,
        target,
        offset,
        noise=None,
        residual=None,
        **known,
    ):
        """
        `Decoder.prepare` with the sky of the instrument latent.

        Parameters
        ----------
        z_physics, z_instrument : `torch.Tensor`
            Shapes (B, P) and (B, I).
        target : str
            Survey to paint.
        offset : `torch.Tensor`
            Shape (B, 2), as in `Decoder.prepare`.
        noise : `torch.Tensor`, optional
            As in `sky_variance`.
        residual : `torch.Tensor`, optional
            From `residual_of`.
        **known
            ``source`` and ``observation`` of `Decoder.prepare`.

        Returns
        -------
        prepared : `~astro_disentangle.model.decoder.Prepared`
            For the decoder.
        """
        detail = None
        if residual is not None:
            detail = functools.partial(
                self.residual.additions,
                residual,
                survey=self.surveys[target],
                offset=offset,
            )
        return self.decoder.prepare(
            z_physics,
            z_instrument,
            target=target,
            offset=offset,
            sky=self.sky_variance(z_instrument, target, noise),
            detail=detail,
            **known,
        )

    def translate(self, z_physics, z_instrument, x_0, *, prepare, n_steps, solver=None):
        """
        `prepare` and `flow` in one.

        Parameters
        ----------
        z_physics, z_instrument : `torch.Tensor`
            Shapes (B, P) and (B, I).
        x_0 : `torch.Tensor`
            Shape (B, S, C, N, N), noise of S samples each.
        prepare : dict
            Further arguments of `prepare`.
        n_steps : int
            Steps of the solver.
        solver : str, optional
            As `~astro_disentangle.model.flow.integrate` has it; by default the rule
            that was learned for this number of steps, or Adams' where there is none.

        Returns
        -------
        pixels : `torch.Tensor`
            Shape (B, S, C, N, N), nJy.
        """
        prepared = self.prepare(z_physics, z_instrument, **prepare)
        return self.flow(prepared, x_0, n_steps=n_steps, solver=solver)

    def flow(self, prepared, x_0, *, n_steps, solver=None):
        """
        Samples of the target survey's image.

        Parameters
        ----------
        prepared : `~astro_disentangle.model.decoder.Prepared`
            B rows, from `prepare`.
        x_0 : `torch.Tensor`
            Shape (B, S, C, N, N), noise of S samples each.
        n_steps : int
            Steps of the solver.
        solver : str, optional
            As `~astro_disentangle.model.flow.integrate` has it; by default the rule
            that was learned for this number of steps, or Adams' where there is none.

        Returns
        -------
        pixels : `torch.Tensor`
            Shape (B, S, C, N, N), nJy.
        """
        samples = x_0.shape[1]
        prepared = prepared.repeat(samples)
        rule = self.decoder.rule(prepared.target)
        x_0 = x_0.flatten(0, 1)

        def velocity(y, t):
            return self.decoder(y, t, prepared)

        if solver is None and rule is not None and len(rule) == n_steps:
            residual = follow(velocity, x_0, rule)
        else:
            options = {"n_steps": n_steps, "solver": solver or SOLVER}
            residual = integrate(velocity, x_0, prepared.outline.pace, **options)
        x = prepared.outline.pixels(residual)
        # Stretched pixels beyond this are no image: keep sinh finite.
        x = x.clamp(-math.log(1e6), math.log(1e8))
        pixels = self.unstretch(x, prepared.target)
        # No pixel of the survey is brighter, and no pixel of training was.
        level = self.surveys[prepared.target].saturation_level()
        level = constant(tuple(level), pixels.device)[:, None, None]
        return torch.minimum(pixels, level).unflatten(0, (-1, samples))


def _on_common_grid(images, scale):
    """Surface brightness of images (B, C, N, N) about the galaxy, (B, C, 48, 48)."""
    count, _, size, _ = images.shape
    if (size, scale) == (COMMON_SIZE, COMMON_SCALE):
        return images
    matrix = torch.eye(2, device=images.device) / scale
    middle = matrix.new_full((2, 1), (size - 1) / 2)
    affine = torch.cat([matrix, middle], 1).expand(count, 2, 3)
    good = torch.ones_like(images, dtype=torch.bool)
    images, _ = resample(images, good, affine, size=COMMON_SIZE, scale=COMMON_SCALE)
    return images * (scale / COMMON_SCALE) ** 2


def new_network(surveys, config, seed, residual=()):
    """
    A network with initial weights; the global generator is left as it was.

    Parameters
    ----------
    surveys : sequence of `~astro_disentangle.Survey`
        The surveys.
    config : `~astro_disentangle.model.network.NetworkConfig`
        Sizes.
    seed : int
        Key of the initial weights.
    residual : sequence of str
        Names of the surveys with residual latents.

    Returns
    -------
    network : `~astro_disentangle.model.network.Network`
        In float32.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.model.network import NetworkConfig, new_network
    >>> surveys = get_survey("hsc"), get_survey("legacy")
    >>> a, b = (new_network(surveys, NetworkConfig(), 5) for _ in range(2))
    >>> bool((a.decoder.outline["hsc"].bias == b.decoder.outline["hsc"].bias).all())
    True
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(surveys, config, residual).float()
