"""What each workload must come out as: the tests' oracle, one for the whole project, computing in float64 here.

The tests let it compute in NumPy's widest float. That is many times slower, and needless for the loose comparison that
a benchmark makes.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from workloads import Data, Workload, dtype_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference

reference.Wide = np.float64  # before gradients takes it over
import gradients  # noqa: E402

grouped = reference.grouped  # a shape and its axes, with groups apart


def _described(workload: Workload, data: Data) -> dict[str, Any]:
    """Return what both passes are told of the normalizer, but for x."""
    operation = workload.operation
    return {
        "reduced": workload.reduced,
        "affine": workload.affine,
        "split": workload.split,
        "weight": data.weight,
        "bias": data.bias,
        "eps": operation.eps,
        "centred": operation.centred,
    }


def _forward(workload: Workload, data: Data) -> tuple[np.ndarray, ...]:
    operation, x = workload.operation, data.x
    if operation.name == "min_max_scale":
        return (reference.rescale(x, workload.reduced),)
    if operation.sums:
        x = (reference.widen(x) + reference.widen(data.residual)).astype(x.dtype)  # rounded before it is normalized
    y = reference.normalize(
        x,
        **_described(workload, data),
        given=(data.running_mean, data.running_var) if operation.given else None,
    ).y
    if operation.fused:
        y = np.maximum(y + reference.widen(data.residual), 0)
    return (y, reference.widen(x)) if operation.sums else (y,)


def solve(workload: Workload, data: Data) -> tuple[Data, tuple[np.ndarray, ...]]:
    """Return the data, with the statistics that a backward pass starts from, and all results in float64."""
    operation = workload.operation
    if not operation.backward:
        return data, _forward(workload, data)
    problem = gradients.Problem(data.x, **_described(workload, data))
    dtype, reduced = np.float64 if workload.dtype == "float64" else np.float32, problem.axes()[1]
    mean, rstd = (part.squeeze(reduced).astype(dtype) for part in (problem.run.mean, problem.run.rstd))
    found = problem.backward(data.dy)
    wanted = (found.dx, found.dweight, found.dbias)[: 2 + operation.bias]
    return replace(data, mean=mean, rstd=rstd), tuple(result.y for result in wanted)


def tolerances(workload: Workload, expected: tuple[np.ndarray, ...]) -> list[float]:
    """Largest errors, by result, at which a library still counts as having done the work.

    Loose on purpose, so that they admit libraries that sum in the precision of the data; how exact normkit itself must
    be is the tests' business.
    """
    working = np.finfo(np.float64 if workload.dtype == "float64" else np.float32).eps
    stored = float(reference.finfo(dtype_of(workload.dtype)).eps)
    length = math.prod(workload.shape[axis] for axis in workload.reduced)
    added = [length] * workload.operation.writes + [workload.size // math.prod(workload.parameters)] * 2
    return [
        float(np.abs(result).max() * (8 * working * math.sqrt(terms) + 2 * stored))
        for result, terms in zip(expected, added, strict=False)
    ]


def errors(results: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> list[float]:
    """Return the largest difference of each result; NaN where one is missing or has another shape."""
    if [r.shape for r in results] != [e.shape for e in expected]:
        return [math.nan]
    return [float(np.abs(r.astype(np.float64) - e).max()) for r, e in zip(results, expected, strict=True)]
