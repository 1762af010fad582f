# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Galaxies that only one of the surveys observed.

Such a galaxy, :math:`x_s` in survey s, lacks the view of survey t from which it could
be painted. So that view is painted first,

.. math:: \hat x_t \sim p(x_t \mid z_\mathrm{physics}(x_s), z_\mathrm{instrument}) ,

by the network as it is, under the conditions of a galaxy that t did observe, and
nothing is learned from the painting itself. With it the galaxy is a pair like any
other, but that only what was observed is a target: the physics latent of
:math:`\hat x_t` must say what is needed to paint :math:`x_s`, and agree with that of
:math:`x_s` (latent cycle consistency, and back-translation as of languages,
arXiv:1511.06709). The target itself is still never encoded, and what the instrument
latent is learned from, other galaxies under the target's conditions, needs no second
survey.

Were the decoder exact, :math:`(x_s, \hat x_t)` would be distributed as real pairs are,
if :math:`z_\mathrm{physics}` leaves nothing out, and no term would have another
minimum. As it is not, pairs have to hold it in place, and the decoder has to
learn to paint from them before there is anything to learn from what it paints.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.keys import key
from astro_disentangle.model.flow import SOLVER
from astro_disentangle.quality import FLAGS, CutoutError, SurveyMismatchError
from astro_disentangle.training.source import PairsSource

__all__ = ["WithUnpaired", "completed", "read_unpaired"]

#: Steps in which a view is painted to learn from.
_STEPS = 2


@dataclass(frozen=True)
class WithUnpaired:
    """
    Steps of pairs, and with them galaxies that only one survey observed.

    Parameters
    ----------
    pairs : callable
        Step number to `~astro_disentangle.training.source.Step` of two surveys.
    others : sequence of `~astro_disentangle.training.source.PairsSource`
        Sources of one survey each, which take turns.
    begin : int
        Number of the first step that has any.
    n_shards : int
        Parts of a step, whose numbers follow one another.
    """

    pairs: object
    others: tuple
    begin: int = 0
    n_shards: int = 1

    @property
    def fingerprint(self):
        """A number that tells these steps from any others."""
        others = (other.fingerprint for other in self.others)
        numbers = (self.begin, self.n_shards)
        return key(self.pairs.fingerprint, "unpaired", *numbers, *others)

    def __call__(self, number):
        """The cut-outs of step ``number``."""
        step, turn = self.pairs(number), number // self.n_shards
        if turn < self.begin:
            return step
        other = self.others[turn % len(self.others)]
        return dataclasses.replace(step, alone=other(number))


@torch.no_grad()
def completed(network, step, generator):
    """
    The galaxies that one survey observed, with a painted view of the other one.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network, which paints.
    step : `~astro_disentangle.training.source.Step`
        Pairs of two surveys, and other galaxies ``alone`` in one of them.
    generator : `torch.Generator`
        For noise and conditions, on the device of the cut-outs.

    Returns
    -------
    step : `~astro_disentangle.training.source.Step`
        The galaxies alone, in the order of the pairs' surveys. The painted
        one has PSF, noise and bands of the galaxy of that survey whose conditions it
        was painted under.
    """
    ((seen, batch),) = step.alone.batches.items()
    (painted,) = set(step.batches) - {seen}
    under = step.batches[painted]
    rows = torch.randint(
        len(under), (len(batch),), generator=generator, device=generator.device
    )
    image = _painted(network, batch, under, rows, generator)
    batches = {name: batch if name == seen else image for name in step.batches}
    return dataclasses.replace(step.alone, batches=batches)


def _painted(network, batch, under, rows, generator):
    """Views of a batch as rows of another one would have been observed."""
    survey, device = under.survey, generator.device
    count, size = len(batch), survey.stamp_size
    offset = torch.rand(count, 2, generator=generator, device=device) - 0.5
    view, noise = network.view(batch), under.noise[rows]
    prepared = network.prepare(
        network.physics(view),
        _own_conditions(network, under)[rows],
        source=view.survey,
        observation=view.observation,
        target=survey.name,
        noise=noise,
        offset=offset,
    )
    shape = (count, 1, len(survey.bands), size, size)
    x_0 = torch.randn(shape, generator=generator, device=device)
    pixels = network.flow(prepared, x_0, n_steps=_STEPS, solver=SOLVER)[:, 0]
    good = under.present[rows][:, :, None, None].expand_as(pixels)
    scale = torch.eye(2, device=device) / survey.pixel_scale
    return CutoutBatch(
        survey=survey,
        pixels=pixels * good,
        good=good,
        noise=noise,
        psf_fwhm=under.psf_fwhm[rows],
        affine=torch.cat(
            [scale.expand(count, 2, 2), (offset + (size - 1) / 2)[:, :, None]], 2
        ),
        flags=torch.zeros_like(batch.flags),
        keys=batch.keys,
    )


def _own_conditions(network, batch):
    """Instrument latent of each row of a batch by itself, (B, I)."""
    members = network.instrument.members(network.view(batch))
    own = torch.eye(len(members), dtype=torch.bool, device=members.device)
    return network.instrument.pool(members, own)


def read_unpaired(unpaired, surveys, batch_size, *, seed, device="cpu"):
    """
    Sources of galaxies that only one survey observed.

    Parameters
    ----------
    unpaired : mapping of str to cut-outs
        As `~astro_disentangle.Disentangler.fit` takes them.
    surveys : dict of str to `~astro_disentangle.Survey`
        The network's surveys.
    batch_size : int
        Galaxies in a step.
    seed : int
        Key of their order.
    device : str
        Where the steps are wanted.

    Returns
    -------
    sources : tuple of `~astro_disentangle.training.source.PairsSource`
        One for each survey, of what can be used.

    Raises
    ------
    TypeError
        If ``unpaired`` is not a mapping, or empty.
    SurveyMismatchError
        If it names no survey of the network, or cut-outs are of another one.
    CutoutError
        If cut-outs cannot be read, or are not on the pixel grid of their survey, or
        fewer than two can be used.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle import Cutouts, get_survey
    >>> from astro_disentangle.training.unpaired import read_unpaired
    >>> flux = np.random.default_rng(0).normal(10, 1, size=(4, 5, 48, 48))
    >>> own = {"hsc": Cutouts.from_arrays(flux, "hsc", noise=np.ones(5))}
    >>> surveys = {"hsc": get_survey("hsc"), "legacy": get_survey("legacy")}
    >>> (source,) = read_unpaired(own, surveys, 2, seed=0)
    >>> len(source(0).batches["hsc"])
    2
    """
    if not isinstance(unpaired, Mapping) or not unpaired:
        got = "an empty one" if unpaired == {} else type(unpaired).__name__
        raise TypeError(
            "'unpaired' must be a mapping of survey to cut-outs, such as "
            f"{{'hsc': cutouts}}; got {got}."
        )
    if unknown := [name for name in unpaired if name not in surveys]:
        raise SurveyMismatchError(
            f"'unpaired' must be of {sorted(surveys)}; got {unknown[0]!r}."
        )
    sources = []
    for name, cutouts in unpaired.items():
        batch, group = _usable(cutouts, surveys[name])
        options = batch_size, key(seed, "unpaired", name), device
        sources.append(PairsSource({name: batch}, group, *options))
    return tuple(sources)


def _usable(cutouts, survey):
    """The cut-outs of a survey that can be learned from, and their groups."""
    # Training on what is simulated has no need of astropy.
    from astro_disentangle.data.groups import group_by_position
    from astro_disentangle.data.read import Cutouts, check_native, read_cutouts

    if not isinstance(cutouts, Cutouts):
        cutouts = read_cutouts(cutouts, survey=survey)
    batch = cutouts.batch
    if not batch.survey.has_images_of(survey):
        raise SurveyMismatchError(
            f"'unpaired' has cut-outs of {batch.survey.name} under the name of "
            f"{survey.name!r}."
        )
    check_native(cutouts)
    rows = ((batch.flags & FLAGS.UNUSABLE) == 0).nonzero()[:, 0]
    if len(rows) < 2:
        raise CutoutError(
            f"'unpaired' must have two cut-outs of {survey.name} that can be used; "
            f"got {len(rows)} of {len(batch)}."
        )
    group = torch.as_tensor(group_by_position(cutouts.sky[rows.numpy()]))
    return dataclasses.replace(batch[rows], survey=survey), group
