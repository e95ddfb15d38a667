"""Layers over a group, and `normkit.mpi` without MPI (see test_sync.py)."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import cases
import normkit
from groups import Threads
from normkit import Moments
from normkit.mpi import sync as mpi_sync

X = cases.sample((4, 6, 5), np.float32)
DY = cases.sample((4, 6, 5), np.float32, "dy")


def test_layer():
    """Members of a group end with one another's averages, and with gradients that add up to those of the batch."""
    whole = normkit.BatchNorm(6, activation="relu")
    expected = whole(X, residual=DY), *whole.backward(DY)
    layers = [normkit.BatchNorm(6, activation="relu") for _ in range(2)]

    def work(rank, sync):
        layer, part = layers[rank], slice(0, 1) if rank == 0 else slice(1, 4)
        layer.sync = sync
        return layer(X[part], residual=DY[part]), *layer.backward(DY[part])

    parts = Threads(2).run(work)
    for own, other in zip(zip(*parts, strict=True), expected, strict=True):
        np.testing.assert_allclose(np.concatenate(own), other, atol=1e-5)
    for name, gradient in whole.gradients().items():
        np.testing.assert_allclose(sum(layer.gradients()[name] for layer in layers), gradient, rtol=1e-5, atol=1e-5)
    averages = [{k: v.tolist() for k, v in layer.state_dict().items()} for layer in layers]
    assert averages[0] == averages[1]
    np.testing.assert_allclose(layers[0].state.running_var, whole.state.running_var, rtol=1e-6)


def test_layer_syncs_where_statistics_are_the_batchs():
    called = []

    def watch(moments):
        called.append(moments.count.shape)
        return moments

    layer = normkit.BatchNorm(6, sync=watch)
    layer.eval()(X)
    layer.backward(DY)
    assert not called
    layer.train()(X)
    layer.eval()
    layer.backward(DY)  # of the call in training
    assert called == [(6,), (3, 6)]
    normkit.BatchNorm(6, track_running_stats=False, sync=watch).eval()(X)
    assert called[2:] == [(6,)]


def test_layer_refuses():
    with pytest.raises(TypeError, match=r"^BatchNorm: sync must be a function from Moments to Moments, .* got str$"):
        normkit.BatchNorm(6, sync="mpi")


class Comm:
    """A communicator of `size` ranks that all have what this one has."""

    def __init__(self, size=1):
        self.size = size

    def allgather(self, value):
        return [value] * self.size

    def __deepcopy__(self, memo):
        raise AssertionError("a communicator cannot be copied")


# ------------------------------------------------------------------------------------------------------ normkit.mpi


def test_mpi_merges_in_the_order_of_ranks():
    own = normkit.moments(X, axis=(0, 2))
    others = [Moments(3, np.arange(6.0) ** 3, 0.1), Moments(0, np.zeros(6), 0)]
    comm = Comm()
    comm.allgather = lambda data: [data, *(m.to_bytes() for m in others)]
    assert mpi_sync(comm)(own) == own.merge(others[0]).merge(others[1])
    comm.allgather = lambda data: [others[0].to_bytes(), data]
    assert mpi_sync(comm)(own) == others[0].merge(own)


def test_mpi_refuses():
    with pytest.raises(TypeError, match=r"^normkit.mpi: comm must be a communicator of mpi4py; got int$"):
        mpi_sync(3)
    comm = Comm()
    comm.allgather = lambda data: [data, Moments(1, [0.0], 0.0).to_bytes()]
    with pytest.raises(ValueError, match=r"^normkit.mpi: .* one shape on every rank; got, .* \[\(6,\), \(1,\)\]$"):
        normkit.batch_norm(X, None, training=True, sync=mpi_sync(comm))


def test_copies_of_a_layer_stay_in_its_group():
    layer = normkit.BatchNorm(6, sync=mpi_sync(Comm(3)))
    clone = copy.deepcopy(layer)
    assert clone.sync.comm is layer.sync.comm
    assert pickle.loads(pickle.dumps(layer)).sync.comm.size == 3
    assert "sync=" in repr(layer) and "sync=" not in repr(normkit.BatchNorm(6))
