"""
Normalization and standardization: what they mean, and how they differ
======================================================================

**The claims.** *Normalization* (min-max scaling) maps the smallest value of a feature to 0 and the largest to 1;
*standardization* (the z-score) gives it mean 0 and standard deviation 1. Normalization suffers from outliers,
standardization less so. Methods that compare distances need one of them.
"""

import numpy as np
from sklearn.datasets import load_wine
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

import normkit
from common import LINES, MUTED, percent, plt
from normkit.preprocessing import MinMaxScaler, StandardScaler

x = np.random.default_rng(0).gamma(2.0, 10.0, 1000)  # 0 and up, with a long tail
ranged, standardized = normkit.min_max_scale(x), normkit.standardize(x)

assert ranged.min() == 0 and ranged.max() == 1
assert abs(standardized.mean()) < 1e-12 and abs(standardized.std() - 1) < 1e-12
assert np.abs(standardized).max() > 3  # no bounds

# %%
# The shape stays
# ---------------
# Both are linear: they move and stretch the histogram and leave its shape alone. Neither makes data normally
# distributed, whatever the name suggests; the skewness stays what it was.


def skewness(v):
    """Return the third standardized moment."""
    return float((((v - v.mean()) / v.std()) ** 3).mean())


print(f"{'':<14}{'least':>8}{'largest':>9}{'mean':>8}{'std':>8}{'skewness':>10}")
for name, v in {"data": x, "min-max": ranged, "z-score": standardized}.items():
    print(f"{name:<14}{v.min():>8.2f}{v.max():>9.2f}{v.mean() + 0.0:>8.2f}{v.std():>8.2f}{skewness(v):>10.3f}")
    assert np.isclose(skewness(v), skewness(x))

# %%
# One outlier
# -----------
# One value in a thousand, ten times the largest: how much of their spread do the others keep?

outlier = np.append(x, 10 * x.max())
kept = {
    "min-max": normkit.min_max_scale(outlier)[:-1].std() / ranged.std(),
    "z-score": normkit.standardize(outlier)[:-1].std() / standardized.std(),
}
print("spread that the others keep:", ", ".join(f"{name} {share:.0%}" for name, share in kept.items()))
assert kept["min-max"] < 0.11 < 0.4 < kept["z-score"] < 0.6  # less so, but by no means not at all

figure, panels = plt.subplots(2, 3, figsize=(9, 4.6))
for row, data in zip(panels, (x, outlier), strict=True):
    scaled = {"data": data, "min-max": normkit.min_max_scale(data), "z-score": normkit.standardize(data)}
    for axes, color, (name, v) in zip(row, (MUTED, *LINES[::2]), scaled.items(), strict=True):
        axes.hist(v, 60, color=color)
        axes.set(title=name, yscale="log")
panels[0, 0].set_ylabel("values")
panels[1, 0].set_ylabel("with an outlier")

# %%
# Distances
# ---------
# The wine data have 13 features, from hundredths of a hue to more than a thousand milligrams of proline. Nearest
# neighbours see little but proline, until the features have one scale; scales are those of the training rows. A
# decision tree compares no features with each other, and does not care.

features, labels = load_wine(return_X_y=True)
folds = np.random.default_rng(0).permutation(len(features)) % 10
scores: dict[str, list[float]] = {}
for fold in range(10):
    rows, held_out = folds != fold, folds == fold
    for name, scaler in {"as they are": None, "min-max": MinMaxScaler(), "z-score": StandardScaler()}.items():
        a, b = features[rows], features[held_out]
        if scaler is not None:
            a, b = scaler.fit_transform(a), scaler.transform(b)
        for model in (KNeighborsClassifier(5), DecisionTreeClassifier(random_state=0)):
            score = model.fit(a, labels[rows]).score(b, labels[held_out])
            scores.setdefault(f"{type(model).__name__}, {name}", []).append(float(score))
for name, values in scores.items():
    print(f"{name:<36}{percent(values)}")

mean = {name: np.mean(values) for name, values in scores.items()}
assert mean["KNeighborsClassifier, z-score"] > mean["KNeighborsClassifier, as they are"] + 0.15
assert mean["KNeighborsClassifier, min-max"] > mean["KNeighborsClassifier, as they are"] + 0.15
assert abs(mean["DecisionTreeClassifier, z-score"] - mean["DecisionTreeClassifier, as they are"]) < 0.02

# %%
# **What came out.** The definitions hold to rounding, and distances need a common scale. Beside an outlier
# standardization keeps more of the spread of the other values than min-max scaling, but loses about half of it too.
