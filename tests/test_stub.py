"""The committed stub is what stubgen makes of the extension as it is, and says to type checkers what it should."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import normkit

ROOT = Path(__file__).parents[1]
STUB = ROOT / "python" / "normkit" / "_core.pyi"


def test_stub_is_up_to_date(tmp_path):
    pytest.importorskip("nanobind")
    fresh = tmp_path / "_core.pyi"
    subprocess.run(
        [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "normkit._core", "-o", fresh], check=True, timeout=120
    )
    difference = difflib.unified_diff(
        STUB.read_text().splitlines(), fresh.read_text().splitlines(), "committed", "extension", lineterm="", n=1
    )
    assert not list(difference), "run ./dev stubs\n" + "\n".join(difference)


def test_stub_is_installed():
    installed = Path(normkit.__file__).parent
    assert (installed / "_core.pyi").read_text() == STUB.read_text()
    assert (installed / "py.typed").exists()


# What the package's own modules take of the extension.
WITHIN = {
    "TorchRecord",
    "batch_norm_with_averages",
    "has_infinity",
    "min_max",
    "scale_columns",
    "torch_batch_norm",
    "torch_differentiate",
    "torch_group_norm",
    "torch_layer_norm",
    "torch_record",
    "torch_rms_norm",
}


def test_public_list():
    """Everything public is in the stub or a layer, and nothing public is left out of the list."""
    defined = set(re.findall(r"^(?:def|class) (\w+)", STUB.read_text(), re.MULTILINE))
    assert defined >= WITHIN
    defined -= WITHIN
    layers = set(normkit.layers.__all__) - {"Layer"}
    assert defined | layers | {"__version__"} == set(normkit.__all__)
    assert sorted(normkit.__all__) == normkit.__all__


USE = """
import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import normkit

Array = NDArray[np.float32]


def use(x: Array, text: str, flag: bool) -> None:
    assert_type(normkit.layer_norm(x), Array)
    assert_type(normkit.layer_norm(x, return_stats=True), tuple[Array, Array, Array])
    assert_type(normkit.rms_norm(x, x, return_stats=True), tuple[Array, Array])
    assert_type(normkit.rms_norm(x, return_stats=flag), Array | tuple[Array, Array])
    assert_type(normkit.standardize(x, axis=(0, 1)), Array)
    state = normkit.BatchNormState(3, momentum=None, dtype=np.float64)
    assert_type(normkit.batch_norm(x, state, training=True, out=x), Array)
    assert_type(normkit.Moments(3, [1, 2], x).std(1), NDArray[np.float64])
    state.load_state_dict(state.state_dict())
    normkit.layer_norm(x, axis=text)  # error
    normkit.group_norm(x)  # error
    normkit.BatchNormState(3, 0.1)  # error
    state.momentum = 0.2  # error
"""


def test_type_checker(tmp_path):
    pytest.importorskip("mypy")
    path = tmp_path / "use.py"
    path.write_text(USE)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-version=3.12", path]
    environment = os.environ | {"MYPYPATH": str(ROOT / "python")}  # an editable install is invisible to mypy
    result = subprocess.run(mypy, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    reported = {int(line) for line in re.findall(r"^use\.py:(\d+): error", result.stdout, re.MULTILINE)}
    wanted = {number for number, line in enumerate(USE.splitlines(), 1) if line.endswith("# error")}
    assert reported == wanted, result.stdout + result.stderr
