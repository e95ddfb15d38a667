"""
BatchNorm makes deep networks of sigmoids trainable
===================================================

**The claim.** Sigmoids saturate: where their inputs are large they are flat, and gradients vanish on their way back
through many layers. BatchNorm keeps their inputs where they are steep, so that deep networks of sigmoids can be
trained.
"""

import numpy as np

import normkit
from common import LINES, MUTED, QUICK, SEEDS, accuracy, digit_rows, percent, perceptron, plt, train
from tiny_network import Linear, Module

digits = digit_rows()


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def __call__(self, x):
        self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)


variants = {"none": lambda width: [Sigmoid()], "BatchNorm": lambda width: [normkit.BatchNorm(width), Sigmoid()]}
WIDTHS = (64, 64, 64, 64, 64, 64, 10)

# %%
# Gradients before training
# -------------------------
# The size of the gradient of each layer's weights, relative to the weights.

figure, axes = plt.subplots(figsize=(7, 3.6))
shrinkage = {}
for color, (name, between) in zip((MUTED, LINES[0]), variants.items(), strict=True):
    model = perceptron(WIDTHS, 0, between)
    dy = model(digits.x)
    dy = np.random.default_rng(0).normal(size=dy.shape).astype(dy.dtype) / len(dy)
    sizes = []
    for layer in reversed(model.layers):
        dy = layer.backward(dy)
        if isinstance(layer, Linear):
            weight, gradient = layer.parameters()["weight"], layer.gradients()["weight"]
            sizes.insert(0, float(np.linalg.norm(gradient) / np.linalg.norm(weight)))
    shrinkage[name] = sizes[0] / sizes[-1]
    print(f"{name:<12}" + "".join(f"{size:<10.1e}" for size in sizes))
    axes.semilogy(range(1, len(sizes) + 1), sizes, "o-", color=color, label=name)
axes.set(xlabel="layer", ylabel="gradient / weight")
axes.legend(frameon=False)

# %%
# Training
# --------
# Each at the best of four learning rates.

EPOCHS = 3 if QUICK else 6
best: dict[str, list[float]] = {}
figure, axes = plt.subplots(figsize=(7, 3.6))
for color, (name, between) in zip((MUTED, LINES[0]), variants.items(), strict=True):
    best[name], curves = [0.0], []
    for rate in (0.03, 0.1, 0.3, 1.0):
        models = [perceptron(WIDTHS, seed, between) for seed in SEEDS]
        losses = [train(m, digits, rate=rate, epochs=EPOCHS, seed=s) for s, m in zip(SEEDS, models, strict=True)]
        finals = [accuracy(model, digits) for model in models]
        if np.mean(finals) > np.mean(best[name]):
            best[name], curves = finals, losses
    print(f"{name:<12}{percent(best[name])}")
    axes.plot(np.transpose(curves), color=color, alpha=0.6, linewidth=1)
    axes.plot([], color=color, label=name)
axes.set(xlabel="steps", ylabel="training loss")
axes.legend(frameon=False)

assert shrinkage["none"] < 0.01 and shrinkage["BatchNorm"] > 0.1
assert max(best["none"]) < 0.3 and min(best["BatchNorm"]) > 0.9

# %%
# **What came out.** The claim holds: with five layers of sigmoids the plain network does not leave the level of
# guessing in the time in which the one with BatchNorm recognizes nearly everything.
