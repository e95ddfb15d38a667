"""The gallery's scripts run, in short, and are what the gallery asks of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "gallery"
SCRIPTS = sorted(FOLDER.glob("plot_*.py"))
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


ALL = """
import runpy, sys
from matplotlib import pyplot
for script in sys.argv[1:]:
    print(script, flush=True)
    runpy.run_path(script, run_name="__main__")
    pyplot.close("all")
"""


@pytest.mark.slow
def test_what_they_claim_is_so():
    """In one process, whose imports take longer than the scripts; each sees only what it defines, as in the gallery."""
    for module in ("matplotlib", "sklearn", "tqdm"):  # extra `examples`
        pytest.importorskip(module)
    environment = os.environ | {"NORMKIT_QUICK": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(FOLDER)}
    command = [sys.executable, "-W", "error", "-c", ALL, *map(str, SCRIPTS)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@by_name
def test_it_is_short_and_claims_something(script):
    text = script.read_text()
    assert text.count("\n") < 120
    assert re.search(r"^ *assert ", text, re.MULTILINE)
    assert "**What came out.**" in text
    assert "environ" not in text  # common.py knows whether to be quick


def test_the_table_has_them_all():
    table = re.findall(r":doc:`(plot_\w+)`", (FOLDER / "GALLERY_HEADER.rst").read_text())
    assert sorted(table) == [script.stem for script in SCRIPTS]
