"""The site: the guides in this folder, the reference from the docstrings, the gallery from examples/gallery.

`./dev docs` builds it; nothing is fetched from the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import normkit

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SCRIPTS = ROOT / "examples" / "gallery"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]  # what the gallery imports

project = "normkit"
author = "normkit developers"
version = release = normkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["README.md"]  # the contents, for readers of the repository
html_theme = "furo"
html_title = f"normkit {release}"
default_role = "py:obj"  # single backticks in docstrings: a link where there is such an object
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # in Python code; the extension's signatures come with its docstrings
numpydoc_show_class_members = False

# The table in the gallery's header is its order; a script that is not in it is an error.
TABLE = re.findall(r":doc:`(plot_\w+)`", (SCRIPTS / "GALLERY_HEADER.rst").read_text())
sphinx_gallery_conf = {
    "examples_dirs": str(SCRIPTS),
    "gallery_dirs": "gallery",
    "ignore_pattern": r"common\.py",
    "within_subsection_order": ExplicitOrder([f"{name}.py" for name in TABLE]),
    "reset_modules": (),  # plots keep the style that common.py gives them
    "download_all_examples": False,
    "notebook_extensions": (),
    "capture_repr": (),  # what scripts print is enough
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}


def forget_stale_results() -> None:
    """Have the gallery run again if anything changed that it stands on: sphinx-gallery looks at each script alone."""
    paths = [*ROOT.glob("examples/*.py"), SCRIPTS / "common.py", *Path(normkit.__file__).parent.rglob("*.py")]
    paths.append(Path(normkit._core.__file__))
    digest = hashlib.sha256(str(bool(os.environ.get("NORMKIT_QUICK"))).encode())
    for path in sorted(paths):
        digest.update(path.read_bytes())
    stamp = DOCS / "gallery" / "made_with.txt"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        shutil.rmtree(stamp.parent, ignore_errors=True)
        stamp.parent.mkdir()
        stamp.write_text(digest.hexdigest())


# What has a page by another name; those of the gallery's scripts are made before pages are read.
PAGES = {
    SCRIPTS: DOCS / "gallery" / "index.rst",
    DOCS / "decisions": DOCS / "decisions" / "index.md",
    ROOT / "README.md": DOCS / "index.md",
    DOCS / "README.md": DOCS / "index.md",
    ROOT / "CONTRIBUTING.md": DOCS / "contributing.md",
    ROOT / "CHANGELOG.md": DOCS / "changelog.md",
}


def adapt_links(text: str, source: Path, folder: Path) -> str:
    """Make the relative links of a file in the repository right for a page in `folder`.

    They lead to a page where there is one, to other files as downloads; what leads elsewhere becomes plain text.
    """

    def adapted(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        if re.match(r"\w+:", target):
            return match[0]
        path = (source.parent / target).resolve()
        page = DOCS / "gallery" / f"{path.stem}.rst" if path.stem in TABLE else path
        path = PAGES.get(path, page)
        if path.is_file() and (path.suffix != ".md" or path.is_relative_to(DOCS)):
            return f"[{label}]({os.path.relpath(path, folder)}{anchor or ''})"
        return label

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)", adapted, text)


def read_source(app: object, docname: str, content: list[str]) -> None:
    """Adapt a page."""
    path = DOCS / f"{docname}.md"
    if path.exists():
        content[0] = adapt_links(content[0], path, path.parent)


def read_included(app: object, path: Path, parent: str, content: list[str]) -> None:
    """Adapt what a page in this folder includes."""
    content[0] = adapt_links(content[0], (DOCS / path).resolve(), DOCS)


def setup(app: object) -> None:
    """Connect the above."""
    forget_stale_results()
    app.connect("source-read", read_source)  # type: ignore[attr-defined]
    app.connect("include-read", read_included)  # type: ignore[attr-defined]
