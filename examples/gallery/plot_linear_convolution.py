"""
Fully connected and convolutional BatchNorm: each pixel is a sample
===================================================================

**The claims.** After a linear layer BatchNorm has one mean, variance, γ and β per feature; after a convolution one per
channel, not per pixel, taken over the batch *and* all positions. Every pixel counts as a sample: a 1 x 1 convolution
with BatchNorm is a linear layer with BatchNorm applied to the pixels.
"""

import numpy as np

import normkit
from common import LINES, plt
from digits import FILTERS, filtered_digits

images = filtered_digits()[:256].astype(np.float64)  # N x C x H x W: the digits through eight fixed filters
n, c, h, w = images.shape
rng = np.random.default_rng(0)
kernel, weight, bias = rng.normal(size=(16, c)), rng.normal(1, 0.1, 16), rng.normal(size=16)

# %%
# A 1 x 1 convolution is a linear layer
# -------------------------------------
# One side convolves and normalizes images; the other knows nothing of images: rows of 8 features, one for each pixel.

convolved = np.einsum("oc,nchw->nohw", kernel, images)
as_images = normkit.batch_norm(convolved, None, weight, bias, training=True)
pixels = images.transpose(0, 2, 3, 1).reshape(-1, c)
as_rows = normkit.batch_norm(pixels @ kernel.T, None, weight, bias, training=True)
back = as_rows.reshape(n, h, w, 16).transpose(0, 3, 1, 2)
print(f"{n} images of {h} x {w} = {len(pixels)} samples; largest difference {np.abs(as_images - back).max():.1e}")
assert np.allclose(as_images, back, atol=1e-12)

# %%
# Channels last is the same rows, without moving any data.

channels_last = normkit.batch_norm((pixels @ kernel.T).reshape(n, h, w, 16), None, weight, bias, training=True, axis=-1)
assert np.allclose(channels_last.reshape(-1, 16), as_rows, atol=1e-12)

# %%
# How many statistics, how many parameters
# ----------------------------------------

linear, convolutional = normkit.BatchNormState(c * h * w), normkit.BatchNormState(c)
normkit.batch_norm(images.reshape(n, -1), linear, training=True)
normkit.batch_norm(images, convolutional, training=True)
print(f"as {c * h * w} features: {c * h * w} pairs of γ and β, statistics over {n} values")
print(f"as {c} channels:     {c} pairs of γ and β, statistics over {n * h * w} values")
for shape, pairs in (((n, c * h * w), c * h * w), ((n, c, h, w), c)):
    layer = normkit.BatchNorm(pairs, dtype="float64")
    layer(images.reshape(shape))
    assert layer.weight.size == layer.bias.size == pairs
assert np.allclose(normkit.moments(images, axis=(0, 2, 3)).count, n * h * w)

# %%
# Why per channel
# ---------------
# A convolution treats all positions alike: a shifted image gives a shifted result. With statistics per channel that
# stays so to rounding. With statistics per pixel it does not.


def shifted(x):
    """Move images two pixels to the right, round the edge."""
    return np.roll(x, 2, axis=3)


half = n // 2  # one half of the images is shifted, the other stays
mixed = np.concatenate([shifted(images[:half]), images[half:]])
results = {}
for name, normalize in {
    "per channel": lambda x: normkit.batch_norm(x, None, training=True),
    "per pixel": lambda x: normkit.batch_norm(x.reshape(n, -1), None, training=True).reshape(x.shape),
}.items():
    plain, moved = normalize(images), normalize(mixed)
    results[name] = np.abs(shifted(plain[:half]) - moved[:half]).max()
    print(f"statistics {name}: shifting before and after differ by {results[name]:.1e}")
assert results["per channel"] < 1e-12 and results["per pixel"] > 0.1

figure, grid = plt.subplots(2, 4, figsize=(9, 4.2))
for row, (name, y) in zip(
    grid, {"before": images, "after": normkit.batch_norm(images, None, training=True)}.items(), strict=True
):
    for axes, channel in zip(row, (0, 2, 3, 6), strict=True):
        axes.hist(y[:, channel].ravel(), 50, color=LINES[0 if name == "before" else 2])
        axes.set(yscale="log", title=f"{list(FILTERS)[channel]}, {name}")

# %%
# **What came out.** The claims hold to rounding. That a pixel is a sample also means that a small batch of large images
# has plenty of samples (:doc:`plot_batch_size`), if not independent ones.
