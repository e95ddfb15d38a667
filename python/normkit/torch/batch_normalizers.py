"""Batch norm as autograd sees it: in training, and with given averages. See normalizers.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkit import _core
from normkit.torch.normalizers import Gradients, Normalizer, bare, result


def activated(y: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    """Return what follows the normalization, in PyTorch's own operations."""
    if residual is not None:
        y = y + residual
    if activation is None:
        return y
    return torch.relu(y) if activation == "relu" else F.silu(y)


def again(y: Tensor, residual: Tensor | None, activation: str | None, before: Tensor | None) -> Tensor:
    """Return what has the gradients of `activated`, of a residual that is not known, given relu's result `before`."""
    if before is None:
        return activated(y, residual, activation)
    return activated(y, residual, None) * (before > 0)


class Channels(Normalizer):
    """What training and inference have in common. The tensors are x, weight, bias and a residual."""

    tensors = 4
    training: bool

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, _, ctx.activation, ctx.eps = inputs[:6]
        y, mean, rstd = output[:3]
        # The value of the residual has no part in any gradient: relu's is in y.
        ctx.save_for_backward(x, weight, bias, None, y if ctx.activation == "relu" else None, mean, rstd)

    @classmethod
    def arguments(cls, ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*inputs[:3], *rest, ctx.activation, cls.training)

    @staticmethod
    def gradients(
        dy: Tensor,
        x: Tensor,
        weight: Any,
        bias: Any,
        y: Any,
        mean: Tensor,
        rstd: Tensor,
        activation: Any,
        training: bool,
        mask: Sequence[bool],
    ) -> Gradients:
        found: Gradients = _core.batch_norm_backward(
            bare(dy),
            bare(x),
            mean,
            rstd,
            bare(weight),
            bias=bare(bias) if activation == "silu" else None,
            y=bare(y),
            training=training,
            activation=activation,
            residual=mask[3],
            output_mask=mask[:3],
        )
        return found if mask[3] else (*found, None)


class BatchNorm(Channels):
    """
    With the statistics of the batch.

    As an operator it returns, with y, mean and rstd, the variance that is divided by n - 1: what a running variance
    takes. In eager mode the kernels move the running averages.
    """

    name = "batch_norm"
    training = True

    @staticmethod
    def forward(x: Tensor, weight: Any, bias: Any, residual: Any, activation: Any, eps: float) -> tuple[Tensor, ...]:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, var = x.new_zeros(x.shape[1], dtype=dtype), x.new_zeros(x.shape[1], dtype=dtype)
        # With momentum 1 the averages become those of the batch.
        y, _, rstd = _core.batch_norm_with_averages(
            bare(x), mean, var, bare(weight), bare(bias), True, 1.0, eps, bare(residual), activation, result(x), True
        )
        return y, mean, rstd, var

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        def formula(x: Tensor, weight: Any, bias: Any, residual: Any) -> Tensor:
            y = F.batch_norm(x, None, None, weight, bias, True, 0.0, ctx.eps)
            return again(y, residual, ctx.activation, statistics[0])

        return formula


class BatchNormInference(Channels):
    """With given averages, which are constants."""

    name = "batch_norm_inference"
    training = False

    @staticmethod
    def forward(
        x: Tensor,
        weight: Any,
        bias: Any,
        residual: Any,
        activation: Any,
        eps: float,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = _core.batch_norm_with_averages(
            bare(x),
            running_mean,
            running_var,
            bare(weight),
            bare(bias),
            False,
            0.0,
            eps,
            bare(residual),
            activation,
            result(x),
            True,
        )
        return results

    @staticmethod
    def reference(ctx: Any, statistics: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        _, mean, rstd = statistics

        def formula(x: Tensor, weight: Any, bias: Any, residual: Any) -> Tensor:
            shape = (-1,) + (1,) * (x.dim() - 2)
            y = (x - mean.view(shape)) * rstd.view(shape)
            y = y if weight is None else y * weight.view(shape)
            y = y if bias is None else y + bias.view(shape)
            return again(y.to(x.dtype), residual, ctx.activation, statistics[0])

        return formula
