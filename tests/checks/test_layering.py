"""Reads the #include lines and fails on an arrow that points up.

python/src -> include/normkit -> front desk -> geometry, backend -> cpu/ or cuda/ -> math.h
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("cpp", "python/src")
    for path in (REPOSITORY / folder).rglob("*")
    if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
)
# Files, and what of the project they may include. The first rule that matches a file holds for it.
RULES = [
    ("python/src/*", ["python/src/*", "cpp/include/normkit/*"]),
    ("cpp/include/normkit/*", ["cpp/include/normkit/*"]),
    ("cpp/src/math.h", []),
    ("cpp/src/geometry.*", ["cpp/src/geometry.h", "cpp/include/normkit/norm.h", "cpp/include/normkit/tensor.h"]),
    ("cpp/src/cpu/*", ["cpp/src/cpu/*", "cpp/src/*.h", "cpp/include/normkit/*"]),
    ("cpp/src/cuda/*", ["cpp/src/cuda/*", "cpp/src/*.h", "cpp/include/normkit/*"]),
    # Threads and instruction sets are the CPU's, and what the public functions about them report.
    ("cpp/src/runtime.cpp", ["cpp/src/*.h", "cpp/src/cpu/isa.h", "cpp/src/cpu/parallel.h", "cpp/include/normkit/*"]),
    ("cpp/src/*", ["cpp/src/*.h", "cpp/include/normkit/*"]),
]


def includes(source: str) -> list[str]:
    """Return what a file includes: files of the project by their path, others as <name>."""
    found = []
    directives = re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', (REPOSITORY / source).read_text(), re.MULTILINE)
    for delimiter, name in directives:
        folders = (Path(source).parent, Path("cpp/src")) if delimiter == '"' else (Path("cpp/include"),)
        own = [(folder / name).as_posix() for folder in folders if (REPOSITORY / folder / name).is_file()]
        found.append(own[0] if own else f"<{name}>")
    return found


def violations(source: str, included: list[str]) -> list[str]:
    """Return those of the includes that point the wrong way."""
    allowed = next(patterns for files, patterns in RULES if PurePosixPath(source).match(files))
    own = [name for name in included if not name.startswith("<")]
    wrong = [name for name in own if not any(PurePosixPath(name).match(pattern) for pattern in allowed)]
    if source.startswith("cpp/"):
        wrong += [name for name in included if re.match("<(Python.h|nanobind/|numpy/)", name)]
    return wrong


def test_the_tree_is_here():
    assert {"cpp/src/math.h", "cpp/src/geometry.h", "cpp/src/cpu/kernels_normalize.cpp", "python/src/bindings.cpp"} <= {
        *SOURCES
    }


@pytest.mark.parametrize("source", SOURCES)
def test_includes_point_down(source):
    assert violations(source, includes(source)) == []


def test_math_includes_nothing():
    assert includes("cpp/src/math.h") == []


def test_openmp_stays_in_one_place():
    users = [
        name for name in SOURCES if re.search(r"#\s*pragma omp|<omp\.h>|\bomp_\w+\(", (REPOSITORY / name).read_text())
    ]
    assert users == ["cpp/src/cpu/parallel.cpp"]


@pytest.mark.parametrize(
    ("source", "included"),
    [
        ("cpp/src/cpu/backend.cpp", "cpp/src/cuda/launch.h"),
        ("cpp/src/cuda/launch.cu", "cpp/src/cpu/lanes.h"),
        ("cpp/src/geometry.cpp", "cpp/src/backend.h"),
        ("cpp/include/normkit/norm.h", "cpp/src/geometry.h"),
        ("python/src/bindings.cpp", "cpp/src/geometry.h"),
        ("cpp/src/norm.cpp", "<Python.h>"),
    ],
)
def test_a_wrong_arrow_is_seen(source, included):
    assert violations(source, [included]) == [included]
