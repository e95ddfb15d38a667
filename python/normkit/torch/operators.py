"""
The operators `torch.ops.normkit.*`, with which compiled graphs call the kernels, and the functions of eager mode.

`torch.library.Library` instead of `torch.library.custom_op`, and a function of its own for eager mode, for what a call
costs: about 8 us through custom_op, 2 through Library, and less past the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normkit import _core
from normkit.torch.batch_normalizers import BatchNorm, BatchNormInference
from normkit.torch.normalizers import Gradients, GroupNorm, LayerNorm, Normalizer, RMSNorm, result
from normkit.torch.routes import HAS_GPU

GIVEN = "Tensor x, Tensor? weight, Tensor? bias"
SAVED = "Tensor dy, Tensor x, Tensor? weight"
THREE = "(Tensor dx, Tensor dweight, Tensor dbias)"
FUSED = "Tensor? residual, str? activation, float eps"
CHANNELS_BACKWARD = (
    f"({SAVED}, Tensor? bias, Tensor? y, Tensor mean, Tensor rstd, str? activation, bool training, "
    "bool[4] output_mask) -> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dresidual)"
)
SCHEMAS = {
    "layer_norm": f"({GIVEN}, int axes, float eps) -> (Tensor y, Tensor mean, Tensor rstd)",
    "layer_norm_backward": f"({SAVED}, Tensor mean, Tensor rstd, int axes, bool[3] output_mask) -> {THREE}",
    "rms_norm": "(Tensor x, Tensor? weight, int axes, float eps) -> (Tensor y, Tensor rstd)",
    "rms_norm_backward": f"({SAVED}, Tensor rstd, int axes, bool[2] output_mask) -> (Tensor dx, Tensor dweight)",
    "group_norm": f"({GIVEN}, int groups, float eps) -> (Tensor y, Tensor mean, Tensor rstd)",
    "group_norm_backward": f"({SAVED}, Tensor mean, Tensor rstd, int groups, bool[3] output_mask) -> {THREE}",
    "batch_norm": f"({GIVEN}, {FUSED}) -> (Tensor y, Tensor mean, Tensor rstd, Tensor var)",
    "batch_norm_backward": CHANNELS_BACKWARD,
    "batch_norm_inference": f"({GIVEN}, {FUSED}, Tensor running_mean, Tensor running_var) -> "
    "(Tensor y, Tensor mean, Tensor rstd)",
    "batch_norm_inference_backward": CHANNELS_BACKWARD,
}

DEVICES = ("CPU", "CUDA") if HAS_GPU else ("CPU",)

library = torch.library.Library("normkit", "DEF")


# ---- Results without values ----


def _like(x: Tensor, channels_last: bool = True) -> Tensor:
    y = result(x, channels_last)
    return torch.empty_like(x) if y is None else y


def _statistics(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _fake_layer_norm(x: Tensor, weight: Any, bias: Any, axes: int, eps: float) -> tuple[Tensor, ...]:
    shape = x.shape[:-axes]
    return _like(x, channels_last=False), _statistics(x, shape), _statistics(x, shape)


def _fake_rms_norm(x: Tensor, weight: Any, axes: int, eps: float) -> tuple[Tensor, ...]:
    return _like(x), _statistics(x, x.shape[:-axes])


def _fake_group_norm(x: Tensor, weight: Any, bias: Any, groups: int, eps: float) -> tuple[Tensor, ...]:
    shape = (x.shape[0], groups)
    return _like(x), _statistics(x, shape), _statistics(x, shape)


def _fake_batch_norm(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _like(x), *(_statistics(x, x.shape[1:2]) for _ in range(3))


def _fake_batch_norm_inference(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _like(x), _statistics(x, x.shape[1:2]), _statistics(x, x.shape[1:2])


def _fake_backward(shape_of: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """Return what makes the gradients without values; `shape_of` gives the shape of the parameters."""

    def fake(dy: Tensor, x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
        wanted = list(rest[-1])
        parameter = _statistics(x, shape_of(x, *rest)) if weight is None else weight
        likes = (x, parameter, parameter, x)
        makers = (torch.empty_like, _dense, _dense, torch.empty_like)
        return tuple(
            make(like) if want else x.new_empty(0) for make, like, want in zip(makers, likes, wanted, strict=False)
        )

    return fake


def _dense(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _trailing(x: Tensor, *rest: Any) -> Any:
    return x.shape[-rest[-2] :]


def _per_channel(x: Tensor, *rest: Any) -> Any:
    return x.shape[1:2]


# ---- Registration ----


def _no_derivative(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"normkit::{name} has no derivative: differentiate normkit::{name.removesuffix('_backward')} with "
            "create_graph=True, outside of torch.compile"
        )

    return backward


def _save(normalizer: type[Normalizer]) -> Callable[..., None]:
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        normalizer.save(ctx, inputs, output)

    return setup_context


def _eager(normalizer: Any) -> Callable[..., Tensor]:
    """
    Return the function of eager mode: `apply` of an autograd function of x, weight, bias, a residual and a call.

    That of the base class: what `torch.autograd.Function` puts around it takes a tenth of a small step, and is for
    transforms of `torch.func`, which do not come here.
    """
    members = {"forward": staticmethod(_core.torch_record), "backward": staticmethod(_core.torch_differentiate)}
    function = type(normalizer.__name__, (torch.autograd.Function,), members)
    apply: Callable[..., Tensor] = super(torch.autograd.Function, function).apply
    return apply


def backward(ctx: Any, dy: Tensor) -> Gradients:
    """Return the gradients of an eager call where `_core.torch_differentiate` leaves them to others."""
    record, (x, weight, bias, y, statistics) = ctx.record, ctx.saved_tensors
    normalizer = NORMALIZERS[record.name, record.statistics_given]
    inputs = (x, weight, bias, None)[: normalizer.tensors]
    rest = (y, *statistics) if normalizer.tensors == 4 else tuple(statistics)
    found = normalizer.derive(record, dy, inputs, rest, ctx.needs_input_grad[: len(inputs)])
    return (*found, *(None,) * (len(ctx.needs_input_grad) - len(inputs)))


def _given(gradients: Callable[..., Gradients]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function with tensors throughout, as operators must return: empty ones for those not wanted."""

    def implementation(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(dy.new_empty(0) if g is None else g for g in gradients(dy, *arguments))

    return implementation


def _register(normalizer: Any, fake: Callable[..., Any], shape_of: Callable[..., Any]) -> None:
    name, backward = normalizer.name, f"{normalizer.name}_backward"
    for operator, implementation in ((name, normalizer.forward), (backward, _given(normalizer.gradients))):
        library.define(operator + SCHEMAS[operator], tags=(torch.Tag.pt2_compliant_tag,))
        for device in DEVICES:
            library.impl(operator, implementation, device)
    torch.library.register_fake(f"normkit::{name}", fake, lib=library)
    torch.library.register_fake(f"normkit::{backward}", _fake_backward(shape_of), lib=library)
    torch.library.register_autograd(
        f"normkit::{name}", normalizer.backward, setup_context=_save(normalizer), lib=library
    )
    torch.library.register_autograd(f"normkit::{backward}", _no_derivative(backward), lib=library)
    normalizer.apply = staticmethod(_eager(normalizer))
    normalizer.operator = getattr(torch.ops.normkit, name).default
    normalizer.backward_operator = getattr(torch.ops.normkit, backward).default


NORMALIZERS: dict[tuple[str, bool], Any] = {  # by what a record says of itself
    ("layer_norm", False): LayerNorm,
    ("rms_norm", False): RMSNorm,
    ("group_norm", False): GroupNorm,
    ("batch_norm", False): BatchNorm,
    ("batch_norm", True): BatchNormInference,
}

_register(LayerNorm, _fake_layer_norm, _trailing)
_register(RMSNorm, _fake_rms_norm, _trailing)
_register(GroupNorm, _fake_group_norm, _per_channel)
_register(BatchNorm, _fake_batch_norm, _per_channel)
_register(BatchNormInference, _fake_batch_norm_inference, _per_channel)
