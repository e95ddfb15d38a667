"""A picture of a run: each workload's times as multiples of a copy of the same bytes."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

Case = tuple[str, int]

# What is drawn, in which colour and how. normkit last, so that it lies on top.
MARKS: dict[str, tuple[str, str, str]] = {
    "NumPy": ("numpy new", "#b0b0b0", "|"),
    "scikit-learn": ("sklearn new", "#c9a227", "D"),
    "ONNX Runtime": ("onnxruntime out", "#7b5ea7", "v"),
    "oneDNN": ("onednn out", "#2a7fba", "s"),
    "PyTorch": ("torch new", "#e0603c", "^"),
    "normkit, allocating": ("normkit new", "#1b7f4d", "o"),
    "normkit": ("normkit out", "#1b7f4d", "o"),
}
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw(cases: dict[Case, dict[str, float]], caption: str, path: Path) -> None:
    """Draw one row per workload, grouped by operation, time as a multiple of the copy's on a logarithmic axis."""
    most = max((threads for _, threads in cases), default=1)
    chosen = {name: times for (name, threads), times in cases.items() if threads == most}
    names = sorted(chosen, key=lambda name: list(dict.fromkeys(n.split()[0] for n in chosen)).index(name.split()[0]))
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.21 * len(names)), layout="constrained")
    for label, (form, colour, marker) in MARKS.items():
        found = [
            (chosen[name][form] / chosen[name]["copy"], row) for row, name in enumerate(names) if form in chosen[name]
        ]
        if found:
            face = "none" if "allocating" in label else colour
            style = dict(color=colour, markerfacecolor=face, markersize=5.5, linestyle="none")
            axes.plot(*zip(*found, strict=True), marker, label=label, **style)
    axes.axvline(1, color="black", linewidth=1)
    for row in range(1, len(names)):
        if names[row].split()[0] != names[row - 1].split()[0]:
            axes.axhline(row - 0.5, color="#cccccc", linewidth=0.8)
    axes.set_yticks(range(len(names)), [name.removesuffix(" float32") for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    axes.set_axisbelow(True)
    threads = f"{most} thread{'s' * (most > 1)}"
    axes.set_xlabel(
        f"time, as a multiple of that of a copy of the same bytes ({threads}, medians)\n{fill(caption, 120)}",
        fontsize=8,
    )
    figure.legend(loc="outside upper center", ncols=len(MARKS), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
