"""
What BatchNorm computes: zero mean and unit variance, then a scale and a shift
==============================================================================

**The claim.** In training BatchNorm subtracts from each feature its mean over the batch and divides by its standard
deviation, so that every feature has mean 0 and variance 1; then it multiplies by a learnable scale γ (``weight``) and
adds a learnable shift β (``bias``), which become the standard deviation and the mean of the result.
"""

import numpy as np

import normkit
from common import LINES, MUTED, plt

rng = np.random.default_rng(0)
x = rng.normal([0.0, 50.0, -3.0], [1.0, 10.0, 0.01], (256, 3))  # a batch of 256 samples, three features
eps = 1e-5

mean, var = x.mean(axis=0), x.var(axis=0)  # the variance is divided by n, not n - 1
xhat = (x - mean) / np.sqrt(var + eps)
assert np.allclose(normkit.batch_norm(x, None, training=True, eps=eps), xhat, atol=1e-12)

# %%
# Mean 0, and variance nearly 1
# -----------------------------
# eps, there so that nobody divides by zero, makes the variance var / (var + eps): a little less than 1, and noticeably
# less for a feature that hardly varies. A feature that does not vary at all becomes 0.

print(f"{'feature':<10}{'mean':>12}{'std':>10}   ->{'mean':>12}{'variance':>12}{'var/(var+eps)':>16}")
for i in range(3):
    after = xhat[:, i]
    print(f"{i:<10}{mean[i]:>12.3f}{np.sqrt(var[i]):>10.3f}   ->", end="")
    print(f"{abs(after.mean()):>12.1e}{after.var():>12.6f}{var[i] / (var[i] + eps):>16.6f}")
assert np.abs(xhat.mean(axis=0)).max() < 1e-12
assert np.allclose(xhat.var(axis=0), var / (var + eps))
assert xhat[:, 1].var() > 0.999999 and 0.85 < xhat[:, 2].var() < 0.95
assert (normkit.batch_norm(np.full((8, 1), 7.0), None, training=True) == 0).all()

# %%
# γ and β
# -------
# Whatever came in, what goes on has the mean β and the standard deviation \|γ\|: that is learned, and no longer left
# to the layers before.

weight, bias = np.array([0.5, 2.0, -1.0]), np.array([3.0, 0.0, -2.0])
y = normkit.batch_norm(x, None, weight, bias, training=True, eps=eps)
assert np.allclose(y.mean(axis=0), bias)
assert np.allclose(y.std(axis=0), np.abs(weight) * np.sqrt(var / (var + eps)))

figure, panels = plt.subplots(1, 3, figsize=(9, 3.2))
titles = ("x", "normalized", "times γ, plus β")
for axes, title, values in zip(panels, titles, (x, xhat, y), strict=True):
    for i, color in enumerate((MUTED, LINES[0], LINES[2])):
        axes.hist(values[:, i], 40, color=color, alpha=0.7, label=f"feature {i}")
    axes.set_title(title)
panels[0].set_yscale("log")
panels[0].legend(frameon=False, fontsize=8)

# %%
# Each feature for itself
# -----------------------
# Features are not decorrelated: BatchNorm is not whitening. Nor does it make a distribution normal.

twins = np.column_stack([x[:, 0], 0.8 * x[:, 0] + 0.6 * rng.normal(size=256)])
correlation = np.corrcoef(twins.T)[0, 1]
normalized = normkit.batch_norm(twins, None, training=True)
print(f"correlation of two features: {correlation:.3f} before, {np.corrcoef(normalized.T)[0, 1]:.3f} after")
assert np.isclose(np.corrcoef(normalized.T)[0, 1], correlation)

# %%
# **What came out.** The claim holds, but for eps: the variance is 1 only where the feature varies much more than √eps.
