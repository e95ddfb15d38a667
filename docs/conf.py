"""Sphinx: the guides in this folder, the reference from the docstrings, the gallery from examples/gallery.

`./dev docs` builds it all; nothing is fetched from the network.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import normkit

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GALLERY = ROOT / "examples" / "gallery"
sys.path[:0] = [str(GALLERY), str(GALLERY.parent)]  # what the scripts of the gallery import

project = "normkit"
author = "normkit developers"
version = release = normkit.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_gallery.gen_gallery"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["README.md"]  # the table of contents for who reads the files in the repository
default_role = "py:obj"  # single backticks in docstrings; what is no object stays as it is
html_theme = "furo"
html_title = f"normkit {release}"
html_static_path: list[str] = []

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the signatures of the extension have them; docstrings describe the types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Written into this folder and ignored by git; the reference is in docs/reference/, the gallery in docs/gallery/.
sphinx_gallery_conf = {
    "examples_dirs": str(GALLERY),
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "ignore_pattern": r"(__init__|common)\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": False,
    "reset_modules": (),  # plots keep the style that common.py gives them
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1,
}
