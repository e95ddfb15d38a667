"""Convolutions and linear layers by their definition, and batch norm in inference, in the oracle's precision."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

import cases
import reference


@dataclass(frozen=True)
class Kind:
    """A layer without its numbers."""

    inputs: int
    outputs: int
    kernel: tuple[int, ...] = ()  # none: a linear layer
    groups: int = 1
    transposed: bool = False
    stride: int = 1
    padding: int = 0

    @property
    def weight_shape(self):
        if self.transposed:
            return (self.inputs, self.outputs // self.groups, *self.kernel)
        return (self.outputs, self.inputs // self.groups, *self.kernel)

    @property
    def options(self):
        """What fold_batch_norm is told of it."""
        return dict(transposed=self.transposed, groups=self.groups)


KINDS = {
    "linear": Kind(6, 4),
    "linear (I, O)": Kind(6, 4, transposed=True),
    "conv1d": Kind(3, 5, (3,)),
    "conv2d": Kind(3, 5, (3, 2), padding=1, stride=2),
    "conv3d": Kind(2, 3, (2, 1, 3)),
    "grouped": Kind(4, 6, (3, 3), groups=2),
    "depthwise": Kind(4, 4, (3, 3), groups=4, padding=1),
    "depthwise, multiplied": Kind(3, 6, (2, 2), groups=3),
    "transposed1d": Kind(3, 5, (3,), transposed=True, stride=2),
    "transposed2d": Kind(3, 5, (3, 2), transposed=True, padding=1),
    "transposed3d": Kind(2, 3, (2, 1, 3), transposed=True),
    "grouped transposed": Kind(4, 6, (3, 3), groups=2, transposed=True, stride=2, padding=1),
    "depthwise transposed": Kind(4, 4, (2, 2), groups=4, transposed=True, stride=2),
}


def dense(weight, kind):
    """The weight as (O, I, kernel...), with zeros between channels of different groups."""
    full = np.zeros((kind.outputs, kind.inputs, *kind.kernel))
    outputs, inputs = kind.outputs // kind.groups, kind.inputs // kind.groups
    for group in range(kind.groups):
        o, i = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
        full[o, i] = weight[i].swapaxes(0, 1) if kind.transposed else weight[o]
    return full


def run(x, weight, bias, kind):
    """The layer, on (N, I, positions...)."""
    full = dense(reference.widen(weight), kind)
    spatial, rank = x.shape[2:], len(kind.kernel)
    pads = [(0, 0), (0, 0)] + [(kind.padding, kind.padding)] * rank
    if kind.transposed:
        extents = [(n - 1) * kind.stride + k for n, k in zip(spatial, kind.kernel, strict=True)]
        y = np.zeros((x.shape[0], kind.outputs, *extents))
    else:
        x = np.pad(x, pads)
        extents = [(n - k) // kind.stride + 1 for n, k in zip(x.shape[2:], kind.kernel, strict=True)]
        y = np.zeros((x.shape[0], kind.outputs, *extents))
    counts = spatial if kind.transposed else extents
    for tap in itertools.product(*map(range, kind.kernel)):
        seen = tuple(slice(t, t + (n - 1) * kind.stride + 1, kind.stride) for t, n in zip(tap, counts, strict=True))
        seen = (slice(None), slice(None), *seen)
        part = np.einsum("ni...,oi->no...", x if kind.transposed else x[seen], full[(slice(None), slice(None), *tap)])
        if kind.transposed:
            y[seen] += part
        else:
            y += part
    if kind.transposed and kind.padding:
        y = y[(slice(None), slice(None), *[slice(kind.padding, -kind.padding)] * rank)]
    return y if bias is None else y + per_channel(reference.widen(bias), y)


def per_channel(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm(x, mean, var, weight=None, bias=None, eps=1e-5):
    mean, var, weight, bias = (
        None if v is None else per_channel(reference.widen(v), x) for v in (mean, var, weight, bias)
    )
    y = (x - mean) / np.sqrt(var + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def values(shape, dtype, *key, offset=0.0):
    return cases.sample(shape, np.dtype(dtype), *key, offset=offset, scale=1.0)


def statistics(channels, dtype=np.float32):
    """Means of both signs; variances from 0 to large ones."""
    mean = values((channels,), dtype, "mean")
    var = np.geomspace(1e-3, 30.0, channels).astype(dtype)
    var[channels // 2] = 0
    return mean, var


def image(kind, batch=2):
    return values((batch, kind.inputs, *[5] * len(kind.kernel)), np.float64, "x")
