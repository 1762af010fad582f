# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Test pairs in files, bit by bit."""

import dataclasses

import torch

from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
from astro_disentangle.data.batch import CutoutBatch
from astro_disentangle.quality import WeightsError
from astro_disentangle.simulation.sky import Simulation
from astro_disentangle.survey import Survey

__all__ = ["load_pairs", "save_pairs"]

_CONTENT = "pairs rendered by GalSim 1"
#: The tensors of a batch.
_BATCH = [field.name for field in dataclasses.fields(CutoutBatch)][1:]


def save_pairs(path, pairs, *, seed, morphology="parametric"):
    """
    Write pairs to a safetensors file, atomically.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Destination; its folder must exist.
    pairs : `~astro_disentangle.simulation.Simulation`
        The pairs.
    seed : int
        Their seed, for the record, as is ``morphology``.
    morphology : str
        What the central galaxies are.

    Returns
    -------
    sha256 : str
        Digest that the file carries.

    Raises
    ------
    WeightsError
        If the file cannot be written; an earlier file is then intact.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astro_disentangle.evaluation.pair_files import load_pairs, save_pairs
    >>> from astro_disentangle.simulation import simulate
    >>> path = Path(tempfile.mkdtemp()) / "pairs.safetensors"
    >>> digest = save_pairs(path, simulate(1, 2, ["hsc", "legacy"], seed=0), seed=0)
    >>> len(load_pairs(path))
    2
    """
    from astro_disentangle import __version__

    tensors = {"group": pairs.group}
    for part in ("truth", "noiseless", "neighbours"):
        for name, tensor in getattr(pairs, part).items():
            tensors[f"{part}/{name}"] = tensor
    for survey, batch in pairs.batches.items():
        for name in _BATCH:
            tensors[f"batches/{survey}/{name}"] = getattr(batch, name)
    # As bits: a checkpoint refuses NaN, which here says that there is no value.
    real = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors |= {name: tensors[name].contiguous().view(torch.int32) for name in real}
    config = {
        "content": _CONTENT,
        "seed": seed,
        "morphology": morphology,
        "version": __version__,
        "surveys": [dataclasses.asdict(survey) for survey in pairs.surveys],
        "float32": real,
    }
    return write_checkpoint(path, tensors, config)


def load_pairs(path):
    """
    Read what `save_pairs` wrote, after checking all of it.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    pairs : `~astro_disentangle.simulation.Simulation`
        The same bits.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds something else.
    """
    tensors, config, _ = read_checkpoint(path)
    if config.get("content") != _CONTENT:
        raise WeightsError(
            f"'{path}' does not hold {_CONTENT!r} but {config.get('content')!r}. Was "
            "it written by save_pairs?"
        )
    for name in config["float32"]:
        tensors[name] = tensors[name].view(torch.float32)
    surveys = tuple(Survey.from_json(survey) for survey in config["surveys"])
    group = tensors.pop("group")
    parts = {"batches": {}, "truth": {}, "noiseless": {}, "neighbours": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    parts["batches"] = {
        survey.name: CutoutBatch(
            survey, *(parts["batches"][f"{survey.name}/{name}"] for name in _BATCH)
        )
        for survey in surveys
    }
    return Simulation(surveys=surveys, group=group, **parts)
