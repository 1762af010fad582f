# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What a weights file holds, and a network from it."""

import torch

from astro_disentangle.evaluation.properties import Properties
from astro_disentangle.model.bank import InstrumentBank
from astro_disentangle.model.network import NetworkConfig, new_network
from astro_disentangle.quality import WeightsError
from astro_disentangle.survey import Survey

__all__ = ["check_device", "pack", "unpack"]


def check_device(device):
    """
    A device of torch that is there.

    Parameters
    ----------
    device : str, `torch.device` or None
        What the user asks for; None for the CPU.

    Returns
    -------
    device : str
        The device.

    Raises
    ------
    ValueError
        If torch does not know it or it is not there.
    """
    device = "cpu" if device is None else device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"'device' must be one that torch can use here; got {device!r}: {reason}."
        ) from error
    return str(device)


def pack(network, bank, recipe, history, dtype, heads=None):
    """
    A fitted model as tensors and configuration.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    bank : `~astro_disentangle.model.bank.InstrumentBank`
        Its bank.
    recipe : str
        Name of the objective.
    history : list of dict
        Rows of the history.
    dtype : {"float32", "float16"}
        Precision of the network's numbers.
    heads : dict of str to `Properties`, optional
        What is read from the latents, by kind of latent, as
        `~astro_disentangle.evaluation.properties.Properties`.

    Returns
    -------
    tensors : dict of str to `torch.Tensor`
        For `~astro_disentangle.checkpoint.write_checkpoint`.
    config : dict
        The same.
    """
    tensors = {
        f"network.{name}": tensor.to(getattr(torch, dtype))
        for name, tensor in network.state_dict().items()
    }
    tensors.update(bank.tensors())
    heads = heads or {}
    for kind, properties in heads.items():
        for name, tensor in properties.head.state_dict().items():
            tensors[f"heads.{kind}/{name}"] = tensor
    config = {
        "surveys": [survey.to_json() for survey in network.surveys.values()],
        "network": dict(vars(network.config)),
        "residual": list(network.residual_surveys),
        "recipe": recipe,
        "history": [
            {name: float(value) for name, value in row.items()} for row in history
        ],
        "heads": {kind: properties.describe() for kind, properties in heads.items()},
    }
    return tensors, config


def unpack(path, tensors, config):
    """
    A fitted model from what `pack` made.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file, for messages.
    tensors : dict of str to `torch.Tensor`
        Its tensors.
    config : dict
        Its configuration.

    Returns
    -------
    network, bank, recipe, history, heads : tuple
        As `pack` takes them.

    Raises
    ------
    WeightsError
        If something is missing, unexpected or of another shape.
    """
    if "settings" in config:
        raise WeightsError(
            f"'{path}' is the checkpoint of an unfinished run; go on with it by "
            "fit(pairs, resume=...), which gives weights to save."
        )
    try:
        described = [Survey.from_json(text) for text in config["surveys"]]
        sizes = NetworkConfig(**config["network"])
        recipe, history = config["recipe"], config["history"]
        # Files written before there were residual latents have none.
        residual = config.get("residual", [])
        network = new_network(described, sizes, 0, residual)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"'{path}' is of another version of the package: {error}."
        ) from error
    state = network.state_dict()
    found = {
        name.removeprefix("network."): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith("network.")
    }
    # Files written before there were rules of few steps have Adams'.
    found = {n: t for n, t in state.items() if ".rule_" in n} | found
    for name in sorted({*state, *found}):
        shapes = [tuple(part[name].shape) for part in (state, found) if name in part]
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            raise WeightsError(
                f"'{path}' is of another network: {name!r} is missing, "
                "unexpected, or of another shape."
            )
    network.load_state_dict(found)
    bank = InstrumentBank.from_tensors(
        {name: t for name, t in tensors.items() if name.startswith("bank.")}
    )
    if set(bank.z_instrument) != set(network.surveys):
        raise WeightsError(f"'{path}' lacks the bank of instrument latents.")
    return network, bank, recipe, history, _heads(path, tensors, config)


def _heads(path, tensors, config):
    """The heads of a file; those written before there were any have none."""
    heads = {}
    found = {name for name in tensors if name.startswith("heads.")}
    try:
        for kind, description in config.get("heads", {}).items():
            start = f"heads.{kind}/"
            state = {
                name.removeprefix(start): tensors[name]
                for name in found
                if name.startswith(start)
            }
            heads[kind] = Properties.from_description(description, state)
            found -= {start + name for name in state}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"'{path}' has damaged property heads: {error}") from error
    if found:
        raise WeightsError(f"'{path}' has an unexpected tensor {min(found)!r}.")
    return heads
