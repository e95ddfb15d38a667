"""
BatchNorm allows larger learning rates, and learns in fewer steps
=================================================================

**The claims.** With BatchNorm a network can be trained with larger learning rates than without it, and needs fewer
steps.

**The check.** A perceptron, 64-64-64-64-64-10, on the digits, by gradient descent with momentum, with learning rates
over three orders of magnitude and several seeds.
"""

import numpy as np

import normkit
from common import LINES, MUTED, QUICK, SEEDS, accuracy, digit_rows, draw_band, percent, perceptron, plt, train
from tiny_network import Relu

digits = digit_rows()
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
EPOCHS = 3 if QUICK else 5
variants = {"none": lambda width: [Relu()], "BatchNorm": lambda width: [normkit.BatchNorm(width), Relu()]}
scores: dict[str, np.ndarray] = {}  # rates x seeds
losses: dict[str, np.ndarray] = {}  # rates x seeds x steps
for name, between in variants.items():
    finals, curves = [], []
    for rate in RATES:
        models = [perceptron((64, 64, 64, 64, 64, 10), seed, between) for seed in SEEDS]
        curves.append([train(m, digits, rate=rate, epochs=EPOCHS, seed=s) for s, m in zip(SEEDS, models, strict=True)])
        finals.append([accuracy(model, digits) for model in models])
    scores[name], losses[name] = np.array(finals), np.array(curves)

# %%
# Learning rates
# --------------
# The largest learning rate counts that still reaches 95 % of the best mean accuracy of its own variant.

print(f"{'learning rate':<16}" + "".join(f"{name:<26}" for name in variants))
for i, rate in enumerate(RATES):
    print(f"{rate:<16}" + "".join(f"{percent(scores[name][i]):<26}" for name in variants))
mean = {name: values.mean(axis=1) for name, values in scores.items()}
largest = {
    name: max(r for r, m in zip(RATES, mean[name], strict=True) if m >= 0.95 * mean[name].max()) for name in mean
}
print("largest learning rate:", largest)
assert largest["BatchNorm"] > 2 * largest["none"]
assert scores["BatchNorm"][RATES.index(1.0)].min() > 0.5 > 2 * scores["none"][RATES.index(1.0)].max()

# %%
# Steps
# -----
# Each at its own best learning rate: how many steps until the training loss, averaged over ten steps, is below 0.2?

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
steps, best_rate = {}, {}
for color, name in zip((MUTED, LINES[0]), variants, strict=True):
    draw_band(left, RATES, scores[name], name, color)
    best = int(mean[name].argmax())
    best_rate[name] = RATES[best]
    smooth = np.apply_along_axis(np.convolve, 1, losses[name][best], np.full(10, 0.1), "valid")
    steps[name] = [10 + int(np.argmax([*(run < 0.2), True])) for run in smooth]  # or all there are
    right.semilogy(smooth.T, color=color, alpha=0.6, linewidth=1)
    print(f"{name:<12}best at {RATES[best]}; steps to a loss of 0.2: {np.mean(steps[name]):.0f}", end=" ")
    print(f"({min(steps[name])} to {max(steps[name])})")
left.set(xscale="log", xlabel="learning rate")
left.legend(frameon=False)
right.set(title="loss, each at its best rate", xlabel="steps")
assert max(steps["BatchNorm"]) < min(steps["none"])
assert 0.1 < best_rate["BatchNorm"] / best_rate["none"] < 11

# %%
# **What came out.** Both claims hold: BatchNorm stays trainable at learning rates at which the plain network has long
# diverged, and it gets ahead in fewer steps, also where each has its own best rate. The best rates themselves are not
# far apart.
