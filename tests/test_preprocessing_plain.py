"""The scalers where scikit-learn is not installed: the same results, and messages of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parent / "plain_scalers.py"

# Imports what is there, then takes away what is not there in older versions.
OLD = """
import sklearn.preprocessing, sklearn.utils.validation
del sklearn.utils.validation.validate_data
import normkit.preprocessing
"""


def results(path, *arguments):
    run = subprocess.run([sys.executable, str(PROGRAM), str(path), *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(path, allow_pickle=True) as found:
        return dict(found)


def test_without_scikit_learn(tmp_path):
    plain = results(tmp_path / "plain.npz")
    assert len(plain) > 80
    pytest.importorskip("sklearn", minversion="1.6")
    own = results(tmp_path / "with.npz", "with scikit-learn")
    assert plain.keys() == own.keys()
    for name, value in plain.items():
        np.testing.assert_array_equal(value, own[name], err_msg=name)
        assert value.dtype == own[name].dtype, name


def test_old_scikit_learn_is_refused():
    pytest.importorskip("sklearn", minversion="1.6")
    run = subprocess.run([sys.executable, "-c", OLD], capture_output=True, text=True)
    assert "ImportError: normkit.preprocessing needs scikit-learn 1.6 or newer, or none; found scikit-le" in run.stderr
