"""Compiles the small C++ sources beside this file, once per machine and version of them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "output" / "build"  # git ignores it
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def _machine() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")


def load(name: str, *flags: str) -> ctypes.CDLL:
    """Compile `name`.cpp, unless that was done before, and load it; ImportError says why that is impossible."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise ImportError(f"no C++ compiler for {name}.cpp")
    source = HERE / f"{name}.cpp"
    identity = "\n".join((compiler, *FLAGS, *flags, _machine(), source.read_text()))
    library = CACHE / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}")  # another process may be compiling the same
        command = [compiler, *FLAGS, str(source), *flags, "-o", str(partial)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise ImportError(f"{name}.cpp does not compile: {error}") from None
        except subprocess.CalledProcessError as error:
            told = error.stderr.strip() or f"{compiler} failed"
            reason = next((line for line in told.splitlines() if "error" in line), told)
            raise ImportError(f"{name}.cpp does not compile: {reason}") from None
        partial.replace(library)
    return ctypes.CDLL(str(library))
