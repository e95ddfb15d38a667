"""Time normkit's scalers of tables against scikit-learn's: fit, transform, and both.

    python bench/scalers.py [--quick] [--new-pages] [--threads N] [--json FILE]

Results are checked against float64 before anything is timed. All entries of a table are timed in interleaved rounds;
printed are the least and the median milliseconds of normkit, and how many times as long scikit-learn takes, by the
least and by the median of each. `copy`: transform returns a new array; `in place`: it writes into its argument
(copy=False). New arrays lie in memory that was freed before, as in bench/run.py; with --new-pages the C library does
what it does by itself, which for tables of this size is to take new pages from the system at each call, of both.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sklearn
import sklearn.preprocessing

import machine
import normkit
import normkit.preprocessing
from timing import Entry, measure

SHAPES = ((100_000, 64), (1_000_000, 16), (4000, 4000))
QUICK_SHAPES = ((10_000, 64), (100_000, 16), (400, 4000))
CLASSES = ("StandardScaler", "MinMaxScaler")
STEPS = ("fit", "transform", "fit + transform")
LIBRARIES = {"normkit": normkit.preprocessing, "scikit-learn": sklearn.preprocessing}
TOLERANCE = 2e-6  # of float32 data; a few roundings of results of order 1


@dataclass(frozen=True)
class Case:
    """A table, a class and where results go."""

    shape: tuple[int, int]
    name: str
    in_place: bool

    @property
    def form(self) -> str:
        """As it is printed."""
        return "in place" if self.in_place else "copy"


def expected(X: np.ndarray, name: str) -> np.ndarray:
    """What a scaler gives, in float64."""
    wide = X.astype(np.float64)
    if name == "StandardScaler":
        return (wide - wide.mean(axis=0)) / wide.std(axis=0)
    return (wide - wide.min(axis=0)) / np.ptp(wide, axis=0)


def entries_of(case: Case, X: np.ndarray) -> list[Entry]:
    """One for each library and step, whose results are right."""
    entries, reference = [], expected(X, case.name)
    for library, module in LIBRARIES.items():
        scaler = getattr(module, case.name)(copy=not case.in_place)
        data = X.copy()
        result = scaler.fit(data).transform(data)
        if np.shares_memory(result, data) != case.in_place:
            raise SystemExit(f"{library} {case.name}: the result is not where it should be")
        error = abs(result - reference).max()
        if library == "normkit" and not error <= TOLERANCE:
            raise SystemExit(f"{library} {case.name} of {case.shape} is off by {error}")
        # In place, what is transformed again and again stays finite, and no special case.
        calls = {
            "fit": lambda scaler=scaler: scaler.fit(X),
            "transform": lambda scaler=scaler, data=data: scaler.transform(data),
            "fit + transform": lambda scaler=scaler, data=data: scaler.fit(data).transform(data),
        }
        entries += [Entry(library, step, call, error=float(error)) for step, call in calls.items()]
    return entries


def run(case: Case, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time a case, and print a line for each step."""
    X = np.random.default_rng(0).normal(3, 2, case.shape).astype(np.float32)
    entries = entries_of(case, X)
    measure(entries, rounds, seconds)
    samples = {(entry.provider, entry.form): entry.samples for entry in entries}
    records = []
    for step in STEPS:
        ours, own = samples["normkit", step], samples["scikit-learn", step]
        ratios = min(own) / min(ours), median(own) / median(ours)
        figures = f"{min(ours) * 1e3:9.2f} {median(ours) * 1e3:9.2f} {ratios[0]:9.1f} {ratios[1]:9.1f}"
        print(f"{case.shape[0]:>8} x {case.shape[1]:<5} {case.name:15} {case.form:9} {step:16}{figures}", flush=True)
        record = {"shape": case.shape, "class": case.name, "form": case.form, "step": step}
        records.append(record | {"normkit": ours, "scikit-learn": own})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small tables, few rounds")
    parser.add_argument("--new-pages", action="store_true", help="leave freed memory to the C library")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="where to write the samples")
    options = parser.parse_args()
    normkit.set_num_threads(options.threads)
    keeps = not options.new_pages and machine.keep_freed_memory()
    description = machine.describe() | {"freed_memory": "kept" if keeps else "left to the C library"}
    print(f"{description['cpu']}, {options.threads} threads, scikit-learn {sklearn.__version__}, float32")
    print(f"freed memory: {description['freed_memory']}; load average {description['load_average'][0]:.1f}")
    print(f"{'':51}{'least ms':>9} {'median ms':>9} {'times':>9} {'median':>9}")
    records = []
    for shape in QUICK_SHAPES if options.quick else SHAPES:
        for name in CLASSES:
            for in_place in (False, True):
                records += run(Case(shape, name, in_place), 5 if options.quick else 15, 1.0 if options.quick else 15.0)
    if options.json:
        result = {"machine": description, "scikit-learn": sklearn.__version__, "results": records}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
