"""What scalers keep: merges, chunks, errors that leave it alone, names and containers, sparse data, copies."""

from __future__ import annotations

import pickle

import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

pytest.importorskip("sklearn", minversion="1.6")

import scipy.sparse
import sklearn.base
import sklearn.exceptions
import sklearn.preprocessing as sk

import normkit
from normkit.preprocessing import MinMaxScaler, StandardScaler
from test_preprocessing import MIN_MAX, STANDARD, table

each = pytest.mark.parametrize
SCALERS = (StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler((-1, 2)))
each_scaler = each("scaler", SCALERS, ids=str)
FLOATS = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)


def fresh(scaler):
    return sklearn.base.clone(scaler)


def attributes(scaler):
    names = MIN_MAX if isinstance(scaler, MinMaxScaler) else STANDARD
    return {name: getattr(scaler, name) for name in names}


def assert_equal_states(a, b, rtol=0.0, atol=0.0):
    assert vars(a).keys() == vars(b).keys()
    for name, value in attributes(a).items():
        other = attributes(b)[name]
        if value is None or name.startswith("data_") or np.asarray(value).dtype == np.int64:
            np.testing.assert_array_equal(value, other, err_msg=name)
        else:
            np.testing.assert_allclose(value, other, rtol=rtol, atol=atol, err_msg=name)
        assert np.asarray(value).dtype == np.asarray(other).dtype, name


@given(
    data=st.data(),
    rows=st.tuples(*[st.integers(1, 12)] * 3),
    features=st.integers(1, 4),
    scaler=st.sampled_from(SCALERS),
)
@settings(deadline=None)
def test_merging_is_fitting_on_both(data, rows, features, scaler):
    arrays = hypothesis.extra.numpy.arrays
    parts = [data.draw(arrays(np.float64, (n, features), elements=FLOATS)) for n in rows]
    fitted = [fresh(scaler).fit(part) for part in parts]
    whole = fresh(scaler).fit(np.concatenate(parts))
    a, b, c = (pickle.loads(pickle.dumps(one)) for one in fitted)
    left = a.merge(b).merge(c)
    a, b, c = (pickle.loads(pickle.dumps(one)) for one in fitted)
    right = a.merge(b.merge(c))
    chunked = fresh(scaler)
    for part in parts:
        chunked.partial_fit(part)
    reach = max(1.0, np.nanmax(np.nan_to_num(abs(np.concatenate(parts)))))
    for merged in (left, right, chunked):
        # Counts and extremes exactly, the rest to rounding; variances of what is near constant are rounding itself.
        if isinstance(scaler, MinMaxScaler):
            assert_equal_states(merged, whole)
            continue
        np.testing.assert_array_equal(merged.n_samples_seen_, whole.n_samples_seen_)
        np.testing.assert_allclose(merged.mean_, whole.mean_, rtol=1e-13, atol=1e-14 * reach)
        np.testing.assert_allclose(merged.var_, whole.var_, rtol=1e-12, atol=1e-15 * reach**2)
    assert_equal_states(chunked, left)  # partial_fit is a merge: the same bits


def test_merging_weighted_fits():
    X, Y = table(missing=0.1), table(seed=1)
    weights = np.random.default_rng(0).uniform(0.5, 2, (2, 500))
    a, b = StandardScaler().fit(X, sample_weight=weights[0]), StandardScaler().fit(Y)
    assert b.n_samples_seen_.dtype == np.int64
    b.merge(a)
    whole = StandardScaler().fit(np.concatenate([Y, X]), sample_weight=np.concatenate([np.ones(500), weights[0]]))
    assert_equal_states(b, whole, rtol=1e-12)
    assert b.n_samples_seen_.dtype == np.float64


def test_merging_leaves_the_other_alone_and_widens_the_dtype():
    a, b = MinMaxScaler().fit(table(np.float32)), MinMaxScaler().fit(table(np.float64, seed=1))
    before = pickle.dumps(b)
    assert a.merge(b) is a
    assert pickle.dumps(b) == before
    assert a.data_min_.dtype == np.float64
    np.testing.assert_array_equal(a.data_min_, np.minimum(table(np.float32).min(axis=0), b.data_min_))
    doubled = StandardScaler().fit(table())
    doubled.merge(doubled)
    assert doubled.n_samples_seen_ == 1000
    np.testing.assert_allclose(doubled.var_, table().var(axis=0), rtol=1e-13)


@each(
    "other, error, message",
    [
        (
            lambda: MinMaxScaler().fit(table()),
            TypeError,
            "other must be a StandardScaler of normkit's, got normkit.*MinMaxScaler",
        ),
        (
            lambda: sk.StandardScaler().fit(table()),
            TypeError,
            "other must be a StandardScaler of normkit's, got sklearn",
        ),
        (lambda: StandardScaler(), ValueError, "not fitted"),
        (lambda: StandardScaler().fit(table(features=3)), ValueError, "same number of features; got 7 and 3"),
        (
            lambda: StandardScaler(with_std=False).fit(table()),
            ValueError,
            "with_std must be the same; got True and Fal",
        ),
    ],
)
def test_what_does_not_merge(other, error, message):
    scaler = StandardScaler().fit(table())
    before = pickle.dumps(scaler)
    with pytest.raises(error, match=message):
        scaler.merge(other())
    assert pickle.dumps(scaler) == before


def test_what_does_not_merge_into_min_max_scaler():
    scaler = MinMaxScaler((0, 2)).fit(table())
    with pytest.raises(ValueError, match=r"feature_range must be the same; got \[0, 2\] and \[0, 1\]"):
        scaler.merge(MinMaxScaler().fit(table()))
    assert scaler.merge(MinMaxScaler((0.0, 2.0), clip=True, copy=False).fit(table())).n_samples_seen_ == 1000
    with pytest.raises(sklearn.exceptions.NotFittedError):
        MinMaxScaler().merge(scaler)


def test_features_of_other_names_do_not_merge():
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(table(features=2), columns=names) for names in (["a", "b"], ["b", "a"])]
    a, b = (StandardScaler().fit(frame) for frame in frames)
    with pytest.raises(ValueError, match=r"same features; got \['a', 'b'\] and \['b', 'a'\]"):
        a.merge(b)
    assert list(a.merge(StandardScaler().fit(frames[0])).feature_names_in_) == ["a", "b"]


@each_scaler
def test_chunks_of_several_dtypes(scaler):
    parts = [table(dtype, seed=i) for i, dtype in enumerate((np.float32, np.float64, np.float16, np.int64))]
    ours, own = fresh(scaler), getattr(sk, type(scaler).__name__)(**scaler.get_params())
    for part in parts:
        ours.partial_fit(part)
        own.partial_fit(part)
    for name, value in attributes(ours).items():
        np.testing.assert_allclose(value, getattr(own, name), rtol=2e-6, atol=1e-7, err_msg=name)  # of means near 0 too


BAD = [
    (lambda X: X[:, :3], "X has 3 features, but .* is expecting 7 features"),
    (lambda X: X[:0], "Found array with 0 sample"),
    (lambda X: X[0], "Expected 2D array, got 1D array"),
    (lambda X: np.where(X[-1, -1] == X, np.inf, X), "contains infinity"),
    (lambda X: X.astype(complex), "Complex data not supported"),
    (lambda X: X.astype(str)[:, :1] + "x", "could not convert string to float"),
]


@each_scaler
@each("spoil, message", BAD)
@each("method", ["partial_fit", "fit"])
def test_an_error_leaves_a_fitted_scaler_as_it_was(scaler, spoil, message, method):
    if method == "fit" and "expecting" in message:
        pytest.skip("fit takes any number of features")
    scaler = fresh(scaler).fit(table())
    before = pickle.dumps(scaler)
    with pytest.raises(ValueError, match=message):
        getattr(scaler, method)(spoil(table(seed=1)))
    assert pickle.dumps(scaler) == before


@each_scaler
def test_an_error_leaves_a_scaler_that_is_not_fitted_so(scaler):
    scaler, X = fresh(scaler), table()
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        scaler.fit(X)
    assert vars(scaler) == vars(fresh(scaler))
    with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted yet"):
        scaler.transform(X)


@each(
    "weights, message",
    [
        (np.ones(3), r"sample_weight.shape == \(3,\), expected \(500,\)"),
        (np.full(500, np.nan), "sample_weight contains NaN"),
        (np.full(500, -1.0), "weights must be"),
    ],
)
def test_bad_weights_leave_a_scaler_as_it_was(weights, message):
    scaler = StandardScaler().fit(table())
    before = pickle.dumps(scaler)
    with pytest.raises(ValueError, match=message):
        scaler.partial_fit(table(), sample_weight=weights)
    assert pickle.dumps(scaler) == before


@each(
    "params, message", [(dict(copy="yes"), "'copy' parameter of"), (dict(feature_range=[0, 1]), "'feature_range' par")]
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        MinMaxScaler(**params).fit(table())


@each("feature_range", [(1, 0), (1, 1), (0, np.nan), (0, 1, 2), ()], ids=str)
def test_bad_ranges(feature_range):
    with pytest.raises(ValueError, match="Minimum of desired feature range must be smaller than maximum"):
        MinMaxScaler(feature_range).fit(table())


def test_inverse_transform_wants_its_features():
    for scaler in (StandardScaler(), MinMaxScaler()):
        with pytest.raises(ValueError, match=r"X has 1 features, but .* is expecting 7 features"):
            scaler.fit(table()).inverse_transform(table()[:, :1])


@each("container", ["pandas", "polars"])
@each_scaler
def test_output_containers_and_names(container, scaler):
    module = pytest.importorskip(container)
    names = [f"f{i}" for i in range(7)]
    frame = module.DataFrame(dict(zip(names, table().T, strict=True)))
    scaler = fresh(scaler).set_output(transform=container).fit(frame)
    assert list(scaler.feature_names_in_) == names and list(scaler.get_feature_names_out()) == names
    for transformed in (scaler.transform(frame), fresh(scaler).set_output(transform=container).fit_transform(frame)):
        assert isinstance(transformed, module.DataFrame) and list(transformed.columns) == names
        expected = fresh(scaler).fit(table()).transform(table())  # of the other order in memory, and other bits
        np.testing.assert_allclose(transformed.to_numpy(), expected, rtol=0, atol=1e-12)
    assert isinstance(scaler.inverse_transform(transformed), np.ndarray)
    with pytest.raises(ValueError, match="feature names should match"):
        scaler.transform(frame[names[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        scaler.transform(table())


def sparse_table(seed=0, constructor=scipy.sparse.csr_array):
    X = table(seed=seed)
    X[np.random.default_rng(seed).random(X.shape) < 0.7] = 0
    return X, constructor(X)


@each("constructor", [scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_sparse_and_dense_chunks_in_turn(constructor):
    parts = [sparse_table(seed, constructor) for seed in range(4)]
    scaler = StandardScaler(with_mean=False)
    for i, (dense, sparse) in enumerate(parts):
        scaler.partial_fit(sparse if i % 2 else dense)
    whole = StandardScaler(with_mean=False).fit(np.concatenate([dense for dense, _ in parts]))
    assert_equal_states(scaler, whole, rtol=1e-12)
    np.testing.assert_allclose(scaler.moments_.m2, whole.moments_.m2, rtol=1e-12)
    merged = StandardScaler(with_mean=False).fit(parts[0][1])
    for _, sparse in parts[1:]:
        merged.merge(StandardScaler(with_mean=False).fit(sparse))
    assert_equal_states(merged, whole, rtol=1e-12)
    transformed = scaler.transform(parts[0][1])
    assert scipy.sparse.issparse(transformed)
    np.testing.assert_allclose(transformed.toarray(), scaler.transform(parts[0][0]), rtol=1e-13)
    np.testing.assert_allclose(scaler.inverse_transform(transformed).toarray(), parts[0][0], rtol=1e-13)


def test_sparse_data_that_are_refused_leave_a_scaler_as_it_was():
    dense, sparse = sparse_table()
    for scaler, error, message in (
        (StandardScaler(), ValueError, "Cannot center sparse matrices"),
        (MinMaxScaler(), TypeError, "does not support sparse input"),
    ):
        scaler.fit(dense)
        before = pickle.dumps(scaler)
        with pytest.raises(error, match=message):
            scaler.partial_fit(sparse)
        assert pickle.dumps(scaler) == before


def test_sparse_counts_without_mean_and_variance():
    dense, sparse = sparse_table()
    scaler = StandardScaler(with_mean=False, with_std=False).fit(sparse).partial_fit(dense)
    assert scaler.n_samples_seen_ == 1000 and scaler.mean_ is None and scaler.scale_ is None
    assert np.isnan(scaler.moments_.mean).all()  # which were never known


@each_scaler
def test_pickle_and_clone(scaler):
    scaler = fresh(scaler).fit(table(np.float32, missing=0.1))
    again = pickle.loads(pickle.dumps(scaler))
    assert_equal_states(again, scaler)
    assert again.moments_ == scaler.moments_
    np.testing.assert_array_equal(again.transform(table()), scaler.transform(table()))
    assert not hasattr(fresh(scaler), "moments_")


def test_moments_are_normkits():
    X = table(missing=0.1)
    assert StandardScaler().fit(X).moments_ == normkit.moments(X, nan="omit")
    ranges, moments = MinMaxScaler().fit(X).moments_, normkit.moments(X, nan="omit")
    for name in ("count", "min", "max"):
        np.testing.assert_array_equal(getattr(ranges, name), getattr(moments, name))


def test_bits_do_not_depend_on_threads():
    X = table(np.float32, rows=40_000, features=33)
    results = []
    for threads in (1, 2, 5):
        normkit.set_num_threads(threads)
        scaler = StandardScaler().fit(X)
        results.append((scaler.mean_.tobytes(), scaler.var_.tobytes(), scaler.transform(X).tobytes()))
    assert len(set(results)) == 1
