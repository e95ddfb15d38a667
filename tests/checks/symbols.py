"""Looks for symbols that leak out of the code compiled once per instruction set.

An inline function with external linkage becomes a weak symbol in every object that uses it, and the linker keeps one
of the copies for all: if that is the one compiled for AVX-512, older processors crash in innocent code; if it is the
baseline's, the fast kernels are slow. So each kernel object defines one symbol, its table, and no weak one.

Run as ``python symbols.py ARCHIVE`` on a static library; exit status 1 and a list where something leaks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

KERNEL_OBJECT = re.compile(r"kernels_\w+\.cpp\.o:")


def kernel_symbols(archive: Path) -> list[list[str]]:
    """Return the external symbols each kernel object in the archive defines, as "TYPE name"."""
    nm = os.environ.get("NM", "nm")
    listing = subprocess.run([nm, "-g", "-C", "--defined-only", archive], check=True, capture_output=True, text=True)
    objects: list[list[str]] = []
    in_kernels = False
    for line in listing.stdout.splitlines():
        if line.endswith(".o:"):
            in_kernels = KERNEL_OBJECT.fullmatch(line) is not None
            if in_kernels:
                objects.append([])
        elif in_kernels and line:
            objects[-1].append(line.split(maxsplit=1)[1])
    return objects


def leaks(archive: Path) -> list[str]:
    """Say what is wrong with the kernel objects of the archive; empty when nothing is."""
    objects = kernel_symbols(archive)
    if not objects:
        return [f"{archive} holds no kernels_*.cpp.o"]
    problems = []
    for symbols in objects:
        strong = [symbol for symbol in symbols if symbol[0] in "TDRB"]
        if len(strong) != 1:
            problems.append(f"one symbol per kernel object; got {strong}")
        problems += [f"weak symbol {symbol}" for symbol in symbols if symbol not in strong]
    return problems


if __name__ == "__main__":
    found = leaks(Path(sys.argv[1]))
    print("\n".join(found) or "no leaks")
    sys.exit(bool(found))
