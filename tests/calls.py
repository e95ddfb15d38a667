"""Every function under one signature, for the tests of what kinds of array they take."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit

f32 = np.float32
X = cases.sample((4, 6, 5), f32)
V = cases.sample((6,), f32, "weight")


def state_of(channels=6):
    mean, var = (np.asarray(a, f32) for a in cases.running_statistics(channels, np.dtype(f32)))
    state = normkit.BatchNormState(channels)
    state.load_state_dict({"running_mean": mean, "running_var": var, "num_batches_tracked": 1})
    return state


# Every function, with every array argument that it has; x and the parameters have six channels on axis 1.
CALLS = {
    "standardize": lambda x, w, b, **k: normkit.standardize(x, **k),
    "min_max_scale": lambda x, w, b, **k: normkit.min_max_scale(x, **k),
    "batch_norm": lambda x, w, b, **k: normkit.batch_norm(x, state_of(), w, b, **k),
    "batch_norm(training)": lambda x, w, b, **k: normkit.batch_norm(x, None, w, b, training=True, **k),
    "layer_norm": lambda x, w, b, **k: normkit.layer_norm(x, w, b, axis=1, **k),
    "rms_norm": lambda x, w, b, **k: normkit.rms_norm(x, w, axis=1, **k),
    "group_norm": lambda x, w, b, **k: normkit.group_norm(x, 2, w, b, **k),
    "instance_norm": lambda x, w, b, **k: normkit.instance_norm(x, w, b, **k),
}
WITH_STATS = [name for name in CALLS if name not in ("standardize", "min_max_scale")]
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_dtype = pytest.mark.parametrize("dtype", cases.DTYPES.values(), ids=cases.DTYPES)


def bits(array):
    """To compare as memory, with NaN equal to NaN and 0 apart from -0."""
    array = np.asarray(array)
    return array.view(f"u{array.itemsize}")


def assert_same(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(bits(a), bits(b))
