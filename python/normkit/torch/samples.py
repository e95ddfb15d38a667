"""GroupNorm and InstanceNorm, statistics of each sample: PyTorch's modules with another forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normkit.torch import batch_normalizers, normalizers
from normkit.torch.batch import _wide, blend
from normkit.torch.operators import call
from normkit.torch.routes import PYTORCH, parameter, route


class GroupNorm(torch.nn.GroupNorm):
    """
    `torch.nn.GroupNorm` on normkit's kernels.

    Arguments, parameters, errors and the strides of the result are those of `torch.nn.GroupNorm`.

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
        groups, weight, bias = self.num_groups, parameter(self, "weight"), parameter(self, "bias")
        way = route(input, weight, bias)
        if (
            way == PYTORCH
            or input.dim() < 2
            or input.shape[1] != self.num_channels
            or input.numel() <= groups  # none, or one value per statistic
        ):
            return super().forward(input)
        return call(way, normalizers.GroupNorm, input, weight, bias, groups, self.eps)


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
        rank = input.dim() - self._spatial  # that of what is not spatial
        of_sample = self.training or not self.track_running_stats
        mean, var = self.running_mean, self.running_var
        way = route(input, self.weight, self.bias, mean, var)
        if way == PYTORCH or rank not in (1, 2) or not self._usual(input, rank - 1, of_sample):
            return super().forward(input)
        batch = input.unsqueeze(0) if rank == 1 else input
        if not of_sample:
            fixed = (batch, self.weight, self.bias, None, None, self.eps)
            y = call(way, batch_normalizers.BatchNormInference, *fixed, _wide(mean), _wide(var))
        elif mean is None:
            y = call(way, normalizers.GroupNorm, batch, self.weight, self.bias, self.num_features, self.eps)
        else:
            y = self._track(batch, mean, var)
        return y.squeeze(0) if rank == 1 else y

    def _usual(self, input: Tensor, channels: int, of_sample: bool) -> bool:
        """Whether there is nothing for PyTorch to refuse, to warn of, or to do in its own way."""
        if input.shape[channels] != self.num_features or (self.running_mean is None) != (self.running_var is None):
            return False
        if not of_sample and self.running_mean is None:
            return False
        samples = input.shape[0] if channels == 1 else 1
        return input.numel() > (samples * self.num_features if of_sample else 0) and (not of_sample or self.eps > 0.0)

    def _track(self, input: Tensor, mean: Tensor, var: Any) -> Tensor:
        """Normalize as PyTorch does where averages are kept: as batch norm of one sample of N * C channels."""
        samples, channels = input.shape[:2]
        weight = None if self.weight is None else self.weight.repeat(samples)
        bias = None if self.bias is None else self.bias.repeat(samples)
        flat = input.reshape(1, samples * channels, *input.shape[2:])
        y, new_mean, _, new_var = batch_normalizers.BatchNorm.operator(flat, weight, bias, None, None, self.eps)
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
