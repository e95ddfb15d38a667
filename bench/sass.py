"""What the compiler made of the CUDA kernels, for questions that want no GPU: `sass.py FILE [--only WORD]`.

FILE is a cubin (nvcc -cubin) or whatever else has kernels of one architecture in it; cuobjdump and nvdisasm of the CUDA
toolkit have to be on the PATH. For each kernel: registers, which bound how many blocks a multiprocessor holds,
instructions, and of the loads of 8 bytes and more how many are "alone": used before another load is queued, so that
they are waited for one by one. Code is read in the order it lies in, whatever it branches to: a hint where to look, not
a measurement.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

LOAD = re.compile(r"(?:@!?P\d+ )?LDG\.E\S*\.(64|128)\S* R(\d+)")
FORMS = {"(Form)0": "general", "(Form)1": "plain", "(Form)2": "lines", "(Form)3": "unaligned"}


def output_of(*command: str, text: str | None = None) -> str:
    """Return what a command prints."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def readable(names: list[str]) -> list[str]:
    """Return the kernels that mangled names stand for, without what all of them have."""
    plain = output_of("c++filt", text="\n".join(names))
    plain = re.sub(r"normkit::detail::(cuda::)?", "", plain)
    for number, name in FORMS.items():
        plain = plain.replace(number, name)
    return [re.sub(r"^void run_kernel<(.*)>\(.*$", r"\1", line).strip() for line in plain.splitlines()]


def uses(instruction: str, registers: set[int]) -> bool:
    """Return whether an instruction reads one of these registers."""
    operation, _, operands = re.sub(r"^@!?U?P\d+ ", "", instruction).partition(" ")
    named = [int(n) for n in re.findall(r"\bR(\d+)", operands)]
    writes = not re.match(r"ST|BRA|[IFD]SETP|RET|EXIT", operation)
    return any(n in registers for n in named[writes:])


def loads(instructions: list[str]) -> Iterator[int]:
    """Yield, for each load, how many others are queued before what it brings is used."""
    for i, instruction in enumerate(instructions):
        if not (load := LOAD.match(instruction)):
            continue
        first = int(load[2])
        others = 0
        for later in instructions[i + 1 :]:
            if later == "EXIT" or uses(later, set(range(first, first + int(load[1]) // 32))):
                break
            others += later.startswith("LDG") or " LDG" in later
        yield others


def main() -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--only", default="", help="kernels whose names have this word in them")
    asked = parser.parse_args()
    if shutil.which("cuobjdump") is None or shutil.which("nvdisasm") is None:
        sys.exit("sass.py: needs cuobjdump and nvdisasm, of the CUDA toolkit, on the PATH")
    usage = dict(re.findall(r"Function (\S+):\s*REG:(\d+)", output_of("cuobjdump", "-res-usage", asked.file)))
    functions = re.split(r"\n\s*Function : ", output_of("cuobjdump", "-sass", asked.file))[1:]
    mangled = [function.split("\n", 1)[0].strip() for function in functions]
    print(f"{'registers':>9} {'instructions':>12} {'loads':>5} {'alone':>5}  kernel")
    for name, symbol, function in sorted(zip(readable(mangled), mangled, functions, strict=True)):
        if asked.only not in name:
            continue
        code = re.findall(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(.*?);", function, re.MULTILINE)
        others = list(loads(code))
        print(f"{usage.get(symbol, '?'):>9} {len(code):>12} {len(others):>5} {others.count(0):>5}  {name}")


if __name__ == "__main__":
    main()
