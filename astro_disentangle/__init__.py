# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Separate galaxies from the telescopes that took their images.

The public names are loaded when they are first used: importing the package
imports neither torch nor any optional dependency.
"""

import importlib
import sys

_PUBLIC = {
    "Disentangler": "disentangler",
    "Survey": "survey",
    "get_survey": "surveys",
    "Cutouts": "data.read",
    "SurveyCutout": "data.cutout",
    "PairedCutouts": "data.pairs",
    "PairStream": "data.pair_stream",
    "simulate_pairs": "simulation.pairs",
    "embed_catalog": "embedding",
    "FLAGS": "quality",
    "decode_flags": "quality",
    "DisentangleError": "quality",
    "CutoutError": "quality",
    "SurveyMismatchError": "quality",
    "WeightsError": "quality",
    "NotFittedError": "quality",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    if name == "__version__":
        from importlib.metadata import version

        # Kept, so that it is looked up once.
        globals()[name] = version("astro_disentangle")
        return globals()[name]
    if name in _PUBLIC:
        module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


if "astropy.nddata" in sys.modules:
    # Who has it can say CCDData.read(path, format="mmu") now.
    importlib.import_module(f"{__name__}.data.mmu_reader")
