# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Shared pieces of the tests: real images, small networks, one thread."""

import os
from pathlib import Path

import pytest
import torch

from astro_disentangle import get_survey
from astro_disentangle.model.network import Network, NetworkConfig

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--run-nightly", action="store_true", help="run the tests marked nightly too"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-nightly"):
        return
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="needs --run-nightly"))


TINY = {
    "physics_size": 16,
    "instrument_size": 8,
    "physics_widths": (8, 8, 16),
    "physics_depths": (1, 1, 1),
    "instrument_widths": (8, 8, 8),
    "decoder_width": 16,
    "condition": 16,
}


@pytest.fixture(scope="session")
def surveys():
    """The two packaged surveys."""
    return get_survey("hsc"), get_survey("legacy")


@pytest.fixture
def tiny_network(surveys):
    """A new small network, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(surveys, NetworkConfig(**TINY)).eval()


@pytest.fixture(scope="session")
def model():
    """The packaged model."""
    from astro_disentangle import Disentangler

    return Disentangler.load()


@pytest.fixture(scope="session")
def real_data():
    """Folder of real survey images, where the environment names one."""
    folder = os.environ.get("ASTRO_DISENTANGLE_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ASTRO_DISENTANGLE_REAL_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture
def published_network(surveys):
    """The same without an outline, as ``recipe="counterfactual"`` has it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Network(surveys, NetworkConfig(**TINY, outlined=False)).eval()
