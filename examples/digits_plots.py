"""The plots of digits.py. Nothing here knows a normalizer: what is drawn is what digits.py measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # files only: works without a display

import matplotlib.pyplot as plt
from matplotlib.collections import PolyCollection

INK, MUTED = "#22303c", "#6b7a86"
SHARED, OTHERS = ("#f4a259", "#e07b39", "#bc5a22"), ("#f2f4f6", "#e3e8ec", "#d3dae0")  # top, left, right side
LINES = ("#bc4b51", "#e07b39", "#3d7ea6", "#22303c")

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
)

# Screen directions of the three axes of a block, seen so that element (0, 0, 0) is the corner next to the reader.
TO_N, TO_C, TO_S = np.array([-0.866, 0.5]), np.array([0.866, 0.5]), np.array([0.0, -1.0])


def draw_block(axes: Any, members: np.ndarray) -> None:
    """Draw the three visible sides of an N x C x S block; elements that share the corner's statistic stand out."""
    sides = ((members[:, :, 0], TO_N, TO_C), (members[:, 0, :], TO_N, TO_S), (members[0], TO_C, TO_S))
    for number, (side, along, across) in enumerate(sides):
        for i, j in np.ndindex(side.shape):
            corner = i * along + j * across
            cell = [corner, corner + along, corner + along + across, corner + across]
            color = (SHARED if side[i, j] else OTHERS)[number]
            axes.add_collection(PolyCollection([cell], facecolor=color, edgecolor="white", linewidth=0.8))
    n, c, s = members.shape
    for text, where, shift in (
        ("N", s * TO_S + n / 2 * TO_N, (-0.55, -0.75)),
        ("C", s * TO_S + c / 2 * TO_C, (0.55, -0.75)),
        ("H·W", n * TO_N + s / 2 * TO_S, (-1.0, 0.0)),
    ):
        axes.text(*(where + shift), text, ha="center", va="center", fontsize=9, color=MUTED)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.autoscale_view()


def draw_sets(path: Path, blocks: list[tuple[str, str, str, np.ndarray]]) -> Path:
    """Draw one block per normalizer: its name, its call, the axes of its statistics, and a boolean N x C x H x W."""
    columns = 3
    figure, grid = plt.subplots(-(-len(blocks) // columns), columns, figsize=(9.6, 10.2), layout="constrained")
    for axes, (name, call, over, members) in zip(grid.flat, blocks, strict=True):
        draw_block(axes, members.reshape(*members.shape[:2], -1))
        axes.set_title(f"statistic over {over}", fontsize=9, color=SHARED[2], pad=4)
        axes.text(0.5, 1.2, name, transform=axes.transAxes, ha="center", fontsize=12, fontweight="bold")
        axes.text(0.5, 1.12, call, transform=axes.transAxes, ha="center", fontsize=8, family="DejaVu Sans Mono")
    figure.suptitle("Which elements share a statistic with the corner nearest to you", fontsize=13)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def draw_channels(path: Path, channels: list[str], images: dict[str, np.ndarray]) -> Path:
    """Draw one digit, a row per normalizer and a column per channel; each row has one colour scale."""
    figure, grid = plt.subplots(len(images), len(channels), figsize=(9.6, 10.4), layout="constrained")
    for row, (name, image) in zip(grid, images.items(), strict=True):
        limit = float(np.abs(image).max())
        for axes, channel in zip(row, image, strict=True):
            shown = axes.imshow(channel, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        bar = figure.colorbar(shown, ax=row, fraction=0.02, pad=0.01, ticks=[-limit, 0, limit], format="%.3g")
        bar.outline.set_visible(False)
    for axes, channel in zip(grid[0], channels, strict=True):
        axes.set_title(channel, fontsize=10)
    figure.suptitle("One digit through eight filters, before and after: one colour scale to a row", fontsize=13)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def draw_convergence(path: Path, curves: list[Any]) -> Path:
    """Draw the errors of the moving averages against the number of mini-batches, measured and predicted."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained", sharex=True)
    for color, curve in zip(LINES, curves, strict=True):
        steps = np.unique(np.geomspace(1, len(curve.mean_error), 150).astype(int))  # evenly on the logarithmic axis
        for axes, error, predicted in (
            (left, curve.mean_error, curve.predicted_mean_error),
            (right, curve.var_error, curve.predicted_var_error),
        ):
            axes.loglog(steps, error[steps - 1], color=color, linewidth=1.1, label=curve.label)
            axes.loglog(steps, predicted[steps - 1], color=color, linewidth=1.4, linestyle=(0, (4, 2)), alpha=0.7)
    left.set(title="running_mean", xlabel="mini-batches", ylabel="error, in standard deviations")
    right.set(title="running_var", ylabel="relative error", xlabel="mini-batches")
    for axes in (left, right):
        axes.grid(which="major", color="#e3e8ec", linewidth=0.8)
    left.legend(frameon=False, fontsize=9)
    figure.suptitle("Moving averages against the statistics of the whole set (dashed: predicted)", fontsize=13)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
