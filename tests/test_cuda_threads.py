"""Python's threads and a GPU, which is the host's (test_cuda_door.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cases
import normkit
from device_arrays import emulated_gpu, streams

if emulated_gpu() is None:
    pytest.skip("the extension has no emulated GPU (-DNORMKIT_EMULATED_CUDA=ON)", allow_module_level=True)


def test_others_run_while_work_is_queued():
    """Since a queue may be full, and what is to be done first wait for one of them."""
    x = streams.put(cases.sample((3000, 1000), np.float32))
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-3)

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    normkit.layer_norm(x)
    end = time.perf_counter()
    done.set()
    other.join()
    gaps = np.diff([start, *(t for t in ticks if start < t < end), end])
    assert max(gaps) < (end - start) / 2


def test_threads_at_the_same_time():
    arrays = [cases.sample((200, 96), np.float32, seed) for seed in range(8)]
    expected = [normkit.batch_norm(streams.put(x), None, training=True).host for x in arrays]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: normkit.batch_norm(streams.put(x), None, training=True).host, arrays * 4))
    for ours, theirs in zip(found, expected * 4, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_memory_is_asked_for_while_another_waits_for_the_state():
    """A thread that has a state locked asks Python for memory, while another, on the CPU, wants the state."""
    code = """
        import sys, threading, time, types
        import numpy as np
        import normkit
        from device_arrays import emulated_gpu, streams

        x = np.random.default_rng(0).normal(2, 3, (5000, 24)).astype(np.float32)  # too long for a tile
        state = normkit.BatchNormState(24)
        normkit.batch_norm(streams.put(x), state, training=True)
        other = threading.Thread(target=lambda: normkit.batch_norm(x[:9], state, training=True))

        def empty_cache():
            other.start()
            time.sleep(0.2)  # in which the other comes to wait for the state

        sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(empty_cache=empty_cache))
        emulated_gpu().refusals = 1
        normkit.batch_norm(streams.put(x), state, training=True)
        other.join()
        print(state.num_batches_tracked)
    """
    path = os.pathsep.join([str(Path(normkit.__file__).parents[1]), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
