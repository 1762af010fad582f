# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The commands that train."""

from astro_disentangle.commands.files import read_folders, read_pairs

__all__ = ["add_survey_parser", "fit_parser", "fit_residual_parser"]


def fit_parser(commands):
    """
    The command ``fit``.

    Parameters
    ----------
    commands : object
        Sub-parsers.

    Returns
    -------
    parser : `~argparse.ArgumentParser`
        Of the command.
    """
    fit = commands.add_parser("fit", help="train on pairs of cut-outs")
    fit.add_argument("--surveys", nargs=2, default=["hsc", "legacy"], metavar="NAME")
    fit.add_argument("--from", dest="start", metavar="WEIGHTS", help="fine-tune these")
    fit.add_argument("--recipe", default="default", help="default or counterfactual")
    fit.add_argument(
        "--unpaired",
        metavar="DIR",
        help="folder with a folder of files for each survey, or for one, of galaxies "
        "that it alone observed",
    )
    _add_training(fit, steps=2000)
    fit.set_defaults(run=_fit)
    return fit


def add_survey_parser(commands):
    """
    The command ``add-survey``.

    Parameters
    ----------
    commands : object
        Sub-parsers.

    Returns
    -------
    parser : `~argparse.ArgumentParser`
        Of the command.
    """
    add = commands.add_parser("add-survey", help="learn a further survey from pairs")
    add.add_argument(
        "--survey", required=True, metavar="NAME", help="described one, or JSON file"
    )
    add.add_argument(
        "--known",
        default="hsc",
        metavar="NAME",
        help="survey of the weights that the pairs are of too (hsc)",
    )
    add.add_argument(
        "--from",
        dest="start",
        default="default",
        metavar="WEIGHTS",
        help="weights that get the survey (default)",
    )
    _add_training(add, steps=600)
    add.set_defaults(run=_add_survey)
    return add


def fit_residual_parser(commands):
    """
    The command ``fit-residual``.

    Parameters
    ----------
    commands : object
        Sub-parsers.

    Returns
    -------
    parser : `~argparse.ArgumentParser`
        Of the command.
    """
    fit = commands.add_parser("fit-residual", help="learn residual latents from pairs")
    fit.add_argument(
        "--surveys",
        nargs=2,
        default=["hsc", "legacy"],
        metavar="NAME",
        help="of the pairs (hsc legacy)",
    )
    fit.add_argument(
        "--from",
        dest="start",
        default="default",
        metavar="WEIGHTS",
        help="weights that get them (default)",
    )
    fit.add_argument(
        "--revisits",
        metavar="PATH",
        help="the same galaxies in the same order under other conditions, as --pairs",
    )
    _add_training(fit, steps=2000)
    fit.set_defaults(run=_fit_residual)
    return fit


def _add_training(command, steps):
    """Options of commands that train."""
    command.add_argument(
        "--pairs",
        required=True,
        metavar="PATH",
        help="folder with a folder for each survey, with files of the same names "
        "in both, as PairedCutouts.write or SurveyCutout.write make them; or Parquet "
        "files or a HATS catalogue of the Multimodal Universe with both images",
    )
    command.add_argument(
        "--steps", type=int, default=steps, metavar="N", help=f"({steps})"
    )
    command.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="share of the sky to hold out and to measure the loss on",
    )
    command.add_argument(
        "--order",
        type=int,
        default=6,
        metavar="N",
        help="HEALPix order of its cells (6; more for less than 50 square degrees)",
    )
    command.add_argument(
        "--stream",
        action="store_true",
        help="read tables as they are needed, not into memory",
    )
    command.add_argument(
        "--workers", type=int, default=0, metavar="N", help="that read a stream ahead"
    )
    command.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="parts of a step, shared by the processes of torchrun (one for each)",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with a stopped run"
    )


def _fit(options):
    from astro_disentangle.disentangler import Disentangler

    pairs, validation = _training_pairs(options, tuple(options.surveys))
    settings = {"recipe": options.recipe, **_training_settings(options)}
    if options.start is None:
        model = Disentangler(surveys=tuple(options.surveys), **settings)
    else:
        model = Disentangler.load(options.start).set_params(**settings)
    unpaired = None
    if options.unpaired is not None:
        unpaired = read_folders(options.unpaired, options.surveys)
    resume = options.resume or None
    model.fit(pairs, unpaired=unpaired, validation=validation, resume=resume)
    _write_trained(model, pairs, options)


def _add_survey(options):
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.surveys import read_survey

    survey = read_survey(options.survey)
    pairs, validation = _training_pairs(options, (options.known, survey))
    model = Disentangler.load(options.start).set_params(**_training_settings(options))
    resume = options.resume or None
    model.add_survey(survey, pairs, validation=validation, resume=resume)
    _write_trained(model, pairs, options)


def _fit_residual(options):
    from astro_disentangle.disentangler import Disentangler

    if None not in (options.revisits, options.validation):
        raise ValueError("'--revisits' must go without '--validation'; got both.")
    model = Disentangler.load(options.start).set_params(**_training_settings(options))
    surveys = tuple(model.network_.surveys.get(name, name) for name in options.surveys)
    pairs, validation = _training_pairs(options, surveys)
    revisits = options.revisits and read_pairs(options.revisits, surveys)
    model.fit_residual(
        pairs,
        revisits=revisits,
        validation=validation,
        resume=options.resume or None,
    )
    _write_trained(model, pairs, options)


def _training_pairs(options, surveys):
    """Pairs to train on, and those that are held out, if any."""
    from astro_disentangle.data.pair_stream import PairStream

    if options.stream:
        pairs = PairStream(options.pairs, surveys=surveys)
    else:
        pairs = read_pairs(options.pairs, surveys)
    return (pairs, None) if options.validation is None else _held_out(pairs, options)


def _training_settings(options):
    return {
        "n_steps": options.steps,
        "batch_size": options.batch_size,
        "n_shards": options.shards,
        "n_workers": options.workers,
        "random_state": options.seed,
        "directory": options.output,
        "device": options.device,
    }


def _write_trained(model, pairs, options):
    """Weights and history of a run, by the first of its processes."""
    from astro_disentangle.training.parallel import Ranks

    if Ranks.current().rank:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "model.safetensors")
    model.history_.write(options.output / "history.ecsv", overwrite=True)
    print(
        f"{len(pairs)} pairs, {options.steps} steps; weights and history in "
        f"{options.output}"
    )


def _held_out(pairs, options):
    """Pairs to train on, and those of another part of the sky."""
    if options.stream:
        raise ValueError("'--validation' must go without '--stream'; got both.")
    if not 0 < options.validation < 1:
        raise ValueError(
            f"'--validation' must be between 0 and 1; got {options.validation}."
        )
    shares = {"train": 1 - options.validation, "validation": options.validation}
    parts = pairs.split(shares, order=options.order)
    print(
        f"{len(parts['validation'])} of {len(pairs)} pairs are held out, "
        f"{len(parts['train'])} are for training"
    )
    return parts["train"], parts["validation"]
