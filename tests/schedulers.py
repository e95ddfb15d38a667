"""Dask's schedulers, one process and several, for tests that import the fixtures."""

from __future__ import annotations

import os

import numpy as np
import pytest

dask = pytest.importorskip("dask")
Client = pytest.importorskip("distributed").Client
LocalCluster = pytest.importorskip("distributed").LocalCluster

SCHEDULERS = ["synchronous", "threads", "cluster"]


def on(schedulers):
    """Runs a test on each of these; its module must import the fixtures `cluster` and `scheduled`."""
    scheduled = pytest.mark.usefixtures("scheduled")
    return lambda test: pytest.mark.parametrize("scheduler", schedulers)(scheduled(test))


each_scheduler = on(SCHEDULERS)


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
