"""Digits kept of NIST's reference statistics, and the tables of docs/accuracy.md."""

from __future__ import annotations

import importlib.util
import sys
from decimal import Context, Decimal
from fractions import Fraction
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

import normkit
import strd
from cases import DTYPES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
COUNTS = dict(
    Lew=200, Lottery=218, Mavro=50, Michelso=100, PiDigits=5000, NumAcc1=3, NumAcc2=1001, NumAcc3=1001, NumAcc4=1001
)
STATED = {"float64": 14.5, "float32": 7.0, "float16": 7.0, "bfloat16": 7.0}  # in docs/accuracy.md

each_set = pytest.mark.parametrize("name", strd.SETS)


# ------------------------------------------------------------------------------------------------- the data themselves


def test_all_sets_are_there():
    assert {own.name: len(own.values) for own in strd.SETS.values()} == COUNTS


@each_set
def test_values_are_those_certified(name):
    """In exact arithmetic the values have the certified statistics to the last digit, the order included."""
    own = strd.SETS[name]
    mean, std = strd.exact(own.values)
    for certified, value in ((own.mean, mean), (own.std, std), (own.autocorrelation, strd.autocorrelation(own.values))):
        digits = Context(prec=len(certified.as_tuple().digits))
        value = Fraction(value)
        assert digits.divide(Decimal(value.numerator), Decimal(value.denominator)) == certified


@pytest.mark.parametrize(
    "actual, expected, digits",
    [
        (1.001, Decimal(1), 3.0),
        (-99.0, Fraction(-100), 2.0),
        (1.0, Decimal(1), 15.0),
        (1 + 2**-52, Decimal(1), 15.0),
        (3.0, Decimal(1), 0.0),
        (0.0, Decimal(0), 15.0),
        (1e-300, Decimal(0), 0.0),
        (np.nan, Decimal(1), 0.0),
        (np.inf, Decimal(1), 0.0),
    ],
)
def test_digits(actual, expected, digits):
    assert strd.digits(actual, expected) == pytest.approx(digits, abs=1e-12)


# --------------------------------------------------------------------------------------------------------- digits kept


def by_moments(m):
    return float(m.mean), float(m.std(ddof=1))


def by_column(x, order):
    """The second of three columns, whose neighbours are of other magnitudes."""
    m = normkit.moments(np.asarray(np.stack([-x, x, x / 4], axis=1), x.dtype, order=order))
    return float(m.mean[1]), float(m.std(ddof=1)[1])


def by_layer_norm(x):
    """In float64, where mean and rstd are not rounded to less."""
    _, mean, rstd = normkit.layer_norm(x, eps=0.0, return_stats=True)
    return float(mean), float(1 / rstd) * (len(x) / (len(x) - 1)) ** 0.5


def least(dtype, mean, std, merged):
    """Digits of mean and std that docs/accuracy.md states; merging costs one for each digit of mean / std."""
    loss = np.log10(1 + abs(float(mean) / float(std))) if merged and std else 0.0
    return STATED[dtype], min(STATED[dtype], STATED["float64"] - loss)


def assert_kept(actual, values, dtype, merged):
    expected = strd.exact(values.astype(np.float64).tolist())
    kept = [strd.digits(*pair) for pair in zip(actual, expected, strict=True)]
    stated = least(dtype, *expected, merged)
    assert kept[0] >= stated[0] and kept[1] >= stated[1], f"{kept} digits of mean and std"


# How, and whether it is by merging several blocks.
WAYS = {
    "row": (lambda x: by_moments(normkit.moments(x)), False),
    "strided": (lambda x: by_moments(normkit.moments(np.repeat(x, 3)[1::3])), False),
    "column": (lambda x: by_column(x, "C"), True),
    "column in Fortran's order": (lambda x: by_column(x, "F"), False),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@each_set
def test_digits_kept(name, way, dtype):
    """Of the statistics of the rounded values."""
    if dtype == "float16" and name in ("NumAcc1", "NumAcc3", "NumAcc4"):
        pytest.skip("beyond its range")
    x, (run, merged) = strd.SETS[name].array(DTYPES[dtype]), WAYS[way]
    assert_kept(run(x), x, dtype, merged or len(x) > 2048)


@pytest.mark.parametrize("parts", [2, 3, 50])
@each_set
def test_digits_kept_by_merging(name, parts):
    """A mean is rounded to float64 in each part: one digit less of the standard deviation for each of mean / std."""
    x = strd.SETS[name].array()
    moments = [normkit.moments(part) for part in np.array_split(x, min(parts, len(x)))]
    assert_kept(by_moments(reduce(normkit.Moments.merge, moments)), x, "float64", merged=True)


@each_set
def test_digits_kept_by_a_normalizer(name):
    x = strd.SETS[name].array()
    assert_kept(by_layer_norm(x), x, "float64", merged=len(x) > 2048)


@pytest.mark.parametrize("way", WAYS)
@each_set
def test_digits_of_what_is_certified(name, way):
    """By any way: as many as the data still have after rounding to float64, but for less than one."""
    own = strd.SETS[name]
    x, expected = own.array(), strd.exact(own.values)
    for actual, possible, certified in zip(WAYS[way][0](x), strd.exact(x.tolist()), expected, strict=True):
        assert strd.digits(actual, certified) >= min(strd.digits(possible, certified), STATED["float64"]) - 1


# ------------------------------------------------------------------------------------------------------------ the page


def cells(lines):
    """Of a table: head of each column to its cells."""
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return dict(zip(head, zip(*rows, strict=True), strict=True))


def test_tables_are_what_the_script_prints():
    """Every column that is normkit's or the data's own; the others' depend on their versions."""
    pytest.importorskip("sklearn")
    path = ROOT / "bench" / "digits.py"
    if not path.exists():
        pytest.skip("the benchmark is not here")
    spec = importlib.util.spec_from_file_location("digits_script", path)
    script = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(script)
    sys.path[:] = before
    tables = [t.splitlines() for t in PAGE.read_text().split("\n\n") if t.startswith("| set ")]
    for documented, dtype in zip(tables, (np.float64, np.float32), strict=True):
        documented, printed = cells(documented), cells(script.table(dtype))
        assert list(documented) == list(printed)
        own = [head for head in printed if head in ("set", "values") or "normkit" in head or "best" in head]
        assert len(own) == (6 if dtype is np.float64 else 4)
        for head in own:
            assert documented[head] == printed[head], head


def test_stated_digits_are_those_tested():
    text = " ".join(PAGE.read_text().split())
    assert f"at least {STATED['float64']} digits" in text
    assert f"at least {STATED['float32']:.0f} for" in text
