"""The expression that people write in NumPy: one thread, a fresh array for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

import oracle
from providers import Unsupported

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = np.__version__
LARGEST_BYTES = 64 << 20
HALF = ("float16", "bfloat16")

Array = np.ndarray


def set_threads(threads: int) -> None:
    """Do nothing: NumPy's reductions and element-wise operations run in one thread."""


def _scale(workload: Workload, x: Array) -> tuple[Array, ...]:
    low, high = x.min(workload.reduced, keepdims=True), x.max(workload.reduced, keepdims=True)
    return ((x - low) / (high - low),)


def _apart(workload: Workload) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[int]]:
    """Return the shape with groups apart, the reduced and the affine axes in it, and the shape of parameters."""
    shape, reduced, affine = oracle.grouped(workload.shape, workload.reduced, workload.affine, workload.split)
    return shape, reduced, affine, [n if axis in affine else 1 for axis, n in enumerate(shape)]


def _forward(workload: Workload, data: Data) -> Callable[[], tuple[Array, ...]]:
    operation = workload.operation
    shape, axes, _, along = _apart(workload)
    weight, bias = (None if p is None else p.reshape(along) for p in (data.weight, data.bias))
    given = None
    if operation.given:
        given = tuple(s.reshape(along).astype(data.x.dtype) for s in (data.running_mean, data.running_var))

    def normalized(x: Array) -> Array:
        mean, var = given or (x.mean(axes, keepdims=True), x.var(axes, keepdims=True))
        return (x - mean) / np.sqrt(var + operation.eps)

    def scaled(x: Array) -> Array:
        return x / np.sqrt((x * x).mean(axes, keepdims=True) + operation.eps)

    unit = normalized if operation.centred else scaled

    def call() -> tuple[Array, ...]:
        x = data.x + data.residual if operation.sums else data.x
        y = unit(x.reshape(shape))
        y = y if weight is None else y * weight
        y = (y if bias is None else y + bias).reshape(workload.shape)
        if operation.fused:
            y = np.maximum(y + data.residual, 0)
        return (y, x) if operation.sums else (y,)

    return call


def _backward(workload: Workload, data: Data) -> Callable[[], tuple[Array, ...]]:
    operation, (shape, axes, affine, along) = workload.operation, _apart(workload)
    weight = data.weight.reshape(along)
    mean, rstd = (np.expand_dims(s, axes) for s in (data.mean, data.rstd))
    shared = tuple(axis for axis in range(len(shape)) if axis not in affine)

    def call() -> tuple[Array, ...]:
        x, dy = data.x.reshape(shape), data.dy.reshape(shape)
        unit = ((x - mean) if operation.centred else x) * rstd
        g = dy * weight
        dx = g - unit * (g * unit).mean(axes, keepdims=True)
        if operation.centred:
            dx = dx - g.mean(axes, keepdims=True)
        dweight, dbias = (
            ((dy * unit).sum(shared), dy.sum(shared)) if operation.bias else ((dy * unit).sum(shared), None)
        )
        parameters = (dweight,) if dbias is None else (dweight, dbias)
        return (dx * rstd).reshape(workload.shape), *(p.reshape(workload.parameters) for p in parameters)

    return call


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], tuple[Array, ...]] | None:
    """Return the expression, allocating as it does; it has no `out=`."""
    if ready:
        return None
    if workload.dtype in HALF:
        raise Unsupported("sums in half precision")
    if workload.tensor_bytes > LARGEST_BYTES:
        raise Unsupported(f"takes too long above {LARGEST_BYTES >> 20} MB")
    if workload.operation.name == "min_max_scale":
        return lambda: _scale(workload, data.x)
    return (_backward if workload.operation.backward else _forward)(workload, data)


def results(workload: Workload, result: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return all results."""
    return result
