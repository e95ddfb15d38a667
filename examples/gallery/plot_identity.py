"""
γ = √(var + eps), β = mean: BatchNorm can give its input back
=============================================================

**The claim.** Normalizing takes away what a layer could express, its means and scales; γ and β give it back. With
γ = √(var + eps) and β = mean BatchNorm is the identity, so a network with it can do whatever one without it can.
"""

import numpy as np

import normkit
from common import LINES, plt

rng = np.random.default_rng(0)
eps = 1e-5
scales = np.geomspace(0.1, 10, 8)
x = rng.normal(scales, scales, (256, 8))
mean, var = x.mean(axis=0), x.var(axis=0)

y = normkit.batch_norm(x, None, np.sqrt(var + eps), mean, training=True, eps=eps)
print(f"float64: largest difference, relative to std: {np.abs((y - x) / np.sqrt(var)).max():.1e}")
assert np.allclose(y, x, rtol=0, atol=1e-12)

x32 = x.astype(np.float32)
y32 = normkit.batch_norm(x32, None, np.sqrt(var + eps).astype("f4"), mean.astype("f4"), training=True, eps=eps)
print(f"float32: largest difference, relative to std: {np.abs((y32 - x32) / np.sqrt(var)).max():.1e}")
assert np.abs((y32 - x32) / np.sqrt(var)).max() < 1e-6

# %%
# The same for images, channel by channel, in training and in inference.

images = rng.normal(2, 3, (16, 4, 8, 8))
m = normkit.moments(images, axis=(0, 2, 3))
state = normkit.BatchNormState(4, momentum=None, unbiased=False, dtype="float64")
state.update(m)
for training in (True, False):
    same = normkit.batch_norm(images, state, np.sqrt(m.var() + eps), m.mean, training=training, update_state=False)
    assert np.allclose(same, images, rtol=0, atol=1e-12)

# %%
# Can it be learned?
# ------------------
# Gradient descent on the squared difference between result and input, from γ = 1 and β = 0, with the gradients that
# ``batch_norm_backward`` returns.

weight, bias, history = np.ones(8), np.zeros(8), []
for _ in range(40):
    y, batch_mean, rstd = normkit.batch_norm(x, None, weight, bias, training=True, return_stats=True)
    _, dweight, dbias = normkit.batch_norm_backward((y - x) / len(x), x, batch_mean, rstd, weight)
    history.append((weight.copy(), bias.copy()))
    weight -= 0.5 * dweight
    bias -= 0.5 * dbias
assert np.allclose(weight, np.sqrt(var + eps)) and np.allclose(bias, mean)

figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
for i in range(8):
    for axes, part, goal in zip(panels, (0, 1), (np.sqrt(var + eps), mean), strict=True):
        axes.plot([step[part][i] for step in history], color=LINES[i % 4])
        axes.plot(len(history) + 1, goal[i], "<", color=LINES[i % 4])
panels[0].set(title="γ goes to √(var + eps)", xlabel="steps", yscale="log")
panels[1].set(title="β goes to the mean", xlabel="steps")

# %%
# The next batch
# --------------
# The identity belongs to the statistics that it was made for. Another batch has other ones, and with γ and β kept it
# comes back changed, by about as much as the mean and the standard deviation of n values are uncertain.

for n in (16, 256, 4096):
    batch = rng.normal(scales, scales, (n, 8))
    back = normkit.batch_norm(batch, None, scales, scales, training=True)
    error = np.sqrt((((back - batch) / scales) ** 2).mean())
    print(f"another batch of {n:>4}: back {error:.3f} standard deviations off; √(1.5/n) = {np.sqrt(1.5 / n):.3f}")
    assert 0.4 < error / np.sqrt(1.5 / n) < 2.5

# %%
# **What came out.** The claim holds to rounding, and γ and β are found by gradient descent. In training it holds for
# one batch at a time: the noise of the batch's statistics cannot be undone by constants.
