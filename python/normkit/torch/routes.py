"""Which way a call takes: the kernels directly, through autograd or as an operator, or PyTorch's own forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

PYTORCH, DIRECT, AUTOGRAD, OPERATOR = range(4)

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)

_dispatch_modes = torch._C._len_torch_dispatch_stack
_functorch_active = torch._C._are_functorch_transforms_active
_batched_by_grad = torch._C._functorch.is_legacy_batchedtensor
_jit_trace = torch._C._get_tracing_state


def fits(x: Tensor, parameter: Tensor | None) -> bool:
    """Whether the kernels take `parameter` with `x`: of its dtype, or float32 where `x` is half precision."""
    if parameter is None:
        return True
    dtype = parameter.dtype
    return (
        (dtype is x.dtype or (dtype is torch.float32 and x.dtype in HALVES))
        and parameter.is_cpu
        and (type(parameter) is Parameter or type(parameter) is Tensor)
    )


def route(x: Tensor, *parameters: Tensor | None) -> int:
    """
    Return the way that a call on `x` takes.

    PYTORCH wherever the kernels would miss something that PyTorch does: other devices, dtypes and layouts, subclasses
    of tensors, transforms of `torch.func`, forward-mode derivatives, traces and exports.
    """
    if type(x) is not Tensor and type(x) is not Parameter:
        return PYTORCH
    if not x.is_cpu or x.dtype not in DTYPES or x.layout is not torch.strided:
        return PYTORCH
    for parameter in parameters:
        if not fits(x, parameter):
            return PYTORCH
    if torch.compiler.is_compiling():
        return PYTORCH if torch.compiler.is_exporting() or _transformed_in_graph() else OPERATOR
    if _functorch_active() or forward_ad._current_level >= 0 or _jit_trace() is not None:  # as in `transformed`
        return PYTORCH
    if x.is_neg() or x.is_nested:
        return PYTORCH
    if _dispatch_modes():
        return OPERATOR  # which the mode gets to see
    return AUTOGRAD if needs_grad(x, *parameters) else DIRECT


def parameter(module: torch.nn.Module, name: str) -> Any:
    """Return ``getattr(module, name)``, in a third of the time where it is a parameter."""
    parameters = module._parameters
    return parameters[name] if name in parameters else getattr(module, name)


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd is to record a call on `tensors`."""
    if not torch.is_grad_enabled():
        return False
    for tensor in tensors:  # noqa: SIM110 - any() of a generator costs as much as the kernel
        if tensor is not None and tensor.requires_grad:
            return True
    return False


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
