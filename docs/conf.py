# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Settings of Sphinx; the astropy ones come from ``sphinx_astropy.conf.v3``."""

import os
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx_astropy.conf.v3 import *  # noqa: F403
from sphinx_astropy.conf.v3 import exclude_patterns, extensions, intersphinx_mapping

from astro_disentangle.quality import flag_table
from astro_disentangle.surveys import survey_table

project = "astro_disentangle"
author = "the astro_disentangle developers"
project_copyright = f"2026, {author}"
release = installed_version("astro_disentangle")
version = ".".join(release.split(".")[:2])

extensions += ["sphinx.ext.mathjax", "sphinx_gallery.gen_gallery"]
exclude_patterns += ["_build", "**.ipynb_checkpoints", "changes/*", "tutorials/*"]

# Tutorials are run with every build, and an error in one of them ends it.
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "generated/tutorials",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
}

for name in ("h5py", "pyerfa", "pytest", "asdf", "asdf-astropy"):
    intersphinx_mapping.pop(name, None)
intersphinx_mapping |= {
    "photutils": ("https://photutils.readthedocs.io/en/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}

html_title = f"{project} {release}"
html_theme_options = {"logo": {"text": project}}
numpydoc_xref_param_type = False
nitpicky = True
# fit, add_survey and fit_residual come from a base class.
automodsumm_inherited_members = True

# The tables of flags and of surveys are written by the registries themselves.
for name, table in (("flags", flag_table()), ("surveys", survey_table())):
    (Path(__file__).parent / f"{name}.inc").write_text(table, encoding="utf-8")

# A base class without a page of its own.
nitpick_ignore = [("py:class", "astro_disentangle.training.trainable.Trainable")]

# Without a network nothing of other projects can be resolved: set this variable to
# check these pages alone.
if os.environ.get("ASTRO_DISENTANGLE_DOCS_OFFLINE"):
    intersphinx_mapping = {}
    nitpick_ignore_regex = [
        (".*", r"(astropy|numpy|pathlib|photutils|torch)\..*"),
        (".*", "NDData|dict|list|tuple|str|int|float|bool"),
    ]
