"""The expression that people write in NumPy: one thread, a fresh array for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from workloads import EPS, GROUPS

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = np.__version__


def set_threads(threads: int) -> None:
    """Do nothing: NumPy's reductions and element-wise operations run in one thread."""


def _normalize(x: np.ndarray, axes: tuple[int, ...], eps: float = EPS) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def _group_normalize(workload: Workload, x: np.ndarray) -> np.ndarray:
    axis = workload.channel_axis
    split = (*x.shape[:axis], GROUPS, x.shape[axis] // GROUPS, *x.shape[axis + 1 :])
    axes = tuple(range(1, axis)) + tuple(range(axis + 1, len(split)))
    return _normalize(x.reshape(split), axes).reshape(x.shape)


def _scale(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    low, high = x.min(axes, keepdims=True), x.max(axes, keepdims=True)
    return (x - low) / (high - low)


def _expression(workload: Workload, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    axes = workload.reduced
    weight, bias = (None if p is None else workload.broadcastable(p) for p in (data.weight, data.bias))
    match workload.operation:
        case "batch_norm_inference":
            given = [n if axis == workload.channel_axis else 1 for axis, n in enumerate(workload.shape)]
            mean, var = (s.reshape(given).astype(data.x.dtype) for s in (data.running_mean, data.running_var))
            return lambda x: (x - mean) / np.sqrt(var + EPS) * weight + bias
        case "rms_norm":
            return lambda x: x / np.sqrt((x * x).mean(axes, keepdims=True) + EPS) * weight
        case "group_norm":
            return lambda x: _group_normalize(workload, x) * weight + bias
        case "standardize":
            return lambda x: _normalize(x, axes, eps=0.0)
        case "min_max_scale":
            return lambda x: _scale(x, axes)
    return lambda x: _normalize(x, axes) * weight + bias


def prepare(workload: Workload, data: Data, out: np.ndarray | None) -> Callable[[], np.ndarray] | None:
    """Return the expression, allocating as it does; it has no `out=`. Half precision takes the way through float32."""
    if out is not None:
        return None
    x, expression = data.x, _expression(workload, data)
    if x.dtype == np.float16:
        return lambda: expression(x.astype(np.float32)).astype(np.float16)
    return lambda: expression(x)


def to_numpy(workload: Workload, result: np.ndarray) -> np.ndarray:
    """Return the result."""
    return result
