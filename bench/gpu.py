"""Bandwidth on a GPU: normkit's kernels, PyTorch's, and a copy, timed by CUDA events in one run.

    python bench/gpu.py [--quick] [--json FILE]

Each case works on arrays of more than four times the L2 cache. Results are checked against PyTorch's in float32 before
they are timed; providers take turns; printed are the least and the median. "share" is the useful bytes (each input
read once, each output written once) over the time, by that of the copy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn import functional

import normkit

BF16 = torch.bfloat16


@dataclass
class Case:
    """What is computed, how many times the tensor's bytes that has to move, and the share of a copy it is to reach."""

    name: str
    bytes: int
    ours: Callable[[], object]
    theirs: Callable[[], object] | None
    target: float


def events(call: Callable[[], object], repeats: int) -> float:
    """Return milliseconds of a call."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def rows(m: int, n: int) -> list[Case]:
    """LayerNorm and RMSNorm of m rows of n."""
    x, dy = torch.randn(m, n, device="cuda", dtype=BF16), torch.randn(m, n, device="cuda", dtype=BF16)
    weight, bias = torch.randn(n, device="cuda", dtype=BF16), torch.randn(n, device="cuda", dtype=BF16)
    out, size = torch.empty_like(x), x.numel() * x.element_size()
    _, mean, rstd = normkit.layer_norm(x, weight, bias, return_stats=True)
    _, rms = normkit.rms_norm(x, weight, return_stats=True)
    layer = (x, [n], mean.reshape(m, 1), rstd.reshape(m, 1), weight, bias, [True, True, True])
    backward = torch.ops.aten.native_layer_norm_backward
    tag = f"{m}x{n}"
    return [
        Case(f"layer_norm {tag}", 2 * size, lambda: normkit.layer_norm(x, weight, bias, out=out),
             lambda: functional.layer_norm(x, (n,), weight, bias), 0.95),
        Case(f"rms_norm {tag}", 2 * size, lambda: normkit.rms_norm(x, weight, out=out),
             lambda: functional.rms_norm(x, (n,), weight), 0.95),
        Case(f"add_rms_norm {tag}", 4 * size, lambda: normkit.add_rms_norm(x, dy, weight), None, 0.95),
        Case(f"layer_norm_backward {tag}", 3 * size, lambda: normkit.layer_norm_backward(dy, x, mean, rstd, weight),
             lambda: backward(dy, *layer), 0.90),
        Case(f"rms_norm_backward {tag}", 3 * size, lambda: normkit.rms_norm_backward(dy, x, rms, weight), None, 0.90),
    ]  # fmt: skip


def images(shape: tuple[int, ...], groups: int, last: bool) -> list[Case]:
    """BatchNorm, GroupNorm and InstanceNorm."""
    order = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(shape, device="cuda", dtype=BF16).contiguous(memory_format=order)
    dy, out, c = torch.randn_like(x), torch.empty_like(x), shape[1]
    weight, bias = torch.randn(c, device="cuda"), torch.randn(c, device="cuda")
    half, shift = weight.to(BF16), bias.to(BF16)
    size = x.numel() * x.element_size()
    state = normkit.BatchNormState(c)
    averages = torch.zeros(c, device="cuda"), torch.ones(c, device="cuda")
    _, mean, rstd = normkit.batch_norm(x, None, weight, bias, training=True, return_stats=True)
    _, gmean, grstd = normkit.group_norm(x, groups, weight, bias, return_stats=True)
    tag = "x".join(map(str, shape)) + (" last" if last else " first")
    return [
        Case(f"batch_norm inference {tag}", 2 * size, lambda: normkit.batch_norm(x, state, weight, bias, out=out),
             lambda: functional.batch_norm(x, *averages, weight, bias), 0.95),
        Case(f"batch_norm inference +add+relu {tag}", 3 * size,
             lambda: normkit.batch_norm(x, state, weight, bias, residual=dy, activation="relu", out=out),
             lambda: functional.relu(functional.batch_norm(x, *averages, weight, bias) + dy), 0.95),
        Case(f"batch_norm training {tag}", 2 * size,
             lambda: normkit.batch_norm(x, state, weight, bias, training=True, out=out),
             lambda: functional.batch_norm(x, *averages, weight, bias, training=True), 0.95),
        Case(f"batch_norm_backward {tag}", 3 * size, lambda: normkit.batch_norm_backward(dy, x, mean, rstd, weight),
             lambda: torch.ops.aten.native_batch_norm_backward(
                 dy, x, weight, *averages, mean, rstd, True, 1e-5, [True, True, True]), 0.90),
        Case(f"group_norm {tag}", 2 * size, lambda: normkit.group_norm(x, groups, weight, bias, out=out),
             lambda: functional.group_norm(x, groups, half, shift), 0.95),
        Case(f"group_norm_backward {tag}", 3 * size,
             lambda: normkit.group_norm_backward(dy, x, gmean, grstd, groups, weight), None, 0.90),
        Case(f"instance_norm {tag}", 2 * size, lambda: normkit.instance_norm(x, weight, bias, out=out),
             lambda: functional.instance_norm(x, weight=half, bias=shift), 0.95),
    ]  # fmt: skip


def check(case: Case) -> None:
    """Compare a case's first result with PyTorch's."""
    if case.theirs is None:
        return
    ours, theirs = ((r[0] if isinstance(r, tuple) else r).float() for r in (case.ours(), case.theirs()))
    worst = float((ours - theirs).abs().max() / theirs.abs().max())
    assert worst < 0.05, f"{case.name}: off by {worst:.2g} of the largest"


def measure(case: Case, rounds: int, repeats: int) -> dict:
    """Time a case's providers and a copy of as many bytes, by turns."""
    half = torch.empty(case.bytes // 2, device="cuda", dtype=torch.uint8)
    copy = torch.empty_like(half)
    calls = {"copy": lambda: copy.copy_(half), "normkit": case.ours}
    if case.theirs is not None:
        calls["torch"] = case.theirs
    times = {name: [] for name in calls}
    for call in calls.values():
        events(call, 3)
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(events(call, repeats))
    result = {name: {"least": min(t), "median": median(t)} for name, t in times.items()}
    share = result["copy"]["median"] / result["normkit"]["median"]
    return {"case": case.name, "bytes": case.bytes, "target": case.target, "share": share, **result}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    properties = torch.cuda.get_device_properties(0)
    machine = {"gpu": properties.name, "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    print(machine)
    shapes = [(32768, 4096), (4096, 16384), (8192, 65536), (1048576, 256)]
    pictures = [((256, 256, 56, 56), 32), ((256, 64, 56, 56), 32), ((256, 2048, 7, 7), 32), ((64, 512, 28, 28), 32)]
    groups = [lambda m=m, n=n: rows(m, n) for m, n in shapes[: 2 if arguments.quick else None]]
    groups += [lambda s=s, g=g, last=last: images(s, g, last)
               for s, g in pictures[: 2 if arguments.quick else None] for last in (False, True)]  # fmt: skip
    rounds, repeats = (5, 5) if arguments.quick else (15, 10)
    results = []
    print(f"{'case':52} {'ms least':>9} {'median':>8} {'TB/s':>6} {'share':>6} {'target':>6} {'x torch':>8}")
    for make in groups:
        for case in make():
            check(case)
            r = measure(case, rounds, repeats)
            results.append(r)
            ours = r["normkit"]
            torchs = f"{r['torch']['median'] / ours['median']:8.2f}" if "torch" in r else "       -"
            rate = case.bytes / ours["median"] / 1e9
            flag = "" if r["share"] >= case.target else "  below"
            print(f"{case.name:52} {ours['least']:9.4f} {ours['median']:8.4f} {rate:6.2f} {r['share']:6.2f} "
                  f"{case.target:6.2f} {torchs}{flag}", flush=True)  # fmt: skip
        torch.cuda.empty_cache()
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": machine, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
