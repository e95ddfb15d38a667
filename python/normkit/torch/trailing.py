"""LayerNorm and RMSNorm: PyTorch's modules with another forward."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit import _core
from normkit.torch import normalizers, operators  # noqa: F401 - the latter completes the former
from normkit.torch.routes import affine, operator_applies, widened


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
        shape, (weight, bias) = self.normalized_shape, affine(self)
        if getattr(input, "is_cuda", False):
            input = widened(input, "layer_norm")
        if not is_compiling():
            y = _core.torch_layer_norm(normalizers.LayerNorm.apply, input, weight, bias, shape, self.eps)
            if y is not None:
                return y
        if not operator_applies(input, weight, bias) or input.shape[-len(shape) :] != shape or not input.numel():
            return super().forward(input)
        return normalizers.LayerNorm.operator(input, weight, bias, len(shape), self.eps)[0]


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
        shape, weight, eps = self.normalized_shape, self.weight, self.eps
        if getattr(x, "is_cuda", False):
            x = widened(x, "rms_norm")
        if not is_compiling():
            y = _core.torch_rms_norm(normalizers.RMSNorm.apply, x, weight, shape, eps)
            if y is not None:
                return y
        if not operator_applies(x, weight) or x.shape[-len(shape) :] != shape or not x.numel():
            return super().forward(x)
        if eps is None:
            eps = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps
        return normalizers.RMSNorm.operator(x, weight, len(shape), eps)[0]
