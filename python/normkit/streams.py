"""Fit scalers on data that come in chunks, and need not fit in memory: iterators, .npy and Parquet files.

`fit_chunks` keeps a few numbers per feature and one chunk in memory. With a checkpoint, a fit that was interrupted goes
on where it was: no chunk is lost or counted twice, and the result has the bits of a fit that was not interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from normkit import checkpoints
from normkit.checkpoints import Checkpoint
from normkit.preprocessing.estimator import Scaler
from normkit.sources import FileChunks, NpyChunks, ParquetChunks, npy_chunks, parquet_chunks

__all__ = ["NpyChunks", "ParquetChunks", "fit_chunks", "npy_chunks", "parquet_chunks"]

AnyScaler = TypeVar("AnyScaler", bound=Scaler)


def fit_chunks(
    scaler: AnyScaler,
    chunks: Iterable[Any],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: float = 10.0,
    progress: bool = False,
) -> AnyScaler:
    """Fit a scaler on chunks of rows, one after the other.

    Parameters
    ----------
    scaler : StandardScaler or MinMaxScaler
        Of `normkit.preprocessing`; what it has learned before is forgotten.
    chunks : iterable
        Tables of the same features, or for a `StandardScaler` pairs (tuples) of a table and the weights of its samples.
        `npy_chunks` and `parquet_chunks` make them from files.
    checkpoint : path, optional
        A file to keep what has been learned in. If there is one, the fit goes on from it, after the chunks that it has:
        give the same chunks again, from the first on, and more if there are more. Remove it to start anew.
    save_every : float, default 10.0
        Seconds between two writes of the checkpoint; 0 writes it after each chunk. It is also written at the end, and
        when anything is raised.
    progress : bool, default False
        Whether to show a progress bar of rows; needs tqdm.

    Returns
    -------
    scaler : StandardScaler or MinMaxScaler
        The same scaler, fitted. If anything is raised at a chunk, it has learned those before; at the first one, it is
        left as it was.

    Raises
    ------
    TypeError
        The scaler is none of normkit's.
    ValueError
        There are no chunks, or one does not fit (see `partial_fit`); or the checkpoint is damaged, or of another
        scaler or of other data.
    ImportError
        A progress bar is wanted, and tqdm is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.preprocessing import StandardScaler
    >>> from normkit.streams import fit_chunks
    >>> chunks = (np.full((1000, 2), value) for value in (1.0, 2.0, 3.0))
    >>> scaler = fit_chunks(StandardScaler(), chunks)
    >>> scaler.mean_, int(scaler.n_samples_seen_)
    (array([2., 2.]), 3000)
    """
    if not isinstance(scaler, Scaler):
        raise TypeError(f"fit_chunks: scaler must be one of normkit.preprocessing, got {type(scaler).__name__}")
    path = None if checkpoint is None else Path(checkpoint)
    source = getattr(chunks, "fingerprint", None)
    loaded = None if path is None else _load(path, scaler, source)
    with contextlib.closing(_bar(progress, getattr(chunks, "rows", None))) as bar:
        rest = _rest(chunks, loaded, path)
        if loaded is not None:
            scaler._restore(loaded.features, loaded.moments, loaded.details)
            bar.update(loaded.rows)
        done = _fit_rest(scaler, rest, loaded, source, bar, path, save_every)
    if done is None:
        raise ValueError("fit_chunks: there are no chunks to fit on")
    return scaler


def _fit_rest(
    scaler: Scaler,
    rest: Iterator[Any],
    loaded: Checkpoint | None,
    source: str | None,
    bar: Any,
    path: Path | None,
    save_every: float,
) -> Checkpoint | None:
    """Learn chunk by chunk, and save what is done: the last whole chunk's state, whatever interrupts the next."""
    done, saved, last = loaded, loaded, time.monotonic()
    try:
        for chunk in rest:
            now = _learn(scaler, chunk, done, source)
            bar.update(now.rows - (done.rows if done else 0))
            done = now
            del chunk  # which would be in memory together with the next
            if path is not None and time.monotonic() - last >= save_every:
                checkpoints.save(done, path)
                saved, last = done, time.monotonic()
    finally:
        if path is not None and done is not None and done is not saved:
            checkpoints.save(done, path)
    return done


def _learn(scaler: Scaler, chunk: Any, done: Checkpoint | None, source: str | None) -> Checkpoint:
    """Learn one more chunk, and say what is done then."""
    table, weights = _parts(chunk)
    learn = scaler.fit if done is None else scaler.partial_fit
    learn(table) if weights is None else learn(table, sample_weight=weights)
    return Checkpoint(
        chunks=1 + (done.chunks if done else 0),
        rows=np.shape(table)[0] + (done.rows if done else 0),
        trail=_follow(done.trail if done else "", table),
        source=source,
        settings=scaler._settings(),
        features=scaler._features(),
        details=scaler._details(),
        moments=scaler.moments_,
    )


def _parts(chunk: Any) -> tuple[Any, Any]:
    """Tell table and weights."""
    return chunk if isinstance(chunk, tuple) and len(chunk) == 2 else (chunk, None)


def _follow(trail: str, table: Any) -> str:
    """Digest the chunks so far and one more: shapes, and the first and last row of what is an array."""
    digest = hashlib.blake2b(trail.encode(), digest_size=16)
    digest.update(repr(np.shape(table)).encode())
    if isinstance(table, np.ndarray):
        digest.update(table.dtype.str.encode() + table[:1].tobytes() + table[-1:].tobytes())
    return digest.hexdigest()


def _load(path: Path, scaler: Scaler, source: str | None) -> Checkpoint | None:
    """Load the checkpoint to go on from, if there is one, of this scaler and source."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"fit_chunks: there is no directory {path.parent} to keep a checkpoint in")
    loaded = checkpoints.load(path)
    if loaded is not None and loaded.settings != scaler._settings():
        what = f"is of {loaded.settings}, not of {scaler._settings()}"
        raise ValueError(f"fit_chunks: the checkpoint {path} {what}; remove it to start anew")
    if loaded is not None and loaded.source != source:
        raise _other_data(path)
    return loaded


def _other_data(path: Path | None) -> ValueError:
    return ValueError(f"fit_chunks: the checkpoint {path} is of other data than these chunks; remove it to start anew")


def _rest(chunks: Iterable[Any], loaded: Checkpoint | None, path: Path | None) -> Iterator[Any]:
    """Find the chunks after those that have been learned; files seek them, others are read and compared."""
    if loaded is None:
        return iter(chunks)
    if isinstance(chunks, FileChunks):
        return chunks.starting_at(loaded.chunks)
    rest, trail, rows = iter(chunks), "", 0
    for _ in range(loaded.chunks):
        try:
            table = _parts(next(rest))[0]
        except StopIteration:
            raise _other_data(path) from None
        trail, rows = _follow(trail, table), rows + np.shape(table)[0]
    if (trail, rows) != (loaded.trail, loaded.rows):
        raise _other_data(path)
    return rest


class _NoBar:
    """A progress bar that shows nothing."""

    def update(self, rows: int) -> None:
        pass

    def close(self) -> None:
        pass


def _bar(progress: bool, rows: int | None) -> Any:
    if not progress:
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("fit_chunks: a progress bar needs tqdm: pip install 'normkit[streams]'") from error
    return tqdm(total=rows, unit="row", unit_scale=True)
