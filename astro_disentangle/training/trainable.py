# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""How an estimator is trained: from pairs to weights."""

import numpy as np
import torch

from astro_disentangle.data.pair_stream import PairStream
from astro_disentangle.data.pairs import PairedCutouts
from astro_disentangle.estimator import Estimator
from astro_disentangle.keys import seed_of
from astro_disentangle.model.bank import InstrumentBank
from astro_disentangle.model.centring import centre_physics
from astro_disentangle.model.network import NetworkConfig, new_network
from astro_disentangle.quality import (
    FLAGS,
    CutoutError,
    SurveyMismatchError,
    WeightsError,
    check_count,
)
from astro_disentangle.surveys import SURVEYS, get_survey
from astro_disentangle.weights.pack import check_device

__all__ = ["Trainable", "short_name"]

#: Pairs of a stream that have the centre, the rules and the bank.
_SAMPLE = 512


class Trainable(Estimator):
    """
    An estimator that learns from pairs.

    A subclass has the parameters of `~astro_disentangle.Disentangler`, keeps what was
    trained, and knows the surveys of its network.
    """

    def fit(self, pairs, *, unpaired=None, validation=None, resume=None):
        """
        Train on galaxies that both surveys observed.

        Parameters
        ----------
        pairs : `PairedCutouts` or `PairStream`
            The pairs, of the model's two surveys.
        unpaired : mapping of str to cut-outs, optional
            Cut-outs, in any form that `transform` takes, of galaxies that only the
            survey of this name observed. Those within 3 arcmin of one of them are taken
            to share their conditions. They join in when a fifth of the training is
            done, or at once where a loaded model goes on.
        validation : `PairedCutouts`, optional
            Pairs on which the loss of the painted images is measured as training
            goes on.
        resume : str, `~pathlib.Path` or bool, optional
            Folder of an interrupted run to go on with; True for ``directory``.

        Returns
        -------
        self : `Disentangler`
            Fitted, with the running mean of the weights. A loaded model is
            fine-tuned, any other starts anew; neither has residual latents, which
            `fit_residual` learns afterwards.

        Raises
        ------
        SurveyMismatchError
            If pairs or cut-outs are of other surveys.
        CutoutError
            If cut-outs cannot be read, or are not on the pixel grid of their survey,
            or fewer than two can be used.
        DisentangleError
            If training diverges.
        WeightsError
            If the run to resume is damaged or another one, or there is a run in
            ``directory`` and it is not resumed.

        Examples
        --------
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> tiny = dict(physics_widths=(8, 8, 8), instrument_widths=(8, 8, 8),
        ...             decoder_width=16, condition=16)
        >>> model = Disentangler(n_steps=2, batch_size=8, network=tiny, progress=False)
        >>> model.fit(simulate_pairs(8)).history_["step"].tolist()
        [2]
        """
        network = self._start(seed_of(self.random_state))
        trainer, known = self._train(network, pairs, validation, resume, unpaired)
        self._finish(trainer, known)
        return self

    def add_survey(self, survey, pairs, *, validation=None, resume=None):
        """
        Learn a further survey from galaxies that one of the model's has observed too.

        The layers of the new survey begin as those of the one whose noise is most like
        its own, and they alone are trained, by what the constructor says of training:
        no latent and no view of the other surveys changes by a bit. The model then
        translates from the new survey to all others and back.

        Parameters
        ----------
        survey : str or `Survey`
            The new survey.
        pairs : `PairedCutouts` or `PairStream`
            The same galaxies in the new survey and in one of the model's; some hundred
            are enough to begin with.
        validation : `PairedCutouts`, optional
            As in `fit`.
        resume : str, `~pathlib.Path` or bool, optional
            As in `fit`.

        Returns
        -------
        self : `Disentangler`
            With the new survey in ``surveys``, behind the others. ``history_`` is of
            this training; `save` writes all of it.

        Raises
        ------
        NotFittedError
            If there are no weights.
        SurveyMismatchError
            If the model knows the survey, or the pairs are not of it and of one that
            the model knows.
        DisentangleError
            If training diverges.
        WeightsError
            As in `fit`.

        Examples
        --------
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> model = Disentangler.load().set_params(
        ...     n_steps=1, batch_size=4, progress=False, random_state=0)
        >>> pairs = simulate_pairs(4, surveys=("hsc", "kids"), random_state=1)
        >>> model.add_survey("kids", pairs).surveys
        ('hsc', 'legacy', 'kids')
        >>> view = model.translate(pairs.cutouts("kids")[0], survey="legacy")
        >>> view.survey.name
        'legacy'
        """
        from astro_disentangle.training.extension import extended

        survey = get_survey(survey)
        network = extended(self._fitted(), survey)
        _check_pairs("pairs", pairs, PairStream)
        others = set(pairs.surveys) - {survey.name}
        if survey.name not in pairs.surveys or not others <= set(self.network_.surveys):
            raise SurveyMismatchError(
                f"'pairs' must be of {survey.name!r} and one of "
                f"{sorted(self.network_.surveys)}; got {sorted(pairs.surveys)}."
            )
        trainer, known = self._train(network, pairs, validation, resume)
        self._finish(trainer, known, fixed=others.pop())
        network.requires_grad_(True)
        self.surveys = (*self.surveys, short_name(survey))
        return self

    def fit_residual(self, pairs, *, revisits=None, validation=None, resume=None):
        """
        Learn residual latents: what one image resolves and the physics latent does not.

        They alone are trained, by what the constructor says of training: no latent
        changes by a bit, nor any view with ``residual=False``. Of a survey that
        sees more than the other one, only a second look at the same galaxies
        can tell what it is that it sees.

        Parameters
        ----------
        pairs : `PairedCutouts` or `PairStream`
            The pairs, of two of the model's surveys. Views between these are painted
            with residual latents from then on.
        revisits : `PairedCutouts`, optional
            The same galaxies in the same order under other conditions, as ``visit=1``
            of `simulate_pairs` makes them.
        validation : `PairedCutouts`, optional
            As in `fit`.
        resume : str, `~pathlib.Path` or bool, optional
            As in `fit`.

        Returns
        -------
        self : `Disentangler`
            With residual latents. If it had some, those are trained further.
            ``history_`` is of this training.

        Raises
        ------
        NotFittedError
            If there are no weights.
        SurveyMismatchError
            If the pairs are not of two of the model's surveys, or ``revisits`` of
            others.
        CutoutError
            If ``revisits`` are not as many as the pairs.
        DisentangleError
            If training diverges.
        WeightsError
            As in `fit`.

        Examples
        --------
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> model = Disentangler.load().set_params(
        ...     n_steps=1, batch_size=4, progress=False, random_state=0)
        >>> pairs, again = (simulate_pairs(4, random_state=1, visit=n) for n in (0, 1))
        >>> model = model.fit_residual(pairs, revisits=again)
        >>> model.transform(pairs.cutouts("hsc"), residual=True)["residual"].shape
        (4, 6, 24, 24)
        """
        from astro_disentangle.training.residual import (
            residual_objective,
            with_residual,
        )

        known = self._fitted()
        _check_pairs("pairs", pairs, PairStream)
        if not set(pairs.surveys) <= set(known.surveys):
            raise SurveyMismatchError(
                f"'pairs' must be of two of {sorted(known.surveys)}; got "
                f"{sorted(pairs.surveys)}."
            )
        network = with_residual(known, pairs.surveys, seed_of(self.random_state))
        trainer, _ = self._train(
            network,
            pairs,
            validation,
            resume,
            revisits=revisits,
            aim=residual_objective,
        )
        network.load_state_dict(trainer.averaged(), strict=False)
        network.requires_grad_(True)
        state = self.bank_, trainer.history, "", self.heads_
        self._set_fitted(network, *state)
        return self

    def _aims(self, seed, n_shards=1):
        """What a run of training minimises, and how."""
        from astro_disentangle.training.loop import Settings
        from astro_disentangle.training.objective import RECIPES

        if self.recipe not in RECIPES:
            raise ValueError(
                f"'recipe' must be one of {sorted(RECIPES)}; got {self.recipe!r}."
            )
        n_steps = check_count("n_steps", self.n_steps)
        return RECIPES[self.recipe], Settings(
            n_steps=n_steps,
            learning_rate=self.learning_rate,
            warmup=max(1, min(100, n_steps // 10)),
            ema=min(0.999, 1 - 10 / max(n_steps, 20)),
            seed=seed,
            precision=self.precision,
            n_shards=n_shards,
        )

    def _train(
        self,
        network,
        pairs,
        validation,
        resume,
        unpaired=None,
        revisits=None,
        aim=None,
    ):
        """A run of training to its end; it, and pairs that memory holds."""
        from astro_disentangle.training.loop import Trainer
        from astro_disentangle.training.parallel import Ranks
        from astro_disentangle.training.source import PairsSource
        from astro_disentangle.training.unpaired import WithUnpaired, read_unpaired

        seed = seed_of(self.random_state)
        n_shards = Ranks.current().size if self.n_shards is None else self.n_shards
        objective, settings = self._aims(seed, n_shards)
        if aim is not None:
            objective = aim(objective)
        batch_size = self._part_size(check_count("n_shards", n_shards))
        device, source = check_device(self.device), None
        if isinstance(pairs, PairStream):
            if revisits is not None:
                raise TypeError("'revisits' need PairedCutouts for 'pairs'.")
            source = self._streamed(pairs, batch_size, n_shards, seed)
            pairs = pairs.sample(_SAMPLE, seed=seed)
        surveys = list(network.surveys)
        if len(surveys) > 2 and isinstance(pairs, PairedCutouts):
            surveys = [name for name in surveys if name in pairs.surveys]
        batches, group, again = _usable(pairs, "pairs", surveys, revisits)
        known = PairsSource(batches, group, batch_size, seed, device, again)
        if validation is not None:
            validation, group, _ = _usable(validation, "validation", surveys)
            validation = PairsSource(validation, group, batch_size, seed, device)
        source = source or known
        if unpaired is not None:
            own = {name: network.surveys[name] for name in surveys}
            source = WithUnpaired(
                source,
                read_unpaired(unpaired, own, batch_size, seed=seed, device=device),
                0 if getattr(self, "loaded_", False) else settings.n_steps // 5,
                n_shards,
            )
        directory = self.directory if resume in (None, True, False) else resume
        trainer = Trainer(
            network,
            source,
            objective,
            settings,
            directory,
            validation=validation,
        )
        if resume and not trainer.resume():
            raise WeightsError(
                f"there is no run to resume in {str(directory)!r}; 'directory' or "
                "'resume' must name its folder."
            )
        if not resume and trainer.path is not None and trainer.path.exists():
            raise WeightsError(
                f"there is a run in '{directory}' already; resume=True goes on with "
                "it. Remove it, or give another 'directory', to start anew."
            )
        try:
            trainer.run(progress=self.progress)
        finally:
            network.eval()
        return trainer, known

    def _finish(self, trainer, source, fixed=None):
        """Mean weights of a run, and with its pairs the centre, rules and bank.

        With a survey that is ``fixed``, those of the other one of the pairs alone.
        """
        from astro_disentangle.training.few_steps import learn_rules

        network, settings = trainer.network, trainer.settings
        network.load_state_dict(trainer.averaged(), strict=False)
        network.eval()
        if trainer.objective.centred and len(source.group) > 1:
            centre_physics(network, [source.batches], fixed=fixed)
        learn_rules(
            network,
            source,
            seed=settings.seed,
            targets=[name for name in source.batches if name != fixed],
            n_pairs=min(192, len(source.group)),
            n_updates=min(150, settings.n_steps),
            progress=self.progress and trainer.ranks.rank == 0,
        )
        bank, heads = (
            InstrumentBank.observe(network, source.batches, source.group),
            None,
        )
        if fixed is not None:
            bank, heads = self.bank_.with_others(bank), self.heads_
        self._set_fitted(network, bank, trainer.history, sha256="", heads=heads)

    def _part_size(self, n_shards):
        """Galaxies in a part of a training step."""
        batch_size = check_count("batch_size", self.batch_size)
        if batch_size % n_shards or batch_size // n_shards < 2:
            raise ValueError(
                f"'batch_size' must be a multiple of 'n_shards', {n_shards}, and at "
                f"least twice as much; got {batch_size}."
            )
        return batch_size // n_shards

    def _streamed(self, pairs, batch_size, n_shards, seed):
        """The source of pairs that are read as they are needed."""
        from astro_disentangle.training.ahead import Ahead
        from astro_disentangle.training.parallel import Ranks
        from astro_disentangle.training.source import StreamSource

        n_workers = self.n_workers and check_count("n_workers", self.n_workers)
        device = check_device(self.device)
        lanes = n_shards * max(1, n_workers)
        if not n_workers:
            return StreamSource(pairs, batch_size, lanes, seed, device)
        return Ahead(
            StreamSource(pairs, batch_size, lanes, seed),
            n_workers,
            device=device,
            parts=Ranks.current().parts(n_shards),
            n_shards=n_shards,
        )

    def _start(self, seed):
        """A new network, or a copy of the loaded one to fine-tune."""
        surveys = tuple(get_survey(survey) for survey in self.surveys)
        if len(surveys) != 2:
            raise SurveyMismatchError(
                f"'surveys' must be two surveys to fit; got {len(surveys)}. "
                "add_survey() learns a further one."
            )
        loaded = getattr(self, "loaded_", False)
        sizes = self.network or {}
        if not loaded:
            # The published objective is one of stretched pixels.
            sizes = {"outlined": self.recipe != "counterfactual", **sizes}
        config = NetworkConfig(**sizes)
        if loaded:
            # What is usual in a survey is what it was when the model learned.
            surveys = tuple(self._survey(survey) for survey in surveys)
        network = new_network(surveys, config, seed)
        if loaded:
            if config != self.network_.config:
                raise SurveyMismatchError(
                    "a loaded model keeps its 'network'; got other sizes, "
                    f"{self.network!r}."
                )
            known = self.network_.state_dict()
            network.load_state_dict(
                {name: known[name] for name in network.state_dict()}
            )
        return network.to(check_device(self.device))


def short_name(survey):
    """
    The name of a survey where that says all; else its description.

    Parameters
    ----------
    survey : `~astro_disentangle.Survey`
        The survey.

    Returns
    -------
    survey : str or `~astro_disentangle.Survey`
        What `~astro_disentangle.get_survey` takes for it.
    """
    described = SURVEYS.get(survey.name)
    same = described is not None and described.has_images_of(survey)
    return survey.name if same else survey


def _check_pairs(name, pairs, *others):
    """Raise if something is no set of pairs."""
    if not isinstance(pairs, (PairedCutouts, *others)):
        raise TypeError(
            f"{name!r} must be PairedCutouts, for example from "
            f"PairedCutouts.from_nddata(a, b), or, to train on, a PairStream; got "
            f"{type(pairs).__name__}."
        )


def _usable(pairs, name, surveys, revisits=None):
    """Batches, groups and further batches of the rows of pairs that can be used."""
    _check_pairs(name, pairs)
    if set(pairs.surveys) != set(surveys):
        raise SurveyMismatchError(
            f"{name!r} are of {sorted(pairs.surveys)}, the model is of "
            f"{sorted(surveys)}."
        )
    seen = [{survey: pairs.batch(survey) for survey in surveys}]
    if revisits is not None:
        _check_revisits(revisits, pairs)
        seen.append({survey: revisits.batch(survey) for survey in surveys})
    good = torch.ones(len(pairs), dtype=torch.bool)
    for batch in (batch for batches in seen for batch in batches.values()):
        good &= (batch.flags & FLAGS.UNUSABLE) == 0
    if int(good.sum()) < 2:
        raise ValueError(f"{name!r} must hold at least two usable pairs.")
    group = torch.as_tensor(np.asarray(pairs.groups), dtype=torch.int64)
    seen = [{name: batch[good] for name, batch in part.items()} for part in seen]
    return seen[0], group[good], seen[1] if revisits is not None else None


def _check_revisits(revisits, pairs):
    """Raise if something is not of the same galaxies as pairs are."""
    _check_pairs("revisits", revisits)
    if set(revisits.surveys) != set(pairs.surveys):
        raise SurveyMismatchError(
            f"'revisits' must be of {sorted(pairs.surveys)}, as the pairs are; got "
            f"{sorted(revisits.surveys)}."
        )
    if len(revisits) != len(pairs):
        raise CutoutError(
            f"'revisits' must have as many galaxies as 'pairs', {len(pairs)}; got "
            f"{len(revisits)}."
        )
