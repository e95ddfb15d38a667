"""Every refusal of masks, lengths, residuals, activations and backward passes (see test_errors.py)."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

import cases
import normkit
from test_errors import check_refusal, ids

f32, f64, f16 = np.float32, np.float64, np.float16
X = cases.sample((4, 6, 5), f32)
DY = cases.sample((4, 6, 5), f32, "dy")
IMAGE = cases.sample((4, 6, 5, 5), f32)
MASK = np.arange(20).reshape(4, 5) % 3 > 0
MEAN, RSTD = np.zeros(6, f32), np.ones(6, f32)

# Each function that takes a mask without the channel axis, with its required arguments but for x.
CHANNELWISE = {
    "batch_norm": partial(normkit.batch_norm, state=None, training=True),
    "group_norm": partial(normkit.group_norm, num_groups=2),
    "instance_norm": normkit.instance_norm,
}
STATISTICS = {"batch_norm": (6,), "group_norm": (4, 2), "instance_norm": (4, 6)}


def backward_of(name):
    """The backward pass as a function of x, with its required arguments; each of them may be replaced."""
    shape = STATISTICS[name]
    given = dict(dy=DY, mean=np.zeros(shape, f32), rstd=np.ones(shape, f32))
    if name == "group_norm":
        given["num_groups"] = 2
    return partial(getattr(normkit, f"{name}_backward"), **given)


BACKWARD = {f"{name}_backward": backward_of(name) for name in CHANNELWISE} | {
    "layer_norm_backward": partial(
        normkit.layer_norm_backward, dy=DY, mean=np.zeros((4, 6), f32), rstd=np.ones((4, 6), f32)
    ),
    "rms_norm_backward": partial(normkit.rms_norm_backward, dy=DY, rstd=np.ones((4, 6), f32)),
}
MASKED = CHANNELWISE | {name: call for name, call in BACKWARD.items() if name.removesuffix("_backward") in CHANNELWISE}
BROADCAST = {"standardize": normkit.standardize, "moments": normkit.moments}

TABLE: list[tuple] = []


def every(functions, exception, *patterns, x=X, **options):
    """The same refusal from several functions."""
    for name, function in functions.items():
        TABLE.append((name, partial(function, x=x, **options), exception, patterns))


# ----------------------------------------------------------------------------------------------- masks and lengths

every(MASKED | BROADCAST, TypeError, "mask", "NumPy array", "list", mask=[[True] * 5] * 4)
every(MASKED | BROADCAST, TypeError, "mask", "bool", "float32", mask=MASK.astype(f32))
every(MASKED | BROADCAST, TypeError, "mask", "bool", "uint8", "mask != 0", mask=MASK.astype(np.uint8))
every(MASKED, ValueError, "mask", r"\(4, 5\)", r"\(4, 6, 5\)", "channel", mask=np.ones(X.shape, bool))
every(MASKED, ValueError, "mask", r"\(4, 5\)", r"\(4, 1\)", mask=np.ones((4, 1), bool))
every(MASKED, ValueError, "mask", r"\(4, 6\)", r"\(4, 5\)", "channel", mask=MASK, axis=-1)
every(BROADCAST, ValueError, "mask", "broadcast", r"\(4, 6, 5\)", r"\(4, 5\)", mask=MASK)
every(BROADCAST, ValueError, "mask", "broadcast", r"\(1, 4, 6, 5\)", mask=np.ones((1, 4, 6, 5), bool))
every(MASKED, ValueError, "mask", "lengths", "both", mask=MASK, lengths=[1, 2, 3, 4])
every(MASKED, ValueError, "lengths", r"-1\b", r"\[0, 5\]", "sample 0", lengths=[-1, 5, 5, 5])
every(MASKED, ValueError, "lengths", r"\b4\b", r"\b3\b", lengths=[1, 2, 3])
every(MASKED, ValueError, "lengths", "one axis", r"\(4, 1\)", lengths=np.ones((4, 1), int))
every(MASKED, TypeError, "lengths", "integers", "float64", lengths=[1.0, 2.0, 3.0, 4.0])
every(MASKED, TypeError, "lengths", "integers", "bool", lengths=np.ones(4, bool))
every(CHANNELWISE, ValueError, "lengths", r"\(4, 6, 5, 5\)", "mask", x=IMAGE, lengths=[1, 2, 3, 4])
every(MASKED, ValueError, "lengths", r"got 6\b", r"\[0, 5\]", "sample 2", lengths=[5, 5, 6, 5])

one = np.zeros((4, 5), bool)
one[2, 3] = True
batch_norm = {"batch_norm": CHANNELWISE["batch_norm"]}
every(batch_norm, ValueError, "one valid value per channel", "mask that leaves 1", "training=False", mask=one)
every(batch_norm, ValueError, "valid value per channel", lengths=[0, 1, 0, 0])
every({"moments": normkit.moments}, ValueError, "nan", "propagate", "omit", "drop", nan="drop")
every({"moments": normkit.moments}, ValueError, "axis", r"\b3\b", axis=3)
every({"moments": normkit.moments}, TypeError, r"\bx\b", "list", x=[1.0])

# ------------------------------------------------------------------------------------------ residual and activation

every(CHANNELWISE, ValueError, "residual", r"\(4, 6, 5\)", r"\(4, 5, 6\)", residual=np.zeros((4, 5, 6), f32))
every(CHANNELWISE, TypeError, "residual", "float32", "float64", residual=X.astype(f64))
every(CHANNELWISE, TypeError, "residual", "NumPy array", "list", residual=[1.0])
memory = cases.sample((2 * X.size,), f32)
window = memory[1 : X.size + 1].reshape(X.shape)
every(CHANNELWISE, ValueError, "out", "residual", "overlap", residual=memory[: X.size].reshape(X.shape), out=window)
every(MASKED, ValueError, "activation", "relu", "silu", "gelu", activation="gelu")
every(MASKED, TypeError, "activation", "relu", "silu", "bool", activation=True)
ADDS = {name: getattr(normkit, name) for name in ("add_layer_norm", "add_rms_norm")}
every(ADDS, ValueError, "residual", r"\(4, 6, 5\)", r"\(5,\)", residual=np.zeros(5, f32))
every(ADDS, TypeError, "residual", "float32", "float16", residual=X.astype(f16))
every(ADDS, ValueError, "weight", r"\(5,\)", r"\(6,\)", residual=X, weight=np.ones(6, f32))
for offset in (np.inf, np.nan):
    every({"rms_norm": normkit.rms_norm}, ValueError, "weight_offset", "finite", f"{offset}", weight_offset=offset)

# ---------------------------------------------------------------------------------------------------- backward passes

every(BACKWARD, ValueError, "dy", r"\(4, 6, 5\)", r"\(4, 6\)", dy=DY[..., 0])
every(BACKWARD, TypeError, "dy", "float32", "float64", "convert", dy=DY.astype(f64))
every(BACKWARD, TypeError, "dy", "NumPy array", "list", dy=[1.0])
every(BACKWARD, TypeError, r"\bx\b", "int32", x=X.astype(np.int32))
every(BACKWARD, ValueError, "rstd", "must have shape", r"\(3,\)", rstd=np.ones(3, f32))
every(BACKWARD, TypeError, "rstd", "float32", "float16", rstd=np.ones((4, 6), f16))
CENTRED = {name: call for name, call in BACKWARD.items() if "rms" not in name}
every(CENTRED, ValueError, "mean", "must have shape", r"\(3,\)", mean=np.ones(3, f32))
every(CENTRED, TypeError, "mean", "NumPy array", "NoneType", mean=None)
every(BACKWARD, ValueError, "weight", "must have shape", r"\(7,\)", weight=np.ones(7, f32))
for wanted in ((True,), (True,) * 4, True):
    every(BACKWARD, ValueError, "output_mask", "dx, dweight", re.escape(repr(wanted)), output_mask=wanted)
FUSED = {name: call for name, call in MASKED.items() if name in BACKWARD}
every(FUSED, ValueError, r"\by\b", "forward pass", "relu", activation="relu")
every(FUSED, ValueError, r"\by\b", r"\(4, 6, 5\)", r"\(4, 6\)", activation="relu", y=DY[..., 0])
every(FUSED, TypeError, r"\by\b", "float32", "float64", activation="relu", y=DY.astype(f64))
every(FUSED, ValueError, "silu", "residual=True", activation="silu", residual=True)
every(FUSED, ValueError, "bias", r"\(6,\)", r"\(5,\)", activation="silu", bias=np.ones(5, f32))
single = dict(dy=DY[:1, :, :1], mean=MEAN, rstd=RSTD)
TABLE.append(
    (
        "batch_norm_backward",
        partial(normkit.batch_norm_backward, x=X[:1, :, :1], **single),
        ValueError,
        ("more than one value per channel", r"\(1, 6, 1\)"),
    )
)


@pytest.mark.parametrize("operation, call, exception, patterns", TABLE, ids=ids(TABLE))
def test_message(operation, call, exception, patterns):
    check_refusal(operation, call, exception, patterns)


@pytest.mark.parametrize(
    "options",
    [
        dict(mask=one),
        dict(mask=MASK.T),
        dict(lengths=[9, 1, 1, 1]),
        dict(activation="tanh"),
        dict(residual=X[:2]),
        dict(lengths=[0.5] * 4),
    ],
    ids=str,
)
def test_a_refused_batch_leaves_the_state_alone(options):
    state = normkit.BatchNormState(6)
    out = np.full_like(X, 7)
    with pytest.raises((TypeError, ValueError)):
        normkit.batch_norm(X, state, training=True, out=out, **options)
    assert (out == 7).all()
    assert state.num_batches_tracked == 0 and state.skipped == 0
    assert (state.running_mean == 0).all() and (state.running_var == 1).all()


def test_axis_of_a_backward_pass():
    for call in (normkit.layer_norm_backward, normkit.instance_norm_backward):
        with pytest.raises(ValueError, match=r"_backward: axis must be in \[-3, 3\).*got axis=3"):
            call(DY, X, np.zeros((4, 6), f32), np.ones((4, 6), f32), axis=3)
