"""normkit itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import normkit
from operations import EPS, GROUPS

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = normkit.__version__
set_threads = normkit.set_num_threads


def _state(data: Data) -> normkit.BatchNormState:
    state = normkit.BatchNormState(len(data.running_mean))
    state.running_mean[:] = data.running_mean
    state.running_var[:] = data.running_var
    return state


def _batch(w: Workload, d: Data, **more: Any) -> Callable[[], Any]:
    return partial(normkit.batch_norm, d.x, _state(d), d.weight, d.bias, axis=w.channel_axis, eps=EPS, **more)


# From a workload, its data and {"out": buffer} or {} to the call that a user would write.
FORWARD: dict[str, Callable[..., Callable[[], Any]]] = {
    "batch_norm_training": lambda w, d, out: _batch(w, d, training=True, **out),
    "batch_norm_inference": lambda w, d, out: _batch(w, d, **out),
    "batch_norm_training_residual_relu": lambda w, d, out: _batch(
        w, d, training=True, residual=d.residual, activation="relu", **out
    ),
    "batch_norm_inference_residual_relu": lambda w, d, out: _batch(w, d, residual=d.residual, activation="relu", **out),
    "layer_norm": lambda w, d, out: partial(normkit.layer_norm, d.x, d.weight, d.bias, axis=w.reduced, eps=EPS, **out),
    "rms_norm": lambda w, d, out: partial(normkit.rms_norm, d.x, d.weight, axis=w.reduced, eps=EPS, **out),
    "group_norm": lambda w, d, out: partial(
        normkit.group_norm, d.x, GROUPS, d.weight, d.bias, axis=w.channel_axis, eps=EPS, **out
    ),
    "instance_norm": lambda w, d, out: partial(
        normkit.instance_norm, d.x, d.weight, d.bias, axis=w.channel_axis, eps=EPS, **out
    ),
    "standardize": lambda w, d, out: partial(normkit.standardize, d.x, axis=w.reduced, **out),
    "min_max_scale": lambda w, d, out: partial(normkit.min_max_scale, d.x, axis=w.reduced, **out),
}

# What has no out=.
ALLOCATING: dict[str, Callable[..., Callable[[], Any]]] = {
    "add_layer_norm": lambda w, d: partial(
        normkit.add_layer_norm, d.x, d.residual, d.weight, d.bias, axis=w.reduced, eps=EPS
    ),
    "add_rms_norm": lambda w, d: partial(normkit.add_rms_norm, d.x, d.residual, d.weight, axis=w.reduced, eps=EPS),
    "batch_norm_training_backward": lambda w, d: partial(
        normkit.batch_norm_backward, d.dy, d.x, d.mean, d.rstd, d.weight, axis=w.channel_axis
    ),
    "layer_norm_backward": lambda w, d: partial(
        normkit.layer_norm_backward, d.dy, d.x, d.mean, d.rstd, d.weight, axis=w.reduced
    ),
    "rms_norm_backward": lambda w, d: partial(normkit.rms_norm_backward, d.dy, d.x, d.rstd, d.weight, axis=w.reduced),
    "group_norm_backward": lambda w, d: partial(
        normkit.group_norm_backward, d.dy, d.x, d.mean, d.rstd, GROUPS, d.weight, axis=w.channel_axis
    ),
    "instance_norm_backward": lambda w, d: partial(
        normkit.instance_norm_backward, d.dy, d.x, d.mean, d.rstd, d.weight, axis=w.channel_axis
    ),
}


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], Any] | None:
    """Return the call a user would write."""
    name = workload.operation.name
    if name in FORWARD:
        return FORWARD[name](workload, data, {"out": workload.buffers()[0]} if ready else {})
    return None if ready else ALLOCATING[name](workload, data)


def results(workload: Workload, result: np.ndarray | tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return all results."""
    return result if isinstance(result, tuple) else (result,)
