"""Time the inference of ResNets before and after normkit.torch.fuse.

    python bench/fuse.py [--quick] [--threads N] [--json FILE]

Outputs are checked against the model's before anything is timed. All forms of a model and a batch are timed in
interleaved rounds; printed are the least and the median milliseconds of a call, and how many times as long the model
takes, by the least and by the median of each. Forms:

model                   as it is, with its batch norms
folded                  normkit.torch.fuse(inplace=True): without them, else the same code
fused                   normkit.torch.fuse: the traced graph, ReLUs and sums in place
fused, channels last    the same, parameters and images converted
PyTorch's               torch.fx.experimental.optimization.fuse
fused, oneDNN's ReLUs   what is fused, through PyTorch's internal convolutions that end in a sum and a ReLU
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.fx.experimental import optimization

import machine
import normkit.torch
from fuse_onednn import with_post_operations
from timing import Entry, measure

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import resnets

MODELS = {"ResNet-18": resnets.resnet18, "ResNet-50": resnets.resnet50}
BATCHES = (1, 8)
TOLERANCE = 1e-4  # of the largest output


def forms(model: torch.nn.Module, images: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways of running a model."""
    fused, summary = normkit.torch.fuse(model, images)
    if summary.left:
        raise SystemExit(f"not all batch norms are folded:\n{summary}")
    folded, _ = normkit.torch.fuse(copy.deepcopy(model), images, inplace=True)
    last = copy.deepcopy(fused).to(memory_format=torch.channels_last)
    images_last = images.to(memory_format=torch.channels_last)
    theirs = optimization.fuse(model)
    onednn = with_post_operations(fused, images)
    return {
        "model": lambda: model(images),
        "folded": lambda: folded(images),
        "fused": lambda: fused(images),
        "fused, channels last": lambda: last(images_last),
        "PyTorch's": lambda: theirs(images),
        "fused, oneDNN's ReLUs": lambda: onednn(images),
    }


def entries_of(calls: dict[str, Callable[[], torch.Tensor]]) -> list[Entry]:
    """One for each form, whose results are right."""
    expected = calls["model"]().double()
    entries = []
    for name, call in calls.items():
        error = ((call().double() - expected).abs().max() / expected.abs().max()).item()
        if not error <= TOLERANCE:
            raise SystemExit(f"{name} is off by {error} of the largest output")
        entries.append(Entry(name, "new", call, error=error / TOLERANCE))
    return entries


def run(name: str, batch: int, size: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time all forms of a model on a batch, and print a line for each."""
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    entries = entries_of(forms(MODELS[name](), images))
    measure(entries, rounds, seconds)
    base, records = entries[0].samples, []
    for entry in entries:
        own = entry.samples
        ratios = min(base) / min(own), median(base) / median(own)
        figures = f"{min(own) * 1e3:9.2f} {median(own) * 1e3:9.2f} {ratios[0]:9.2f} {ratios[1]:9.2f}"
        print(f"{name:10} {batch:>5} x {size:<5} {entry.provider:24}{figures}", flush=True)
        records.append({"model": name, "batch": batch, "size": size, "form": entry.provider, "seconds": own})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, few rounds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="where to write the samples")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    description = machine.describe()
    print(f"{description['cpu']}, {options.threads} threads, PyTorch {torch.__version__}, float32")
    print(f"load average {description['load_average'][0]:.1f}")
    print(f"{'':48}{'least ms':>9} {'median ms':>9} {'times':>9} {'median':>9}")
    size, rounds, seconds = (32, 3, 1.0) if options.quick else (224, 25, 60.0)
    records = [record for name in MODELS for batch in BATCHES for record in run(name, batch, size, rounds, seconds)]
    if options.json:
        result = {"machine": description, "torch": torch.__version__, "results": records}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
