"""The gallery's scripts run alone, in short, and are what the gallery asks of them."""

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


@pytest.mark.slow
@by_name
def test_what_it_claims_is_so(script):
    for module in ("matplotlib", "sklearn", "tqdm"):  # extra `examples`
        pytest.importorskip(module)
    environment = os.environ | {"NORMKIT_QUICK": "1"}
    run = subprocess.run([sys.executable, "-W", "error", script], env=environment, capture_output=True, text=True)
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
