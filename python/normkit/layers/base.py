"""What all layers share: parameters, gradients, modes, and the exchange with PyTorch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from normkit import _core

if TYPE_CHECKING:
    from typing_extensions import Self

SHOWN = ("eps", "momentum", "affine", "elementwise_affine", "track_running_stats")  # by PyTorch, default or not


class Layer:
    """
    What the layers have in common; made as one of them.

    Attributes
    ----------
    weight, bias : numpy.ndarray or None
        The parameters, to be changed in place; None where the layer has none.
    weight_grad, bias_grad : numpy.ndarray or None
        The sums of their gradients over the calls of `backward` since `zero_grad`; None before the first.
    state : BatchNormState or None
        The moving averages of a layer that keeps them. It may be shared, or replaced by one with other options.
    training : bool
        Set by `train` and `eval`; True at first.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        eps: float,
        weight: bool,
        bias: bool,
        dtype: DTypeLike,
        state: _core.BatchNormState | None = None,
    ) -> None:
        name = type(self).__name__
        try:
            usable = 0.0 <= eps < math.inf
        except TypeError:
            raise TypeError(f"{name}: eps must be a number; got {type(eps).__name__}") from None
        if not usable:
            raise ValueError(f"{name}: eps must be finite and not negative; got eps={eps:g}")
        self.eps = eps
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"{name}: dtype must be float32, also for half-precision data, or float64; got {self.dtype.name}"
            )
        if not shape or min(shape) < 1:
            raise ValueError(f"{name}: every extent must be at least 1; got {shape}")
        self._shape = shape
        self.weight: NDArray[Any] | None = np.empty(shape, self.dtype) if weight else None
        self.bias: NDArray[Any] | None = np.empty(shape, self.dtype) if bias else None
        self.weight_grad: NDArray[Any] | None = None
        self.bias_grad: NDArray[Any] | None = None
        self.state = state
        self.training = True
        self._pullback: Callable[[Any], tuple[Any, ...]] | None = None  # dy -> dx, dweight, ...: what a call leaves
        self.reset_parameters()

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or with ``mode=False`` to evaluation, and return the layer."""
        self.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation, and return the layer: moving averages, if it keeps any, are used and not moved.

        `backward` works too: it takes the averages for constants, as fine-tuning with frozen statistics needs.
        """
        return self.train(False)

    def reset_parameters(self) -> None:
        """Go back to parameters that change nothing, and to moving averages of no batches."""
        if self.weight is not None:
            self.weight[...] = 1.0 - getattr(self, "weight_offset", 0.0)
        if self.bias is not None:
            self.bias[...] = 0.0
        if self.state is not None:
            self.state.reset()

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return the parameters there are, by name: the arrays themselves."""
        return {name: value for name, value in (("weight", self.weight), ("bias", self.bias)) if value is not None}

    def gradients(self) -> dict[str, NDArray[Any] | None]:
        """Return `weight_grad` and `bias_grad` under the names of `parameters`."""
        return {name: getattr(self, f"{name}_grad") for name in self.parameters()}

    def zero_grad(self) -> None:
        """Forget the gradients; `backward` adds to them."""
        self.weight_grad = self.bias_grad = None

    def backward(self, dy: Any) -> Any:
        """
        Take the last call back: from the gradient of its result to those of its arguments and of the parameters.

        Statistics are what they were in that call, of the batch or moving averages, whatever mode the layer is in now.

        Parameters
        ----------
        dy : array
            The gradient of the result: shape and dtype of `x`.

        Returns
        -------
        dx : array
            Shape, dtype and library of `x`.
        dresidual : array
            After a call with a residual: the gradient of that, as ``(dx, dresidual)``.

        Raises
        ------
        RuntimeError
            There was no call since the last `backward`, or one that cannot be taken back: "silu" with a residual.
        TypeError, ValueError
            `dy` does not fit. Another try may follow.
        """
        if self._pullback is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: must follow a call of the layer, one backward for each; got none, or "
                "one that keeps nothing (silu with a residual: apply silu outside); call the layer on x first"
            )
        dx, *rest = self._pullback(dy)
        self._pullback = None
        for name, gradient in zip(("weight", "bias"), rest, strict=False):
            if gradient is not None:
                before, new = getattr(self, f"{name}_grad"), np.asarray(gradient)
                setattr(self, f"{name}_grad", new if before is None else before + new)
        return (dx, *rest[2:]) if rest[2:] else dx

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """
        Copy the parameters and the moving averages, under the names that PyTorch's modules use.

        Returns
        -------
        dict
            Of `weight`, `bias`, `running_mean`, `running_var` and `num_batches_tracked` those that the layer has.
        """
        copies = {name: value.copy() for name, value in self.parameters().items()}
        return copies if self.state is None else copies | self.state.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """
        Take over what `state_dict` gave, or that of PyTorch's module of the same kind.

        Parameters
        ----------
        state_dict : mapping
            NumPy arrays or PyTorch tensors, converted to the layer's dtype. `num_batches_tracked` may be missing, as in
            old checkpoints: it is then 0.

        Raises
        ------
        TypeError, ValueError
            An entry is missing, not expected, or does not fit. The layer is then as it was.
        """
        where = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        given = {"num_batches_tracked": 0} | dict(state_dict) if self.state is not None else dict(state_dict)
        for key in (*own, *given):
            if key not in given:
                raise ValueError(f"{where}: {key!r} must be there; got the keys {sorted(state_dict)}")
            if key not in own:
                raise ValueError(f"{where}: {key!r} must not be there: the layer has the keys {sorted(own)}; remove it")
        for key in own.keys() - {"num_batches_tracked"}:
            value = given[key]
            if hasattr(value, "detach"):  # PyTorch's. NumPy has no bfloat16, and float64 loses nothing
                value = value.detach().cpu().double()
            try:
                given[key] = np.asarray(value).astype(self.dtype)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{where}: {key!r} must be an array of numbers; got {type(given[key]).__name__}"
                ) from error
            if given[key].shape != own[key].shape:
                raise ValueError(f"{where}: {key!r} must have shape {own[key].shape}; got {given[key].shape}")
        if self.state is not None:
            self.state.load_state_dict(given)  # all or nothing; and from here on nothing can fail
        for name, parameter in self.parameters().items():
            parameter[...] = given[name]

    def __repr__(self) -> str:
        """As PyTorch prints its modules, followed by what else is not the default."""
        has = vars(self) | {"bias": self.bias is not None, "dtype": self.dtype.name}
        if self.state is not None:
            has |= {"momentum": self.state.momentum, "unbiased": self.state.unbiased}
        options = inspect.signature(type(self)).parameters.values()
        shown = [
            repr(has[option.name]) if option.default is option.empty else f"{option.name}={has[option.name]!r}"
            for option in options
            if option.name in SHOWN or option.default is option.empty or has[option.name] != option.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: without what the last call left for `backward`."""
        return vars(self) | {"_pullback": None}

    def _begin(self, x: Any, axes: Sequence[int]) -> None:
        """Check the extents of `x`, which a function cannot know without parameters; drop what the last call left."""
        self._pullback = None
        shape = getattr(x, "shape", None)
        if shape is None:
            return  # the function will say what it takes
        inside = all(-len(shape) <= axis < len(shape) for axis in axes)
        if not inside or tuple(shape[axis] for axis in axes) != self._shape:
            wanted = " and ".join(f"{n} along axis {axis}" for n, axis in zip(self._shape, axes, strict=True))
            raise ValueError(f"{type(self).__name__}: x must have extent {wanted}; got shape {tuple(shape)}")
