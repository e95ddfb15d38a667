"""
Four normalizers are one table of axes
======================================

**The claim.** BatchNorm, LayerNorm, InstanceNorm and GroupNorm do the same with different sets of elements: subtract
the mean of the set, divide by its standard deviation. Only the axes that the set extends over differ.

**The check.** Compute all four by one line of NumPy that knows nothing but axes. Then find the sets by experiment: push
one element of a tensor far away and see which results move. Those, and no others by a single bit, share its statistic.
"""

import numpy as np

import normkit
from common import plt
from digits import Case, averaged_axes, membership
from digits_plots import SHARED, draw_block

x = np.random.default_rng(0).normal(3, 2, (6, 8, 4, 4))
n, c, h, w = x.shape
groups = 4


def normalized(x, axes, eps=1e-5):
    """Normalize over these axes."""
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


# GroupNorm splits the axis of channels in two: groups, and channels within a group.
by_axes = {
    "BatchNorm": normalized(x, (0, 2, 3)),
    "LayerNorm": normalized(x, (1, 2, 3)),
    "InstanceNorm": normalized(x, (2, 3)),
    "GroupNorm": normalized(x.reshape(n, groups, c // groups, h, w), (2, 3, 4)).reshape(x.shape),
}
cases = [
    Case("BatchNorm", "N, H, W", lambda x, axis: normkit.batch_norm(x, None, training=True, axis=axis)),
    Case("LayerNorm", "C, H, W", lambda x, axis: normkit.layer_norm(x, axis=(1, 2, 3))),
    Case("InstanceNorm", "H, W", lambda x, axis: normkit.instance_norm(x, axis=axis)),
    Case("GroupNorm", "C/4, H, W", lambda x, axis: normkit.group_norm(x, groups, axis=axis)),
]

# %%
# The sets, drawn
# ---------------
# ``membership`` (in examples/digits.py) pushes the corner element up and down, in both layouts, and compares bits.

figure, grid = plt.subplots(1, 4, figsize=(10, 3.2))
print(f"{'':<14}{'statistic over':<16}{'statistics':>11}{'values in each':>16}")
for axes, case in zip(grid, cases, strict=True):
    assert np.allclose(case.run(x, 1), by_axes[case.name], atol=1e-12)
    members = membership(case, x.shape)
    assert averaged_axes(members) == case.call.replace(", ", "·")
    values = int(members.sum())
    print(f"{case.name:<14}{case.call:<16}{x.size // values:>11}{values:>16}")
    draw_block(axes, members[:, :, :2, :2].reshape(n, c, -1))
    axes.set_title(f"{case.name}\nover {case.call}", fontsize=10, color=SHARED[2])

# %%
# The ends meet
# -------------
# GroupNorm with one group is LayerNorm over C, H, W; with as many groups as channels it is InstanceNorm. A batch of
# one makes InstanceNorm of BatchNorm. What does not follow from the sets: weight and bias vary along C in three of
# them, and along all of C, H, W in LayerNorm.

assert np.allclose(normkit.group_norm(x, 1), normkit.layer_norm(x, axis=(1, 2, 3)), atol=1e-12)
assert np.allclose(normkit.group_norm(x, c), normkit.instance_norm(x), atol=1e-12)
assert np.allclose(normkit.batch_norm(x[:1], None, training=True), normkit.instance_norm(x[:1]), atol=1e-12)
weight, bias = np.full(c, 2.0), np.ones(c)
for y in (normkit.group_norm(x, groups, weight, bias), normkit.instance_norm(x, weight, bias)):
    assert y.shape == x.shape
assert normkit.layer_norm(x, np.full((c, h, w), 2.0), np.ones((c, h, w)), axis=(1, 2, 3)).shape == x.shape

# %%
# **What came out.** All four agree with the one line of NumPy to rounding, and the sets are the blocks above: the claim
# holds.
