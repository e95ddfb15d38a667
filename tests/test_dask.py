"""Dask collections: the bits of a loop over the same chunks, whoever works on them and in whatever order."""

from __future__ import annotations

import os
import time
import warnings
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("dask.array")
pytest.importorskip("distributed")
pytest.importorskip("dask.dataframe")
pytest.importorskip("sklearn")

import dask
import dask.array as da
import dask.dataframe as dd
import pandas as pd
from dask.delayed import Delayed
from distributed import Client, LocalCluster
from sklearn.exceptions import NotFittedError

import normkit
import normkit.dask
from normkit import Moments
from normkit.preprocessing import MinMaxScaler, StandardScaler

each = pytest.mark.parametrize
each_scaler = each("make", [StandardScaler, MinMaxScaler])
each_scheduler = each("scheduler", ["synchronous", "threads", "cluster"])


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as running:
        yield running


@pytest.fixture
def scheduled(request, scheduler):
    """Runs a test on one of Dask's schedulers."""
    if scheduler == "cluster":
        with Client(request.getfixturevalue("cluster")) as client:
            assert len({os.getpid(), *client.run(os.getpid).values()}) == 3
            yield
    else:
        with dask.config.set(scheduler=scheduler):
            yield


def data(shape, *key, dtype=np.float64, missing=0.0):
    rng = np.random.default_rng((*shape, *key))
    x = rng.normal(7, 3, shape)
    x[rng.random(shape) < missing] = np.nan
    return x.astype(dtype)


def blocks_of(x):
    """The blocks of a Dask array in C order, computed one by one."""
    delayed = x.to_delayed()
    return {index: delayed[index].compute(scheduler="synchronous") for index in np.ndindex(delayed.shape)}


def same(own, other):
    """All fields, bit for bit."""
    for name in ("count", "mean", "m2", "min", "max"):
        np.testing.assert_array_equal(getattr(own, name), getattr(other, name), err_msg=name)
        assert getattr(own, name).shape == getattr(other, name).shape
    return True


# --------------------------------------------------------------------------------------------------------- moments


@each_scheduler
@each("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_rows(dtype, scheduler, scheduled):
    """More chunks than one task merges, of different sizes, one of them empty."""
    x = data((1000, 5), dtype=dtype)
    chunks = (*[10] * 50, 0, 1, *[7] * 70, 9)
    cut = da.from_array(x, chunks=(chunks, 5))
    moments = normkit.dask.moments(cut)
    edges = np.cumsum((0, *chunks))
    parts = [normkit.moments(x[begin:end]) for begin, end in pairwise(edges)]
    assert same(moments, reduce(Moments.merge, parts))
    whole = normkit.moments(x)
    rtol = 1e-12 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(moments.mean, whole.mean, rtol=rtol)
    np.testing.assert_allclose(moments.m2, whole.m2, rtol=rtol)
    assert (moments.min == whole.min).all() and (moments.max == whole.max).all()


@each("axis", [0, 1, -1, (0, 2), (2, 1), None])
@each("chunks", [(4, 3, 5), (4, 2, 2), (1, 3, 4), (4, -1, 3)])
def test_moments_over_any_axes(axis, chunks):
    x = data((4, 6, 7))
    cut = da.from_array(x, chunks=chunks)
    moments = normkit.dask.moments(cut, axis=axis)
    whole = normkit.moments(x, axis=axis)
    assert moments.count.shape == whole.count.shape
    for name in ("count", "min", "max"):
        np.testing.assert_array_equal(getattr(moments, name), getattr(whole, name))
    np.testing.assert_allclose(moments.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(moments.m2, whole.m2, rtol=1e-12)
    # Those of the first statistic, from its blocks in C order.
    axes = range(3) if axis is None else [a % 3 for a in np.atleast_1d(axis)]
    own = [b for index, b in blocks_of(cut).items() if all(i == 0 for a, i in enumerate(index) if a not in axes)]
    first = reduce(Moments.merge, [normkit.moments(block, axis=axis) for block in own])
    corner = (0,) * first.count.ndim
    assert moments.mean[corner] == first.mean[corner] and moments.m2[corner] == first.m2[corner]


@each_scheduler
@each("of_dask", [False, True])
def test_mask_weights_and_missing_values(of_dask, scheduler, scheduled):
    x = data((60, 4), missing=0.1)
    mask = np.random.default_rng(1).random((60, 1)) < 0.7
    weights = np.random.default_rng(2).uniform(0, 2, 60)
    cut = da.from_array(x, chunks=(7, 2))
    options = dict(mask=da.from_array(mask, chunks=13), weights=da.from_array(weights, chunks=60))
    if not of_dask:
        options = dict(mask=mask, weights=weights)
    moments = normkit.dask.moments(cut, nan="omit", **options)
    whole = normkit.moments(x, nan="omit", mask=mask, weights=weights)
    np.testing.assert_allclose(moments.count, whole.count, rtol=1e-14)
    np.testing.assert_allclose(moments.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(moments.m2, whole.m2, rtol=1e-12)
    assert np.isnan(normkit.dask.moments(cut).mean).any()


def test_unknown_sizes():
    x = data((50, 3))
    cut = da.from_array(x, chunks=(9, 3))
    some = cut[cut[:, 0] > 7]
    assert np.isnan(some.shape[0])
    wanted = x[x[:, 0] > 7]
    np.testing.assert_allclose(normkit.dask.moments(some).mean, wanted.mean(axis=0), rtol=1e-13)
    masked = normkit.dask.moments(some, mask=some > 6)
    np.testing.assert_array_equal(masked.count, (wanted > 6).sum(axis=0))
    weighted = normkit.dask.moments(some, weights=abs(some[:, :1]))
    np.testing.assert_allclose(weighted.mean, np.average(wanted, axis=0, weights=wanted[:, 0]), rtol=1e-13)
    alone = normkit.dask.moments(some[:, 1], weights=some[:, 0])
    np.testing.assert_allclose(alone.mean, weighted.mean[1], rtol=1e-13)
    with pytest.raises(
        ValueError, match=r"^normkit.dask.moments: mask must have the chunks of x where .* got \(1, 1\)"
    ):
        normkit.dask.moments(some, mask=np.ones((50, 3), bool))


def test_lazily():
    cut = da.from_array(data((30, 2)), chunks=(10, 2))
    lazy = normkit.dask.moments(cut, compute=False)
    assert isinstance(lazy, Delayed)
    assert lazy.compute() == normkit.dask.moments(cut)


def test_each_chunk_is_read_once():
    read = []

    def load(i):
        read.append(i)
        return data((10, 3), i)

    parts = [da.from_delayed(dask.delayed(load)(i), (10, 3), float) for i in range(40)]
    with dask.config.set(scheduler="synchronous"):
        normkit.dask.moments(da.concatenate(parts))
        StandardScaler().fit(da.concatenate(parts))
    assert sorted(read) == sorted([*range(40), *range(40)])


@each("scheduler", ["cluster"])
def test_who_is_ready_first_does_not_matter(scheduler, scheduled):
    x = data((24, 2))
    expected = reduce(Moments.merge, [normkit.moments(part) for part in np.split(x, 12)])

    for late in (lambda i: i % 2 == 0, lambda i: i < 6, lambda i: i >= 6):

        def hold_up(block, block_info=None, late=late):
            time.sleep(0.05 if late(block_info[0]["chunk-location"][0]) else 0)
            return block

        cut = da.from_array(x, chunks=(2, 2)).map_blocks(hold_up, dtype=x.dtype, meta=x[:0])
        assert same(normkit.dask.moments(cut), expected)


@each(
    "wrong, exception, message",
    [
        (lambda x: normkit.dask.moments(np.ones(3)), TypeError, r"dask.moments: x must be a dask.array.Array; got nda"),
        (lambda x: normkit.dask.moments(x.astype(int)), TypeError, r"moments: x must be float32.* got int64"),
        (lambda x: normkit.dask.moments(x, axis=2), ValueError, r"moments: .*axis.*\b2\b"),
        (lambda x: normkit.dask.moments(x, axis=(0, 0)), ValueError, r"moments: .*axis"),
        (lambda x: normkit.dask.moments(x, nan="drop"), ValueError, r"moments: nan must be .* got drop"),
        (
            lambda x: normkit.dask.moments(x, mask=np.ones(4, bool)),
            ValueError,
            r"dask.moments: mask must broad.* \(4,\)",
        ),
        (
            lambda x: normkit.dask.moments(x, mask=np.ones(3)),
            TypeError,
            r"dask.moments: mask must be bool; got float64",
        ),
        (lambda x: normkit.dask.moments(x, weights=np.ones(4)), ValueError, r"dask.moments: weights must broadcast"),
    ],
)
def test_moments_refuses(wrong, exception, message):
    """Before anything is computed."""

    def read(block):
        raise AssertionError

    x = da.ones((6, 3), chunks=2).map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(exception, match=message):
        wrong(x)


# --------------------------------------------------------------------------------------------------------- scalers


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
def test_fit_and_transform(make, dtype, scheduler, scheduled):
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
def test_dataframes(make, scheduler, scheduled):
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
def test_sample_weight(scheduler, scheduled):
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


def test_dask_is_not_imported_with_normkit():
    """Nor is what the other extras bring."""
    import subprocess
    import sys

    code = "import sys, normkit.preprocessing; assert not {'dask', 'mpi4py', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_example():
    import doctest

    with warnings.catch_warnings():
        assert doctest.testmod(normkit.dask).failed == 0
