"""Laws that hold between normalizers, and between a normalizer and changes of its data."""

from __future__ import annotations

import math

import numpy as np
import pytest

import cases
import normkit
import reference
from cases import NORMALIZERS

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies
hypothesis.settings.register_profile(
    "normkit", deadline=None, derandomize=True, max_examples=15 if cases.QUICK else 60, print_blob=False
)
hypothesis.settings.load_profile("normkit")

extents = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
images = st.tuples(st.integers(1, 4), st.integers(1, 12), extents, st.integers(1, 9))
names = st.sampled_from(sorted(NORMALIZERS))
own_statistics = st.sampled_from([name for name in sorted(NORMALIZERS) if "inference" not in name])
centred = st.sampled_from([name for name in sorted(NORMALIZERS) if "inference" not in name and "rms" not in name])
powers = st.integers(-20, 20)

CLOSE = dict(rtol=0, atol=2e-5)  # float32 results of size about 3, a dozen roundings apart


def data(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def valid(name, shape):
    operation = NORMALIZERS[name](shape)
    values = math.prod(shape) // max(math.prod(operation.statistics_shape(shape)), 1)
    hypothesis.assume(values > 1 or "training" not in name)
    return operation


@given(own_statistics, images, seeds, powers)
def test_scaling_by_a_power_of_two_changes_no_bit(name, shape, seed, power):
    """Without eps, x and 2**k x give the same bits: nothing depends on the magnitude of the data."""
    operation, x = valid(name, shape), data(shape, seed)
    y = operation.call(x, None, None, eps=0.0)
    np.testing.assert_array_equal(operation.call(x * np.float32(2.0) ** power, None, None, eps=0.0), y)


@given(own_statistics, images, seeds)
def test_odd(name, shape, seed):
    """norm(-x) = -norm(x), bit for bit: no rounding prefers a sign."""
    operation, x = valid(name, shape), data(shape, seed)
    np.testing.assert_array_equal(operation.call(-x, None, None), -operation.call(x, None, None))


@given(centred, images, seeds, st.floats(-1000, 1000), st.floats(0.1, 10))
def test_affine_invariance(name, shape, seed, shift, scale):
    """a x + b with a > 0 is normalized to what x is normalized to."""
    operation, x = valid(name, shape), data(shape, seed, np.float64)
    rstd = operation.expected(x, eps=0.0).rstd
    hypothesis.assume(np.isfinite(rstd).all())
    # a x + b is rounded to within 1e-16 of its largest value, which counts in standard deviations of a x.
    rounding = 1e-16 * (abs(shift) / scale + 10) * float(rstd.max())
    y = operation.call(x, None, None, eps=0.0)
    moved = operation.call(scale * x + shift, None, None, eps=0.0)
    np.testing.assert_allclose(moved, y, rtol=0, atol=1e-13 + 50 * rounding)


@given(st.sampled_from(["standardize(axis=0)", "layer_norm(axis=1)", "instance_norm"]), images, seeds)
def test_result_has_mean_0_and_deviation_1(name, shape, seed):
    operation, x = valid(name, shape), data(shape, seed)
    y = operation.call(x, None, None, eps=0.0)
    mean, var = reference.moments(reference.widen(y), operation.reduced)
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    one = np.prod([shape[a] for a in operation.reduced]) == 1
    np.testing.assert_allclose(var, 0 if one else 1, atol=1e-5)


@given(images, seeds)
def test_batch_norm_of_one_sample_is_instance_norm(shape, seed):
    x = data((1, *shape[1:]), seed)
    hypothesis.assume(x.size > shape[1])
    weight, bias = data(shape[1], seed + 1), data(shape[1], seed + 2)
    np.testing.assert_array_equal(
        normkit.batch_norm(x, None, weight, bias, training=True), normkit.instance_norm(x, weight, bias)
    )


@given(images, seeds)
def test_one_group_is_layer_norm_over_all_but_the_batch(shape, seed):
    """To rounding: their weights lie otherwise, and with them the pieces that a reduction is cut into."""
    x = data(shape, seed)
    np.testing.assert_allclose(normkit.group_norm(x, 1), normkit.layer_norm(x, axis=(1, 2, 3)), **CLOSE)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(normkit.group_norm(last, 1, axis=-1), normkit.layer_norm(last, axis=(1, 2, 3)), **CLOSE)


@given(images, seeds)
def test_a_group_per_channel_is_instance_norm(shape, seed):
    x, weight, bias = data(shape, seed), data(shape[1], seed + 1), data(shape[1], seed + 2)
    np.testing.assert_array_equal(normkit.group_norm(x, shape[1], weight, bias), normkit.instance_norm(x, weight, bias))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = normkit.group_norm(last, shape[1], weight, bias, axis=-1)
    np.testing.assert_array_equal(y, normkit.instance_norm(last, weight, bias, axis=-1))


@given(images, seeds)
def test_standardize_is_batch_norm_without_parameters(shape, seed):
    x = data(shape, seed)
    hypothesis.assume(x.size > shape[1])
    y = normkit.batch_norm(x, None, training=True, eps=1e-5)
    np.testing.assert_allclose(y, normkit.standardize(x, axis=(0, 2, 3), eps=1e-5), **CLOSE)


@given(images, seeds)
def test_training_then_inference(shape, seed):
    """Inference with the averages of one batch (momentum 1, population variance) is training on that batch."""
    x = data(shape, seed, np.float64)
    hypothesis.assume(x.size > shape[1])
    state = normkit.BatchNormState(shape[1], momentum=1.0, unbiased=False, dtype="float64")
    y = normkit.batch_norm(x, state, training=True)
    np.testing.assert_allclose(normkit.batch_norm(x, state), y, rtol=0, atol=1e-12)


@given(extents, extents, seeds)
def test_rms_norm_of_centred_data_is_layer_norm(rows, n, seed):
    x = data((rows, n), seed, np.float64)
    x -= x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(normkit.rms_norm(x, eps=1e-3), normkit.layer_norm(x, eps=1e-3), rtol=0, atol=1e-12)


@given(images, seeds, st.permutations(range(4)))
def test_order_of_the_reduced_positions(shape, seed, order):
    """Statistics do not depend on the order of the axes they are taken over."""
    x = data(shape, seed)
    hypothesis.assume(x.size > shape[1])
    channel = order.index(1)
    moved = normkit.batch_norm(np.ascontiguousarray(x.transpose(order)), None, training=True, axis=channel)
    y = normkit.batch_norm(x, None, training=True)
    np.testing.assert_allclose(moved.transpose(np.argsort(order)), y, **CLOSE)


@given(names, images, seeds, st.sampled_from(sorted(cases.LAYOUTS)))
def test_layout_is_invisible(name, shape, seed, layout):
    operation = valid(name, shape)
    x = cases.arrange(data(shape, seed), layout).view
    np.testing.assert_allclose(operation.call(x, None, None), operation.call(x.copy(), None, None), **CLOSE)


@given(st.sampled_from([name for name in sorted(NORMALIZERS) if "-1" not in name]), images, seeds)
def test_extents_of_one_are_invisible(name, shape, seed):
    """A last axis of extent 1 changes no bit."""
    operation, x, longer = valid(name, shape), data(shape, seed), (*shape, 1)
    y = NORMALIZERS[name](longer).call(x.reshape(longer), None, None)
    np.testing.assert_array_equal(y.reshape(shape), operation.call(x, None, None))


@given(st.tuples(extents, extents), seeds, st.floats(-5, 5), st.floats(0.1, 5))
def test_min_max_scale_is_monotone_and_idempotent(shape, seed, low, width):
    x = data(shape, seed, np.float64)
    y = normkit.min_max_scale(x, feature_range=(low, low + width))
    order = np.argsort(x, axis=0)
    assert (np.diff(np.take_along_axis(y, order, axis=0), axis=0) >= 0).all()
    np.testing.assert_allclose(normkit.min_max_scale(y, feature_range=(low, low + width)), y, rtol=0, atol=1e-12)
