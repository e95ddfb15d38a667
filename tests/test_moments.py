"""Moments: the laws of merging, which everything else relies on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import cases
import normkit
import reference

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies
laws = settings(deadline=None, derandomize=True, max_examples=30 if cases.QUICK else 200)

FIELDS = ("count", "mean", "m2", "min", "max")
magnitudes = st.sampled_from([1e-30, 1e-3, 1.0, 1e7, 1e30])
values = st.lists(st.floats(-1, 1), min_size=0, max_size=30)


def moments_of(data):
    """Of one set of values, by the oracle's arithmetic."""
    data = np.asarray(data, np.float64)
    if data.size == 0:
        return normkit.Moments(0, 0.0, 0.0)
    mean, var = reference.moments(reference.widen(data), (0,))
    return normkit.Moments(data.size, float(mean[0]), float(var[0] * data.size), data.min(), data.max())


def fields(moments):
    return tuple(float(getattr(moments, name)) for name in FIELDS)


def assert_equal(a, b):
    np.testing.assert_array_equal(fields(a), fields(b))


def assert_close(a, b, scale):
    """Counts and ranges equal; mean and m2 within a few roundings of the largest value, and of its square."""
    assert (float(a.count), float(a.min), float(a.max)) == (float(b.count), float(b.min), float(b.max))
    n, eps = max(float(a.count), 1), 8 * np.finfo(np.float64).eps
    np.testing.assert_allclose(float(a.mean), float(b.mean), rtol=0, atol=eps * scale)
    np.testing.assert_allclose(float(a.m2), float(b.m2), rtol=0, atol=eps * n * scale**2)


@laws
@given(values, values, magnitudes, st.floats(-1e3, 1e3))
def test_merge_is_the_moments_of_the_union(a, b, scale, offset):
    a, b = ([scale * (v + offset) for v in part] for part in (a, b))
    assert_close(moments_of(a) + moments_of(b), moments_of(a + b), scale * (1 + abs(offset)))


@laws
@given(values, values, values, magnitudes)
def test_associative(a, b, c, scale):
    a, b, c = (moments_of([scale * v for v in part]) for part in (a, b, c))
    assert_close((a + b) + c, a + (b + c), scale)


@laws
@given(values, values, magnitudes)
def test_commutative(a, b, scale):
    a, b = (moments_of([scale * v for v in part]) for part in (a, b))
    assert_close(a + b, b + a, scale)


@laws
@given(values)
def test_empty_is_the_identity(a):
    a, empty = moments_of(a), moments_of([])
    assert_equal(a + empty, a)
    assert_equal(empty + a, a)


@laws
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_counts_are_exact(counts):
    total = moments_of([])
    for count in counts:
        total += normkit.Moments(count, 1.5, 0.0, 1.5, 1.5)
    assert float(total.count) == sum(counts)
    assert sum(counts) == 0 or fields(total)[1:] == (1.5, 0.0, 1.5, 1.5), "merging equal constants is exact"


@laws
@given(values.filter(len), st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans())
def test_nonfinite_stays(a, poison, first):
    a, b = moments_of(a), normkit.Moments(1, poison, np.nan)
    merged = b + a if first else a + b
    assert float(merged.count) == float(a.count) + 1
    assert not np.isfinite(float(merged.mean)) and np.isnan(float(merged.m2))
    assert np.isnan(float(merged.min)) and np.isnan(float(merged.max)), "an unknown range stays unknown"


def test_far_apart():
    """Two sets of tiny spread a great distance apart: the spread between them is what counts."""
    a, b = normkit.Moments(10, 1e15, 1e-3, 1e15, 1e15), normkit.Moments(30, -1e15, 1e-3, -1e15, -1e15)
    merged = a + b
    np.testing.assert_allclose([float(merged.mean), float(merged.var())], [-0.5e15, 0.75e30], rtol=1e-15)


def test_many_parts():
    """A long fold of single values: each mean is rounded, which m2 feels in proportion to mean / std, here 1e6."""
    data = cases.sample((10_000,), np.float64, offset=1e6, scale=1.0)
    total = moments_of([])
    for value in data:
        total = total + normkit.Moments(1, value, 0.0, value, value)
    whole = moments_of(data)
    np.testing.assert_allclose(float(total.mean), float(whole.mean), rtol=1e-14)
    np.testing.assert_allclose(float(total.m2), float(whole.m2), rtol=1e6 * 1e-15)


# ------------------------------------------------------------------------------------------------------- the class


def test_arrays_of_moments():
    """One set per feature; parameters are broadcast; merged elementwise."""
    a = normkit.Moments(2, [[1.0, 5.0, 3.0]] * 2, [[2.0], [0.0]], min=0.0, max=7.0)
    assert a.count.shape == a.mean.shape == a.m2.shape == a.min.shape == a.max.shape == (2, 3)
    merged = a.merge(a)
    np.testing.assert_array_equal(merged.count, np.full((2, 3), 4.0))
    np.testing.assert_array_equal(merged.mean, a.mean)
    np.testing.assert_array_equal(merged.m2, 2 * a.m2)
    assert repr(a)


@pytest.mark.parametrize("ddof", [0, 1, 0.5])
def test_var_and_std(ddof):
    data = cases.sample((100, 3), np.float64)
    a = normkit.Moments(100, data.mean(axis=0), 100 * data.var(axis=0))
    np.testing.assert_allclose(a.var(ddof), data.var(axis=0, ddof=ddof), rtol=1e-14)
    np.testing.assert_allclose(a.std(ddof=ddof), data.std(axis=0, ddof=ddof), rtol=1e-14)


def test_variance_of_too_few():
    assert np.isnan(float(normkit.Moments(0, 0.0, 0.0).var()))
    assert float(normkit.Moments(1, 3.0, 0.0).var()) == 0.0
    assert np.isnan(float(normkit.Moments(1, 3.0, 0.0).var(ddof=1)))


def test_immutable():
    a = normkit.Moments(2, [1.0, 2.0], [0.5, 0.25])
    for name in FIELDS:
        with pytest.raises(AttributeError):
            setattr(a, name, 1.0)
        with pytest.raises(ValueError, match="read-only"):
            getattr(a, name)[0] = 1.0


CLONES = {
    "bytes": lambda a: normkit.Moments.from_bytes(a.to_bytes()),
    "pickle": lambda a: pickle.loads(pickle.dumps(a)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_clones(clone, shape):
    a = normkit.Moments(*(cases.random(shape, i).uniform(1, 2, shape) for i in range(3)))
    b = clone(a)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(b, name), getattr(a, name))
        assert getattr(b, name).shape == shape


@pytest.mark.parametrize("broken", [b"", b"normkit", bytes(8), bytes(1000)])
def test_broken_bytes_are_refused(broken):
    with pytest.raises(ValueError, match="from_bytes"):
        normkit.Moments.from_bytes(broken)


def test_truncated_bytes_are_refused():
    data = normkit.Moments(2, [1.0, 2.0], [0.5, 0.25]).to_bytes()
    for end in range(len(data)):
        with pytest.raises(ValueError, match="from_bytes"):
            normkit.Moments.from_bytes(data[:end])
    with pytest.raises(ValueError, match="from_bytes"):
        normkit.Moments.from_bytes(data + b"\0")


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        ((-1, 0.0, 0.0), "count.*-1"),
        ((np.inf, 0.0, 0.0), "count.*inf"),
        ((np.nan, 0.0, 0.0), "count.*nan"),
        ((2, 0.0, -1.0), "m2.*-1"),
        ((2, 0.0, 1.0, 3.0, 2.0), "min.*max.*3"),
    ],
)
def test_impossible_moments_are_refused(arguments, pattern):
    with pytest.raises(ValueError, match=f"Moments: {pattern}"):
        normkit.Moments(*arguments)


def test_merge_refuses_other_shapes():
    a, b = normkit.Moments(2, [1.0, 2.0], 0.0), normkit.Moments(2, [1.0, 2.0, 3.0], 0.0)
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        a.merge(b)
    with pytest.raises(TypeError):
        a + 1.0


# ------------------------------------------------------------------------------------------- into the training state


def test_update_of_a_state():
    """A state fed with moments is the state that saw the data, and cut batches merge to whole ones."""
    data = cases.sample((64, 5), np.float64)
    by_data = normkit.BatchNormState(5, dtype="float64")
    normkit.batch_norm(data, by_data, training=True)
    of = lambda x: normkit.Moments(len(x), x.mean(axis=0), len(x) * x.var(axis=0), x.min(axis=0), x.max(axis=0))  # noqa: E731
    by_moments = normkit.BatchNormState(5, dtype="float64")
    by_moments.update(of(data[:20]) + of(data[20:]))
    np.testing.assert_allclose(by_moments.running_mean, by_data.running_mean, rtol=1e-14)
    np.testing.assert_allclose(by_moments.running_var, by_data.running_var, rtol=1e-13)
    assert by_moments.num_batches_tracked == 1


def test_update_with_no_values_does_nothing():
    state = normkit.BatchNormState(2)
    state.update(normkit.Moments([0, 0], 0.0, 0.0))
    assert state.num_batches_tracked == 0 and state.skipped == 0
    np.testing.assert_array_equal(state.running_var, [1.0, 1.0])


@pytest.mark.parametrize(
    "moments",
    [
        lambda: normkit.Moments(4, [1.0, 2.0, 3.0], 0.5),
        lambda: normkit.Moments(4, [[1.0, 2.0]], 0.5),
        lambda: normkit.Moments([4, 1], [1.0, 2.0], 0.5),
        lambda: normkit.Moments([4, 0], [1.0, 2.0], 0.5),
    ],
)
def test_update_refuses(moments):
    """Another number of features, or a feature whose unbiased variance does not exist, changes nothing."""
    state = normkit.BatchNormState(2)
    with pytest.raises(ValueError):
        state.update(moments())
    assert (state.num_batches_tracked, state.running_mean.tolist(), state.running_var.tolist()) == (0, [0, 0], [1, 1])
