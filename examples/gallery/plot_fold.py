"""
Convolution, BatchNorm and ReLU: folded into one
================================================

**The claim.** In inference BatchNorm is a scale and a shift by constants, one of each per channel. The convolution
before it can do both: multiply its kernels by γ / √(var + eps), adapt its bias, and leave BatchNorm out. ReLU follows
as before.
"""

from time import perf_counter

import numpy as np

import normkit
from common import LINES, MUTED, plt
from digits import filtered_digits

x = filtered_digits()[:512]  # N x C x H x W: the digits through eight fixed filters
rng = np.random.default_rng(0)
OUTPUTS, C = 16, x.shape[1]


def convolve(x, kernel, bias):
    """Convolve images with kernels of outputs x inputs x size x size, zeros beyond the edges."""
    around = kernel.shape[-1] // 2
    edges = np.pad(x, ((0, 0), (0, 0), (around, around), (around, around)))
    windows = np.lib.stride_tricks.sliding_window_view(edges, kernel.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, kernel, optimize=True) + bias[:, None, None]


def relu(y):
    """Return what is positive, and 0 for the rest."""
    return np.maximum(y, 0)


# %%
# Fold
# ----
# Averages as training would leave them, a γ and a β; then the folded kernel and bias. A γ of 0 or below is no trouble.

figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
for axes, size in zip(panels, (1, 3), strict=True):
    kernel = rng.normal(0, 0.1, (OUTPUTS, C, size, size)).astype(np.float32)
    bias, beta = (rng.normal(size=OUTPUTS).astype(np.float32) for _ in range(2))
    gamma = np.linspace(-1, 2, OUTPUTS, dtype=np.float32)
    state = normkit.BatchNormState(OUTPUTS, momentum=None)
    for batch in np.split(x, 8):
        normkit.batch_norm(convolve(batch, kernel, bias), state, training=True)

    folded_kernel, folded_bias = normkit.fold_batch_norm(kernel, bias, state, gamma, beta)
    scale = gamma / np.sqrt(state.running_var + 1e-5)
    assert np.allclose(folded_kernel, kernel * scale[:, None, None, None], rtol=1e-5, atol=1e-7)
    assert np.allclose(folded_bias, (bias - state.running_mean) * scale + beta, rtol=1e-4, atol=1e-5)

    three_steps = relu(normkit.batch_norm(convolve(x, kernel, bias), state, gamma, beta))
    two_steps = normkit.batch_norm(convolve(x, kernel, bias), state, gamma, beta, activation="relu")
    one_step = relu(convolve(x, folded_kernel, folded_bias))
    error = np.abs(one_step - three_steps).max()
    print(f"{size} x {size}: largest difference {error:.1e}, of values up to {three_steps.max():.1f}")
    assert (two_steps == three_steps).all()  # BatchNorm with relu in the same pass: the same bits
    assert error < 1e-5 * three_steps.max()

    axes.plot(three_steps[:, ::3].ravel()[::50], one_step[:, ::3].ravel()[::50], ".", color=LINES[0], markersize=3)
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.6)
    axes.set(title=f"{size} x {size}", xlabel="convolution, BatchNorm, ReLU", ylabel="folded convolution, ReLU")

# %%
# What it saves
# -------------
# A pass over the result of the convolution, and the parameters. Beside a convolution by NumPy that is little; the time
# is printed, not asserted.


def seconds(function):
    """Return the least time of a few runs."""
    times = []
    for _ in range(5):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return min(times)


apart = seconds(lambda: relu(normkit.batch_norm(convolve(x, kernel, bias), state, gamma, beta)))
folded = seconds(lambda: relu(convolve(x, folded_kernel, folded_bias)))
print(f"3 x 3: {1e3 * apart:.1f} ms in three steps, {1e3 * folded:.1f} ms folded")

# %%
# Only in inference, and only behind the convolution
# --------------------------------------------------
# With the statistics of the batch there is nothing constant to fold. And where BatchNorm comes *before* a 3 x 3
# convolution its shift cannot go into the bias: beyond the edges the convolution sees zeros, which nobody has shifted.

in_training = normkit.batch_norm(convolve(x[:8], kernel, bias), None, gamma, beta, training=True)
assert np.abs(relu(in_training) - one_step[:8]).max() > 0.1

first = normkit.BatchNormState(C, momentum=None)
normkit.batch_norm(x, first, training=True)
scale = 1 / np.sqrt(first.running_var + 1e-5)
exact = convolve(normkit.batch_norm(x, first), kernel, bias)
shift = np.einsum("ocij,c->o", kernel, -first.running_mean * scale)
tried = convolve(x, kernel * scale[:, None, None], bias + shift)
off = np.abs(tried - exact)
print(f"BatchNorm before the convolution: off by {off[..., 1:-1, 1:-1].max():.1e} inside, {off.max():.1f} at the edges")
assert off[..., 1:-1, 1:-1].max() < 1e-4 and off.max() > 0.1

# %%
# **What came out.** The claim holds to rounding, in inference, for BatchNorm behind the convolution.
