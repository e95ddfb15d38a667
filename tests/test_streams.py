"""Fits over chunks: from where they come, what interrupts them, what they resume from, and in how much memory."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import normkit
from normkit import checkpoints
from normkit.preprocessing import MinMaxScaler, StandardScaler
from normkit.streams import fit_chunks, npy_chunks

each = pytest.mark.parametrize
SCALERS = (lambda: StandardScaler(), lambda: StandardScaler(with_mean=False), lambda: MinMaxScaler((-1, 1)))
each_scaler = each("make", SCALERS, ids=["standard", "no mean", "min-max"])


def table(rows=1000, features=5, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 2, (rows, features))
    X[rng.random(X.shape) < 0.05] = np.nan
    return X.astype(dtype)


def chunks_of(X, rows=130):
    return [X[i : i + rows] for i in range(0, len(X), rows)]


def state(scaler):
    """All that was learned, as bytes."""
    return pickle.dumps({name: value for name, value in vars(scaler).items() if name.endswith("_")})


class Interrupted(BaseException):
    pass


def interrupted_after(chunks, count):
    yield from chunks[:count]
    raise Interrupted


@each_scaler
def test_chunks_are_partial_fits(make):
    X = table()
    expected = make()
    for chunk in chunks_of(X):
        expected.partial_fit(chunk)
    scaler = make().fit(table(seed=1, features=2))  # to be forgotten
    assert fit_chunks(scaler, iter(chunks_of(X))) is scaler
    assert state(scaler) == state(expected)
    whole = make().fit(X)
    np.testing.assert_allclose(scaler.scale_, whole.scale_, rtol=1e-13)


@each_scaler
def test_later_chunks_of_other_dtypes(make):
    X = table(300)
    chunks = [X[:100].astype(np.float32), X[100:200], np.nan_to_num(X[200:]).astype(int).tolist()]
    scaler = fit_chunks(make(), chunks)
    expected = make().fit(np.concatenate(chunks))
    np.testing.assert_allclose(scaler.scale_, expected.scale_, rtol=1e-6)
    assert scaler.scale_.dtype == np.float64


def test_chunks_with_weights():
    X, weights = table(), np.random.default_rng(0).uniform(0.5, 2, 1000)
    pairs = zip(chunks_of(X), chunks_of(weights), strict=True)
    whole = StandardScaler().fit(X, sample_weight=weights)
    np.testing.assert_allclose(fit_chunks(StandardScaler(), pairs).var_, whole.var_, rtol=1e-12)


@each_scaler
@each("save_every", [0.0, 1e9])
@each("count", [1, 3, 7])
def test_an_interrupted_fit_resumes_with_the_same_bits(make, save_every, count, tmp_path):
    chunks, path = chunks_of(table(dtype=np.float32)), tmp_path / "fit"
    options = dict(checkpoint=path, save_every=save_every)
    expected = fit_chunks(make(), chunks)
    scaler = make()
    with pytest.raises(Interrupted):
        fit_chunks(scaler, interrupted_after(chunks, count), **options)
    assert state(scaler) == state(fit_chunks(make(), chunks[:count]))
    assert checkpoints.load(path).chunks == count
    # In turn, with another error each time: a chunk that does not fit.
    with pytest.raises(ValueError, match="expecting 5 features"):
        fit_chunks(make(), [*chunks[:count], chunks[-1][:, :2]], **options)
    resumed = fit_chunks(make(), iter(chunks), **options)
    assert state(resumed) == state(expected)
    # And once more, with nothing left: nothing is counted twice.
    assert state(fit_chunks(make(), chunks, **options)) == state(expected)
    more = [*chunks, table(seed=1)]
    assert state(fit_chunks(make(), more, **options)) == state(fit_chunks(make(), more))
    assert sorted(tmp_path.iterdir()) == [path]


def test_an_interruption_between_learning_and_counting(tmp_path, monkeypatch):
    chunks, path = chunks_of(table()), tmp_path / "fit"
    learn, learned = StandardScaler.partial_fit, []

    def interrupted(self, X, *args, **kwargs):
        learn(self, X, *args, **kwargs)
        learned.append(X)
        if len(learned) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StandardScaler, "partial_fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_chunks(StandardScaler(), chunks, checkpoint=path)
    assert checkpoints.load(path).chunks == 2
    assert state(fit_chunks(StandardScaler(), chunks, checkpoint=path)) == state(fit_chunks(StandardScaler(), chunks))


def test_a_killed_fit_resumes(tmp_path):
    X, path = table(2000), tmp_path / "fit"
    np.save(tmp_path / "table.npy", X)
    program = f"""
import os, signal
from normkit.preprocessing import StandardScaler
from normkit.streams import fit_chunks, npy_chunks
def chunks():
    for i, chunk in enumerate(source):
        if i == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk
source = npy_chunks({str(tmp_path / "table.npy")!r}, chunk_rows=100)
fit_chunks(StandardScaler(), chunks(), checkpoint={str(path)!r}, save_every=0)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    chunks = chunks_of(X, 100)
    assert checkpoints.load(path).rows == 700
    assert state(fit_chunks(StandardScaler(), chunks, checkpoint=path)) == state(fit_chunks(StandardScaler(), chunks))


def test_names_of_features_are_in_the_checkpoint(tmp_path):
    pytest.importorskip("sklearn", minversion="1.6")
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(chunk, columns=list("abcde")) for chunk in chunks_of(table())]
    with pytest.raises(Interrupted):
        fit_chunks(MinMaxScaler(), interrupted_after(frames, 2), checkpoint=tmp_path / "fit")
    scaler = fit_chunks(MinMaxScaler(), frames, checkpoint=tmp_path / "fit")
    assert list(scaler.feature_names_in_) == list("abcde")
    assert scaler.data_max_.tolist() == fit_chunks(MinMaxScaler(), frames).data_max_.tolist()


def saved(tmp_path):
    chunks, path = chunks_of(table()), tmp_path / "fit"
    fit_chunks(StandardScaler(), chunks, checkpoint=path)
    return chunks, path


def refuses(error, message, *args, scaler=None, **kwargs):
    scaler = StandardScaler().fit(table(seed=5)) if scaler is None else scaler
    before = pickle.dumps(scaler)
    with pytest.raises(error, match=message):
        fit_chunks(scaler, *args, **kwargs)
    assert pickle.dumps(scaler) == before


@each("position", [0, 3, 40, 100, -1])
def test_a_damaged_checkpoint(position, tmp_path):
    chunks, path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    message = "is damaged; remove it" if position == -1 or position > 20 else "is not a checkpoint of this version"
    refuses(ValueError, message, chunks, checkpoint=path)
    assert path.read_bytes() == content


@each("length", [0, 10, 30, 200])
def test_a_truncated_checkpoint(length, tmp_path):
    chunks, path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    refuses(ValueError, "remove it to start anew", chunks, checkpoint=path)


def test_a_checkpoint_of_another_scaler(tmp_path):
    chunks, path = saved(tmp_path)
    for scaler in (StandardScaler(with_std=False), MinMaxScaler()):
        refuses(ValueError, "the checkpoint .* is of .*, not of", chunks, checkpoint=path, scaler=scaler)
    fit_chunks(StandardScaler(copy=False), chunks, checkpoint=path)


def test_a_checkpoint_of_other_data(tmp_path):
    chunks, path = saved(tmp_path)
    changed = chunks[0].copy()
    changed[-1, 0] += 1
    for others in (
        chunks[:3],
        chunks_of(table(seed=1)),
        chunks_of(table(), 140),
        [changed, *chunks[1:]],
        [chunk.astype(np.float32) for chunk in chunks],
        chunks[::-1],
        [],
    ):
        refuses(ValueError, "is of other data than these chunks; remove it", others, checkpoint=path)


def test_a_checkpoint_of_another_file(tmp_path):
    path = tmp_path / "fit"
    for name, seed in (("a", 0), ("b", 1)):
        np.save(tmp_path / f"{name}.npy", table(seed=seed))
    first, second = (npy_chunks(tmp_path / f"{name}.npy", chunk_rows=100) for name in "ab")
    fit_chunks(StandardScaler(), first, checkpoint=path)
    for other in (second, npy_chunks(tmp_path / "a.npy", chunk_rows=99), iter(first)):
        refuses(ValueError, "is of other data than these chunks", other, checkpoint=path)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())  # the same, under another name
    fit_chunks(StandardScaler(), npy_chunks(tmp_path / "b.npy", chunk_rows=100), checkpoint=path)


def test_refusals(tmp_path):
    refuses(ValueError, "there are no chunks to fit on", [])
    refuses(FileNotFoundError, "there is no directory", [table()], checkpoint=tmp_path / "none" / "fit")
    refuses(ValueError, "contains infinity", [np.full((2, 2), np.inf)])
    with pytest.raises(TypeError, match=r"scaler must be one of normkit.preprocessing, got Moments"):
        fit_chunks(normkit.moments(table()), [table()])


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    chunks, path = saved(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        fit_chunks(StandardScaler(), [*chunks, table(seed=1)], checkpoint=path)
    assert sorted(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_progress_bar(tmp_path, capsys):
    pytest.importorskip("tqdm")
    np.save(tmp_path / "table.npy", table())
    chunks = npy_chunks(tmp_path / "table.npy", chunk_rows=100)
    with pytest.raises(Interrupted):
        fit_chunks(StandardScaler(), interrupted_after(list(chunks), 4), checkpoint=tmp_path / "a", progress=True)
    assert "400row" in capsys.readouterr().err.replace(" ", "").replace(".00", "")
    fit_chunks(StandardScaler(), chunks, checkpoint=tmp_path / "b", progress=True)
    assert "100%" in capsys.readouterr().err
    fit_chunks(StandardScaler(), chunks, checkpoint=tmp_path / "b", progress=True)
    printed = capsys.readouterr().err
    assert "100%" in printed and "1.00k/1.00k" in printed
    fit_chunks(StandardScaler(), chunks)
    assert capsys.readouterr().err == ""


def test_a_progress_bar_needs_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    refuses(ImportError, r"a progress bar needs tqdm: pip install 'normkit\[streams\]'", [table()], progress=True)
