# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The training loop: keyed, resumable, the same on any machine.

Every random number of step ``n`` is a function of the seed and ``n``, and the
state that is kept is all the state there is (weights, their average, moments of
the optimiser, step, history): a run that is killed and resumed ends with the
same bits as one that was not. A step may have several parts, whose gradients are
averaged; so several processes share it (`astro_disentangle.training.parallel`).
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
from astro_disentangle.keys import key
from astro_disentangle.quality import DisentangleError, WeightsError
from astro_disentangle.training.parallel import LostProcessError, Ranks, Sum

__all__ = ["Settings", "Trainer", "learning_rate"]

_FILE = "training.safetensors"
_BAD_STEPS = 3


@dataclass(frozen=True)
class Settings:
    """
    Settings of a training run.

    Parameters
    ----------
    n_steps : int
        Number of steps in all.
    learning_rate : float
        Peak learning rate of AdamW.
    warmup : int
        Steps over which the rate rises linearly; then it falls as a cosine to
        a hundredth of the peak.
    weight_decay : float
        Decay of AdamW.
    clip : float
        Largest norm of the gradient.
    ema : float
        Decay of the running mean of the weights.
    seed : int
        Key of all random numbers.
    precision : {"bfloat16", "float32"}
        Precision of the matrix products.
    log_every, save_every : int
        Steps between rows of the history and between checkpoints.
    n_shards : int
        Parts of a step. Each is a step of the source, with its own donors and its own
        contrast; the gradient is the mean of theirs.
    """

    n_steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "bfloat16"
    log_every: int = 20
    save_every: int = 200
    n_shards: int = 1

    def __post_init__(self):
        if self.n_steps < 1 or self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise ValueError(
                "'n_steps' and 'learning_rate' must be positive and 'ema' in [0, 1); "
                f"got {self.n_steps}, {self.learning_rate}, {self.ema}."
            )
        if self.precision not in ("bfloat16", "float32"):
            raise ValueError(
                f"'precision' must be 'bfloat16' or 'float32'; got {self.precision!r}."
            )


def learning_rate(step, settings):
    """
    Learning rate of a step: linear rise, then one cosine over the run, then its end.

    Parameters
    ----------
    step : int
        Step number from 0.
    settings : `Settings`
        Settings of the run.

    Returns
    -------
    rate : float
        Learning rate.

    Examples
    --------
    >>> from astro_disentangle.training.loop import Settings, learning_rate
    >>> settings = Settings(n_steps=100, warmup=10, learning_rate=1.0)
    >>> learning_rate(0, settings), learning_rate(9, settings)
    (0.1, 1.0)
    """
    warmup = min(settings.warmup, settings.n_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = min(1, (step - warmup) / max(settings.n_steps - warmup, 1))
    return settings.learning_rate * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    )


def _means(window):
    """Mean of each term over the steps that have it."""
    names = dict.fromkeys(name for terms in window for name in terms)
    rows = {name: [t[name] for t in window if name in t] for name in names}
    return {name: sum(values) / len(values) for name, values in rows.items()}


def _kernels(device):
    """The convolutions of a GPU: the fastest of each shape, float32 where asked."""
    if device != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


@contextlib.contextmanager
def _uninterrupted():
    """No second signal may stop what the first one has begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, signal.SIG_IGN) for stop in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


class Trainer:
    """
    A network in training.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network; trained in place, but for what asks for no gradient.
    source : callable
        Number to `~astro_disentangle.training.source.Step`: part ``p`` of step ``n`` of
        ``n_shards`` parts has the number ``n * n_shards + p``.
    objective : `~astro_disentangle.training.objective.Objective`
        What to minimise.
    settings : `Settings`
        How.
    directory : str or `~pathlib.Path`, optional
        Folder for checkpoints; none are kept without.
    validation : callable, optional
        Source of the steps on which the loss of flow and outline is measured for
        every row of the history.

    Raises
    ------
    ValueError
        If the parts of a step cannot be shared out to the processes of the run.
    """

    def __init__(
        self, network, source, objective, settings, directory=None, validation=None
    ):
        self.network = network
        self.source = source
        self.objective = objective
        self.settings = settings
        self.validation = validation
        self.ranks = Ranks.current()
        self.parts = self.ranks.parts(settings.n_shards)
        self.path = None if directory is None else Path(directory) / _FILE
        self.step = 0
        self.history = []
        self.bad_steps = 0
        self._window = []
        self._seconds = 0.0
        self._whole = True
        self.parameters = {
            name: parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        self.average = {
            name: tensor.detach().clone() for name, tensor in self.parameters.items()
        }
        matrices = [p for p in self.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.parameters.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
        )

    def run(self, *, until=None, progress=True):
        """
        Train to the end, or to step ``until``.

        Parameters
        ----------
        until : int, optional
            Step to stop at; the last one by default.
        progress : bool
            Show a progress bar with loss, rate and time left.

        Returns
        -------
        history : list of dict
            One row for every ``log_every`` steps.

        Raises
        ------
        DisentangleError
            If the loss is not finite three times in a row, or another process of the
            run fails or is lost.
        """
        from tqdm import tqdm

        until = self.settings.n_steps if until is None else until
        bar = tqdm(
            total=self.settings.n_steps,
            initial=self.step,
            disable=not progress or self.ranks.rank > 0,
            unit="step",
            mininterval=1.0,
        )
        try:
            while self.step < until:
                start = time.monotonic()
                self._advance(last=self.step + 1 == until)
                self._seconds += time.monotonic() - start
                if self.step % self.settings.log_every == 0 or self.step == until:
                    row = {"step": self.step, **_means(self._window)}
                    row["seconds"] = self._seconds
                    if self.validation is not None and self.ranks.rank == 0:
                        row["validation"] = self._validate()
                    self.history.append(row)
                    bar.set_postfix(loss=f"{row['loss']:.4f}", lr=f"{row['rate']:.1e}")
                    self._window, self._seconds = [], 0.0
                bar.update(1)
                if self.step % self.settings.save_every == 0 or self.step == until:
                    self.save()
        except (KeyboardInterrupt, LostProcessError):
            # In the middle of an update the state is of no step at all.
            if self._whole:
                with _uninterrupted():
                    self.save()
            raise
        finally:
            bar.close()
        return self.history

    def _advance(self, *, last):
        """One step of the optimiser; its terms join the window of the history."""
        settings = self.settings
        logged = last or (self.step + 1) % settings.log_every == 0
        rate = learning_rate(self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        names, values = self._differentiate(logged)
        parameters = self.parameters.values()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        # All numbers at once: a GPU is waited for no more than once a step.
        values = torch.cat([values, norm.double()[None]]).tolist()
        numbers = dict(zip([*names, "gradient"], values, strict=True))
        self._whole = False
        if math.isfinite(numbers["loss"]) and math.isfinite(numbers["gradient"]):
            self.optimizer.step()
            self._update_average()
            self.bad_steps = 0
        else:
            self.bad_steps += 1
            if self.bad_steps >= _BAD_STEPS:
                raise DisentangleError(
                    f"the loss was not finite {_BAD_STEPS} times in a row, last at "
                    f"step {self.step}; the last checkpoint is kept. Lower "
                    "'learning_rate', or look at the pairs of that step."
                )
        self._window.append({**numbers, "rate": rate})
        self.step += 1
        self._whole = True

    def _differentiate(self, logged):
        """The mean gradient of the parts of a step; names and means of their terms."""
        count, total, rows = self.settings.n_shards, Sum(), []
        with self.ranks.one_for_all():
            for part in self.parts:
                terms = self._backward(self.step * count + part, logged)
                rows.append(torch.stack([term.double() for term in terms.values()]))
                if count > 1:
                    total.add(self._gradient())
        rows = torch.stack(rows)
        if count > 1:
            every = Sum()
            for gradient in self.ranks.gather(total.value()):
                every.add(gradient)
            self._set_gradient(every.value() / count)
            rows = torch.cat(self.ranks.gather(rows))
        return list(terms), rows.mean(0)

    def _backward(self, number, logged):
        """Gradients of a part of a step, and its terms."""
        settings = self.settings
        self.optimizer.zero_grad(set_to_none=True)
        step = self.source(number)
        device = step.group.device.type
        with _kernels(device):
            with torch.autocast(
                device, torch.bfloat16, enabled=settings.precision == "bfloat16"
            ):
                loss, terms = self.objective(
                    self.network,
                    step,
                    seed=key(settings.seed, "step", number),
                    rank=logged,
                )
            loss.backward()
        return {"loss": loss.detach(), **terms}

    def _gradient(self):
        """The gradient as one vector."""
        return torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
                for p in self.parameters.values()
            ]
        )

    def _set_gradient(self, vector):
        parameters = list(self.parameters.values())
        parts = vector.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view(parameter.shape)

    @torch.no_grad()
    def _validate(self, n_steps=4):
        """Painting loss on the validation pairs, with the same noise every time."""
        objective, losses = self.objective, []
        for number in range(n_steps):
            step = self.validation(number)
            terms = objective(self.network, step, seed=number, rank=False)[1]
            loss = objective.flow * terms["flow"]
            if objective.outline:
                loss = loss + objective.outline * terms["outline"]
            losses.append(loss)
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def _update_average(self):
        # A short memory at first, or the average would remember the start.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.values()), list(self.parameters.values()), 1 - decay
        )

    def save(self):
        """Write a checkpoint, if the run has a folder; one process does it for all."""
        if self.path is None or self.ranks.rank > 0:
            return
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weights.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value
        config = {
            "step": self.step,
            "bad_steps": self.bad_steps,
            "history": self.history,
            "window": self._window,
            "source": getattr(self.source, "fingerprint", None),
            "settings": dataclasses.asdict(self.settings),
            "objective": dataclasses.asdict(self.objective),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self.path, tensors, config)

    def resume(self):
        """
        Go on from the checkpoint of the run's folder, if there is one.

        Returns
        -------
        resumed : bool
            Whether there was a checkpoint.

        Raises
        ------
        WeightsError
            If the checkpoint is damaged or of another run.
        """
        if self.path is None or not self.path.exists():
            return False
        tensors, config, _ = read_checkpoint(self.path)
        for part in ("settings", "objective"):
            now, then = dataclasses.asdict(getattr(self, part)), config[part]
            different = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
            if different:
                # The length of a run also sets other settings: name it first.
                field = "n_steps" if "n_steps" in different else different[0]
                raise WeightsError(
                    f"'{self.path}' belongs to another run: {part} '{field}' was "
                    f"{then.get(field)!r} and is {now.get(field)!r}."
                )
        fingerprint = getattr(self.source, "fingerprint", None)
        if config["source"] != fingerprint:
            raise WeightsError(
                f"'{self.path}' belongs to another run: its data are not the same. "
                "Give it the same pairs and batch size, or another folder."
            )
        expected = {f"weights.{name}" for name in self.parameters}
        found = {name for name in tensors if name.startswith("weights.")}
        if expected != found:
            raise WeightsError(
                f"'{self.path}' belongs to another network: it differs in "
                f"{min(expected ^ found)!r}."
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                moments = ("step", "exp_avg", "exp_avg_sq")
                if f"exp_avg.{name}" in tensors:
                    # The layout of the memory is part of the bits.
                    self.optimizer.state[parameter] = {
                        moment: tensors[f"{moment}.{name}"].to(
                            device=parameter.device if moment != "step" else "cpu",
                            memory_format=torch.channels_last
                            if parameter.ndim == 4 and moment != "step"
                            else torch.contiguous_format,
                        )
                        for moment in moments
                    }
        self.step = config["step"]
        self.bad_steps = config["bad_steps"]
        self.history = config["history"]
        self._window = config["window"]
        return True

    def averaged(self):
        """
        The running mean of the weights.

        Returns
        -------
        weights : dict of str to `torch.Tensor`
            A state for ``network.load_state_dict(..., strict=False)``.
        """
        return {name: tensor.clone() for name, tensor in self.average.items()}
