"""A training step in PyTorch with its own normalization modules, with normkit's, and with none.

    python bench/torch_steps.py [--device cuda] [--rounds N] [--batch N] [--threads N] [--smoke]

ResNet-18 (images of 64 x 64, channels first and last) and a pre-norm transformer encoder layer (d = 512, half as many
sequences of 128): forward, backward, a step of SGD. The same results are seen to before anything is timed; the variants
take turns. "share" is what normalization takes of PyTorch's step: the time that goes away with the modules. Then the
cost of a call on (8, 16), where there is next to nothing to do; on a GPU, what it costs the host.
"""

from __future__ import annotations

import argparse
import copy
import time
import timeit
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from models import EncoderLayer, ResNet18
from normkit.torch import convert

NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def without_norms(model: nn.Module) -> nn.Module:
    """Return the model with nothing in the places of its normalization modules."""
    for name, child in model.named_children():
        setattr(model, name, nn.Identity() if isinstance(child, NORMS) else without_norms(child))
    return model


def step_of(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return a training step: its loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def check(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """See that two steps of both agree, in float64: losses, parameters and averages. In float32 steps drift apart."""
    ours, theirs, x = copy.deepcopy(ours).double(), copy.deepcopy(theirs).double(), x.double()
    for _ in range(2):
        torch.testing.assert_close(step_of(ours, x)(), step_of(theirs, x)(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=1e-8)


def now(device: str) -> float:
    """Return the time when all that has been asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(name: str, model: nn.Module, x: Tensor, device: str, rounds: int) -> None:
    """Time the three variants by turns, and print a line."""
    model, x = model.to(device), x.to(device)
    models = {"torch": model, "normkit": convert(copy.deepcopy(model)), "none": without_norms(copy.deepcopy(model))}
    check(models["normkit"], models["torch"], x)
    steps = {variant: step_of(one, x) for variant, one in models.items()}
    samples: dict[str, list[float]] = {variant: [] for variant in steps}
    for round_ in range(rounds + 1):
        for variant, step in steps.items():
            start = now(device)
            step()
            if round_:  # the first warms up
                samples[variant].append((now(device) - start) * 1e3)
    best = {variant: min(times) for variant, times in samples.items()}
    cells = "".join(f"{min(times):>8.1f}{median(times):>8.1f}  " for times in samples.values())
    share, gain = 1 - best["none"] / best["torch"], best["torch"] / best["normkit"] - 1
    print(f"{name:<28}{cells}{share:>7.1%}{gain:>8.1%}")


def calls(device: str, rounds: int) -> None:
    """Print what a call on (8, 16) costs: inference, and a forward and a backward pass."""
    x, dy = torch.randn(2, 8, 16, device=device).unbind()
    leaf = x.clone().requires_grad_()
    modules = {
        "BatchNorm1d, training": nn.BatchNorm1d(16),
        "BatchNorm1d, evaluation": nn.BatchNorm1d(16).eval(),
        "LayerNorm": nn.LayerNorm(16),
        "RMSNorm": nn.RMSNorm(16),
        "GroupNorm": nn.GroupNorm(4, 16),
    }
    print(f"\nus per call on (8, 16), min and median of {rounds} rounds\n")
    print(f"{'':<28}{'no gradient':^34}{'forward, backward':^34}")
    print(f"{'':<28}" + 2 * f"{'torch':>16}{'normkit':>16}  ")
    for name, theirs in modules.items():
        theirs.to(device)
        pair = (theirs, convert(copy.deepcopy(theirs)))

        def plain(module: nn.Module) -> Callable[[], None]:
            def call() -> None:
                with torch.no_grad():
                    module(x)

            return call

        def both(module: nn.Module) -> Callable[[], None]:
            return lambda: module(leaf).backward(dy)

        timers = [timeit.Timer(kind(module)) for kind in (plain, both) for module in pair]
        number = 40  # short enough to fit between what else the machine does
        samples: list[list[float]] = [[] for _ in timers]
        for _ in range(rounds):
            for times, timer in zip(samples, timers, strict=True):
                now(device)
                times.append(timer.timeit(number) / number * 1e6)
        cells = (f"{min(v):>8.1f}{median(v):>8.1f}{'  ' if k % 2 else ''}" for k, v in enumerate(samples))
        print(f"{name:<28}" + "".join(cells).rstrip())


def main() -> None:
    """Time the steps, then the calls."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, help="images; 16, on a GPU 256")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="one round of small steps, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, side = options.device, 64
    rounds, batch = (1, 4) if options.smoke else (options.rounds, options.batch or (16 if device == "cpu" else 256))
    place = f"{options.threads} threads" if device == "cpu" else torch.cuda.get_device_name()
    print(f"ms per step, batch {batch}, min and median of {rounds} rounds; PyTorch {torch.__version__}, {place}\n")
    print(f"{'':<28}{'torch':^18}{'normkit':^18}{'no norms':^18}{'share':>7}{'gain':>8}")
    images = torch.randn(batch, 3, side, side)
    compare("ResNet-18", ResNet18(), images, device, rounds)
    last = torch.channels_last
    resnet, images = ResNet18().to(memory_format=last), images.to(memory_format=last)
    compare("ResNet-18, channels last", resnet, images, device, rounds)
    compare("transformer layer", EncoderLayer(), torch.randn(batch // 2, 128, 512), device, rounds)
    calls(device, 1 if options.smoke else 300)


if __name__ == "__main__":
    main()
