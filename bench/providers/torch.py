"""PyTorch: torch.nn.functional where it has the operation, else the expression people write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from workloads import EPS, GROUPS

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = torch.__version__
set_threads = torch.set_num_threads

CHANNELS_FIRST = ("batch_norm_training", "batch_norm_inference", "group_norm", "instance_norm")


def _permuted(workload: Workload) -> bool:
    # What PyTorch calls channels_last is NHWC memory seen as NCHW. No copy.
    return workload.layout == "NHWC" and workload.operation in CHANNELS_FIRST


def _standardize(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) * var.rsqrt()


def _scale(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    return (x - low) * (high - low).reciprocal()


def prepare(workload: Workload, data: Data, out: np.ndarray | None) -> Callable[[], torch.Tensor] | None:
    """Return the functional call, which allocates its result; it has no `out=`."""
    if out is not None:
        return None
    x = torch.from_numpy(data.x)
    if _permuted(workload):
        x = x.permute(0, 3, 1, 2)
    weight, bias = (None if p is None else torch.from_numpy(p) for p in (data.weight, data.bias))
    mean, var = (
        torch.from_numpy(statistic.astype(data.x.dtype)) for statistic in (data.running_mean, data.running_var)
    )
    normalized = [workload.shape[axis] for axis in workload.affine]
    match workload.operation:
        case "batch_norm_training":
            return lambda: F.batch_norm(x, mean, var, weight, bias, training=True, eps=EPS)
        case "batch_norm_inference":
            return lambda: F.batch_norm(x, mean, var, weight, bias, eps=EPS)
        case "layer_norm":
            return lambda: F.layer_norm(x, normalized, weight, bias, EPS)
        case "rms_norm":
            return lambda: F.rms_norm(x, normalized, weight, EPS)
        case "group_norm":
            return lambda: F.group_norm(x, GROUPS, weight, bias, EPS)
        case "instance_norm":
            return lambda: F.instance_norm(x, weight=weight, bias=bias, eps=EPS)
        case "standardize":
            return lambda: _standardize(x, workload.reduced)
        case "min_max_scale":
            return lambda: _scale(x, workload.reduced)
    raise ValueError(f"no such operation: {workload.operation}")


def to_numpy(workload: Workload, result: torch.Tensor) -> np.ndarray:
    """Return the result in the order of axes of `workload`."""
    return (result.permute(0, 2, 3, 1) if _permuted(workload) else result).numpy()
