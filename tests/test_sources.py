"""Chunks of tables in files, and in how little memory they are gone through."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from normkit.preprocessing import MinMaxScaler, StandardScaler
from normkit.streams import fit_chunks, npy_chunks, parquet_chunks

each = pytest.mark.parametrize


def table(rows=1000, features=5, dtype=np.float64):
    return np.random.default_rng(0).normal(3, 2, (rows, features)).astype(dtype)


@each("dtype", ["<f4", "<f8", ">f8", "f2", "i2", "?"])
@each("order", ["C", "F"])
@each("chunk_rows", [1, 7, 999, 1000, 5000, None])
def test_npy(dtype, order, chunk_rows, tmp_path):
    X = np.array(table(1000, 3) > 3 if dtype == "?" else 10 * table(1000, 3), dtype, order=order)
    np.save(tmp_path / "table.npy", X)
    chunks = npy_chunks(tmp_path / "table.npy", chunk_rows=chunk_rows)
    assert chunks.rows == 1000 and chunks.columns is None
    found = list(chunks)
    assert len(found) == len(chunks) == -(-1000 // min(chunks.chunk_rows, 1000))
    assert {type(chunk) for chunk in found} == {np.ndarray} and {chunk.dtype for chunk in found} == {X.dtype}
    np.testing.assert_array_equal(np.concatenate(found), X)
    assert [chunk.tolist() for chunk in chunks.starting_at(1)] == [chunk.tolist() for chunk in found[1:]]
    assert list(chunks.starting_at(len(chunks))) == []
    np.testing.assert_array_equal(fit_chunks(MinMaxScaler(), chunks).data_max_, X.max(axis=0))


def test_npy_chunks_are_of_16_mib(tmp_path):
    np.save(tmp_path / "table.npy", np.zeros((2**20, 5), np.float64))
    chunks = npy_chunks(tmp_path / "table.npy")
    assert chunks.chunk_rows == 2**24 // 40
    assert not next(iter(chunks)).flags.writeable


@each(
    "make, message",
    [
        (lambda path: np.save(path, np.zeros(3)), r"must hold a table of numbers; got shape \(3,\)"),
        (lambda path: np.save(path, np.zeros((3, 3), "U2")), "must hold a table of numbers; .* dtype <U2"),
        (lambda path: np.save(path, np.zeros((2, 2), complex)), "must hold a table of numbers"),
        (lambda path: path.write_bytes(b"no such file"), "is no .npy file of a table"),
        (lambda path: path.write_bytes(b""), "is no .npy file of a table"),
        (lambda path: (np.save(path, table()), os.truncate(path, 500)), r"ends before its table of shape \(1000, 5\)"),
    ],
)
def test_npy_files_that_are_refused(make, message, tmp_path):
    make(tmp_path / "table.npy")
    with pytest.raises(ValueError, match=f"^npy_chunks: .*{message}"):
        npy_chunks(tmp_path / "table.npy")


def test_bad_arguments(tmp_path):
    np.save(tmp_path / "table.npy", table())
    with pytest.raises(ValueError, match="npy_chunks: chunk_rows must be positive, got 0"):
        npy_chunks(tmp_path / "table.npy", chunk_rows=0)
    with pytest.raises(FileNotFoundError):
        npy_chunks(tmp_path / "none.npy")


def test_npy_that_becomes_shorter(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.asfortranarray(table()))
    chunks = npy_chunks(path, chunk_rows=100)
    os.truncate(path, 5000)
    with pytest.raises(ValueError, match="became shorter while it was read"):
        fit_chunks(StandardScaler(), chunks)


def test_empty_table(tmp_path):
    np.save(tmp_path / "table.npy", np.zeros((0, 3)))
    with pytest.raises(ValueError, match="there are no chunks to fit on"):
        fit_chunks(StandardScaler(), npy_chunks(tmp_path / "table.npy"))


MEMORY = """
import resource, sys
import numpy as np
from normkit.preprocessing import StandardScaler
from normkit.streams import fit_chunks, npy_chunks, parquet_chunks

path, chunk_rows, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = npy_chunks if path.endswith("npy") else parquet_chunks
make = lambda: fit_chunks(StandardScaler(), source(path, chunk_rows=chunk_rows))
small = fit_chunks(StandardScaler(), [np.ones((64, 2))])
if source is parquet_chunks:
    next(iter(source(path, chunk_rows=64)))  # its library and threads
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
try:
    np.ones(limit // 4)
except MemoryError:
    print("limited")
scaler = make()
print(scaler.n_samples_seen_, *scaler.mean_)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and limits address space")
@each("layout", ["C", "F", "parquet"])
def test_memory_is_that_of_a_chunk(layout, tmp_path):
    rows, features = 2_000_000, 16
    size, limit = rows * features * 8, 80 * 2**20  # 244 MiB of data in 80 MiB of address space
    assert size > 3 * limit
    path = tmp_path / ("table.parquet" if layout == "parquet" else "table.npy")
    column = np.arange(rows, dtype=np.float64)
    if layout == "parquet":
        writer, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        columns = {f"f{i}": column + i for i in range(features)}
        writer.write_table(pyarrow.table(columns), path, row_group_size=200_000)
    else:
        shape = (rows, features)
        X = np.lib.format.open_memmap(path, "w+", np.float64, shape, fortran_order=layout == "F")
        for i in range(features):
            X[:, i] = column + i
        X.flush()
        del X
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", MEMORY, str(path), str(20_000), str(limit)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    limited, (count, *mean) = run.stdout.splitlines()[0], map(float, run.stdout.splitlines()[1].split())
    assert limited == "limited" and count == rows
    np.testing.assert_allclose(mean, (rows - 1) / 2 + np.arange(features), rtol=1e-13)


@pytest.fixture
def parquet(tmp_path):
    writer, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")

    def write(columns, **options):
        path = tmp_path / "table.parquet"
        writer.write_table(pyarrow.table(columns), path, **options)
        return path

    write.pyarrow = pyarrow
    return write


def mixed(pyarrow):
    rng = np.random.default_rng(0)
    missing = rng.random(1000) < 0.1
    floats = rng.normal(size=1000)
    columns = {
        "double": pyarrow.array(floats, mask=missing),
        "float": pyarrow.array(floats.astype(np.float32)),
        "int": pyarrow.array(rng.integers(-9, 9, 1000), mask=missing),
        "whole": pyarrow.array(rng.integers(0, 9, 1000).astype(np.uint8)),
        "flag": pyarrow.array(floats > 0, mask=missing),
        "price": pyarrow.array(np.arange(1000) % 100).cast(pyarrow.decimal128(21, 2)),
        "name": pyarrow.array(["x"] * 1000),
    }
    expected = {
        "double": np.where(missing, np.nan, floats),
        "float": floats.astype(np.float32),
        "int": np.where(missing, np.nan, columns["int"].fill_null(0).to_numpy()),
        "whole": columns["whole"].to_numpy(),
        "flag": np.where(missing, np.nan, floats > 0),
        "price": np.arange(1000) % 100,
    }
    return columns, expected


@each("chunk_rows", [1, 64, 300, 4000])
@each("group", [100, 333, 1000])
def test_parquet(parquet, chunk_rows, group):
    columns, expected = mixed(parquet.pyarrow)
    path = parquet(columns, row_group_size=group, data_page_size=500)
    names = ["price", "int", "double", "flag", "float", "whole"]
    chunks = parquet_chunks(path, columns=names, chunk_rows=chunk_rows)
    assert chunks.rows == 1000 and chunks.columns == names
    X = np.stack([expected[name] for name in names], axis=1)
    found = list(chunks)
    assert len(found) == len(chunks) and {chunk.dtype for chunk in found} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(np.concatenate(found), X)
    for first in (1, len(chunks) // 2, len(chunks)):
        rest = list(chunks.starting_at(first))
        assert len(rest) == len(found) - first
        for a, b in zip(rest, found[first:], strict=True):
            np.testing.assert_array_equal(a, b)
    scaler = fit_chunks(StandardScaler(), chunks)
    np.testing.assert_allclose(scaler.mean_, np.nanmean(X, axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(scaler.n_samples_seen_, (~np.isnan(X)).sum(axis=0))


def test_parquet_of_one_floating_point_type_keeps_it(parquet):
    columns, expected = mixed(parquet.pyarrow)
    path = parquet(columns)
    (chunk,) = parquet_chunks(path, columns=["float"])
    assert chunk.dtype == np.float32
    np.testing.assert_array_equal(chunk[:, 0], expected["float"])
    (chunk,) = parquet_chunks(path, columns=["float", "double"])
    assert chunk.dtype == np.float64


def test_parquet_resumes(parquet, tmp_path):
    columns, _ = mixed(parquet.pyarrow)
    chunks = parquet_chunks(parquet(columns, row_group_size=250), columns=["int", "double"], chunk_rows=100)
    expected = fit_chunks(StandardScaler(), chunks)
    for stop in range(1, len(chunks)):
        checkpoint = tmp_path / f"fit{stop}"

        def stopped(limit=stop):
            for i, chunk in enumerate(chunks):
                if i == limit:
                    raise KeyboardInterrupt
                yield chunk

        stopping = stopped()
        source = type("Source", (), dict(__iter__=lambda self, it=stopping: it, fingerprint=chunks.fingerprint))()
        with pytest.raises(KeyboardInterrupt):
            fit_chunks(StandardScaler(), source, checkpoint=checkpoint)
        resumed = fit_chunks(StandardScaler(), chunks, checkpoint=checkpoint)
        assert resumed.moments_ == expected.moments_ and resumed.mean_.tobytes() == expected.mean_.tobytes()


def test_parquet_files_that_are_refused(parquet):
    columns, _ = mixed(parquet.pyarrow)
    path = parquet(columns)
    with pytest.raises(TypeError, match=r"column 'name' of .* holds string, not numbers; choose others with columns="):
        parquet_chunks(path)
    with pytest.raises(ValueError, match=r"has the columns \['double', .*\], not \['speed'\]"):
        parquet_chunks(path, columns=["int", "speed"])
    with pytest.raises(ValueError, match="not none"):
        parquet_chunks(path, columns=[])
    with pytest.raises(ValueError, match="chunk_rows must be positive, got -1"):
        parquet_chunks(path, columns=["int"], chunk_rows=-1)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"parquet_chunks needs pyarrow: pip install 'normkit\[streams\]'"):
        parquet_chunks(tmp_path / "table.parquet")
