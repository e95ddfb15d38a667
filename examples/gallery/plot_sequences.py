"""
BatchNorm and LayerNorm on padded sequences
===========================================

**The claims.** Sequences of different lengths are padded to one. BatchNorm averages over the batch and the positions,
so the padding gets into its statistics, and what becomes of a sequence depends on how long the others are; statistics
per position rest on few sequences where most have ended. LayerNorm looks at one position at a time and does not
notice. That is one reason why recurrent networks and transformers use it.
"""

import numpy as np

import normkit
from common import LINES, MUTED, plt

rng = np.random.default_rng(0)
FEATURES, LENGTHS = 128, np.array([20, 12, 7, 5, 3, 3, 2, 2])
sequences = [rng.normal(5, 3, (length, FEATURES)) for length in LENGTHS]
everything = np.concatenate(sequences)  # the 54 positions that there are


def padded(to):
    """Return the sequences as one array, N x T x C, zeros behind the end of each."""
    x = np.zeros((len(sequences), to, FEATURES))
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    return x


wanted = normkit.batch_norm(everything, None, training=True)  # what padding should not change

# %%
# The more padding, the further off
# ---------------------------------
# The sequence of 20 positions in a batch padded to ever greater lengths: how far is its result from that of the 54
# positions without any padding?

paddings = (20, 30, 40, 60, 80)
errors: dict[str, list[float]] = {"BatchNorm": [], "BatchNorm with lengths": [], "LayerNorm": []}
layer_wanted = normkit.layer_norm(everything)
for to in paddings:
    x = padded(to)
    plain = normkit.batch_norm(x, None, training=True, axis=-1)
    with_lengths = normkit.batch_norm(x, None, training=True, axis=-1, lengths=LENGTHS)
    layer = normkit.layer_norm(x)
    for name, y, goal in zip(errors, (plain, with_lengths, layer), (wanted, wanted, layer_wanted), strict=True):
        errors[name].append(float(np.abs(y[0, :20] - goal[:20]).max()))
    assert (with_lengths[1, 12:] == 0).all()  # what is no position stays 0
print(f"{'padded to':<26}" + "".join(f"{to:>10}" for to in paddings))
for name, row in errors.items():
    print(f"{name:<26}" + "".join(f"{error:>10.1e}" for error in row))
assert min(errors["BatchNorm"]) > 0.5 and max(errors["BatchNorm with lengths"] + errors["LayerNorm"]) < 1e-12

# %%
# The gradient too: with lengths, that of the sequences as they are.

x, dy = padded(20), rng.normal(size=(8, 20, FEATURES))
_, mean, rstd = normkit.batch_norm(x, None, training=True, axis=-1, lengths=LENGTHS, return_stats=True)
dx, _, _ = normkit.batch_norm_backward(dy, x, mean, rstd, axis=-1, lengths=LENGTHS)
flat_dy = np.concatenate([row[:length] for row, length in zip(dy, LENGTHS, strict=True)])
flat_dx, _, _ = normkit.batch_norm_backward(flat_dy, everything, mean, rstd)
assert np.allclose(np.concatenate([row[:length] for row, length in zip(dx, LENGTHS, strict=True)]), flat_dx)

# %%
# Statistics per position
# -----------------------
# A recurrent network that normalizes at each step has a mean and a variance for each position, over the sequences that
# are still there. How wrong are they? The data have mean 5 and standard deviation 3 everywhere.

counts = [(t < LENGTHS).sum() for t in range(20)]
off, spreads = [], []
for t in range(20):
    m = normkit.moments(x[:, t], mask=(t < LENGTHS)[:, None])
    off.append(float(np.sqrt(np.mean((m.mean - 5) ** 2)) / 3))
    spreads.append(float(m.std().mean()))
print("sequences at positions 0, 2, 6, 11, 19:", *(counts[t] for t in (0, 2, 6, 11, 19)))
print("error of the mean, in standard deviations:", *(f"{off[t]:.2f}" for t in (0, 2, 6, 11, 19)))
assert counts[-1] == 1 and spreads[-1] == 0  # one sequence has no variance: nothing can be normalized by it
assert np.allclose(off, 1 / np.sqrt(counts), rtol=0.25)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for color, (name, row) in zip((LINES[0], LINES[2], MUTED), errors.items(), strict=True):
    left.semilogy(paddings, np.maximum(row, 1e-17), "o-", color=color, label=name)
left.set(xlabel="padded to", ylabel="largest error of the longest sequence")
left.legend(frameon=False, fontsize=8)
right.bar(range(20), counts, color=LINES[2], label="sequences")
right.plot(range(20), off, "o-", color=LINES[0], label="error of the mean, in std", markersize=4)
right.set(xlabel="position")
right.legend(frameon=False, fontsize=8)

# %%
# **What came out.** The claims hold. The trouble with padding is one of implementation: with ``lengths`` or ``mask``
# BatchNorm counts what is there and nothing else. That few sequences are long, and that a sequence's result depends on
# the others, remains.
