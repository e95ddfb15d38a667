"""Digits kept of the means and standard deviations of NIST's reference data: the tables in docs/accuracy.md.

python bench/digits.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

import normkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import strd

BEST, TEXTBOOK = "best", "E[x²]−E[x]²"
LIBRARIES = ("normkit", "NumPy", "scikit-learn")


def statistics(x: np.ndarray) -> dict[str, strd.Statistics]:
    """Return mean and standard deviation of divisor n - 1, as everybody finds them; NumPy in the precision of `x`."""
    moments, scaler, mean, unbiased = normkit.moments(x), StandardScaler().fit(x[:, None]), np.mean(x), len(x) - 1
    squares = max(np.mean(x * x) - mean * mean, 0)
    return {
        BEST: strd.exact(x.tolist()),
        "normkit": (float(moments.mean), float(moments.std(ddof=1))),
        "NumPy": (float(mean), float(np.std(x, ddof=1))),
        "scikit-learn": (float(scaler.mean_[0]), float(np.sqrt(scaler.var_[0] * len(x) / unbiased))),
        TEXTBOOK: (float(mean), float(np.sqrt(squares * len(x) / unbiased))),
    }


def table(dtype: type) -> list[str]:
    """Return the lines of one table.

    In float64, digits of what NIST certifies. There BEST stands for the exact statistics of the values as they are
    after rounding to float64. In float32, where rounding changes the data beyond recognition, digits of these.
    """
    best = [BEST] if dtype is np.float64 else []
    columns = {"mean": [*best, *LIBRARIES], "std": [*best, *LIBRARIES, TEXTBOOK]}
    heads = [f"{statistic}: {name}" for statistic, names in columns.items() for name in names]
    lines = [f"| set | values | {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) + 1)]
    for own in strd.SETS.values():
        x = own.array(dtype)
        found = statistics(x)
        expected = strd.exact(own.values) if best else found[BEST]
        cells = [strd.digits(found[name][i], expected[i]) for i, names in enumerate(columns.values()) for name in names]
        lines.append(f"| {own.name} | {len(x)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(np.float64)), "\n".join(table(np.float32)), sep="\n\n")
