"""Sampling: all entries of a workload in interleaved rounds, within a budget of time.

What disturbs the machine for a while then disturbs all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

SAMPLE_SECONDS = 2e-3  # calls are repeated until a sample lasts so long
# Woken threads may have to share a core until the scheduler parts them. Beside ONNX Runtime, whose threads are bound to
# cores, LayerNorm of 64x768 on two threads took 9 to 51 us after 10 ms, 8 after 30.
WARM_SECONDS = 30e-3
PAUSE_SECONDS = 20e-3  # an OpenMP runtime's idle threads keep spinning for some milliseconds: let them go to sleep
FEW, SLOW_SECONDS = 5, 0.1  # no entry gets fewer samples; one whose call takes so long may get three


@dataclass
class Entry:
    """One way of doing a workload: a provider, and whether its results are allocated."""

    provider: str
    form: str  # "out": into ready buffers; "new": into fresh arrays; for the copy what copies
    call: Callable[[], Any]
    error: float = 0.0  # largest difference from the oracle, as a share of the tolerance
    repeat: int = 1
    rounds: int = 0
    samples: list[float] = field(default_factory=list)  # seconds per call

    @property
    def name(self) -> str:
        """The heading of a column."""
        return f"{self.provider} {self.form}"

    @property
    def median(self) -> float:
        """Seconds per call."""
        return median(self.samples)


def warm_up(entry: Entry) -> float:
    """Wake the threads and fill the caches; return the seconds of the fastest call."""
    time.sleep(PAUSE_SECONDS)
    fastest = float("inf")
    end = time.perf_counter() + WARM_SECONDS
    while (start := time.perf_counter()) < end:
        entry.call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def sample(entry: Entry) -> float:
    """Return the seconds of one call."""
    warm_up(entry)
    start = time.perf_counter()
    for _ in range(entry.repeat):
        entry.call()
    return (time.perf_counter() - start) / entry.repeat


def plan(entry: Entry, most: int, seconds: float) -> None:
    """Choose how often to repeat a call in a sample, and how many samples fit into the time."""
    warm_up(entry)  # which of all is the first call, and may have things to prepare
    call = warm_up(entry)
    entry.repeat = max(1, round(SAMPLE_SECONDS / max(call, 1e-9)))
    fitting = int(seconds / (PAUSE_SECONDS + max(call, WARM_SECONDS) + entry.repeat * call))
    entry.rounds = min(most, max(fitting, 3 if call > SLOW_SECONDS else FEW))


def measure(entries: list[Entry], rounds: int, seconds: float) -> None:
    """Take up to `rounds` samples of each entry in about `seconds`, another entry first in each round.

    Each entry has an equal share of the time; one that is slow sits out rounds, evenly spread.
    """
    for entry in entries:
        plan(entry, rounds, seconds / len(entries))
    total = max(entry.rounds for entry in entries)
    for turn in range(total):
        first = turn % len(entries)
        for entry in entries[first:] + entries[:first]:
            if (turn + 1) * entry.rounds // total > turn * entry.rounds // total:
                entry.samples.append(sample(entry))
