"""The floor of operations that need their statistics before their results, as BatchNorm does in training: two walks.

    python bench/walks.py [--seconds S]

Times what memory alone takes: x read, x read and then copied from its end, the same of x and dy with one result. All as
multiples of the copies that bench/run.py calls the roof.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

import machine
from providers import compiled, copy
from timing import Entry, measure
from workloads import Workload

SHAPES = {"32x56x56x64": (32, 56, 56, 64), "32x7x7x2048": (32, 7, 7, 2048), "1x56x56x256": (1, 56, 56, 256)}
LINE, FLOATS = 64, 16  # bytes, and what is in them


def aligned(size: int, value: float) -> np.ndarray:
    """Return so many float32 whose first begins a line."""
    memory = np.empty(4 * size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    array = memory[start : start + 4 * size].view(np.float32)
    array.fill(value)
    return array


def walks(size: int, threads: int) -> dict[str, Callable[[], object]]:
    """Return the walks over `size` float32, those that write in both ways to do so."""
    walk = compiled.load("walks").walk
    pointer, flag = ctypes.c_void_p, ctypes.c_bool
    walk.argtypes = (pointer, pointer, pointer, ctypes.c_size_t, ctypes.c_int, flag, flag, pointer)
    walk.restype = None
    x, dy, y, sink = aligned(size, 1.0), aligned(size, 2.0), aligned(size, 0.0), aligned(FLOATS * threads, 0.0)
    found: dict[str, Callable[[], object]] = {}
    for name, second, result, folds in (
        ("read x", None, None, True),
        ("read x; x -> y", None, y, True),
        ("x, dy -> dx", dy, y, False),
        ("read x, dy; x, dy -> dx", dy, y, True),
    ):
        for streams in (False, True) if result is not None else (False,):
            pointers = [array.ctypes.data if array is not None else None for array in (x, second, result)]
            call = partial(walk, *pointers, size // FLOATS, threads, folds, streams, sink.ctypes.data)
            call()
            expected = None if result is None else 1.0 if second is None else 3.0
            if expected is not None and not (y == expected).all():
                raise RuntimeError(f"the walk {name!r} does not write what it should")
            y.fill(0.0)
            call.buffers = (x, dy, y, sink)  # type: ignore[attr-defined]  # addresses alone keep nothing alive
            found[f"{name}{', past the caches' if streams else ''}"] = call
    return found


def roof(operation: str, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """Return the ways to copy what the operation moves."""
    ways = copy.ways(Workload.named(operation, "NHWC", shape))
    return {name: way for name, way in ways.items() if name != "new"}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape and number of threads")
    arguments = parser.parse_args()
    about = machine.describe()
    print(f"{about['cpu']}, {about['cores']} cores")
    for name, shape in SHAPES.items():
        for threads in sorted({1, about["cores"]}, reverse=True):
            copy.set_threads(threads)
            size = int(np.prod(shape)) // (64 * threads) * (64 * threads)
            copies = {
                "copy of x": roof("batch_norm_training", shape),
                "copy of as much as x, dy -> dx moves": roof("batch_norm_training_backward", shape),
            }
            entries = {name: Entry(name, "", call) for name, call in walks(size, threads).items()}
            entries |= {
                f"{of} by {way}": Entry(of, way, call) for of, ways in copies.items() for way, call in ways.items()
            }
            measure(list(entries.values()), 200, arguments.seconds)
            fastest = {of: min(e.median for e in entries.values() if e.provider == of) for of in copies}
            print(f"\n{name} float32, {threads} thread{'s' if threads > 1 else ''}")
            for of, seconds in fastest.items():
                print(f"  {of:<40}{seconds * 1e3:>9.3f} ms")
            for entry in entries.values():
                if entry.provider in copies:
                    continue
                of = "copy of as much as x, dy -> dx moves" if "dy" in entry.provider else "copy of x"
                low, middle = min(entry.samples), median(entry.samples)
                print(
                    f"  {entry.provider:<40}{middle * 1e3:>9.3f} ms  {middle / fastest[of]:.2f} of the {of}"
                    f" (least {low * 1e3:.3f} ms)"
                )


if __name__ == "__main__":
    main()
