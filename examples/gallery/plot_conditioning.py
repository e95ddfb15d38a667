"""
Why features of one scale are learned faster
============================================

**The claim.** Gradient descent is slow where features have different scales, because the loss is a long narrow valley;
after standardization it is nearly round, and a larger step does.

**The check.** A linear regression on scikit-learn's diabetes data, ten features in their own units. The curvature of
its loss is a matrix that can be computed; the number of steps that gradient descent takes grows with the ratio of the
largest to the least curvature, the condition number.
"""

import numpy as np
from sklearn.datasets import load_diabetes

import normkit
from common import LINES, plt

raw, target = load_diabetes(return_X_y=True, scaled=False)
designs = {
    "as they are": raw,
    "divided by their std": raw / raw.std(axis=0),
    "standardized": normkit.standardize(raw),
}
STEPS = 20000


def descend(design):
    """Return the condition number, and the distance from the least loss after every step, relative to the first."""
    a = np.column_stack([np.ones(len(design)), design])  # the first feature makes the intercept
    curvatures = np.linalg.eigvalsh(a.T @ a / len(a))
    best = np.linalg.lstsq(a, target)[0]
    parameters, losses = np.zeros(a.shape[1]), []
    for _ in range(STEPS):
        losses.append(np.mean((a @ (parameters - best)) ** 2))
        parameters -= a.T @ (a @ parameters - target) / len(a) / curvatures[-1]  # the largest step that is safe
    return curvatures[-1] / curvatures[0], np.array(losses) / losses[0]


figure, axes = plt.subplots(figsize=(7, 4))
numbers, steps = {}, {}
print(f"{'':<24}{'condition number':>18}{'steps to 1 %':>20}")
for color, (name, design) in zip(LINES, designs.items(), strict=False):
    numbers[name], losses = descend(design)
    arrived = np.flatnonzero(losses < 0.01)
    steps[name] = int(arrived[0]) if len(arrived) else STEPS
    text = str(steps[name]) if len(arrived) else f"more than {STEPS}"
    print(f"{name:<24}{numbers[name]:>18.0f}{text:>20}")
    axes.loglog(np.arange(1, STEPS + 1), losses, color=color, label=name)
axes.set(xlabel="steps of gradient descent", ylabel="loss above the least, relative", ylim=(1e-6, 2))
axes.legend(frameon=False)

# %%
# Both halves of the z-score take part: dividing by the standard deviation brings the features to one scale, and
# subtracting the mean separates them from the intercept.

assert numbers["as they are"] > 100 * numbers["divided by their std"] > 100 * numbers["standardized"]
assert steps["standardized"] < 100 < steps["divided by their std"]
assert steps["as they are"] > 10 * steps["standardized"]

# %%
# **What came out.** The claim holds. What standardization does not remove is the correlation of features: the
# condition number is still not 1. BatchNorm does the same for the inputs of every layer, feature by feature, and does
# not decorrelate them either.
