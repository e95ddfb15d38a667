"""Time every operation against NumPy, PyTorch, oneDNN, ONNX Runtime, scikit-learn and a copy of the same bytes.

    python bench/run.py [--quick | --smoke] [--filter TEXT] [--json FILE] [--markdown FILE] [--plot FILE]

Without either the whole matrix runs, which takes most of an hour on two cores; --quick, a choice of it, takes three
minutes; --smoke checks the benchmark itself. Each result is checked against the float64 oracle before it is timed. All
entries of a workload are then timed in interleaved rounds. docs/speed.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import machine
import oracle
import providers
import report
from matrix import MATRICES
from providers import copy
from timing import Entry, measure
from workloads import DTYPES, Data, Workload

# By matrix: the seconds in which to take a workload's samples, and the largest number of rounds.
BUDGETS = {"smoke": (0.0, 2), "quick": (3.0, 15), "full": (4.0, 15)}


@dataclass
class Session:
    """What is under test, and what has come out so far."""

    loaded: dict[str, ModuleType]
    records: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)  # what a library could not do, and why
    wrong: list[dict[str, Any]] = field(default_factory=list)  # what it did, but not well enough to be timed

    def set_threads(self, threads: int) -> None:
        """Let everything use so many threads."""
        for module in (copy, *self.loaded.values()):
            module.set_threads(threads)


def entry_of(
    session: Session, provider: str, ready: bool, workload: Workload, data: Data, expected: tuple[np.ndarray, ...]
) -> Entry | None:
    """Prepare one provider and form, and check its results: what is wrong has no speed."""
    module, form = session.loaded[provider], "out" if ready else "new"
    label = {"workload": workload.name, "provider": provider, "form": form}
    try:
        call = module.prepare(workload, data, ready)
        if call is None:
            return None
        found = oracle.errors(module.results(workload, call()), expected)
    except Exception as reason:  # a peer that fails is left out, whatever it raises
        if provider == "normkit":
            raise
        session.refused.append(label | {"reason": str(reason)})
        return None
    share = max(error / most for error, most in zip(found, oracle.tolerances(workload, expected), strict=False))
    if not share <= 1:  # NaN is not either
        session.wrong.append(label | {"errors": found})
        print(f"  WRONG, and not timed: {provider} {form} on {workload.name}: off by {found}", flush=True)
        return None
    return Entry(provider, form, call, share)


def record(workload: Workload, threads: int, entry: Entry, roof: Entry, others: float) -> dict[str, Any]:
    """Return one result, ready for JSON."""
    return {
        "workload": workload.name,
        "operation": workload.operation.name,
        "layout": workload.layout,
        "shape": workload.shape,
        "dtype": workload.dtype,
        "threads": threads,
        "provider": entry.provider,
        "form": entry.form,
        "min_seconds": min(entry.samples),
        "median_seconds": entry.median,
        "bytes_moved": workload.bytes_moved,
        "gigabytes_per_second": workload.bytes_moved / entry.median / 1e9,
        "roof": roof.form,
        "share_of_copy": roof.median / entry.median,
        "error_in_tolerances": entry.error,
        "samples": len(entry.samples),
        "others": others,
    }


def run(session: Session, workload: Workload, threads: tuple[int, ...], seconds: float, rounds: int) -> None:
    """Time one workload with each number of threads, and print its lines."""
    data, expected = oracle.solve(workload, workload.data())
    for count in threads:
        session.set_threads(count)
        entries = [Entry("copy", form, way) for form, way in copy.ways(workload).items()]
        for ready in (True, False):
            found = (entry_of(session, name, ready, workload, data, expected) for name in session.loaded)
            entries += [entry for entry in found if entry is not None]
        others = machine.Others()
        measure(entries, rounds, seconds)
        roof = min((e for e in entries if e.provider == "copy" and e.form != "new"), key=lambda e: e.median)
        found_here = [record(workload, count, entry, roof, others.share()) for entry in entries]
        session.records += found_here
        print(report.line(found_here), flush=True)


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="matrix", action="store_const", const="quick", help="a choice, in three minutes")
    size.add_argument("--smoke", dest="matrix", action="store_const", const="smoke", help="tiny: only checks itself")
    parser.add_argument(
        "--threads", type=int, nargs="+", metavar="N", help="default: all, and 1 for some of the matrix"
    )
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=DTYPES)
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help="only workloads whose name contains all of TEXT's words"
    )
    parser.add_argument("--providers", nargs="+", choices=providers.NAMES, default=providers.NAMES)
    parser.add_argument("--rounds", type=int, help="the most samples of each entry")
    parser.add_argument("--seconds", type=float, help="in which to take the samples of a workload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw into FILE, .png or .svg; needs matplotlib")
    parser.add_argument("--list", action="store_true", help="only print the names of the workloads")
    parser.set_defaults(matrix="full")
    options = parser.parse_args(arguments)
    words = options.filter.split()
    options.chosen = [
        w for w in MATRICES[options.matrix]() if w.dtype in options.dtype and all(word in w.name for word in words)
    ]
    if not options.chosen:
        parser.error(f"no workload's name contains {options.filter!r}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = options_of(arguments)
    if options.list:
        print(*(workload.name for workload in options.chosen), sep="\n")
        return
    keeps_memory = machine.keep_freed_memory()
    loaded, missing = providers.load(tuple(dict.fromkeys(options.providers)))
    if copy.MISSING:
        missing["a streaming copy"] = copy.MISSING
    for name, reason in missing.items():
        print(f"without {name}: {reason}")
    description = machine.describe() | {"freed_memory": "kept" if keeps_memory else "left to the C library"}
    print(f"{description['cpu']}, {description['cores']} cores; normkit uses {description['normkit']['isa']}")

    session, every = Session(loaded), len(os.sched_getaffinity(0))
    seconds, rounds = BUDGETS[options.matrix]
    seconds = seconds if options.seconds is None else options.seconds
    print(report.heading())
    try:
        for workload in options.chosen:
            threads = options.threads or ((every, 1) if workload.both else (every,))
            run(session, workload, tuple(dict.fromkeys(threads)), seconds, options.rounds or rounds)
    except KeyboardInterrupt:
        print("interrupted: what follows is what there is")
    print(report.summary(session.records))
    for (name, reason), count in Counter((r["provider"], r["reason"]) for r in session.refused).items():
        print(f"not done by {name}: {count} times: {reason}")

    result = {
        "machine": description,
        "matrix": options.matrix,
        "providers": {name: module.VERSION for name, module in loaded.items()},
        "missing": missing,
        "refused": session.refused,
        "wrong": session.wrong,
        "results": session.records,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    report.write(result, options.markdown, options.plot)
    if any(case["provider"] == "normkit" for case in session.wrong):
        raise SystemExit("normkit's results are wrong")


if __name__ == "__main__":
    main()
