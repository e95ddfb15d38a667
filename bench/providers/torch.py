"""PyTorch: torch.nn.functional where it has the operation, else the expression people write; gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from operations import EPS, GROUPS
from workloads import dtype_of

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = torch.__version__
set_threads = torch.set_num_threads


def _permuted(workload: Workload) -> bool:
    # What PyTorch calls channels_last is NHWC memory seen as NCHW. No copy. Expressions name their axes.
    operation = workload.operation
    return workload.layout == "NHWC" and operation.per != "sample" and operation.weight


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # which NumPy knows from elsewhere
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(dtype_of("bfloat16"))
    return tensor.numpy()


@dataclass
class Tensors:
    """The data as PyTorch sees it."""

    x: torch.Tensor
    weight: Any
    bias: Any
    mean: Any
    var: Any
    residual: Any
    dy: Any
    normalized: list[int]  # the extents that layer_norm and rms_norm average over
    axes: tuple[int, ...]  # the axes that statistics are taken over


def _tensors(workload: Workload, data: Data) -> Tensors:
    def values(array: Any) -> Any:
        if array is None:
            return None
        return _tensor(array).permute(0, 3, 1, 2) if _permuted(workload) else _tensor(array)

    def parameter(array: Any) -> Any:
        return None if array is None else _tensor(array.astype(data.x.dtype))

    return Tensors(
        x=values(data.x),
        weight=parameter(data.weight),
        bias=parameter(data.bias),
        mean=parameter(data.running_mean),
        var=parameter(data.running_var),
        residual=values(data.residual),
        dy=values(data.dy),
        normalized=list(workload.parameters),
        axes=workload.reduced,
    )


def _batch(t: Tensors, training: bool) -> torch.Tensor:
    return F.batch_norm(t.x, t.mean, t.var, t.weight, t.bias, training=training, eps=EPS)


def _standardize(t: Tensors) -> torch.Tensor:
    var, mean = torch.var_mean(t.x, t.axes, correction=0, keepdim=True)
    return (t.x - mean) * var.rsqrt()


def _scale(t: Tensors) -> torch.Tensor:
    low, high = t.x.amin(t.axes, keepdim=True), t.x.amax(t.axes, keepdim=True)
    return (t.x - low) * (high - low).reciprocal()


def _added(t: Tensors, norm: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    s = t.x + t.residual
    return norm(s), s


FORWARD: dict[str, Callable[[Tensors], Any]] = {
    "batch_norm_training": lambda t: _batch(t, True),
    "batch_norm_inference": lambda t: _batch(t, False),
    "batch_norm_training_residual_relu": lambda t: _batch(t, True).add_(t.residual).relu_(),
    "batch_norm_inference_residual_relu": lambda t: _batch(t, False).add_(t.residual).relu_(),
    "layer_norm": lambda t: F.layer_norm(t.x, t.normalized, t.weight, t.bias, EPS),
    "rms_norm": lambda t: F.rms_norm(t.x, t.normalized, t.weight, EPS),
    "group_norm": lambda t: F.group_norm(t.x, GROUPS, t.weight, t.bias, EPS),
    "instance_norm": lambda t: F.instance_norm(t.x, weight=t.weight, bias=t.bias, eps=EPS),
    "add_layer_norm": lambda t: _added(t, lambda s: F.layer_norm(s, t.normalized, t.weight, t.bias, EPS)),
    "add_rms_norm": lambda t: _added(t, lambda s: F.rms_norm(s, t.normalized, t.weight, EPS)),
    "standardize": _standardize,
    "min_max_scale": _scale,
}


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], Any] | None:
    """Return the functional call, which allocates its result; it has no `out=`.

    A backward pass is one call of autograd on a graph that was made before.
    """
    if ready:
        return None
    t, forward = _tensors(workload, data), FORWARD[workload.operation.forward]
    if not workload.operation.backward:
        return lambda: forward(t)
    wanted = [p.requires_grad_() for p in (t.x, t.weight, t.bias) if p is not None]
    y = forward(t)
    return lambda: torch.autograd.grad(y, wanted, t.dy, retain_graph=True)


def results(workload: Workload, result: Any) -> tuple[np.ndarray, ...]:
    """Return all results in the order of axes of `workload`."""
    tensors = result if isinstance(result, tuple) else (result,)
    return tuple(_array(t.permute(0, 2, 3, 1) if _permuted(workload) and t.ndim == 4 else t) for t in tensors)
