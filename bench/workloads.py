"""What is timed: an operation, the shape and layout of its data, and a dtype. Knows no library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference  # the tests' oracle: one for the whole project

EPS = 1e-5
GROUPS = 32
OPERATIONS = (
    "batch_norm_training",
    "batch_norm_inference",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
    "standardize",
    "min_max_scale",
)
WITHOUT_BIAS = ("rms_norm", "standardize", "min_max_scale")
WITHOUT_WEIGHT = ("standardize", "min_max_scale")

ROWS = (8192, 768)
IMAGES = (32, 64, 56, 56)
QUICK_ROWS = (96, 768)
QUICK_IMAGES = (2, 64, 14, 14)


@dataclass(frozen=True)
class Data:
    """The arrays of a workload. `running_*` are given to batch_norm_inference and moved by batch_norm_training."""

    x: np.ndarray
    weight: np.ndarray | None
    bias: np.ndarray | None
    running_mean: np.ndarray
    running_var: np.ndarray


@dataclass(frozen=True)
class Workload:
    """One line of the benchmark. `shape` is as the data lies in memory, so (N, H, W, C) for the layout NHWC.

    Layouts: "rows" are samples to be normalized each, "table" is a matrix of samples x channels, NCHW and NHWC are
    images. Statistics of `standardize` and `min_max_scale` are taken per channel.
    """

    operation: str
    layout: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """How the workload is called in tables and by --filter."""
        return f"{self.operation} {self.layout} {'x'.join(map(str, self.shape))} {self.dtype}"

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
        """The axes that statistics are taken over; for group_norm within each group of channels."""
        every = range(len(self.shape))
        if self.operation in ("layer_norm", "rms_norm"):
            return tuple(every)[1:]
        per_sample = self.operation in ("group_norm", "instance_norm")
        return tuple(axis for axis in every if axis != self.channel_axis and not (per_sample and axis == 0))

    @property
    def affine(self) -> tuple[int, ...]:
        """The axes along which weight and bias vary."""
        return self.reduced if self.operation in ("layer_norm", "rms_norm") else (self.channel_axis,)

    @property
    def bytes_moved(self) -> int:
        """The bytes that cannot be avoided, those of a copy: x read once, y written once."""
        return 2 * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def broadcastable(self, parameter: np.ndarray) -> np.ndarray:
        """Return weight or bias in a shape that broadcasts against x."""
        return parameter.reshape([n if axis in self.affine else 1 for axis, n in enumerate(self.shape)])

    def data(self) -> Data:
        """Make the arrays: values away from zero, another mean and scale in each channel, no trivial parameter."""
        rng = np.random.default_rng(20)
        per_channel = [self.channels if axis == self.channel_axis else 1 for axis in range(len(self.shape))]
        mean, scale = rng.uniform(-3, 3, per_channel), rng.uniform(0.5, 2, per_channel)
        x = (rng.standard_normal(self.shape, np.float32) * scale + mean).astype(self.dtype)
        parameters = [self.shape[axis] for axis in self.affine]
        return Data(
            x,
            None if self.operation in WITHOUT_WEIGHT else rng.uniform(0.5, 1.5, parameters).astype(self.dtype),
            None if self.operation in WITHOUT_BIAS else rng.uniform(-1, 1, parameters).astype(self.dtype),
            mean.ravel().astype(np.float32),
            (scale.ravel() ** 2).astype(np.float32),
        )

    def expected(self, data: Data) -> np.ndarray:
        """Return the oracle's result in float64."""
        if self.operation == "min_max_scale":
            return reference.rescale(data.x, self.reduced).astype(np.float64)
        result = reference.normalize(
            data.x,
            self.reduced,
            self.affine,
            split=(self.channel_axis, GROUPS) if self.operation == "group_norm" else None,
            weight=data.weight,
            bias=data.bias,
            eps=0.0 if self.operation == "standardize" else EPS,
            centred=self.operation != "rms_norm",
            given=(data.running_mean, data.running_var) if self.operation == "batch_norm_inference" else None,
        )
        return result.y.astype(np.float64)

    def tolerance(self, expected: np.ndarray) -> float:
        """Largest error at which a library still counts as having done the work.

        Loose on purpose, so that it admits libraries that sum in the precision of the data; how exact normkit itself
        must be is the tests' business.
        """
        working = np.finfo(np.float64 if self.dtype == "float64" else np.float32).eps
        length = float(np.prod([self.shape[axis] for axis in self.reduced]))
        return float(np.abs(expected).max() * (8 * working * np.sqrt(length) + 2 * np.finfo(self.dtype).eps))


def workloads(dtype: str = "float32", quick: bool = False) -> Iterator[Workload]:
    """Generate the matrix: every operation on every layout that it has a meaning for."""
    rows, images = (QUICK_ROWS, QUICK_IMAGES) if quick else (ROWS, IMAGES)
    n, c, h, w = images
    for operation in OPERATIONS:
        if operation in ("layer_norm", "rms_norm"):
            yield Workload(operation, "rows", rows, dtype)
        elif operation != "instance_norm":  # an instance of a table is a single value
            yield Workload(operation, "table", rows, dtype)
        yield Workload(operation, "NCHW", images, dtype)
        yield Workload(operation, "NHWC", (n, h, w, c), dtype)
