"""scikit-learn's own tests, passed by the scalers as by scikit-learn's."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn.preprocessing.tests.test_data")

import sklearn.base
import sklearn.pipeline
import sklearn.preprocessing
from sklearn.base import is_regressor
from sklearn.utils.estimator_checks import check_estimator

from normkit import preprocessing

TESTS = Path(__file__).parent
MODULES = [f"sklearn.preprocessing.tests.{name}" for name in ("test_data", "test_common")]


def outcomes(directory, *options):
    """What became of each of the tests, and what was printed."""
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\n")  # not this project's settings
    report = directory / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        [*command, *options, "--pyargs", *MODULES],
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = re.sub(r"at 0x[0-9a-f]+", "", f"{case.get('classname')}::{case.get('name')}")
        found[name] = case[0].tag if len(case) else "passed"
    return found, run.stdout


@pytest.mark.slow
def test_tests_of_scikit_learn(tmp_path):
    own, _ = outcomes(tmp_path / "own")
    ours, printed = outcomes(tmp_path / "ours", "-p", "sklearn_stand_ins")
    assert len(own) > 300
    bad = {name: outcome for name, outcome in ours.items() if outcome in ("failure", "error") and own[name] == "passed"}
    assert not bad, printed
    # The names of some tests have the scalers in them, and so have ours.
    assert sorted(ours.values()) == sorted(own.values())
    calls = ast.literal_eval(re.search(r"normkit calls: ({.*})", printed)[1])
    for name in ("MinMaxScaler._partial_fit_table", "MinMaxScaler._map", "StandardScaler._partial_fit_table"):
        assert calls[name] > 30, calls


PARAMETERS = [
    ("StandardScaler", {}),
    ("StandardScaler", dict(with_mean=False)),
    ("StandardScaler", dict(with_std=False)),
    ("StandardScaler", dict(with_mean=False, with_std=False)),
    ("StandardScaler", dict(copy=False)),
    ("MinMaxScaler", {}),
    ("MinMaxScaler", dict(feature_range=(-3, 5))),
    ("MinMaxScaler", dict(clip=True)),
    ("MinMaxScaler", dict(copy=False)),
]


def checked(scaler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(scaler, on_skip=None, on_fail=None)
    return {result["check_name"]: (result["status"], result["exception"]) for result in results}


@pytest.mark.slow
@pytest.mark.parametrize("name, params", PARAMETERS)
def test_check_estimator(name, params):
    ours = checked(getattr(preprocessing, name)(**params))
    assert len(ours) > 40
    failed = {check: error for check, (status, error) in ours.items() if status not in ("passed", "skipped")}
    if params.get("copy") is False:  # some checks use their data again, whatever was written into them
        own = checked(getattr(sklearn.preprocessing, name)(**params))
        failed = {check: error for check, error in failed.items() if own[check][0] == "passed"}
    assert not failed


@pytest.mark.parametrize("name, params", PARAMETERS)
def test_is_one_of_scikit_learns(name, params):
    ours, own = (getattr(module, name)(**params) for module in (preprocessing, sklearn.preprocessing))
    assert isinstance(ours, type(own))
    assert ours.get_params() == own.get_params() and repr(ours) == repr(own)
    assert ours.__sklearn_tags__() == own.__sklearn_tags__()
    assert not is_regressor(ours)
    clone = sklearn.base.clone(ours)
    assert type(clone) is type(ours) and clone.get_params() == ours.get_params()
    X = np.random.default_rng(0).normal(size=(20, 3))
    pipeline = sklearn.pipeline.make_pipeline(ours, sklearn.preprocessing.PolynomialFeatures())
    assert pipeline.fit_transform(X).shape == (20, 10)
