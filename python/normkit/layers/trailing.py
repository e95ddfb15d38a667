"""Layers over the last axes, with parameters of their shape."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, overload

from numpy.typing import DTypeLike

from normkit import _core
from normkit.layers.base import Layer

ArrayT = TypeVar("ArrayT")


class TrailingLayer(Layer):
    """A layer over the last axes, with parameters of their shape."""

    _added = False  # whether the last call had a residual

    def __init__(self, normalized_shape: int | Sequence[int], *, elementwise_affine: bool, **options: Any) -> None:
        shape = normalized_shape if isinstance(normalized_shape, Sequence) else [normalized_shape]
        self.normalized_shape, self.elementwise_affine = tuple(map(operator.index, shape)), elementwise_affine
        super().__init__(self.normalized_shape, weight=elementwise_affine, **options)

    @overload
    def __call__(self, x: ArrayT, *, residual: None = None, update_state: bool = True) -> ArrayT: ...
    @overload
    def __call__(self, x: ArrayT, *, residual: ArrayT, update_state: bool = True) -> tuple[ArrayT, ArrayT]: ...
    def __call__(
        self, x: ArrayT, *, residual: ArrayT | None = None, update_state: bool = True
    ) -> ArrayT | tuple[ArrayT, ArrayT]:
        """
        Normalize `x`, or with a residual the sum of both: the blocks of transformers go on with either.

        Parameters
        ----------
        x : array
            float32 or half precision; float64 if the layer has ``dtype="float64"`` or no parameters.
        residual : array, optional
            Shape and dtype of `x`.
        update_state : bool, default True
            Has no effect: so that all layers can be called alike.

        Returns
        -------
        y : array
            Shape, dtype and library of `x`.
        s : array
            With a residual: ``x + residual``, as ``(y, s)``.

        Raises
        ------
        TypeError, ValueError
            As of the function of that name.
        """
        axes = tuple(range(-len(self._shape), 0))
        self._begin(x, axes)
        self._added = residual is not None
        forward, backward, statistics, common = self._functions(self._added)
        common |= {"axis": axes, "weight": self.weight}
        centred = {"bias": self.bias} if "mean" in statistics else {}
        sources = (x,) if residual is None else (x, residual)
        y, *values = forward(*sources, eps=self.eps, return_stats=True, **centred, **common)
        s = values.pop(0) if self._added else x
        needed = (True, *(parameter is not None for parameter in (self.weight, *centred.values())))
        saved = dict(zip(statistics, values, strict=True))
        self._pullback = partial(backward, x=s, output_mask=needed, **saved, **common)
        return (y, s) if self._added else y

    def backward(self, dy: Any, ds: Any | None = None) -> Any:
        """
        As of every layer (`Layer.backward`); after a call with a residual, of both results.

        Parameters
        ----------
        dy : array
            The gradient of `y`: shape and dtype of `x`.
        ds : array, optional
            The gradient of `s`, likewise, where `s` was used: it is added.

        Returns
        -------
        dx : array
            Shape, dtype and library of `x`.
        dresidual : array
            After a call with a residual: `dx` again, as ``(dx, dresidual)``.

        Raises
        ------
        RuntimeError
            There was no call since the last `backward`.
        TypeError, ValueError
            `dy` or `ds` does not fit. Another try may follow.
        """
        if ds is not None and not (self._added and ds.shape == dy.shape and ds.dtype == dy.dtype):
            raise ValueError(
                f"{type(self).__name__}.backward: ds must follow a call with a residual and be like dy, which is "
                f"{tuple(dy.shape)} of {dy.dtype}; got {tuple(ds.shape)} of {ds.dtype}"
                + ("" if self._added else " after a call without one")
            )
        dx = super().backward(dy)
        if ds is not None:
            dx += ds
        return (dx, dx) if self._added else dx

    def _functions(self, added: bool) -> tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...], dict[str, Any]]:
        """Forward, backward, the statistics between them, and the arguments that both take and other layers do not."""
        raise NotImplementedError


class LayerNorm(TrailingLayer):
    """
    Layer normalization: `layer_norm` over the last axes, with parameters.

    Parameters
    ----------
    normalized_shape : int or sequence of ints
        The extents of the axes to normalize over, which are the last ones.
    eps : float, default 1e-5
        Added to the variance.
    elementwise_affine : bool, default True
        Whether to have a weight, and unless ``bias=False`` a bias.
    bias : bool, default True
        Whether to have a bias.
    dtype
        As of `BatchNorm`.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    See Also
    --------
    layer_norm, add_layer_norm, layer_norm_backward : The functions.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.layers import LayerNorm
    >>> norm = LayerNorm(2, eps=0.0)
    >>> x = np.array([[1.0, 3.0], [5.0, 9.0]], dtype=np.float32)
    >>> norm(x)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    >>> y, s = norm(x, residual=np.array([[1.0, 1.0], [3.0, -1.0]], dtype=np.float32))
    >>> s
    array([[2., 4.],
           [8., 8.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = "float32",
    ) -> None:
        has_bias = elementwise_affine and bias
        super().__init__(normalized_shape, eps=eps, elementwise_affine=elementwise_affine, bias=has_bias, dtype=dtype)

    def _functions(self, added: bool) -> tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...], dict[str, Any]]:
        forward = _core.add_layer_norm if added else _core.layer_norm
        return forward, _core.layer_norm_backward, ("mean", "rstd"), {}


class RMSNorm(TrailingLayer):
    """
    Root mean square normalization: `rms_norm` over the last axes, with a weight.

    Parameters
    ----------
    normalized_shape : int or sequence of ints
        The extents of the axes to normalize over, which are the last ones.
    eps : float, default 1e-5
        Added to the mean square.
    weight_offset : float, default 0.0
        Added to the weight: 1.0 for models that store weight - 1, such as Gemma. The weight then begins at 0.
    elementwise_affine : bool, default True
        Whether to have a weight.
    dtype
        As of `BatchNorm`.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    See Also
    --------
    rms_norm, add_rms_norm, rms_norm_backward : The functions.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.layers import RMSNorm
    >>> RMSNorm(3, eps=0.0)(np.array([2.0, -2.0, 2.0], dtype=np.float32))
    array([ 1., -1.,  1.], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        weight_offset: float = 0.0,
        elementwise_affine: bool = True,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.weight_offset = weight_offset
        super().__init__(normalized_shape, eps=eps, elementwise_affine=elementwise_affine, bias=False, dtype=dtype)

    def _functions(self, added: bool) -> tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...], dict[str, Any]]:
        forward = _core.add_rms_norm if added else _core.rms_norm
        options = {"weight_offset": self.weight_offset if self.elementwise_affine else 0.0}
        return forward, _core.rms_norm_backward, ("rstd",), options
