"""C++ of PTX: `translate.py PTX CPP...` shares the kernels out among files that it writes, for machine.h to run.

Every kernel becomes a function, every register a variable, every instruction a statement (instructions.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from instructions import HANDLERS, TYPES, Instruction, Kernel, Unknown, size, variable


def operands_of(text: str) -> list[str]:
    """Return what commas part, but for those in braces and brackets."""
    return [part.strip() for part in re.split(r",(?![^{\[]*[}\]])", text)] if text else []


def statement(kernel: Kernel, line: int, text: str) -> Iterator[str]:
    """Yield C++ for what ends at a semicolon."""
    if declared := re.fullmatch(r"\.reg\s+\.(\w+)\s+(.+)", text):
        kind, names = declared.groups()
        ranged = re.fullmatch(r"(%\w+)<(\d+)>", names)
        registers = [f"{ranged[1]}{k}" for k in range(int(ranged[2]))] if ranged else re.split(r"\s*,\s*", names)
        for register in registers:
            kernel.widths[register] = 1 if kind == "pred" else size(kind)
            if ranged or register.startswith("%SP"):
                kernel.variables[variable(register)] = TYPES[kind]
            else:  # in braces of its own
                yield f"{TYPES[kind]} {variable(register)};"
        return
    if depot := re.fullmatch(r"\.local\s+\.align\s+\d+\s+\.b8\s+(\w+)\[(\d+)\]", text):
        kernel.symbols[depot[1]] = "reinterpret_cast<std::uint64_t>(thread.local)"
        kernel.local_bytes = int(depot[2])
        return
    if text.startswith(".pragma"):
        return
    guard, name, operands = re.fullmatch(r"(?:@(!?%\w+)\s+)?(\S+)\s*(.*)", text).groups()
    instruction = Instruction(kernel, line, name, operands_of(operands))
    try:
        yield (f"if ({guard.replace('%', '_')}) " if guard else "") + HANDLERS[instruction.base](instruction)
    except (Unknown, KeyError, IndexError) as reason:
        sys.exit(f"translate.py: line {line}: {text}: not known: {reason}")


def translated(kernel: Kernel) -> str:
    code = []
    for line, text in kernel.lines:
        if text.startswith("{"):
            code.append("{")
        for piece in map(str.strip, text.removeprefix("{").removesuffix("}").split(";")):
            if piece.endswith(":"):
                code.append(f"{variable(piece[:-1])}:;")
            elif piece:
                code += statement(kernel, line, piece)
        if text.endswith("}"):
            code.append("}")
    body = "\n".join(code)
    used = set(re.findall(r"\b_\w+", body))
    variables = (f"{kind} {name}{{}};" for name, kind in kernel.variables.items() if name in used)
    return "\n".join([f"void {kernel.name}(Thread& thread) {{", *variables, body, "}", ""])


def kernels_of(text: str) -> Iterator[Kernel]:
    lines = [re.sub(r"//.*", "", line).strip() for line in text.split("\n")]
    shared = dict(re.findall(r"^\.shared .*\.b8 (\w+)\[(\d+)\];", "\n".join(lines), re.MULTILINE))
    dynamic = re.findall(r"^\.extern \.shared .*\.b8 (\w+)\[\];", "\n".join(lines), re.MULTILINE)
    starts = [at for at, line in enumerate(lines) if ".entry" in line]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        opening, closing = lines.index("{", start), max(at for at in range(start, end) if lines[at] == "}")
        head, body = " ".join(lines[start:opening]), list(enumerate(lines))[opening + 1 : closing]
        name = re.search(r"\.entry (\w+)", head)[1]
        kernel = Kernel(
            name,
            int(re.search(r"_param_0\[(\d+)\]", head)[1]),
            int(re.search(r"\.maxntid (\d+)", head)[1]),
            [(number + 1, line) for number, line in body],
        )
        kernel.symbols[f"{name}_param_0"] = "reinterpret_cast<std::uint64_t>(thread.parameters)"
        kernel.symbols |= dict.fromkeys(dynamic, "thread.dynamic_at")
        used = [symbol for symbol in shared if any(symbol in line for _, line in body)]
        if len(used) > 1 or "_param_1" in head:
            sys.exit(f"translate.py: {name}: more than one shared variable, or parameter")
        for symbol in used:
            kernel.symbols[symbol], kernel.shared_bytes = "0", int(shared[symbol])
        yield kernel


def main() -> None:
    source, *files = map(Path, sys.argv[1:])
    parts: list[list[Kernel]] = [[] for _ in files]
    for kernel in sorted(kernels_of(source.read_text()), key=lambda kernel: -len(kernel.lines)):
        min(parts, key=lambda part: sum(len(k.lines) for k in part)).append(kernel)
    for file, part in zip(files, parts, strict=True):
        functions = "".join(map(translated, part))
        rows = "".join(
            f'{{"{k.name}", &{k.name}, {k.parameter_bytes}, {k.shared_bytes}, {k.local_bytes}, {k.most_threads}}},\n'
            for k in part
        )
        known = f"const Entry all[] = {{\n{rows}}};\nconst Entries known(all, {len(part)});\n" if part else ""
        file.write_text(
            '#include <algorithm>\n#include <bit>\n\n#include "operations.h"\n\nnamespace normkit::ptx {\nnamespace {\n'
            f"{functions}{known}}}  // namespace\n}}  // namespace normkit::ptx\n"
        )


if __name__ == "__main__":
    main()
