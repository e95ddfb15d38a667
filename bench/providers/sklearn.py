"""scikit-learn's scalers, fitted and applied: what `standardize` and `min_max_scale` replace on tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from providers import Unsupported

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = sklearn.__version__
SCALERS: dict[str, Callable[[], Any]] = {"standardize": StandardScaler, "min_max_scale": MinMaxScaler}


def set_threads(threads: int) -> None:
    """Do nothing: the scalers run in one thread."""


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], np.ndarray] | None:
    """Return fit_transform of a new scaler, which allocates its result."""
    if ready or workload.operation.name not in SCALERS:
        return None
    if workload.layout != "table" or workload.dtype not in ("float32", "float64"):
        raise Unsupported(f"no {workload.dtype} {workload.layout}")
    scaler, x = SCALERS[workload.operation.name], data.x
    return lambda: scaler().fit_transform(x)


def results(workload: Workload, result: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the result."""
    return (result,)
