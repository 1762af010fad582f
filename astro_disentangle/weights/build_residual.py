# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Give the packaged weights their residual latents.

``python -m astro_disentangle.weights.build_residual --output DIR`` trains them on
simulated HSC and Legacy pairs that are never repeated, each seen by one of the surveys
twice, and writes ``default.safetensors``; all else in it is as it was. It can be
stopped at any time and goes on where it was with ``--resume``.
"""

import argparse
from pathlib import Path

from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.residual import residual_objective, with_residual
from astro_disentangle.training.source import SimulatedSource

__all__ = ["main", "train"]

#: Seed of the galaxies; those of the network, of tests and scores are others.
RESIDUAL_SEED = 20268


def train(
    output, start="default", *, n_steps=3000, batch_size=32, resume=False, until=None
):
    """
    Train the residual latents of some weights.

    Parameters
    ----------
    output : `~pathlib.Path`
        Folder for checkpoints.
    start : str or `~pathlib.Path`
        The weights.
    n_steps : int
        Steps in all.
    batch_size : int
        Pairs in a step, a multiple of 8.
    resume : bool
        Go on with the run in ``output``.
    until : int, optional
        Stop at this step.

    Returns
    -------
    model : `~astro_disentangle.Disentangler`
        The model of the weights.
    trainer : `~astro_disentangle.training.loop.Trainer`
        With its network, the mean of its weights and its history.
    """
    from astro_disentangle.disentangler import Disentangler

    model = Disentangler.load(start)
    names = tuple(model.network_.surveys)
    network = with_residual(model.network_, names, RESIDUAL_SEED)
    surveys = tuple(network.surveys.values())
    source = SimulatedSource(
        surveys, batch_size // 8, seed=RESIDUAL_SEED, revisit_every=1, elsewhere=False
    )
    settings = Settings(n_steps=n_steps, warmup=100, ema=0.998, seed=RESIDUAL_SEED)
    objective = residual_objective(RECIPES[model.recipe])
    trainer = Trainer(network, source, objective, settings, output)
    if resume:
        trainer.resume()
    trainer.run(until=until)
    return model, trainer


def main(arguments=None):
    """
    Command line of the script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", default="default", metavar="WEIGHTS")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--until", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    model, trainer = train(
        options.output,
        options.start,
        n_steps=options.steps,
        batch_size=options.batch,
        resume=options.resume,
        until=options.until,
    )
    trainer.network.load_state_dict(trainer.averaged(), strict=False)
    # The history stays that of the network, as the card has it.
    model.network_ = trainer.network.eval()
    model.save(options.output / "default.safetensors", dtype="float16")


if __name__ == "__main__":
    main()
