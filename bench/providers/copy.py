"""The roof: a copy of the same bytes from one ready buffer to another, in several ways of which the fastest counts.

An operation that reads r tensors and writes w moves r + w of them; so does a copy of (r + w) / 2 tensors. Where all of
it stays in the caches between calls, it does so for the copy too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from providers import compiled

try:
    import torch
except ImportError:  # one way of copying less
    torch = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from workloads import Workload

Way = Callable[[], object]

try:
    _library = compiled.load("stream")
    _library.copy_memcpy.argtypes = _library.copy_stream.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
    )
    _library.copy_memcpy.restype = None
    MISSING = ""
except (ImportError, OSError) as error:
    _library, MISSING = None, str(error)  # type: ignore[assignment]

_pool = ThreadPoolExecutor(1)
_threads = 1


def set_threads(threads: int) -> None:
    """Set the number of threads that copy."""
    global _pool, _threads
    _pool.shutdown()
    _pool, _threads = ThreadPoolExecutor(threads), threads
    if torch is not None:
        torch.set_num_threads(threads)


def _by_numpy(to: np.ndarray, source: np.ndarray) -> Way:
    if _threads == 1:
        return partial(np.copyto, to, source)
    parts = list(zip(np.array_split(to, _threads), np.array_split(source, _threads), strict=True))
    return lambda: list(_pool.map(lambda part: np.copyto(*part), parts))


def ways(workload: Workload) -> dict[str, Way]:
    """Return all that copies the bytes of the workload; what went before must have set the threads.

    "memcpy" and "stream" are C++ and OpenMP, the latter with stores past the caches; "torch" is Tensor.copy_; "numpy",
    numpy.copyto in Python's threads, stands in where nothing could be compiled. "new" writes as many bytes as the
    operation to a fresh array: what a copy costs where results are allocated.
    """
    operation = workload.operation
    total = max(1, (operation.reads + operation.writes) * workload.tensor_bytes // 2)
    source, to = np.full(total, 1, np.uint8), np.full(total, 2, np.uint8)
    found: dict[str, Way] = {}
    if torch is not None:
        found["torch"] = partial(torch.from_numpy(to).copy_, torch.from_numpy(source))
    if _library is None:
        found["numpy"] = _by_numpy(to, source)
        return _checked(found, to, source)
    found["memcpy"] = partial(_library.copy_memcpy, to.ctypes.data, source.ctypes.data, total, _threads)
    if _library.copy_stream(to.ctypes.data, source.ctypes.data, total, _threads):
        found["stream"] = partial(_library.copy_stream, to.ctypes.data, source.ctypes.data, total, _threads)
    fresh, copy, threads = operation.writes * workload.tensor_bytes, _library.copy_memcpy, _threads

    def into_fresh() -> np.ndarray:
        result = np.empty(fresh, np.uint8)
        copy(result.ctypes.data, source.ctypes.data, fresh, threads)
        if total > fresh:
            copy(to.ctypes.data, source.ctypes.data + fresh, total - fresh, threads)
        return result

    return _checked(found, to, source) | {"new": into_fresh}


def _checked(found: dict[str, Way], to: np.ndarray, source: np.ndarray) -> dict[str, Way]:
    """Return the ways; what does not copy is no copy. The buffers live as long as the ways: they are bound to them."""
    for name, way in found.items():
        to.fill(2)
        way()
        if not np.array_equal(to, source):
            raise RuntimeError(f"the copy by {name} is none")
    keep = (to, source)
    return {name: _bound(way, keep) for name, way in found.items()}


def _bound(way: Way, keep: object) -> Way:
    if isinstance(way, partial):
        way._buffers = keep  # type: ignore[attr-defined]  # addresses alone keep nothing alive
    return way
