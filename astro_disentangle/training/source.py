# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Where the steps of training come from: the simulator, or a user's pairs.

A source is a function of the step number alone, so that training can be
stopped and resumed anywhere.
"""

import itertools
import warnings
from dataclasses import dataclass, field

import torch

from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.keys import key, torch_generator
from astro_disentangle.quality import CutoutError

__all__ = ["PairsSource", "SimulatedSource", "Step", "StreamSource"]


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
    alone : `Step`, optional
        Other galaxies, which only one of the surveys observed.
    """

    batches: dict
    group: torch.Tensor
    revisit: CutoutBatch | None = None
    elsewhere: CutoutBatch | None = None
    alone: object = None

    def to(self, device):
        """The same step on another device, sent there while others work."""
        return self.mapped(
            lambda batch: batch.to(device, non_blocking=True),
            lambda group: group.to(device, non_blocking=True),
        )

    def pin_memory(self):
        """The same step where a GPU can fetch it while others work."""
        return self.mapped(CutoutBatch.pin_memory, torch.Tensor.pin_memory)

    def turned(self, quarter_turns, flip):
        """The same step with the sky turned and mirrored."""
        return self.mapped(
            lambda batch: batch.turned(quarter_turns, flip), lambda group: group
        )

    def mapped(self, function, of_group):
        """
        The step with a function of every batch and one of every group.

        Parameters
        ----------
        function, of_group : callable
            Of a `~astro_disentangle.data.batch.CutoutBatch`, and of a tensor (B,).

        Returns
        -------
        step : `Step`
            With what they give.
        """
        others = (self.revisit, self.elsewhere)
        alone = self.alone
        return Step(
            {name: function(batch) for name, batch in self.batches.items()},
            of_group(self.group),
            *(None if batch is None else function(batch) for batch in others),
            alone=None if alone is None else alone.mapped(function, of_group),
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
    revisits : dict of str to `~astro_disentangle.data.batch.CutoutBatch`, optional
        The same galaxies again, under other conditions; a survey at a time is shown.
    """

    batches: dict
    group: torch.Tensor
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"
    revisits: dict | None = None

    @property
    def fingerprint(self):
        """A number that tells these pairs, in these steps, from any others."""
        every = [*self.batches.values(), *(self.revisits or {}).values()]
        keys = [k for b in every for k in b.keys.tolist()]
        return key(self.seed, "pairs", self.batch_size, *self.group.tolist(), *keys)

    def __call__(self, step):
        """The cut-outs of step number ``step``."""
        rows, again = self._rows(step), None
        if self.revisits:
            again = list(self.revisits.values())[step % len(self.revisits)]
        return _turned(self, self.batches, self.group, rows, step, again)

    def _rows(self, step):
        """Rows of the step: whole groups in the shuffled order of an epoch."""
        total = len(self.group)
        size = min(self.batch_size, total)
        per_epoch = max(total // size, 1)
        epoch, place = divmod(step, per_epoch)
        generator = torch_generator(self.seed, "epoch", epoch)
        order = _by_group(self.group, generator)
        return order[place * size : (place + 1) * size]


@dataclass
class StreamSource:
    """
    Random groups of pairs that are read partition by partition.

    Partitions are dealt to as many lanes as there are processes that read. Each lane
    goes through its own ones in a new order in every epoch, and through the blocks of a
    partition from first to last; the pairs of a block are shuffled, groups together,
    and shared out to steps of at most ``batch_size``. Number ``n`` is of lane
    ``n % n_lanes``. A pair is shown once in an epoch of its lane, turned and mirrored
    at random, or more often where others of its block cannot be used; a block with
    fewer than two that can is passed over. A partition that cannot be read is left
    out, with a warning.

    Parameters
    ----------
    stream : `~astro_disentangle.data.pair_stream.PairStream`
        The pairs.
    batch_size : int
        Galaxies in a step, at most.
    n_lanes : int
        Number of lanes.
    seed : int
        Key of the order.
    device : str
        Where the steps are wanted.

    Raises
    ------
    CutoutError
        If there are more lanes than partitions.
    """

    stream: object
    batch_size: int = 64
    n_lanes: int = 1
    seed: int = 0
    device: str = "cpu"
    _open: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        count = len(self.stream.rows)
        if count < self.n_lanes:
            raise CutoutError(
                f"'{self.stream.path}' must have a partition for each of the "
                f"{self.n_lanes} processes that read it at a time; it has {count}. Use "
                "fewer workers or processes, or write smaller files or row groups."
            )
        deal = sorted(range(count), key=lambda n: key(self.seed, "deal", n))
        self._lanes = [deal[lane :: self.n_lanes] for lane in range(self.n_lanes)]
        self._steps = [self._steps_of(number) for number in range(count)]

    @property
    def fingerprint(self):
        """A number that tells these pairs, in these steps, from any others."""
        numbers = (self.batch_size, self.n_lanes, self.stream.fingerprint)
        return key(self.seed, "stream", *numbers)

    def place(self, number):
        """
        Where the pairs of a step are.

        Parameters
        ----------
        number : int
            Number of the step.

        Returns
        -------
        epoch, partition, block, part, n_parts : int
            Epoch of the lane; number of the partition; of the block in it; of the
            step among the steps of the block; how many these are.
        """
        turn, lane = divmod(number, self.n_lanes)
        own = self._lanes[lane]
        epoch, turn = divmod(turn, sum(len(self._steps[n]) for n in own))
        for partition in sorted(own, key=lambda n: key(self.seed, "order", epoch, n)):
            steps = self._steps[partition]
            if turn < len(steps):
                return epoch, partition, *steps[turn]
            turn -= len(steps)
        raise IndexError(number)

    def __call__(self, number):
        """The cut-outs of step ``number``."""
        lane = number % self.n_lanes
        last = sum(len(self._steps[n]) for n in self._lanes[lane])
        for later in itertools.islice(itertools.count(number, self.n_lanes), last):
            epoch, partition, block, part, n_parts = self.place(later)
            pairs = self._block(lane, partition, block)
            if pairs is None:
                continue
            group = torch.as_tensor(pairs.groups)
            place = (self.seed, "block", epoch, partition, block)
            order = _by_group(group, torch_generator(*place))
            # None is left out, or alone, because others cannot be used.
            n_parts = min(n_parts, len(order) // 2)
            if n_parts:
                share = part % n_parts
                ends = [len(order) * k // n_parts for k in (share, share + 1)]
                batches = {name: pairs.batch(name) for name in pairs.surveys}
                return _turned(self, batches, group, order[slice(*ends)], number)
        raise CutoutError(
            f"'{self.stream.path}' must have two pairs that can be used in each share; "
            f"share {lane} of {self.n_lanes} has none."
        )

    def _steps_of(self, partition):
        """Block, part and number of parts of the steps of a partition."""
        counts = [-(-n // self.batch_size) for n in self.stream.block_sizes(partition)]
        return [
            (block, part, count)
            for block, count in enumerate(counts)
            for part in range(count)
        ]

    def _block(self, lane, partition, block):
        """The pairs of a block; what follows the last one is read on from there."""
        known, at, pairs, blocks = self._open.get(lane, (None, None, None, None))
        if (known, at) == (partition, block):
            return pairs
        if (known, at) != (partition, block - 1):
            blocks = self.stream.blocks(partition, block)
        try:
            pairs = next(blocks)
        except CutoutError as error:
            warnings.warn(f"pairs are left out of training: {error}", stacklevel=2)
            pairs, blocks = None, itertools.repeat(None)
        self._open[lane] = partition, block, pairs, blocks
        return pairs


def _by_group(group, generator):
    """A random order in which groups stay together."""
    _, inverse = torch.unique(group, return_inverse=True)
    rank = torch.randperm(int(inverse.max()) + 1, generator=generator)
    within = torch.rand(len(group), generator=generator, dtype=torch.float64)
    return (rank[inverse].double() + within).argsort()


def _turned(source, batches, group, rows, number, again=None):
    """The step of some rows, turned and mirrored at random."""
    choice = key(source.seed, "turn", number)
    step = Step(
        {name: batch[rows] for name, batch in batches.items()},
        group[rows],
        None if again is None else again[rows],
    )
    return step.turned(choice % 4, bool(choice // 4 % 2)).to(source.device)
