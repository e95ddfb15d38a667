"""Train a small network on handwritten digits with every normalizer, and see what is said of them.

Four claims of the literature are put to the test, each over several seeds:

1. BatchNorm tolerates larger learning rates (Ioffe and Szegedy 2015).
2. BatchNorm degrades where batches are small, GroupNorm does not (Wu and He 2018).
3. It matters whether BatchNorm comes before the activation or after it.
4. In evaluation, moving averages do as well as the statistics of the batch.

The data are the UCI handwritten digits that come with scikit-learn, 1797 grey images of 8 x 8, a fifth of them held
out. What comes out is printed, plotted, and compared with the claim; the verdicts are computed from the numbers.

    python examples/train_digits.py [--quick] [--output DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import train_digits_plots as plots
from normkit import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from tiny_network import AveragePool, Convolution, Flatten, Linear, Module, Network, Relu

CHANNELS = (8, 16, 16)
GROUP_SIZE = 4
REFERENCE_BATCH = 64

# Makes what stands between a convolution and the next, given its channels and the size of its images.
Between = Callable[[int, int], list]


def normalized(make: Callable[[int, int], Module], after: bool = False) -> Between:
    """Normalize before the activation, or after it."""
    return lambda channels, size: [Relu(), make(channels, size)] if after else [make(channels, size), Relu()]


def batch_norm(channels: int, size: int) -> BatchNorm:
    """Return the layer that two of the variants share."""
    return BatchNorm(channels, axis=-1)


VARIANTS: dict[str, Between] = {
    "none": lambda channels, size: [Relu()],
    "BatchNorm": normalized(batch_norm),
    "BatchNorm after": normalized(batch_norm, after=True),
    "GroupNorm": normalized(lambda channels, size: GroupNorm(channels // GROUP_SIZE, channels, axis=-1)),
    "LayerNorm": normalized(lambda channels, size: LayerNorm((size, size, channels))),
    "InstanceNorm": normalized(lambda channels, size: InstanceNorm(channels, affine=True, axis=-1)),
}


def network(variant: str, seed: int) -> Network:
    """Return three convolutions and a linear layer; weights depend on the seed alone, not on the variant."""
    rng = np.random.default_rng(seed)
    between = VARIANTS[variant]
    first, second, third = CHANNELS
    return Network(
        [
            Convolution(1, first, rng, first=True),
            *between(first, 8),
            Convolution(first, second, rng),
            *between(second, 8),
            AveragePool(2),
            Convolution(second, third, rng),
            *between(third, 4),
            AveragePool(2),
            Flatten(),
            Linear(4 * third, 10, rng),
        ]
    )


@dataclass(frozen=True)
class Digits:
    """Images of N x 8 x 8 x 1, from 0 to 1, and what they show."""

    x: np.ndarray
    labels: np.ndarray
    test_x: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def load(cls) -> Digits:
        """Hold out every fifth of the images, in a fixed random order."""
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        x, labels = (digits.images[order, :, :, None] / 16).astype(np.float32), digits.target[order]
        held_out = np.arange(len(x)) % 5 == 0
        return cls(x[~held_out], labels[~held_out], x[held_out], labels[held_out])


def accuracy(model: Network, digits: Digits, batch: int | None = None) -> float:
    """Return the share of held-out images recognized, in batches of that size if statistics are to be the batch's."""
    model.train(batch is not None)
    parts = [slice(None)] if batch is None else [slice(i, i + batch) for i in range(0, len(digits.test_x), batch)]
    logits = [model(digits.test_x[part], update_state=False) for part in parts if len(digits.test_x[part]) > 1]
    guesses = np.concatenate(logits).argmax(axis=1)
    return float((guesses == digits.test_labels[: len(guesses)]).mean())


@dataclass(frozen=True)
class Run:
    """What came out of one training: accuracies by epoch, with moving averages and with statistics of the batch."""

    averaged: list[float]
    batch: list[float]

    @property
    def final(self) -> float:
        """Accuracy at the end."""
        return self.averaged[-1]


def train(variant: str, rate: float, batch: int, seed: int, epochs: int, digits: Digits) -> Run:
    """Train a network; one that diverges stays as bad as it is."""
    model, rng = network(variant, seed), np.random.default_rng(seed + 1000)
    run = Run([], [])
    with np.errstate(all="ignore"):  # too large a learning rate overflows: that is a result, not a fault
        for _ in range(epochs):
            order = rng.permutation(len(digits.x))
            model.train()
            for i in range(0, len(order) - 1, batch):
                part = order[i : i + batch]
                if len(part) > 1:  # a single pixel per channel would have no variance; a last single image is left out
                    model.step(digits.x[part], digits.labels[part], rate)
            run.averaged.append(accuracy(model, digits))
            run.batch.append(accuracy(model, digits, batch))
    return run


@dataclass(frozen=True)
class Plan:
    """What is varied, and how thoroughly."""

    rates: Sequence[float]
    batches: Sequence[int]
    seeds: Sequence[int]
    epochs: int
    rate: float = 0.1  # for batches of REFERENCE_BATCH; smaller batches take smaller steps, in proportion

    def runs(self) -> Iterator[tuple[str, float, int, int]]:
        """Yield variant, rate, batch size and seed of every training; those that serve two questions once."""
        by_rate = product(VARIANTS, self.rates, [REFERENCE_BATCH], self.seeds)
        by_batch = [
            (v, self.rate * b / REFERENCE_BATCH, b, s) for v, b, s in product(VARIANTS, self.batches, self.seeds)
        ]
        yield from dict.fromkeys([*by_rate, *by_batch])


QUICK = Plan(rates=(0.01, 0.1, 1.0), batches=(2, 64), seeds=(0, 1), epochs=1)
FULL = Plan(rates=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), batches=(2, 4, 16, 64), seeds=(0, 1, 2, 3, 4), epochs=5)


class Results:
    """All trainings, and the four questions asked of them."""

    def __init__(self, plan: Plan, digits: Digits) -> None:
        self.plan = plan
        self.runs: dict[tuple[str, float, int, int], Run] = {}
        for key in tqdm(list(plan.runs()), desc="trainings", unit="", leave=False):
            variant, rate, batch, seed = key
            self.runs[key] = train(variant, rate, batch, seed, plan.epochs, digits)

    def by_rate(self, variant: str) -> np.ndarray:
        """Return final accuracies, rates x seeds."""
        return np.array(
            [[self.runs[variant, r, REFERENCE_BATCH, s].final for s in self.plan.seeds] for r in self.plan.rates]
        )

    def of_batch(self, variant: str, batch: int) -> list[Run]:
        """Return the runs with batches of a size, one for each seed."""
        rate = self.plan.rate * batch / REFERENCE_BATCH
        return [self.runs[variant, rate, batch, seed] for seed in self.plan.seeds]

    def by_batch(self, variant: str) -> np.ndarray:
        """Return final accuracies, batch sizes x seeds."""
        return np.array([[run.final for run in self.of_batch(variant, b)] for b in self.plan.batches])

    def verdict(self, agrees: bool) -> str:
        """Say how an outcome stands to its claim, if the trainings were long enough to say anything."""
        if self.plan.epochs < FULL.epochs:
            return "These trainings are too short to tell."
        return "This agrees with the claim." if agrees else "This does not agree with the claim."

    def largest_rate(self, variant: str) -> float:
        """Return the largest learning rate that still reaches 95 % of the variant's best mean accuracy."""
        mean = self.by_rate(variant).mean(axis=1)
        return max(r for r, m in zip(self.plan.rates, mean, strict=True) if m >= 0.95 * mean.max())


def percent(values: np.ndarray) -> str:
    """Format mean and range over seeds."""
    return f"{100 * values.mean():.1f} ({100 * values.min():.1f}-{100 * values.max():.1f})"


def larger_rates(results: Results) -> str:
    """Claim 1."""
    plain, batch = results.largest_rate("none"), results.largest_rate("BatchNorm")
    return (
        f"Largest learning rate within 95 % of the best accuracy: {plain:g} without normalization, {batch:g} with "
        f"BatchNorm. {results.verdict(batch > plain)}"
    )


def small_batches(results: Results) -> str:
    """Claim 2: a loss counts as one where it is larger than the spread over seeds."""
    losses = {}
    for variant in ("BatchNorm", "GroupNorm"):
        table = results.by_batch(variant)
        losses[variant] = table[-1].mean() - table[0].mean(), table[[0, -1]].std(axis=1).max()
    (batch_loss, batch_spread), (group_loss, group_spread) = losses.values()
    low, high = results.plan.batches[0], results.plan.batches[-1]
    agrees = batch_loss > batch_spread and batch_loss - group_loss > max(batch_spread, group_spread)
    return (
        f"From batches of {high} to batches of {low}, the accuracy of BatchNorm changes by {-100 * batch_loss:+.1f} "
        f"points (standard deviation {100 * batch_spread:.1f}), that of GroupNorm by {-100 * group_loss:+.1f} "
        f"({100 * group_spread:.1f}). {results.verdict(agrees)}"
    )


def before_or_after(results: Results) -> str:
    """Claim 3: at the best learning rate of each."""
    best = {}
    for variant in ("BatchNorm", "BatchNorm after"):
        table = results.by_rate(variant)
        best[variant] = table[table.mean(axis=1).argmax()]
    before, after = best.values()
    difference, spread = after.mean() - before.mean(), max(before.std(), after.std())
    return (
        f"At their best learning rates {percent(before)} % before the activation, {percent(after)} % after it: a "
        f"difference of {100 * difference:.1f} points, the standard deviation over seeds being {100 * spread:.1f}. "
        f"{results.verdict(abs(difference) > spread)}"
    )


def moving_averages(results: Results) -> str:
    """Claim 4: at the reference batch size, at the end of training."""
    runs = results.of_batch("BatchNorm", results.plan.batches[-1])
    averaged = np.array([run.averaged[-1] for run in runs])
    batch = np.array([run.batch[-1] for run in runs])
    loss, spread = batch.mean() - averaged.mean(), max(batch.std(), averaged.std())
    return (
        f"Batches of {results.plan.batches[-1]}, after {results.plan.epochs} epochs: {percent(averaged)} % with moving "
        f"averages, {percent(batch)} % with the statistics of the batch. {results.verdict(loss <= spread)}"
    )


def print_table(title: str, columns: Sequence[str], rows: dict[str, np.ndarray]) -> None:
    """Print accuracies in percent: means over seeds, lowest and highest."""
    print(f"\n{title}: accuracy in %, mean (lowest-highest) over seeds")
    print(f"{'':<17}" + "".join(f"{column:>20}" for column in columns))
    for name, table in rows.items():
        print(f"{name:<17}" + "".join(f"{percent(values):>20}" for values in table))


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and short trainings: under a minute")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output", help="folder for the plots")
    options = parser.parse_args()
    with threadpool_limits(1):  # arrays as small as these are not worth waiting for a thread
        results = Results(QUICK if options.quick else FULL, Digits.load())
    plan = results.plan
    print_table("By learning rate", [f"{r:g}" for r in plan.rates], {v: results.by_rate(v) for v in VARIANTS})
    print_table("By batch size", [str(b) for b in plan.batches], {v: results.by_batch(v) for v in VARIANTS})
    captions = {
        "rates": larger_rates(results),
        "batches": small_batches(results),
        "order": before_or_after(results),
        "averages": moving_averages(results),
    }
    print()
    for number, caption in enumerate(captions.values(), 1):
        print(f"{number}. {caption}")
    if options.quick:
        print("\ndocs/training.md has what comes of more and longer ones.")
    options.output.mkdir(parents=True, exist_ok=True)
    rates = {variant: results.by_rate(variant) for variant in VARIANTS}
    batches = {variant: results.by_batch(variant) for variant in VARIANTS}
    order = {variant: rates[variant] for variant in ("BatchNorm", "BatchNorm after")}
    runs = {b: results.of_batch("BatchNorm", b) for b in (plan.batches[0], plan.batches[-1])}
    averages = {b: (np.array([r.averaged for r in rs]), np.array([r.batch for r in rs])) for b, rs in runs.items()}
    print()
    for path in (
        plots.draw_curves(options.output / "train_rates.png", plan.rates, rates, "learning rate", captions["rates"]),
        plots.draw_curves(
            options.output / "train_batches.png", plan.batches, batches, "batch size", captions["batches"]
        ),
        plots.draw_curves(options.output / "train_order.png", plan.rates, order, "learning rate", captions["order"]),
        plots.draw_epochs(options.output / "train_averages.png", averages, captions["averages"]),
    ):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
