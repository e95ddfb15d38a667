"""The machine that figures are taken on: a description of it, and how its memory is had."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import normkit


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    lines = _read("/proc/cpuinfo").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _caches() -> dict[str, str]:
    """Sizes as the system reports them; a virtual machine may report those of its host."""
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    return {f"L{_read(f'{f}/level')} {_read(f'{f}/type')}": _read(f"{f}/size") for f in folders}


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Others:
    """What other processes take of the machine, from the making of this object on; Linux knows, others do not."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        # user, nice, system, idle, iowait, irq, softirq, steal: the last is what a virtual machine was not given
        fields = [float(ticks) for ticks in _read("/proc/stat").split("\n")[0].split()[1:9]]
        own = os.times()
        busy = sum(fields[:3]) + sum(fields[5:]) if len(fields) == 8 else 0.0
        return busy / os.sysconf("SC_CLK_TCK"), own.user + own.system, own.elapsed

    def share(self) -> float:
        """Return it as a share of one core."""
        busy, own, elapsed = (after - before for before, after in zip(self._start, self._now(), strict=True))
        return max(0.0, (busy - own) / max(elapsed, 1e-3)) if self._start[0] else 0.0


def keep_freed_memory() -> bool:
    """Have the C library (glibc) keep what is freed, and say whether it will.

    Left alone it gives memory back to the system when what was freed last happens to lie at the end of the heap: which
    of the entries that allocate their results then pays for new pages, at several times the cost of most, is a lottery.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(trim_threshold, 2**31 - 1)) and bool(mallopt(mmap_max, 0))


def describe() -> dict[str, Any]:
    """Return what is needed to judge a figure, ready for JSON."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "caches": _caches(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "normkit": normkit.build_info(),
        "commit": _commit(),
    }
