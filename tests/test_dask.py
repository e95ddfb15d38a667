"""Moments of Dask arrays: the bits of a loop over the same chunks, whoever works on them and in whatever order."""

from __future__ import annotations

import doctest
import subprocess
import sys
import time
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("dask.array")

import dask
import dask.array as da
from dask.delayed import Delayed

import normkit
import normkit.dask
from normkit import Moments
from normkit.preprocessing import StandardScaler
from schedulers import cluster, data, each_scheduler, on, scheduled  # noqa: F401  # fixtures

each = pytest.mark.parametrize


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
def test_moments_of_rows(dtype):
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
def test_mask_weights_and_missing_values(of_dask):
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


@on(["cluster"])
def test_who_is_ready_first_does_not_matter():
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


def test_dask_is_not_imported_with_normkit():
    """Nor is what the other extras bring."""
    code = "import sys, normkit.preprocessing; assert not {'dask', 'mpi4py', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_example():
    assert doctest.testmod(normkit.dask).failed == 0
