"""The plots of train_digits.py: lines of means over seeds, with bands from the lowest to the highest."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from digits_plots import INK, MUTED, plt

COLORS = ("#6b7a86", "#bc4b51", "#e39a9d", "#3d7ea6", "#5b8e5a", "#e0a339")


def finish(figure: Any, path: Path, caption: str) -> Path:
    """Put the caption under the plot and write the file."""
    figure.text(0.02, 0.015, "\n".join(textwrap.wrap(caption, 108)), fontsize=8.5, color=MUTED, va="bottom")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_band(axes: Any, x: Sequence[float], values: np.ndarray, label: str, **style: Any) -> None:
    """Draw one line, and the range over seeds (the last axis of `values`) around it."""
    percent = 100 * values
    (line,) = axes.plot(x, percent.mean(axis=-1), marker="o", markersize=3.5, label=label, **style)
    axes.fill_between(x, percent.min(axis=-1), percent.max(axis=-1), color=line.get_color(), alpha=0.13, linewidth=0)


def draw_curves(path: Path, x: Sequence[float], curves: dict[str, np.ndarray], of: str, caption: str) -> Path:
    """Draw accuracy against what was varied, one line for each normalizer."""
    figure, axes = plt.subplots(figsize=(8, 4.6))
    figure.subplots_adjust(left=0.08, right=0.77, top=0.96, bottom=0.25)
    for (name, values), color in zip(curves.items(), COLORS, strict=False):
        draw_band(axes, x, values, name, color=color)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_xlabel(of)
    axes.set_ylabel("accuracy on held-out digits, %")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=INK)
    return finish(figure, path, caption)


def draw_epochs(path: Path, pairs: dict[int, tuple[np.ndarray, np.ndarray]], caption: str) -> Path:
    """Draw accuracy by epoch, (seeds x epochs) each, with moving averages and with statistics of the batch."""
    figure, panels = plt.subplots(1, len(pairs), figsize=(8, 4.2), sharey=True)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.27, wspace=0.08)
    for axes, (batch, (averaged, of_batch)) in zip(panels, pairs.items(), strict=True):
        epochs = range(1, averaged.shape[1] + 1)
        draw_band(axes, epochs, averaged.T, "moving averages", color=COLORS[1])
        draw_band(axes, epochs, of_batch.T, "statistics of the batch", color=COLORS[3])
        axes.set_title(f"BatchNorm, batches of {batch}", fontsize=10)
        axes.set_xticks(epochs)
        axes.set_xlabel("epoch")
    panels[0].set_ylabel("accuracy on held-out digits, %")
    panels[0].legend(frameon=False, loc="lower right")
    return finish(figure, path, caption)
