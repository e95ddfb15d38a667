"""The bitwise contract of training: the same bits for any number of threads and on any instruction set, with masks,
residuals and activations, forward and backward.

Run as a program, this file prints the hashes of many results as JSON; the tests run it once per instruction set.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import cases
import normkit
import training
from cases import DTYPES
from test_bits import Fingerprints, assert_same_bits, tables_of
from training import BY_CHANNEL, TRAINED, half_valid, mask_shape, train, trained

THREADS = (1, 3)
# The large ones have many statistics to share out among the threads, or reductions long enough to be cut into
# chunks: of 64 Ki values by rows, of 1024 positions by columns.
SMALL = ((17, 33), (3, 2050), (2, 6, 5, 7), (3, 12, 9, 11))
LARGE = ((5003, 3), (700, 130), (2, 2, 300, 303))
LAYOUTS = ("C", "channels_last", "cropped")


def results(name, x, dy, residual):
    """{variant: all that the two passes return}"""
    normalizer = trained(name, x.shape)
    weight, bias = training.parameters(normalizer, x.shape, x.dtype)
    if name not in BY_CHANNEL:
        y, *statistics = normalizer.forward(x, weight, bias, return_stats=True)
        mean, rstd = statistics if len(statistics) == 2 else (None, *statistics)
        return {"plain": (y, *statistics, *normalizer.backward(dy, x, mean, rstd, weight))}
    masked = dict(mask=half_valid(mask_shape(normalizer, x.shape)))
    variants = {
        "plain": {},
        "relu": dict(activation="relu", residual=residual),
        "masked silu": dict(activation="silu") | masked,
        "masked": dict(residual=residual) | masked,
    }
    return {variant: train(normalizer, x, dy, weight, bias, **options) for variant, options in variants.items()}


def extras(x, residual):
    """What has no backward pass."""
    mask = half_valid(x.shape)
    for axis in (0, -1):
        moments = normkit.moments(x, axis=axis, mask=mask)
        yield f"moments {axis}", [getattr(moments, field) for field in ("count", "mean", "m2", "min", "max")]
        yield f"standardize {axis}", [normkit.standardize(x, axis=axis, mask=mask)]
    yield "add_layer_norm", normkit.add_layer_norm(x, residual, return_stats=True)
    yield "add_rms_norm", normkit.add_rms_norm(x, residual, return_stats=True)


def everything(shape, arrays):
    """(what it is, all that it returned)"""
    for name in TRAINED:
        if not training.misfit(name, shape):
            for variant, returned in results(name, *arrays).items():
                yield f"{name} {variant}", returned
    yield from extras(arrays[0], arrays[2])


def fingerprints(shapes, threads):
    found = Fingerprints()
    for shape in shapes:
        large = np.prod(shape) > 10_000
        for layout in LAYOUTS[:2] if large else LAYOUTS:
            for dtype in ("float32",) if large else DTYPES:
                kind = DTYPES[dtype]
                values = (
                    cases.sample(shape, kind),
                    training.upstream(shape, kind),
                    cases.sample(shape, kind, "residual"),
                )
                arrays = [cases.arrange(array, layout).view for array in values]
                for count in threads:
                    normkit.set_num_threads(count)
                    for what, returned in everything(shape, arrays):
                        found.add(f"{what} {shape} {layout} {dtype}", returned)
                found.forget()
    return found.table


@pytest.mark.slow
def test_instruction_sets_and_threads():
    """Of both passes, masked and fused."""
    tables = tables_of(__file__, THREADS)
    assert len(next(iter(tables.values()))) > 300
    assert_same_bits(tables)


def main(threads):
    shapes = SMALL if cases.QUICK else SMALL + LARGE
    json.dump({"isa": normkit.build_info()["isa"], "table": fingerprints(shapes, threads)}, sys.stdout)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]])
