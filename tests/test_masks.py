"""Masks and lengths: what is not valid counts nowhere, whatever it holds, and is 0 in every result of x's shape."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from calls import assert_same, bits
from cases import DTYPES, LAYOUTS, NORMALIZERS
from gradients import Problem
from reference import assert_close
from training import BY_CHANNEL, PER_SAMPLE, assert_passes, assert_same_passes, half_valid, mask_shape, train, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
each_normalizer = each("name", BY_CHANNEL)
STANDARDIZE = [name for name in NORMALIZERS if "standardize" in name]
SHAPES = ((5, 70), (4, 6, 33), (2, 64, 7, 7), (3, 6, 5, 9), (2, 4, 3, 5, 2))
if cases.QUICK:
    SHAPES = ((5, 70), (2, 34, 3, 5))
LONG = ((2, 6, 2100), (300, 4, 17), (2, 3, 70, 71))
SEQUENCES = {"(B, C, T)": 1, "(B, T, C)": -1}  # the axis of channels


def operands(name, shape, dtype, *key):
    """A normalizer with x, dy, weight and bias."""
    normalizer, kind = trained(name, shape), DTYPES[dtype]
    x, dy = cases.sample(shape, kind, *key), training.upstream(shape, kind, *key)
    return normalizer, x, dy, *training.parameters(normalizer, shape, kind)


def over(mask, normalizer):
    """A mask without channels, along the axes of x."""
    return np.expand_dims(mask, normalizer.channel)


def masked_values(array, mask, normalizer):
    return array[~np.broadcast_to(over(mask, normalizer), array.shape)]


def solo(array, sample):
    return array[sample : sample + 1]


# ---------------------------------------------------------------------------------------------------------- values


@each("layout", LAYOUTS)
@each_dtype
@each_normalizer
def test_grid(name, dtype, layout):
    """Forward and backward with x, dy and mask laid out alike and differently; the mask is not written either."""
    names = list(LAYOUTS)
    other = names[(names.index(layout) + 3) % len(names)]
    for shape in training.shapes(name, SHAPES):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        mask = half_valid(mask_shape(normalizer, shape))
        for x_layout, mask_layout in ((layout, layout), (other, layout)):
            placed = cases.arrange(x, x_layout), cases.arrange(dy, layout), cases.arrange(mask, mask_layout)
            before = [block.twin() for block in placed]
            own_x, own_dy, own_mask = (block.view for block in placed)
            passes = train(normalizer, own_x, own_dy, weight, bias, mask=own_mask)
            what = f"{name} {shape} of x {x_layout}, dy and mask {layout}"
            assert_passes(passes, normalizer.problem(own_x, weight, bias, own_mask), own_dy, what)
            for result in (passes.y, passes.dx):
                assert not bits(masked_values(result, own_mask, normalizer)).any(), what
                assert result.strides == np.empty_like(own_x).strides, what
            for block, twin in zip(placed, before, strict=True):
                np.testing.assert_array_equal(block.memory, twin.memory, err_msg=what)


@each("dtype", ["float32", "float64"])
@each_normalizer
def test_sizes(name, dtype):
    """Several blocks and chunks, with and without a valid position; masks from nearly empty to nearly full."""
    for shape in training.shapes(name, LONG if not cases.QUICK else SHAPES):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        for share in (0.002, 0.3, 0.999):
            mask = cases.random(shape, share).random(mask_shape(normalizer, shape)) < share
            mask.flat[-2:] = True
            passes = train(normalizer, x, dy, weight, bias, mask=mask)
            assert_passes(passes, normalizer.problem(x, weight, bias, mask), dy, f"{name} {shape} {share}")


@each("poison", [np.nan, np.inf, -np.inf, "largest"])
@each_dtype
@each_normalizer
def test_what_is_masked_does_not_matter(name, dtype, poison):
    """Garbage where nothing is valid changes no bit."""
    poison = float(cases.reference.finfo(DTYPES[dtype]).max) if poison == "largest" else poison
    for shape in training.shapes(name, SHAPES):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        mask = half_valid(mask_shape(normalizer, shape))
        for memory in ("C", "channels_last"):
            clean, dirty = (
                train(normalizer, *(cases.arrange(a, memory).view for a in arrays), weight, bias, mask=mask)
                for arrays in ((x, dy), (np.where(over(mask, normalizer), a, poison).astype(a.dtype) for a in (x, dy)))
            )
            assert_same_passes(dirty, clean, f"{name} {shape} {memory}")


@each_dtype
@each_normalizer
def test_nothing_masked(name, dtype):
    """A mask of all True gives the bits of no mask."""
    for shape in training.shapes(name, SHAPES + LONG if not cases.QUICK else SHAPES):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        for memory in ("C", "channels_last"):
            own_x, own_dy = (cases.arrange(array, memory).view for array in (x, dy))
            plain = train(normalizer, own_x, own_dy, weight, bias)
            mask = np.ones(mask_shape(normalizer, shape), bool)
            same = train(normalizer, own_x, own_dy, weight, bias, mask=mask)
            assert_same_passes(same, plain, f"{name} {shape} {memory}")


@each_dtype
@each_normalizer
def test_out(name, dtype):
    """Zeros are written where nothing is valid: into out of any layout, and over x itself."""
    shape = (3, 6, 5, 9)
    normalizer, x, _, weight, bias = operands(name, shape, dtype)
    mask = half_valid(mask_shape(normalizer, shape))
    expected = normalizer.forward(x, weight, bias, mask=mask)
    for layout in LAYOUTS:
        if layout in cases.INPUT_ONLY:
            continue
        out = cases.poisoned(shape, x.dtype, layout)
        before = out.twin()
        normalizer.forward(x, weight, bias, mask=mask, out=out.view)
        assert_same(np.ascontiguousarray(out.view), expected)
        cases.assert_only_view_written(out, before, layout)
    own = x.copy()
    assert normalizer.forward(own, weight, bias, mask=mask, out=own) is own
    assert_same(own, expected)


@each_dtype
@each("layout", LAYOUTS)
@each("name", STANDARDIZE)
def test_standardize(name, layout, dtype):
    """A mask of any shape that broadcasts to that of x, in any layout."""
    shape = (6, 5, 9)
    x = cases.arrange(cases.sample(shape, DTYPES[dtype]), layout).view
    operation = NORMALIZERS[name](shape)
    for own in (shape, (5, 9), (9,), (6, 1, 1), (6, 1, 9), (1, 5, 1)):
        mask = cases.arrange(half_valid(own), layout).view
        y = operation.call(x, None, None, mask=mask)
        expected = Problem(x, operation.reduced, mask=mask, **operation.numbers).forward()
        assert_close(y, expected, x.dtype, f"{name} mask {own}")
        assert not bits(y[~np.broadcast_to(mask, shape)]).any()
    assert_same(operation.call(x, None, None, mask=np.ones(shape, bool)), operation.call(x, None, None))


@each_normalizer
def test_torch_masks(name):
    torch = pytest.importorskip("torch")
    normalizer, x, dy, weight, bias = operands(name, (3, 6, 5, 9), "float32")
    mask = half_valid(mask_shape(normalizer, x.shape))
    expected = train(normalizer, x, dy, weight, bias, mask=mask)
    tensors = [torch.from_numpy(array.copy()) for array in (x, dy, weight, bias)]
    for own in (torch.from_numpy(mask.copy()), mask):
        passes = train(normalizer, *tensors, mask=own)
        assert all(type(result) is torch.Tensor for result in passes[:6])
        assert_same_passes([None if r is None else r.numpy() for r in passes], expected, name)


def hostile(kind, shape, dtype):
    """Data that breaks careless arithmetic, as in test_hostile.py."""
    x = cases.sample(shape, np.float64, kind, offset=0.0, scale=1.0)
    if kind == "far":
        return (x + 1e6).astype(dtype)
    if kind in ("huge", "tiny"):
        return ((x + 0.3) * (1e30 if kind == "huge" else 1e-30)).astype(dtype)
    if kind == "drift":
        return (x + np.linspace(0, 1e3, x.size).reshape(shape)).astype(dtype)
    x[..., 0] += 1e3  # outliers
    return x.astype(dtype)


@each("kind", ["far", "huge", "tiny", "drift", "outliers"])
@each("dtype", ["float32", "float64"])
@each("name", [name for name in BY_CHANNEL if "inference" not in name])
def test_hostile(name, dtype, kind):
    """The blocks that masks cut are as careful as whole ones, whatever lies in the gaps."""
    eps = 0.0 if kind == "tiny" else 1e-3
    for shape in training.shapes(name, ((300, 6), (2, 6, 900), (2, 6, 30, 11))):
        normalizer, _, dy, weight, bias = operands(name, shape, dtype)
        x, mask = hostile(kind, shape, DTYPES[dtype]), half_valid(mask_shape(normalizer, shape))
        x = np.where(over(mask, normalizer), x, x.dtype.type(1e30 if kind == "tiny" else 1e-30))
        for memory in ("C", "channels_last"):
            own = cases.arrange(x, memory).view
            y, mean, rstd = normalizer.forward(own, weight, bias, mask=mask, eps=eps, return_stats=True)
            gradients = normalizer.backward(dy, own, mean, rstd, weight, mask=mask)
            problem = normalizer.problem(own, weight, bias, mask, eps=eps)
            assert_passes(training.Passes(y, mean, rstd, *gradients), problem, dy, f"{name} {shape} {kind} {memory}")


# ------------------------------------------------------------------------------------------------ little that is valid


@each_dtype
@each_normalizer
def test_all_masked(name, dtype):
    """Zeros all over, and statistics of nothing: mean 0, variance 0."""
    for shape in training.shapes(name, SHAPES):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        mask = np.zeros(mask_shape(normalizer, shape), bool)
        passes = train(normalizer, np.full_like(x, np.nan), dy, weight, bias, mask=mask)
        for result in (passes.y, passes.dx, passes.dweight, passes.dbias):
            np.testing.assert_array_equal(result, np.zeros_like(result), err_msg=f"{name} {shape}")
        if not normalizer.operation.given:
            np.testing.assert_array_equal(passes.mean, np.zeros_like(passes.mean))
            np.testing.assert_allclose(passes.rstd, np.full_like(passes.rstd, 1e-3**-0.5), rtol=1e-7)
            _, _, rstd = normalizer.forward(x, weight, bias, mask=mask, eps=0.0, return_stats=True)
            np.testing.assert_array_equal(rstd, np.zeros_like(rstd))


@each_dtype
@each("name", PER_SAMPLE)
def test_sample_all_masked(name, dtype):
    """One sample without a valid position, and one with a single one, leave the others' bits alone."""
    for shape in training.shapes(name, ((4, 6, 33), (4, 6, 5, 9))):
        normalizer, x, dy, weight, bias = operands(name, shape, dtype)
        mask = half_valid(mask_shape(normalizer, shape))
        full = train(normalizer, x, dy, weight, bias, mask=mask)
        less = mask.copy()
        less[1] = False
        less[2].flat[:] = np.arange(less[2].size) == 7
        passes = train(normalizer, x, dy, weight, bias, mask=less)
        assert_passes(passes, normalizer.problem(x, weight, bias, less), dy, f"{name} {shape}")
        assert not bits(passes.y[1]).any() and not bits(passes.dx[1]).any()
        for result, before in zip(passes[:4], full[:4], strict=True):
            assert_same(result[[0, 3]], before[[0, 3]])


def test_single_valid_position():
    """An instance of one value is constant: y is the bias, and no gradient reaches x."""
    normalizer, x, dy, weight, bias = operands("instance_norm", (2, 6, 33), "float32")
    passes = train(normalizer, x, dy, weight, bias, lengths=[1, 1])
    np.testing.assert_array_equal(passes.y[:, :, 0], np.broadcast_to(bias, (2, 6)))
    np.testing.assert_array_equal(passes.dx, np.zeros_like(x))
    np.testing.assert_array_equal(passes.dweight, np.zeros(6))


@each("dtype", ["float32", "float64"])
@each("axis", [1, -1])
def test_batch_norm_of_one_valid_position(axis, dtype):
    """As of a batch of one: an error that leaves the state alone."""
    x, state = cases.sample((4, 5, 5), DTYPES[dtype]), training_state(5, dtype)
    before = state.state_dict()
    one = np.zeros((4, 5), bool)
    one[2, 3] = True
    for masked in (dict(mask=one), dict(lengths=[0, 0, 1, 0])):
        with pytest.raises(ValueError, match="batch_norm: "):
            normkit.batch_norm(x, state, training=True, axis=axis, **masked)
        assert_same_state(state, before)
    y = normkit.batch_norm(x, state, training=False, axis=axis, mask=one)
    assert np.count_nonzero(y) == 5


# --------------------------------------------------------------------------------------------------- moving averages


def training_state(channels, dtype, **options):
    state = normkit.BatchNormState(channels, dtype=str(cases.statistics_dtype(DTYPES[dtype])), **options)
    state.running_mean[:], state.running_var[:] = cases.running_statistics(channels, DTYPES[dtype])
    return state


def assert_same_state(state, before):
    for key, value in before.items():
        np.testing.assert_array_equal(state.state_dict()[key], value, err_msg=key)


@each_dtype
@each("options", [dict(), dict(momentum=None), dict(unbiased=False)], ids=str)
@each("axis", [1, -1])
def test_moving_averages_see_what_is_valid(axis, options, dtype):
    """A padded batch moves them as its valid rows alone do."""
    x = cases.sample((5, 40, 40), DTYPES[dtype])
    lengths = np.array([40, 7, 0, 23, 1])
    padded, alone = (training_state(40, dtype, **options) for _ in range(2))
    dirty = np.where(np.expand_dims(np.arange(40) < lengths[:, None], axis), x, np.nan).astype(x.dtype)
    normkit.batch_norm(dirty, padded, training=True, axis=axis, lengths=lengths)
    rows = np.concatenate([np.moveaxis(x[i], axis % 3 - 1, -1)[:length] for i, length in enumerate(lengths)])
    normkit.batch_norm(rows, alone, training=True)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(padded.running_mean, alone.running_mean, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(padded.running_var, alone.running_var, rtol=tolerance)
    assert (padded.num_batches_tracked, padded.skipped) == (1, 0)


@each_dtype
@each("axis", [1, -1])
def test_state_of_an_all_masked_batch(axis, dtype):
    """Neither counted nor skipped; and a mask does not overrule `update_state`."""
    x, state = cases.sample((4, 5, 5), DTYPES[dtype]), training_state(5, dtype)
    before = state.state_dict()
    for masked in (dict(mask=np.zeros((4, 5), bool)), dict(lengths=[0] * 4)):
        y = normkit.batch_norm(x, state, training=True, axis=axis, **masked)
        assert not bits(y).any()
        assert_same_state(state, before)
        assert state.skipped == 0
    normkit.batch_norm(x, state, training=True, axis=axis, mask=half_valid((4, 5)), update_state=False)
    assert_same_state(state, before)
