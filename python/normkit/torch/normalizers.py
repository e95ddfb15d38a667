"""
The normalizers as autograd sees them, one class each: forward, what is saved, backward.

`forward` and `gradients` are the implementations of the operators `normkit::<name>` and `normkit::<name>_backward`:
neither records anything. `save` and `backward` are what autograd has of the operators. In eager mode `apply` and
`derive` take the place of all four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkit import _core
from normkit.torch.routes import direct, transformed

Gradients = tuple[Tensor | None, ...]


def bare(tensor: Any) -> Any:
    """Return a tensor that the kernels take: without its part in autograd, which goes on above them."""
    return tensor if tensor is None or not tensor.requires_grad else tensor.detach()


def kept(x: Tensor) -> bool:
    """Whether PyTorch's normalizers answer in the strides of `x`: contiguous or channels last."""
    rank = x.dim()
    return bool(
        x.is_contiguous()
        or (rank == 4 and x.is_contiguous(memory_format=torch.channels_last))
        or (rank == 5 and x.is_contiguous(memory_format=torch.channels_last_3d))
    )


def result(x: Tensor, channels_last: bool = True) -> Tensor | None:
    """Return where to write the result; None where the kernels' own choice, the strides of `x`, is PyTorch's."""
    if kept(x) if channels_last else x.is_contiguous():
        return None
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def differentiable(
    reference: Callable[..., Tensor], tensors: Sequence[Tensor | None], needed: Sequence[bool], dy: Tensor
) -> list[Tensor | None]:
    """
    Return the gradients of `reference(*tensors)` by PyTorch's own means: they can be differentiated again.

    A tensor that is needed but None was not kept, because its value has no part in any gradient.
    """
    again = torch.is_grad_enabled()
    stand_in = tensors[0]
    with torch.enable_grad():
        # Partial derivatives: of views, since one of the tensors may be computed from another.
        views = [
            t if not n else t.view_as(t) if t is not None else torch.zeros_like(stand_in, requires_grad=True)
            for t, n in zip(tensors, needed, strict=True)
        ]
        wanted = [view for view, n in zip(views, needed, strict=True) if n]
        found = iter(torch.autograd.grad(reference(*views), wanted, dy, create_graph=again))
    return [next(found) if n else None for n in needed]


class Normalizer:
    """What the normalizers have in common. The first inputs, `tensors` of them, are those with gradients."""

    name: str
    tensors: int
    forward: Callable[..., tuple[Tensor, ...]]  # y and the statistics
    gradients: Callable[..., Gradients]  # of the tensors, None for those not wanted
    apply: Callable[..., Tensor]  # y, of calls of eager mode that gradients flow through
    operator: Any
    backward_operator: Any

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep in `ctx` what `backward` needs; the inputs without gradients are left out of the graph."""
        raise NotImplementedError

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        """Return the function of the tensors in PyTorch's own operations."""
        raise NotImplementedError

    @staticmethod
    def arguments(ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what `gradients` takes between dy and the mask of what is wanted."""
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Any, dy: Tensor | None, *_: Any) -> Gradients:
        """Return the gradients of all inputs of the operator."""
        needs, count = ctx.needs_input_grad, cls.tensors
        if dy is None:
            return (None,) * len(needs)
        saved = ctx.saved_tensors
        found = cls.derive(ctx, dy, saved[:count], saved[count:], needs[:count])
        return (*found, *(None,) * (len(needs) - count))

    @classmethod
    def derive(
        cls, record: Any, dy: Tensor, inputs: tuple[Any, ...], rest: tuple[Any, ...], needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the tensors; `record` has the other inputs as attributes."""
        needed = list(needed)
        if torch.is_grad_enabled() or transformed(dy):
            found: Sequence[Tensor | None] = differentiable(cls.reference(record, rest), inputs, needed, dy)
        else:
            arguments = cls.arguments(record, inputs, rest)
            if direct(dy, inputs[0]):
                return cls.gradients(dy, *arguments, needed)
            found = cls.backward_operator(dy, *arguments, needed)
        return tuple(g if n else None for g, n in zip(found, needed, strict=True))


def _axes(count: int) -> tuple[int, ...]:
    return tuple(range(-count, 0))


class LayerNorm(Normalizer):
    """Over the last `axes` axes."""

    name = "layer_norm"
    tensors = 3

    @staticmethod
    def forward(x: Tensor, weight: Any, bias: Any, axes: int, eps: float) -> tuple[Tensor, ...]:
        out = result(x, channels_last=False)
        return _core.layer_norm(
            bare(x), bare(weight), bare(bias), axis=_axes(axes), eps=eps, out=out, return_stats=True
        )

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.axes, ctx.eps = inputs
        ctx.save_for_backward(x, weight, bias, *output[1:])

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        return lambda x, weight, bias: F.layer_norm(x, x.shape[-ctx.axes :], weight, bias, ctx.eps)

    @staticmethod
    def arguments(ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*inputs[:2], *rest, ctx.axes)

    @staticmethod
    def gradients(
        dy: Tensor, x: Tensor, weight: Any, mean: Tensor, rstd: Tensor, axes: int, mask: Sequence[bool]
    ) -> Gradients:
        found: Gradients = _core.layer_norm_backward(
            bare(dy), bare(x), mean, rstd, bare(weight), axis=_axes(axes), output_mask=mask
        )
        return found


class RMSNorm(Normalizer):
    """Over the last `axes` axes, not centred."""

    name = "rms_norm"
    tensors = 2

    @staticmethod
    def forward(x: Tensor, weight: Any, axes: int, eps: float) -> tuple[Tensor, ...]:
        return _core.rms_norm(bare(x), bare(weight), axis=_axes(axes), eps=eps, out=result(x), return_stats=True)

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, ctx.axes, ctx.eps = inputs
        ctx.save_for_backward(x, weight, *output[1:])

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        return lambda x, weight: F.rms_norm(x, x.shape[-ctx.axes :], weight, ctx.eps)

    @staticmethod
    def arguments(ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*inputs, *rest, ctx.axes)

    @staticmethod
    def gradients(dy: Tensor, x: Tensor, weight: Any, rstd: Tensor, axes: int, mask: Sequence[bool]) -> Gradients:
        found: Gradients = _core.rms_norm_backward(
            bare(dy), bare(x), rstd, bare(weight), axis=_axes(axes), output_mask=mask
        )
        return found


class GroupNorm(Normalizer):
    """Over groups of channels; with as many groups as channels, instance norm."""

    name = "group_norm"
    tensors = 3

    @staticmethod
    def forward(x: Tensor, weight: Any, bias: Any, groups: int, eps: float) -> tuple[Tensor, ...]:
        return _core.group_norm(bare(x), groups, bare(weight), bare(bias), eps=eps, out=result(x), return_stats=True)

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.groups, ctx.eps = inputs
        ctx.save_for_backward(x, weight, bias, *output[1:])

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        return lambda x, weight, bias: F.group_norm(x, ctx.groups, weight, bias, ctx.eps)

    @staticmethod
    def arguments(ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*inputs[:2], *rest, ctx.groups)

    @staticmethod
    def gradients(
        dy: Tensor, x: Tensor, weight: Any, mean: Tensor, rstd: Tensor, groups: int, mask: Sequence[bool]
    ) -> Gradients:
        found: Gradients = _core.group_norm_backward(
            bare(dy), bare(x), mean, rstd, groups, bare(weight), output_mask=mask
        )
        return found
