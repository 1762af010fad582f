# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Make the packaged weights from nothing but seeds.

``python -m astro_disentangle.weights.build --output DIR`` trains on simulated
HSC and Legacy pairs that are never repeated, and writes ``default.safetensors``.
It can be stopped at any time and goes on where it was with ``--resume``.
"""

import argparse
from pathlib import Path

from astro_disentangle.checkpoint import read_checkpoint
from astro_disentangle.keys import key
from astro_disentangle.model.bank import InstrumentBank
from astro_disentangle.model.centring import centre_physics
from astro_disentangle.model.network import Network, NetworkConfig
from astro_disentangle.quality import WeightsError
from astro_disentangle.surveys import get_survey
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.source import SimulatedSource

__all__ = ["build", "main"]

#: Seed of the galaxies of training; tests and scores use others.
TRAINING_SEED = 20261
#: Seeds of the galaxies behind the bank of instrument latents, the heads, the centre.
BANK_SEED = 20262
HEAD_SEED = 20263
CENTRE_SEED = 20264
#: Peak of the learning rate, from nothing and from the weights of an earlier run.
_RATE, _RATE_FROM_START = 1e-3, 7e-4
#: Groups of eight galaxies that the heads are fitted to, and that have the centre.
_HEAD_GROUPS = 1024
_CENTRE_GROUPS = 1024


def build(
    output,
    *,
    recipe,
    n_steps,
    resume,
    start=None,
    n_threads=None,
    device="cpu",
    until=None,
):
    """
    Train and write a set of weights.

    Parameters
    ----------
    output : `~pathlib.Path`
        Folder for checkpoints and weights.
    recipe : str
        Name of the objective.
    n_steps : int
        Steps of 64 pairs.
    resume : bool
        Go on with the run in ``output``.
    start : str or `~pathlib.Path`, optional
        Checkpoint of an earlier run, whose mean weights are the first of this one.
    n_threads : int, optional
        Threads of torch.
    device : str
        Where to train.
    until : int, optional
        Stop at this step, and write the weights as they are then.

    Returns
    -------
    path : `~pathlib.Path`
        The weights file.
    """
    import torch

    if n_threads is not None:
        torch.set_num_threads(n_threads)
    surveys = (get_survey("hsc"), get_survey("legacy"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(TRAINING_SEED)
        config = NetworkConfig(outlined=recipe != "counterfactual")
        network = Network(surveys, config).to(device)
    seed, rate = TRAINING_SEED, _RATE
    if start is not None:
        earlier = _start_from(network, start)
        # Other galaxies than those of the earlier run, at the rate it had come to.
        seed, rate = key(TRAINING_SEED, "start", earlier), _RATE_FROM_START
    settings = Settings(
        n_steps=n_steps, warmup=100, ema=0.99, seed=seed, learning_rate=rate
    )
    source = SimulatedSource(surveys, seed=seed, device=device)
    trainer = Trainer(network, source, RECIPES[recipe], settings, output)
    if resume:
        trainer.resume()
    history = trainer.run(until=until)

    # Training runs where astropy is not; only the packaging needs it.
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.simulation import simulate
    from astro_disentangle.weights.heads import simulated_heads

    network.load_state_dict(trainer.averaged(), strict=False)
    network.eval()
    if RECIPES[recipe].centred:
        skies = (
            simulate(8, 8, surveys, seed=CENTRE_SEED, step=step, device=device)
            for step in range(_CENTRE_GROUPS // 8)
        )
        centre_physics(network, (sky.batches for sky in skies))
    groups = simulate(64, 8, surveys, seed=BANK_SEED, device=device)
    bank = InstrumentBank.observe(network, groups.batches, groups.group)
    network.to("cpu")
    heads = simulated_heads(network, surveys, n_groups=_HEAD_GROUPS, seed=HEAD_SEED)
    model = Disentangler(recipe=recipe, n_steps=n_steps)
    model._set_fitted(network.to("cpu"), bank, history, "", heads)
    path = output / "default.safetensors"
    model.save(path, dtype="float16")
    return path


def _start_from(network, path):
    """Take over the mean weights of an earlier run; the number of its steps."""
    tensors, config, _ = read_checkpoint(path)
    mean = {k[8:]: t for k, t in tensors.items() if k.startswith("average.")}
    names = {name for name, _ in network.named_parameters()}
    if unknown := sorted(mean.keys() - names):
        raise WeightsError(
            f"'{path}' is of another network or recipe: it has {unknown[0]!r}, which "
            "this one lacks. Start from a checkpoint of the same recipe."
        )
    if new := sorted(names - mean.keys()):
        print(f"new, and not of {path}: {', '.join(new)}")
    network.load_state_dict(mean, strict=False)
    return config["step"]


def main(arguments=None):
    """
    Command line of the script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipe", default="default", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--until", type=int)
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = build(
        options.output,
        recipe=options.recipe,
        n_steps=options.steps,
        resume=options.resume,
        start=options.start,
        n_threads=options.threads,
        device=options.device,
        until=options.until,
    )
    print(path)


if __name__ == "__main__":
    main()
