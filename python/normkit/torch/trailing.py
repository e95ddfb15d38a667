"""LayerNorm and RMSNorm: PyTorch's modules with another forward."""

from __future__ import annotations

import torch
from torch import Tensor

from normkit.torch import normalizers
from normkit.torch.operators import call
from normkit.torch.routes import PYTORCH, parameter, route


class LayerNorm(torch.nn.LayerNorm):
    """
    `torch.nn.LayerNorm` on normkit's kernels.

    Arguments, parameters, errors and the strides of the result are those of `torch.nn.LayerNorm`.

    See Also
    --------
    convert : Makes these of PyTorch's modules in a model.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import LayerNorm
    >>> norm = LayerNorm(2, eps=0.0)
    >>> norm(torch.tensor([[1.0, 3.0], [5.0, 9.0]])).detach()
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` over its last axes."""
        shape, weight, bias = self.normalized_shape, parameter(self, "weight"), parameter(self, "bias")
        way = route(input, weight, bias)
        if way == PYTORCH or input.shape[-len(shape) :] != shape or not input.numel():
            return super().forward(input)
        return call(way, normalizers.LayerNorm, input, weight, bias, len(shape), self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """
    `torch.nn.RMSNorm` on normkit's kernels.

    Arguments, parameters, errors and the strides of the result are those of `torch.nn.RMSNorm`; ``eps=None`` stands for
    the machine epsilon of float32, for float64 data of float64.

    See Also
    --------
    convert : Makes these of PyTorch's modules in a model.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import RMSNorm
    >>> RMSNorm(3, eps=0.0)(torch.tensor([2.0, -2.0, 2.0])).detach()
    tensor([ 1., -1.,  1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `x` over its last axes."""
        shape, weight, eps = self.normalized_shape, parameter(self, "weight"), self.eps
        way = route(x, weight)
        if way == PYTORCH or x.shape[-len(shape) :] != shape or not x.numel():
            return super().forward(x)
        if eps is None:
            eps = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps
        return call(way, normalizers.RMSNorm, x, weight, len(shape), eps)
