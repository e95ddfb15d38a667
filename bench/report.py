"""Tables, means and the list of what is slow, from the results of a run; also from a file that run.py has written.

python bench/report.py FILE.json [--markdown FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

Record = dict[str, Any]
Case = tuple[str, int]  # workload and threads

COLUMNS = (
    "normkit new",
    "copy new",
    "torch new",
    "onednn out",
    "onednn new",
    "onnxruntime out",
    "numpy new",
    "sklearn new",
)
HEADS = {"onnxruntime out": "onnxrt out"}
# Means of what is on the left, in units of what is on the right.
RATIOS = (
    ("normkit out", "copy"),
    ("normkit new", "copy"),
    ("normkit new", "copy new"),
    ("torch new", "normkit new"),
    ("onednn out", "normkit out"),
    ("onednn new", "normkit new"),
    ("onnxruntime out", "normkit out"),
    ("sklearn new", "normkit new"),
    ("numpy new", "normkit new"),
)
ABOVE_COPY, BELOW_PEER = 1.25, 1.0
DISTURBED = 0.1  # cores that other processes took while a workload was timed


def medians(records: Iterable[Record]) -> dict[Case, dict[str, float]]:
    """Return the median seconds of every entry, by case; "copy" is the fastest into a ready buffer."""
    found: dict[Case, dict[str, float]] = {}
    for r in records:
        case = found.setdefault((r["workload"], r["threads"]), {})
        case[f"{r['provider']} {r['form']}"] = r["median_seconds"]
        case["copy"] = r["median_seconds"] * r["share_of_copy"]
    return found


def heading() -> str:
    """Return the lines above those of `line`."""
    above = f"{'':<61}{'copy':^30}{'normkit out':^23}{'all others: median, as a multiple of the copy':>52}"
    names = f"{'workload':<58}{'':>3}{'way':>8}{'min':>8}{'ms':>8}{'GB/s':>6}{'min':>8}{'ms':>8}{'x':>7}"
    return f"\n{above}\n{names}" + "".join(f"{HEADS.get(column, column):>12}" for column in COLUMNS)


def line(records: list[Record]) -> str:
    """Return the line of one workload: minimum and median in milliseconds, or multiples of the copy's median."""
    by_name = {f"{r['provider']} {r['form']}": r for r in records}
    first = records[0]
    way = first.get("roof", "out")  # files of earlier versions have one copy, and do not know of others
    roof = by_name[f"copy {way}"]
    text = f"{first['workload']:<58}{first['threads']:>3}{way:>8}"
    text += f"{roof['min_seconds'] * 1e3:>8.3f}{roof['median_seconds'] * 1e3:>8.3f}{roof['gigabytes_per_second']:>6.1f}"
    out = by_name.get("normkit out")
    text += (
        f"{'–':>23}"
        if out is None
        else (f"{out['min_seconds'] * 1e3:>8.3f}{out['median_seconds'] * 1e3:>8.3f}{1 / out['share_of_copy']:>7.2f}")
    )
    for column in COLUMNS:
        text += f"{1 / by_name[column]['share_of_copy']:>12.2f}" if column in by_name else f"{'–':>12}"
    return text + (f"  others took {first['others']:.2f} cores" if first.get("others", 0) > DISTURBED else "")


def ratios(cases: dict[Case, dict[str, float]], over: str, under: str) -> dict[str, float]:
    """Return one entry's time in units of another's, by workload, where both were timed."""
    return {name: times[over] / times[under] for (name, _), times in cases.items() if {over, under} <= times.keys()}


def _means(cases: dict[Case, dict[str, float]]) -> Iterator[str]:
    for over, under in RATIOS:
        found = ratios(cases, over, under)
        if found:
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            yield (
                f"{over + ' / ' + under:<32}{geometric_mean(found.values()):>6.2f} over {len(found)}, "
                f"least {found[low]:.2f} ({low}), most {found[high]:.2f} ({high})"
            )


def _slow(cases: dict[Case, dict[str, float]]) -> Iterator[str]:
    """What is above the copy, and what is below a peer: of the forms that the operation has the better comparable."""
    for (name, _), times in cases.items():
        over, under = ("normkit out", "copy") if "normkit out" in times else ("normkit new", "copy new")
        if {over, under} <= times.keys() and times[over] > ABOVE_COPY * times[under]:
            yield f"{name}: {over} {times[over] / times[under]:.2f} x {under}"
    for over, under in RATIOS[3:]:
        for name, ratio in ratios(cases, over, under).items():
            if ratio < BELOW_PEER:
                yield f"{name}: {over} {ratio:.2f} x {under}"


def summary(records: list[Record]) -> str:
    """Return the geometric means, by number of threads, and every case that has something left to gain."""
    every, lines = medians(records), []
    for threads in dict.fromkeys(count for _, count in every):
        cases = {case: times for case, times in every.items() if case[1] == threads}
        lines += ["", f"{threads} thread{'s' * (threads > 1)}, geometric means of ratios of medians:", *_means(cases)]
        busy = {r["workload"] for r in records if r["threads"] == threads and r.get("others", 0) > DISTURBED}
        if busy:
            lines.append(f"DISTURBED by other processes: {len(busy)} of {len(cases)}; their figures mean little")
        slow = list(_slow(cases))
        lines += [
            f"above {ABOVE_COPY} x a copy, or below {BELOW_PEER} x a peer: {len(slow)}",
            *(f"  {s}" for s in slow),
        ]
    return "\n".join(lines)


def _machine_line(result: dict[str, Any]) -> str:
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["providers"].items())
    return f"{about['cpu']}, {about['cores']} cores, {about['normkit']['isa']}; {versions}; commit {about['commit']}."


def markdown(result: dict[str, Any]) -> str:
    """Return a table for a page: times of the copy, all else as multiples of it."""
    cases = medians(result["results"])
    ways = {(r["workload"], r["threads"]): r.get("roof", "out") for r in result["results"]}
    present = [c for c in ("normkit out", *COLUMNS) if any(c in times for times in cases.values())]
    lines = [
        f"{_machine_line(result)} Medians; all but the copy's as multiples of it.",
        "",
        f"| workload | threads | copy, ms | {' | '.join(present)} |",
        f"|---|--:|--:|{'--:|' * len(present)}",
    ]
    for (name, threads), times in cases.items():
        cells = [f"{times[c] / times['copy']:.2f}" if c in times else "" for c in present]
        copy = f"{times['copy'] * 1e3:.3f} {ways[name, threads]}"
        lines.append(f"| {name.removesuffix(' float32')} | {threads} | {copy} | {' | '.join(cells)} |")
    lines += ["", "| geometric means | over | mean | least | most |", "|---|--:|--:|--:|--:|"]
    for over, under in RATIOS:
        found = ratios(cases, over, under).values()
        if found:
            mean, least, most = (f"{of(found):.2f}" for of in (geometric_mean, min, max))
            lines.append(f"| {over} / {under} | {len(found)} | {mean} | {least} | {most} |")
    return "\n".join(lines) + "\n"


def write(result: dict[str, Any], table: Path | None, picture: Path | None) -> None:
    """Write what is asked for."""
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(markdown(result))
    if picture is not None:
        import plot  # matplotlib is wanted by this alone

        picture.parent.mkdir(parents=True, exist_ok=True)
        plot.draw(medians(result["results"]), _machine_line(result), picture)


def main() -> None:
    """Report on a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    options = parser.parse_args()
    result = json.loads(options.file.read_text())
    cases: dict[Case, list[Record]] = {}
    for r in result["results"]:
        cases.setdefault((r["workload"], r["threads"]), []).append(r)
    print(_machine_line(result), heading(), *map(line, cases.values()), summary(result["results"]), sep="\n")
    write(result, options.markdown, options.plot)


if __name__ == "__main__":
    main()
