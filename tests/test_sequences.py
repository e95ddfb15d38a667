"""Sequences of different lengths in one batch: `lengths`, and what padding does and does not do."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from calls import assert_same, bits
from cases import DTYPES
from training import BY_CHANNEL, PER_SAMPLE, assert_passes, assert_same_passes, train, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
LENGTHS = (33, 1, 0, 17, 32)


def sequences(name, dtype, batch=5, time=33, channels=6):
    """A normalizer with x, dy, weight, bias, and the axis of time."""
    along = 1 if "axis=-1" in name else 2
    shape = (batch, time, channels) if along == 1 else (batch, channels, time)
    normalizer, kind = trained(name, shape), DTYPES[dtype]
    x, dy = cases.sample(shape, kind), training.upstream(shape, kind)
    return normalizer, x, dy, *training.parameters(normalizer, shape, kind), along


def mask_of(lengths, time):
    return np.arange(time) < np.asarray(lengths)[:, None]


@each_dtype
@each("name", BY_CHANNEL)
def test_lengths_are_a_mask(name, dtype):
    """The bits of the mask that they stand for, however they are written."""
    normalizer, x, dy, weight, bias, along = sequences(name, dtype)
    mask = mask_of(LENGTHS, 33)
    masked = train(normalizer, x, dy, weight, bias, mask=mask)
    assert_passes(masked, normalizer.problem(x, weight, bias, mask), dy, name)
    assert not bits(np.moveaxis(masked.y, along, 1)[~mask]).any()
    kinds = [np.array(LENGTHS, kind) for kind in ("int64", "int32", "uint8")]
    for lengths in (list(LENGTHS), LENGTHS, *kinds, np.array(LENGTHS * 2).reshape(2, 5).T[:, 0]):
        assert_same_passes(train(normalizer, x, dy, weight, bias, lengths=lengths), masked, name)


@each("name", BY_CHANNEL)
def test_full_lengths(name):
    normalizer, x, dy, weight, bias, _ = sequences(name, "float32")
    plain = train(normalizer, x, dy, weight, bias)
    assert_same_passes(train(normalizer, x, dy, weight, bias, lengths=[33] * 5), plain, name)


@each("name", [name for name in BY_CHANNEL if "batch_norm(training" not in name])
def test_lengths_of_no_sequences(name):
    """An empty batch has an empty list of lengths."""
    normalizer, x, dy, weight, bias, _ = sequences(name, "float32", batch=0)
    for lengths in ([], (), np.zeros(0, np.int64)):
        passes = train(normalizer, x, dy, weight, bias, lengths=lengths)
        assert passes.y.shape == passes.dx.shape == x.shape
        np.testing.assert_array_equal([passes.dweight, passes.dbias], np.zeros((2, 6)))


@each("name", BY_CHANNEL)
def test_torch_lengths(name):
    torch = pytest.importorskip("torch")
    normalizer, x, dy, weight, bias, _ = sequences(name, "float32")
    expected = train(normalizer, x, dy, weight, bias, lengths=LENGTHS)
    tensors = [torch.from_numpy(array.copy()) for array in (x, dy, weight, bias)]
    passes = train(normalizer, *tensors, lengths=torch.tensor(LENGTHS))
    assert_same_passes([None if r is None else r.numpy() for r in passes], expected, name)


# --------------------------------------------------------------------------------------------------------- padding


def padded(array, along, before, after):
    """The first `before` positions, then NaN up to `after`."""
    width = [(0, 0)] * 3
    width[along] = (0, after - before)
    return np.pad(array.take(range(before), axis=along), width, constant_values=np.nan)


@each_dtype
@each("name", [name for name in PER_SAMPLE if name.startswith("instance_norm") or "axis=-1" in name])
def test_padded_alone_and_in_a_batch(name, dtype):
    """Where time does not share a walk with other axes: whatever it is padded to, and whatever is beside it, a
    sequence has the bits that it has unpadded and alone."""
    for length in (2, 31, 65, 300):
        normalizer, x, dy, weight, bias, along = sequences(name, dtype, 1, length)
        alone = train(normalizer, x, dy, weight, bias)
        for time in (length, length + 1, length + 70, 2500):
            beside = np.full_like(padded(x, along, length, time), 1.5)
            batch = [np.concatenate([beside, padded(a, along, length, time)]) for a in (x, dy)]
            both = train(normalizer, *batch, weight, bias, lengths=[time - 1, length])
            what = f"{name} {length} of {time}"
            for result in (both.y, both.dx):
                assert not bits(result[1:].take(range(length, time), axis=along)).any(), what
            for label in ("y", "dx"):
                own = np.ascontiguousarray(getattr(both, label)[1:].take(range(length), axis=along))
                np.testing.assert_array_equal(bits(own), bits(getattr(alone, label)), err_msg=f"{label} of {what}")
            for label in ("mean", "rstd"):
                assert_same(getattr(both, label)[1:], getattr(alone, label))


@each_dtype
@each("name", [name for name in BY_CHANNEL if "inference" not in name])
def test_padded_as_unpadded(name, dtype):
    """Elsewhere to rounding: a padded sample is as close to the oracle's answer for the unpadded one as that is."""
    length, time = 40, 57
    normalizer, x, dy, weight, bias, along = sequences(name, dtype, 3, length)
    batch = [padded(array, along, length, time) for array in (x, dy)]
    passes = train(normalizer, *batch, weight, bias, lengths=[length] * 3)
    alone = passes._replace(y=passes.y.take(range(length), axis=along), dx=passes.dx.take(range(length), axis=along))
    assert_passes(alone, normalizer.problem(x, weight, bias), dy, name)


def test_what_padding_does():
    """Zeros between the data and its mean: without a mask they count as data for batch_norm, whose statistics belong to
    no sequence; layer_norm never looks beyond a position, and needs no mask."""
    frames, lengths = cases.sample((4, 60, 8), np.float32, offset=5.0, scale=1.0), [60, 20, 6, 2]
    valid = mask_of(lengths, 60)
    batch = np.where(valid[..., None], frames, np.float32(0))
    rows = batch[valid]
    expected, mean, rstd = normkit.batch_norm(rows, None, training=True, return_stats=True)

    _, padded_mean, padded_rstd = normkit.batch_norm(batch, None, training=True, axis=-1, return_stats=True)
    share = np.mean(valid)
    assert share < 0.5
    np.testing.assert_allclose(padded_mean, share * mean, rtol=1e-5)
    assert (padded_rstd < rstd / 2).all(), "the distance from 0 has become a deviation"
    unmasked = normkit.batch_norm(batch, None, training=True, axis=-1)[valid]
    assert abs(unmasked - expected).max() > 0.5

    masked, *statistics = normkit.batch_norm(batch, None, training=True, axis=-1, lengths=lengths, return_stats=True)
    np.testing.assert_allclose(masked[valid], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(statistics, [mean, rstd], rtol=1e-6)

    assert_same(normkit.layer_norm(batch)[valid], normkit.layer_norm(rows))
