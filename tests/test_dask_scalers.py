"""Scalers of Dask arrays and dataframes: the bits of partial_fit over the same chunks, and lazy results."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("dask.dataframe")
pytest.importorskip("sklearn")

import dask
import dask.array as da
import dask.dataframe as dd
import pandas as pd
from sklearn.exceptions import NotFittedError

from normkit.preprocessing import MinMaxScaler, StandardScaler
from schedulers import cluster, data, each_scheduler, scheduled  # noqa: F401  # fixtures

each = pytest.mark.parametrize
each_scaler = each("make", [StandardScaler, MinMaxScaler])


def learned(scaler):
    """All attributes of what a scaler has learned, as plain values."""
    values = {name: value for name, value in vars(scaler).items() if name.endswith("_") and name != "moments_"}
    return {name: (np.asarray(value).dtype, repr(np.asarray(value).tolist())) for name, value in values.items()} | {
        "moments_": scaler.moments_.to_bytes()
    }


def looped(scaler, parts, weights=None):
    """The scaler, fitted on one part after the other."""
    for i, part in enumerate(parts):
        options = {} if weights is None else {"sample_weight": weights[i]}
        scaler.partial_fit(part, **options)
    return scaler


@each_scheduler
@each("dtype", [np.float16, np.float32, np.float64, np.int64])
@each_scaler
def test_fit_and_transform(make, dtype):
    x = data((400, 6), dtype=dtype) if dtype == np.int64 else data((400, 6), dtype=dtype, missing=0.05)
    cut = da.from_array(x, chunks=(9, 4))
    scaler = make()
    assert scaler.fit(cut) is scaler
    parts = [x[i : i + 9] for i in range(0, 400, 9)]
    local = looped(make(), parts)
    assert learned(scaler) == learned(local)

    y = scaler.transform(cut)
    assert isinstance(y, da.Array) and y.shape == x.shape
    wanted = local.transform(x)
    computed = y.compute()
    assert computed.dtype == y.dtype == wanted.dtype
    np.testing.assert_array_equal(computed, wanted)
    back = scaler.inverse_transform(y)
    assert isinstance(back, da.Array)
    np.testing.assert_array_equal(back.compute(), local.inverse_transform(wanted))
    np.testing.assert_array_equal(make().fit_transform(cut).compute(), wanted)


@each_scheduler
@each_scaler
def test_dataframes(make):
    """Names are kept, partitions may be empty, sizes need not be known."""
    frame = pd.DataFrame(data((90, 3), missing=0.1), columns=["a", "b", "c"])
    cut = dd.from_pandas(frame, npartitions=5)
    scaler = make().fit(cut)
    parts = [cut.get_partition(i).compute() for i in range(5)]
    local = looped(make(), parts)
    assert learned(scaler) == learned(local)
    assert list(scaler.feature_names_in_) == ["a", "b", "c"]
    y = scaler.transform(cut)
    assert isinstance(y, da.Array) and y.shape[1] == 3
    np.testing.assert_array_equal(y.compute(), local.transform(frame))
    few = cut[cut["a"] > frame["a"].max() - 0.5]
    assert 0 in few.map_partitions(len).compute().tolist()
    assert make().fit(few).n_samples_seen_ is not None
    wanted = local.transform(frame[frame["a"] > frame["a"].max() - 0.5])
    np.testing.assert_array_equal(scaler.transform(few).compute(), wanted)


@each_scheduler
def test_sample_weight():
    x, weights = data((60, 3)), np.random.default_rng(0).uniform(0, 2, 60)
    weights[20:30] = 0  # a chunk of them: no part of the fit, though alone it would be refused
    cut = da.from_array(x, chunks=(10, 3))
    kept = [i for i in range(6) if i != 2]
    local = looped(StandardScaler(), np.split(x, 6)[:2] + np.split(x, 6)[3:], [np.split(weights, 6)[i] for i in kept])
    for given in (weights, da.from_array(weights, chunks=10), da.from_array(weights, chunks=60)):
        assert learned(StandardScaler().fit(cut, sample_weight=given)) == learned(local)
    frame = dd.from_dask_array(da.concatenate([cut, da.from_array(weights[:, None], chunks=(10, 1))], axis=1))
    by_name = StandardScaler().fit(frame[[0, 1, 2]].rename(columns=str), sample_weight=frame[3])
    np.testing.assert_array_equal(by_name.mean_, local.mean_)


@each_scaler
def test_more_data(make):
    """partial_fit goes on, fit begins anew; both as with arrays."""
    first, second = data((30, 2), 1), data((50, 2), 2)
    scaler = make().fit(first).partial_fit(da.from_array(second, chunks=(10, 2)))
    assert learned(scaler) == learned(looped(make(), [first, *np.split(second, 5)]))
    again = scaler.fit(da.from_array(first, chunks=(30, 2)))
    assert learned(again) == learned(make().fit(first))
    named = pd.DataFrame(first, columns=["a", "b"])
    scaler.fit(dd.from_pandas(named, npartitions=2))
    assert not hasattr(scaler.fit(da.from_array(second, chunks=(25, 2))), "feature_names_in_")
    assert make().fit(named).merge(make().fit(dd.from_pandas(named, npartitions=1))).n_samples_seen_ == 60


def test_parameters_count():
    x = data((40, 2))
    cut = da.from_array(x, chunks=(8, 2))
    clipped = MinMaxScaler((-1, 1), clip=True).fit(cut)
    wide = clipped.transform(da.from_array(x * 3, chunks=(8, 2))).compute()
    assert wide.min() == -1 and wide.max() == 1
    assert StandardScaler(with_mean=False).fit(cut).transform(cut).compute().mean() > 1


def test_transform_is_of_its_time_and_writes_nothing():
    x = data((40, 2))
    cut = da.from_array(x, chunks=(8, 2))
    scaler = StandardScaler(copy=False).fit(cut)
    y, wanted = scaler.transform(cut), StandardScaler().fit(cut).transform(x)
    scaler.fit(cut * 2)
    before = x.copy()
    np.testing.assert_array_equal(y.compute(), wanted)
    np.testing.assert_array_equal(x, before)


@each_scaler
def test_scalers_refuse(make):
    x = data((40, 2))
    cut = da.from_array(x, chunks=(8, 2))
    scaler = make().fit(cut)
    before = learned(scaler)
    broken = da.concatenate([cut, da.full((1, 2), np.inf, chunks=(1, 2))])
    name = make.__name__
    with pytest.raises(ValueError, match="infinity"):
        scaler.fit(broken)
    with pytest.raises(ValueError, match=rf"^{name}: X must have two axes, samples and features; got shape \(40,\)$"):
        scaler.fit(cut[:, 0])
    with pytest.raises(ValueError, match=rf"^{name}: X has no samples, or none with a weight, to learn from$"):
        scaler.fit(cut[:0])
    with pytest.raises(TypeError, match=rf"^{name}: X must be a Dask array or dataframe; got Delayed\w* of Dask$"):
        scaler.fit(dask.delayed(x))
    with pytest.raises(ValueError, match="same number of features; got 2 and 3"):
        scaler.partial_fit(da.ones((4, 3)))
    with pytest.raises(ValueError, match="3 features"):
        scaler.transform(da.ones((4, 3)))
    assert learned(scaler) == before
    with pytest.raises(ValueError, match="infinity"):
        scaler.transform(broken).compute()
    with pytest.raises(NotFittedError):
        make().transform(cut)
    names = dd.from_pandas(pd.DataFrame(x, columns=["a", "b"]), npartitions=2)
    others = names.rename(columns={"a": "c"})
    with pytest.raises(ValueError, match="feature names"):
        make().fit(names).transform(others)
    with pytest.raises(
        ValueError, match=rf"^{name}.transform: gives Dask arrays .* got set_output\(transform='pandas'\)"
    ):
        make().set_output(transform="pandas").fit(names).transform(names)


@each(
    "weights, message",
    [
        (np.ones(39), r"^StandardScaler: sample_weight must have shape \(40,\); got \(39,\)$"),
        (np.zeros(40), r"^StandardScaler: X has no samples, or none with a weight, to learn from$"),
        (np.full(40, np.nan), "NaN"),
    ],
)
def test_weights_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        StandardScaler().fit(da.from_array(data((40, 2)), chunks=(8, 2)), sample_weight=weights)


def test_weights_of_unknown_chunks():
    frame = dd.from_pandas(pd.DataFrame(data((40, 2))).rename(columns=str), npartitions=4)
    with pytest.raises(
        ValueError, match=r"^StandardScaler: sample_weight must have the chunks .* got \(1,\) blocks for 4"
    ):
        StandardScaler().fit(frame, sample_weight=np.ones(40))
