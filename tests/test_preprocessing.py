"""The scalers' values: against scikit-learn's attributes, and against NumPy in a wider float."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import sklearn.preprocessing as sk

from normkit.preprocessing import MinMaxScaler, StandardScaler
from reference import finfo

each = pytest.mark.parametrize
DTYPES = (np.float16, np.float32, np.float64)
each_dtype = each("dtype", DTYPES)
STANDARD = ("mean_", "var_", "scale_", "n_samples_seen_", "n_features_in_")
MIN_MAX = ("data_min_", "data_max_", "data_range_", "scale_", "min_", "n_samples_seen_", "n_features_in_")


def table(dtype=np.float64, rows=500, features=7, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * np.geomspace(0.1, 10, features) + np.linspace(-20, 20, features)
    X[rng.random(X.shape) < missing] = np.nan
    return X.astype(dtype)


def wide_moments(X, weights=None):
    """Count, mean and variance of what is not NaN, in NumPy's widest float."""
    wide = X.astype(np.longdouble)
    weights = np.ones(len(X)) if weights is None else weights
    weights = np.where(np.isnan(wide), 0, np.asarray(weights, np.longdouble)[:, None])
    values = np.nan_to_num(wide)
    count = weights.sum(axis=0)
    mean = (weights * values).sum(axis=0) / count
    return count, mean, (weights * (values - mean) ** 2).sum(axis=0) / count


def assert_same_attributes(ours, own, names, rtol):
    for name in names:
        a, b = getattr(ours, name), getattr(own, name)
        if b is None:
            assert a is None, name
        else:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=0, err_msg=name)
            assert np.shape(a) == np.shape(b), name


@each_dtype
@each("params", [{}, dict(with_mean=False), dict(with_std=False), dict(with_mean=False, with_std=False)], ids=str)
@each("missing", [0.0, 0.1])
@each("weighted", [False, True])
def test_standard_scaler_has_scikit_learns_attributes(dtype, params, missing, weighted):
    X = table(dtype, missing=missing)
    weights = dict(sample_weight=np.random.default_rng(1).uniform(0.5, 2, len(X))) if weighted else {}
    ours, own = StandardScaler(**params).fit(X, **weights), sk.StandardScaler(**params).fit(X, **weights)
    names = STANDARD
    if params == dict(with_mean=False, with_std=False) and weighted:
        names = ("mean_", "var_", "scale_")  # there scikit-learn counts samples, not weights
        count = wide_moments(X, weights["sample_weight"])[0]
        np.testing.assert_allclose(ours.n_samples_seen_, count.astype(float))
    # scikit-learn rounds weights to the dtype of X.
    rtol = 4 * float(finfo(dtype).eps) if weighted and dtype != np.float64 else 1e-6 if dtype != np.float64 else 1e-13
    assert_same_attributes(ours, own, names, rtol=5e-3 if weighted and dtype == np.float16 else 3 * rtol)
    for name in ("mean_", "var_", "scale_"):
        assert getattr(ours, name) is None or getattr(ours, name).dtype == np.float64
    assert np.asarray(ours.n_samples_seen_).dtype == (np.float64 if weighted else np.int64)
    transformed = ours.transform(X)
    assert transformed.dtype == dtype
    # What is rounded: the largest values in units of the standard deviation, and scikit-learn's mean to the dtype of X.
    reach = np.nanmax(abs(X.astype(np.float64)), axis=0) / (1 if ours.scale_ is None else ours.scale_)
    assert_close(transformed, own.transform(X), 4 * float(finfo(dtype).eps) * reach)


def assert_close(actual, expected, allowed):
    """Within `allowed` per feature, and NaN in the same places."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    assert (np.nan_to_num(abs(actual - expected)) <= allowed).all()


@each_dtype
@each("missing", [0.0, 0.1])
@each("weighted", [False, True])
def test_mean_and_variance_are_those_of_a_wider_float(dtype, missing, weighted):
    X = table(dtype, missing=missing)
    weights = np.random.default_rng(1).uniform(0, 2, len(X)) if weighted else None
    scaler = StandardScaler().fit(X, sample_weight=weights)
    count, mean, variance = wide_moments(X, weights)
    eps = 8 * float(np.finfo(np.float64).eps if dtype == np.float64 else np.finfo(np.float32).eps)
    np.testing.assert_allclose(scaler.n_samples_seen_, np.float64(count), rtol=1e-15)
    assert (abs(scaler.mean_ - mean) <= eps * np.sqrt(variance) + 1e-15 * abs(mean)).all()
    np.testing.assert_allclose(scaler.var_, np.float64(variance), rtol=4 * eps)


@each_dtype
@each("feature_range", [(0, 1), (-3.5, 7), (0.1, 0.7)], ids=str)
@each("missing", [0.0, 0.1])
def test_min_max_scaler_has_the_bits_of_scikit_learns_attributes(dtype, feature_range, missing):
    X = table(dtype, missing=missing)
    ours, own = (module(feature_range).fit(X) for module in (MinMaxScaler, sk.MinMaxScaler))
    for name in MIN_MAX:
        a, b = getattr(ours, name), getattr(own, name)
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert np.asarray(a).dtype == np.asarray(b).dtype and np.shape(a) == np.shape(b), name
    transformed = ours.transform(X)
    assert transformed.dtype == dtype
    if dtype == np.float64:
        np.testing.assert_array_equal(transformed, own.transform(X))
    # Products and sums that are of the dtype, as scikit-learn's are, are off by what x * scale_ is rounded by.
    reach = np.nanmax(abs(X), axis=0).astype(np.float64) * ours.scale_ + np.abs(feature_range).max()
    assert_close(transformed, own.transform(X), 4 * float(finfo(dtype).eps) * reach)
    low, high = feature_range
    wide, least, most = (value.astype(np.longdouble) for value in (X, ours.data_min_, ours.data_max_))
    exact = (wide - least) / (most - least) * (np.longdouble(high) - low) + low
    allowed = float(finfo(dtype).eps) * (abs(exact) + 1) + 2.0**-50 * reach
    assert_close(transformed, exact, np.nan_to_num(allowed.astype(np.float64)))


@each_dtype
@each("scaler", [StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False)], ids=str)
@each("layout", ["C", "F", "strided", "backwards", "narrow"])
def test_transform_is_the_formula_rounded_once(scaler, dtype, layout):
    base = np.repeat(table(dtype, missing=0.02), 2, axis=0)
    X = {"C": base, "F": np.asfortranarray(base), "strided": base[::2], "backwards": base[::-1], "narrow": base[:, 2:4]}
    X = X[layout]
    before = X.copy()
    scaler.fit(X)
    wide = X.astype(np.float64)
    expected = (wide - (scaler.mean_ if scaler.with_mean else 0)) / (scaler.scale_ if scaler.with_std else 1)
    transformed = scaler.transform(X)
    np.testing.assert_array_max_ulp(transformed, expected.astype(dtype), maxulp=0 if dtype == np.float64 else 1)
    np.testing.assert_array_equal(X, before)
    assert not np.shares_memory(X, transformed)
    restored = scaler.inverse_transform(transformed)
    assert restored.dtype == dtype
    np.testing.assert_allclose(restored, X, rtol=0, atol=8 * float(finfo(dtype).eps) * np.nanmax(abs(wide)))


@each("scaler", [StandardScaler(copy=False), MinMaxScaler(copy=False, clip=True)], ids=str)
@each_dtype
@each("order", ["C", "F"])
def test_in_place(scaler, dtype, order):
    X = np.array(table(dtype), order=order)
    expected = type(scaler)(**scaler.get_params() | dict(copy=True)).fit(X).transform(X)
    assert scaler.fit(X).transform(X) is X or np.shares_memory(scaler.transform(X), X)
    X = np.array(table(dtype), order=order)
    scaler.transform(X)
    np.testing.assert_array_equal(X, expected)
    scaler.inverse_transform(X)
    np.testing.assert_allclose(X, table(dtype), rtol=0, atol=40 * float(finfo(dtype).eps) * 20)


def test_copy_of_a_call_overrides_that_of_the_scaler():
    X = table()
    scaler = StandardScaler().fit(X)
    before = X.copy()
    scaler.transform(X)
    np.testing.assert_array_equal(X, before)
    assert np.shares_memory(scaler.transform(X, copy=False), X)
    np.testing.assert_array_equal(X, scaler.transform(before))
    scaler = scaler.set_params(copy=False)
    assert not np.shares_memory(scaler.inverse_transform(X, copy=True), X)


def test_what_cannot_be_written_is_copied():
    X = table()
    X.flags.writeable = False
    transformed = StandardScaler(copy=False).fit(X).transform(X)
    np.testing.assert_array_equal(transformed, StandardScaler().fit(X).transform(X))
    whole = np.arange(12).reshape(6, 2)
    transformed = StandardScaler(copy=False).fit(whole).transform(whole)
    assert transformed.dtype == np.float64
    np.testing.assert_array_equal(whole, np.arange(12).reshape(6, 2))


@each("scaler", [StandardScaler(copy=False), MinMaxScaler(copy=False)], ids=str)
@each("bad", [np.inf, -np.inf])
def test_infinities_are_refused_before_anything_is_written(scaler, bad):
    X = table(np.float32)
    scaler.fit(X)
    X[-1, -1] = bad
    before = X.copy()
    for method in (scaler.transform, scaler.inverse_transform, scaler.fit):
        with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large for dtype\('float32'\)"):
            method(X)
        np.testing.assert_array_equal(X, before)


@each("dtype", DTYPES)
@each("shape", [(1, 1), (3, 5), (40, 16), (7, 100), (2000, 3), (30, 4000)], ids=str)
@each("order", ["C", "F"])
def test_infinities_are_found_wherever_they_are(dtype, shape, order):
    X = np.array(table(dtype, *shape, missing=0.1), order=order)
    scalers = [scaler.fit(np.nan_to_num(X)) for scaler in (StandardScaler(), MinMaxScaler(clip=True))]
    rng = np.random.default_rng(0)
    for bad in (np.inf, -np.inf, np.nan, np.finfo(dtype).max):
        for row, column in {(0, 0), (-1, -1), *zip(*(rng.integers(0, n, 5).tolist() for n in shape), strict=True)}:
            spoilt = X.copy(order)
            spoilt[row, column] = bad
            for scaler in scalers:
                if np.isinf(bad):
                    with pytest.raises(ValueError, match="contains infinity"):
                        scaler.transform(spoilt)
                else:
                    scaler.transform(spoilt)


def test_infinities_in_samples_of_no_weight_are_refused():
    X, weights = table(), np.ones(500)
    X[3, 2], weights[3] = np.inf, 0.0
    with pytest.raises(ValueError, match="contains infinity"):
        StandardScaler().fit(X, sample_weight=weights)


def test_infinities_pass_where_scikit_learn_is_told_that_there_are_none():
    import sklearn

    X = table()
    scaler = MinMaxScaler().fit(X)
    X[0, 0] = np.inf
    with sklearn.config_context(assume_finite=True):
        assert scaler.transform(X)[0, 0] == np.inf
        assert MinMaxScaler().fit(X).data_max_[0] == np.inf
        assert not np.isfinite(StandardScaler().fit(X).mean_[0])


def test_clip():
    X = np.array([[0.0], [1.0], [np.nan]])
    scaler = MinMaxScaler((-1, 1), clip=True).fit(X)
    far = np.array([[-3.0], [0.25], [7.0], [np.nan]])
    np.testing.assert_array_equal(scaler.transform(far), [[-1.0], [-0.5], [1.0], [np.nan]])
    np.testing.assert_array_equal(scaler.set_params(clip=False).transform(far)[:3], [[-7.0], [-0.5], [13.0]])


@each("base", [0.0, 1.0, -14.62, 1e8, 1e-300, 1e15])
@each_dtype
def test_constant_features_become_zero(base, dtype):
    with np.errstate(over="ignore"):
        X = np.full((1000, 3), base, dtype)
    if not np.isfinite(X).all():
        pytest.skip("beyond this dtype")
    scaler = StandardScaler().fit(X)
    np.testing.assert_array_equal(scaler.scale_, 1)
    np.testing.assert_array_equal(scaler.transform(X), 0)
    ours, own = MinMaxScaler((2, 5)).fit(X), sk.MinMaxScaler((2, 5)).fit(X)
    np.testing.assert_array_equal(ours.scale_, own.scale_)
    np.testing.assert_array_equal(ours.transform(X), 2)  # of which scikit-learn is off by 2 for float32 of 1e15


@each("average", [0.0, 1.0, 100.0, 1e10])
@each("spread", [1e-18, 1e-16, 1e-14, 1e-10, 1e-7, 1e-3])
@each_dtype
def test_near_constant_features_are_scikit_learns(average, spread, dtype):
    X = np.full((100, 2), average)
    X[50:] += spread
    with np.errstate(over="ignore"):
        X = X.astype(dtype)
    if not np.isfinite(X).all():
        pytest.skip("beyond this dtype")
    ours, own = StandardScaler().fit(X), sk.StandardScaler().fit(X)
    np.testing.assert_array_equal(ours.scale_ == 1, own.scale_ == 1)
    np.testing.assert_array_equal(MinMaxScaler().fit(X).scale_, sk.MinMaxScaler().fit(X).scale_)


@each("mean", [1e4, 1e8, 1e12])
def test_data_far_from_zero_keep_their_digits(mean):
    rng = np.random.default_rng(0)
    X = mean + rng.integers(-64, 65, (20_000, 5)).astype(np.float64)
    scaler = StandardScaler()
    for chunk in np.array_split(X, 7):
        scaler.partial_fit(chunk)
    _, average, variance = wide_moments(X)
    # A mean of chunks is rounded to float64 before the next are merged.
    np.testing.assert_allclose(scaler.var_, np.float64(variance), rtol=1e-14 + mean * 2.0**-53)
    transformed = scaler.transform(X)
    expected = np.float64((X.astype(np.longdouble) - average) / np.sqrt(variance))
    np.testing.assert_allclose(transformed, expected, rtol=0, atol=8 * mean * 2.0**-53)


def test_float32_far_from_zero():
    rng = np.random.default_rng(0)
    X = (2.0**24 + 2 * rng.integers(-500, 500, (20_000, 4))).astype(np.float32)
    scaler = StandardScaler().fit(X)
    _, mean, variance = wide_moments(X)
    np.testing.assert_allclose(scaler.var_, np.float64(variance), rtol=1e-6)
    expected = np.float64((X - mean) / np.sqrt(variance))
    np.testing.assert_allclose(scaler.transform(X), expected, rtol=0, atol=2e-6)


def test_features_of_nothing_but_nan():
    X = table(missing=0.1)
    X[:, 2] = np.nan
    scaler = StandardScaler().fit(X)
    assert scaler.n_samples_seen_[2] == 0
    assert np.isnan([scaler.mean_[2], scaler.var_[2], scaler.scale_[2]]).all()
    ranges = MinMaxScaler().fit(X)
    assert np.isnan([ranges.data_min_[2], ranges.data_max_[2], ranges.scale_[2], ranges.min_[2]]).all()
    # What comes later is learned, which it is not by scikit-learn's MinMaxScaler.
    later = table(seed=1)
    ranges.partial_fit(later)
    assert ranges.data_min_[2] == later[:, 2].min()
    scaler.partial_fit(later)
    np.testing.assert_allclose(scaler.mean_[2], later[:, 2].mean(), rtol=1e-13)


@each("X", [np.arange(12).reshape(4, 3), [[1, 2], [3.5, 4]], np.eye(3, dtype=bool), np.eye(3, dtype=">f4")], ids=str)
@each("ours, own", [(StandardScaler(), sk.StandardScaler()), (MinMaxScaler(), sk.MinMaxScaler())], ids=str)
def test_other_input_is_read_as_float64(X, ours, own):
    transformed = ours.fit(X).transform(X)
    assert transformed.dtype == np.float64
    np.testing.assert_allclose(transformed, own.fit(X).transform(X), rtol=1e-14)


@each_dtype
def test_what_transforms_are_the_attributes(dtype):
    X = table(dtype)
    scaler = MinMaxScaler().fit(X)
    scaler.scale_, scaler.min_ = np.full(7, 2, dtype), np.full(7, 1, dtype)
    np.testing.assert_array_equal(scaler.transform(X), (X.astype(np.float64) * 2 + 1).astype(dtype))
    scaler = MinMaxScaler().fit(X)
    before = scaler.transform(X)
    scaler.set_params(feature_range=(0, 100))  # decides what is learned, not what is done with it
    assert_close(scaler.transform(X), before, 300 * float(finfo(dtype).eps))
    scaler = StandardScaler().fit(X)
    scaler.mean_, scaler.scale_ = np.zeros(7), np.full(7, 0.5)
    np.testing.assert_array_equal(scaler.transform(X), 2 * X)


def test_float16_of_a_range_beyond_float16():
    X = np.array([[-60000, 0], [0, 1], [60000, 2]], np.float16)
    with np.errstate(over="ignore"):
        scaler = MinMaxScaler().fit(X)
    np.testing.assert_array_equal(scaler.transform(X), [[0, 0], [0.5, 0.5], [1, 1]])
