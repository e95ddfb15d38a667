"""``python -m normkit``: build information and a self-check. ``--cmakedir``: where find_package(normkit) looks."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import normkit
from normkit import _core


def cmake_dir() -> Path:
    """Folder of normkitConfig.cmake: beside the extension module, which an editable install keeps elsewhere."""
    return Path(_core.__file__).resolve().parent / "lib" / "cmake" / "normkit"


def sample_outputs() -> Iterator[NDArray[np.generic]]:
    """Results of every normalizer on float16, float32 and float64, both layouts, odd sizes."""
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64"):
        table = (rng.standard_normal((5003, 37)) * 3 + 5).astype(dtype)
        yield normkit.standardize(table)
        yield normkit.min_max_scale(table)
        yield normkit.layer_norm(table)
        yield normkit.rms_norm(table)
        channels_first = (rng.standard_normal((3, 32, 29, 29)) * 3 + 5).astype(dtype)
        channels_last = np.ascontiguousarray(channels_first.transpose(0, 2, 3, 1))
        for x, axis in ((channels_first, 1), (channels_last, -1)):
            yield normkit.batch_norm(x, None, training=True, axis=axis)
            yield normkit.group_norm(x, 8, axis=axis)
            yield normkit.instance_norm(x, axis=axis)


def digest() -> str:
    """One hash of the sample results, which must not depend on the number of threads either."""
    default = normkit.get_num_threads()
    digests = set()
    for threads in (1, max(default, 2)):
        normkit.set_num_threads(threads)
        sha = hashlib.sha256()
        for y in sample_outputs():
            sha.update(np.ascontiguousarray(y).tobytes())
        digests.add(sha.hexdigest()[:16])
    normkit.set_num_threads(0)
    return " != ".join(sorted(digests))


def is_right() -> bool:
    """Whether layer_norm agrees with its definition."""
    x = np.random.default_rng(1).standard_normal((100, 257))
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return bool(np.allclose(normkit.layer_norm(x), expected, rtol=0, atol=1e-12))


def self_check() -> bool:
    """Run the samples under each usable instruction set; print and compare their hashes."""
    digests = {}
    for isa in normkit.build_info()["isas"]:
        command = [sys.executable, "-m", "normkit", "--digest"]
        result = subprocess.run(command, env={**os.environ, "NORMKIT_ISA": isa}, capture_output=True, text=True)
        digests[isa] = result.stdout.strip() if result.returncode == 0 else f"failed: {result.stderr.strip()}"
        print(f"  {isa:10} {digests[isa]}")
    return len(set(digests.values())) == 1 and len(next(iter(digests.values()))) == 16 and is_right()


def main() -> int:
    """Run the command line; the exit status is 1 where the self-check fails."""
    parser = argparse.ArgumentParser(prog="python -m normkit", description="Build information and a self-check.")
    parser.add_argument("--cmakedir", action="store_true", help="print the folder of the CMake package and exit")
    parser.add_argument("--digest", action="store_true", help="print one hash of sample results and exit")
    options = parser.parse_args()
    if options.cmakedir:
        print(cmake_dir())
        return 0
    if options.digest:
        print(digest())
        return 0
    for key, value in normkit.build_info().items():
        print(f"{key:10} {value}")
    print("self-check: the same bits from every instruction set, on 1 and more threads")
    passed = self_check()
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
