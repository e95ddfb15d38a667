"""The bitwise contract: the same input gives the same bits, for any number of threads and any instruction set, in place
or not, at any alignment, and for each sample whatever the batch around it.

Run as a program, this file prints the hashes of many results as JSON; the tests run it once per instruction set.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES, NORMALIZERS

THREADS = (1, 2, 3, 8)
# Small ones run serially; of the large ones some have many statistics to share out among the threads, some few and
# long reductions to be cut, by rows and by columns.
SMALL = ((3, 5), (17, 33), (33, 130), (3, 2050), (2, 6, 5, 7), (3, 12, 9, 11), (2, 4, 3, 5, 6), (70, 6, 3, 3))
LARGE = (
    *((1, 1_000_003), (1_000_003, 1), (3000, 200), (200_003, 3), (2, 3, 500, 501), (2, 64, 57, 61), (2, 32, 8, 21, 25)),
    *((16, 100, 28, 28), (500, 1027), (300, 12, 9, 9)),
)
LAYOUTS = ("C", "channels_last", "cropped", "strided")
EVERY_CASE_UP_TO = 100_000  # elements; beyond, float32 in the two dense layouts only: the schedules are the same


def equal(actual, expected, what=""):
    """Bit for bit, without the courtesies that floating-point equality extends to -0 and NaN."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
    same = np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()
    if not same:
        # For the message: where and by how much.
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        raise AssertionError(f"{what}: -0 against 0")


def evaluate(name, x):
    """All that a normalizer returns for `x`, with weight and bias."""
    operation = NORMALIZERS[name](x.shape)
    weight, bias = cases.parameters(operation, x.shape, x.dtype) if operation.affine else (None, None)
    options = dict(return_stats=True) if operation.returns_stats else {}
    results = operation.call(x, weight, bias, **options)
    return results if options else (results,)


def extras(x, table):
    """What is not a normalizer of the grid: ranges, moving averages, moments, and columns scaled by given numbers."""
    yield "min_max_scale(axis=0)", (normkit.min_max_scale(x, axis=0, feature_range=(-0.1, 0.9)),)
    yield "min_max_scale(axis=-1)", (normkit.min_max_scale(x, axis=-1, feature_range=(-0.1, 0.9)),)
    if x.size > x.shape[1]:
        state = normkit.BatchNormState(x.shape[1])
        normkit.batch_norm(x, state, training=True)
        yield "running averages", (state.running_mean, state.running_var)
    yield from scalers(x, table)


class Table(NamedTuple):
    """Data with holes, a mask and weights."""

    data: np.ndarray
    mask: np.ndarray
    weights: np.ndarray


def table_of(x):
    holes = cases.random("holes").random(x.shape)
    data = x.copy(order="K")
    data[holes < 0.1] = np.nan
    return Table(data, holes < 0.8, np.where(holes > 0.9, 0.0, holes))


def scalers(x, table):
    """What scalers take of data."""
    for axis in (0, -1):
        for what, function, options in (
            ("moments", normkit.moments, {"nan": "omit"}),
            ("moments(masked)", normkit.moments, {"nan": "omit", "mask": table.mask}),
            ("moments(weighted)", normkit.moments, {"nan": "omit", "weights": table.weights}),
            ("min_max", normkit._core.min_max, {"nan": "omit"}),
        ):
            m = function(table.data, axis=axis, **options)
            fields = (m.count, m.min, m.max) if what == "min_max" else (m.count, m.mean, m.m2, m.min, m.max)
            yield f"{what} axis={axis}", fields
    numbers = np.linspace(-2, 3.7, x[0].size).reshape(x.shape[1:])
    yield "scale_columns", (normkit._core.scale_columns(x, numbers, numbers[::-1]),)
    yield "scale_columns(inverse)", (normkit._core.scale_columns(x, numbers, numbers[::-1], inverse=True),)


class Fingerprints:
    """{case: [hash with each number of threads]}; the first arrays are kept: comparing is cheaper than hashing."""

    def __init__(self):
        self.table = {}
        self._first = {}

    def add(self, case, arrays):
        # In the order of memory: nothing is copied.
        raw = [np.ravel(array, order="K").view(np.uint8) for array in arrays if array is not None]
        first = self._first.setdefault(case, raw)
        if case in self.table and all(map(np.array_equal, raw, first)):
            self.table[case].append(self.table[case][0])
            return
        hashed = hashlib.blake2b(digest_size=8)
        for one in raw:
            hashed.update(one)
        self.table.setdefault(case, []).append(hashed.hexdigest())

    def forget(self):
        """Let go of what is kept, when no more of its cases will come."""
        self._first.clear()


def fingerprints(shapes, threads):
    found = Fingerprints()
    for shape in shapes:
        for layout in LAYOUTS:
            for dtype in DTYPES:
                if math.prod(shape) > EVERY_CASE_UP_TO and (dtype != "float32" or layout not in ("C", "channels_last")):
                    continue
                x = cases.arrange(cases.sample(shape, DTYPES[dtype]), layout).view
                table = table_of(x)
                for count in threads:
                    normkit.set_num_threads(count)
                    calls = ((name, evaluate(name, x)) for name in NORMALIZERS if not cases.misfit(name, shape))
                    for name, results in (*calls, *extras(x, table)):
                        found.add(f"{name} {shape} {layout} {dtype}", results)
                found.forget()
    return found.table


def fingerprints_of(isa, threads, program, **variables):
    """{case: {number of threads: hash}}, as a process forced to one instruction set, and to what else environment
    variables say, prints them."""
    command = [sys.executable, program, *map(str, threads)]
    # More threads than cores must not spin while they wait for each other.
    environment = {**os.environ, "NORMKIT_ISA": isa, "OMP_WAIT_POLICY": "passive", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["isa"] == isa, "NORMKIT_ISA was not honoured"
    return {case: dict(zip(threads, hashes, strict=True)) for case, hashes in printed["table"].items()}


def assert_same_bits(tables):
    """{instruction set: table}: one hash for each case."""
    reference = next(iter(tables.values()))
    different = {}
    for isa, table in tables.items():
        assert table.keys() == reference.keys()
        for case, hashes in table.items():
            for count, value in hashes.items():
                if value != next(iter(reference[case].values())):
                    different.setdefault(f"{isa}, {count} threads", []).append(case)
    assert not different, f"other bits than the first: {different}"


def tables_of(program, threads):
    """The fastest instruction set with all these numbers of threads, and every other one with 1 and 3: how work is cut
    does not depend on it. Then each of them with results that are all streamed past the caches. What cpp/bits.cpp
    hashes, it hashes for all numbers of threads on each."""
    fastest, *others = normkit.build_info()["isas"]
    tables = {fastest: fingerprints_of(fastest, threads, program)}
    tables |= {isa: fingerprints_of(isa, (1, 3), program) for isa in others}
    streaming = {"NORMKIT_CACHE_BYTES": "0"}
    return tables | {
        f"{isa}, streaming": fingerprints_of(isa, (2,), program, **streaming) for isa in (fastest, *others)
    }


@pytest.mark.slow
def test_instruction_sets_and_threads():
    """Of every normalizer, forward."""
    tables = tables_of(__file__, THREADS)
    assert "baseline" in tables or "neon" in tables
    assert len(next(iter(tables.values()))) > 200
    assert_same_bits(tables)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NORMKIT_ISA", "avx1024"), *(("NORMKIT_CACHE_BYTES", value) for value in ("much", "-1", "4MB", ""))],
)
def test_variables_that_are_refused(variable, value):
    """A misspelt environment variable does not silently do something else."""
    command = [sys.executable, "-c", "import normkit, numpy; normkit.layer_norm(numpy.ones((2, 2), 'float32'))"]
    done = subprocess.run(command, env={**os.environ, variable: value}, capture_output=True, text=True, timeout=60)
    if not value:
        assert done.returncode == 0, "empty is unset"
        return
    assert done.returncode != 0
    assert variable in done.stderr and value in done.stderr


PER_SAMPLE = [name for name in NORMALIZERS if NORMALIZERS[name]((2, 2, 2)).per_sample]
SAMPLE_SHAPES = (
    (5, 7),
    (37, 130),
    (5, 4099),
    (4, 6, 5, 7),
    (5, 32, 9, 11),
    (3, 6, 40, 61),
    (3, 4, 3, 5, 6),
    (2, 2, 70_001),
)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def sample_shapes(name):
    return [shape for shape in SAMPLE_SHAPES if not cases.misfit(name, shape)]


def samples(name, memory, dtype):
    for shape in sample_shapes(name):
        values = cases.sample(shape, DTYPES[dtype])
        yield shape, values, cases.arrange(values, memory).view


@each_dtype
@pytest.mark.parametrize("memory", ["C", "channels_last"])
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_alone_as_in_the_batch(name, memory, dtype):
    """Each sample by itself, and any part of the batch, gives the bits it gives in the batch."""
    for shape, _, x in samples(name, memory, dtype):
        returned = slice(1) if NORMALIZERS[name](shape).given else slice(None)  # given statistics are not per sample
        together = evaluate(name, x)[returned]
        parts = [slice(i, i + 1) for i in range(min(len(x), 6))] + [slice(1, None), slice(None, None, 2)]
        for part in parts:
            for whole, alone in zip(together, evaluate(name, x[part])[returned], strict=True):
                equal(alone, whole[part], f"{name} {shape} {memory} sample {part}")


@each_dtype
@pytest.mark.parametrize("memory", ["C", "channels_last"])
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_position_in_the_batch(name, memory, dtype):
    for shape, values, x in samples(name, memory, dtype):
        order = cases.random(shape).permutation(len(x))
        (y, *_), (permuted, *_) = evaluate(name, x), evaluate(name, cases.arrange(values[order], memory).view)
        equal(permuted, y[order], f"{name} {shape} {memory}")


@each_dtype
@pytest.mark.parametrize("layout", [name for name in cases.LAYOUTS if name not in cases.INPUT_ONLY])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_in_place(name, layout, dtype):
    """In place, into an array laid out alike, and into a fresh one."""
    for shape in sample_shapes(name):
        x = cases.arrange(cases.sample(shape, DTYPES[dtype]), layout).view
        operation = NORMALIZERS[name](shape)
        weight, bias = cases.parameters(operation, shape, x.dtype) if operation.affine else (None, None)
        fresh = operation.call(x, weight, bias)
        out = cases.poisoned(shape, x.dtype, layout).view
        equal(operation.call(x, weight, bias, out=out), fresh, f"{name} {shape} {layout} out")
        equal(operation.call(x, weight, bias, out=x), fresh, f"{name} {shape} {layout} in place")


@each_dtype
@pytest.mark.parametrize("name", NORMALIZERS)
def test_alignment(name, dtype):
    """Arrays that begin at any byte: x, weight, bias and the result."""
    for shape in ((5, 130), (4, 6, 5, 7), (2, 6, 40, 61)):
        if cases.misfit(name, shape):
            continue
        values = cases.sample(shape, DTYPES[dtype])
        operation = NORMALIZERS[name](shape)
        weight, bias = cases.parameters(operation, shape, values.dtype) if operation.affine else (None, None)
        expected = operation.call(values, weight, bias)
        for byte in (1, 2, 4, 7, 8, 16, 33):

            def moved(array, byte=byte):
                if array is None:
                    return None
                memory = np.zeros(array.nbytes + 128, np.uint8)
                start = -memory.ctypes.data % 64 + byte
                there = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
                there[...] = array
                return there

            out = moved(np.full_like(values, np.nan))
            operation.call(moved(values), moved(weight), moved(bias), out=out)
            equal(out, expected, f"{name} {shape} at byte {byte}")


@pytest.mark.slow
@pytest.mark.parametrize("isa", normkit.build_info()["isas"])
def test_alignment_past_the_caches(isa):
    """Where a result begins to be streamed depends on where it lies."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_alignment"]
    environment = {**os.environ, "NORMKIT_ISA": isa, "NORMKIT_CACHE_BYTES": "0", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


@each_dtype
@pytest.mark.parametrize("name", NORMALIZERS)
def test_memory_order_of_out(name, dtype):
    """The result does not depend on how `out` is laid out."""
    for shape in sample_shapes(name)[:6]:
        for memory in ("C", "channels_last"):
            x = cases.arrange(cases.sample(shape, DTYPES[dtype]), memory).view
            operation = NORMALIZERS[name](shape)
            weight, bias = cases.parameters(operation, shape, x.dtype) if operation.affine else (None, None)
            expected = operation.call(x, weight, bias)
            for layout in ("C", "F", "channels_last", "permuted", "negative", "strided", "misaligned", "cropped"):
                out = cases.poisoned(shape, x.dtype, layout).view
                operation.call(x, weight, bias, out=out)
                equal(out, expected, f"{name} {shape} {memory} -> {layout}")


@each_dtype
@pytest.mark.parametrize(
    "name", ["batch_norm(training)", "batch_norm(inference)", "group_norm(few)", "group_norm(many)", "instance_norm"]
)
def test_order_of_the_axes(name, dtype):
    """The same memory seen as (N, C, ...) and as (N, ..., C) is the same data: the same bits."""
    for shape in ((4, 6, 5, 7), (5, 32, 9, 11), (3, 6, 40, 61), (3, 4, 3, 5, 6)):
        for memory in ("C", "channels_last"):
            x = cases.arrange(cases.sample(shape, DTYPES[dtype]), memory).view
            last = np.moveaxis(x, 1, -1)
            name_of_last = f"{name[:-1]}, axis=-1)" if name.endswith(")") else f"{name}(axis=-1)"
            operation, moved = NORMALIZERS[name](shape), NORMALIZERS[name_of_last](last.shape)
            weight, bias = cases.parameters(operation, shape, x.dtype)
            y = operation.call(x, weight, bias)
            equal(np.moveaxis(moved.call(last, weight, bias), -1, 1), y, f"{name} {shape} {memory}")


@each_dtype
@pytest.mark.parametrize("name", NORMALIZERS)
def test_statistics_do_not_change_the_result(name, dtype):
    """Asking for the statistics, or leaving out a neutral weight and bias, gives the same bits."""
    for shape in sample_shapes(name)[:6]:
        x = cases.sample(shape, DTYPES[dtype])
        operation = NORMALIZERS[name](shape)
        plain = operation.call(x, None, None)
        if operation.returns_stats:
            equal(operation.call(x, None, None, return_stats=True)[0], plain, f"{name} {shape}")
        if operation.affine:
            extent = operation.parameter_shape(shape)
            neutral = operation.call(x, np.ones(extent, x.dtype), np.zeros(extent, x.dtype))
            np.testing.assert_array_equal(neutral, plain, err_msg=f"{name} {shape}")


def main(threads):
    shapes = SMALL if cases.QUICK else SMALL + LARGE
    json.dump({"isa": normkit.build_info()["isa"], "table": fingerprints(shapes, threads)}, sys.stdout)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]])
