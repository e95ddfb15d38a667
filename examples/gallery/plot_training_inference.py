"""
Training uses the batch, inference uses moving averages
=======================================================

**The claims.** In training BatchNorm takes mean and variance from the batch, so what becomes of a sample depends on the
others. In inference it uses moving averages of them, collected in training, so it does not. The averages estimate the
statistics of the whole data.
"""

import numpy as np

import normkit
from common import LINES, QUICK, plt

rng = np.random.default_rng(0)
FEATURES, BATCH, STEPS = 256, 64, 300 if QUICK else 1000
sample = rng.normal(5, 3, (1, FEATURES))

# %%
# One sample in a hundred batches
# -------------------------------

state = normkit.BatchNormState(FEATURES, momentum=None, dtype="float64")
batches = [np.concatenate([sample, rng.normal(5, 3, (BATCH - 1, FEATURES))]) for _ in range(100)]
in_training = np.array([normkit.batch_norm(batch, state, training=True)[0] for batch in batches])
in_inference = np.array([normkit.batch_norm(batch, state)[0] for batch in batches])
print(f"spread of the sample's result: {in_training.std(axis=0).mean():.3f} in training,", end=" ")
print(f"{np.ptp(in_inference, axis=0).max()} in inference")
assert 0.1 < in_training.std(axis=0).mean() < 0.3
assert (in_inference == in_inference[0]).all()  # the same bits
assert (normkit.batch_norm(sample, state) == in_inference[0]).all()  # also in a batch of one

# %%
# In training a batch of one would give nothing but β, whatever the sample. It is an error.

try:
    normkit.batch_norm(sample, None, training=True)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a batch of one has no variance")

# %%
# Moving averages
# ---------------
# running ← (1 − momentum) · running + momentum · batch, from mean 0 and variance 1. So the start is forgotten as
# (1 − momentum)\ :sup:`t`, and what remains is the noise of the batches, averaged over about 2/momentum of them: its
# variance is momentum / (2 − momentum) of that of one batch. ``momentum=None`` is the average of all batches.

steps = np.arange(1, STEPS + 1)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True)
print(f"after {STEPS} batches of {BATCH}, error in std:   measured  predicted")
for color, momentum in zip(LINES, (0.3, 0.1, 0.01, None), strict=True):
    state = normkit.BatchNormState(FEATURES, momentum=momentum, dtype="float64")
    rng, errors = np.random.default_rng(1), []
    for _ in range(STEPS):
        normkit.batch_norm(rng.normal(5, 3, (BATCH, FEATURES)), state, training=True)
        errors.append((state.running_mean - 5, state.running_var - 9))
    mean_error, var_error = (np.sqrt((np.array(e) ** 2).mean(axis=1)) for e in zip(*errors, strict=True))
    noise = 9 / BATCH  # variance of the mean of a batch
    if momentum is None:
        predicted = np.sqrt(noise / steps)
    else:
        kept = (1 - momentum) ** (2 * steps)
        predicted = np.sqrt(25 * kept + noise * momentum / (2 - momentum) * (1 - kept))
    print(f"    momentum={momentum!s:<28}{mean_error[-1] / 3:>8.4f}  {predicted[-1] / 3:>8.4f}")
    assert abs(mean_error[-1] / predicted[-1] - 1) < 0.2
    panels[0].loglog(steps, mean_error / 3, color=color, label=f"momentum={momentum}")
    panels[0].loglog(steps, predicted / 3, color=color, linestyle=(0, (4, 2)), alpha=0.7)
    panels[1].loglog(steps, var_error / 9, color=color)
panels[0].set(title="running_mean (dashed: predicted)", xlabel="batches", ylabel="error, in standard deviations")
panels[1].set(title="running_var", xlabel="batches", ylabel="relative error")
panels[0].legend(frameon=False)

# %%
# The average of all batches of one size is the mean of all data, exactly. The variances are those within batches, with
# divisor n − 1, without the spread of the batches' means: right on average for batches drawn at random. Moments,
# merged, are exact for the variance too.

data = rng.normal(5, 3, (10 * BATCH, FEATURES))
state = normkit.BatchNormState(FEATURES, momentum=None, dtype="float64")
for batch in np.split(data, 10):
    normkit.batch_norm(batch, state, training=True)
assert np.allclose(state.running_mean, data.mean(axis=0), atol=1e-12)
off = state.running_var / data.var(axis=0, ddof=1) - 1
print(f"cumulative variance against that of all data: {off.mean():+.4f} on average, {np.abs(off).max():.4f} at most")
assert abs(off.mean()) < 0.005 and np.abs(off).max() > 1e-4
merged = normkit.moments(data[:100]) + normkit.moments(data[100:])
assert np.allclose(merged.var(), data.var(axis=0), rtol=1e-12)

# %%
# **What came out.** All three claims hold. "Estimate" is the right word: with momentum 0.1 the averages never come
# closer than the noise of about twenty batches, however long the training; and they lag behind a network that changes.
