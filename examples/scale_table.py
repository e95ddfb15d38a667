"""Scale tables: a real one in memory, and a large one from a stream.

    python examples/scale_table.py [--rows N] [--output DIR]

First the breast cancer data that come with scikit-learn, 569 samples of 30 features, one varying 200 000 times as much
as another: what a nearest-neighbour classifier makes of them, unscaled and scaled. Then a table of N rows in a file,
read a chunk at a time by a fit that is interrupted and resumes. Prints what it finds and how long it takes, beside
scikit-learn, and stops with an error if anything it claims is not so.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.preprocessing
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import normkit
from normkit.preprocessing import MinMaxScaler, StandardScaler
from normkit.streams import NpyChunks, fit_chunks, npy_chunks

FEATURES = 32
ROUNDS = 5


def claim(true: bool, what: str) -> None:
    """Stop unless it is so."""
    if not true:
        raise SystemExit(f"this is not so: {what}")
    print(f"  {what}")


def classify() -> None:
    """What scaling does for a classifier that measures distances; scalers work in pipelines."""
    X, y = load_breast_cancer(return_X_y=True)
    least, most = np.sort(X.std(axis=0))[[0, -1]]
    print(f"Breast cancer data, {X.shape[0]} x {X.shape[1]}; standard deviations from {least:.1g} to {most:.0f}")
    scores = {}
    for scaler in (None, StandardScaler(), MinMaxScaler(), sklearn.preprocessing.StandardScaler()):
        model = make_pipeline(*([] if scaler is None else [scaler]), KNeighborsClassifier())
        name = "unscaled" if scaler is None else f"{type(scaler).__module__.split('.')[0]} {scaler}"
        scores[name] = cross_val_score(model, X, y, cv=10).mean()
        print(f"  {name:28} {scores[name]:.1%} of samples are told right")
    claim(scores["normkit StandardScaler()"] > scores["unscaled"], "scaling helps")
    own = scores["sklearn StandardScaler()"]
    claim(abs(scores["normkit StandardScaler()"] - own) < 1e-3, "and it does not matter whose scaler it is")


def write_table(path: Path, rows: int) -> None:
    """A table of features of many scales, some values missing."""
    rng = np.random.default_rng(0)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, FEATURES))
    for begin in range(0, rows, 50_000):
        part = table[begin : begin + 50_000]
        part[...] = rng.normal(size=part.shape) * np.geomspace(0.1, 1000, FEATURES) + np.linspace(-100, 100, FEATURES)
        part[rng.random(len(part)) < 0.01, 3] = np.nan
    table.flush()


class Failing:
    """Chunks of a file, the reading of which fails on the way."""

    def __init__(self, chunks: NpyChunks, after: int) -> None:
        self.chunks, self.after = chunks, after
        self.rows, self.fingerprint = chunks.rows, chunks.fingerprint

    def __iter__(self) -> Iterator[np.ndarray]:
        for i, chunk in enumerate(self.chunks):
            if i == self.after:
                raise OSError("the disk is gone")
            yield chunk


def stream(path: Path) -> StandardScaler:
    """Fit on a file, interrupted and resumed."""
    chunks = npy_chunks(path)
    size = path.stat().st_size / 2**20
    print(f"A table of {chunks.rows} x {FEATURES} in a file of {size:.0f} MiB, {len(chunks)} chunks")
    checkpoint = path.with_suffix(".fit")
    checkpoint.unlink(missing_ok=True)
    try:
        fit_chunks(StandardScaler(), Failing(chunks, len(chunks) // 2), checkpoint=checkpoint)
    except OSError as error:
        print(f"  after {len(chunks) // 2} chunks {error}")
    scaler = fit_chunks(StandardScaler(), chunks, checkpoint=checkpoint, progress=True)
    whole = fit_chunks(StandardScaler(), chunks)
    claim(
        scaler.var_.tobytes() == whole.var_.tobytes(),
        "the fit that resumed has the bits of one that was not interrupted",
    )
    return scaler


def fastest(call: Callable[[], Any]) -> float:
    """Milliseconds of the fastest of a few calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def compare(path: Path, streamed: StandardScaler) -> None:
    """The same in memory, beside scikit-learn."""
    X = np.load(path)
    own, ours = sklearn.preprocessing.StandardScaler().fit(X), StandardScaler().fit(X)
    for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
        a, b = getattr(streamed, name), getattr(own, name)
        claim(np.allclose(a, b, rtol=1e-5), f"{name} of the stream is scikit-learn's of the whole table")
    claim(np.allclose(ours.transform(X), own.transform(X), atol=1e-3, equal_nan=True), "and so is what is transformed")
    print(f"Milliseconds, the fastest of {ROUNDS}, {normkit.get_num_threads()} threads")
    for name in ("StandardScaler", "MinMaxScaler"):
        for step in ("fit", "transform"):
            ms = []
            for module in (normkit.preprocessing, sklearn.preprocessing):
                call = getattr(getattr(module, name)().fit(X), step)
                ms.append(fastest(functools.partial(call, X)))
            print(f"  {name:15} {step:10} normkit {ms[0]:7.1f}  scikit-learn {ms[1]:7.1f}  {ms[1] / ms[0]:5.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large table")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "output", help="where the table is written"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    classify()
    path = options.output / "table.npy"
    write_table(path, options.rows)
    compare(path, stream(path))


if __name__ == "__main__":
    main()
