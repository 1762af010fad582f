# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The model for Hyrax, which finds it by its import path.

Hyrax (https://hyrax.readthedocs.io) reads images, deals them out in batches, trains
models, runs them and keeps what comes out. It takes this one where its configuration
says ``model.name = "astro_disentangle.hyrax.HyraxDisentangler"``; the data sets of its
``data_request`` have the names of surveys. Written for the protocol of Hyrax 0.13.
"""

import dataclasses

import numpy as np
import torch

from astro_disentangle.data.arrays import read_arrays
from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.disentangler import Disentangler
from astro_disentangle.keys import key, seed_of
from astro_disentangle.quality import (
    FLAGS,
    CutoutError,
    DisentangleError,
    SurveyMismatchError,
)
from astro_disentangle.serving import latents
from astro_disentangle.surveys import read_survey
from astro_disentangle.training.loop import Trainer
from astro_disentangle.training.source import PairsSource, Step
from astro_disentangle.weights.hub import local_file

__all__ = ["HyraxDisentangler"]

#: What a batch of one survey is made of, in this order.
_PARTS = [f.name for f in dataclasses.fields(CutoutBatch) if f.name != "survey"]
#: Pairs that have the centre, the rules and the bank.
_SAMPLE = 512
#: Steps between rows of the history.
_LOG_EVERY = 20


class HyraxDisentangler(torch.nn.Module):
    """
    A `~astro_disentangle.Disentangler` that Hyrax trains and runs.

    Hyrax's decorator ``hyrax_model`` is left out on purpose: it would keep weights by
    ``torch.save``, and beside them a file of code that is run when they are loaded.
    These are files of `Disentangler.save <astro_disentangle.Disentangler.save>`.

    Parameters
    ----------
    config : dict
        Configuration of Hyrax. What is of the model, in ``[model.HyraxDisentangler]``,
        has its defaults, with a word on each, in ``default_config.toml``. In
        ``model_weights_file`` of any verb stands a file, a folder, ``"default"`` or an
        address.
    data_sample : tuple, optional
        What `prepare_inputs` gives; not looked at.

    Attributes
    ----------
    disentangler : `~astro_disentangle.Disentangler`
        The model, once weights are loaded or saved.

    Raises
    ------
    SurveyMismatchError
        If a survey is unknown, or there are not two.
    ValueError
        If another setting is not one.
    """

    def __init__(self, config, data_sample=None):  # noqa: ARG002
        super().__init__()
        import ignite.distributed

        table = config["model"][type(self).__name__]
        self.settings = {
            "surveys": _surveys(table),
            "recipe": str(table["recipe"]),
            "n_steps": int(table["n_steps"]),
            "learning_rate": float(table["learning_rate"]),
            "precision": str(table["precision"]),
            "random_state": int(table["random_state"]),
            "progress": False,
            "device": ignite.distributed.device().type,
        }
        # Hyrax asks for a file that is there before it asks the model.
        for verb in config.values():
            name = verb.get("model_weights_file") if hasattr(verb, "get") else None
            if name:
                verb["model_weights_file"] = str(local_file(name))
        self.criterion = self.scheduler = self.failure = None
        sizes = {name: _plain(size) for name, size in table["network"].items()}
        self._begin(_Pupil(**self.settings, network=sizes or None))

    def _begin(self, disentangler):
        self.disentangler = disentangler
        self.network = disentangler.begin()
        self.optimizer = disentangler.trainer_.optimizer

    @staticmethod
    def prepare_inputs(data_dict):
        """
        What Hyrax has read, as the model reads it.

        Parameters
        ----------
        data_dict : dict
            For each survey that is there, by its name, ``image``, (B, C, ny, nx), the
            galaxy in the middle, x to the west and y to the north on the survey's own
            pixel scale; and, where they are known, ``noise`` (B, C) and ``mask``, True
            where a pixel is bad, as `~astro_disentangle.data.arrays.read_arrays` takes
            them, ``psf_fwhm`` (B, C) in arcsec, and ``group`` (B,), int, the same for
            galaxies that were observed under the same conditions.

        Returns
        -------
        arrays : tuple of `~numpy.ndarray`
            ``group``, int64, and for each survey in turn the parts of a
            `~astro_disentangle.data.batch.CutoutBatch`; None for one that is not there.

        Raises
        ------
        CutoutError
            If no data set has the name of a survey, or one of them no images.
        SurveyMismatchError
            If the images and their survey do not fit together.
        """
        from hyrax import get_context

        table = get_context()["config"]["model"]["HyraxDisentangler"]
        surveys = _surveys(table)
        batches = [_batch(data_dict, survey, table) for survey in surveys]
        there = [batch for batch in batches if batch is not None]
        if not there:
            raise CutoutError(
                "the data sets of 'data_request' must have names of surveys, "
                f"{[s.name for s in surveys]}; got {sorted(data_dict)}."
            )
        arrays = [_group(data_dict, surveys, there[0].keys.numpy())]
        for batch in batches:
            for part in _PARTS:
                arrays.append(None if batch is None else getattr(batch, part).numpy())
        return tuple(arrays)

    def infer_batch(self, batch):
        """
        Latents of a batch.

        Parameters
        ----------
        batch : tuple of `torch.Tensor`
            From `prepare_inputs`.

        Returns
        -------
        results : dict of str to `torch.Tensor`
            ``data`` (B, P), float32, the latent of the galaxy, under the name that
            other verbs of Hyrax look for, ``instrument`` (B, I), float32, and ``flags``
            (B,), int64. Rows that are unusable are NaN. With two surveys what is of the
            second has its name behind: ``data_legacy``.
        """
        _, batches = self._unpacked(batch)
        results = {}
        for name, own in batches.items():
            found = dict(
                zip(("data", "instrument"), latents(self.network, own), strict=True)
            )
            unusable = (own.flags & FLAGS.UNUSABLE) != 0
            end = f"_{name}" if results else ""
            for kind, values in found.items():
                values = values.masked_fill(unusable[:, None], torch.nan)
                results[kind + end] = values
            results["flags" + end] = own.flags
        return results

    def train_batch(self, batch):
        """
        One step of training.

        Parameters
        ----------
        batch : tuple of `torch.Tensor`
            From `prepare_inputs`, of both surveys.

        Returns
        -------
        metrics : dict of str to float
            The loss, its terms, the norm of the gradient and the learning rate.

        Raises
        ------
        DisentangleError
            If several processes train, or the loss is not finite three times in a row.
        CutoutError
            If fewer than two galaxies of the batch can be used.
        """
        try:
            _check_alone()
            return self.disentangler.advance(self._step(batch))
        except Exception as error:
            self.failure = error
            raise

    def validate_batch(self, batch):
        """
        The loss of a batch, with the same noise every time.

        Parameters
        ----------
        batch : tuple of `torch.Tensor`
            From `prepare_inputs`, of both surveys.

        Returns
        -------
        metrics : dict of str to float
            The loss and its terms.

        Raises
        ------
        CutoutError
            If fewer than two galaxies of the batch can be used.
        """
        objective = self.disentangler.trainer_.objective
        loss, terms = objective(self.network, self._step(batch), seed=0)
        return {name: float(v) for name, v in {"loss": loss, **terms}.items()}

    #: What Hyrax's verb ``test`` asks for.
    test_batch = validate_batch

    def save(self, save_path):
        """
        Write a file of `Disentangler.save <astro_disentangle.Disentangler.save>`.

        After training, the running mean of the weights, with centre, rules and bank of
        the first pairs that were seen. Hyrax ends a training that fails with a warning
        in its log and a call of this; what was trained until then is written, and the
        error is raised again.

        Parameters
        ----------
        save_path : `~pathlib.Path`
            The file.

        Raises
        ------
        WeightsError
            If it cannot be written.
        NotFittedError
            If the model was neither trained nor loaded.
        Exception
            What ended the training.
        """
        self.disentangler.finish()
        if self.failure is None or self.disentangler.trainer_.step > 0:
            self.disentangler.save(save_path)
        if self.failure is not None:
            raise self.failure

    def load(self, load_path):
        """
        Take weights from a file, as `~astro_disentangle.Disentangler.load` does.

        Parameters
        ----------
        load_path : `~pathlib.Path`
            The file.

        Raises
        ------
        WeightsError
            If it is missing, damaged or of another package.
        SurveyMismatchError
            If it is of other surveys.
        """
        loaded = _Pupil.load(load_path, device=self.settings["device"])
        wanted = sorted(survey.name for survey in self.settings["surveys"])
        if sorted(loaded.network_.surveys) != wanted:
            raise SurveyMismatchError(
                f"'model.HyraxDisentangler.surveys' must be those of '{load_path}', "
                f"{sorted(loaded.network_.surveys)}; got {wanted}."
            )
        self._begin(loaded.set_params(**self.settings))

    def get_extra_state(self):
        """What else a run that is resumed goes on with, for Hyrax's checkpoints."""
        trainer = self.disentangler.trainer_
        return {
            "step": trainer.step,
            "history": trainer.history,
            "average": trainer.averaged(),
        }

    def set_extra_state(self, state):
        """Go on from there."""
        trainer = self.disentangler.trainer_
        trainer.step, trainer.history = state["step"], list(state["history"])
        for name, tensor in trainer.average.items():
            tensor.copy_(state["average"][name])

    def _unpacked(self, batch):
        """Groups, and the batches that are there by survey."""
        group, *arrays = batch
        batches = {}
        for place, survey in enumerate(self.settings["surveys"]):
            parts = arrays[place * len(_PARTS) : (place + 1) * len(_PARTS)]
            if parts[0] is not None:
                # What is usual in a survey is what it was when the model learned.
                own = self.network.surveys[survey.name]
                batches[survey.name] = CutoutBatch(own, *parts)
        return group, batches

    def _step(self, batch):
        """The galaxies of a batch that can be used in both surveys, each once."""
        group, batches = self._unpacked(batch)
        if len(batches) != 2:
            raise CutoutError(
                "training needs data sets of two surveys in 'data_request', joined by "
                f"'join_field'; got {list(batches)}."
            )
        flags = torch.stack([own.flags for own in batches.values()])
        usable = ((flags & FLAGS.UNUSABLE) == 0).all(0).nonzero()[:, 0]
        # Hyrax draws with replacement; a galaxy is no example of another one.
        names = next(iter(batches.values())).keys[usable].cpu().numpy()
        usable = usable[np.sort(np.unique(names, return_index=True)[1])]
        if len(usable) < 2:
            raise CutoutError(
                "a batch must have two different galaxies that can be used in both "
                f"surveys; got {len(usable)} of {len(group)}. Raise "
                "'data_loader.batch_size', or set 'data_loader.drop_last'."
            )
        return Step({n: own[usable] for n, own in batches.items()}, group[usable])


class _Pupil(Disentangler):
    """A `Disentangler` that is given the steps of its training one by one."""

    def begin(self):
        """A new network, or a copy of the loaded one, to train."""
        seed = seed_of(self.random_state)
        network = self._start(seed)
        self.trainer_ = Trainer(network, lambda _: self.step_, *self._aims(seed))
        self.seen_ = {}
        return network

    def advance(self, step):
        """One step; its loss and terms."""
        trainer = self.trainer_
        self._remember(step)
        choice = key(trainer.settings.seed, "turn", trainer.step)
        self.step_ = step.turned(choice % 4, bool(choice // 4 % 2))
        *before, row = trainer.run(until=trainer.step + 1, progress=False)
        if before and before[-1]["step"] % _LOG_EVERY:
            del trainer.history[-2]
        return {n: value for n, value in row.items() if n not in ("step", "seconds")}

    def _remember(self, step):
        """Keep the first galaxies that are seen."""
        first = next(iter(step.batches.values()))
        for row, name in enumerate(first.keys.tolist()):
            if len(self.seen_) < _SAMPLE and name not in self.seen_:
                part = {n: own[[row]].to("cpu") for n, own in step.batches.items()}
                self.seen_[name] = part, step.group[[row]].cpu()

    def finish(self):
        """Make the trained network the model's, if there was training."""
        if not self.seen_:
            return
        parts, groups = zip(*self.seen_.values(), strict=True)
        batches = {n: CutoutBatch.concatenate(p[n] for p in parts) for n in parts[0]}
        settings = self.trainer_.settings
        size = min(64, len(groups))
        group = torch.cat(groups)
        source = PairsSource(batches, group, size, settings.seed, self.device)
        self._finish(self.trainer_, source)
        self.seen_ = {}


def _check_alone():
    """Raise if there are other processes, whose gradients would not be seen here."""
    import ignite.distributed

    if ignite.distributed.get_world_size() > 1:
        raise DisentangleError(
            "'general.distributed' must be false, as the processes would not share "
            "their gradients; got true. Train with 'torchrun -m "
            "astro_disentangle.training' on several GPUs."
        )


def _surveys(table):
    """The surveys of the model's table."""
    return tuple(read_survey(str(name)) for name in table["surveys"])


def _plain(size):
    """A size without the wrapping of TOML."""
    return tuple(size) if isinstance(size, list) else size


def _batch(data_dict, survey, table):
    """The cut-outs of one survey, if there are any, one for each row of the batch."""
    names = np.asarray(data_dict["object_id"])
    fields = data_dict.get(survey.name)
    # Where a row has no partner Hyrax gives fewer images than rows, if any.
    matched = data_dict.get(f"{survey.name}__matched", np.ones(len(names), bool))
    if not matched.any():
        size = survey.stamp_size
        blank = np.full((len(names), len(survey.bands), size, size), np.nan)
        return read_arrays(blank, survey, object_id=names.tolist()).batch
    if fields is None:
        return None
    if "image" not in fields:
        raise CutoutError(
            f"the data set {survey.name!r} must have a field 'image'; got "
            f"{sorted(fields)}."
        )
    numbers = {
        name: np.reshape(fields[name], (len(fields["image"]), -1))
        for name in ("noise", "psf_fwhm")
        if name in fields
    }
    unit = table["unit"].get(survey.name)
    batch = read_arrays(
        fields["image"],
        survey,
        bands=table["bands"].get(survey.name),
        unit=None if unit is None else str(unit),
        mask=fields.get("mask"),
        object_id=names[matched].tolist(),
        **numbers,
    ).batch
    if matched.all():
        return batch
    batch = batch[torch.from_numpy(np.cumsum(matched) - 1).clamp(min=0)]
    batch.flags[torch.from_numpy(~matched)] |= FLAGS.UNUSABLE
    return batch


def _group(data_dict, surveys, default):
    """Groups of galaxies under the same conditions; each its own where none is told."""
    for survey in surveys:
        told = data_dict.get(survey.name, {}).get("group")
        if told is not None and len(told) == len(default):
            return np.asarray(told, np.int64)
    return default
