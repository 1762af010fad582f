# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""What training minimises, term by term.

**Flow** (both recipes). The target is galaxy A in survey S. ``z_physics`` comes
from A in the other survey, or from S at another visit, never from the target;
``z_instrument`` from other galaxies under the target's conditions, or from the
numbers of those conditions. The decoder's velocity is regressed on that of the path
from noise to the target, over the good pixels.

**Outline** (default recipe). Negative logarithm of the density of the target's
pixels that the decoder outlines, normal about a mean flux. Where a pixel
is known to one part in a hundred this term sees an error of one part in a hundred;
in the flow of stretched pixels that error would drown in the noise of the sky. It is
what makes colours, fluxes and the PSF count.

**Agreement** (default recipe). Mean square difference of the physics latents of
the two views of a galaxy, and of the instrument latent of a galaxy's own cut-out
and that of its donors. All latents are layer-normalised, so the terms cannot be
met by shrinking them; they are divided by the variance between the rows of the
batch, or all rows would agree long before the decoder has learned to tell them
apart.

**Reading** (default recipe). Mean square error with which a linear layer reads
FWHM and noise of the target's bands, where its metadata give them, from either
instrument latent. The encoders are often not shown these numbers and must find
them in the pixels; the flow alone asks for the seeing only late in training.

**Photometry** (default recipe). Negative logarithm of the density of what can be
measured on the target, fluxes and second moments in every band, as linear layers read
them from the physics latent of its source and the instrument latent
(`astro_disentangle.model.photometry`). It asks for no more than the flow does, but
directly, of a linear layer, and for colours as precisely as they can be known.

**Contrast** (default recipe). Normalised temperature-scaled cross entropy
(arXiv:2002.05709) of the two views of a galaxy among all views of the batch.
Views of other galaxies in the *same* survey are among the negatives: a latent
that tells the survey pays for it. Where a step has a view of the galaxies with other
neighbours, that is the second view: what stands around a galaxy must not be what it is
known by.

**Unpaired**. The same terms for galaxies that only one survey observed, with a painted
view in place of the one there is not (`astro_disentangle.training.unpaired`). Its
latent is drawn to that of the real view, not the two to each other, and with a smaller
weight than where both were observed; and in the default recipe nothing is painted from
it: a decoder that is taught by its own paintings learns what is wrong with them. The
instrument encoder learns from such galaxies as it does from pairs.

``recipe="counterfactual"`` keeps the flow term alone, as published
(arXiv:2604.09787).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from astro_disentangle.keys import torch_generator
from astro_disentangle.model.encoder import View, filled
from astro_disentangle.model.flow import angle, interpolate
from astro_disentangle.model.photometry import measure
from astro_disentangle.training.unpaired import completed

#: Terms that a painted view shares in: of what it is encoded to, and painted from.
_CYCLE = ("agree_physics", "photometry", "contrast")
_PAINTING = ("flow", "outline")
#: Variance of latents below which their disagreement is no longer scaled up.
_LEAST_SPREAD = 1e-4

__all__ = ["RECIPES", "Objective", "contrast", "effective_rank"]


@dataclass(frozen=True)
class Objective:
    """
    Weights of the terms and rates of what is withheld.

    Parameters
    ----------
    flow, outline, agree_physics, agree_instrument, reading, photometry, contrast, \
unpaired : float
        Weights of the terms.
    cycle, repainting : float
        Weights within the unpaired term, of what it teaches the physics encoder
        (agreement, photometry and contrast), and of flow and outline: of painting what
        was observed from a painted view of it.
    temperature : float
        Temperature of the contrast.
    drop_bands : float
        Share of views that lose a random part of their bands.
    drop_psf, drop_noise : float
        Share of views whose PSF or noise is withheld.
    described : float
        Share of targets whose conditions are given as numbers, not as donors.
    told : float
        Share of targets whose noise is given to the outline as a number, as most
        translations have it; for the others the instrument latent tells it.
    early : float
        Times are uniform numbers to this power; 1 for uniform times.
    scaled : bool
        Measure the flow's error in units of the spread of the path at its time. If
        not, it is that of the velocity of stretched pixels, ``x_1 - x_0``.
    centre : float
        Extra weight of the pixels at the galaxy over those of the sky around it,
        falling as a Gaussian of 1.5 arcsec. No weight moves the minimum of the
        flow term, which is that of every pixel on its own.
    centred : bool
        Whether the physics latents of the surveys are given one mean at the end
        (`astro_disentangle.model.centring`).
    """

    flow: float = 1.0
    outline: float = 1.0
    agree_physics: float = 0.1
    agree_instrument: float = 0.3
    reading: float = 0.3
    photometry: float = 0.5
    contrast: float = 0.1
    unpaired: float = 1.0
    cycle: float = 0.3
    repainting: float = 0.0
    temperature: float = 0.1
    drop_bands: float = 0.3
    drop_psf: float = 0.3
    drop_noise: float = 0.15
    described: float = 0.2
    told: float = 0.5
    early: float = 1.0
    scaled: bool = True
    centre: float = 8.0
    centred: bool = True

    def __call__(self, network, step, *, seed, rank=True):
        """
        Total loss and its terms for one step.

        Parameters
        ----------
        network : `~astro_disentangle.model.network.Network`
            The network.
        step : `~astro_disentangle.training.source.Step`
            Cut-outs of the same galaxies in two surveys.
        seed : int
            Key of the random numbers of this step; they are drawn on the device of
            the cut-outs.
        rank : bool
            Add the rank of the physics latents, which a GPU is slow to tell.

        Returns
        -------
        loss : `torch.Tensor`
            Scalar.
        terms : dict of str to `torch.Tensor`
            Unweighted terms, detached.
        """
        generator = torch_generator(seed, "objective", device=step.group.device)
        terms, latents = self._terms(network, step, list(step.batches), generator)
        if step.alone is not None and self.unpaired:
            whole = completed(network, step, generator)
            (seen,) = step.alone.batches
            alone, _ = self._terms(network, whole, [seen], generator, seen)
            shares = dict.fromkeys(_CYCLE, self.cycle)
            shares |= dict.fromkeys(_PAINTING, self.repainting)
            terms["unpaired"] = self._total(alone, shares)
        loss = self._total(terms)
        if rank:
            terms["rank"] = effective_rank(latents.detach())
        return loss, {name: term.detach() for name, term in terms.items()}

    def _total(self, terms, shares=None):
        """The sum of terms by their weights, of some of them a share."""
        weights = {name: getattr(self, name) for name in terms}
        for name, share in (shares or {}).items():
            weights[name] = weights.get(name, 0) * share
        weighted = (weights[name] * terms[name] for name in terms if weights[name])
        return sum(weighted, start=next(iter(terms.values())).new_zeros(()))

    def _terms(self, network, step, targets, generator, seen=None):
        """
        Terms of a step with some of its surveys for targets; physics latents.

        Where one survey alone has ``seen`` the galaxies, the others' views are painted.
        """
        names = list(step.batches)
        views = {name: network.view(batch) for name, batch in step.batches.items()}
        again, elsewhere = (
            None if batch is None else network.view(batch)
            for batch in (step.revisit, step.elsewhere)
        )
        physics_views = {name: self._withhold(views[name], generator) for name in names}
        z_physics = {name: network.physics(physics_views[name]) for name in names}
        if again is not None:
            again = self._withhold(again, generator)
            z_again = network.physics(again)

        flow, outline, agree_instrument, reading, photometry = [], [], [], [], []
        for name in targets:
            other = names[1 - names.index(name)]
            if again is not None and again.survey == name:
                z_source, source = z_again, again
            else:
                z_source, source = z_physics[other], physics_views[other]
            z_own, z_donors = self._instrument(
                network, views[name], step.group, generator
            )
            reading.append(_reading_error(network, views[name], z_own, z_donors))
            agree_instrument.append(_disagreement(z_own, z_donors))
            photometry.append(
                _photometry_surprise(network, step.batches[name], z_source, z_donors)
            )
            if seen is None or self.repainting:
                painted = self._painting_errors(
                    network, step.batches[name], z_source, source, z_donors, generator
                )
                flow.append(painted[0])
                outline.append(painted[1])
        z_a, z_b = (z.detach() if name == seen else z for name, z in z_physics.items())
        met = z_a, z_b
        if elsewhere is not None:
            elsewhere = self._withhold(elsewhere, generator)
            there = names.index(elsewhere.survey)
            met = z_physics[names[1 - there]], network.physics(elsewhere)
        terms = {
            "flow": _mean(flow),
            "outline": _mean(outline),
            "agree_physics": _disagreement(z_a, z_b),
            "agree_instrument": torch.stack(agree_instrument).mean(),
            "reading": torch.stack(reading).mean(),
            "photometry": torch.stack(photometry).mean(),
            "contrast": contrast(*met, self.temperature),
        }
        terms = {name: term for name, term in terms.items() if term is not None}
        return terms, torch.cat([z_a, z_b])

    def _withhold(self, view, generator, psf=None, noise=None):
        """The view with bands, PSF or noise taken away at random."""
        rows, bands = view.x.shape[:2]
        chance = _uniform(generator, rows, bands + 4)
        share = chance[:, bands]
        keep = chance[:, :bands] < 0.25 + 0.75 * chance[:, bands + 1 : bands + 2]
        present = view.observation[:, :bands] > 0
        rank = chance[:, :bands].masked_fill(~present, 2.0)
        keep = keep.scatter(1, rank.argmin(1, keepdim=True), value=True)
        keep = (keep | (share >= self.drop_bands)[:, None]).to(view.x.dtype)
        known_psf = chance[:, bands + 2] >= (self.drop_psf if psf is None else psf)
        known_noise = chance[:, bands + 3] >= (
            self.drop_noise if noise is None else noise
        )
        numbers = torch.cat(
            [
                keep,
                keep * known_psf[:, None],
                keep * known_psf[:, None],
                keep * known_noise[:, None],
                keep * known_noise[:, None],
            ],
            1,
        )
        good = view.good * keep[:, :, None, None]
        return View(view.survey, filled(view.x, good), good, view.observation * numbers)

    def _instrument(self, network, view, group, generator):
        """Instrument latents of each row's own cut-out and of its donors."""
        rows = len(view.x)
        shown = self._withhold(view, generator, psf=0.5, noise=0.5)
        members = network.instrument.members(shown)
        told = network.instrument.described(view.survey, view.observation)
        own = torch.eye(rows, dtype=torch.bool, device=group.device)
        mates = (group[:, None] == group[None, :]) & ~own
        # A row whose group has no other member borrows from the whole survey.
        mates |= ~mates.any(1, keepdim=True) & ~own
        chance = _uniform(generator, rows, rows)
        share = _uniform(generator, rows, 1)
        best = chance.masked_fill(~mates, 2.0).argmin(1, keepdim=True)
        chosen = (mates & (chance < share)).scatter(1, best, value=True)
        numbers = _uniform(generator, rows) < self.described
        some_known = view.observation.reshape(rows, 5, -1)[:, (1, 3)].amax((1, 2)) > 0
        numbers &= some_known
        chosen = torch.cat([chosen & ~numbers[:, None], own & numbers[:, None]], 1)
        z_own = network.instrument.pool(members, own)
        z_donors = network.instrument.pool(torch.cat([members, told]), chosen)
        return z_own, z_donors

    def _painting_errors(
        self, network, batch, z, source, z_instrument, generator, residual=None
    ):
        """Errors of the flow and of its outline over the target's good pixels."""
        pixels, good, offset = batch.stamp()
        told = _uniform(generator, len(pixels), 1) < self.told
        prepared = network.prepare(
            z,
            z_instrument,
            noise=batch.noise.masked_fill(~told, torch.nan),
            source=source.survey,
            observation=source.observation,
            target=batch.survey.name,
            offset=offset,
            residual=residual,
        )
        x_1 = network.stretch(pixels, batch.survey.name)
        outline = prepared.outline
        residual = outline.detach().residual(x_1)
        surprise = outline.surprise(x_1)
        x_0 = torch.randn(x_1.shape, generator=generator, device=x_1.device)
        # One time in each of as many intervals, in random order.
        rows = len(x_1)
        order = torch.randperm(rows, generator=generator, device=x_1.device)
        t = ((order + _uniform(generator, rows)) / rows).pow(self.early)
        along, pace = t[:, None, None, None], outline.pace.detach()
        y, velocity = interpolate(x_0, residual, angle(along, pace))
        flow = (network.decoder(y, t, prepared) - velocity).square()
        if not self.scaled:
            flow = flow * pace / ((1 - along) ** 2 + along**2 * pace)
        weight = good * (1 + self.centre * _nearness(batch.survey, offset)[:, None])
        total = weight.sum().clamp(min=1)
        return (flow * weight).sum() / total, (surprise * weight).sum() / total


#: The recipes by name.
RECIPES = {
    "default": Objective(),
    "counterfactual": Objective(
        outline=0,
        agree_physics=0,
        agree_instrument=0,
        reading=0,
        photometry=0,
        contrast=0,
        repainting=1,
        told=0,
        scaled=False,
        centre=0,
        centred=False,
    ),
}


def _mean(terms):
    """The mean of some terms; none if there are none."""
    return torch.stack(terms).mean() if terms else None


def _uniform(generator, *shape):
    """Numbers from 0 to 1 on the device of their generator."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _nearness(survey, offset):
    """Gaussian of 1.5 arcsec about the galaxy, (B, N, N)."""
    size = survey.stamp_size
    axis = torch.arange(size, device=offset.device) - (size - 1) / 2
    x, y = (axis - offset[:, part, None] for part in (0, 1))
    scale = survey.pixel_scale / 1.5
    x, y = ((-0.5 * (part * scale).square()).exp() for part in (x, y))
    return y[:, :, None] * x[:, None, :]


def _disagreement(z_a, z_b):
    """Mean square difference over the variance between rows."""
    spread = torch.cat([z_a, z_b]).var(0).mean()
    return (z_a - z_b).square().mean() / (spread + _LEAST_SPREAD)


def _reading_error(network, view, *latents):
    """Error of the conditions of each row as read from instrument latents."""
    _, psf_known, psf, noise_known, noise = view.observation.chunk(5, 1)
    known = torch.cat([psf_known, noise_known], 1)
    truth = torch.cat([psf, noise], 1)
    layer = network.instrument.reading[view.survey]
    errors = [((layer(z).float() - truth).square() * known).sum() for z in latents]
    return sum(errors) / (len(errors) * known.sum().clamp(min=1))


def _photometry_surprise(network, batch, z_physics, z_instrument):
    """Surprise at what is measured on a target, a band and kind of measurement."""
    with torch.autocast(batch.pixels.device.type, enabled=False):
        values, known = measure(batch)
        reading = network.photometry[batch.survey.name]
        surprise = reading.surprise(z_physics, z_instrument, values, known)
    return surprise.sum() / known.sum().clamp(min=1)


def contrast(z_a, z_b, temperature):
    """
    Normalised temperature-scaled cross entropy of paired latents.

    Parameters
    ----------
    z_a, z_b : `torch.Tensor`
        Shape (B, P), latents of the same B galaxies in two surveys.
    temperature : float
        Scale of the cosine similarity.

    Returns
    -------
    loss : `torch.Tensor`
        Scalar, nats.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.training.objective import contrast
    >>> z = torch.eye(4)
    >>> contrast(z, z, 0.1).item() < contrast(z, z.roll(1, 0), 0.1).item()
    True
    """
    z = functional.normalize(torch.cat([z_a, z_b]).float(), dim=1)
    rows = len(z_a)
    similarity = z @ z.T / temperature
    own = torch.eye(2 * rows, dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(own, -torch.inf)
    partner = torch.arange(2 * rows, device=z.device).roll(rows)
    return functional.cross_entropy(similarity, partner)


def effective_rank(z):
    """
    Exponential of the entropy of the spectrum of the latents' covariance.

    Parameters
    ----------
    z : `torch.Tensor`
        Shape (B, P).

    Returns
    -------
    rank : `torch.Tensor`
        Scalar between 1 and min(B, P) (Roy & Vetterli 2007); NaN where a
        latent is not finite.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.training.objective import effective_rank
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(effective_rank(z).item(), 3)
    2.0
    """
    z = z.float() - z.float().mean(0)
    if not bool(z.isfinite().all()):
        return z.new_tensor(torch.nan)
    spectrum = torch.linalg.svdvals(z).square()
    share = spectrum / spectrum.sum().clamp(min=1e-20)
    return torch.exp(-(share * share.clamp(min=1e-20).log()).sum())
