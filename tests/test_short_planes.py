"""BatchNorm with channels first and short planes, which are walked as columns (cpp/src/planes.h)."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import reference
import training
from cases import DTYPES

each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
# Around the lengths of planes and numbers of samples that decide: planes of 1, 2, 49, 50, 64 and 65 values, fewer and
# more samples than a plane has values; more lanes than a slab has, more samples than a chunk.
SHAPES = (
    *((16, 5, 2), (15, 5, 2), (17, 3, 1, 3), (70, 20, 1, 1), (70, 3, 2, 2), (36, 7, 3, 3), (37, 1, 3, 3)),
    *((48, 3, 7, 7), (49, 3, 7, 7), (64, 3, 8, 8), (63, 3, 64), (66, 2, 65), (196, 2, 49), (201, 2, 50)),
    *((64, 40, 7, 7), (300, 300, 2, 2), (2500, 3, 2, 1)),
)


def passes(name, shape, dtype, **fused):
    """Forward and backward, of what nothing could be left out, beside the oracle."""
    normalizer, kind = training.trained(name, shape), DTYPES[dtype]
    x, dy = cases.sample(shape, kind), training.upstream(shape, kind)
    weight, bias = training.parameters(normalizer, shape, kind)
    if fused:
        fused["residual"] = cases.sample(shape, kind, "residual", offset=0.0)
    return training.train(normalizer, x, dy, weight, bias, **fused), normalizer.problem(x, weight, bias, **fused), dy


@each_dtype
@each("name", ["batch_norm(training)", "batch_norm(inference)"])
def test_both_ways(name, dtype):
    for shape in SHAPES:
        training.assert_passes(*passes(name, shape, dtype), f"{name} {shape}")


@each("dtype", ["float32", "bfloat16"])
@each("name", ["batch_norm(training)", "batch_norm(inference)"])
def test_fused(name, dtype):
    for shape in ((70, 3, 2, 2), (49, 3, 7, 7), (300, 30, 2, 2)):
        training.assert_passes(*passes(name, shape, dtype, activation="relu"), f"{name} {shape}")


@each_dtype
def test_without_weights(dtype):
    """Statistics alone, whatever is made of them."""
    for shape in SHAPES:
        x = cases.sample(shape, DTYPES[dtype], offset=100.0)
        over = tuple(axis for axis in range(x.ndim) if axis != 1)
        expected = reference.normalize(x, over, eps=1e-6)
        reference.assert_close(normkit.standardize(x, axis=over, eps=1e-6), expected, x.dtype, f"{shape}")
        scaled = normkit.min_max_scale(x, axis=over).astype(float)
        tolerance = 4 * float(reference.finfo(x.dtype).eps)
        np.testing.assert_allclose(scaled, reference.rescale(x, over).astype(float), atol=tolerance, err_msg=f"{shape}")
        moments, wide = normkit.moments(x, axis=over), reference.widen(x)
        mean, variance = (np.ravel(values).astype(float) for values in reference.moments(wide, over))
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, err_msg=f"{shape}")
        np.testing.assert_allclose(moments.var(), variance, rtol=1e-5, err_msg=f"{shape}")
        np.testing.assert_array_equal(moments.min, wide.min(axis=over).astype(float))
        np.testing.assert_array_equal(moments.max, wide.max(axis=over).astype(float))
        assert (moments.count == x.size // shape[1]).all()


@each("dtype", ["float32", "bfloat16", "float64"])
@each("name", ["batch_norm(training)", "batch_norm(inference)"])
def test_masks(name, dtype):
    """Of positions that channels share; one of all True gives the bits of none, and lanes may have no value at all."""
    for shape in SHAPES:
        normalizer, kind = training.trained(name, shape), DTYPES[dtype]
        x, dy = cases.sample(shape, kind), training.upstream(shape, kind)
        weight, bias = training.parameters(normalizer, shape, kind)
        positions = shape[:1] + shape[2:]
        plain = training.train(normalizer, x, dy, weight, bias)
        same = training.train(normalizer, x, dy, weight, bias, mask=np.ones(positions, bool))
        training.assert_same_passes(same, plain, f"{name} {shape}")
        mask = cases.random("mask", shape).random(positions) < 0.6
        mask[..., -1] = False
        mask[3] = False
        mask[:2].flat[0] = mask[-1].flat[0] = True
        some = training.train(normalizer, x, dy, weight, bias, mask=mask)
        training.assert_passes(some, normalizer.problem(x, weight, bias, mask), dy, f"{name} {shape} masked")


def test_masks_of_any_shape():
    """Where nothing has weights: along samples, channels, positions, or all of them."""
    for shape in ((70, 3, 2, 2), (49, 3, 7, 7)):
        x, over = cases.sample(shape, np.float32), (0, 2, 3)
        plain, moments = normkit.standardize(x, axis=over), normkit.moments(x, axis=over)
        for own in (shape, (shape[0], 1, 1, 1), (1, shape[1], 1, 1), (1, 1, *shape[2:]), (shape[0], 1, *shape[2:])):
            every = np.ones(own, bool)
            np.testing.assert_array_equal(normkit.standardize(x, axis=over, mask=every), plain)
            np.testing.assert_array_equal(normkit.moments(x, axis=over, mask=every).mean, moments.mean)
            mask = cases.random(own).random(own) < 0.7
            values = np.where(np.broadcast_to(mask, shape), x.astype(float), np.nan)
            some = normkit.moments(x, axis=over, mask=mask)
            np.testing.assert_array_equal(some.count, np.isfinite(values).sum(axis=over))
            there = some.count > 0
            np.testing.assert_allclose(some.mean[there], np.nanmean(values[:, there], axis=over), rtol=1e-6)
            np.testing.assert_array_equal(some.max[there], np.nanmax(values[:, there], axis=over))


def test_given_statistics_do_not_see_the_batch():
    """A sample has the same bits alone, in a small batch and in one that is walked otherwise."""
    for shape in SHAPES:
        x = cases.sample(shape, np.float32)
        normalizer = training.trained("batch_norm(inference)", shape)
        weight, bias = training.parameters(normalizer, shape, np.float32)
        every = normalizer.forward(x, weight, bias)
        for some in (slice(0, 1), slice(3, 12), slice(1, None)):
            np.testing.assert_array_equal(normalizer.forward(x[some], weight, bias), every[some])


def test_where_channels_lie_apart():
    """As rows, which is another order of additions."""
    for shape in ((70, 3, 2, 2), (49, 3, 7, 7)):
        x = cases.sample((shape[0], 2 * shape[1], *shape[2:]), np.float32)[:, ::2]
        apart = normkit.batch_norm(x, None, training=True, return_stats=True)
        together = normkit.batch_norm(x.copy(), None, training=True, return_stats=True)
        for ours, theirs in zip(apart, together, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_same_bits():
    """Whatever threads there are, and where a batch is joined with those of nobody else."""
    for shape in ((70, 3, 2, 2), (64, 40, 7, 7), (300, 300, 2, 2)):
        x, dy = cases.sample(shape, np.float32), training.upstream(shape, np.float32)
        found = []
        for threads, sync in ((1, None), (2, None), (5, None), (2, lambda moments: moments)):
            normkit.set_num_threads(threads)
            state = normkit.BatchNormState(shape[1])
            y, mean, rstd = normkit.batch_norm(x, state, training=True, return_stats=True, sync=sync)
            gradients = normkit.batch_norm_backward(dy, x, mean, rstd, sync=sync)
            found.append((y, mean, rstd, gradients[0], state.running_mean.copy(), state.running_var.copy()))
        for other in found[1:]:
            for ours, theirs in zip(other, found[0], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_number_stays_in_its_channel():
    x = cases.sample((70, 5, 3, 3), np.float32)
    clean = normkit.batch_norm(x, None, training=True)
    x[33, 2, 1, 1] = np.nan
    state = normkit.BatchNormState(5)
    y = normkit.batch_norm(x, state, training=True)
    assert np.isnan(y[:, 2]).all() and state.skipped == 1
    np.testing.assert_array_equal(np.delete(y, 2, axis=1), np.delete(clean, 2, axis=1))
    moments = normkit.moments(x, axis=(0, 2, 3), nan="omit")
    assert moments.count.tolist() == [630, 630, 629, 630, 630]
    np.testing.assert_allclose(moments.mean, np.nanmean(x.astype(float), axis=(0, 2, 3)), rtol=1e-6)
