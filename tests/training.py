"""The normalizers of cases.py with their backward passes: how to call them, and what to expect of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import cases
import gradients
import normkit
from calls import bits
from cases import DTYPES, NORMALIZERS
from reference import assert_close, assert_statistics, widen


@dataclass(frozen=True)
class Trained:
    """A normalizer on arrays of one shape, forward and backward."""

    name: str
    operation: cases.Operation
    offset: float = 0.0  # of rms_norm's weight

    @property
    def function(self):
        return self.name.split("(")[0]

    @property
    def channel(self):
        """The axis of channels; None where weights belong to positions."""
        return self.operation.affine[0] if self.function in CHANNELWISE else None

    def forward(self, x, weight=None, bias=None, **options):
        if self.offset:
            options["weight_offset"] = self.offset
        return self.operation.call(x, weight, bias, **options)

    def backward(self, dy, x, mean, rstd, weight=None, **options):
        """Whatever the normalizer returns; `mean` is dropped where it has none."""
        options = self.own_options() | options
        groups = [options.pop("num_groups")] if "num_groups" in options else []
        statistics = (mean, rstd) if self.operation.centred else (rstd,)
        return getattr(normkit, f"{self.function}_backward")(dy, x, *statistics, *groups, weight, **options)

    def own_options(self):
        if self.channel is None:
            axes = self.operation.reduced
            return dict(axis=axes if len(axes) > 1 else axes[0]) | (
                dict(weight_offset=self.offset) if self.offset else {}
            )
        options: dict[str, Any] = dict(axis=-1 if "axis=-1" in self.name else 1)
        if self.function == "batch_norm":
            options["training"] = "training" in self.name
        if self.operation.split:
            options["num_groups"] = self.operation.split[1]
        return options

    def problem(self, x, weight=None, bias=None, mask=None, **options) -> gradients.Problem:
        """The same in the oracle's terms; a mask has the shape that `forward` takes."""
        operation = self.operation
        if self.offset:
            weight = self.offset + (np.zeros(operation.parameter_shape(x.shape)) if weight is None else widen(weight))
        given = None
        if operation.given:
            given = cases.running_statistics(x.shape[self.channel], x.dtype)
        if mask is not None and self.channel is not None:
            mask = np.expand_dims(mask, self.channel)
        options = dict(centred=operation.centred, given=given) | operation.numbers | options
        bias = bias if operation.centred else None
        return gradients.Problem(x, operation.reduced, operation.affine, operation.split, weight, bias, mask, **options)


CHANNELWISE = ("batch_norm", "group_norm", "instance_norm")
OFFSET = "rms_norm(weight_offset)"  # as rms_norm(axis=-1), with 1 + weight
TRAINED = [name for name in NORMALIZERS if "standardize" not in name] + [OFFSET]
BY_CHANNEL = [name for name in TRAINED if name.startswith(CHANNELWISE)]
PER_SAMPLE = [name for name in TRAINED if name.startswith(("group_norm", "instance_norm"))]
CENTRED = [name for name in TRAINED if "rms_norm" not in name]


def like(name):
    """The entry of the grid that a name stands for."""
    return "rms_norm(axis=-1)" if name == OFFSET else name


def trained(name, shape):
    return Trained(name, NORMALIZERS[like(name)](shape), 1.0 if name == OFFSET else 0.0)


def misfit(name, shape):
    return cases.misfit(like(name), shape)


def shapes(name, candidates):
    return [shape for shape in candidates if not misfit(name, shape)]


def upstream(shape, dtype, *key):
    """A gradient to pass back: of both signs, with a mean that long sums must not lose."""
    return cases.sample(shape, dtype, "dy", *key, offset=0.5, scale=1.0)


def rounded(expected, dtype):
    """The oracle's statistics as a forward pass returns them."""
    kind = cases.statistics_dtype(dtype)
    return expected.mean.astype(kind), expected.rstd.astype(kind)


def parameters(normalizer, shape, dtype):
    """Weight and bias; no bias where there is none."""
    weight, bias = cases.parameters(normalizer.operation, shape, dtype)
    return weight, bias if normalizer.operation.centred else None


def half_valid(shape, *key):
    """A mask of that shape with gaps, its first two positions valid: as few as a batch may have."""
    mask = cases.random("mask", shape, *key).random(shape) < 0.6
    mask.flat[:2] = True
    return mask


def mask_shape(normalizer, shape):
    return tuple(n for axis, n in enumerate(shape) if axis != normalizer.channel)


def assert_gradients(actual, expected, dtypes, what=""):
    """dx, dweight, dbias and dresidual, as many as there are; each of its dtype, as accurate as the oracle allows."""
    labels = LABELS[:2] if len(actual) == 2 else LABELS  # rms_norm has no bias
    for label, array, dtype in zip(labels, actual, dtypes, strict=False):
        assert_close(array, getattr(expected, label), np.dtype(dtype), f"{label} of {what}")


LABELS = ("dx", "dweight", "dbias", "dresidual")


class Arguments(NamedTuple):
    """What a backward pass takes, statistics rounded as a forward pass returns them, and the oracle's gradients."""

    normalizer: Trained
    x: np.ndarray
    dy: np.ndarray
    mean: np.ndarray
    rstd: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    expected: tuple

    def call(self, **options):
        return self.normalizer.backward(self.dy, self.x, self.mean, self.rstd, self.weight, **options)


@lru_cache(maxsize=256)
def arguments(name, shape, dtype, parameter_dtype=None, shared=(False, False)) -> Arguments:
    """`shared`: whether x and dy, in this order, repeat their first sample, as arrays laid out "broadcast" do."""
    normalizer, dtype = trained(name, shape), DTYPES[dtype]
    x, dy = cases.sample(shape, dtype), upstream(shape, dtype)
    x, dy = (
        np.ascontiguousarray(cases.arrange(a, "broadcast" if same else "C").view)
        for a, same in zip((x, dy), shared, strict=True)
    )
    weight, bias = parameters(normalizer, shape, DTYPES[parameter_dtype] if parameter_dtype else dtype)
    return solved(normalizer, x, dy, weight, bias)


def solved(normalizer, x, dy, weight, bias, **numbers) -> Arguments:
    problem = normalizer.problem(x, weight, bias, **numbers)
    expected = problem.forward()
    return Arguments(normalizer, x, dy, *rounded(expected, x.dtype), weight, bias, problem.backward(dy))


def dtypes(x, parameter):
    return x.dtype, parameter.dtype, parameter.dtype, x.dtype


# ------------------------------------------------------------------------------------------------ both ways at once


class Passes(NamedTuple):
    """All that the forward and the backward pass return."""

    y: np.ndarray
    mean: np.ndarray
    rstd: np.ndarray
    dx: np.ndarray
    dweight: np.ndarray
    dbias: np.ndarray
    dresidual: np.ndarray | None = None


def train(normalizer, x, dy, weight, bias, *, activation=None, residual=None, **masked) -> Passes:
    """Forward, and back with what it returned. Of silu with a residual, which has no way back, the rest stays None."""
    fused = {} if activation is None else dict(activation=activation)
    added = {} if residual is None else dict(residual=residual)
    y, mean, rstd = normalizer.forward(x, weight, bias, return_stats=True, **fused, **added, **masked)
    if activation == "silu" and residual is not None:
        return Passes(y, mean, rstd, None, None, None)
    known = dict(y=y) if activation == "relu" else {}
    added = dict(residual=True) if added else {}
    gradients = normalizer.backward(dy, x, mean, rstd, weight, bias=bias, **fused, **known, **added, **masked)
    return Passes(y, mean, rstd, *gradients)


def assert_passes(passes, problem, dy, what=""):
    """Everything that `train` returns against the oracle."""
    x, weight, bias = problem.x, problem.weight, problem.bias
    expected = problem.forward()
    assert_close(passes.y, expected, x.dtype, what)
    assert_statistics(passes.mean, passes.rstd, expected, x.dtype, what)
    if passes.dx is None:
        return
    fallback = cases.statistics_dtype(x.dtype)
    weight_dtype = fallback if weight is None else weight.dtype
    bias_dtype = weight_dtype if bias is None else bias.dtype
    gradients = [gradient for gradient in passes[3:] if gradient is not None]
    assert len(gradients) == (3 if problem.residual is None else 4), what
    kinds = (x.dtype, weight_dtype, bias_dtype, x.dtype)
    assert_gradients(gradients, problem.backward(dy, passes.y), kinds, what)


def assert_same_passes(actual, expected, what=""):
    """Bit for bit."""
    for label, own, other in zip(Passes._fields, actual, expected, strict=True):
        if own is None and other is None:
            continue
        assert own.dtype == other.dtype and own.shape == other.shape, f"{label} of {what}"
        np.testing.assert_array_equal(bits(own), bits(other), err_msg=f"{label} of {what}")
