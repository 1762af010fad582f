# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Residual latents for a network that is trained already.

Everything else is frozen, so that no latent changes by a bit, nor any view that is
painted without them; what `astro_disentangle.model.residual` adds is learned from what
the decoder gets wrong without it. As ever, the target is not encoded: the residual is
read from the galaxy in the other survey, or in the same one at another visit.
"""

import dataclasses
from dataclasses import dataclass

import torch

from astro_disentangle.keys import torch_generator
from astro_disentangle.model.network import new_network
from astro_disentangle.training.objective import Objective

__all__ = ["ResidualObjective", "residual_objective", "with_residual"]


@dataclass(frozen=True)
class ResidualObjective(Objective):
    """
    Flow and outline of views that are painted with residual latents.

    Parameters are those of `~astro_disentangle.training.objective.Objective`; other
    terms have no part in it.
    """

    def __call__(self, network, step, *, seed, rank=True):  # noqa: ARG002
        """
        Total loss and its terms for one step.

        Parameters
        ----------
        network : `~astro_disentangle.model.network.Network`
            The network.
        step : `~astro_disentangle.training.source.Step`
            Cut-outs of the same galaxies in two surveys, and at another visit.
        seed : int
            Key of the random numbers of this step.
        rank : bool
            Has no meaning here.

        Returns
        -------
        loss : `torch.Tensor`
            Scalar.
        terms : dict of str to `torch.Tensor`
            Unweighted terms, detached: ``flow``, ``outline``, and where there is
            another visit ``revisit``, the sum of both for it.
        """
        generator = torch_generator(seed, "residual", device=step.group.device)
        views = {name: network.view(batch) for name, batch in step.batches.items()}
        errors = {"other": [], "revisit": []}
        for name, other in zip(views, reversed(views), strict=True):
            sources = {"other": views[other]}
            if step.revisit is not None and step.revisit.survey.name == name:
                sources["revisit"] = network.view(step.revisit)
            with torch.no_grad():
                _, z_instrument = self._instrument(
                    network, views[name], step.group, generator
                )
            for kind, view in sources.items():
                batch, source = step.batches[name], self._withhold(view, generator)
                error = self._errors(network, batch, source, z_instrument, generator)
                errors[kind].append(torch.stack(error))
        every = torch.stack([*errors["other"], *errors["revisit"]])
        flow, outline = every.mean(0)
        loss = self.flow * flow + self.outline * outline
        terms = {"flow": flow.detach(), "outline": outline.detach()}
        if errors["revisit"]:
            terms["revisit"] = errors["revisit"][0].sum().detach()
        return loss, terms

    def _errors(self, network, batch, source, z_instrument, generator):
        """Errors of flow and outline of a target, from one source."""
        with torch.no_grad():
            z_physics = network.physics(source)
        return self._painting_errors(
            network,
            batch,
            z_physics,
            source,
            z_instrument,
            generator,
            residual=network.residual_of(source, z_physics, batch.survey.name),
        )


def with_residual(network, names, seed):
    """
    A copy of a network whose residual latents alone are to be trained.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The trained network. If it has residual latents of these surveys, they are where
        training begins.
    names : sequence of str
        Surveys with residual latents.
    seed : int
        Key of the initial weights of what is new.

    Returns
    -------
    network : `~astro_disentangle.model.network.Network`
        Only what belongs to the residual latents asks for a gradient.

    Examples
    --------
    >>> from astro_disentangle import Disentangler
    >>> from astro_disentangle.training.residual import with_residual
    >>> network = with_residual(Disentangler.load().network_, ("hsc", "legacy"), 0)
    >>> {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}
    {'residual'}
    """
    names = sorted({*names, *network.residual_surveys})
    surveys = tuple(network.surveys.values())
    more = new_network(surveys, network.config, seed, names)
    more.load_state_dict(network.state_dict(), strict=False)
    for name, parameter in more.named_parameters():
        parameter.requires_grad_(name.startswith("residual."))
    return more.to(next(network.parameters()).device)


def residual_objective(objective):
    """
    The objective of residual latents, with the weights and rates of another one.

    Parameters
    ----------
    objective : `~astro_disentangle.training.objective.Objective`
        That of the network.

    Returns
    -------
    objective : `ResidualObjective`
        The same numbers.
    """
    return ResidualObjective(**dataclasses.asdict(objective))
