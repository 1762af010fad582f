# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Imports go one way, and the package itself imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import astro_disentangle

ROOT = Path(astro_disentangle.__file__).parent
#: Rooms from the ground up: a room may import from those before it.
FLOORS = (
    ("quality", "keys", "survey", "surveys", "checkpoint", "estimator", "samples"),
    ("data", "simulation"),
    ("model", "serving"),
    ("training", "evaluation", "search", "weights", "translation"),
    ("mosaics",),
    ("disentangler",),
    ("embedding", "hyrax"),
    ("commands",),
    ("cli",),
)
#: Programs that are run, not imported; they may use the whole package.
PROGRAMS = (
    "weights/build.py",
    "weights/build_residual.py",
    "weights/card.py",
    "training/__main__.py",
)


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def _floor(room):
    for level, rooms in enumerate(FLOORS):
        if room in rooms:
            return level
    raise AssertionError(f"room {room!r} has no floor")


def _modules():
    return sorted(
        path
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in PROGRAMS
        and path != ROOT / "__init__.py"
        and path.name not in ("_version.py", "build_samples.py", "build_tables.py")
    )


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "astro_disentangle" or len(parts) < 2:
            continue
        known = {r for rooms in FLOORS for r in rooms}
        if parts[1] in known:
            assert _floor(parts[1]) <= _floor(room), name


@pytest.mark.parametrize("room", ["model", "training"])
def test_astropy_stays_out(room):
    for path in (ROOT / room).glob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert not roots & {"astropy", "photutils", "scipy", "sklearn"}, path


def test_weights_are_trained_where_there_is_no_astropy():
    code = (
        "import sys; sys.modules['astropy'] = None; "
        "import astro_disentangle.training.residual, astro_disentangle.training.loop; "
        "from astro_disentangle.weights import build, build_residual"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = (
        "import sys, astro_disentangle; "
        "print([m for m in ('torch', 'photutils', 'specutils', 'sklearn', 'lsdb', "
        "'dask', 'astropy') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in astro_disentangle.__all__:
        assert getattr(astro_disentangle, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = astro_disentangle.no_such_name


def test_no_assert_and_no_pickle_in_the_package():
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path
        assert "pickle" not in set(_imports(path)), path
