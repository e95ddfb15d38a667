"""Arrays of any memory layout, with guarded surroundings: what a kernel must read through and not write beyond."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """A view and all the memory around it."""

    view: np.ndarray
    memory: np.ndarray

    def twin(self):
        """The same view into a copy of the memory."""
        memory = self.memory.copy()
        offset = self.view.__array_interface__["data"][0] - self.memory.__array_interface__["data"][0]
        return Block(np.ndarray(self.view.shape, self.view.dtype, memory, offset, self.view.strides), memory)


GUARD = 192  # bytes around every view: three of the widest registers

# Where the elements of an array lie. `order`: its axes in memory, outermost first; `step` of the innermost one, in
# elements; `margin` around every axis; `sign` of the strides; `first` byte; the axis whose positions are `shared`.
LAYOUTS = {
    "C": dict(),
    "F": dict(order=lambda rank: range(rank)[::-1]),
    "channels_last": dict(order=lambda rank: (0, *range(2, rank), 1)[:rank]),
    "permuted": dict(order=lambda rank: (*range(1, rank, 2), *range(0, rank, 2))),
    "negative": dict(sign=-1),
    "cropped": dict(margin=1),
    "strided": dict(step=2),
    "broadcast": dict(shared=0),  # stride 0 along the first axis
    "readonly": dict(writeable=False),
    "misaligned": dict(first=1),
}
INPUT_ONLY = ("broadcast", "readonly")


def allocate(shape, dtype, layout="C", fill=0xA5) -> Block:
    """An array of `shape` in the named layout, its memory and the guards around it filled with one byte."""
    how = LAYOUTS[layout]
    dtype, rank = np.dtype(dtype), len(shape)
    order = tuple(how.get("order", range)(rank))
    margin, step, sign = how.get("margin", 0), how.get("step", 1), how.get("sign", 1)
    strides, size = [0] * rank, dtype.itemsize * step
    for axis in reversed(order):
        if axis != how.get("shared"):
            strides[axis] = size * sign
            size *= shape[axis] + 2 * margin
    first = GUARD + how.get("first", 0) + sum(margin * abs(stride) for stride in strides)
    if sign < 0:
        first += sum((extent - 1) * -stride for extent, stride in zip(shape, strides, strict=True))
    memory = np.full(max(size, dtype.itemsize) + 2 * GUARD + 64, fill, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    return Block(np.ndarray(shape, dtype, memory, first, strides), memory)


def arrange(values, layout="C") -> Block:
    """The values in the named layout; a shared axis takes those of its first position."""
    block = allocate(values.shape, values.dtype, layout)
    if layout == "broadcast":
        if values.shape[0]:
            block.view[:1] = values[:1]
    else:
        block.view[...] = values
    if layout == "readonly":
        block.view.flags.writeable = False
    return block


def poisoned(shape, dtype, layout="C") -> Block:
    """Room for a result: NaN everywhere in the view, so that an element left out shows."""
    block = allocate(shape, dtype, layout)
    block.view[...] = np.nan
    return block


def assert_only_view_written(block: Block, before: Block, what=""):
    """Outside the view nothing has changed since the twin `before` was taken."""
    before.view[...] = block.view
    # NaN payloads survive assignment, so that equal memory means that only elements of the view were written.
    np.testing.assert_array_equal(block.memory, before.memory, err_msg=f"{what}: written outside of the view")
