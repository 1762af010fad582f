# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Make the packaged weights from nothing but seeds.

``python -m astro_disentangle.weights.build --output DIR`` trains on simulated
HSC and Legacy pairs that are never repeated, and writes ``default.safetensors``.
It can be stopped at any time and goes on where it was with ``--resume``; where astropy
is not installed it ends with the checkpoint, which ``--package`` makes weights of.
``torchrun --nproc-per-node N -m astro_disentangle.weights.build`` trains on N GPUs.
"""

import argparse
from pathlib import Path

from astro_disentangle.checkpoint import read_checkpoint
from astro_disentangle.keys import key
from astro_disentangle.model.bank import InstrumentBank
from astro_disentangle.model.centring import centre_physics
from astro_disentangle.model.network import NetworkConfig, new_network
from astro_disentangle.quality import WeightsError
from astro_disentangle.surveys import get_survey
from astro_disentangle.training.ahead import Ahead
from astro_disentangle.training.few_steps import learn_rules
from astro_disentangle.training.loop import Settings, Trainer
from astro_disentangle.training.objective import RECIPES
from astro_disentangle.training.parallel import Ranks, process_group
from astro_disentangle.training.source import SimulatedSource

__all__ = ["finish", "main", "package", "train"]

#: Seed of the galaxies of training; tests and scores use others.
TRAINING_SEED = 20261
#: Seeds of the galaxies behind the bank of instrument latents, the heads, the centre
#: and the rules of few steps.
BANK_SEED = 20262
HEAD_SEED = 20263
CENTRE_SEED = 20264
RULE_SEED = 20267
#: Peak of the learning rate, from nothing and from the weights of an earlier run.
_RATE, _RATE_FROM_START = 1e-3, 7e-4
#: Groups of eight galaxies that the heads are fitted to, and that have the centre.
_HEAD_GROUPS = 1024
_CENTRE_GROUPS = 1024


def train(
    output,
    *,
    recipe="default",
    n_steps=4500,
    batch_size=64,
    rate=None,
    start=None,
    resume=False,
    until=None,
    n_threads=None,
    device="cpu",
    n_workers=0,
    uses=1,
    n_shards=None,
):
    """
    Train on simulated pairs; runs on torch and numpy alone.

    Parameters
    ----------
    output : `~pathlib.Path`
        Folder for checkpoints.
    recipe : str
        Name of the objective.
    n_steps : int
        Steps in all.
    batch_size : int
        Pairs in a step, a multiple of 8 and of ``n_shards``.
    rate : float, optional
        Peak of the learning rate.
    start : str or `~pathlib.Path`, optional
        Checkpoint of an earlier run, whose mean weights are the first of this one, or
        a weights file.
    resume : bool
        Go on with the run in ``output``.
    until : int, optional
        Stop at this step.
    n_threads : int, optional
        Threads of torch.
    device : str
        Where to train.
    n_workers : int
        Processes that simulate ahead; 0 to simulate on ``device`` in between.
    uses : int
        How often each pair is shown, as `~astro_disentangle.training.ahead.Ahead` does.
    n_shards : int, optional
        Parts of a step, shared by the processes; as many as these by default.

    Returns
    -------
    trainer : `~astro_disentangle.training.loop.Trainer`
        With its network, the mean of its weights and its history.
    """
    import torch

    if n_threads is not None:
        torch.set_num_threads(n_threads)
    network = _network(recipe).to(device)
    seed, peak = TRAINING_SEED, _RATE
    if start is not None:
        earlier = _start_from(network, start)
        # Other galaxies than those of the earlier run, at the rate it had come to.
        seed, peak = key(TRAINING_SEED, "start", earlier), _RATE_FROM_START
    ranks = Ranks.current()
    n_shards = ranks.size if n_shards is None else n_shards
    settings = Settings(
        n_steps=n_steps,
        warmup=200,
        ema=0.998,
        seed=seed,
        learning_rate=peak if rate is None else rate,
        n_shards=n_shards,
    )
    source = SimulatedSource(
        tuple(network.surveys.values()),
        n_groups=batch_size // 8 // n_shards,
        seed=seed,
        device="cpu" if n_workers else device,
    )
    if n_workers:
        parts = ranks.parts(n_shards)
        source = Ahead(source, n_workers, uses, device, parts, n_shards)
    trainer = Trainer(network, source, RECIPES[recipe], settings, output)
    if resume:
        trainer.resume()
    trainer.run(until=until)
    return trainer


def package(output, *, recipe, weights, history, device="cpu"):
    """
    Give trained weights their centre, few-step rules, bank and heads, and write them.

    Parameters
    ----------
    output : `~pathlib.Path`
        Folder for the weights.
    recipe : str
        Name of the objective they were trained for.
    weights : dict of str to `torch.Tensor`
        Parameters of the network.
    history : list of dict
        Rows of the training.
    device : str
        Where to compute.

    Returns
    -------
    path : `~pathlib.Path`
        The weights file.
    """
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.simulation import simulate
    from astro_disentangle.weights.heads import simulated_heads

    network = finish(recipe, weights, device=device)
    surveys = tuple(network.surveys.values())
    groups = simulate(64, 8, surveys, seed=BANK_SEED, device=device)
    bank = InstrumentBank.observe(network, groups.batches, groups.group)
    network.to("cpu")
    heads = simulated_heads(network, surveys, n_groups=_HEAD_GROUPS, seed=HEAD_SEED)
    model = Disentangler(recipe=recipe, n_steps=history[-1]["step"])
    model._set_fitted(network, bank, history, "", heads)
    path = output / "default.safetensors"
    model.save(path, dtype="float16")
    return path


def finish(recipe, weights, *, device="cpu"):
    """
    A trained network with one centre of its surveys and rules of few steps.

    Parameters
    ----------
    recipe : str
        Name of the objective it was trained for.
    weights : dict of str to `torch.Tensor`
        Its parameters.
    device : str
        Where to compute, and where the network is.

    Returns
    -------
    network : `~astro_disentangle.model.network.Network`
        The network.
    """
    from astro_disentangle.simulation import simulate

    network = _network(recipe).to(device)
    network.load_state_dict(weights, strict=False)
    network.eval()
    surveys = tuple(network.surveys.values())
    if RECIPES[recipe].centred:
        skies = (
            simulate(64, 8, surveys, seed=CENTRE_SEED, step=step, device=device)
            for step in range(_CENTRE_GROUPS // 64)
        )
        centre_physics(network, (sky.batches for sky in skies))
    source = SimulatedSource(
        surveys, seed=RULE_SEED, revisit_every=0, elsewhere=False, device=device
    )
    gain = learn_rules(network, source, seed=RULE_SEED, progress=True)
    print("distance of the rules of few steps, learned over Adams':", gain)
    return network


def _network(recipe):
    """The network with its first weights."""
    surveys = (get_survey("hsc"), get_survey("legacy"))
    config = NetworkConfig(outlined=recipe != "counterfactual")
    return new_network(surveys, config, TRAINING_SEED)


def _mean_weights(path):
    """Mean weights of a checkpoint or those of a weights file, steps and history."""
    tensors, config, _ = read_checkpoint(path)
    whose = "average." if "step" in config else "network."
    mean = {
        name.removeprefix(whose): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(whose)
    }
    history = config.get("history", [])
    return mean, config.get("step", history[-1]["step"] if history else 0), history


def _start_from(network, path):
    """Take over the weights of an earlier run; the number of its steps."""
    mean, step, _ = _mean_weights(path)
    names = {name for name, _ in network.named_parameters()}
    # What a weights file has beside them is made after training, and made anew.
    later = {name for name, _ in network.named_buffers()}
    mean = {
        name: tensor
        for name, tensor in mean.items()
        if name not in later and not name.startswith("residual.")
    }
    if unknown := sorted(mean.keys() - names):
        raise WeightsError(
            f"'{path}' is of another network or recipe: it has {unknown[0]!r}, which "
            "this one lacks. Start from a checkpoint of the same recipe."
        )
    if new := sorted(names - mean.keys()):
        print(f"new, and not of {path}: {', '.join(new)}")
    network.load_state_dict(mean, strict=False)
    return int(step)


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
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--uses", type=int, default=1)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--package", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.package is None:
        with process_group(options.device) as device:
            trainer = train(
                options.output,
                recipe=options.recipe,
                n_steps=options.steps,
                batch_size=options.batch,
                rate=options.rate,
                start=options.start,
                resume=options.resume,
                until=options.until,
                n_threads=options.threads,
                device=device,
                n_workers=options.workers,
                uses=options.uses,
                n_shards=options.shards,
            )
        if trainer.ranks.rank:
            return
        weights, history = trainer.averaged(), trainer.history
    else:
        weights, _, history = _mean_weights(options.package)
    path = package(
        options.output,
        recipe=options.recipe,
        weights=weights,
        history=history,
        device=options.device,
    )
    print(path)


if __name__ == "__main__":
    main()
