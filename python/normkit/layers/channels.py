"""Layers with one weight and one bias per channel."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from normkit import _core
from normkit.layers.base import Layer

ArrayT = TypeVar("ArrayT")
Activation = Literal["relu", "silu"]


class ChannelLayer(Layer):
    """A layer with one weight and one bias per channel."""

    def __init__(
        self, channels: int, *, affine: bool, axis: int, activation: Activation | None, **options: Any
    ) -> None:
        if activation not in (None, "relu", "silu"):
            raise ValueError(f"{type(self).__name__}: activation must be None, 'relu' or 'silu'; got {activation!r}")
        try:
            self.axis = operator.index(axis)
        except TypeError:
            raise TypeError(f"{type(self).__name__}: axis must be an int; got {type(axis).__name__}") from None
        self.affine, self.activation = affine, activation
        super().__init__((operator.index(channels),), weight=affine, bias=affine, **options)

    def __call__(
        self,
        x: ArrayT,
        *,
        residual: ArrayT | None = None,
        mask: Any | None = None,
        lengths: Any | None = None,
        update_state: bool = True,
    ) -> ArrayT:
        """
        Normalize: ``activation(norm(x) * weight + bias + residual)``.

        Parameters
        ----------
        x : array
            float32 or half precision; float64 if the layer has ``dtype="float64"`` or no parameters.
        residual : array, optional
            Added before the activation: shape and dtype of `x`.
        mask : array of bool, optional
            Where `x` is valid (True): the shape of `x` without its channels. The result is 0 elsewhere.
        lengths : sequence of ints, optional
            Instead of a mask, for sequences: how many positions of each are valid, from the first.
        update_state : bool, default True
            False leaves moving averages alone in training too: for a call that repeats one already counted, in order to
            recompute what was not kept, or one that only looks.

        Returns
        -------
        array
            Shape, dtype and library of `x`.

        Raises
        ------
        TypeError, ValueError
            As of the function of that name. The moving averages are then as they were.
        """
        self._begin(x, (self.axis,))
        forward, backward, particular = self._functions(update_state)
        common = dict(
            weight=self.weight,
            bias=self.bias,
            axis=self.axis,
            mask=mask,
            lengths=lengths,
            activation=self.activation,
            **particular,
        )
        y, mean, rstd = forward(x, eps=self.eps, residual=residual, return_stats=True, **common)
        if self.activation != "silu" or residual is None:
            self._pullback = partial(
                backward,
                x=x,
                mean=mean,
                rstd=rstd,
                y=y if self.activation == "relu" else None,
                residual=residual is not None,
                output_mask=(True, self.weight is not None, self.bias is not None),
                **common,
            )
        return y  # type: ignore[no-any-return]

    def _functions(self, update_state: bool) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        """Forward, backward, and the arguments that both take and other layers do not."""
        raise NotImplementedError


class TrackingLayer(ChannelLayer):
    """A layer that may keep moving averages, and normalizes with them in evaluation."""

    def __init__(
        self, num_features: int, *, momentum: float | None, track_running_stats: bool, unbiased: bool, **options: Any
    ) -> None:
        self.num_features, self.momentum = num_features, momentum
        self.track_running_stats, self.unbiased = track_running_stats, unbiased
        state = _core.BatchNormState(num_features, momentum=momentum, unbiased=unbiased, dtype=options["dtype"])
        super().__init__(num_features, state=state if track_running_stats else None, **options)

    def _functions(self, update_state: bool) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        forward = partial(_core.batch_norm, state=self.state, update_state=update_state)
        return forward, _core.batch_norm_backward, {"training": self.training or self.state is None}


class BatchNorm(TrackingLayer):
    """
    Batch normalization: `batch_norm` with parameters and moving averages.

    Takes (N, C), (N, C, L), (N, C, H, W) and so on, channels first or last. In training it uses the statistics of the
    batch and moves `state` towards them; in evaluation it uses `state`, which before any training has means 0 and
    variances 1 and so changes next to nothing.

    Parameters
    ----------
    num_features : int
        The number of channels.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        The weight of a new batch in the moving averages; None stands for the cumulative average.
    affine : bool, default True
        Whether to have weight and bias.
    track_running_stats : bool, default True
        Whether to have moving averages. Without, statistics are those of the batch in evaluation too.
    axis : int, default 1
        The channel axis; -1 for channels-last data.
    activation : {None, "relu", "silu"}
        Applied to the result, in the same pass over memory.
    dtype : dtype, default "float32"
        Of parameters and averages: float32, also for half-precision data, or float64 for such data.
    unbiased : bool, default True
        Whether the variance that is averaged has the divisor n - 1 (PyTorch) or n (Keras, Flax, ONNX).
    sync : callable, optional
        Makes one batch of those of several processes, as of `batch_norm`: statistics and averages are the group's,
        gradients of parameters this process's. Used wherever the statistics of the batch are.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; when called in training, also a batch of one value per channel.

    See Also
    --------
    batch_norm, batch_norm_backward : The functions.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.layers import BatchNorm
    >>> norm = BatchNorm(2)
    >>> x = np.array([[1.0, 5.0], [3.0, 9.0]], dtype=np.float32)
    >>> norm(x).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> dx = norm.backward(np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32))
    >>> norm.bias_grad
    array([2., 0.], dtype=float32)
    >>> norm.state.running_mean
    array([0.2, 0.7], dtype=float32)
    >>> norm.eval()
    BatchNorm(2, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        axis: int = 1,
        activation: Activation | None = None,
        dtype: DTypeLike = "float32",
        unbiased: bool = True,
        sync: Callable[[_core.Moments], _core.Moments] | None = None,
    ) -> None:
        if sync is not None and not callable(sync):
            raise TypeError(
                f"BatchNorm: sync must be a function from Moments to Moments, or None; got {type(sync).__name__}"
            )
        self.sync = sync
        super().__init__(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            axis=axis,
            activation=activation,
            dtype=dtype,
            unbiased=unbiased,
        )

    def _functions(self, update_state: bool) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        forward, backward, particular = super()._functions(update_state)
        return forward, backward, particular | ({"sync": self.sync} if particular["training"] else {})


class InstanceNorm(TrackingLayer):
    """
    Instance normalization: `instance_norm` with parameters and, if asked for, moving averages.

    With moving averages, as in PyTorch: training moves them towards the mean over the batch of the statistics of each
    sample, those with fewer than two valid positions left out, and evaluation uses them, like `BatchNorm`. Unlike
    PyTorch, which leaves it at 0, `num_batches_tracked` counts the batches.

    Parameters
    ----------
    num_features : int
        The number of channels.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        The weight of a new batch in the moving averages; None stands for the cumulative average.
    affine : bool, default False
        Whether to have weight and bias.
    track_running_stats : bool, default False
        Whether to have moving averages.
    axis, activation, dtype
        As of `BatchNorm`.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    See Also
    --------
    instance_norm, instance_norm_backward : The functions.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.layers import InstanceNorm
    >>> InstanceNorm(2, eps=0.0)(np.array([[[1.0, 3.0], [10.0, 20.0]]], dtype=np.float32))
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        axis: int = 1,
        activation: Activation | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        super().__init__(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            axis=axis,
            activation=activation,
            dtype=dtype,
            unbiased=True,
        )

    def _functions(self, update_state: bool) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        if self.state is not None and not self.training:
            return super()._functions(update_state)
        tracked = self.state is not None and update_state
        return self._tracked if tracked else _core.instance_norm, _core.instance_norm_backward, {}

    def _tracked(self, x: Any, *, mask: Any, lengths: Any, **options: Any) -> Any:
        """Call `instance_norm`, and move the averages."""
        result = _core.instance_norm(x, mask=mask, lengths=lengths, **options)
        rank = len(x.shape)
        channels = self.axis % rank
        if lengths is not None:
            mask = np.arange(x.shape[2 if channels == 1 else 1]) < np.asarray(lengths)[:, None]
        if mask is not None:
            mask = mask[(slice(None),) * channels + (None,)]
        moments = _core.moments(x, axis=[axis for axis in range(1, rank) if axis != channels], mask=mask)
        counted = (moments.count > 1).all(axis=1)
        if self.state is not None and counted.any():
            ddof = int(self.state.unbiased)
            mean, var = moments.mean[counted].mean(axis=0), moments.var(ddof)[counted].mean(axis=0)
            self.state.update(_core.Moments(2, mean, var * (2 - ddof)))  # of any two values with these statistics
        return result


class GroupNorm(ChannelLayer):
    """
    Group normalization: `group_norm` with parameters.

    Parameters
    ----------
    num_groups : int
        Into how many groups of neighbouring channels to divide them; it must divide their number.
    num_channels : int
        The number of channels.
    eps : float, default 1e-5
        Added to the variance.
    affine : bool, default True
        Whether to have weight and bias.
    axis, activation, dtype
        As of `BatchNorm`.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    See Also
    --------
    group_norm, group_norm_backward : The functions.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.layers import GroupNorm
    >>> GroupNorm(2, 4, eps=0.0)(np.array([[1.0, 3.0, 10.0, 20.0]], dtype=np.float32))
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        axis: int = 1,
        activation: Activation | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide num_channels; got {num_groups} for {num_channels}")
        self.num_groups, self.num_channels = num_groups, num_channels
        super().__init__(num_channels, eps=eps, affine=affine, axis=axis, activation=activation, dtype=dtype)

    def _functions(self, update_state: bool) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        return _core.group_norm, _core.group_norm_backward, {"num_groups": self.num_groups}
