"""Normalize real images with every normalizer and look at what happens.

The data are the UCI handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8. Normalizers differ in
what they do with channels, and a grey image has only one; so each image is seen through eight fixed 3 x 3 filters
(itself, two blurs, edges in four directions, a Laplacian), like the first layer of a convolutional network. That makes
a tensor of N x C x H x W = 1797 x 8 x 8 x 8 whose channels have different means and scales.

    python examples/digits.py [--quick] [--output DIR]

prints what it finds, stops with an error if anything it claims is not so, and writes three plots.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import digits_plots as plots
import normkit

FILTERS = {
    "image": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur": [[1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9]],
    "Sobel x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "Sobel y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "Sobel \\": [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]],
    "Sobel /": [[0, -1, -2], [1, 0, -1], [2, 1, 0]],
    "Laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "sharpened": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}
GROUP_SIZE = 2  # groups are runs of contiguous channels; neighbours above are of a kind
MOMENTA = (0.3, 0.1, 0.01, None)  # None: the cumulative average
BATCH_SIZE = 64


@dataclass(frozen=True)
class Case:
    """A normalizer, its call as a user of NCHW images writes it, and the same call for any channel axis."""

    name: str
    call: str
    run: Callable[[np.ndarray, int], np.ndarray]


CASES = (
    Case(
        "BatchNorm",
        "batch_norm(x, state, training=True)",
        lambda x, axis: normkit.batch_norm(x, None, training=True, axis=axis),
    ),
    Case("InstanceNorm", "instance_norm(x)", lambda x, axis: normkit.instance_norm(x, axis=axis)),
    Case(
        "GroupNorm",
        "group_norm(x, num_groups)",
        lambda x, axis: normkit.group_norm(x, x.shape[axis] // GROUP_SIZE, axis=axis),
    ),
    Case("LayerNorm", "layer_norm(x, axis=(1, 2, 3))", lambda x, axis: normkit.layer_norm(x, axis=(1, 2, 3))),
    Case("LayerNorm of pixels", "layer_norm(x, axis=1)", lambda x, axis: normkit.layer_norm(x, axis=axis)),
    Case("RMSNorm", "rms_norm(x, axis=(1, 2, 3))", lambda x, axis: normkit.rms_norm(x, axis=(1, 2, 3))),
    Case("z-score", "standardize(x, axis=0)", lambda x, axis: normkit.standardize(x, axis=0)),
    Case("min-max", "min_max_scale(x, axis=0)", lambda x, axis: normkit.min_max_scale(x, axis=0)),
)
INFERENCE = Case(
    "BatchNorm, inference",
    "batch_norm(x, state)",
    lambda x, axis: normkit.batch_norm(x, normkit.BatchNormState(x.shape[axis]), axis=axis),
)


def require(condition: bool, claim: str) -> None:
    """Stop the program when something it claims is not so."""
    if not condition:
        raise SystemExit(f"digits.py: this should be so, and is not: {claim}")


def filtered_digits() -> np.ndarray:
    """Return the digits seen through FILTERS: float32 of shape (1797, 8, 8, 8), channels first."""
    digits = load_digits().images.astype(np.float32)
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwij,cij->nchw", windows, np.array(list(FILTERS.values()), np.float32)).astype(np.float32)


def run_channels_last(case: Case, x: np.ndarray) -> np.ndarray:
    """Run a normalizer on a channels-last copy of `x`; the result is returned as a channels-first view."""
    return np.moveaxis(case.run(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1), -1, 1)


def membership(case: Case, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Find by experiment which elements share a statistic with element (0, 0, 0, 0).

    Push that element far up, then far down, and see which outputs move: those, and no others by a single bit. (Both
    ways, because under min-max scaling the smallest and the largest value of a slice always map to the same place.)
    """
    x = np.random.default_rng(0).normal(size=shape)
    moved = {}
    for layout, run in (("NCHW", lambda v: case.run(v, 1)), ("NHWC", lambda v: run_channels_last(case, v))):
        changed = np.zeros(shape, bool)
        for push in (100.0, -100.0):
            pushed = x.copy()
            pushed[0, 0, 0, 0] += push
            changed |= run(pushed) != run(x)
        moved[layout] = changed
    require(np.array_equal(moved["NCHW"], moved["NHWC"]), f"{case.name} averages over the same elements in each layout")
    require(int(changed.sum()) == int(np.prod(reach(changed))), f"{case.name} averages over a block of the tensor")
    return changed


def reach(members: np.ndarray) -> list[int]:
    """Return along how many positions of each axis a set extends."""
    return [int(members.any(axis=tuple(other for other in range(4) if other != axis)).sum()) for axis in range(4)]


def averaged_axes(members: np.ndarray) -> str:
    """Name the axes along which the members of a set extend: 'N·H·W', or 'C/3·H·W' for a third of the channels."""
    names = []
    for name, extent, reached in zip("NCHW", members.shape, reach(members), strict=True):
        if reached == extent:
            names.append(name)
        elif reached > 1:
            names.append(f"{name}/{extent // reached}")
    return "·".join(names) or "nothing"


def spread(values: np.ndarray) -> str:
    """Format the range of some values."""
    low, high = (0.0 if abs(v) < 5e-4 else v for v in (values.min(), values.max()))  # no "-0.000"
    return f"{low:7.3f} …{high:7.3f}"


def summary(name: str, over: str, y: np.ndarray, layouts: str) -> str:
    """Return one row of the table: how means and standard deviations vary over the channels and over the images."""
    wide = y.astype(np.float64)
    columns = [spread(f) for axes in ((0, 2, 3), (1, 2, 3)) for f in (wide.mean(axes), wide.std(axes))]
    return f"{name:<21}{over:<10}" + "  ".join(columns) + f"  {layouts}"


def compare_normalizers(x: np.ndarray, sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run every case in both layouts; print the table; return the results."""
    columns = ("mean of a channel", "std of a channel", "mean of an image", "std of an image")
    print(f"Filtered digits, N x C x H x W = {' x '.join(map(str, x.shape))}, {x.dtype}: smallest … largest\n")
    print(f"{'normalizer':<21}{'over':<10}" + "  ".join(f"{column:<17}" for column in columns) + "  NHWC - NCHW")
    print(summary("(before)", "", x, ""))
    results = {}
    for case in CASES:
        y = case.run(x, 1)
        difference = float(np.abs(run_channels_last(case, x) - y).max())
        require(difference <= 1e-5 * float(np.abs(y).max()), f"{case.name} is the same in each layout ({difference})")
        layouts = f"{difference:.0e}" if difference else "same bits"
        print(summary(case.name, averaged_axes(sets[case.name]), y, layouts))
        results[case.name] = y
    return results


@dataclass(frozen=True)
class Convergence:
    """Errors of a moving average after each mini-batch, and what the theory of the averages predicts for them."""

    label: str
    mean_error: np.ndarray  # root mean square over the channels, in standard deviations
    var_error: np.ndarray  # likewise, relative
    predicted_mean_error: np.ndarray
    predicted_var_error: np.ndarray


def predict(start: np.ndarray, noise: np.ndarray, momentum: float | None, steps: int) -> np.ndarray:
    """Return the expected error after 1 ... `steps` batches, root mean square over the channels.

    `start` is the error of the initial value, forgotten as (1 - momentum)^t; `noise` is the variance of the statistic
    of one batch, averaged down to momentum / (2 - momentum) of itself, or to 1/t of itself by the cumulative average.
    """
    t = np.arange(1, steps + 1)[:, None]
    if momentum is None:
        return np.sqrt((noise / t).mean(axis=1))
    kept = (1 - momentum) ** (2 * t)
    return np.sqrt((kept * start**2 + momentum / (2 - momentum) * (1 - kept) * noise).mean(axis=1))


def follow_moving_averages(x: np.ndarray, steps: int) -> list[Convergence]:
    """Feed random mini-batches to one state per momentum; compare its averages with the statistics of all of `x`."""
    axes = (0, 2, 3)
    mean, var = x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64)
    states = [normkit.BatchNormState(x.shape[1], momentum=momentum, dtype="float64") for momentum in MOMENTA]
    averages = np.empty((len(states), 2, steps, x.shape[1]))
    batches = np.empty((2, steps, x.shape[1]))
    rng = np.random.default_rng(0)
    for step in range(steps):
        batch = x[rng.choice(len(x), BATCH_SIZE, replace=False)]
        batches[:, step] = batch.mean(axes, dtype=np.float64), batch.var(axes, dtype=np.float64)
        for state, average in zip(states, averages, strict=True):
            normkit.batch_norm(batch, state, training=True)
            average[:, step] = state.running_mean, state.running_var

    def rms(error: np.ndarray) -> np.ndarray:
        return np.sqrt((error**2).mean(axis=1))

    noise_of_mean, noise_of_var = (batches[0] / np.sqrt(var)).var(axis=0), (batches[1] / var).var(axis=0)
    return [
        Convergence(
            "cumulative" if momentum is None else f"momentum {momentum}",
            rms((running_mean - mean) / np.sqrt(var)),
            rms(running_var / var - 1),
            predict(-mean / np.sqrt(var), noise_of_mean, momentum, steps),
            predict(1 / var - 1, noise_of_var, momentum, steps),
        )
        for momentum, (running_mean, running_var) in zip(MOMENTA, averages, strict=True)
    ]


def report_convergence(curves: list[Convergence], steps: int) -> None:
    """Print the last errors beside the predicted ones, and stop when one is out of proportion."""
    print(f"\nMoving averages after {steps} mini-batches of {BATCH_SIZE}, against the statistics of the whole set\n")
    print(f"{'':<18}{'error of running_mean':<29}error of running_var (relative)")
    print(f"{'':<18}{'(in std)   predicted':<29}           predicted")
    for curve in curves:
        row = (curve.mean_error, curve.predicted_mean_error, curve.var_error, curve.predicted_var_error)
        print(f"{curve.label:<18}{row[0][-1]:<11.5f}{row[1][-1]:<18.5f}{row[2][-1]:<11.5f}{row[3][-1]:.5f}")
        for error, predicted in (row[:2], row[2:]):
            # The channels are filters of the same images and err together: one run may well be off by a factor of two.
            require(bool(error[-1] < 4 * predicted[-1]), f"the averages converge as predicted ({curve.label})")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the images, fewer mini-batches")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output", help="folder for the plots")
    options = parser.parse_args()

    x = filtered_digits()
    if options.quick:
        x = np.ascontiguousarray(x[: len(x) // 4])
    sets = {case.name: membership(case, (4, 8, 2, 3)) for case in (*CASES, INFERENCE)}
    results = compare_normalizers(x, sets)
    steps = 200 if options.quick else 1000
    curves = follow_moving_averages(x, steps)
    report_convergence(curves, steps)

    options.output.mkdir(parents=True, exist_ok=True)
    blocks = [(case.name, case.call, averaged_axes(sets[case.name]), sets[case.name]) for case in (*CASES, INFERENCE)]
    digit = {"before": x[0]} | {name: y[0] for name, y in results.items()}
    written = [
        plots.draw_sets(options.output / "sets.png", blocks),
        plots.draw_channels(options.output / "digits.png", list(FILTERS), digit),
        plots.draw_convergence(options.output / "moving_averages.png", curves),
    ]
    print("\nwrote " + ", ".join(str(path) for path in written))


if __name__ == "__main__":
    main()
