"""
BatchNorm makes training less sensitive to initialization
=========================================================

**The claims.** Without normalization the scale of the weights decides whether signals vanish or explode on their way
through the layers. With BatchNorm every layer gets inputs of one scale, and training works from almost any start.

**The check.** A perceptron with six hidden layers, weights drawn after He et al. and multiplied by a factor.
"""

import numpy as np

import normkit
from common import LINES, MUTED, SEEDS, accuracy, digit_rows, draw_band, percent, perceptron, plt, train
from tiny_network import Linear, Relu

digits = digit_rows()
FACTORS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
variants = {"none": lambda width: [Relu()], "BatchNorm": lambda width: [normkit.BatchNorm(width), Relu()]}


def network(name, factor, seed):
    """Return a network whose hidden layers start with weights `factor` times as large."""
    model = perceptron((64, 64, 64, 64, 64, 64, 64, 10), seed, variants[name])
    for layer in model.layers[:-1]:
        if isinstance(layer, Linear):
            layer.parameters()["weight"][...] *= factor
    return model


# %%
# Signals before training
# -----------------------
# The standard deviation of what comes out of each activation.

figure, axes = plt.subplots(figsize=(7, 3.8))
print(f"{'':<12}{'factor':>8}   std after activation 1 ... 6")
for color, name in zip((MUTED, LINES[0]), variants, strict=True):
    for factor in (0.1, 1.0, 10.0):
        x, spreads = digits.x, []
        for layer in network(name, factor, 0).layers:
            x = layer(x)
            if isinstance(layer, Relu):
                spreads.append(float(x.std()))
        print(f"{name:<12}{factor:>8}   " + "".join(f"{s:<10.2g}" for s in spreads))
        axes.semilogy(range(1, 7), spreads, "o-", color=color, markersize=4, label=name if factor == 1 else None)
        if name == "BatchNorm":
            assert min(spreads) > 0.4 and max(spreads) < 0.7
        elif factor != 1:
            assert max(spreads) > 1e4 * min(spreads)
axes.set(xlabel="layer", ylabel="std of what comes out", title="factors 0.1, 1 and 10")
axes.legend(frameon=False)

# %%
# Training
# --------
# Three epochs with the same learning rate.

scores: dict[str, np.ndarray] = {}
for name in variants:
    finals = []
    for factor in FACTORS:
        models = [network(name, factor, seed) for seed in SEEDS]
        for seed, model in zip(SEEDS, models, strict=True):
            train(model, digits, rate=0.05, epochs=3, seed=seed)
        finals.append([accuracy(model, digits) for model in models])
    scores[name] = np.array(finals)
print(f"{'factor':<10}" + "".join(f"{name:<26}" for name in variants))
for i, factor in enumerate(FACTORS):
    print(f"{factor:<10}" + "".join(f"{percent(scores[name][i]):<26}" for name in variants))
figure, axes = plt.subplots(figsize=(7, 3.8))
for color, name in zip((MUTED, LINES[0]), variants, strict=True):
    draw_band(axes, FACTORS, scores[name], name, color)
axes.set(xscale="log", xlabel="factor of the initial weights")

none, batch = (scores[name].mean(axis=1) for name in variants)
assert batch.min() > 0.7 and batch[1:5].min() > 0.9  # over a factor of 1000, and of 30
assert (none > 0.5).tolist() == [factor == 1.0 for factor in FACTORS]

# %%
# **What came out.** The claim holds: the plain network learns from one of the six starts, the one made for it;
# BatchNorm from all of them. It is less sensitive, not insensitive: at both ends it does worse. Scaled weights leave
# the forward pass as it is, but change how far a step of gradient descent turns them (:doc:`plot_layer_before`), and
# where variances come near eps the forward pass changes as well.
