# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Where the steps of training come from: the simulator, or a user's pairs.

A source is a function of the step number alone, so that training can be
stopped and resumed anywhere.
"""

from dataclasses import dataclass

import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.keys import key, torch_generator

__all__ = ["PairsSource", "SimulatedSource", "Step"]


@dataclass(frozen=True)
class Step:
    """
    The cut-outs of one training step.

    Parameters
    ----------
    batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        The same B galaxies in two surveys.
    group : `torch.Tensor`
        Shape (B,), int64; galaxies of one group share their conditions.
    revisit : `~astro_disentangle.data.batch.CutoutBatch`, optional
        The same galaxies in one of the surveys under other conditions.
    elsewhere : `~astro_disentangle.data.batch.CutoutBatch`, optional
        The same galaxies in one of the surveys with other neighbours around them.
    """

    batches: dict
    group: torch.Tensor
    revisit: CutoutBatch | None = None
    elsewhere: CutoutBatch | None = None

    def to(self, device):
        """The same step on another device, sent there while others work."""
        group = self.group.to(device, non_blocking=True)
        return self._map(lambda batch: batch.to(device, non_blocking=True), group)

    def pin_memory(self):
        """The same step where a GPU can fetch it while others work."""
        return self._map(CutoutBatch.pin_memory, self.group.pin_memory())

    def turned(self, quarter_turns, flip):
        """The same step with the sky turned and mirrored."""
        return self._map(lambda batch: batch.turned(quarter_turns, flip), self.group)

    def _map(self, function, group):
        others = (self.revisit, self.elsewhere)
        return Step(
            {name: function(batch) for name, batch in self.batches.items()},
            group,
            *(None if batch is None else function(batch) for batch in others),
        )


@dataclass(frozen=True)
class SimulatedSource:
    """
    New simulated pairs at every step.

    Parameters
    ----------
    surveys : tuple of `~astro_disentangle.Survey`
        Two surveys.
    n_groups, group_size : int
        Groups that share conditions, and galaxies of each.
    seed : int
        Key of the galaxies.
    revisit_every : int
        Every so many steps one survey sees the galaxies a second time under
        other conditions; 0 for never.
    elsewhere : bool
        One survey, in turn, sees the galaxies with other neighbours too.
    device : str
        Where the images are made.
    """

    surveys: tuple
    n_groups: int = 8
    group_size: int = 8
    seed: int = 0
    revisit_every: int = 5
    elsewhere: bool = True
    device: str = "cpu"

    @property
    def fingerprint(self):
        """A number that tells these galaxies from any others."""
        surveys = (survey.to_json() for survey in self.surveys)
        numbers = (self.n_groups, self.group_size, self.revisit_every, self.elsewhere)
        return key(self.seed, "simulated", *numbers, *surveys)

    def __call__(self, step):
        """The cut-outs of step number ``step``."""
        from astro_disentangle.simulation import simulate

        def render(surveys, visit=0, neighbours=0):
            return simulate(
                self.n_groups,
                self.group_size,
                surveys,
                seed=self.seed,
                step=step,
                visit=visit,
                neighbours=neighbours,
                device=self.device,
            )

        pairs = render(self.surveys)
        revisit = elsewhere = None
        if self.revisit_every and step % self.revisit_every == 0:
            again = self.surveys[step // self.revisit_every % 2]
            revisit = render((again,), visit=1).batches[again.name]
        if self.elsewhere:
            there = self.surveys[step % 2]
            elsewhere = render((there,), neighbours=1).batches[there.name]
        return Step(dict(pairs.batches), pairs.group, revisit, elsewhere)


@dataclass(frozen=True)
class PairsSource:
    """
    Random groups of a fixed set of pairs, turned and mirrored at random.

    Parameters
    ----------
    batches : dict of str to `~astro_disentangle.data.batch.CutoutBatch`
        The same N galaxies in two surveys.
    group : `torch.Tensor`
        Shape (N,), int64.
    batch_size : int
        Galaxies in a step.
    seed : int
        Key of the choice.
    device : str
        Where the steps are wanted.
    """

    batches: dict
    group: torch.Tensor
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"

    @property
    def fingerprint(self):
        """A number that tells these pairs, in these steps, from any others."""
        keys = [k for b in self.batches.values() for k in b.keys.tolist()]
        return key(self.seed, "pairs", self.batch_size, *self.group.tolist(), *keys)

    def __call__(self, step):
        """The cut-outs of step number ``step``."""
        rows = self._rows(step)
        choice = key(self.seed, "turn", step)
        turned = {
            name: batch[rows].turned(choice % 4, bool(choice // 4 % 2)).to(self.device)
            for name, batch in self.batches.items()
        }
        return Step(turned, self.group[rows].to(self.device))

    def _rows(self, step):
        """Rows of the step: whole groups in the shuffled order of an epoch."""
        total = len(self.group)
        size = min(self.batch_size, total)
        per_epoch = max(total // size, 1)
        epoch, place = divmod(step, per_epoch)
        generator = torch_generator(self.seed, "epoch", epoch)
        _, inverse = torch.unique(self.group, return_inverse=True)
        rank = torch.randperm(int(inverse.max()) + 1, generator=generator)
        within = torch.rand(total, generator=generator, dtype=torch.float64)
        order = (rank[inverse].double() + within).argsort()
        return order[place * size : (place + 1) * size]
