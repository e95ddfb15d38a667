"""The oracle of training: masks, residual and activation, and the gradients through them.

Like reference.py it knows arrays, the axes that share a statistic, those along which weight and bias vary, and the axis
that is read as groups: no normalizer by name, no layout, no dtype. All gradients come from one formula,

    dx = rstd * (w g - mean(w g) - unit * mean(w g unit)),    unit = (x - mean) * rstd,    g = dy * activation'(...),

with the means taken over the valid positions of the statistic; without the first mean where data is not centred, and
without both where the statistics are given. tests/test_gradients.py holds it against finite differences and PyTorch.

Every answer is a `reference.Result`, so that `reference.assert_close` judges gradients too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from reference import ROUNDINGS, Result, Wide, grouped, widen


def sigmoid(v):
    decayed = np.exp(-abs(v))
    return np.where(v >= 0, 1, decayed) / (1 + decayed)


def silu(v):
    """Value, slope and curvature of v * sigmoid(v)."""
    with np.errstate(invalid="ignore"):
        s = sigmoid(v)
        value = v * s
        slope = s + value * (1 - s)
        return value, slope, s * (1 - s) * (2 + v * (1 - 2 * s))


def relu(v):
    """NaN passes, and so does its gradient."""
    passes = (v > 0) | np.isnan(v)
    return np.where(passes, v, Wide(0)), passes.astype(Wide), np.zeros_like(v)


ACTIVATIONS = {None: lambda v: (v, np.ones_like(v), np.zeros_like(v)), "relu": relu, "silu": silu}

# Units in the last place of the working precision, per term: rstd comes rounded, as do weight * g, x - mean, its
# product with rstd, the two means, their product with unit and the two differences. The sums that the means are made of
# add in blocks, and blocks merge in float64 (see reference.ROUNDINGS): their error, too, is a few units of the sum of
# magnitudes, whatever their length.
GRADIENT_ROUNDINGS = 6


def judged(value, size, offset):
    """A gradient as a result to compare with. `size` is the sum of the magnitudes of the terms that round, `offset`
    their sum in proportion to |mean| / std, which float64 data feels: its mean is rounded, and so are those of the
    blocks that rstd is merged from (see `reference.tolerance` and `assert_statistics`)."""
    share = Wide(GRADIENT_ROUNDINGS) / ROUNDINGS
    return Result(value, None, None, size * share, offset * share)


class Gradients(NamedTuple):
    """What a backward pass should return."""

    dx: Result
    dweight: Result
    dbias: Result
    dresidual: Result


class Forward(NamedTuple):
    """One forward pass, on arrays with the groups apart: what the backward pass starts from."""

    valid: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    rstd: np.ndarray
    unit: np.ndarray  # (x - mean) * rstd
    weight: np.ndarray
    before: np.ndarray  # what the activation is applied to
    terms: np.ndarray  # and the magnitudes that it is the sum of


@dataclass(frozen=True)
class Problem:
    """A normalization with all that goes with it; `mask` broadcasts to the shape of x, True is valid."""

    x: Any
    reduced: tuple[int, ...]
    affine: tuple[int, ...] = ()
    split: tuple[int, int] | None = None
    weight: Any = None
    bias: Any = None
    mask: Any = None
    residual: Any = None
    activation: str | None = None
    eps: float = 0.0
    ddof: float = 0.0
    centred: bool = True
    given: Any = None  # (mean, var) instead of the data's own

    def but(self, **changes):
        return replace(self, **changes)

    def axes(self):
        return grouped(np.shape(self.x), self.reduced, self.affine, self.split)

    def apart(self, values):
        """Values that broadcast to the shape of x, with the groups apart."""
        return np.broadcast_to(values, np.shape(self.x)).reshape(self.axes()[0])

    def statistics(self, x, valid, count):
        """Mean and variance of the valid values; 0 and 0 where there are none.

        Summed relative to the smallest value, so that constant slices are exact.
        """
        reduced = self.axes()[1]
        if self.given is not None:
            return (np.expand_dims(widen(statistic), reduced) for statistic in self.given)
        some = count > 0
        total = lambda terms: np.where(valid, terms, Wide(0)).sum(axis=reduced, keepdims=True)  # noqa: E731
        with np.errstate(invalid="ignore"):  # infinities have no mean
            mean = Wide(0)
            if self.centred:
                base = np.where(some, np.where(valid, x, np.inf).min(axis=reduced, keepdims=True), Wide(0))
                mean = base + total(x - base) / np.maximum(count, 1)
            return mean + Wide(0) * count, total((x - mean) ** 2) / np.where(some, count - Wide(self.ddof), 1)

    @cached_property
    def run(self) -> Forward:
        shape, reduced, affine = self.axes()
        along = [extent if axis in affine else 1 for axis, extent in enumerate(shape)]
        weight = np.ones(along, Wide) if self.weight is None else widen(self.weight).reshape(along)
        bias = np.zeros(along, Wide) if self.bias is None else widen(self.bias).reshape(along)
        valid = self.apart(True if self.mask is None else self.mask)
        x = np.where(valid, widen(self.x).reshape(shape), Wide(0))
        residual = np.where(valid, self.apart(0 if self.residual is None else widen(self.residual)), Wide(0))
        count = valid.sum(axis=reduced, keepdims=True)
        mean, var = self.statistics(x, valid, count)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(var + Wide(self.eps))
            rstd = np.where(root == 0, Wide(0), 1 / root)
            unit = np.where((x == mean) & np.isfinite(x), Wide(0), (x - mean) * rstd)
            before = unit * weight + bias + residual
            terms = abs(weight) * (abs(unit) + 1) + abs(bias) + abs(residual)
        return Forward(valid, count, mean, rstd, unit, weight, before, terms)

    def forward(self) -> Result:
        """As `reference.normalize`; masked positions are exactly 0. An activation passes the error of its argument on
        in proportion to its slope, and rounds its own value."""
        run, reduced, shape = self.run, self.axes()[1], np.shape(self.x)
        y, slope, _ = ACTIVATIONS[self.activation](run.before)
        with np.errstate(invalid="ignore"):
            terms = abs(slope) * run.terms + (abs(y) if self.activation == "silu" else 0)
            offset = abs(slope * run.weight) * np.where(run.mean == 0, Wide(0), abs(run.mean) * run.rstd)
        y, terms, offset = (np.where(run.valid, part, Wide(0)).reshape(shape) for part in (y, terms, offset))
        return Result(y, run.mean.squeeze(reduced), run.rstd.squeeze(reduced), terms, offset)

    def backward(self, dy, y=None) -> Gradients:
        """The gradients of sum(dy * y). Where relu passes is read from the stored result `y`, if given: next to 0 its
        rounding decides."""
        run = self.run
        if self.activation == "relu" and y is not None:
            slope, curvature = relu(self.apart(widen(y)))[1], Wide(0)
        else:
            _, slope, curvature = ACTIVATIONS[self.activation](run.before)
        with np.errstate(invalid="ignore"):
            dy = np.where(run.valid, self.apart(widen(dy)), Wide(0))
            g = np.where(slope == 0, Wide(0), dy * slope)  # what relu stops is gone, NaN and infinities too
            g_size = np.where(g == 0, Wide(0), abs(dy) * (abs(slope) + abs(curvature) * run.terms))
            # The error of unit: its own roundings, and that of the mean, a few units of the standard deviation.
            unit_size = abs(run.unit) + (1 if self.centred and self.given is None else 0)
            dx, dx_size = self.through(run, run.weight * g, abs(run.weight) * g_size, unit_size)
            dweight, dweight_size = g * run.unit, g_size * unit_size
            off = np.zeros_like(run.mean) if self.given is not None else abs(run.mean) * run.rstd
            # What the error of the mean does to the argument of an activation.
            g_offset = g_size * off if self.activation == "silu" else np.zeros_like(g_size)
            by_value = (dx, dx_size, dx_size * off), (g, g_size, g_offset)
            by_parameter = (dweight, dweight_size, dweight_size * off), (g, g_size, g_offset)
        dx, dresidual = (judged(*map(self.by_value, parts)) for parts in by_value)
        dweight, dbias = (judged(*map(self.by_parameter, parts)) for parts in by_parameter)
        return Gradients(dx, dweight, dbias, dresidual)

    def by_value(self, terms):
        """In the shape of x, 0 where masked."""
        return np.where(self.run.valid, terms, Wide(0)).reshape(np.shape(self.x))

    def through(self, run, wg, wg_size, unit_size):
        """dx, and the size of its terms."""
        if self.given is not None:
            return run.rstd * wg, run.rstd * wg_size
        mean = lambda terms: terms.sum(axis=self.axes()[1], keepdims=True) / np.maximum(run.count, 1)  # noqa: E731
        dx, size = wg - run.unit * mean(wg * run.unit), wg_size + unit_size * mean(wg_size * unit_size)
        if self.centred:
            dx, size = dx - mean(wg), size + mean(wg_size)
        return run.rstd * dx, run.rstd * size

    def by_parameter(self, terms):
        """Summed over all axes along which weight and bias do not vary, in their shape."""
        _, _, affine = self.axes()
        shared = tuple(axis for axis in range(terms.ndim) if axis not in affine)
        return terms.sum(axis=shared).reshape([np.shape(self.x)[axis] for axis in sorted(self.affine)])
