"""PTX's instructions as statements of C++: those that nvcc makes of this project's kernels; any other is an error.

Of PTX: docs.nvidia.com/cuda/parallel-thread-execution.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

TYPES = {
    **{f"{kind}{bits}": f"std::uint{bits}_t" for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": f"std::int{bits}_t" for bits in (8, 16, 32, 64)},
    "f16": "std::uint16_t",
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}
FLOATS = ("f32", "f64")
SPECIAL = {
    "%tid.x": "thread.index",
    "%ntid.x": "thread.block_threads",
    "%ctaid.x": "thread.block",
    "%cluster_ctarank": "thread.rank",
    "%cluster_nctarank": "thread.ranks",
}
OPERATORS = {"and": "&", "or": "|", "xor": "^", "add": "+", "sub": "-", "mul": "*", "div": "/"}
LOGICAL = {"and": "&&", "or": "||", "xor": "!="}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
WRAPPED = {"add": "add", "sub": "subtract"}


def size(kind: str) -> int:
    return int(kind[1:]) // 8


def variable(register: str) -> str:
    return re.sub(r"\W", "_", register)


@dataclass
class Kernel:
    """One `.entry`: what its head says, and its lines with their numbers."""

    name: str
    parameter_bytes: int
    most_threads: int
    lines: list[tuple[int, str]]
    symbols: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    shared_bytes: int = 0
    local_bytes: int = 0


class Unknown(Exception):
    """An instruction, or an operand, that this translator does not know."""


@dataclass
class Instruction:
    kernel: Kernel
    line: int
    name: str
    operands: list[str]

    def __post_init__(self) -> None:
        self.base, *self.parts = self.name.split(".")
        self.type = self.parts[-1] if self.parts else ""

    def value(self, operand: int | str, kind: str = "") -> str:
        """Return C++ for an operand, read as a type; the instruction's own, if none is given."""
        kind = kind or self.type
        text = self.operands[operand] if isinstance(operand, int) else operand
        if text in SPECIAL:
            return f"static_cast<{TYPES[kind]}>({SPECIAL[text]})"
        if text in self.kernel.symbols:
            return f"static_cast<{TYPES[kind]}>({self.kernel.symbols[text]})"
        if text in self.kernel.widths:
            narrow = kind != "pred" and size(kind) < self.kernel.widths[text] and kind not in FLOATS
            form = f"static_cast<{TYPES[kind]}>({{}})" if narrow else f"get<{TYPES[kind]}>({{}})"
            return variable(text) if kind == "pred" else form.format(variable(text))
        if re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", text):
            return f"get<float>(std::uint32_t{{0x{text[2:]}u}})"
        if re.fullmatch(r"0[dD][0-9A-Fa-f]{16}", text):
            return f"get<double>(std::uint64_t{{0x{text[2:]}u}})"
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)", text):
            if kind in FLOATS:
                return f"get<{TYPES[kind]}>(std::uint{8 * size(kind)}_t{{{int(text, 0)}u}})"
            return f"static_cast<{TYPES[kind]}>({int(text, 0)}ll)"
        raise Unknown(f"operand {text}")

    def set(self, operand: int | str, expression: str, kind: str = "") -> str:
        kind = kind or self.type
        text = self.operands[operand] if isinstance(operand, int) else operand
        if text == "_":
            return f"(void)({expression});"
        if kind == "pred":
            return f"{variable(text)} = {expression};"
        return f"set({variable(text)}, static_cast<{TYPES[kind]}>({expression}));"

    def address(self, operand: int) -> str:
        """Return C++ for `[base]` or `[base+offset]`, in as many bits as the base has."""
        matched = re.fullmatch(r"\[\s*([^\s+]+)\s*(?:\+\s*(-?\d+))?\s*\]", self.operands[operand])
        if not matched:
            raise Unknown(f"address {self.operands[operand]}")
        base, offset = matched.groups(default="0")
        kind = "u32" if self.kernel.widths.get(base) == 4 else "u64"
        return f"std::uint64_t{{add<{TYPES[kind]}>({self.value(base, kind)}, static_cast<{TYPES[kind]}>({offset}ll))}}"

    def pieces(self, operand: int) -> list[str]:
        text = self.operands[operand]
        return [piece.strip() for piece in text.strip("{}").split(",")] if text.startswith("{") else [text]

    def want(self, *parts: str) -> None:
        if tuple(self.parts) not in [(*known.split("."), self.type) if known else (self.type,) for known in parts]:
            raise Unknown("form")


Handler = Callable[[Instruction], str]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


# ---- Where threads go, and meet --------------------------------------------------------------------------------------
@handles("bra")
def branch(i: Instruction) -> str:
    return f"goto {variable(i.operands[0])};"


@handles("ret")
def leave(i: Instruction) -> str:
    return "return;"


@handles("griddepcontrol", "fence")  # launches, and memory, are in order here
def nothing(i: Instruction) -> str:
    if i.name not in ("griddepcontrol.wait", "griddepcontrol.launch_dependents", "fence.mbarrier_init.release.cluster"):
        raise Unknown("form")
    return ";"


@handles("bar", "barrier")
def meet(i: Instruction) -> str:
    calls = {
        "bar.sync 0": f"barrier(thread, {i.line});",
        "barrier.cluster.arrive.relaxed ": "arrive_at_cluster_barrier(thread);",
        "barrier.cluster.wait ": f"wait_for_cluster_barrier(thread, {i.line});",
    }
    return calls[f"{i.name} {','.join(i.operands)}"]


@handles("shfl")
def shuffle(i: Instruction) -> str:
    i.want("sync.bfly")
    to = i.operands[0].split("|")[0]
    call = ", ".join(i.value(operand, "b32") for operand in range(1, 5))
    return i.set(to, f"shuffle_xor(thread, {call}, {i.line})")


@handles("mbarrier")
def count(i: Instruction) -> str:
    kind, number = i.parts[0], i.value(-1, "u32")
    if kind == "init":
        return f"mbarrier_init(thread, {i.address(0)}, {number}, {i.line});"
    if kind == "arrive":
        i.want("arrive.expect_tx.shared::cta")
        return f"mbarrier_expect(thread, {i.address(1)}, {number}, {i.line});"
    i.want("try_wait.parity.shared::cta")
    return i.set(0, f"mbarrier_try_wait(thread, {i.address(1)}, {number}, {i.line})", "pred")


@handles("mapa")
def find(i: Instruction) -> str:
    return i.set(0, f"address_in(thread, {i.value(1, 'u32')}, {i.value(2, 'u32')}, {i.line})")


# ---- Memory ----------------------------------------------------------------------------------------------------------
@handles("cp")
def copy(i: Instruction) -> str:
    if i.parts[1] == "commit_group":
        return "commit_copies(thread);"
    if i.parts[1] == "wait_group":
        return f"wait_for_copies(thread, {i.operands[0]});"
    if i.name not in ("cp.async.cg.shared.global", "cp.async.ca.shared.global"):
        raise Unknown("form")
    return f"copy(thread, {i.address(0)}, {i.address(1)}, {i.operands[2]}, {i.value(-1, 'u32')}, {i.line});"


@handles("ld", "st")
def access(i: Instruction) -> str:
    if i.base == "st" and i.parts[0] == "async":
        return f"send(thread, {i.address(0)}, {i.value(1)}, {size(i.type)}, {i.address(2)}, {i.line});"
    space = i.parts[0]
    if space not in ("global", "shared", "local", "param") or not all(
        re.fullmatch(r"v[24]|nc", part) for part in i.parts[1:-1]
    ):
        raise Unknown("form")
    loads = i.base == "ld"
    pieces, at = i.pieces(0 if loads else 1), i.address(1 if loads else 0)
    each, whole = size(i.type), size(i.type) * len(i.pieces(0 if loads else 1))
    if space == "shared":
        at = f"in_shared(thread, {at}, {whole}, {i.line})"
    statements = [f"const std::uint64_t at = {at};"]
    for k, piece in enumerate(pieces):
        aligned = f"{whole if k == 0 else each}, {i.line}"
        if loads:
            statements.append(f"const auto v{k} = load<{TYPES[i.type]}>(thread, at + {k * each}, {aligned});")
        else:
            statements.append(f"store<{TYPES[i.type]}>(thread, at + {k * each}, {i.value(piece)}, {aligned});")
    if loads:
        statements += [i.set(piece, f"v{k}") for k, piece in enumerate(pieces)]
    return "{" + " ".join(statements) + "}"


@handles("cvta")
def convert_address(i: Instruction) -> str:
    base = {"shared": "reinterpret_cast<std::uint64_t>(thread.shared)"}.get(i.parts[-2], "0")
    return i.set(0, f"{i.value(1)} {'-' if i.parts[0] == 'to' else '+'} {base}")


@handles("mov")
def move(i: Instruction) -> str:
    if not any(operand.startswith("{") for operand in i.operands):
        return i.set(0, i.value(1))
    packs = i.operands[1].startswith("{")
    pieces = i.pieces(1 if packs else 0)
    part = f"b{8 * size(i.type) // len(pieces)}"
    shifts = [8 * size(part) * k for k in range(len(pieces))]
    if packs:
        terms = (f"{TYPES[i.type]}{{{i.value(p, part)}}} << {s}" for p, s in zip(pieces, shifts, strict=True))
        return i.set(0, " | ".join(terms))
    parts = (i.set(p, f"all >> {s}", part) for p, s in zip(pieces, shifts, strict=True))
    return f"{{const {TYPES[i.type]} all = {i.value(1)}; {' '.join(parts)}}}"


# ---- Comparisons -----------------------------------------------------------------------------------------------------
@handles("setp")
def compare(i: Instruction) -> str:
    how, a, b = i.parts[0], i.value(1), i.value(2)
    unordered = f"({a} != {a} || {b} != {b})"
    if i.type in FLOATS and how in ("nan", "num"):
        result = unordered if how == "nan" else f"!{unordered}"
    elif i.type in FLOATS and how.endswith("u"):
        result = f"({unordered} || {a} {COMPARISONS[how[:-1]]} {b})"
    elif i.type in FLOATS and how == "ne":
        result = f"(!{unordered} && {a} != {b})"
    else:
        result = f"({a} {COMPARISONS[how]} {b})"
    if len(i.parts) > 2:
        result = f"({result} {LOGICAL[i.parts[1]]} {variable(i.operands[3])})"
    return i.set(0, result, "pred")


@handles("selp")
def select(i: Instruction) -> str:
    return i.set(0, f"{variable(i.operands[3])} ? {i.value(1)} : {i.value(2)}")


# ---- Arithmetic ------------------------------------------------------------------------------------------------------
@handles("add", "sub", "mul", "div")
def compute(i: Instruction) -> str:
    a, b, kind = i.value(1), i.value(2), TYPES[i.type]
    if i.type in FLOATS:
        i.want("rn")
        return i.set(0, f"{a} {OPERATORS[i.base]} {b}")
    if i.base == "div":
        return i.set(0, f"divide<{kind}>(thread, {a}, {b}, {i.line})")
    if i.base == "mul":
        i.want("lo", "hi", "wide")
        wide = f"{i.type[0]}{16 * size(i.type)}" if i.parts[0] == "wide" else i.type
        return i.set(0, f"multiply{'_high' * (i.parts[0] == 'hi')}<{TYPES[wide]}>({a}, {b})", wide)
    return i.set(0, f"{WRAPPED[i.base]}<{kind}>({a}, {b})")


@handles("fma", "mad")
def multiply_and_add(i: Instruction) -> str:
    a, b, c = (i.value(operand) for operand in (1, 2, 3))
    if i.base == "mad":
        i.want("lo")
        return i.set(0, f"add<{TYPES[i.type]}>(multiply<{TYPES[i.type]}>({a}, {b}), {c})")
    i.want("rn", "rm")
    return i.set(0, f"{'std::fma' if i.parts[0] == 'rn' else 'fma_down'}({a}, {b}, {c})")


@handles("and", "or", "xor", "not")
def combine(i: Instruction) -> str:
    if i.base == "not":
        return i.set(0, f"{'!' if i.type == 'pred' else '~'}{i.value(1)}")
    operators = LOGICAL if i.type == "pred" else OPERATORS
    return i.set(0, f"{i.value(1)} {operators[i.base]} {i.value(2)}")


@handles("neg", "abs", "sqrt", "rcp", "ex2", "popc")
def apply(i: Instruction) -> str:
    a, kind = i.value(1), TYPES[i.type]
    forms = {
        "neg": f"-{a}" if i.type in FLOATS else f"subtract<{kind}>(0, {a})",
        "abs": f"std::abs({a})",
        "sqrt.rn": f"std::sqrt({a})",
        "rcp.rn": f"{kind}{{1}} / {a}",
        "ex2.approx.ftz": f"exp2_flushed({a})",
        "popc": f"std::popcount({a})",
    }
    return i.set(0, forms[i.name.rpartition(".")[0]])


@handles("min", "max", "rem", "shl", "shr", "shf", "prmt", "bfi")
def call(i: Instruction) -> str:
    if i.type in FLOATS:
        raise Unknown("form")
    functions = {"rem": "remainder", "shl": "shift_left", "shr": "shift_right", "prmt": "permute", "bfi": "insert_bits"}
    function = functions.get(i.base, f"std::{i.base}")
    if i.base == "shf":
        i.want("l.wrap", "r.wrap")
        function = f"funnel_{'left' if i.parts[0] == 'l' else 'right'}"
    by_count = i.base in ("shl", "shr")
    arguments = [
        i.value(1),
        i.value(2, "u32" if by_count else ""),
        *(i.value(k, "u32") for k in range(3, len(i.operands))),
    ]
    if i.base == "rem":
        arguments = ["thread", *arguments, str(i.line)]
    template = f"<{TYPES[i.type]}>" if i.base in ("min", "max", "rem", "shl", "shr") else ""
    return i.set(0, f"{function}{template}({', '.join(arguments)})")


@handles("cvt")
def convert(i: Instruction) -> str:
    *rounding, to, given = i.parts
    if to in ("f16x2", "bf16x2"):
        high, low = (f"std::uint32_t{{to_{to[:-2]}({i.value(operand)})}}" for operand in (1, 2))
        return i.set(0, f"{high} << 16 | {low}", "b32")
    if given == "f16":
        return i.set(0, f"from_f16({i.value(1)})", to)
    if to in ("f16", "bf16"):
        return i.set(0, f"to_{to}({i.value(1)})", "b16")
    known = {(): given not in FLOATS or to == "f64", ("rn",): to in FLOATS, ("sat",): to == given == "f32"}
    if not known.get(tuple(rounding)):
        raise Unknown("form")
    return i.set(0, f"saturate({i.value(1)})" if rounding == ["sat"] else i.value(1), to)
