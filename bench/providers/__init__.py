"""Libraries under test, one module each, all with the same names.

VERSION
    What is under test.
set_threads(threads)
    From now on the library may use so many threads.
prepare(workload, data, ready)
    A function of no arguments that does the work once and returns the library's results: into buffers made here if
    `ready`, else into fresh arrays. None where the library has no such form, or no such operation; `Unsupported` where
    it has, but not for this shape or dtype. Everything that a careful user would do once and not at every call belongs
    into `prepare`.
results(workload, result)
    What such a function returned as a tuple of NumPy arrays in the shapes of `workload`, without a copy where possible.

The roof, `copy`, is a module of its own kind.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("normkit", "numpy", "torch", "onednn", "onnxruntime", "sklearn")


class Unsupported(Exception):
    """A library has the operation, but not for this workload; the message says what is missing."""


def load(names: tuple[str, ...] = NAMES) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Import providers. Return those that could be, and for the others what was missing."""
    loaded, missing = {}, {}
    for name in names:
        try:
            loaded[name] = importlib.import_module(f"providers.{name}")
        except (ImportError, OSError) as error:
            missing[name] = str(error)
    return loaded, missing
