# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Steps that other processes make while the network learns from earlier ones.

A GPU learns faster than one processor can simulate. `Ahead` has the steps of a source
made by as many processes as there are processors, sends them to the GPU ahead of time,
and may show each of them more than once, turned and mirrored. What a step holds
depends on its number alone, as with any source.
"""

import signal
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader, Dataset

from astro_disentangle.keys import key
from astro_disentangle.quality import check_count

__all__ = ["Ahead"]

#: Further uses of what is made are so many steps of the source apart.
_LAG = 16
#: No run is longer.
_LAST = 2**40


class _Steps(Dataset):
    """The steps of a source, as workers are asked for them."""

    def __init__(self, source):
        self.source = source

    def __getitem__(self, number):
        """Step ``number`` of the source."""
        return self.source(number)


@dataclass(frozen=True)
class _Numbers:
    """Numbers of steps from a place on, of the parts that this process computes."""

    first: int
    parts: range
    n_shards: int

    def __iter__(self):
        for place in range(self.first, _LAST):
            whole, part = divmod(place, len(self.parts))
            yield whole * self.n_shards + self.parts[part]


@dataclass
class Ahead:
    """
    The steps of a source, made ahead of their use in other processes.

    Step ``n`` of ``uses`` uses is step ``n // uses`` of ``source``, for the first time,
    and then the ones 16, 32, ... before it again, turned by a random number of quarters
    and mirrored or not.

    Parameters
    ----------
    source : callable
        Step number to `~astro_disentangle.training.source.Step` on the CPU, such as
        `~astro_disentangle.training.source.SimulatedSource`.
    n_workers : int
        Number of processes.
    uses : int
        How often each step of ``source`` is shown.
    device : str
        Where the steps are wanted.
    parts : range
        Parts of a step that this process computes, of several that share it; only
        theirs are made.
    n_shards : int
        Parts of a step.

    Raises
    ------
    ValueError
        If a number is not positive.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.training.ahead import Ahead
    >>> from astro_disentangle.training.source import SimulatedSource
    >>> surveys = get_survey("hsc"), get_survey("legacy")
    >>> source = Ahead(SimulatedSource(surveys, n_groups=1), n_workers=1)
    >>> len(source(0).group)
    8
    """

    source: object
    n_workers: int
    uses: int = 1
    device: str = "cpu"
    parts: range = range(1)
    n_shards: int = 1
    _made: dict = field(default_factory=dict, init=False, repr=False)
    _coming: object = field(default=None, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)

    def __post_init__(self):
        check_count("n_workers", self.n_workers)
        check_count("uses", self.uses)

    @property
    def fingerprint(self):
        """A number that tells these steps from any others."""
        return key(self.source.fingerprint, "ahead", self.uses)

    def __call__(self, step):
        """The cut-outs of step number ``step``."""
        whole, part = divmod(step, self.n_shards)
        place = whole * len(self.parts) + self.parts.index(part)
        newest, use = divmod(place, self.uses)
        oldest = max(0, newest - (self.uses - 1) * _LAG)
        kept = min(self._made, default=self._next)
        if self._coming is None or not kept <= oldest <= self._next:
            self._start(oldest)
        while self._next <= newest:
            self._made[self._next] = next(self._coming).to(self.device)
            self._next += 1
        for number in [n for n in self._made if n < oldest]:
            del self._made[number]
        if not use:
            return self._made[newest]
        # At first there is nothing older.
        made = self._made[newest - use * _LAG if newest >= use * _LAG else newest]
        turn = 1 + key(self.source.fingerprint, "turn", step) % 7
        return made.turned(turn % 4, flip=turn >= 4)

    def _start(self, number):
        """Have the steps from a number on made, in their order."""
        loader = DataLoader(
            _Steps(self.source),
            batch_size=None,
            sampler=_Numbers(number, self.parts, self.n_shards),
            num_workers=self.n_workers,
            pin_memory=torch.device(self.device).type == "cuda",
            worker_init_fn=_ignore_interrupts,
            # The loader draws a seed, and would take it from the global state.
            generator=torch.Generator(),
        )
        self._made, self._coming, self._next = {}, iter(loader), number


def _ignore_interrupts(_):
    """An interrupt is for the training process, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
