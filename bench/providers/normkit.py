"""normkit itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

import normkit
from workloads import EPS, GROUPS

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = normkit.__version__
set_threads = normkit.set_num_threads


def _state(data: Data) -> normkit.BatchNormState:
    state = normkit.BatchNormState(len(data.running_mean))
    state.running_mean[:] = data.running_mean
    state.running_var[:] = data.running_var
    return state


def prepare(workload: Workload, data: Data, out: np.ndarray | None) -> Callable[[], np.ndarray]:
    """Return the call a user would write."""
    x, weight, bias, axis = data.x, data.weight, data.bias, workload.channel_axis
    match workload.operation:
        case "batch_norm_training":
            state = _state(data)
            return lambda: normkit.batch_norm(x, state, weight, bias, training=True, axis=axis, eps=EPS, out=out)
        case "batch_norm_inference":
            state = _state(data)
            return lambda: normkit.batch_norm(x, state, weight, bias, axis=axis, eps=EPS, out=out)
        case "layer_norm":
            return lambda: normkit.layer_norm(x, weight, bias, axis=workload.reduced, eps=EPS, out=out)
        case "rms_norm":
            return lambda: normkit.rms_norm(x, weight, axis=workload.reduced, eps=EPS, out=out)
        case "group_norm":
            return lambda: normkit.group_norm(x, GROUPS, weight, bias, axis=axis, eps=EPS, out=out)
        case "instance_norm":
            return lambda: normkit.instance_norm(x, weight, bias, axis=axis, eps=EPS, out=out)
        case "standardize":
            return lambda: normkit.standardize(x, axis=workload.reduced, out=out)
        case "min_max_scale":
            return lambda: normkit.min_max_scale(x, axis=workload.reduced, out=out)
    raise ValueError(f"no such operation: {workload.operation}")


def to_numpy(workload: Workload, result: np.ndarray) -> np.ndarray:
    """Return the result."""
    return result
