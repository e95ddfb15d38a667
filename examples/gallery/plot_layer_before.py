"""
What BatchNorm makes of the layer before it: no bias, no scale
==============================================================

**The claims.** The bias of a layer before BatchNorm is redundant: the mean takes it away, and its gradient is 0. The
scale of its weights is redundant too: BN((aW)x) = BN(Wx). So the gradient is orthogonal to the weights, shrinks as
1/a, and steps of gradient descent can only lengthen them.
"""

import numpy as np

import normkit
from common import LINES, MUTED, QUICK, digit_rows, perceptron, plt
from tiny_network import Linear, Relu

rng = np.random.default_rng(0)
x, dy = rng.normal(size=(128, 32)), rng.normal(size=(128, 16))
weight, bias = rng.normal(size=(32, 16)), rng.normal(0, 10, 16)


def through(weight, bias):
    """Return BN(x @ weight + bias) and the gradients of weight and bias."""
    z = x @ weight + bias
    y, mean, rstd = normkit.batch_norm(z, None, training=True, return_stats=True)
    dz, _, _ = normkit.batch_norm_backward(dy, z, mean, rstd)
    return y, x.T @ dz, dz.sum(axis=0)


# %%
# No bias
# -------

y, gradient, bias_gradient = through(weight, bias)
without, _, _ = through(weight, np.zeros(16))
print(f"a bias of about 10 changes the result by {np.abs(y - without).max():.1e}; its gradient is", end=" ")
print(f"{np.abs(bias_gradient).max():.1e}, that of the weights {np.abs(gradient).max():.1f}")
assert np.allclose(y, without, atol=1e-12) and np.abs(bias_gradient).max() < 1e-12

# %%
# In inference the bias does count, and the moving average has it in it: take both away, or neither.

state = normkit.BatchNormState(16, momentum=None, dtype="float64")
normkit.batch_norm(x @ weight + bias, state, training=True)
kept = normkit.batch_norm(x @ weight + bias, state)
dropped = normkit.batch_norm(x @ weight, state)
state.running_mean[...] -= bias
assert np.allclose(normkit.batch_norm(x @ weight, state), kept, atol=1e-12) and not np.allclose(dropped, kept, atol=0.1)

# %%
# No scale
# --------

print(f"{'a':>8}{'change of the result':>24}{'|gradient| · a':>18}{'cosine of gradient and weights':>34}")
for a in (0.01, 0.1, 1.0, 10.0, 100.0):
    scaled, g, _ = through(a * weight, bias)
    change = np.abs(scaled - y).max()
    cosine = np.abs((g * weight).sum(axis=0) / np.linalg.norm(g, axis=0) / np.linalg.norm(weight, axis=0)).max()
    print(f"{a:>8}{change:>24.1e}{a * np.linalg.norm(g):>18.4f}{cosine:>34.1e}")
    if a >= 0.1:  # below, eps begins to show
        assert change < 1e-3 and abs(a * np.linalg.norm(g) / np.linalg.norm(gradient) - 1) < 1e-3 and cosine < 1e-3

# %%
# So weights grow
# ---------------
# A step orthogonal to the weights makes them longer, by Pythagoras. Plain gradient descent, without momentum or weight
# decay, on a perceptron with one hidden layer: the length of every unit's weights, before and after each step. The
# longer they are, the less a step of the same size turns them: the effective learning rate falls as 1/length².

digits = digit_rows()
figure, axes = plt.subplots(figsize=(7, 3.8))
growth = {}
for color, (name, between) in zip(
    (MUTED, LINES[0]),
    {"none": lambda width: [Relu()], "BatchNorm": lambda width: [normkit.BatchNorm(width), Relu()]}.items(),
    strict=True,
):
    model = perceptron((64, 64, 10), 0, between)
    weights = next(layer for layer in model.layers if isinstance(layer, Linear)).parameters()["weight"]
    lengths = [np.linalg.norm(weights, axis=0)]
    model.train()
    for step in range(100 if QUICK else 400):
        rows = slice(64 * (step % 22), 64 * (step % 22 + 1))
        model.step(digits.x[rows], digits.labels[rows], 0.5, momentum=0.0)
        lengths.append(np.linalg.norm(weights, axis=0))
    growth[name] = np.diff(lengths, axis=0) / lengths[0]
    axes.plot((np.array(lengths) / lengths[0])[:, :16], color=color, linewidth=0.8)
    axes.plot([], color=color, label=name)
    print(f"{name:<12}{np.mean(growth[name] < -1e-6):.1%} of steps shorten a unit's weights")
axes.set(xlabel="steps", ylabel="length of a unit's weights, relative")
axes.legend(frameon=False)

assert growth["BatchNorm"].min() > -1e-5 and np.mean(growth["none"] < -1e-5) > 0.1

# %%
# **What came out.** The claims hold, those about the scale up to eps; weights before BatchNorm only ever grow, if
# slowly: here those of the plain network, which also shrink, grow more. Two consequences: a convolution in front of
# BatchNorm needs no bias, and weight decay on it does not make the function simpler; it keeps the learning rate up.
