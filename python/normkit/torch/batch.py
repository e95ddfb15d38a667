"""BatchNorm: PyTorch's modules with another forward, and with a residual and an activation in the same pass."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit import _core
from normkit.torch import batch_normalizers, operators  # noqa: F401 - the latter completes the former
from normkit.torch.batch_normalizers import activated
from normkit.torch.routes import HALVES, affine, averages, operator_applies

Activation = Literal["relu", "silu"]


class _BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """What the three have in common."""

    activation: Activation | None = None  # of the class: modules that `convert` has made have none of their own
    _ranks: tuple[int, ...]

    def __init__(self, *args: Any, activation: Activation | None = None, **kwargs: Any) -> None:
        if activation not in (None, "relu", "silu"):
            raise ValueError(f"{type(self).__name__}: activation must be None, 'relu' or 'silu'; got {activation!r}")
        super().__init__(*args, **kwargs)
        if activation is not None:
            self.activation = activation

    def extra_repr(self) -> str:
        """Return the arguments as PyTorch shows them, and the activation if there is one."""
        text: str = super().extra_repr()
        return text if self.activation is None else f"{text}, activation={self.activation!r}"

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """
        Return ``activation(batch_norm(input) + residual)``, in one pass over memory.

        Parameters
        ----------
        input : torch.Tensor
            Channels along axis 1.
        residual : torch.Tensor, optional
            Shape and dtype of `input`; not with ``activation="silu"``.

        Returns
        -------
        torch.Tensor
            Shape and dtype of `input`; contiguous, or channels last where `input` is.
        """
        if residual is not None:
            self._check_residual(input, residual)
        weight, bias = affine(self)
        mean, var = averages(self)
        of_batch = self.training or (mean is None and var is None)
        if self.training and not self.track_running_stats:
            mean = var = None
        elif (mean is None) != (var is None) or (mean is None and self.track_running_stats):
            return activated(super().forward(input), residual, self.activation)  # buffers were taken away
        tensors = (input, weight, bias, residual, mean, var)
        if not is_compiling():
            y = self._eager(of_batch, *tensors)
            if y is not None:
                return y
        if not operator_applies(*tensors) or not self._usual(input, of_batch):
            return activated(super().forward(input), residual, self.activation)
        fixed = (input, weight, bias, residual, self.activation, self.eps)
        if not of_batch:
            return batch_normalizers.BatchNormInference.operator(*fixed, wide(mean), wide(var))[0]
        if mean is None:
            return batch_normalizers.BatchNorm.operator(*fixed)[0]
        return self._track(mean, var, fixed)

    def _eager(
        self, of_batch: bool, input: Tensor, weight: Any, bias: Any, residual: Any, mean: Any, var: Any
    ) -> Tensor | None:
        """Return y, and move the averages where they are; None where PyTorch, or an operator, is to answer."""
        return _core.torch_batch_norm(
            batch_normalizers.BatchNorm.apply,
            input,
            weight,
            bias,
            residual,
            self.activation,
            mean,
            var,
            self.num_features,
            self._ranks,
            self.eps,
            self.momentum,
            self.num_batches_tracked if of_batch else None,
            of_batch,
        )

    def _usual(self, input: Tensor, of_batch: bool) -> bool:
        """Whether there is nothing for PyTorch to refuse, or to do in its own way."""
        values = input.numel()
        if input.dim() not in self._ranks or input.shape[1] != self.num_features or values == 0:
            return False
        if of_batch and (values <= self.num_features or self.eps <= 0.0):
            return False
        return self.momentum is None or 0.0 <= self.momentum <= 1.0

    def _check_residual(self, input: Tensor, residual: Tensor) -> None:
        name = type(self).__name__
        if self.activation == "silu":
            raise ValueError(f"{name}: residual must go with activation None or 'relu'; got 'silu'")
        if residual.shape != input.shape or residual.dtype != input.dtype:
            raise ValueError(
                f"{name}: residual must be like input, {tuple(input.shape)} of {input.dtype}; "
                f"got {tuple(residual.shape)} of {residual.dtype}"
            )

    def _track(self, mean: Tensor, var: Any, fixed: tuple[Any, ...]) -> Tensor:
        """Normalize with the statistics of the batch, by the operator, and move the averages towards them."""
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        count = self.num_batches_tracked
        if count is not None:
            count.add_(1)
            if self.momentum is None:
                momentum = 1.0 / count
        y: Tensor
        y, new_mean, _, new_var = batch_normalizers.BatchNorm.operator(*fixed)
        blend(mean, new_mean, momentum)
        blend(var, new_var, momentum)
        return y


def wide(average: Any) -> Any:
    """Return an average as the kernels take it."""
    return average.float() if average.dtype in HALVES else average


def blend(running: Tensor, batch: Tensor, momentum: float | Tensor) -> None:
    """Move a running average towards the statistic of the batch."""
    with torch.no_grad():
        running.copy_((1.0 - momentum) * running.to(batch.dtype) + momentum * batch)


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """
    `torch.nn.BatchNorm1d` on normkit's kernels.

    Arguments, parameters, buffers and errors are those of `torch.nn.BatchNorm1d`. The running averages move as there:
    a batch with NaN or infinity goes into them, other than with `normkit.BatchNormState`.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.BatchNorm1d`.
    activation : {"relu", "silu"} or None, default None
        What the result goes through, in the same pass; no part of the state_dict.

    See Also
    --------
    convert : Makes these of PyTorch's modules in a model.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import BatchNorm1d
    >>> norm = BatchNorm1d(1, eps=1e-12, activation="relu")
    >>> norm(torch.tensor([[1.0], [3.0]])).detach()
    tensor([[0.],
            [1.]])
    >>> norm.running_mean
    tensor([0.2000])
    """

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """
    `torch.nn.BatchNorm2d` on normkit's kernels; otherwise as `BatchNorm1d`.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import BatchNorm2d
    >>> x, norm = torch.randn(4, 8, 5, 5), BatchNorm2d(8, activation="relu")
    >>> y = norm(x, residual=x)                         # relu(batch_norm(x) + x)
    >>> bool((y >= 0).all())
    True
    """

    _ranks = (4,)


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` on normkit's kernels; otherwise as `BatchNorm1d`."""

    _ranks = (5,)
