"""Bandwidth on a GPU: normkit's kernels, PyTorch's, Liger's where it is installed, and a copy, by CUDA events.

    python bench/gpu.py [--quick] [--only WORD] [--json FILE]

Each case works on arrays of more than four times the L2 cache, or has it written over before each call. Results are
checked against PyTorch's before they are timed; providers take turns; printed are the least and the median. "share" is
the copy's time over ours, both for the useful bytes: each input read once, each output written once. The JSON also
names the kernels that PyTorch ran.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import normkit

try:
    from liger_kernel.ops import layer_norm as liger_layer
    from liger_kernel.ops import rms_norm as liger_rms
except ImportError:
    liger_layer = liger_rms = None

BF16, F32 = torch.bfloat16, torch.float32
aten = torch.ops.aten
Call = Callable[[], object]


@dataclass
class Case:
    """What is computed, how many bytes that has to move, and the share of a copy it is to reach."""

    name: str
    bytes: int
    target: float
    ours: Call
    torch: Call | None = None
    others: dict[str, Call] = field(default_factory=dict)


def events(call: Call, repeats: int, flush: torch.Tensor | None) -> float:
    """Return milliseconds of a call; with `flush`, what it is to find in the cache is that tensor."""
    if flush is None:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / repeats
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in pairs:
        flush.zero_()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in pairs)


def kernels_of(call: Call) -> list[str]:
    """Return the names of the kernels that a call runs."""
    call()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        call()
        torch.cuda.synchronize()
    return [event.key for event in seen.key_averages() if not event.key.startswith(("cuda", "cu", "Activity"))]


def rows(m: int, n: int, dtype: torch.dtype = BF16) -> Iterator[Case]:
    """LayerNorm and RMSNorm of m rows of n."""
    x, dy = (torch.randn(m, n, device="cuda", dtype=dtype) for _ in range(2))
    weight, bias = (torch.randn(n, device="cuda", dtype=dtype) for _ in range(2))
    out, size = torch.empty_like(x), x.numel() * x.element_size()
    _, mean, rstd = normkit.layer_norm(x, weight, bias, return_stats=True)
    _, rms = normkit.rms_norm(x, weight, return_stats=True)
    tag = f"{m}x{n} {str(dtype)[6:]}"
    layer, root, layer_back, root_back = {}, {}, {}, {}
    if liger_layer is not None and n * dtype.itemsize <= 1 << 17:
        layer["liger"] = lambda: liger_layer.layer_norm_forward(x, weight, bias, 1e-5)
        layer_back["liger"] = lambda: liger_layer.layer_norm_backward(dy, x, weight, bias, mean, rstd)
        root["liger"] = lambda: liger_rms.rms_norm_forward(x, weight, 1e-5, 0.0, "llama", None)
        _, _, liger_rstd, block, warps, mode = root["liger"]()
        root_back["liger"] = lambda: liger_rms.rms_norm_backward(
            dy, x, weight, liger_rstd, 0.0, mode, block, warps, False, None)  # fmt: skip
    kept = [n], mean.reshape(m, 1), rstd.reshape(m, 1), weight, bias, [True, True, True]
    fused = getattr(aten, "_fused_rms_norm_backward", None)
    yield Case(f"layer_norm {tag}", 2 * size, 0.95, lambda: normkit.layer_norm(x, weight, bias, out=out),
               lambda: functional.layer_norm(x, (n,), weight, bias), layer)  # fmt: skip
    yield Case(f"rms_norm {tag}", 2 * size, 0.95, lambda: normkit.rms_norm(x, weight, out=out),
               lambda: functional.rms_norm(x, (n,), weight), root)  # fmt: skip
    yield Case(f"add_rms_norm {tag}", 4 * size, 0.95, lambda: normkit.add_rms_norm(x, dy, weight),
               lambda: functional.rms_norm(x + dy, (n,), weight))  # fmt: skip
    yield Case(f"layer_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.layer_norm_backward(dy, x, mean, rstd, weight),
               lambda: aten.native_layer_norm_backward(dy, x, *kept), layer_back)  # fmt: skip
    yield Case(f"rms_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.rms_norm_backward(dy, x, rms, weight),
               fused and (lambda: fused(dy, x, [n], rms.reshape(m, 1), weight, [True, True])), root_back)  # fmt: skip


def images(shape: tuple[int, ...], groups: int, last: bool, dtype: torch.dtype = BF16) -> Iterator[Case]:
    """BatchNorm, GroupNorm and InstanceNorm."""
    order = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=order)
    dy, out, (n, c, h, w) = torch.randn_like(x), torch.empty_like(x), shape
    weight, bias = torch.randn(c, device="cuda"), torch.randn(c, device="cuda")
    half, shift = weight.to(dtype), bias.to(dtype)
    size = x.numel() * x.element_size()
    state = normkit.BatchNormState(c)
    averages = torch.zeros(c, device="cuda"), torch.ones(c, device="cuda")
    _, mean, rstd = normkit.batch_norm(x, None, weight, bias, training=True, return_stats=True)
    _, gmean, grstd = normkit.group_norm(x, groups, weight, bias, return_stats=True)
    _, imean, irstd = normkit.instance_norm(x, weight, bias, return_stats=True)
    flat = (
        gmean.reshape(n, groups).to(dtype),
        grstd.reshape(n, groups).to(dtype),
        half,
        n,
        c,
        h * w,
        groups,
        [True, True, True],
    )
    tag = "x".join(map(str, shape)) + (" last " if last else " first ") + str(dtype)[6:]
    yield Case(f"batch_norm inference {tag}", 2 * size, 0.95,
               lambda: normkit.batch_norm(x, state, weight, bias, out=out),
               lambda: functional.batch_norm(x, *averages, weight, bias))  # fmt: skip
    yield Case(f"batch_norm inference +add+relu {tag}", 3 * size, 0.95,
               lambda: normkit.batch_norm(x, state, weight, bias, residual=dy, activation="relu", out=out),
               lambda: functional.relu(functional.batch_norm(x, *averages, weight, bias) + dy))  # fmt: skip
    yield Case(f"batch_norm training {tag}", 2 * size, 0.95,
               lambda: normkit.batch_norm(x, state, weight, bias, training=True, out=out),
               lambda: functional.batch_norm(x, *averages, weight, bias, training=True))  # fmt: skip
    yield Case(f"batch_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.batch_norm_backward(dy, x, mean, rstd, weight),
               lambda: aten.native_batch_norm_backward(
                   dy, x, weight, *averages, mean, rstd, True, 1e-5, [True, True, True]))  # fmt: skip
    yield Case(f"group_norm {tag}", 2 * size, 0.95,
               lambda: normkit.group_norm(x, groups, weight, bias, out=out),
               lambda: functional.group_norm(x, groups, half, shift))  # fmt: skip
    yield Case(f"group_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.group_norm_backward(dy, x, gmean, grstd, groups, weight),
               lambda: aten.native_group_norm_backward(dy.contiguous(), x.contiguous(), *flat))  # fmt: skip
    yield Case(f"instance_norm {tag}", 2 * size, 0.95,
               lambda: normkit.instance_norm(x, weight, bias, out=out),
               lambda: functional.instance_norm(x, weight=half, bias=shift))  # fmt: skip
    yield Case(f"instance_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.instance_norm_backward(dy, x, imean, irstd, weight))  # fmt: skip


def sequences(shape: tuple[int, int, int], dtype: torch.dtype = BF16) -> Iterator[Case]:
    """BatchNorm of padded sequences, half of them padding on average; PyTorch's of what is picked out of them."""
    n, t, c = shape
    x, dy = (torch.randn(shape, device="cuda", dtype=dtype) for _ in range(2))
    weight, bias = torch.randn(c, device="cuda"), torch.randn(c, device="cuda")
    there = torch.arange(t, device="cuda") < torch.randint(1, t + 1, (n, 1), device="cuda")
    padding = {"axis": -1, "mask": there}
    out, size = torch.empty_like(x), x.numel() * x.element_size()
    _, mean, rstd = normkit.batch_norm(x, None, weight, bias, training=True, return_stats=True, **padding)

    def picked() -> torch.Tensor:
        y = torch.zeros_like(x)
        y[there] = functional.batch_norm(x[there], None, None, weight, bias, training=True)
        return y

    tag = "x".join(map(str, shape)) + f" padded {str(dtype)[6:]}"
    yield Case(f"batch_norm training {tag}", 2 * size, 0.95,
               lambda: normkit.batch_norm(x, None, weight, bias, training=True, out=out, **padding),
               picked)  # fmt: skip
    yield Case(f"batch_norm_backward {tag}", 3 * size, 0.90,
               lambda: normkit.batch_norm_backward(dy, x, mean, rstd, weight, **padding))  # fmt: skip


def check(case: Case) -> None:
    """Compare a case's first result with those of the others."""
    for name, other in {"torch": case.torch, **case.others}.items():
        if other is None:
            continue
        ours, theirs = (r[0] if isinstance(r, tuple) else r for r in (case.ours(), other()))
        worst = float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
        assert worst < 0.05, f"{case.name}: {name} is off by {worst:.2g} of the largest"


def measure(case: Case, rounds: int, repeats: int, cache: int) -> dict:
    """Time a case's providers and a copy of as many bytes, by turns."""
    half = torch.empty(case.bytes // 2, device="cuda", dtype=torch.uint8)
    copy = torch.empty_like(half)
    flush = torch.empty(2 * cache, device="cuda", dtype=torch.uint8) if case.bytes < 4 * cache else None
    calls = {"copy": lambda: copy.copy_(half), "normkit": case.ours}
    if case.torch is not None:
        calls["torch"] = case.torch
    calls |= case.others
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        events(call, 3, flush)
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(events(call, repeats, flush))
    result = {name: {"least": min(t), "median": median(t)} for name, t in times.items()}
    share = result["copy"]["median"] / result["normkit"]["median"]
    return {"case": case.name, "bytes": case.bytes, "target": case.target, "share": share, **result}


def row_of(r: dict) -> str:
    """Return a result's row of the table."""
    ours = r["normkit"]
    theirs = "".join(f" {r[k]['median'] / ours['median']:8.2f}" if k in r else f" {'-':>8}" for k in ("torch", "liger"))
    flag = "" if r["share"] >= r["target"] else "  below"
    return (f"{r['case']:58} {ours['least']:9.4f} {ours['median']:8.4f} {r['bytes'] / ours['median'] / 1e9:6.2f} "
            f"{r['share']:6.2f} {r['target']:6.2f}{theirs}{flag}")  # fmt: skip


def failure(name: str, error: Exception) -> dict:
    """Return what is to be kept of a case that fails, having printed it. The others are still worth their time."""
    print(f"{name:58} FAILED: {(str(error) or repr(error)).splitlines()[0]}", flush=True)
    return {"case": name, "failed": repr(error)}


def result_of(case: Case, quick: bool) -> dict:
    """Return what is to be kept of a case, having printed it."""
    rounds, repeats = (3, 5) if quick else (15, 10)
    try:
        check(case)
        result = measure(case, rounds, repeats, torch.cuda.get_device_properties(0).L2_cache_size)
        if case.torch is not None and not quick:
            result["torch_kernels"] = kernels_of(case.torch)
        print(row_of(result), flush=True)
        return result
    except Exception as error:
        return failure(case.name, error)


def results_of(groups: list[Callable[[], Iterator[Case]]], only: str, quick: bool) -> Iterator[dict]:
    """Yield those of all groups."""
    for make in groups:
        try:
            for case in make():
                if only in case.name:
                    yield result_of(case, quick)
            torch.cuda.empty_cache()
        except Exception as error:
            yield failure("what a group of cases begins with", error)


SHAPES = [(32768, 4096), (4096, 16384), (8192, 65536), (16384, 8192), (1 << 20, 256), (32768, 256), (131072, 1000),
          (131072, 1001)]  # fmt: skip
PICTURES = [((256, 256, 56, 56), 32), ((256, 64, 56, 56), 32), ((8, 256, 128, 128), 32), ((256, 2048, 7, 7), 32),
            ((64, 512, 28, 28), 32), ((64, 288, 35, 35), 32), ((16, 320, 64, 64), 32)]  # fmt: skip


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    gpu = torch.cuda.get_device_properties(0)
    machine = {"gpu": gpu.name, "l2": gpu.L2_cache_size, "torch": torch.__version__,
               "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    print(machine)
    groups: list[Callable[[], Iterator[Case]]] = [lambda s=s: rows(*s) for s in SHAPES]
    groups += [lambda: rows(16384, 4096, F32)]
    groups += [lambda p=p, last=last: images(*p, last) for p in PICTURES for last in (False, True)]
    groups += [lambda: sequences((128, 1024, 1024))]
    groups += [lambda last=last: images((64, 64, 56, 56), 32, last, F32) for last in (False, True)]
    print(
        f"{'case':58} {'ms least':>9} {'median':>8} {'TB/s':>6} {'share':>6} {'target':>6} "
        f"{'x torch':>8} {'x liger':>8}"
    )
    results: list[dict] = []
    for result in results_of(groups, arguments.only, arguments.quick):
        results.append(result)
        if arguments.json:  # at once: what ends this run need not end it well
            with open(arguments.json, "w") as file:
                json.dump({"machine": machine, "results": results}, file, indent=1)
    if any("failed" in r for r in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
