"""The roof: a plain copy of the same bytes into a ready buffer, by whatever copies fastest here."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

try:
    import torch
except ModuleNotFoundError:  # one way of copying less
    torch = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = f"fastest of numpy.copyto in threads{'' if torch is None else ' and torch.Tensor.copy_'}"

_pool = ThreadPoolExecutor(1)
_threads = 1


def set_threads(threads: int) -> None:
    """Set the number of threads that copy."""
    global _pool, _threads
    _pool.shutdown()
    _pool, _threads = ThreadPoolExecutor(threads), threads
    if torch is not None:
        torch.set_num_threads(threads)


def _in_threads(x: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
    if _threads == 1:
        return lambda: _copied(out, x)
    parts = list(zip(np.array_split(out.reshape(-1), _threads), np.array_split(x.reshape(-1), _threads), strict=True))

    def copy() -> np.ndarray:
        list(_pool.map(lambda part: np.copyto(*part), parts))
        return out

    return copy


def _copied(out: np.ndarray, x: np.ndarray) -> np.ndarray:
    np.copyto(out, x)
    return out


def _by_torch(x: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
    target, source = torch.from_numpy(out), torch.from_numpy(x)

    def copy() -> np.ndarray:
        target.copy_(source)
        return out

    return copy


def _best_of(call: Callable[[], np.ndarray], trials: int = 7) -> float:
    seconds = []
    for _ in range(trials):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def prepare(workload: Workload, data: Data, out: np.ndarray | None) -> Callable[[], np.ndarray] | None:
    """Choose the fastest copy for this size. The roof is a copy into a ready buffer: there is no other form."""
    if out is None:
        return None
    ways = [_in_threads(data.x, out)]
    if torch is not None:
        ways.append(_by_torch(data.x, out))
    return min(ways, key=_best_of)


def to_numpy(workload: Workload, result: np.ndarray) -> np.ndarray:
    """Return the copy."""
    return result
