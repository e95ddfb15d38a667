"""Time against size, time against threads, and the memory that a call takes beyond its arrays.

    python bench/scaling.py [--largest MB] [--filter TEXT] [--json FILE]

Time should grow linearly with size, fall with threads as far as the copy's does, and the extra memory, which each size
is given a process of its own to find, should be that of the statistics and never that of the tensor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import machine
import normkit
from providers import copy
from timing import Entry, measure
from workloads import Workload

ROW, CHANNELS, PLANE = 1024, 64, 56
SECONDS, ROUNDS = 1.5, 9


@dataclass(frozen=True)
class Kind:
    """An operation whose size can be chosen; sizes are multiples of a sample's."""

    operation: str
    layout: str
    sample: tuple[int, ...]

    def workload(self, size: int) -> Workload:
        """Return the one whose tensor has about `size` bytes."""
        return Workload.named(
            self.operation, self.layout, (max(2, size // (4 * int(np.prod(self.sample)))), *self.sample)
        )

    def call(self, x: np.ndarray, out: np.ndarray) -> Callable[[], Any]:
        """Return the call, into a ready buffer."""
        channels = CHANNELS if self.layout != "rows" else ROW
        weight, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        if self.operation == "batch_norm_training":
            axis = -1 if self.layout == "NHWC" else 1
            return partial(normkit.batch_norm, x, None, weight, bias, training=True, axis=axis, out=out)
        return partial(normkit.layer_norm, x, weight, bias, out=out)


KINDS = (
    Kind("layer_norm", "rows", (ROW,)),
    Kind("batch_norm_training", "NCHW", (CHANNELS, PLANE, PLANE)),
    Kind("batch_norm_training", "NHWC", (CHANNELS, PLANE, PLANE)),
)


def filled(shape: tuple[int, ...]) -> np.ndarray:
    """Make data without a temporary of its size."""
    x, block = np.empty(shape, np.float32), np.random.default_rng(0).normal(size=1 << 16).astype(np.float32)
    flat = x.reshape(-1)
    for start in range(0, flat.size, block.size):
        part = flat[start : start + block.size]
        part[:] = block[: part.size]
    return x


def _peak() -> int:
    """The largest memory that this process has had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) << 10


def extra_memory(kind: Kind, size: int) -> int:
    """Return by how much a call raises the peak of a process that holds its arrays already."""
    for small in (1, 1 << 22):  # threads and what they keep for good are not the call's; the second uses them
        x = filled(kind.workload(small).shape)
        kind.call(x, np.zeros_like(x))()
    x = filled(kind.workload(size).shape)
    out = np.zeros_like(x)
    out.fill(1)  # zeros alone are not memory yet
    call, before = kind.call(x, out), _peak()
    call()
    return _peak() - before


def times(kind: Kind, size: int, threads: int) -> dict[str, Any]:
    """Time one size beside the copy."""
    workload = kind.workload(size)
    for set_threads in (copy.set_threads, normkit.set_num_threads):
        set_threads(threads)
    x = filled(workload.shape)
    entries = [Entry("copy", form, way) for form, way in copy.ways(workload).items() if form != "new"]
    entries.append(Entry("normkit", "out", kind.call(x, np.zeros_like(x))))
    measure(entries, ROUNDS, SECONDS)
    return {
        "workload": workload.name,
        "tensor_bytes": workload.tensor_bytes,
        "threads": threads,
        "copy_seconds": min(entry.median for entry in entries[:-1]),
        "median_seconds": entries[-1].median,
        "min_seconds": min(entries[-1].samples),
    }


def sizes(largest: int) -> list[int]:
    """Return powers of four megabytes, as far as four arrays of the size fit into what memory is free."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    most = min(largest << 20, free // 5)
    return [size << 20 for size in (1, 4, 16, 64, 256, 1024, 4096) if size << 20 <= most]


def show(found: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"{'MB':>8}{'threads':>9}{'ms':>10}{'GB/s':>8}{'x copy':>8}{'speed-up':>10}{'of copy':>9}{'extra KB':>10}")
    single = {r["tensor_bytes"]: r for r in found if r["threads"] == 1}
    for r in found:
        one, seconds = single[r["tensor_bytes"]], r["median_seconds"]
        extra = f"{r['extra_bytes'] >> 10:>10}" if "extra_bytes" in r else ""
        print(
            f"{r['tensor_bytes'] / (1 << 20):>8.1f}{r['threads']:>9}{seconds * 1e3:>10.3f}"
            f"{2 * r['tensor_bytes'] / seconds / 1e9:>8.1f}{seconds / r['copy_seconds']:>8.2f}"
            f"{one['median_seconds'] / seconds:>10.2f}{one['copy_seconds'] / r['copy_seconds']:>9.2f}{extra}"
        )


def main() -> None:
    """Run all kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=1024, metavar="MB", help="size of the largest tensor (1024)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only operations and layouts that contain TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    options = parser.parse_args()
    every, results = len(os.sched_getaffinity(0)), []
    counts = sorted({*(1 << i for i in range(every.bit_length())), every} & set(range(1, every + 1)))
    spawn = multiprocessing.get_context("spawn")
    for kind in KINDS:
        title = f"{kind.operation} {kind.layout}"
        if options.filter not in title:
            continue
        print(f"\n{title}, {'x'.join(map(str, kind.sample))} float32")
        found = []
        for size in sizes(options.largest):
            for threads in counts:
                found.append(times(kind, size, threads))
            with spawn.Pool(1) as pool:  # a process whose peak is not yet that of something else
                found[-1]["extra_bytes"] = pool.apply(extra_memory, (kind, size))
        show(found)
        results += found
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine.describe(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
