"""What has changed between two runs, or two commits.

    python bench/compare.py A.json B.json
    python bench/compare.py --commits A B [--output FOLDER] [-- ARGUMENTS OF run.py]

Ratios are B / A: below 1, B is faster. "times" compares seconds; "copies" compares the times as multiples of the copy
in the same run, which allows for a machine that was slower on that day, or is another one. With --commits both are
installed into throwaway environments and timed by the benchmark of this tree, so that only the library differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

HERE = Path(__file__).resolve().parent
CHANGED = 0.10  # what is worth a line

Key = tuple[str, int, str]  # workload, threads, provider and form
Result = dict[str, Any]


def _by_key(result: Result) -> dict[Key, dict[str, Any]]:
    return {(r["workload"], r["threads"], f"{r['provider']} {r['form']}"): r for r in result["results"]}


def changes(before: Result, after: Result) -> dict[Key, tuple[float, float]]:
    """Return B / A of times, and of times as multiples of the copy, for what both have."""
    a, b = _by_key(before), _by_key(after)
    return {
        key: (
            b[key]["median_seconds"] / a[key]["median_seconds"],
            a[key]["share_of_copy"] / b[key]["share_of_copy"],
        )
        for key in a
        if key in b
    }


def _lines(found: dict[Key, tuple[float, float]], entry: str) -> Iterator[str]:
    """What is to be said about one provider and form."""
    chosen = {key: pair for key, pair in found.items() if key[2] == entry}
    times, copies = (geometric_mean(pair[i] for pair in chosen.values()) for i in (0, 1))
    yield f"{entry:<18}{len(chosen):>5} cases: geometric means {times:.3f} of times, {copies:.3f} of copies"
    if not entry.startswith("normkit"):
        return  # others did not change: their means say how alike the runs were
    for (workload, threads, _), (time, copy) in sorted(chosen.items(), key=lambda item: item[1][1]):
        # Only both together are a change of the code: a busy machine moves the one, a lucky copy the other.
        if min(abs(time - 1), abs(copy - 1)) > CHANGED and (time > 1) == (copy > 1):
            yield f"    {time:>6.2f} of times {copy:>6.2f} of copies  {workload}, {threads} threads"


def compare(before: Result, after: Result) -> str:
    """Return the comparison as text."""
    found = changes(before, after)
    if not found:
        return "the runs have nothing in common"
    machines = [f"{r['machine']['commit']} on {r['machine']['cpu']}" for r in (before, after)]
    lines = [f"A: {machines[0]}", f"B: {machines[1]}", "B / A, medians; below 1, B is faster", ""]
    for entry in sorted({key[2] for key in found}, key=lambda name: (not name.startswith("normkit"), name)):
        lines += _lines(found, entry)
    only = [len(_by_key(one).keys() - _by_key(other).keys()) for one, other in ((before, after), (after, before))]
    if any(only):
        lines += ["", f"only in A: {only[0]} entries; only in B: {only[1]}"]
    return "\n".join(lines)


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def install(commit: str, folder: Path) -> Path:
    """Build a commit into a new environment in `folder`; return its Python."""
    tree, environment = folder / "tree", folder / "venv"
    _run("git", "-C", HERE, "worktree", "add", "--quiet", "--detach", tree, commit)
    try:
        _run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        _run(python, "-m", "pip", "install", "--quiet", "--no-deps", tree)
    finally:
        _run("git", "-C", HERE, "worktree", "remove", "--force", tree)
    # The peers are those of this environment. As a line of a .pth file, its folder comes after the new one's own, and
    # the .pth files in it, such as that of an editable normkit, are not looked at.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    (packages / "peers.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return python


def _named(commit: str) -> str:
    """Return its short name, which files and reports show."""
    command = ["git", "-C", str(HERE), "rev-parse", "--short", f"{commit}^{{commit}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run_commits(commits: list[str], arguments: list[str], output: Path) -> list[Path]:
    """Install both first, so that the runs come right after each other; return the files of their results."""
    commits = [_named(commit) for commit in commits]
    files = [output / f"{commit}.json" for commit in commits]
    with tempfile.TemporaryDirectory(prefix="normkit-bench-") as scratch:
        pythons = []
        for number, commit in enumerate(commits):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            print(f"installing {commit}", flush=True)
            pythons.append(install(commit, folder))
        for commit, python, file in zip(commits, pythons, files, strict=True):
            print(f"\n==== {commit}", flush=True)
            _run(python, HERE / "run.py", *arguments, "--json", file)
            result = json.loads(file.read_text())
            result["machine"]["commit"] = commit  # not that of the benchmark
            file.write_text(json.dumps(result, indent=1) + "\n")
    return files


def main() -> None:
    """Compare two files, or make them first."""
    own, arguments = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, arguments = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--commits", nargs=2, metavar=("A", "B"))
    parser.add_argument("--output", type=Path, default=HERE / "output", help="where the files of --commits go")
    options = parser.parse_args(own)
    if bool(options.commits) == bool(options.files) or (options.files and len(options.files) != 2):
        parser.error("give two files, or --commits and two commits")
    files = options.files or run_commits(options.commits, arguments, options.output.resolve())
    before, after = (json.loads(file.read_text()) for file in files)
    print(compare(before, after))


if __name__ == "__main__":
    main()
