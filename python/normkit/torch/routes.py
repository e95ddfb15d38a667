"""Whether a call that eager mode has not answered takes the way of operators, or PyTorch's own forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from normkit import _core

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)

# The extension has kernels for NVIDIA's GPUs, and "cuda" means these, not AMD's.
HAS_GPU = bool(_core.build_info()["cuda"]) and torch.version.hip is None

_dispatch_modes = torch._C._len_torch_dispatch_stack
_functorch_active = torch._C._are_functorch_transforms_active
_batched_by_grad = torch._C._functorch.is_legacy_batchedtensor
_jit_trace = torch._C._get_tracing_state
_has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key

# What autocast has a rule for on a GPU: to compute in float32.
_IN_FLOAT32 = frozenset(
    name for name in ("layer_norm", "group_norm", "rms_norm") if _has_kernel(f"aten::{name}", "AutocastCUDA")
)


def fits(x: Tensor, parameter: Tensor | None) -> bool:
    """Whether the kernels take `parameter` with `x`: on its device, of its dtype or float32 with half precision."""
    if parameter is None:
        return True
    dtype = parameter.dtype
    return (
        (dtype is x.dtype or (dtype is torch.float32 and x.dtype in HALVES))
        and parameter.device == x.device
        and (type(parameter) is Parameter or type(parameter) is Tensor)
    )


def affine(module: torch.nn.Module) -> tuple[Any, Any]:
    """Return weight and bias, in a third of the time of ``module.weight, module.bias`` where they are parameters."""
    parameters = module._parameters
    if "weight" in parameters and "bias" in parameters:
        return parameters["weight"], parameters["bias"]
    return module.weight, module.bias


def averages(module: torch.nn.Module) -> tuple[Any, Any]:
    """Return the running mean and variance, likewise."""
    buffers = module._buffers
    if "running_mean" in buffers and "running_var" in buffers:
        return buffers["running_mean"], buffers["running_var"]
    return module.running_mean, module.running_var


def takes(x: Tensor) -> bool:
    """Whether `x` is a tensor that the kernels may take: dense, of their devices and dtypes, and of no subclass."""
    if type(x) is not Tensor and type(x) is not Parameter:
        return False
    if not (x.is_cpu or (HAS_GPU and x.is_cuda)) or x.dtype not in DTYPES or x.layout is not torch.strided:
        return False
    return torch.compiler.is_compiling() or not x.is_nested


def widened(x: Tensor, name: str) -> Tensor:
    """Return `x`, on a GPU, as autocast has PyTorch's operator `name` see it."""
    if name in _IN_FLOAT32 and x.dtype in HALVES and torch.is_autocast_enabled("cuda"):
        return x.float()
    return x


def operator_applies(x: Tensor, *parameters: Tensor | None) -> bool:
    """
    Whether a graph or a dispatch mode is to see a call on `x` as one of an operator.

    Not where the kernels would miss something that PyTorch does: on other devices, for other dtypes and layouts,
    subclasses of tensors, transforms of `torch.func`, forward-mode derivatives, traces and exports.
    """
    if not takes(x):
        return False
    for parameter in parameters:  # not all() of a generator, which graphs break at
        if not fits(x, parameter):
            return False
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting() and not _transformed_in_graph()
    if transformed() or _jit_trace() is not None or x.is_neg():
        return False
    return bool(_dispatch_modes())


def transformed(dy: Tensor | None = None) -> bool:
    """Whether a transform of `torch.func`, such as vmap, or a forward-mode derivative is under way, also in `dy`."""
    return (
        bool(_functorch_active())
        or forward_ad._current_level >= 0
        or (dy is not None and _batched_by_grad(dy))  # by is_grads_batched, without more ado
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]
def _transformed_in_graph() -> bool:
    """Answer while a graph is traced; what is outside of the graph is among the conditions that it is valid under."""
    return transformed()


def direct(*tensors: Tensor | None) -> bool:
    """Whether the kernels may be called on `tensors` without the dispatcher, in a backward pass."""
    if _dispatch_modes():
        return False
    for tensor in tensors:
        if tensor is not None and ((type(tensor) is not Tensor and type(tensor) is not Parameter) or tensor.is_neg()):
            return False
    return True
