"""Time every forward pass against NumPy, PyTorch and a plain copy of the same bytes.

    python bench/run.py [--quick] [--threads 1 2] [--dtype float32] [--filter TEXT] [--json FILE]

Each result is checked against the float64 oracle before it is timed. All entries of a workload are then timed in
interleaved rounds: what disturbs the machine for a while disturbs all of them. NOTES.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import geometric_mean, median
from types import ModuleType
from typing import Any

import numpy as np

import machine
import providers
from workloads import Workload, workloads

SAMPLE_SECONDS = 2e-3  # calls are repeated until a sample lasts so long
PAUSE_SECONDS = 20e-3  # an OpenMP runtime's idle threads keep spinning for some milliseconds: let them go to sleep


@dataclass
class Entry:
    """One way of doing a workload: a provider, with or without a ready buffer."""

    provider: str
    form: str  # "out": into a ready buffer; "new": into a fresh array
    call: Callable[[], Any]
    error: float = 0.0  # largest difference from the oracle
    repeat: int = 1
    samples: list[float] = field(default_factory=list)  # seconds per call

    @property
    def name(self) -> str:
        """The heading of a column."""
        return f"{self.provider} {self.form}"


def entries_of(workload: Workload, loaded: dict[str, ModuleType]) -> list[Entry]:
    """Prepare every provider and form, and check each result: what is wrong has no speed."""
    data = workload.data()
    expected, entries = workload.expected(data), []
    tolerance = workload.tolerance(expected)
    for provider, module in loaded.items():
        for form in ("out", "new"):
            out = np.full_like(data.x, np.nan) if form == "out" else None
            call = module.prepare(workload, data, out)
            if call is None:
                continue
            result = module.to_numpy(workload, call())
            error = float(np.abs(result - (data.x if provider == "copy" else expected)).max())
            if not error <= tolerance:
                raise SystemExit(f"{provider} {form} on {workload.name}: off by {error}, allowed are {tolerance}")
            entries.append(Entry(provider, form, call, error))
    return entries


def sample(entry: Entry) -> float:
    """Return the seconds of one call. An unmeasured call comes first: it wakes the threads and fills the caches."""
    time.sleep(PAUSE_SECONDS)
    entry.call()
    start = time.perf_counter()
    for _ in range(entry.repeat):
        entry.call()
    return (time.perf_counter() - start) / entry.repeat


def measure(entries: list[Entry], rounds: int) -> None:
    """Take `rounds` samples of each entry, all entries in each round, another one first each time."""
    for entry in entries:
        entry.repeat = max(1, round(SAMPLE_SECONDS / sample(entry)))
    for turn in range(rounds):
        first = turn % len(entries)
        for entry in entries[first:] + entries[:first]:
            entry.samples.append(sample(entry))


def record(workload: Workload, threads: int, entry: Entry, roof: float) -> dict[str, Any]:
    """Return one result, ready for JSON. `roof` is the median of the copy."""
    middle = median(entry.samples)
    return {
        "workload": workload.name,
        "operation": workload.operation,
        "layout": workload.layout,
        "shape": workload.shape,
        "dtype": workload.dtype,
        "threads": threads,
        "provider": entry.provider,
        "form": entry.form,
        "min_seconds": min(entry.samples),
        "median_seconds": middle,
        "bytes_moved": workload.bytes_moved,
        "gigabytes_per_second": workload.bytes_moved / middle / 1e9,
        "share_of_copy": roof / middle,
        "error": entry.error,
        "samples": len(entry.samples),
    }


COLUMNS = ("normkit out", "normkit new", "torch new", "numpy new")


def print_heading(threads: int, columns: list[str]) -> None:
    """Print the two lines above the rows."""
    print(f"\n{threads} thread{'s' * (threads > 1)}: min and median in ms; x: median, as a multiple of the copy's")
    head = f"{'':<47}{'copy':^24}"
    names = f"{'workload':<47}{'min':>8}{'median':>8}{'GB/s':>7} "
    for column in columns:
        head += f"{column:^24}"
        names += f"{'min':>8}{'median':>8}{'x':>7} "
    print(head.rstrip())
    print(names.rstrip(), flush=True)


def print_row(workload: Workload, entries: list[Entry], columns: list[str]) -> None:
    """Print one workload."""
    by_name = {entry.name: entry for entry in entries}
    roof = by_name["copy out"].samples
    line = f"{workload.name:<47}{min(roof) * 1e3:>8.2f}{median(roof) * 1e3:>8.2f}"
    line += f"{workload.bytes_moved / median(roof) / 1e9:>7.1f} "
    for column in columns:
        if column in by_name:
            samples = by_name[column].samples
            line += f"{min(samples) * 1e3:>8.2f}{median(samples) * 1e3:>8.2f}{median(samples) / median(roof):>7.2f} "
        else:
            line += f"{'–':>23} "
    print(line.rstrip(), flush=True)


def print_means(records: Iterable[dict[str, Any]], threads: int) -> None:
    """Print geometric means over the workloads."""
    chosen = [r for r in records if r["threads"] == threads]
    medians = {(r["workload"], f"{r['provider']} {r['form']}"): r["median_seconds"] for r in chosen}
    names = sorted({workload for workload, _ in medians})
    for over, under in (("normkit out", "copy out"), ("normkit new", "copy out"), ("torch new", "normkit new")):
        ratios = {n: medians[n, over] / medians[n, under] for n in names if {(n, over), (n, under)} <= medians.keys()}
        if ratios:
            low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
            mean = f"geometric mean {geometric_mean(ratios.values()):.2f}"
            print(f"{over} / {under}: {mean}, least {ratios[low]:.2f} ({low}), most {ratios[high]:.2f} ({high})")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds: checks the benchmark itself")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))], metavar="N")
    parser.add_argument("--dtype", choices=("float32", "float64", "float16"), default="float32")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only workloads whose name contains TEXT")
    parser.add_argument("--providers", nargs="+", choices=providers.NAMES, default=providers.NAMES)
    parser.add_argument("--rounds", type=int, help="samples of each entry (default 15, or 3 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    options = parser.parse_args()

    chosen = [w for w in workloads(options.dtype, options.quick) if options.filter in w.name]
    if not chosen:
        parser.error(f"no workload's name contains {options.filter!r}")
    loaded, missing = providers.load(tuple(dict.fromkeys(("copy", *options.providers))))
    for name, reason in missing.items():
        print(f"without {name}: {reason}")
    description = machine.describe()
    print(f"{description['cpu']}, {description['cores']} cores; normkit uses {description['normkit']['isa']}")

    records: list[dict[str, Any]] = []
    columns = [column for column in COLUMNS if column.split()[0] in loaded]
    for threads in dict.fromkeys(options.threads):
        for module in loaded.values():
            module.set_threads(threads)
        print_heading(threads, columns)
        for workload in chosen:
            entries = entries_of(workload, loaded)
            measure(entries, options.rounds or (3 if options.quick else 15))
            print_row(workload, entries, columns)
            roof = median(next(entry.samples for entry in entries if entry.provider == "copy"))
            records += [record(workload, threads, entry, roof) for entry in entries]
        print_means(records, threads)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        versions = {name: module.VERSION for name, module in loaded.items()}
        report = {"machine": description, "providers": versions, "quick": options.quick, "results": records}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
