"""
Do the noisy statistics of small batches regularize?
====================================================

**The claim.** A sample is normalized together with others, chosen at random. That adds noise, and the noise
regularizes: networks generalize better, the more so the smaller the batch.

**The check.** The size of the batch also changes the noise of gradient descent. So here every step uses 96 images, and
only the *statistics* are taken over parts of them, of 3 to 96 images ("ghost batches"). There are 192 images to learn
from, little enough to overfit, and evaluation uses moving averages.
"""

from functools import partial

import numpy as np

import normkit
from common import LINES, QUICK, Switched, accuracy, digit_rows, percent, perceptron, plt, train
from tiny_network import Relu
from train_digits import Digits


class GhostBatchNorm(Switched):
    """BatchNorm with the statistics of parts of the batch: in training, InstanceNorm of parts x rows x features."""

    def __init__(self, width, size):
        self.norm, self.size = normkit.InstanceNorm(width, affine=True, axis=-1), size
        self.state = normkit.BatchNormState(width)
        self.parameters, self.gradients = self.norm.parameters, self.norm.gradients
        self.zero_grad = self.norm.zero_grad

    def __call__(self, x):
        if not self.training:
            return normkit.batch_norm(x, self.state, self.norm.weight, self.norm.bias)
        parts = x.reshape(-1, self.size, x.shape[-1])
        for part in parts:
            self.state.update(normkit.moments(part))
        return self.norm(parts).reshape(x.shape)

    def backward(self, dy):
        return self.norm.backward(dy.reshape(-1, self.size, dy.shape[-1])).reshape(dy.shape)


# %%
# Training
# --------
# A perceptron, 64-128-128-10, for 60 epochs; seeds are the same for all, so that differences can be taken in pairs.

digits = digit_rows()
few = Digits(digits.x[:192], digits.labels[:192], digits.test_x, digits.test_labels)
fitted = Digits(few.x, few.labels, few.x, few.labels)
SIZES, SEEDS = (3, 6, 12, 24, 96), range(6 if QUICK else 20)
learned, held_out = {}, {}


def between(size, width):
    """Return what stands between two linear layers."""
    return [Relu()] if size is None else [GhostBatchNorm(width, size), Relu()]


for size in (None, *SIZES):
    models = [perceptron((64, 128, 128, 10), seed, partial(between, size)) for seed in SEEDS]
    for seed, model in zip(SEEDS, models, strict=True):
        train(model, few, rate=0.1, batch=96, epochs=60, seed=seed)
    learned[size] = np.array([accuracy(model, fitted) for model in models])
    held_out[size] = np.array([accuracy(model, digits) for model in models])

print(f"{'statistics over':<18}{'learned':<28}{'held out':<28}beside 96, in points")
gain = {}
for size in held_out:
    pairs = 100 * (held_out[size] - held_out[96])
    gain[size] = pairs.mean(), pairs.std(ddof=1) / np.sqrt(len(pairs))
    print(f"{'(no BatchNorm)' if size is None else size:<18}{percent(learned[size]):<28}", end="")
    print(f"{percent(held_out[size]):<28}{gain[size][0]:+.2f} ± {gain[size][1]:.2f}")

figure, axes = plt.subplots(figsize=(7, 4))
axes.boxplot(
    [100 * v for v in held_out.values()], tick_labels=["none", *map(str, SIZES)], medianprops={"color": LINES[0]}
)
axes.set(xlabel="images that share statistics", ylabel="accuracy on held-out digits, %")

assert min(values.mean() for values in learned.values()) > 0.99  # all of them learn their images by heart
assert held_out[12].mean() > held_out[3].mean() + 0.005  # too much noise does harm
if not QUICK:
    assert gain[12][0] > 2 * gain[12][1]  # some does good
assert all(0 < gain[size][0] < 2 for size in (6, 12, 24))  # but not much

# %%
# **What came out.** Partly so. With statistics of 6 to 24 images the networks recognize more of what they have not
# seen than with those of all 96, by less than two points: there is a regularizing effect. It is small, and more noise
# is not better: with statistics of three images it is gone.
