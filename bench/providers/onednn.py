"""oneDNN 3, through a small driver: the PyPI packages onednn-cpu-gomp and onednn-devel-cpu-gomp, or a system's own.

Data in plain layouts, as everyone else here gets it; its own blocked layouts would first have to be converted to.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from operations import EPS
from providers import Unsupported, compiled

if TYPE_CHECKING:
    from workloads import Data, Workload

KINDS = (
    *("batch_norm_training", "batch_norm_inference", "batch_norm_training_backward"),
    *("layer_norm", "layer_norm_backward"),
)
ARRAYS = ("x", "dy", "weight", "bias", "mean", "variance", "y", "dweight", "dbias")  # of the driver


def _flags() -> list[str]:
    """How to compile and link: with what pip has installed here, else with what the system has."""
    prefix = Path(sysconfig.get_path("data"))
    if not (prefix / "include/oneapi/dnnl/dnnl.hpp").exists():
        return ["-ldnnl"]
    return [f"-I{prefix / 'include'}", f"-L{prefix / 'lib'}", f"-Wl,-rpath,{prefix / 'lib'}", "-ldnnl"]


_library = compiled.load("onednn", *_flags())
_library.onednn_version.restype = _library.onednn_error.restype = ctypes.c_char_p
_library.onednn_make.restype = ctypes.c_void_p
_library.onednn_make.argtypes = (
    *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p),
)
_library.onednn_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
_library.onednn_free.argtypes = (ctypes.c_void_p,)
_library.onednn_free.restype = None

VERSION = _library.onednn_version().decode()


def set_threads(threads: int) -> None:
    """Set the number of threads of its OpenMP runtime."""
    _library.onednn_threads(threads)


class _Primitive:
    """One primitive, and the arrays that it refers to."""

    def __init__(self, workload: Workload, data: Data) -> None:
        operation, n = workload.operation, workload.shape[0]
        shape: tuple[int, ...] = (n, workload.size // n)
        if operation.per == "channel" and len(workload.shape) == 4:
            height, width = (workload.shape[axis] for axis in (1, 2, 3) if axis != workload.channel_axis)
            shape = (n, workload.channels, height, width)
        self.outputs = self.buffers(workload)
        mean, variance = data.running_mean, data.running_var
        if operation.backward:
            mean = data.mean
            variance = (1 / data.rstd.astype(np.float64) ** 2 - EPS).astype(np.float32)
        elif not operation.given:
            mean = variance = None
        weight, bias = (p.astype(np.float32) for p in (data.weight, data.bias))
        given = (data.x, data.dy, weight, bias, mean, variance, *self.outputs)
        self.arrays = dict(zip(ARRAYS, given, strict=False))  # kept: the driver has only their addresses
        pointers = [None if self.arrays.get(name) is None else self.arrays[name].ctypes.data for name in ARRAYS]
        self.handle = _library.onednn_make(
            operation.name.encode(),
            workload.dtype.encode(),
            workload.layout == "NHWC",
            len(shape),
            (ctypes.c_int64 * len(shape))(*shape),
            EPS,
            (ctypes.c_void_p * len(ARRAYS))(*pointers),
        )
        if not self.handle or _library.onednn_run(self.handle, None):  # later runs fail no more
            raise Unsupported(_library.onednn_error().decode())

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            _library.onednn_free(self.handle)

    @staticmethod
    def buffers(workload: Workload) -> tuple[np.ndarray, ...]:
        """Return ready buffers; the gradients of parameters are always float32."""
        first, *parameters = workload.buffers()
        return first, *(p.astype(np.float32) for p in parameters)

    def into_ready(self) -> tuple[np.ndarray, ...]:
        _library.onednn_run(self.handle, None)
        return self.outputs

    def into_fresh(self) -> tuple[np.ndarray, ...]:
        outputs = tuple(np.empty(o.shape, o.dtype) for o in self.outputs)
        _library.onednn_run(self.handle, (ctypes.c_void_p * len(outputs))(*(o.ctypes.data for o in outputs)))
        return outputs


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], tuple[np.ndarray, ...]] | None:
    """Return the execution of a primitive."""
    if workload.operation.name not in KINDS:
        return None
    if workload.dtype == "float64":
        raise Unsupported("no float64")
    primitive = _Primitive(workload, data)
    return primitive.into_ready if ready else primitive.into_fresh


def results(workload: Workload, result: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return all results."""
    return result
