"""What fold_batch_norm refuses: the exception, and what its message says."""

from __future__ import annotations

import re

import numpy as np
import pytest

import normkit

f32 = np.float32
W, V2, V3 = np.ones((2, 3), f32), np.ones(2, f32), np.ones(3, f32)
CONV = np.ones((2, 3, 3), f32)
TINY = np.full(2, 1e-6)


def with_value(value, at=1):
    changed = V2.copy()
    changed[at] = value
    return changed


# (call, exception, patterns that the message must contain)
REFUSALS = [
    (lambda: normkit.fold_batch_norm([[1.0]], None, (V2, V2)), TypeError, ["weight must be a NumPy array", "list"]),
    (lambda: normkit.fold_batch_norm(W.astype(int), None, (V2, V2)), TypeError, ["weight must be float32", "int64"]),
    (lambda: normkit.fold_batch_norm(W, 1.0, (V2, V2)), TypeError, ["bias must be", "float"]),
    (lambda: normkit.fold_batch_norm(W, None, V2), TypeError, ["state must be", r"\(running_mean", "ndarray"]),
    (lambda: normkit.fold_batch_norm(W, None, None), TypeError, ["state must be a BatchNormState", "NoneType"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2,)), TypeError, ["state must be", "length 1"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, [1, 2])), TypeError, ["running_var must be", "list"]),
    (lambda: normkit.fold_batch_norm(V2, None, (V2, V2)), ValueError, ["two axes", r"\(2,\)"]),
    (lambda: normkit.fold_batch_norm(W[:0], None, (V2, V2)), ValueError, ["not be empty", r"\(0, 3\)"]),
    (lambda: normkit.fold_batch_norm(W, V3, (V2, V2)), ValueError, ["bias", "2 output channels", r"\(3,\)"]),
    (lambda: normkit.fold_batch_norm(W, None, normkit.BatchNormState(3)), ValueError, ["running_mean", "2 output"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V3)), ValueError, ["running_var", "2 output", r"\(3,\)"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), V3), ValueError, ["bn_weight", r"\(3,\)"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), None, V3), ValueError, ["bn_bias", r"\(3,\)"]),
    (lambda: normkit.fold_batch_norm(W, None, (V3, V3), transposed=True, bn_bias=V2), ValueError, ["bn_bias", "3 out"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), before=True), ValueError, ["running_mean", "3 input channels"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), groups=3), ValueError, ["groups=3", r"\(2, 3\)", "output"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), groups=0), ValueError, ["groups=0"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), groups=-1), ValueError, ["groups=-1"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), groups=2**62, transposed=True), ValueError, ["groups", "in"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), eps=-1.0), ValueError, ["eps must be", "eps=-1"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), eps=np.nan), ValueError, ["eps must be", "nan"]),
    (lambda: normkit.fold_batch_norm(W, None, (with_value(np.nan), V2)), ValueError,
     ["running_mean must be finite", "nan in channel 1", "repair"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, with_value(np.inf, 0))), ValueError,
     ["running_var must be finite", "inf in channel 0"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, with_value(-0.5))), ValueError,
     ["running_var must not be negative", "-0.5 in channel 1"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, with_value(0)), eps=0.0), ValueError,
     [r"running_var \+ eps not 0", "0 in channel 1", "eps=0"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), with_value(np.inf)), ValueError, ["bn_weight", "channel 1"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, V2), None, with_value(np.nan)), ValueError, ["bn_bias", "nan"]),
    (lambda: normkit.fold_batch_norm(W, None, (V2, np.full(2, 1e-300)), np.full(2, 1e300), eps=0.0), ValueError,
     ["bn_weight / sqrt", "must be finite", "inf in channel 0"]),
    (lambda: normkit.fold_batch_norm(W * f32(1e38), None, (V2, TINY), eps=0.0), ValueError,
     ["folded weight must be finite in float32", r"1e\+41 in output channel 0", "wider"]),
    (lambda: normkit.fold_batch_norm(W.astype("f2"), None, (with_value(1e5, 1), V2)), ValueError,
     ["folded bias must be finite in float16", "output channel 1", "wider"]),
    (lambda: normkit.fold_batch_norm(W * with_value(np.nan)[:, None], None, (V2, V2)), ValueError,
     ["folded weight must be finite", "nan in output channel 1"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True), ValueError,
     ["padding must be given with before=True", "None", "padding=0"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True, padding=(0, 1)), ValueError,
     ["before padding by zeros must have a shift of 0", "would not be shifted", "-0.99.* in channel 0",
      "leave this batch norm as it is, or pad its input with"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True, padding="same"), ValueError, ["by zeros"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True, padding="full"), ValueError,
     ["padding must be integers, 'valid' or 'same'", "full"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True, padding=-1), ValueError, ["padding", "-1"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V3, V3), before=True, padding=0.5), TypeError, ["padding", "integ"]),
    (lambda: normkit.fold_batch_norm(CONV, None, (V2, V2), before=True, padding=0, transposed=True), ValueError,
     ["before a transposed convolution must have a shift of 0", "not every output sees all of the kernel"]),
]  # fmt: skip


@pytest.mark.parametrize("call, exception, patterns", REFUSALS)
def test_refusal(call, exception, patterns):
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("fold_batch_norm: ")
    for pattern in patterns:
        assert re.search(pattern, message), message


def test_padding_that_pads_nothing():
    for weight, padding in ((CONV, 0), (CONV, (0,)), (CONV, "valid"), (CONV[..., :1], "same"), (W, None)):
        normkit.fold_batch_norm(weight, None, (V3, V3), before=True, padding=padding)
