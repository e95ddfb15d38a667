"""The laws of merging Moments, which everything else relies on, against exact rational arithmetic.

The bound is that of docs/numerics.md, "Merging".
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor, as_completed
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest

import cases
import normkit
from reference import ROUNDINGS, working_eps

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies
laws = settings(deadline=None, derandomize=True, max_examples=30 if cases.QUICK else 200)

FIELDS = ("count", "mean", "m2", "min", "max")
U = 2.0**-53
NOTHING = normkit.Moments(0, 0.0, 0.0)

# ---------------------------------------------------------------------------------------------------------- the oracle


def exact(values):
    """Mean and sum of squared deviations, as fractions."""
    values = [Fraction(float(v)) for v in values]
    mean = sum(values) / len(values) if values else Fraction(0)
    return mean, sum((v - mean) ** 2 for v in values)


def moments_of(values):
    """Of one part: each field rounded once."""
    if len(values) == 0:
        return NOTHING
    mean, m2 = exact(values)
    return normkit.Moments(len(values), float(mean), float(m2), min(values), max(values))


def fields(moments):
    return tuple(float(getattr(moments, name)) for name in FIELDS)


def assert_is_whole(merged, parts, spread=1.0, own_mean=0.0, own_m2=0.0):
    """The bound on what merging adds, the parts themselves having these errors: of a mean, and of m2 relative to it."""
    values = [v for part in parts for v in part]
    mean, m2 = exact(values)
    n, k = len(values), len(parts) - 1
    largest = max((abs(float(exact(part)[0])) for part in parts if len(part)), default=0.0)
    e = (8 * (k + 1) * U * largest + own_mean) * spread
    m2_error = (8 * (k + 1) * U + own_m2) * float(m2) + 4 * e * math.sqrt(n * float(m2)) + 4 * n * e**2
    assert (merged.count, merged.min, merged.max) == (n, min(values, default=np.inf), max(values, default=-np.inf))
    assert abs(Fraction(float(merged.mean)) - mean) <= e, "mean"
    assert abs(Fraction(float(merged.m2)) - m2) <= m2_error, "m2"
    assert merged.m2 >= 0


# ---------------------------------------------------------------------------------------------------------- the values

unit = st.floats(-1, 1).filter(lambda v: v == 0 or abs(v) > 1e-100)  # whose squares do not vanish
KINDS = {
    "of any magnitude": st.tuples(unit, st.sampled_from([1e-30, 1e-3, 1.0, 1e7, 1e30])).map(math.prod),
    "far from zero": unit.map(lambda v: 1e8 + 1e-3 * v),
    "hardly different": st.integers(-8, 8).map(lambda i: 1.0 + i * 2.0**-52),
    "constant": st.sampled_from([0.1]),
    "of two places": st.tuples(st.sampled_from([-1e15, 1e15]), unit).map(sum),
    "halves": st.floats(width=16, allow_nan=False, allow_infinity=False),
}
part_lists = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.lists(st.lists(KINDS[kind], max_size=8), min_size=1, max_size=8)
)
any_parts = st.lists(st.lists(st.one_of(*KINDS.values()), max_size=5), min_size=1, max_size=8)
some_parts = st.one_of(part_lists, any_parts)


@laws
@given(some_parts)
def test_merged_parts_are_the_whole(parts):
    """From left to right, as everything here merges."""
    assert_is_whole(reduce(normkit.Moments.merge, map(moments_of, parts)), parts)


@laws
@given(some_parts, st.data())
def test_any_order_is_the_whole(parts, data):
    """Associative and commutative to rounding: any tree over any permutation."""
    nodes = [moments_of(part) for part in data.draw(st.permutations(parts))]
    while len(nodes) > 1:
        i = data.draw(st.integers(0, len(nodes) - 2))
        nodes[i : i + 2] = [nodes[i] + nodes[i + 1]]
    assert_is_whole(nodes[0], parts, spread=math.sqrt(max(1.0, math.log2(len(parts)))))


@laws
@given(some_parts, st.data())
def test_nothing_changes_nothing(parts, data):
    """The identity, and wherever there are parts without values, not a bit is different."""
    moments = [moments_of(part) for part in parts if part]
    whole = reduce(normkit.Moments.merge, moments, NOTHING)
    for _ in range(3):
        moments.insert(data.draw(st.integers(0, len(moments))), NOTHING)
    assert fields(reduce(normkit.Moments.merge, moments)) == fields(whole)
    assert NOTHING + NOTHING == NOTHING
    assert whole + NOTHING == whole == NOTHING + whole


@laws
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.floats(-1e300, 1e300))
def test_counts_and_constants_are_exact(counts, value):
    total = reduce(normkit.Moments.merge, [normkit.Moments(count, value, 0.0, value, value) for count in counts])
    assert float(total.count) == sum(counts)
    assert sum(counts) == 0 or fields(total)[1:] == (value, 0.0, value, value)


@laws
@given(some_parts, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_nonfinite_stays(parts, poison, data):
    """Wherever it is; the count and whatever of the range is known are right all the same."""
    moments = [moments_of(part) for part in parts]
    poisoned = normkit.moments(np.array([1.0, poison]))
    assert np.isnan(poisoned.m2)
    moments.insert(data.draw(st.integers(0, len(moments))), poisoned)
    merged = reduce(normkit.Moments.merge, moments)
    assert float(merged.count) == 2 + sum(map(len, parts))
    assert not np.isfinite(merged.mean) and np.isnan(merged.m2)
    values = [1.0, poison, *(v for part in parts for v in part)]
    np.testing.assert_array_equal((merged.min, merged.max), (np.min(values), np.max(values)))


@pytest.mark.parametrize("far", [1e200, 1.7e308])
def test_too_far_apart_is_not_finite(far):
    """Where the squared distance of two means overflows, the variance says so."""
    merged = normkit.Moments(3, far, 1.0) + normkit.Moments(3, -far, 1.0)
    assert not np.isfinite(merged.var()) and float(merged.count) == 6


def test_unknown_range_stays_unknown():
    known, unknown = moments_of([1.0, 2.0]), normkit.Moments(1, 5.0, 0.0)
    for merged in (known + unknown, unknown + known):
        assert np.isnan(merged.min) and np.isnan(merged.max)


@pytest.mark.parametrize("offset, scale", [(0.0, 1.0), (1e6, 1.0), (1e8, 1e-3)])
def test_many_parts(offset, scale):
    """A long fold of single values."""
    data = cases.sample((3_000,), np.float64, offset=offset, scale=scale)
    assert_is_whole(reduce(normkit.Moments.merge, map(moments_of, data[:, None])), data[:, None])


# ------------------------------------------------------------------------------------------------------------- of data


@laws
@given(some_parts, st.sampled_from(sorted(cases.DTYPES)))
def test_moments_of_parts_of_data(parts, dtype):
    """What `moments` finds in each part, of each type: its own error is of the working precision."""
    limit = 6e4 if dtype == "float16" else 1e35
    arrays = [np.clip(part, -limit, limit).astype(cases.DTYPES[dtype]) for part in parts if part]
    hypothesis.assume(arrays)
    wide = [array.astype(np.float64).tolist() for array in arrays]
    eps = float(ROUNDINGS * working_eps(dtype))
    deviation = max(math.sqrt(float(exact(part)[1]) / len(part)) for part in wide)
    merged = reduce(normkit.Moments.merge, [normkit.moments(array) for array in arrays])
    assert_is_whole(merged, wide, own_mean=eps * deviation, own_m2=eps)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_order_of_arrival_changes_no_bit(dtype):
    """Chunks measured by workers that finish whenever they do, merged in the order of the chunks."""
    x = cases.sample((4000, 7), cases.DTYPES[dtype], offset=100.0, scale=1.0)
    chunks = np.array_split(x, 13)
    expected = reduce(normkit.Moments.merge, [normkit.moments(chunk) for chunk in chunks]).to_bytes()
    for workers in (1, 2, 5):
        with ThreadPoolExecutor(workers) as pool:
            jobs = {pool.submit(lambda c: normkit.moments(c).to_bytes(), c): i for i, c in enumerate(chunks)}
            arrived = {jobs[job]: normkit.Moments.from_bytes(job.result()) for job in as_completed(jobs)}
        in_order = [arrived[i] for i in range(len(chunks))]
        assert reduce(normkit.Moments.merge, in_order).to_bytes() == expected
