"""
Is it the internal covariate shift?
===================================

**The claim.** While a network learns, the inputs of its later layers keep changing their distribution, because the
layers before them change: *internal covariate shift*. BatchNorm was introduced to reduce it, and that is said to be
why it helps.

**The check,** after Santurkar et al. 2018. Three perceptrons: without normalization, with BatchNorm, and with BatchNorm
whose results are then *shaken*: multiplied and shifted by random numbers, for every feature new ones at every step. If
stable distributions were the reason, the third should fail.
"""

import copy

import numpy as np

import normkit
from common import LINES, MUTED, QUICK, SEEDS, Switched, accuracy, digit_rows, percent, perceptron, plt, train
from tiny_network import Network, Relu

digits = digit_rows()
probe = slice(0, 256)


class Shaken(Switched):
    """x times a random scale, plus a random shift, in training."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __call__(self, x):
        if not self.training:
            return x
        self.scale = self.rng.uniform(0.5, 1.5, x.shape[-1]).astype(x.dtype)
        return x * self.scale + self.rng.uniform(-1.5, 1.5, x.shape[-1]).astype(x.dtype)

    def backward(self, dy):
        return dy * self.scale


variants = {
    "none": lambda width: [Relu()],
    "BatchNorm": lambda width: [normkit.BatchNorm(width), Relu()],
    "shaken": lambda width: [normkit.BatchNorm(width), Shaken(), Relu()],
}


def gradient(model):
    """Take one step of plain gradient descent and return the gradient: how the loss changes with all parameters."""
    model.velocity = {}
    model.step(digits.x[probe], digits.labels[probe], 0.1, momentum=0.0)
    return np.concatenate([step.ravel() / -0.1 for step in model.velocity.values()])


# %%
# While it learns
# ---------------
# Two things are measured every ten steps, on copies of the network. How far have the means of the last layer's inputs
# moved since, in standard deviations? And how much does the gradient change by a step along it: is the loss smooth?

drifts: dict[str, list[float]] = {name: [] for name in variants}
changes: dict[str, list[float]] = {name: [] for name in variants}
for name, between in variants.items():
    for seed in SEEDS:
        model = perceptron((64, 64, 64, 64, 64, 10), seed, between)
        order, before = np.random.default_rng(seed).permutation(len(digits.x)), None
        for step in range(80):
            rows = order[64 * (step % 22) : 64 * (step % 22 + 1)]
            if step % 10 == 0:
                trial = copy.deepcopy(model)
                inputs = Network(trial.layers[:-1])(digits.x[probe])
                if before is not None:
                    drifts[name].append(float(np.abs(inputs.mean(0) - before.mean(0)).mean() / before.std()))
                here, there = gradient(trial), gradient(trial)
                changes[name].append(float(np.linalg.norm(there - here) / np.linalg.norm(here)))
                before = inputs
            model.step(digits.x[rows], digits.labels[rows], 0.1)
drift = {name: np.mean(values) for name, values in drifts.items()}
change = {name: np.median(values) for name, values in changes.items()}

# %%
# And what comes of it
# --------------------

RATES, scores = (0.03, 0.1, 0.3), {}
for name, between in variants.items():
    scores[name] = []
    for rate in RATES:
        models = [perceptron((64, 64, 64, 64, 64, 10), seed, between) for seed in SEEDS]
        for seed, model in zip(SEEDS, models, strict=True):
            train(model, digits, rate=rate, epochs=3 if QUICK else 4, seed=seed)
        scores[name].append([accuracy(model, digits) for model in models])
print(f"{'':<12}{'drift':<8}{'change of gradient':<20}" + "".join(f"accuracy, rate {rate:<10}" for rate in RATES))
for name, runs in scores.items():
    text = "(random)" if name == "shaken" else f"{change[name]:.2f}"  # shaken anew, it is another function
    print(f"{name:<12}{drift[name]:<8.2f}{text:<20}" + "".join(f"{percent(run):<25}" for run in runs))

figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
colors = (MUTED, LINES[0], LINES[1])
panels[0].bar(list(variants), list(drift.values()), color=colors)
panels[0].set_title("drift of the last layer's inputs, in std")
panels[1].bar(list(variants), [100 * np.mean(runs[-1]) for runs in scores.values()], color=colors)
panels[1].set_title(f"accuracy at the learning rate {RATES[-1]}, %")

assert drift["BatchNorm"] < drift["none"] / 3
assert drift["shaken"] > drift["none"]
assert min(scores["shaken"][-1]) > 0.8 and np.mean(scores["none"][-1]) < 0.5
assert np.mean(scores["shaken"][0]) > 0.9
assert change["BatchNorm"] < change["none"] / 2

# %%
# **What came out.** Half of the claim: BatchNorm does keep the distributions in place. But that is not why training
# works: with inputs shaken more than the plain network's drift, it still learns, also at a learning rate at which the
# plain network fails. What BatchNorm changes besides is the loss: its gradient changes less along a step, so that
# larger steps can be trusted.
