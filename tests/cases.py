"""The grid that tests walk: normalizers x shapes x memory layouts x dtypes, each omission with its reason."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import normkit
import reference
from layouts import INPUT_ONLY, LAYOUTS, Block, allocate, arrange, assert_only_view_written, poisoned  # noqa: F401

QUICK = bool(os.environ.get("NORMKIT_QUICK"))  # a thinner grid, for sanitizers and emulators

# ---------------------------------------------------------------------------------------------------------- dtypes


def _dtypes():
    dtypes = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
    try:
        import ml_dtypes
    except ImportError:  # an optional extra: NumPy itself has no bfloat16
        return dtypes
    return dtypes | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


DTYPES = _dtypes()
HALF = ("float16", "bfloat16")


def statistics_dtype(dtype):
    return np.dtype("float64" if dtype == np.float64 else "float32")


# ---------------------------------------------------------------------------------------------------- normalizers


@dataclass(frozen=True)
class Operation:
    """A normalizer on arrays of one shape: how to call it, and its description in the oracle's terms."""

    call: Callable[..., Any]  # call(x, weight, bias, **options), eps among the options
    reduced: tuple[int, ...]
    affine: tuple[int, ...] = ()
    split: tuple[int, int] | None = None
    centred: bool = True
    given: bool = False  # statistics come from a state
    returns_stats: bool = True
    numbers: dict[str, float] = field(default_factory=dict)  # eps, ddof
    per_sample: bool = True  # samples along axis 0 do not see each other

    def parameter_shape(self, shape):
        return tuple(shape[axis] for axis in sorted(self.affine))

    def statistics_shape(self, shape):
        split = dict([self.split]) if self.split else {}
        return tuple(split.get(a, n) for a, n in enumerate(shape) if a not in self.reduced)

    def expected(self, x, weight=None, bias=None, given=None, **numbers) -> reference.Result:
        """The oracle's answer to `call`."""
        bias = bias if self.centred else None
        options = dict(weight=weight, bias=bias, centred=self.centred, given=given) | self.numbers | numbers
        return reference.normalize(x, self.reduced, self.affine, self.split, **options)


EPS = {"eps": 1e-3}  # large enough to be missed where it is left out


def _others(rank, *axes):
    return tuple(a for a in range(rank) if a not in axes)


def _standardize(axes, **numbers):
    def make(shape):
        own = tuple(a % len(shape) for a in axes)

        def call(x, weight, bias, **options):
            return normkit.standardize(x, axis=axes if len(axes) > 1 else axes[0], **(numbers | options))

        return Operation(call, own, returns_stats=False, numbers=numbers, per_sample=0 not in own)

    return make


def _layer_norm(function, axes_of, centred=True):
    def make(shape):
        axes = axes_of(len(shape))
        own = tuple(a % len(shape) for a in axes)

        def call(x, weight, bias, **options):
            parameters = (weight, bias) if centred else (weight,)
            return function(x, *parameters, axis=axes if len(axes) > 1 else axes[0], **(EPS | options))

        return Operation(call, own, own, centred=centred, numbers=EPS, per_sample=0 not in own)

    return make


def running_statistics(channels, dtype):
    """Moving averages that no normalizer would find by itself."""
    dtype = statistics_dtype(dtype)
    return np.linspace(-1, 2, channels).astype(dtype), np.linspace(0.25, 3, channels).astype(dtype)


def _batch_norm(axis, training):
    def make(shape):
        channel = axis % len(shape)

        def call(x, weight, bias, **options):
            state = None
            if not training:
                state = normkit.BatchNormState(shape[channel], dtype=str(statistics_dtype(x.dtype)))
                state.running_mean[:], state.running_var[:] = running_statistics(shape[channel], x.dtype)
            return normkit.batch_norm(x, state, weight, bias, training=training, axis=axis, **(EPS | options))

        return Operation(
            call,
            _others(len(shape), channel),
            (channel,),
            given=not training,
            numbers=EPS,
            per_sample=not training,
        )

    return make


def _instance_norm(axis):
    def make(shape):
        channel = axis % len(shape)

        def call(x, weight, bias, **options):
            return normkit.instance_norm(x, weight, bias, axis=axis, **(EPS | options))

        return Operation(call, _others(len(shape), 0, channel), (channel,), numbers=EPS)

    return make


@cache
def few_groups(channels):
    """The smallest number of groups that is not trivial."""
    return next((g for g in range(2, channels + 1) if channels % g == 0), 1)


def many_groups(channels):
    """Groups of the smallest size that is not trivial."""
    return max(channels // few_groups(channels), 1)


def group_norm_of(axis, groups_of):
    def make(shape):
        channel = axis % len(shape)
        groups = groups_of(shape[channel])

        def call(x, weight, bias, **options):
            return normkit.group_norm(x, groups, weight, bias, axis=axis, **(EPS | options))

        return Operation(call, _others(len(shape), 0, channel), (channel,), split=(channel, groups), numbers=EPS)

    return make


def _all_but_first(rank):
    return tuple(range(1, rank))[::-1] or (0,)  # descending: the order of axes must not matter


NORMALIZERS: dict[str, Callable[[tuple[int, ...]], Operation]] = {
    "standardize(axis=0)": _standardize((0,), **EPS),
    "standardize(axis=-1)": _standardize((-1,), eps=1e-6, ddof=0),
    "standardize(axis=(-1, 0))": _standardize((-1, 0), eps=1e-6, ddof=0.5),
    "batch_norm(training)": _batch_norm(1, True),
    "batch_norm(training, axis=-1)": _batch_norm(-1, True),
    "batch_norm(inference)": _batch_norm(1, False),
    "batch_norm(inference, axis=-1)": _batch_norm(-1, False),
    "layer_norm(axis=-1)": _layer_norm(normkit.layer_norm, lambda rank: (-1,)),
    "layer_norm(axis=0)": _layer_norm(normkit.layer_norm, lambda rank: (0,)),
    "layer_norm(axis=1)": _layer_norm(normkit.layer_norm, lambda rank: (1,)),
    "layer_norm(all but first)": _layer_norm(normkit.layer_norm, _all_but_first),
    "rms_norm(axis=-1)": _layer_norm(normkit.rms_norm, lambda rank: (-1,), centred=False),
    "rms_norm(axis=1)": _layer_norm(normkit.rms_norm, lambda rank: (1,), centred=False),
    "rms_norm(all but first)": _layer_norm(normkit.rms_norm, _all_but_first, centred=False),
    "instance_norm": _instance_norm(1),
    "instance_norm(axis=-1)": _instance_norm(-1),
    "group_norm(few)": group_norm_of(1, few_groups),
    "group_norm(few, axis=-1)": group_norm_of(-1, few_groups),
    "group_norm(many)": group_norm_of(1, many_groups),
    "group_norm(many, axis=-1)": group_norm_of(-1, many_groups),
}

# ----------------------------------------------------------------------------------------------------------- shapes

# Around the lanes of a block (64), of a register (4, 8, 16) and the block itself (2048); a prime; several chunks.
SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 1000, 2047, 2048, 2049, 4097, 10_007)
FEW_SIZES = (1, 2, 3, 16, 17, 65, 2049)

SHAPES = (
    *((n,) for n in FEW_SIZES),
    *((3, n) for n in SIZES),
    *((n, 3) for n in SIZES),
    *((2, n, 5) for n in FEW_SIZES),
    *((2, 5, n) for n in FEW_SIZES),
    *((n, 4, 2) for n in FEW_SIZES),
    *((2, 6, 5, 7), (3, 4, 8, 8), (2, 64, 7, 7), (1, 12, 33, 31), (4, 2, 1, 1), (1, 100, 3, 3), (2, 96, 5, 1)),
    *((2, 4, 3, 5, 2), (1, 8, 1, 1, 1), (2, 3, 2, 2, 3, 2)),
    *((0,), (0, 3), (0, 4, 5), (0, 4, 3, 3)),
    *((150, 515), (70, 6, 9, 9)),  # rows that begin anywhere within a line; short planes of many samples
    *((2, 100_003), (100_003, 2), (2, 3, 201, 199)),
)
HUGE = 100_000
ON_VECTORS = (
    "standardize(axis=0)",
    "standardize(axis=-1)",
    "layer_norm(axis=0)",
    "layer_norm(axis=-1)",
    "rms_norm(axis=-1)",
)
FEW_SHAPES = (
    *((3, n) for n in FEW_SIZES),
    *((n, 3) for n in FEW_SIZES),
    *((17,), (2, 5, 17), (2, 6, 5, 7), (2, 64, 7, 7), (4, 2, 1, 1), (2, 4, 3, 5, 2), (0, 4, 3, 3)),
    *((150, 515), (70, 6, 9, 9)),
)


def misfit(name, shape) -> str | None:
    """Why a normalizer is not to be tried on a shape; None where it fits."""
    rank, function = len(shape), name.split("(")[0]
    if rank == 1 and name not in ON_VECTORS:
        return "needs a second axis"
    if rank == 2 and function == "instance_norm":
        return "a sample and channel of a matrix is a single value: an error, see test_errors.py"
    if rank == 2 and "axis=-1" in name and function in ("batch_norm", "group_norm"):
        return "the last axis of a matrix is axis 1"
    if rank == 2 and "all but first" in name:
        return "the last axis of a matrix is all but the first"
    operation = NORMALIZERS[name](shape)
    count = math.prod(shape[a] for a in operation.reduced)
    if operation.split:
        count *= shape[operation.split[0]] // operation.split[1]
    if count == 0 and not operation.given:
        return "no values to take statistics of: an error, see test_errors.py"
    if name.startswith("batch_norm(training") and count == 1:
        return "a single value per channel is an error in training, see test_errors.py"
    return None


def omission(name, shape, layout="C", dtype="float32") -> str | None:
    """Why a point of the grid is not a case; None where it is one."""
    if reason := misfit(name, shape):
        return reason
    if layout in ("channels_last", "F", "permuted") and len(shape) < 2:
        return "a vector has one layout"
    if layout != "C" and shape not in FEW_SHAPES:
        return "the layout chooses the path, the size only its tail: few sizes beyond the dense layout"
    if math.prod(shape) > HUGE and dtype not in ("float32", "float64"):
        return "half precision differs in loading and storing only, which does not depend on the length"
    if layout in ("strided", "broadcast") and math.prod(shape) == 0:
        return "an empty array has no layout"
    if QUICK and (shape not in FEW_SHAPES or math.prod(shape) > 7000):
        return "quick run"
    return None


def cases(name, layout="C", dtype="float32"):
    return [shape for shape in SHAPES if omission(name, shape, layout, dtype) is None]


# ------------------------------------------------------------------------------------------------------------- data


def random(*key) -> np.random.Generator:
    """A generator that depends on the key only."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def sample(shape, dtype, *key, offset=3.0, scale=2.0):
    return (random(shape, *key).standard_normal(shape) * scale + offset).astype(dtype)


def parameters(operation, shape, dtype, *key):
    """A weight and a bias that no result could do without: both signs, none of them 0 or 1."""
    extent = operation.parameter_shape(shape)
    rng = random("parameters", extent, *key)
    weight = (rng.uniform(0.5, 2.0, extent) * rng.choice([-1.0, 1.0], extent)).astype(dtype)
    return weight, rng.standard_normal(extent).astype(dtype)
