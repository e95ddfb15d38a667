"""What a call costs when there is next to nothing to do: float32 of shape (8, 16), in nanoseconds.

    python bench/overhead.py [--rounds N]

Into a ready array (out=) and into a fresh one, beside PyTorch, whose functions have no out=.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import normkit

try:
    import torch
    import torch.nn.functional as F
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]

SHAPE = (8, 16)
CALLS = 20_000


def normkit_calls() -> dict[tuple[str, str], Callable[[], Any]]:
    """Return the calls, by operation and column."""
    rng = np.random.default_rng(0)
    x, out = rng.normal(size=SHAPE).astype(np.float32), np.empty(SHAPE, np.float32)
    weight, bias = np.ones(SHAPE[1], np.float32), np.zeros(SHAPE[1], np.float32)
    state = normkit.BatchNormState(SHAPE[1])
    return {
        ("layer_norm", "normkit out="): lambda: normkit.layer_norm(x, weight, bias, out=out),
        ("layer_norm", "normkit"): lambda: normkit.layer_norm(x, weight, bias),
        ("rms_norm", "normkit out="): lambda: normkit.rms_norm(x, weight, out=out),
        ("rms_norm", "normkit"): lambda: normkit.rms_norm(x, weight),
        ("batch_norm", "normkit out="): lambda: normkit.batch_norm(x, state, weight, bias, out=out),
        ("batch_norm", "normkit"): lambda: normkit.batch_norm(x, state, weight, bias),
    }


def torch_calls() -> dict[tuple[str, str], Callable[[], Any]]:
    """Return the same calls of PyTorch."""
    if torch is None:
        return {}
    x, shape = torch.randn(SHAPE), SHAPE[1:]
    weight, bias, mean, var = torch.ones(shape), torch.zeros(shape), torch.zeros(shape), torch.ones(shape)
    return {
        ("layer_norm", "torch"): lambda: F.layer_norm(x, shape, weight, bias),
        ("rms_norm", "torch"): lambda: F.rms_norm(x, shape, weight, 1e-5),
        ("batch_norm", "torch"): lambda: F.batch_norm(x, mean, var, weight, bias),
    }


def main() -> None:
    """Time the calls in interleaved rounds, from one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    calls = {("(an empty function)", column): lambda: None for column in ("normkit out=", "normkit", "torch")}
    calls |= normkit_calls() | torch_calls()
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(options.rounds):
        for key, call in calls.items():
            samples[key].append(timeit.timeit(call, number=CALLS) / CALLS * 1e9)

    columns = list(dict.fromkeys(column for _, column in calls))
    print(f"ns per call, min and median of {options.rounds} rounds of {CALLS} calls (with the lambda around them)\n")
    print(f"{'':<21}" + "".join(f"{column:^18}" for column in columns))
    for operation in dict.fromkeys(operation for operation, _ in calls):
        cells = [samples.get((operation, column)) for column in columns]
        shown = (f"{min(c):>8.0f}{median(c):>8.0f}  " if c else f"{'–':>16}  " for c in cells)
        print(f"{operation:<21}" + "".join(shown).rstrip())


if __name__ == "__main__":
    main()
