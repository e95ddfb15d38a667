"""GroupNorm and InstanceNorm, statistics of each sample: PyTorch's modules with another forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit import _core
from normkit.torch import batch_normalizers, normalizers
from normkit.torch.batch import blend, wide
from normkit.torch.routes import affine, operator_applies, takes, widened


class GroupNorm(torch.nn.GroupNorm):
    """
    `torch.nn.GroupNorm` on normkit's kernels.

    Arguments, parameters, errors and the strides of the result are those of `torch.nn.GroupNorm`, but that on a
    GPU, too, what is channels last stays so.

    See Also
    --------
    convert : Makes these of PyTorch's modules in a model.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import GroupNorm
    >>> GroupNorm(2, 4, eps=0.0)(torch.tensor([[1.0, 3.0, 10.0, 20.0]])).detach()
    tensor([[-1.,  1., -1.,  1.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, channels along axis 1, over groups of channels."""
        groups, channels, (weight, bias) = self.num_groups, self.num_channels, affine(self)
        if getattr(input, "is_cuda", False):
            input = widened(input, "group_norm")
        if not is_compiling():
            y = _core.torch_group_norm(normalizers.GroupNorm.apply, input, weight, bias, channels, groups, self.eps)
            if y is not None:
                return y
        if (
            not operator_applies(input, weight, bias)
            or input.dim() < 2
            or input.shape[1] != channels
            or input.numel() <= groups  # none, or one value per statistic
        ):
            return super().forward(input)
        return normalizers.GroupNorm.operator(input, weight, bias, groups, self.eps)[0]


class _InstanceNorm(torch.nn.modules.instancenorm._InstanceNorm):
    """What the three have in common."""

    _spatial: int

    def forward(self, input: Tensor) -> Tensor:
        """
        Normalize `input`, of samples with their channels along axis 1 or of one sample without its axis.

        Returns
        -------
        torch.Tensor
            Shape and dtype of `input`; contiguous, or channels last where `input` is, which PyTorch's result is not.
        """
        if not takes(input):
            return super().forward(input)
        rank = input.dim() - self._spatial  # that of what is not spatial
        of_sample = self.training or not self.track_running_stats
        if rank not in (1, 2) or not self._usual(input, rank - 1, of_sample):
            return super().forward(input)
        batch = input.unsqueeze(0) if rank == 1 else input
        y = None if is_compiling() else self._normalize(batch, of_sample, as_operator=False)
        if y is None and operator_applies(batch, self.weight, self.bias, self.running_mean, self.running_var):
            y = self._normalize(batch, of_sample, as_operator=True)
        if y is None:
            return super().forward(input)
        return y.squeeze(0) if rank == 1 else y

    def _normalize(self, input: Tensor, of_sample: bool, as_operator: bool) -> Tensor | None:
        """Return y; None where PyTorch, or an operator, is to answer."""
        weight, bias, mean, var, eps = self.weight, self.bias, self.running_mean, self.running_var, self.eps
        channels = self.num_features
        if of_sample and mean is not None:
            return self._track(input, mean, var, as_operator)
        if as_operator and of_sample:
            return normalizers.GroupNorm.operator(input, weight, bias, channels, eps)[0]
        if as_operator:
            fixed = (input, weight, bias, None, None, eps, wide(mean), wide(var))
            return batch_normalizers.BatchNormInference.operator(*fixed)[0]
        if of_sample:
            return _core.torch_group_norm(normalizers.GroupNorm.apply, input, weight, bias, channels, channels, eps)
        averages = (mean, var, channels, (input.dim(),), eps, 0.0, None, False)
        return _core.torch_batch_norm(batch_normalizers.BatchNorm.apply, input, weight, bias, None, None, *averages)

    def _usual(self, input: Tensor, channels: int, of_sample: bool) -> bool:
        """Whether there is nothing for PyTorch to refuse, to warn of, or to do in its own way."""
        if input.shape[channels] != self.num_features or (self.running_mean is None) != (self.running_var is None):
            return False
        if not of_sample and self.running_mean is None:
            return False
        samples = input.shape[0] if channels == 1 else 1
        return input.numel() > (samples * self.num_features if of_sample else 0) and (not of_sample or self.eps > 0.0)

    def _track(self, input: Tensor, mean: Tensor, var: Any, as_operator: bool) -> Tensor | None:
        """Normalize as PyTorch does where averages are kept: as batch norm of one sample of N * C channels."""
        samples, channels = input.shape[:2]
        weight = None if self.weight is None else self.weight.repeat(samples)
        bias = None if self.bias is None else self.bias.repeat(samples)
        flat = input.reshape(1, samples * channels, *input.shape[2:])
        if as_operator:
            operator = batch_normalizers.BatchNorm.operator
            y, new_mean, _, new_var = operator(flat, weight, bias, None, None, self.eps)
        else:
            dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
            new_mean, new_var = input.new_zeros((2, samples * channels), dtype=dtype).unbind()
            # With momentum 1 the averages become those of the batch.
            averages = (new_mean, new_var, samples * channels, (flat.dim(),), self.eps, 1.0, None, True)
            y = _core.torch_batch_norm(batch_normalizers.BatchNorm.apply, flat, weight, bias, None, None, *averages)
            if y is None:
                return None
        momentum = 0.0 if self.momentum is None else self.momentum
        blend(mean, new_mean.view(samples, channels).mean(0), momentum)
        blend(var, new_var.view(samples, channels).mean(0), momentum)
        return y.view(input.shape)


class InstanceNorm1d(_InstanceNorm, torch.nn.InstanceNorm1d):
    """
    `torch.nn.InstanceNorm1d` on normkit's kernels.

    Arguments, parameters, buffers and errors are those of `torch.nn.InstanceNorm1d`.

    See Also
    --------
    convert : Makes these of PyTorch's modules in a model.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import InstanceNorm1d
    >>> InstanceNorm1d(2, eps=1e-12)(torch.tensor([[[1.0, 3.0], [10.0, 20.0]]]))
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """

    _spatial = 1


class InstanceNorm2d(_InstanceNorm, torch.nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` on normkit's kernels; otherwise as `InstanceNorm1d`."""

    _spatial = 2


class InstanceNorm3d(_InstanceNorm, torch.nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` on normkit's kernels; otherwise as `InstanceNorm1d`."""

    _spatial = 3
