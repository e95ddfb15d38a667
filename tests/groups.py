"""Batches cut among the members of a group, and what each member should get: for threads and for processes alike.

A group runs `work(rank, sync)` on each of its members and returns the results in the order of ranks. `Threads` is one
within a process; mpi_program.py makes one of an MPI communicator.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

import cases
import normkit
import training
from calls import bits
from cases import DTYPES
from reference import assert_close, assert_statistics
from training import half_valid, mask_shape, trained

NAMES = ("batch_norm(training)", "batch_norm(training, axis=-1)")


class Threads:
    """A group of threads. One that fails takes the others with it: the first error is raised."""

    def __init__(self, size):
        self.size = size
        self.calls = Counter()

    def sync(self, rank):
        def gather(moments):
            self.calls[rank] += 1
            self.parts[rank] = moments
            self.barrier.wait(60)
            group = reduce(normkit.Moments.merge, self.parts)
            self.barrier.wait(60)
            return group

        return gather

    def run(self, work):
        self.barrier, self.parts = threading.Barrier(self.size), [None] * self.size
        results, errors = [None] * self.size, []

        def member(rank):
            try:
                results[rank] = work(rank, self.sync(rank))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=member, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


@dataclass(frozen=True)
class Case:
    """One batch, what is done with it, and after which of its samples it is cut."""

    shape: tuple[int, ...]
    cuts: tuple[int, ...]  # one fewer than there are members
    name: str = NAMES[0]
    dtype: str = "float32"
    activation: str | None = None
    residual: bool = False
    masked: bool = False
    data: dict[str, float] = field(default_factory=dict)  # offset and scale of x

    @property
    def operands(self) -> Operands:
        normalizer, dtype = trained(self.name, self.shape), DTYPES[self.dtype]
        return Operands(
            normalizer,
            cases.sample(self.shape, dtype, **self.data),
            training.upstream(self.shape, dtype),
            *training.parameters(normalizer, self.shape, dtype),
            half_valid(mask_shape(normalizer, self.shape)) if self.masked else None,
            cases.sample(self.shape, dtype, "residual") if self.residual else None,
        )

    @property
    def slices(self):
        edges = (0, *self.cuts, self.shape[0])
        return [slice(begin, end) for begin, end in pairwise(edges)]

    def work(self, rank, sync):
        """What a member does: forward and back on its part. Returns the passes and the state."""
        own, state = self.operands.part(self.slices[rank]), self.state()
        return own.train(self.activation, state=state, sync=sync), state.state_dict()

    def state(self):
        channel = self.operands.normalizer.channel
        return normkit.BatchNormState(self.shape[channel], dtype=str(cases.statistics_dtype(DTYPES[self.dtype])))

    def check(self, results):
        """Against the oracle on the whole batch; and all members hold the same bits of what they share."""
        whole = self.operands
        problem = whole.problem(self.activation)
        for passes, state in results[1:]:
            for own, other in ((passes.mean, results[0][0].mean), (passes.rstd, results[0][0].rstd)):
                np.testing.assert_array_equal(bits(own), bits(other))
            for key, average in state.items():
                np.testing.assert_array_equal(bits(average), bits(results[0][1][key]), err_msg=key)
        self.check_state(results[0][1], problem)
        joined = {
            label: np.concatenate([getattr(passes, label) for passes, _ in results])
            for label in ("y", "dx", "dresidual")
            if getattr(results[0][0], label) is not None
        }
        expected = problem.forward()
        assert_close(joined["y"], expected, whole.x.dtype, f"y of {self}")
        assert_statistics(*results[0][0][1:3], expected, whole.x.dtype, str(self))
        if "dx" not in joined:
            return
        gradients = problem.backward(whole.dy, joined["y"])
        for label in joined.keys() - {"y"}:
            assert_close(joined[label], getattr(gradients, label), whole.x.dtype, f"{label} of {self}")
        for (passes, _), part in zip(results, self.slices, strict=True):
            self.check_parameters(passes, part, problem, gradients)

    def check_parameters(self, passes, part, problem, gradients):
        """dweight and dbias are the sums of a member's own terms, with the group's statistics; of none, 0."""
        own = self.operands.part(part)
        if own.x.size == 0:
            assert not bits(passes.dweight).any() and not bits(passes.dbias).any()
            return
        run, reduced = problem.run, problem.axes()[1]
        given = run.mean.squeeze(reduced), (1 / run.rstd**2 - problem.eps).squeeze(reduced)
        expected = own.problem(self.activation, given=given).backward(own.dy, passes.y)
        for label in ("dweight", "dbias"):
            of_all = getattr(gradients, label)  # whose errors those of the statistics go by
            wanted = getattr(expected, label)._replace(terms=of_all.terms, offset=of_all.offset)
            assert_close(getattr(passes, label), wanted, own.x.dtype, f"{label} of {part} of {self}")

    def check_state(self, state, problem):
        """A tenth of the way from means 0 and variances 1 to the batch's mean and unbiased variance."""
        run, reduced = problem.run, problem.axes()[1]
        count = run.count.max()
        mean, var = run.mean.squeeze(reduced), (1 / run.rstd**2 - problem.eps).squeeze(reduced)
        eps = 8 * float(np.finfo(state["running_var"].dtype).eps)
        scale = 1 + abs(mean) if state["running_var"].dtype == np.float64 else 1  # blocks' means are rounded
        assert (abs(state["running_mean"] - 0.1 * mean) <= eps * (abs(mean) + np.sqrt(var))).all()
        assert (abs(state["running_var"] - (0.9 + 0.1 * var * count / (count - 1))) <= eps * (1 + var) * scale).all()
        assert state["num_batches_tracked"] == 1


@dataclass(frozen=True)
class Operands:
    """The arguments of both passes."""

    normalizer: training.Trained
    x: np.ndarray
    dy: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    mask: np.ndarray | None
    residual: np.ndarray | None

    def part(self, samples) -> Operands:
        mask, residual = (None if array is None else array[samples] for array in (self.mask, self.residual))
        return Operands(self.normalizer, self.x[samples], self.dy[samples], self.weight, self.bias, mask, residual)

    def train(self, activation=None, *, state=None, sync=None, **masked) -> training.Passes:
        """Both passes. Of silu with a residual, which has no way back, the forward pass only."""
        axis = self.normalizer.own_options()["axis"]
        masked |= dict(axis=axis, activation=activation, mask=self.mask, sync=sync)
        y, mean, rstd = normkit.batch_norm(
            self.x, state, self.weight, self.bias,
            training=True, residual=self.residual, return_stats=True, **cases.EPS, **masked,
        )  # fmt: skip
        if activation == "silu" and self.residual is not None:
            return training.Passes(y, mean, rstd, None, None, None)
        known: dict[str, Any] = dict(y=y) if activation == "relu" else {}
        gradients = normkit.batch_norm_backward(
            self.dy, self.x, mean, rstd, self.weight,
            bias=self.bias, residual=self.residual is not None, **known, **masked,
        )  # fmt: skip
        return training.Passes(y, mean, rstd, *gradients)

    def problem(self, activation=None, **options):
        return self.normalizer.problem(
            self.x, self.weight, self.bias, self.mask, residual=self.residual, activation=activation, **options
        )


def grid():
    """Every combination of what meets in the code, on a few shapes and cuts each."""
    cuts = {"uneven": (2, 4), "an empty rank": (3, 3), "all in one": (0, 0)}
    for name in NAMES:
        for dtype in DTYPES:
            for masked in (False, True):
                for activation, residual in ((None, False), ("relu", True), ("silu", False), (None, True)):
                    for shape in ((7, 5), (7, 6, 3, 4), (7, 34, 5)):
                        if training.misfit(name, shape):
                            continue
                        cut = list(cuts)[(len(shape) + masked + residual) % 3]
                        case = Case(shape, cuts[cut], name, dtype, activation, residual, masked)
                        yield f"{name} {shape} {dtype} {activation} {residual=} {masked=} {cut}", case
    # Several blocks and chunks, more than a thread; and float32 data that float32 statistics would lose.
    for name in NAMES:
        for masked in (False, True):
            yield f"large, {name} {masked=}", Case((24, 24, 33, 31), (7, 20), name, masked=masked)
            far = Case((40, 6, 70), (1, 25), name, masked=masked, data=dict(offset=1e6, scale=3.0))
            yield f"far from zero, {name} {masked=}", far
    yield "silu, far from zero", Case((40, 6, 70), (1, 25), activation="silu", data=dict(offset=1e4, scale=3.0))


GRID = dict(grid())
