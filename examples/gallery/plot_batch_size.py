"""
BatchNorm depends on the size of the batch, GroupNorm does not
==============================================================

**The claims.** The smaller the batch, the noisier the statistics of BatchNorm; with batches of very few samples
training suffers. GroupNorm looks at one sample at a time, and works with any batch.
"""

import numpy as np

import normkit
from common import LINES, MUTED, QUICK, accuracy, digit_rows, draw_band, percent, perceptron, plt, train
from tiny_network import Relu

# %%
# The noise
# ---------
# One sample in many random batches: how far does its normalized value spread?

rng = np.random.default_rng(0)
sample = rng.normal(size=(1, 64))
noise = {}
for size in (2, 4, 16, 64, 256):
    batches = [np.concatenate([sample, rng.normal(size=(size - 1, 64))]) for _ in range(200)]
    by_batch = np.array([normkit.batch_norm(batch, None, training=True)[0] for batch in batches])
    by_group = np.array([normkit.group_norm(batch, 8)[0] for batch in batches])
    noise[size] = by_batch.std(axis=0).mean()
    print(f"batches of {size:>3}: spread {noise[size]:.3f} with BatchNorm,", end=" ")
    print(f"{np.ptp(by_group, axis=0).max()} with GroupNorm")
    assert (by_group == by_group[0]).all()  # the same bits
assert noise[16] / noise[256] > 3  # as 1/√n, or about a quarter

# %%
# With two samples BatchNorm leaves of every feature which of the two is larger, and nothing else: ±1.

pair = normkit.batch_norm(rng.normal(size=(2, 64)), None, training=True, eps=0.0)
assert np.allclose(np.abs(pair), 1)

# %%
# Training with it
# ----------------
# A perceptron, 64-64-64-10, on the digits, for a number of epochs, several seeds; the learning rate is in proportion to
# the batch.

digits = digit_rows()
SIZES, EPOCHS = (2, 4, 16, 64), 2 if QUICK else 4
variants = {
    "none": lambda width: [Relu()],
    "BatchNorm": lambda width: [normkit.BatchNorm(width), Relu()],
    "GroupNorm": lambda width: [normkit.GroupNorm(8, width), Relu()],
}
scores: dict[str, dict[int, list[float]]] = {name: {} for name in variants}
for name, between in variants.items():
    for size in SIZES:
        scores[name][size] = []
        for seed in range(3):
            model = perceptron((64, 64, 64, 10), seed, between)
            train(model, digits, rate=0.1 * size / 64, batch=size, epochs=EPOCHS, seed=seed)
            scores[name][size].append(accuracy(model, digits))

figure, axes = plt.subplots(figsize=(7, 4))
print(f"{'':<12}" + "".join(f"{f'batches of {size}':<26}" for size in SIZES))
for color, (name, by_size) in zip((MUTED, LINES[0], LINES[1]), scores.items(), strict=True):
    print(f"{name:<12}" + "".join(f"{percent(values):<26}" for values in by_size.values()))
    draw_band(axes, SIZES, np.array(list(by_size.values())), name, color)
axes.set_xscale("log", base=2)
axes.set(xticks=SIZES, xticklabels=SIZES, xlabel="batch size")
axes.legend(frameon=False)

assert max(scores["BatchNorm"][2]) < min(scores["GroupNorm"][2]) - 0.1
assert np.mean(scores["BatchNorm"][4]) > 0.9
for size in (16, 64):
    assert np.mean(scores["BatchNorm"][size]) > np.mean(scores["GroupNorm"][size])
assert abs(np.mean(scores["GroupNorm"][2]) - np.mean(scores["GroupNorm"][64])) < 0.03

# %%
# **What came out.** The claims hold: at batches of two BatchNorm loses much, at four hardly anything here, and
# GroupNorm does not notice. At batches of 16 and more BatchNorm is the better of the two. What counts is the number of
# values per statistic: in a convolution every pixel is one, and the convolutional network of examples/train_digits.py
# does not suffer from batches of two.
