"""What the scripts of the gallery share: the digits as rows, small perceptrons, and where pictures go.

A script of the gallery is run by Sphinx, which takes its pictures, or alone, `python examples/gallery/plot_axes.py`;
then they are written to examples/output/.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from threadpoolctl import threadpool_limits

from digits_plots import INK, LINES, MUTED, plt
from tiny_network import Linear, Module, Network
from train_digits import Digits
from train_digits import accuracy as share_recognized

__all__ = [
    "INK",
    "LINES",
    "MUTED",
    "QUICK",
    "SEEDS",
    "Switched",
    "accuracy",
    "digit_rows",
    "draw_band",
    "percent",
    "perceptron",
    "plt",
    "train",
]

OUTPUT = Path(__file__).resolve().parents[1] / "output"
QUICK = bool(os.environ.get("NORMKIT_QUICK"))  # the one place that asks
SEEDS = range(3 if QUICK else 6)

plt.rcParams["figure.constrained_layout.use"] = True
threadpool_limits(1)  # matrices as small as these are not worth waiting for a thread


@atexit.register
def save_pictures() -> None:
    """Write the figures that nobody has taken and closed: those of a script that runs alone."""
    for number in plt.get_fignums():
        OUTPUT.mkdir(exist_ok=True)
        path = OUTPUT / f"{Path(sys.argv[0]).stem.removeprefix('plot_')}_{number}.png"
        plt.figure(number).savefig(path, dpi=110)
        print(f"wrote {path}")


class Switched(Module):
    """A layer that does something else in training than in evaluation."""

    training = True

    def train(self, mode: bool = True) -> Switched:
        self.training = mode
        return self


def digit_rows() -> Digits:
    """Return the digits of train_digits.py as rows of 64 pixels from 0 to 1."""
    digits = Digits.load()
    return replace(digits, x=digits.x.reshape(-1, 64), test_x=digits.test_x.reshape(-1, 64))


def perceptron(widths: Sequence[int], seed: int, between: Callable[[int], list]) -> Network:
    """Return linear layers of these widths, and between two of them what `between` makes of the width."""
    rng = np.random.default_rng(seed)
    layers: list = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [Linear(inputs, outputs, rng), *between(outputs)]
    return Network([*layers, Linear(*widths[-2:], rng)])


def train(model: Network, digits: Digits, *, rate: float, epochs: int, seed: int, batch: int = 64) -> list[float]:
    """Train, and return the loss of every step; a network that diverges stays as bad as it is."""
    rng, losses = np.random.default_rng(seed + 1000), []
    model.train()
    with np.errstate(all="ignore"):  # too large a learning rate overflows: that is a result, not a fault
        for _ in range(epochs):
            order = rng.permutation(len(digits.x))
            for part in np.split(order, range(batch, len(order), batch)):
                if len(part) > 1:  # a feature of a single row has no variance
                    losses.append(model.step(digits.x[part], digits.labels[part], rate))
    return losses


def accuracy(model: Network, digits: Digits) -> float:
    """Return the share of held-out images recognized, by the moving averages."""
    with np.errstate(all="ignore"):
        return share_recognized(model, digits)


def draw_band(axes: Any, x: Sequence[float], values: np.ndarray, label: str, color: str) -> None:
    """Draw accuracies in percent, means over the last axis, and the range around them."""
    axes.plot(x, 100 * values.mean(axis=-1), "o-", color=color, label=label, markersize=4)
    low, high = 100 * values.min(axis=-1), 100 * values.max(axis=-1)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_ylabel("accuracy on held-out digits, %")


def percent(values: Sequence[float]) -> str:
    """Format mean, lowest and highest of some accuracies."""
    return f"{100 * np.mean(values):.1f} % ({100 * np.min(values):.1f} to {100 * np.max(values):.1f})"
