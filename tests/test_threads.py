"""Threads of ours, of Python's and of other libraries; processes forked off."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cases
import normkit

LARGE = (64, 100, 28, 28)  # well above the size from which threads are used


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ----------------------------------------------------------------------------------------------- number of threads


def test_set_and_get():
    default = normkit.get_num_threads()
    assert default >= 1
    for count in (1, 2, 5):
        normkit.set_num_threads(count)
        assert normkit.get_num_threads() == normkit.build_info()["threads"] == count
    normkit.set_num_threads(0)
    assert normkit.get_num_threads() == default


def test_a_number_holds_for_every_caller():
    normkit.set_num_threads(3)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(normkit.get_num_threads).result() == 3


@pytest.mark.parametrize("count", ["1", "3"])
def test_omp_num_threads(count):
    printed = run_python("import normkit; print(normkit.get_num_threads())", OMP_NUM_THREADS=count)
    assert printed == [count]


def threads_of_this_process():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
@pytest.mark.skipif(not normkit.build_info()["openmp"], reason="built without OpenMP")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_threads_as_asked_for(count):
    """Large calls start that many threads, importing and small calls none."""
    code = f"""
import os
import numpy as np
count = lambda: len(os.listdir("/proc/self/task"))
np.ones((2, 2)) @ np.ones((2, 2))
before = count()
import normkit
normkit.set_num_threads({count})
normkit.layer_norm(np.ones((8, 16), np.float32))
small = count()
normkit.layer_norm(np.ones((4096, 1024), np.float32))
print(small - before, count() - before)
"""
    assert run_python(code) == ["0", str(count - 1)]


@pytest.mark.skipif(not normkit.build_info()["openmp"], reason="built without OpenMP")
def test_threadpoolctl_limits_us():
    """Limits of threadpoolctl, as scikit-learn and joblib set them, hold here too."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert normkit.get_num_threads() == 1


# ------------------------------------------------------------------------------------------------------------ fork


def threaded_result():
    normkit.set_num_threads(2)
    return normkit.batch_norm(cases.sample(LARGE, np.float32, offset=0.5), None, training=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_threads():
    """A child forked after threads were used computes, with the same bits, instead of waiting for them for ever."""
    expected = threaded_result()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if np.array_equal(threaded_result(), expected) else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0
    np.testing.assert_array_equal(threaded_result(), expected, err_msg="the parent after the fork")


def _layer_norm_sum(seed):
    return float(normkit.layer_norm(cases.sample((4096, 768), np.float32, seed)).sum(dtype=np.float64))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_multiprocessing_pool_after_threads():
    threaded_result()
    expected = [_layer_norm_sum(seed) for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_layer_norm_sum, range(4)).get(timeout=120) == expected


# -------------------------------------------------------------------------------------------- several Python threads


@pytest.mark.parametrize("count", [1, 2])
def test_callers_at_once(count):
    """Several Python threads, each with sizes and functions of its own, get what each gets alone."""
    normkit.set_num_threads(count)
    names = ("layer_norm(axis=-1)", "batch_norm(training)", "group_norm(few)", "standardize(axis=0)")
    shapes = ((300, 130), (2, 12, 40, 41), (700, 700), (5, 6, 7))
    jobs = [
        (cases.NORMALIZERS[name](shape), cases.arrange(cases.sample(shape, np.float32), layout).view)
        for name in names
        for shape in shapes
        for layout in ("C", "permuted", "strided")
    ]
    expected = [operation.call(x, None, None) for operation, x in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3 if cases.QUICK else 10):
            for got, alone in zip(pool.map(lambda job: job[0].call(job[1], None, None), jobs), expected, strict=True):
                np.testing.assert_array_equal(got, alone)


@pytest.mark.parametrize("rows", [8, 4096])
def test_one_state_from_several_threads(rows):
    """Every update of a shared state is taken in whole, none is lost."""
    state = normkit.BatchNormState(33, momentum=None, dtype="float64")
    batches = [cases.sample((rows, 33), np.float64, i) for i in range(48)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda x: normkit.batch_norm(x, state, training=True), batches))
    assert state.num_batches_tracked == 48
    np.testing.assert_allclose(state.running_mean, np.mean([x.mean(axis=0) for x in batches], axis=0), rtol=1e-12)


def test_gil_is_released():
    """While a large call runs, another Python thread goes on."""
    x = cases.sample((3000, 5000), np.float32)
    out = np.empty_like(x)
    normkit.set_num_threads(1)
    interval = 5e-4  # far below what a call takes
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-4)

    other = threading.Thread(target=tick)
    other.start()
    try:
        spans = []
        for _ in range(10):
            start = time.perf_counter()
            normkit.layer_norm(x, out=out)
            spans.append((start, time.perf_counter()))
    finally:
        stop.set()
        other.join()
        sys.setswitchinterval(before)
    # Without the release the other thread could only run between two calls.
    inside = [sum(start + interval < t < end - interval for t in ticks) for start, end in spans]
    assert sum(inside) >= 10, f"{inside} steps of another thread inside calls of {[e - s for s, e in spans]} s"
