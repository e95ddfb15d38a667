"""Libraries under test, one module each, all with the same four names.

VERSION
    What is under test.
set_threads(threads)
    From now on the library may use so many threads.
prepare(workload, data, out)
    A function of no arguments that does the work once and returns the library's result: into `out`, or into a fresh
    array where `out` is None. None where the library has no such form. Everything that a careful user would do once
    and not at every call belongs into `prepare`.
to_numpy(workload, result)
    The result as a NumPy array with the shape of `workload`, without a copy where possible.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("copy", "normkit", "numpy", "torch")


def load(names: tuple[str, ...] = NAMES) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Import providers. Return those that could be, and for the others what was missing."""
    loaded, missing = {}, {}
    for name in names:
        try:
            loaded[name] = importlib.import_module(f"providers.{name}")
        except ModuleNotFoundError as error:
            missing[name] = str(error)
    return loaded, missing
