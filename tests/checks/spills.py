"""Fails where a kernel of the CUDA backend spills registers: `spills.py LOG`, of a build with -Xptxas -v.

A spilled register goes through memory, which is what these kernels are short of. Also a check that the log is one: that
the kernels are in it at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

LEAST_KERNELS = 50


def spills(log: str) -> dict[str, int]:
    """Return the bytes that each kernel stores for want of registers, by architecture and name."""
    found = re.findall(r"entry function '(\S+)' for '(\S+)'.*?(\d+) bytes spill stores", log, re.DOTALL)
    return {f"{architecture} {name}": int(stores) for name, architecture, stores in found}


def main() -> None:
    """Print what spills."""
    kernels = spills(Path(sys.argv[1]).read_text())
    if len(kernels) < LEAST_KERNELS:
        sys.exit(f"spills.py: {len(kernels)} kernels in {sys.argv[1]}: no log of -Xptxas -v")
    bad = "".join(f"{stores:5} bytes  {name}\n" for name, stores in kernels.items() if stores > 0)
    if bad and shutil.which("c++filt"):
        bad = subprocess.run(["c++filt"], input=bad, capture_output=True, text=True, check=True).stdout
    if bad:
        sys.exit(f"kernels that spill registers:\n{bad}")
    print(f"{len(kernels)} kernels, none of which spills a register")


if __name__ == "__main__":
    main()
