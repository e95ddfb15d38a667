"""
The gradient through BatchNorm: orthogonal to the ones and to x̂
===============================================================

**The claims.** In training mean and variance are functions of the batch, and the gradient flows through them too:

dx = γ / √(var + eps) · (dy − mean(dy) − x̂ · mean(dy · x̂))

For every feature dx adds up to 0, and it is orthogonal to x̂: no step along it changes the mean or the scale of x, as
these would not change the result. With frozen statistics neither holds.
"""

import numpy as np

import normkit
from common import INK, LINES, MUTED, plt

rng = np.random.default_rng(0)
x, dy = rng.normal(5, 3, (32, 4)), rng.normal(size=(32, 4))
weight = rng.normal(1, 0.2, 4)


def forward(x, eps=1e-5):
    """Return the result and what the backward pass wants of the forward pass."""
    return normkit.batch_norm(x, None, weight, training=True, eps=eps, return_stats=True)


y, mean, rstd = forward(x)
dx, dweight, dbias = normkit.batch_norm_backward(dy, x, mean, rstd, weight)
xhat = (x - mean) * rstd
assert np.allclose(dx, weight * rstd * (dy - dy.mean(axis=0) - xhat * (dy * xhat).mean(axis=0)))
assert np.allclose(dweight, (dy * xhat).sum(axis=0)) and np.allclose(dbias, dy.sum(axis=0))

# %%
# The formula is right: it agrees with finite differences of Σ dy · y.

step, numeric = 1e-4, np.zeros_like(x)
for index in np.ndindex(x.shape):
    ends = []
    for sign in (1, -1):
        moved = x.copy()
        moved[index] += sign * step
        ends.append((dy * forward(moved)[0]).sum())
    numeric[index] = (ends[0] - ends[1]) / (2 * step)
print(f"dx against finite differences: {np.abs(dx - numeric).max():.1e}")
assert np.allclose(dx, numeric, atol=1e-8)

# %%
# Orthogonal
# ----------
# Cosines of the angles, per feature. With x̂ it is 0 up to eps: adding eps to the variance leaves a trace of the scale.


def cosine(a, b):
    """Return the cosine of the angle of two vectors, for every feature."""
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


frozen, _, _ = normkit.batch_norm_backward(dy, x, mean, rstd, weight, training=False)
print(f"{'':<32}{'with ones':>12}{'with x̂':>12}")
for name, gradient in {"dy": dy, "dx": dx, "dx with frozen statistics": frozen}.items():
    with_ones, with_xhat = (np.abs(cosine(gradient, v)).max() for v in (np.ones_like(x), xhat))
    print(f"{name:<32}{with_ones:>12.1e}{with_xhat:>12.1e}")
assert np.abs(cosine(dx, np.ones_like(x))).max() < 1e-14 and np.abs(cosine(dx, xhat)).max() < 1e-5
assert np.abs(cosine(frozen, np.ones_like(x))).max() > 0.05 and np.abs(cosine(frozen, xhat)).max() > 0.05
_, mean0, rstd0 = forward(x, eps=0.0)
exact, _, _ = normkit.batch_norm_backward(dy, x, mean0, rstd0, weight)
assert np.abs(cosine(exact, xhat)).max() < 1e-14  # without eps

# %%
# In a picture
# ------------
# A batch of three values is a point in space. Subtracting the mean projects it onto the plane orthogonal to (1, 1, 1),
# dividing by the standard deviation onto a circle in it; so dx is tangential to circles, and longer near the centre, by
# 1/std.

plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
points = np.array([(r * np.cos(a), r * np.sin(a)) for r in (0.6, 1.2, 1.8) for a in np.arange(12) * np.pi / 6])
batches = (points @ plane).T.copy()  # 3 samples of 36 features
_, mean, rstd = normkit.batch_norm(batches, None, training=True, eps=0.0, return_stats=True)
gradient, _, _ = normkit.batch_norm_backward(np.repeat([[0.3], [0.1], [-0.4]], 36, axis=1), batches, mean, rstd)
arrows = gradient.T @ plane.T
assert np.allclose((arrows * points).sum(axis=1), 0, atol=1e-12)

figure, axes = plt.subplots(figsize=(5, 5))
for radius in (0.6, 1.2, 1.8):
    axes.add_patch(plt.Circle((0, 0), radius, fill=False, color=MUTED, linewidth=0.6))
axes.quiver(*points.T, *arrows.T, color=LINES[0], angles="xy", scale_units="xy", scale=2, width=0.006)
axes.plot(*points.T, ".", color=INK, markersize=4)
axes.set(aspect="equal", xticks=[], yticks=[], title="dx in the plane orthogonal to (1, 1, 1)")

# %%
# **What came out.** The claims hold, the one about x̂ up to eps. Training with frozen statistics, as in fine-tuning,
# has another gradient: the one that the moving averages, as constants, imply.
