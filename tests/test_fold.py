"""fold_batch_norm against the layer and the batch norm one after the other, in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cases
import convolutions
import normkit
import reference
from convolutions import KINDS, Kind, image, statistics, values
from layouts import LAYOUTS, arrange
from test_dlpack import Exporter

f32, f64 = np.float32, np.float64
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_dtype = pytest.mark.parametrize("dtype", cases.DTYPES.values(), ids=cases.DTYPES)


def check_bound(x, folded, expected, report, kind):
    """The folded layer, computed in float64, is as far off as the report says that it may be."""
    weight, bias = folded
    y = convolutions.run(x, weight, bias, kind)
    exact = 1e-12 * abs(expected).max()  # of the two float64 computations
    assert abs(y - expected).max() <= report.error_bound * max(1.0, abs(x).max()) + exact


@each_kind
@each_dtype
@pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=3)), ids=str)
def test_after(kind, dtype, given):
    weight = values(kind.weight_shape, dtype, "weight")
    shape = (kind.outputs,)
    bias, bn_weight, bn_bias = (
        values(shape, dtype, name) if there else None for name, there in zip("bgs", given, strict=True)
    )
    if bn_weight is not None:
        bn_weight[0], bn_weight[1] = 0, -abs(bn_weight[1])
    state = statistics(kind.outputs)
    *folded, report = normkit.fold_batch_norm(
        weight, bias, state, bn_weight, bn_bias, **kind.options, return_report=True
    )
    assert [a.dtype for a in folded] == [dtype] * 2
    assert folded[1].shape == shape
    scale = (1.0 if bn_weight is None else abs(reference.widen(bn_weight))) / np.sqrt(reference.widen(state[1]) + 1e-5)
    assert report.gain == pytest.approx(scale.max(), rel=1e-12)
    assert report.channel == scale.argmax()
    x = image(kind)
    expected = convolutions.batch_norm(convolutions.run(x, weight, bias, kind), *state, bn_weight, bn_bias)
    check_bound(x, folded, expected, report, kind)


@each_kind
@each_dtype
@pytest.mark.parametrize("given", [(False,) * 3, (True,) * 3], ids=str)
def test_before(kind, dtype, given):
    weight = values(kind.weight_shape, dtype, "weight")
    there = dict(zip(("bias", "bn_weight", "bn_bias"), given, strict=True))
    bias = values((kind.outputs,), dtype, "b") if there["bias"] else None
    bn_weight, bn_bias = (
        values((kind.inputs,), dtype, name) if there[name] else None for name in ("bn_weight", "bn_bias")
    )
    mean, var = statistics(kind.inputs)
    padded = kind.kernel and (kind.padding or kind.transposed)
    if padded:  # where only a shift of 0 is exact
        mean[:] = 0
        bn_bias = None
    *folded, report = normkit.fold_batch_norm(
        weight, bias, (mean, var), bn_weight, bn_bias, **kind.options, before=True, padding=kind.padding,
        return_report=True,
    )  # fmt: skip
    assert [a.dtype for a in folded] == [dtype] * 2
    assert folded[1].shape == (kind.outputs,)
    x = image(kind)
    expected = convolutions.run(convolutions.batch_norm(x, mean, var, bn_weight, bn_bias), weight, bias, kind)
    check_bound(x, folded, expected, report, kind)


@each_kind
@pytest.mark.parametrize("before", [False, True])
def test_dtypes_may_differ(kind, before):
    """A layer in half precision beside a batch norm in float32, as mixed precision has it."""
    channels = kind.inputs if before else kind.outputs
    weight, bias = values(kind.weight_shape, "float16", "w"), values((kind.outputs,), f32, "b")
    state = np.zeros(channels, f32), statistics(channels)[1]
    folded = normkit.fold_batch_norm(
        weight, bias, state, values((channels,), f64, "g"), **kind.options, before=before, padding=kind.padding
    )
    assert [a.dtype for a in folded] == [np.float16] * 2


@pytest.mark.parametrize("dtype", cases.HALF)
def test_halves_are_rounded_once(dtype):
    """To the nearest of the float64 product, halfway cases and subnormals included."""
    if dtype not in cases.DTYPES:
        pytest.skip("needs ml_dtypes")
    dtype = cases.DTYPES[dtype]
    weight = values((64, 50), dtype, "w") * np.geomspace(1e-6, 1e3, 50).astype(dtype)
    mean, scale = np.zeros(64), 1 + np.ldexp(1.0, -np.arange(64)) + 1e-13
    folded, _ = normkit.fold_batch_norm(weight, None, (mean, np.ones(64)), scale, eps=0.0)
    exact = reference.widen(weight) * scale[:, None]
    error = abs(reference.widen(folded) - exact)
    for neighbour in (np.inf, -np.inf):
        other = reference.widen(np.nextafter(folded, dtype.type(neighbour)))
        assert (error <= abs(other - exact)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
@pytest.mark.parametrize("name", ["grouped", "grouped transposed", "linear", "conv3d"])
def test_layouts(layout, dtype, name):
    kind = KINDS[name]
    weight = arrange(values(kind.weight_shape, dtype, "w"), layout).view
    state, plain = statistics(kind.outputs), np.array(weight)
    vector = arrange(values((kind.outputs,), dtype, "b"), layout).view
    folded = normkit.fold_batch_norm(weight, vector, state, vector, vector, **kind.options)
    plain_vector = np.array(vector)
    expected = normkit.fold_batch_norm(plain, plain_vector, state, plain_vector, plain_vector, **kind.options)
    for a, b in zip(folded, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(weight, plain)  # inputs are only read
    assert folded[0].strides == np.empty_like(weight).strides


def test_state():
    """A state is as good as its averages."""
    kind = KINDS["grouped"]
    weight = values(kind.weight_shape, f32, "w")
    mean, var = statistics(kind.outputs)
    for dtype in ("float32", "float64"):
        state = normkit.BatchNormState(kind.outputs, dtype=dtype)
        state.running_mean[:], state.running_var[:] = mean, var
        for given in (state, (mean, var), [mean, var]):
            for a, b in zip(
                normkit.fold_batch_norm(weight, None, given, groups=2),
                normkit.fold_batch_norm(weight, None, (mean, var), groups=2),
                strict=True,
            ):
                np.testing.assert_array_equal(a, b)


def test_libraries():
    weight, vector = values((2, 3), f32, "w"), np.ones(2, f32)
    expected = normkit.fold_batch_norm(weight, vector, (vector, vector), vector, vector)
    given = Exporter(vector)
    folded = normkit.fold_batch_norm(Exporter(weight), given, (given, given), given, given)
    for a, b in zip(folded, expected, strict=True):
        assert type(a) is Exporter
        np.testing.assert_array_equal(a.array, b)


def test_the_bound_is_reached():
    """By the input whose signs are those of the rounding errors."""
    weight, mean, var = values((1, 200), f32, "w"), np.zeros(1), np.full(1, 0.7)
    folded, _, report = normkit.fold_batch_norm(weight, None, (mean, var), return_report=True)
    error = folded.astype(f64) - weight.astype(f64) / np.sqrt(0.7 + 1e-5)
    assert (np.sign(error) @ error.T).item() == pytest.approx(report.error_bound, rel=1e-6)
    assert 0 < report.error_bound < 200 * 2**-24 * abs(folded).max()


def test_report_text():
    *_, report = normkit.fold_batch_norm(
        np.ones((1, 1), f32), None, (np.zeros(1), np.full(1, 0.25)), eps=0.0, return_report=True
    )
    assert repr(report).startswith("FoldReport(gain=2, channel=0, error_bound=")
    with pytest.raises(AttributeError):
        report.gain = 3.0


def test_any_layer():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @st.composite
    def kinds(draw):
        groups = draw(st.integers(1, 4))
        return Kind(
            inputs=groups * draw(st.integers(1, 3)), outputs=groups * draw(st.integers(1, 3)), groups=groups,
            kernel=tuple(draw(st.lists(st.integers(1, 3), max_size=3))), transposed=draw(st.booleans()),
            stride=draw(st.integers(1, 2)),
        )  # fmt: skip

    @hypothesis.settings(deadline=None, derandomize=True, max_examples=30 if cases.QUICK else 200)
    @hypothesis.given(
        kinds(), st.booleans(), st.sampled_from(sorted(cases.DTYPES)), st.integers(0, 2**32 - 1), st.booleans()
    )
    def check(kind, before, dtype, seed, has_bias):
        rng = np.random.default_rng(seed)
        dtype, channels = cases.DTYPES[dtype], kind.inputs if before else kind.outputs
        weight = rng.normal(size=kind.weight_shape).astype(dtype)
        bias = rng.normal(size=kind.outputs).astype(dtype) if has_bias else None
        mean, var, bn_weight, bn_bias = rng.normal(size=(4, channels)).astype(f32)
        if before and kind.transposed and kind.kernel:
            mean[:] = bn_bias[:] = 0
        norm = mean, var**2, bn_weight, bn_bias
        weight_to, bias_to, report = normkit.fold_batch_norm(
            weight, bias, norm[:2], *norm[2:], before=before, padding=0, return_report=True, **kind.options
        )
        x = rng.normal(size=(2, kind.inputs, *[4] * len(kind.kernel)))
        if before:
            expected = convolutions.run(convolutions.batch_norm(x, *norm), weight, bias, kind)
        else:
            expected = convolutions.batch_norm(convolutions.run(x, weight, bias, kind), *norm)
        check_bound(x, (weight_to, bias_to), expected, report, kind)

    check()
