# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Several processes that train one network.

Each step has a fixed number of parts, however many processes there are, and a process
computes the gradients of as many of them as fall to it. Gradients are added in pairs,
pairs of pairs and so on, in the order of the parts: 1, 2 or 4 processes end with the
same bits, because every sum has the same terms in the same order. Each process then
takes the step by itself; weights need not be sent.

``torch.nn.parallel.DistributedDataParallel`` is not used: it adds in an order that
depends on the number of processes, and it hooks into one ``forward``, where the
objective asks the parts of the network one by one.
"""

import contextlib
import datetime as dt
import os
import signal
from dataclasses import dataclass

import torch

from astro_disentangle.quality import DisentangleError, check_count

__all__ = ["LostProcessError", "Ranks", "Sum", "process_group"]

#: Bytes of a message that tells the other processes of an error.
_MESSAGE = 512
#: Time after which a process that does not answer is given up.
_PATIENCE = dt.timedelta(minutes=10)


class LostProcessError(DisentangleError):
    """A process of the run is gone, or does not answer."""


class Sum:
    """
    A sum whose terms are added as a balanced tree adds them, as they come.

    Examples
    --------
    >>> import torch
    >>> from astro_disentangle.training.parallel import Sum
    >>> total = Sum()
    >>> for number in range(1, 6):
    ...     total.add(torch.tensor(float(number)))
    >>> total.value().item()
    15.0
    """

    def __init__(self):
        self._branches = []

    def add(self, term):
        """
        Add a term.

        Parameters
        ----------
        term : `torch.Tensor`
            Of the shape of the others.
        """
        count = 1
        while self._branches and self._branches[-1][0] == count:
            term = self._branches.pop()[1] + term
            count *= 2
        self._branches.append((count, term))

    def value(self):
        """
        The sum.

        Returns
        -------
        total : `torch.Tensor`
            Of the terms so far; there must be one.
        """
        branches = [term for _, term in self._branches]
        total = branches.pop()
        while branches:
            total = branches.pop() + total
        return total


@dataclass(frozen=True)
class Ranks:
    """
    The processes of a run, as one of them sees them.

    Parameters
    ----------
    rank : int
        Number of this one, from 0.
    size : int
        How many there are.

    Examples
    --------
    >>> from astro_disentangle.training.parallel import Ranks
    >>> Ranks(rank=1, size=2).parts(4)
    range(2, 4)
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls):
        """
        The processes of the open process group.

        Returns
        -------
        ranks : `Ranks`
            One process, if there is no group.
        """
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def parts(self, count):
        """
        The parts of a step that are computed by this process.

        Parameters
        ----------
        count : int
            Parts of a step.

        Returns
        -------
        parts : range
            Their numbers.

        Raises
        ------
        ValueError
            If they cannot be shared out evenly.
        """
        check_count("n_shards", count)
        if count % self.size:
            raise ValueError(
                f"'n_shards' must be a multiple of the number of processes, "
                f"{self.size}; got {count}."
            )
        own = count // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def gather(self, tensor):
        """
        A tensor of each process.

        Parameters
        ----------
        tensor : `torch.Tensor`
            Of one shape and type in all processes.

        Returns
        -------
        tensors : list of `torch.Tensor`
            In the order of the processes.

        Raises
        ------
        LostProcessError
            If a process is gone, or does not answer.
        """
        if self.size == 1:
            return [tensor]
        from torch import distributed

        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        try:
            distributed.all_gather(tensors, tensor)
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.rank} of {self.size} cannot reach the others: one of "
                "them must have ended. Resume the run from its last checkpoint. "
                f"({error})"
            ) from error
        return tensors

    @contextlib.contextmanager
    def one_for_all(self):
        """
        An error in one process is an error in all of them.

        Raises
        ------
        DisentangleError
            If another process has failed in what is done under this context.
        """
        if self.size == 1:
            yield
            return
        own = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again below
            own = error
        message = "" if own is None else f"{type(own).__name__}: {own}"
        encoded = message.encode()[:_MESSAGE].ljust(_MESSAGE, b"\0")
        told = self.gather(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        if own is not None:
            raise own
        for rank, text in enumerate(told):
            words = bytes(text.tolist()).rstrip(b"\0").decode(errors="replace")
            if words:
                raise DisentangleError(
                    f"process {rank} of {self.size} failed and ends the run: {words}"
                )


@contextlib.contextmanager
def process_group(device="cpu"):
    """
    Join the processes that ``torchrun`` has started, for as long as they train.

    A termination signal is an interrupt in the meantime.

    Parameters
    ----------
    device : str
        ``"cpu"``, or ``"cuda"``, of which each process takes one.

    Yields
    ------
    device : str
        Where this process trains.

    Examples
    --------
    >>> from astro_disentangle.training.parallel import process_group
    >>> with process_group() as device:  # not started by torchrun
    ...     print(device)
    cpu
    """
    if "LOCAL_RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    from torch import distributed

    backend = "gloo"
    if torch.device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
        # Messages are on the CPU, gradients on the GPU.
        backend = "cpu:gloo,cuda:nccl"
    # What torchrun sends to the others when one has failed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
        signal.signal(signal.SIGTERM, before)
