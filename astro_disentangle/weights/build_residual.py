# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Give the packaged weights their residual latents.

``python -m astro_disentangle.weights.build_residual --output DIR`` trains them on
simulated HSC and Legacy pairs that are never repeated, each seen by one of the surveys
twice, and writes ``default.safetensors``; all else in it is as it was. It can be
stopped at any time and goes on where it was with ``--resume``.
"""

import argparse
from pathlib import Path

from astro_disentangle.training.ahead import Ahead
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.residual import residual_objective, with_residual
from astro_disentangle.training.source import SimulatedSource

__all__ = ["main", "train"]

#: Seed of the galaxies; those of the network, of tests and scores are others.
RESIDUAL_SEED = 20268


def train(
    network,
    recipe,
    output,
    *,
    n_steps=3000,
    batch_size=32,
    rate=1e-3,
    resume=False,
    until=None,
    device="cpu",
    n_workers=0,
    uses=1,
):
    """
    Train the residual latents of a network.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network; it stays as it is.
    recipe : str
        Name of the objective it was trained for.
    output : `~pathlib.Path`
        Folder for checkpoints.
    n_steps : int
        Steps in all.
    batch_size : int
        Pairs in a step, a multiple of 8.
    rate : float
        Peak of the learning rate.
    resume : bool
        Go on with the run in ``output``.
    until : int, optional
        Stop at this step.
    device : str
        Where to train.
    n_workers, uses : int
        As `astro_disentangle.weights.build.train` takes them.

    Returns
    -------
    trainer : `~astro_disentangle.training.loop.Trainer`
        With a copy of the network, the mean of its weights and its history.
    """
    surveys = tuple(network.surveys.values())
    network = with_residual(network, tuple(network.surveys), RESIDUAL_SEED).to(device)
    source = SimulatedSource(
        surveys,
        batch_size // 8,
        seed=RESIDUAL_SEED,
        revisit_every=1,
        elsewhere=False,
        device="cpu" if n_workers else device,
    )
    if n_workers:
        source = Ahead(source, n_workers, uses, device)
    settings = Settings(
        n_steps=n_steps,
        warmup=100,
        ema=0.998,
        seed=RESIDUAL_SEED,
        learning_rate=rate,
    )
    objective = residual_objective(RECIPES[recipe])
    trainer = Trainer(network, source, objective, settings, output)
    if resume:
        trainer.resume()
    trainer.run(until=until)
    return trainer


def main(arguments=None):
    """
    Command line of the script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    import torch

    from astro_disentangle.disentangler import Disentangler

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", default="default", metavar="WEIGHTS")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--until", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--uses", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    model = Disentangler.load(options.start)
    trainer = train(
        model.network_,
        model.recipe,
        options.output,
        n_steps=options.steps,
        batch_size=options.batch,
        rate=options.rate,
        resume=options.resume,
        until=options.until,
        device=options.device,
        n_workers=options.workers,
        uses=options.uses,
    )
    trainer.network.load_state_dict(trainer.averaged(), strict=False)
    # The history stays that of the network, as the card has it.
    model.network_ = trainer.network.eval().to("cpu")
    model.save(options.output / "default.safetensors", dtype="float16")


if __name__ == "__main__":
    main()
