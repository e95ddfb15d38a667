"""One line of the benchmark: an operation, the shape and layout of its data, and a dtype. Knows no library."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operations import GROUPS, OPERATIONS, Operation

DTYPES = ("float32", "float64", "bfloat16", "float16")


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype; NumPy itself has no bfloat16."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


@dataclass(frozen=True)
class Data:
    """The arrays of a workload, as far as its operation wants them; all others are None.

    `mean` and `rstd` are what a forward pass has saved for the backward pass, one value per statistic.
    """

    x: np.ndarray
    weight: Any = None
    bias: Any = None
    running_mean: Any = None
    running_var: Any = None
    residual: Any = None
    dy: Any = None
    mean: Any = None
    rstd: Any = None


@dataclass(frozen=True)
class Workload:
    """One line of the benchmark. `shape` is as the data lies in memory, so (N, H, W, C) for the layout NHWC.

    Layouts: "rows" are samples to be normalized each, "table" is a matrix of samples x channels, NCHW and NHWC are
    images.
    """

    operation: Operation
    layout: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    both: bool = field(default=False, compare=False)  # timed with one thread too, not only with all of them

    @classmethod
    def named(
        cls, operation: str, layout: str, shape: tuple[int, ...], dtype: str = "float32", **more: bool
    ) -> Workload:
        """Make one from the operation's name and a shape (N, C, H, W), however the images lie."""
        if layout == "NHWC":
            n, c, h, w = shape
            shape = (n, h, w, c)
        return cls(OPERATIONS[operation], layout, shape, dtype, **more)

    @property
    def name(self) -> str:
        """How the workload is called in tables and by --filter."""
        return f"{self.operation.name} {self.layout} {'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def channel_axis(self) -> int:
        """The axis of channels."""
        return len(self.shape) - 1 if self.layout == "NHWC" else 1

    @property
    def channels(self) -> int:
        """The extent of `channel_axis`."""
        return self.shape[self.channel_axis]

    @property
    def reduced(self) -> tuple[int, ...]:
        """The axes that statistics are taken over; per "group" within each group of channels."""
        kept = {
            "channel": (self.channel_axis,),
            "sample": (0,),
            "group": (0, self.channel_axis),
            "instance": (0, self.channel_axis),
        }[self.operation.per]
        return tuple(axis for axis in range(len(self.shape)) if axis not in kept)

    @property
    def affine(self) -> tuple[int, ...]:
        """The axes along which weight and bias vary."""
        return self.reduced if self.operation.per == "sample" else (self.channel_axis,)

    @property
    def split(self) -> tuple[int, int] | None:
        """The axis that is read as groups, and their number."""
        return (self.channel_axis, GROUPS) if self.operation.per == "group" else None

    @property
    def parameters(self) -> tuple[int, ...]:
        """The shape of weight and bias."""
        return tuple(self.shape[axis] for axis in self.affine)

    @property
    def size(self) -> int:
        """The number of elements of x."""
        return math.prod(self.shape)

    @property
    def tensor_bytes(self) -> int:
        """The bytes of x."""
        return self.size * dtype_of(self.dtype).itemsize

    @property
    def bytes_moved(self) -> int:
        """The bytes that cannot be avoided: each tensor of the size of x read or written once."""
        return (self.operation.reads + self.operation.writes) * self.tensor_bytes

    def data(self) -> Data:
        """Make the arrays: values away from zero, another mean and scale in each channel, no trivial parameter.

        The statistics that a backward pass starts from are the oracle's to add.
        """
        rng, operation, dtype = np.random.default_rng(20), self.operation, dtype_of(self.dtype)
        per_channel = [self.channels if axis == self.channel_axis else 1 for axis in range(len(self.shape))]
        mean, scale = rng.uniform(-3, 3, per_channel), rng.uniform(0.5, 2, per_channel)

        def normal() -> np.ndarray:
            return rng.standard_normal(self.shape, np.float32)

        def parameter(low: float, high: float) -> np.ndarray:
            return rng.uniform(low, high, self.parameters).astype(dtype)

        x = normal()
        x *= scale.astype(np.float32)
        x += mean.astype(np.float32)
        moving = operation.per == "channel" and operation.weight
        return Data(
            x.astype(dtype, copy=False),
            parameter(0.5, 1.5) if operation.weight else None,
            parameter(-1, 1) if operation.bias else None,
            mean.ravel().astype(np.float32) if moving else None,
            (scale.ravel() ** 2).astype(np.float32) if moving else None,
            normal().astype(dtype) if operation.sums or operation.fused else None,
            normal().astype(dtype) if operation.backward else None,
        )

    def buffers(self) -> tuple[np.ndarray, ...]:
        """Make ready buffers for all results, filled with NaN: what is not written is found out."""
        operation = self.operation
        shapes = [self.shape] * operation.writes
        if operation.backward:
            shapes += [self.parameters] * (operation.weight + operation.bias)
        return tuple(np.full(shape, np.nan, dtype_of(self.dtype)) for shape in shapes)
