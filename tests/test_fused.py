"""Residual and activation in one pass: activation(norm(x) + residual), forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from calls import assert_same, bits
from cases import DTYPES, LAYOUTS
from gradients import silu
from reference import Wide, finfo, widen
from training import BY_CHANNEL, assert_passes, assert_same_passes, half_valid, mask_shape, train, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
each_normalizer = each("name", BY_CHANNEL)
# (activation, whether with a residual)
FUSED = (("relu", False), ("silu", False), (None, True), ("relu", True), ("silu", True))
each_fused = each("activation, added", FUSED)
SHAPES = ((5, 70), (2, 64, 7, 7), (3, 6, 5, 9), (2, 4, 3, 5, 2))
if cases.QUICK:
    SHAPES = ((5, 70), (2, 34, 3, 5), (3, 6, 5, 9))
LONG = ((2, 6, 2100), (300, 4, 17), (2, 3, 70, 71))


def operands(name, shape, dtype):
    """A normalizer with x, dy, weight, bias and a residual."""
    normalizer, kind = trained(name, shape), DTYPES[dtype]
    x, dy = cases.sample(shape, kind), training.upstream(shape, kind)
    residual = cases.sample(shape, kind, "residual", offset=-0.5, scale=1.0)
    return normalizer, x, dy, *training.parameters(normalizer, shape, kind), residual


def relu(values):
    """0, not -0, where not positive; NaN stays."""
    return np.where(values <= 0, values.dtype.type(0), values)


# ---------------------------------------------------------------------------------------------------------- values


@each("layout", LAYOUTS)
@each_fused
@each_dtype
@each_normalizer
def test_grid(name, dtype, activation, added, layout):
    """Forward and backward with x, dy and residual in different layouts; none of them is written."""
    names = list(LAYOUTS)
    other, third = (names[(names.index(layout) + i) % len(names)] for i in (3, 5))
    for shape in training.shapes(name, SHAPES if layout == "C" else SHAPES[2:3]):
        normalizer, x, dy, weight, bias, residual = operands(name, shape, dtype)
        placed = [cases.arrange(a, where) for a, where in ((x, layout), (dy, other), (residual, third))]
        before = [block.twin() for block in placed]
        x, dy, residual = (block.view for block in placed)
        residual = residual if added else None
        passes = train(normalizer, x, dy, weight, bias, activation=activation, residual=residual)
        problem = normalizer.problem(x, weight, bias, activation=activation, residual=residual)
        what = f"{name} {shape} {activation} of x {layout}, dy {other}, residual {third if added else None}"
        assert_passes(passes, problem, dy, what)
        for result in (passes.y, passes.dx, passes.dresidual):
            assert result is None or result.strides == np.empty_like(x).strides, what
        for block, twin in zip(placed, before, strict=True):
            np.testing.assert_array_equal(block.memory, twin.memory, err_msg=what)


@each("activation, added", [("relu", True), ("silu", False)])
@each("dtype", ["float32", "float64"])
@each_normalizer
def test_sizes(name, dtype, activation, added):
    """Several blocks and chunks."""
    for shape in training.shapes(name, LONG if not cases.QUICK else SHAPES[:1]):
        normalizer, x, dy, weight, bias, residual = operands(name, shape, dtype)
        options = dict(activation=activation, residual=residual if added else None)
        passes = train(normalizer, x, dy, weight, bias, **options)
        assert_passes(passes, normalizer.problem(x, weight, bias, **options), dy, f"{name} {shape} {activation}")


@each("without", ["weight", "bias", "both"])
@each_fused
@each_dtype
@each_normalizer
def test_optional_parameters(name, dtype, activation, added, without):
    normalizer, x, dy, weight, bias, residual = operands(name, (3, 6, 5, 9), dtype)
    weight, bias = (None if without in (own, "both") else a for own, a in (("weight", weight), ("bias", bias)))
    options = dict(activation=activation, residual=residual if added else None)
    passes = train(normalizer, x, dy, weight, bias, **options)
    assert_passes(passes, normalizer.problem(x, weight, bias, **options), dy, f"{name} without {without}")


@each_fused
@each_dtype
@each_normalizer
def test_masked(name, dtype, activation, added):
    """With a mask, too: garbage in x, dy and residual where nothing is valid changes no bit, and zeros come out."""
    for shape in training.shapes(name, SHAPES[:3]):
        normalizer, *arrays, residual = operands(name, shape, dtype)
        x, dy, weight, bias = arrays
        mask = half_valid(mask_shape(normalizer, shape))
        valid = np.broadcast_to(np.expand_dims(mask, normalizer.channel), shape)
        options = dict(activation=activation, mask=mask)
        clean = train(normalizer, x, dy, weight, bias, residual=residual if added else None, **options)
        problem = normalizer.problem(x, weight, bias, residual=residual if added else None, **options)
        assert_passes(clean, problem, dy, f"{name} {shape} {activation}")
        for result in (clean.y, clean.dx, clean.dresidual):
            assert result is None or not bits(result[~valid]).any()
        for poison in (np.nan, np.inf):
            x, dy, dirty = (np.where(valid, a, a.dtype.type(poison)) for a in (arrays[0], arrays[1], residual))
            passes = train(normalizer, x, dy, weight, bias, residual=dirty if added else None, **options)
            assert_same_passes(passes, clean, f"{name} {shape} {activation} {poison}")


@each("ratio", [1e2, 1e4, 1e6])
@each_fused
@each("dtype", ["float32", "float64"])
@each("name", [name for name in BY_CHANNEL if "inference" not in name])
def test_mean_far_from_zero(name, dtype, activation, added, ratio):
    """What the rounding of the mean took is found again for what an activation was applied to, as for everything."""
    for shape in training.shapes(name, ((300, 6), (2, 6, 20, 21))):
        normalizer, _, dy, weight, bias, residual = operands(name, shape, dtype)
        x = cases.sample(shape, DTYPES[dtype], ratio, offset=ratio, scale=1.0)
        options = dict(activation=activation, residual=residual if added else None)
        passes = train(normalizer, x, dy, weight, bias, **options)
        assert_passes(passes, normalizer.problem(x, weight, bias, **options), dy, f"{name} {shape} {activation}")


@each_normalizer
def test_layout_of_the_stored_result(name):
    """relu finds y wherever it lies, and does not write it; dy may be one number everywhere."""
    normalizer, x, _, weight, bias, _ = operands(name, (3, 6, 5, 9), "float32")
    dy = np.broadcast_to(np.float32(1.5), x.shape)
    expected = train(normalizer, x, np.full_like(x, 1.5), weight, bias, activation="relu")
    for layout in LAYOUTS:
        if layout == "broadcast":
            continue  # another y
        y = cases.arrange(expected.y, layout)
        before = y.twin()
        options = dict(bias=bias, activation="relu", y=y.view)
        gradients = normalizer.backward(dy, x, expected.mean, expected.rstd, weight, **options)
        for own, other in zip(gradients, expected[3:6], strict=True):
            assert_same(own, other)
        np.testing.assert_array_equal(y.memory, before.memory)


# ------------------------------------------------------------------------------------------------------------- bits


@each("memory", ["C", "channels_last"])
@each("dtype", ["float32", "float64"])
@each_normalizer
def test_bits_of_the_unfused_sequence(name, dtype, memory):
    """Normalize, add, then relu: the same roundings, the same bits, and so the same gradients."""
    for shape in training.shapes(name, SHAPES + LONG[:2] if not cases.QUICK else SHAPES):
        normalizer, *arrays, residual = operands(name, shape, dtype)
        x, dy, residual = (cases.arrange(a, memory).view for a in (arrays[0], arrays[1], residual))
        weight, bias = arrays[2:]
        plain, mean, rstd = normalizer.forward(x, weight, bias, return_stats=True)
        for activation, added in FUSED:
            if activation == "silu":
                continue
            y = plain + residual if added else plain
            y = relu(y) if activation else y
            options = dict(activation=activation, residual=residual if added else None)
            passes = train(normalizer, x, dy, weight, bias, **options)
            what = f"{name} {shape} {options['activation']} {added}"
            np.testing.assert_array_equal(bits(passes.y), bits(y), err_msg=what)
            g = np.where(y <= 0, dy.dtype.type(0), dy) if activation else dy
            unfused = normalizer.backward(g, x, mean, rstd, weight, bias=bias)
            for fused, own in zip(passes[3:], (*unfused, g if added else None), strict=True):
                np.testing.assert_array_equal(fused, own, err_msg=what)  # -0 is 0: sums may begin with either


@each("dtype", ["float32", "float64"])
def test_silu_does_not_depend_on_the_normalizer(dtype):
    """The same argument gives the same bits, whichever normalizer and residual it comes from."""
    x, residual = cases.sample((6, 4, 35), DTYPES[dtype]), cases.sample((6, 4, 35), DTYPES[dtype], "residual")
    for name in BY_CHANNEL:
        normalizer = trained(name, x.shape)
        argument = normalizer.forward(x, residual=residual)
        assert_same(normalizer.forward(x, residual=residual, activation="silu"), silu_of(argument))


@each_fused
@each_dtype
@each_normalizer
def test_out(name, dtype, activation, added):
    """Over x itself, and into any layout: the bits of a fresh result."""
    shape = (3, 6, 5, 9)
    normalizer, x, _, weight, bias, residual = operands(name, shape, dtype)
    options = dict(activation=activation) | (dict(residual=residual) if added else {})
    fresh = normalizer.forward(x, weight, bias, **options)
    for layout in LAYOUTS:
        if layout in cases.INPUT_ONLY:
            continue
        out = cases.poisoned(shape, x.dtype, layout)
        before = out.twin()
        assert normalizer.forward(x, weight, bias, out=out.view, **options) is out.view
        assert_same(np.ascontiguousarray(out.view), fresh)
        cases.assert_only_view_written(out, before, f"{name} {layout}")
        own = cases.arrange(x, layout)
        before = own.twin()
        expected = normalizer.forward(cases.arrange(x, layout).view, weight, bias, **options)
        assert normalizer.forward(own.view, weight, bias, out=own.view, **options) is own.view
        assert_same(np.ascontiguousarray(own.view), np.ascontiguousarray(expected))
        cases.assert_only_view_written(own, before, f"{name} {layout} in place")


@each_normalizer
def test_operands_that_share_memory(name):
    """x as its own residual; the residual as out, which is either refused or right."""
    normalizer, x, _, weight, bias, residual = operands(name, (3, 6, 5, 9), "float32")
    doubled = normalizer.forward(x, weight, bias, residual=x.copy())
    assert_same(normalizer.forward(x, weight, bias, residual=x), doubled)
    own = x.copy()
    assert_same(normalizer.forward(own, weight, bias, residual=own, out=own), doubled)
    expected, out = normalizer.forward(x, weight, bias, residual=residual), residual.copy()
    try:
        normalizer.forward(x, weight, bias, residual=out, out=out)
    except ValueError:
        assert_same(out, residual)
    else:
        assert_same(out, expected)


@each_fused
@each_normalizer
def test_torch_tensors(name, activation, added):
    torch = pytest.importorskip("torch")
    normalizer, *arrays = operands(name, (3, 6, 5, 9), "float32")
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    passes, expected = (
        train(normalizer, *own[:4], activation=activation, residual=own[4] if added else None)
        for own in (tensors, arrays)
    )
    assert all(result is None or type(result) is torch.Tensor for result in passes)
    assert_same_passes([None if r is None else r.numpy() for r in passes], expected, name)


# ------------------------------------------------------------------------------------------------------ activations


def identity(x, **options):
    """A normalizer that changes nothing."""
    state = normkit.BatchNormState(1, dtype=str(cases.statistics_dtype(x.dtype)))
    return normkit.batch_norm(x.reshape(-1, 1), state, eps=0.0, **options).reshape(x.shape)


def silu_of(x):
    return identity(np.ascontiguousarray(x), activation="silu")


@each_dtype
def test_silu(dtype):
    """Within a few units in the last place. Below -88 (float64: -709) the denominator is infinite and the result is 0,
    which is off by less than what 1 / (1 + exp(-x)) can be told from 0 by."""
    kind = DTYPES[dtype]
    wide = cases.statistics_dtype(kind)
    log_max = float(np.log(np.finfo(wide).max))
    rng = cases.random("silu")
    x = np.concatenate([
        np.linspace(-log_max - 20, log_max + 20, 20_001),
        rng.standard_normal(5000) * 3,
        rng.standard_normal(2000) * 1e-6,
        [100.0, -100.0, 1e4, -1e4, 65504.0, -65504.0, 0.0, -0.0, 6e-8],
    ]).astype(kind)  # fmt: skip
    expected = silu(widen(x))[0]
    stored = Wide(float(finfo(kind).eps)) / 2 * abs(expected)
    lost = Wide(log_max) / Wide(float(np.finfo(wide).max)) * 2 + Wide(float(finfo(kind).smallest_subnormal))
    off = abs(widen(silu_of(x)) - expected)
    allowed = stored + 4 * Wide(float(np.finfo(wide).eps)) * abs(expected) + np.where(x < 10 - log_max, lost, 0)
    assert (off <= allowed + Wide(float(finfo(kind).smallest_subnormal))).all(), x[np.argmax(off / (allowed + 1e-300))]


@each_dtype
def test_activations_at_the_extremes(dtype):
    """Infinities where the formula has them: x / (1 + exp(-x)) of -infinity is NaN, as in PyTorch."""
    x = np.array([np.inf, -np.inf, np.nan, 1e4, -1e4, 0.0, -0.0], DTYPES[dtype])
    large = float(x[3])
    np.testing.assert_array_equal(widen(silu_of(x)), [np.inf, np.nan, np.nan, large, 0, 0, 0])
    y = widen(identity(x, activation="relu"))
    np.testing.assert_array_equal(y, [np.inf, 0, np.nan, large, 0, 0, 0])
    assert not np.signbit(y[[1, 4, 5, 6]]).any(), "0, not -0"


@each_dtype
def test_silu_slope_of_large_arguments(dtype):
    """Far from 0 the gradient passes or stops, whatever exp(-x) has become."""
    x = np.array([[1e4], [200.0], [90.0], [-90.0], [-200.0], [-1e4]], DTYPES[dtype])
    kind, dy = cases.statistics_dtype(x.dtype), np.full((6, 1), 3.0, DTYPES[dtype])
    mean, rstd = np.zeros(1, kind), np.ones(1, kind)
    dx, _, dbias = normkit.batch_norm_backward(dy, x, mean, rstd, training=False, activation="silu")
    np.testing.assert_allclose(dx.astype(np.float64), [[3.0]] * 3 + [[0.0]] * 3, rtol=0, atol=1e-34)
    np.testing.assert_array_equal(dbias, [9.0])


@each_dtype
def test_relu_reads_the_stored_result(dtype):
    """The gradient passes where y is positive or NaN, also where dy is what would spoil a product with 0."""
    y = np.array([[1.0], [0.0], [-0.0], [np.nan], [2.0], [0.0]], DTYPES[dtype])
    dy = np.array([[5.0], [np.nan], [np.inf], [7.0], [-3.0], [-np.inf]], DTYPES[dtype])
    x, kind = cases.sample((6, 1), DTYPES[dtype]), cases.statistics_dtype(DTYPES[dtype])
    dx, _, dbias, dresidual = normkit.batch_norm_backward(
        dy, x, np.zeros(1, kind), np.ones(1, kind), training=False, activation="relu", y=y, residual=True
    )
    expected = np.array([[5.0], [0.0], [0.0], [7.0], [-3.0], [0.0]], DTYPES[dtype])
    np.testing.assert_array_equal(dx, expected)
    np.testing.assert_array_equal(dresidual, expected)
    np.testing.assert_array_equal(dbias, [9.0])


@each_normalizer
def test_what_backward_needs(name):
    """relu the stored result, silu no residual; both say so."""
    normalizer, x, dy, weight, bias, _ = operands(name, (3, 6, 5, 9), "float32")
    y, mean, rstd = normalizer.forward(x, weight, bias, activation="relu", return_stats=True)
    function = f"{normalizer.function}_backward"
    with pytest.raises(ValueError, match=rf"{function}: .*\by\b"):
        normalizer.backward(dy, x, mean, rstd, weight, activation="relu")
    with pytest.raises(ValueError, match=rf"{function}: .*residual"):
        normalizer.backward(dy, x, mean, rstd, weight, bias=bias, activation="silu", residual=True)
    for wrong in ("gelu", "ReLU", ""):
        with pytest.raises(ValueError, match=rf"{function}: activation must.*'?{wrong}"):
            normalizer.backward(dy, x, mean, rstd, weight, activation=wrong, y=y)
        with pytest.raises(ValueError, match=rf"{normalizer.function}: activation must.*'?{wrong}"):
            normalizer.forward(x, weight, bias, activation=wrong)
