"""The class Moments, and what a training state makes of it."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit

FIELDS = ("count", "mean", "m2", "min", "max")


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


def test_equality():
    """Of the shape and of every value. NaN equals NaN: two copies of one set are equal."""
    some = dict(count=[2.0, 2.0], mean=[1.0, np.nan], m2=[0.5, np.nan], min=[0.0, np.nan], max=[2.0, np.nan])
    a, same = normkit.Moments(**some), normkit.Moments(**some)
    assert a == same
    assert hash(a) == hash(same)
    assert not (a != same)  # noqa: SIM202
    for name in FIELDS:
        first, second = some[name]
        for values in ([first + 0.25, second], [first, 2.5]):
            other = normkit.Moments(**(some | {name: values}))
            assert a != other, name
            assert not (a == other), name  # noqa: SIM201
    assert normkit.Moments(2, -0.0, 0.0) == normkit.Moments(2, 0.0, 0.0)
    assert hash(normkit.Moments(2, -0.0, 0.0)) == hash(normkit.Moments(2, 0.0, 0.0))


def test_other_shapes_and_types_are_not_equal():
    a = normkit.Moments(2, 1.0, 0.5)
    for other in (normkit.Moments([2], 1.0, 0.5), normkit.Moments([2, 2], 1.0, 0.5), None, 2, (2, 1.0), a.to_bytes()):
        assert a != other
        assert not (a == other)  # noqa: SIM201


def test_moments_of_nothing_are_all_the_same():
    """Whatever is said of no values: they are the identity, and equal."""
    nothing, some = normkit.Moments(0, 0.0, 0.0), normkit.Moments(2, 1.0, 0.5, 0.5, 1.5)
    assert (float(nothing.min), float(nothing.max)) == (np.inf, -np.inf)
    for other in (normkit.Moments(0, 5.0, 1.0, 3.0, 2.0), normkit.Moments(0, np.nan, np.nan), nothing + nothing):
        assert other == nothing
        assert other + some == some == some + other


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
