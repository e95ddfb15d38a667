"""Every refusal, on the type of the exception and on what its message says: the operation, the rule, the values seen.

`out` and the training state are checked to be as they were after each of them.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

import cases
import normkit

f32, f64, f16 = np.float32, np.float64, np.float16
X = cases.sample((4, 6, 5), f32)
CUBE = cases.sample((4, 6, 6), f32)
IMAGE = cases.sample((4, 6, 5, 5), f32)
V = np.ones(6, f32)


# Each function with its required arguments, but for x.
FUNCTIONS = {
    "standardize": normkit.standardize,
    "min_max_scale": normkit.min_max_scale,
    "batch_norm": partial(normkit.batch_norm, state=None, training=True),
    "layer_norm": normkit.layer_norm,
    "rms_norm": normkit.rms_norm,
    "group_norm": partial(normkit.group_norm, num_groups=2),
    "instance_norm": normkit.instance_norm,
}
CHANNELWISE = ("batch_norm", "group_norm", "instance_norm")
OVER_AXES = ("standardize", "min_max_scale", "layer_norm", "rms_norm")
WITH_WEIGHT = ("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm")
WITH_BIAS = ("batch_norm", "group_norm", "instance_norm", "layer_norm")
WITH_EPS = ("standardize", *WITH_WEIGHT)

# (name of the operation, call, exception, patterns that the message must contain, in any order)
TABLE: list[tuple] = []


def case(operation, call, exception, *patterns):
    TABLE.append((operation, call, exception, patterns))


def every(names, exception, *patterns, x=X, **options):
    """The same refusal from several functions."""
    for name in names:
        case(name, partial(FUNCTIONS[name], x, **options), exception, *patterns)


# ------------------------------------------------------------------------------------------------- kinds of arrays

every(FUNCTIONS, TypeError, r"\bx\b", "NumPy array", "list", x=[[1.0, 2.0], [3.0, 4.0]])
every(FUNCTIONS, TypeError, r"\bx\b", "NumPy array", "float", x=1.0)
every(FUNCTIONS, TypeError, r"\bx\b", "NumPy array", r"float32", x=f32(3))
every(FUNCTIONS, TypeError, r"\bx\b", "mask", x=np.ma.masked_array(X, X > 3))
for dtype in ("int32", "int64", "uint8", "bool", "complex64", "object", "U3", "datetime64[s]"):
    every(
        FUNCTIONS,
        TypeError,
        r"\bx\b",
        "float32, float64, float16",
        re.escape(f"got {np.dtype(dtype)};"),
        "convert",
        x=np.zeros((4, 6), dtype),
    )
every(FUNCTIONS, TypeError, r"\bx\b", "byte order", x=X.astype(X.dtype.newbyteorder()))
every(FUNCTIONS, ValueError, r"\bx\b", "rank|axes", "17", x=np.zeros((1,) * 17, f32))
every(WITH_WEIGHT, TypeError, "weight", "NumPy array", "list", weight=[1.0] * 6)
every(WITH_WEIGHT, TypeError, "weight", "int64", weight=np.ones(6, np.int64))
every(WITH_BIAS, TypeError, "bias", "mask", bias=np.ma.masked_array(V, V > 3))
every(FUNCTIONS, TypeError, "out", "NumPy array", "list", out=[1.0])
every(FUNCTIONS, TypeError, "out", "int32", out=np.zeros(X.shape, np.int32))

# ------------------------------------------------------------------------------------------------------------ axes

for axis in (2**40, -(2**70)):
    every(OVER_AXES, ValueError, "axis", r"\b3\b", axis=axis)
for axis in (3, -4):
    every(FUNCTIONS, ValueError, "axis", rf"{axis}\b", r"\b3\b", axis=axis)
    every(OVER_AXES, ValueError, "axis", rf"{axis}\b", r"\b3\b", axis=(0, axis))
for axes in ((1, 1), (1, -2), (0, 2, -3)):
    every(OVER_AXES, ValueError, "ax[ie]s", "once|twice|repeat|duplicate|distinct", axis=axes)
every(OVER_AXES, ValueError, "ax[ie]s", "empty|at least one|no ax", axis=())
every(OVER_AXES, TypeError, "axis", "int", "float", axis=1.0)
every(OVER_AXES, TypeError, "axis", "int", "str", axis=("0",))
every(OVER_AXES, TypeError, "axis must be an int, a sequence of ints or None", "ndarray", axis=np.array([0, 1]))
every(OVER_AXES, TypeError, "axis must be an int, a sequence of ints or None", "set", axis={0})
every(("batch_norm", "group_norm"), ValueError, "axes", r"\b2\b", r"\b1\b", x=X[0, 0], axis=0)
every(("instance_norm",), ValueError, "axes", r"\b3\b", r"\b2\b", x=X[0])
every(("group_norm", "instance_norm"), ValueError, "axis", r"\b0\b", "batch|sample", axis=0)
every(OVER_AXES, ValueError, "rank|axis|axes", r"\b0\b", x=np.array(1.0, f32))

# --------------------------------------------------------------------------------------------------------- extents

every(OVER_AXES, ValueError, "0|empty", r"\(4, 0\)|extent", x=np.zeros((4, 0), f32), axis=1)
every(OVER_AXES, ValueError, "0|empty", x=np.zeros((4, 0, 3), f32), axis=(0, 1))
every(("group_norm", "instance_norm"), ValueError, "0|empty", x=np.zeros((4, 6, 0), f32))
case(
    "batch_norm",
    lambda: normkit.batch_norm(np.zeros((1, 6), f32), None, training=True),
    ValueError,
    "value",
    "channel",
    r"\b1\b",
    r"training",
)
case("batch_norm", lambda: normkit.batch_norm(np.zeros((1, 6, 1, 1), f32), None, training=True), ValueError, "channel")
case("batch_norm", lambda: normkit.batch_norm(np.zeros((0, 6), f32), None, training=True), ValueError, r"\b0\b")

# ------------------------------------------------------------------------------------------------ weight, bias, out

every(CHANNELWISE, ValueError, "weight", r"\(6,?\)", r"\(5,?\)", weight=np.ones(5, f32))
every(CHANNELWISE, ValueError, "bias", r"\(6,?\)", r"\(6, 1\)", bias=np.ones((6, 1), f32))
every(CHANNELWISE, ValueError, "weight", r"\(6,?\)", r"\(\)", weight=np.array(1, f32))
for name in ("layer_norm", "rms_norm"):
    every((name,), ValueError, "weight", r"\(5,?\)", r"\(6,?\)", weight=V)
    every((name,), ValueError, "weight", r"\(6, 5\)", r"\(5, 6\)", weight=np.ones((5, 6), f32), axis=(2, 1))
every(("layer_norm",), ValueError, "bias", r"\(5,?\)", r"\(5, 1\)", bias=np.ones((5, 1), f32))
every(WITH_WEIGHT, TypeError, "weight", "float32", "float64", weight=np.ones(6, f64), x=CUBE)
every(WITH_WEIGHT, TypeError, "weight", "float64", "float32", weight=V, x=CUBE.astype(f64))
every(WITH_WEIGHT, TypeError, "weight", "float32", "float16", weight=V.astype(f16), x=CUBE)
every(WITH_BIAS, TypeError, "bias", "float16", "float64", bias=np.ones(6, f64), x=CUBE.astype(f16))
if "bfloat16" in cases.DTYPES:
    half = cases.DTYPES["bfloat16"]
    every(WITH_WEIGHT, TypeError, "weight", "bfloat16", "float16", weight=V.astype(half), x=CUBE.astype(f16))
    every(FUNCTIONS, TypeError, "out", "bfloat16", "float16", out=np.zeros(X.shape, half), x=X.astype(f16))
every(FUNCTIONS, ValueError, r"\bout\b", r"\(4, 6, 5\)", r"\(4, 5, 6\)", out=np.zeros((4, 5, 6), f32))
every(FUNCTIONS, ValueError, r"\bout\b", r"\(4, 6, 5\)", r"\(1, 4, 6, 5\)", out=np.zeros((1, 4, 6, 5), f32))
every(FUNCTIONS, TypeError, r"\bout\b", "float32", "float64", out=np.zeros(X.shape, f64))
every(FUNCTIONS, ValueError, r"\bout\b", "writeable|read-only", out=cases.arrange(X, "readonly").view)


def _overlapping(shift):
    """x, and an `out` that begins `shift` elements later in the same memory."""
    memory = cases.sample((2 * X.size,), f32)
    return memory[: X.size].reshape(X.shape), memory[shift : shift + X.size].reshape(X.shape)


for shift in (1, 5, X.size - 1):
    x, out = _overlapping(shift)
    every(FUNCTIONS, ValueError, r"\bout\b", "overlap", x=x, out=out)
    every(FUNCTIONS, ValueError, r"\bout\b", "overlap", x=out, out=x)
every(FUNCTIONS, ValueError, r"\bout\b", "overlap", x=CUBE, out=CUBE.transpose(0, 2, 1))
every(FUNCTIONS, ValueError, r"\bout\b", "overlap", x=CUBE, out=CUBE[::-1])
_window = np.lib.stride_tricks.as_strided
every(
    FUNCTIONS, ValueError, r"\bout\b", "overlap|itself|stride|share", out=_window(np.zeros(5, f32), X.shape, (0, 0, 4))
)
every(
    FUNCTIONS,
    ValueError,
    r"\bout\b",
    "overlap|itself|stride|share",
    out=_window(np.zeros(X.size, f32), X.shape, (4, 8, 16)),
)
for name in WITH_WEIGHT:
    out = np.zeros(CUBE.shape, f32)
    every((name,), ValueError, "weight", "overlap|share", x=CUBE, weight=out[2, 3], out=out)

# --------------------------------------------------------------------------------------------------------- numbers

for groups in (4, 7):
    case(
        "group_norm",
        partial(normkit.group_norm, X, groups),
        ValueError,
        "num_groups",
        "divide",
        rf"{groups}\b",
        r"\b6\b",
    )
for groups in (0, -2):
    case("group_norm", partial(normkit.group_norm, X, groups), ValueError, "num_groups", "at least 1", rf"{groups}\b")
for eps in (-1.0, -1e-9, np.nan, -np.inf, np.inf):
    every(WITH_EPS, ValueError, "eps", "finite", "negative", re.escape(f"{eps:g}"), eps=eps)
for ddof in (4, 5.5):
    case("standardize", partial(normkit.standardize, X, ddof=ddof), ValueError, "ddof", f"{ddof:g}", r"\b4\b")
case("standardize", partial(normkit.standardize, X, ddof=np.nan), ValueError, "ddof", "nan")
case("standardize", partial(normkit.standardize, X, ddof=-1), ValueError, "ddof", "-1")
for ends in ((1.0, 0.0), (1.0, 1.0), (0.0, np.nan), (0.0, np.inf)):
    case(
        "min_max_scale",
        partial(normkit.min_max_scale, X, feature_range=ends),
        ValueError,
        "feature_range|low|range",
        f"{ends[0]:g}",
        f"{ends[1]:g}",
    )

# ----------------------------------------------------------------------------------------------------------- state

case("batch_norm", partial(normkit.batch_norm, X, None), ValueError, "state", "training=True")
case("batch_norm", partial(normkit.batch_norm, X, normkit.BatchNormState(5)), ValueError, r"\b5\b", r"\b6\b")
case(
    "batch_norm",
    partial(normkit.batch_norm, X, normkit.BatchNormState(5), training=True),
    ValueError,
    r"\b5\b",
    r"\b6\b",
)
for features in (0, -3):
    case("BatchNormState", partial(normkit.BatchNormState, features), ValueError, "num_features", rf"{features}\b")
for features, dtype in ((2**60, "float32"), (2**61, "float32"), (2**59, "float64"), (2**60, "float64"), (2**62, "f8")):
    state = partial(normkit.BatchNormState, features, dtype=dtype)
    case("BatchNormState", state, ValueError, "num_features must be at most", rf"{features}\b")
for momentum in (-0.1, 1.5, np.nan, np.inf):
    case(
        "BatchNormState", partial(normkit.BatchNormState, 3, momentum=momentum), ValueError, "momentum", f"{momentum:g}"
    )
for dtype in ("float16", "int32", "complex128"):
    case(
        "BatchNormState",
        partial(normkit.BatchNormState, 3, dtype=dtype),
        TypeError,
        "dtype",
        "float32",
        "float64",
        dtype,
    )
case(
    "BatchNormState",
    partial(normkit.BatchNormState, 3, on_nonfinite="ignore"),
    ValueError,
    "on_nonfinite",
    "ignore",
    "skip",
    "raise",
    "propagate",
)
case(
    r"BatchNormState\.from_convention",
    partial(normkit.BatchNormState.from_convention, "caffe", 3),
    ValueError,
    "caffe",
    "torch",
    "keras",
    "flax",
    "onnx",
)
case("set_num_threads", partial(normkit.set_num_threads, -1), ValueError, "-1")


def ids(table):
    return [
        f"{i}-{operation.split('|')[0]}-{exception.__name__}-{patterns[0]}"
        for i, (operation, _, exception, patterns) in enumerate(table)
    ]


def check_refusal(operation, call, exception, patterns):
    """The right exception, whose message opens with the operation and tells the rule and the values."""
    options = getattr(call, "keywords", {})
    out = options.get("out")
    before = np.copy(out) if isinstance(out, np.ndarray) else None
    with pytest.raises(exception) as raised:
        call()
    message = str(raised.value)
    assert re.match(rf"({operation})[.:(]", message), message
    for pattern in patterns:
        assert re.search(pattern, message, re.IGNORECASE), f"{pattern!r} is missing in: {message}"
    assert len(message) < 300 and "\n" not in message, message
    if before is not None:
        np.testing.assert_array_equal(out, before, err_msg="a refused call has written")


@pytest.mark.parametrize("operation, call, exception, patterns", TABLE, ids=ids(TABLE))
def test_message(operation, call, exception, patterns):
    check_refusal(operation, call, exception, patterns)


# Signatures are enforced by the binding, in its own words.
@pytest.mark.parametrize(
    "call",
    [
        lambda: normkit.standardize(),
        lambda: normkit.standardize(None),
        lambda: normkit.standardize(X, 0),
        lambda: normkit.layer_norm(X, None, None, -1),
        lambda: normkit.layer_norm(X, gamma=V),
        lambda: normkit.group_norm(X),
        lambda: normkit.group_norm(X, 2.5),
        lambda: normkit.batch_norm(X),
        lambda: normkit.batch_norm(X, X),
        lambda: normkit.rms_norm(X, None, V),
        lambda: normkit.instance_norm(X, axis=(1, 2)),
        lambda: normkit.min_max_scale(X, feature_range=1.0),
        lambda: normkit.standardize(X, eps="small"),
        lambda: normkit.BatchNormState(3, 0.1),
        lambda: normkit.set_num_threads("two"),
    ],
)
def test_signature(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_interleaved_views_do_not_overlap(name):
    """Views that share a range of memory but no element are as good as any."""
    close = dict(rtol=0, atol=1e-6)
    for parts in ((slice(0, None, 2), slice(1, None, 2)), (slice(0, 5), slice(5, None))):
        memory = cases.sample((4, 6, 10), f32)
        x, out = (memory[..., part] for part in parts)
        kept = x.copy()
        FUNCTIONS[name](x, out=out)
        np.testing.assert_array_equal(x, kept)
        np.testing.assert_allclose(out, FUNCTIONS[name](kept), **close)


@pytest.mark.parametrize("name", WITH_WEIGHT)
def test_parameters_may_share_memory_with_x(name):
    """Inputs are only read: a weight that is a part of x is no fault."""
    x = CUBE
    np.testing.assert_array_equal(FUNCTIONS[name](x, weight=x[2, 3]), FUNCTIONS[name](x, weight=x[2, 3].copy()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_view_of_length_one_may_have_any_stride(name):
    """Strides along axes of extent 1 mean nothing, not even 0 in `out`."""
    out = np.lib.stride_tricks.as_strided(np.zeros(30, f32), (1, 6, 5), (0, 20, 4))
    x = cases.sample((1, 6, 5), f32)
    options = dict(axis=1) if name in OVER_AXES else {}
    np.testing.assert_array_equal(FUNCTIONS[name](x, out=out, **options), FUNCTIONS[name](x, **options))
