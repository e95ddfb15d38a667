"""Tables in files, a chunk of rows at a time."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK_BYTES = 2**24  # unless the caller says how many rows: well beyond the caches, and little memory
SAMPLES, SAMPLE_BYTES = 32, 4096


class FileChunks(ABC):
    """The rows of a table in a file, in chunks of `chunk_rows`; may be iterated over again and again.

    Attributes
    ----------
    rows : int
        Of the whole table.
    chunk_rows : int
        At most so many are in a chunk.
    columns : list of str or None
        Their names, where the file has them.
    fingerprint : str
        Of the file's contents and of how they are cut, to tell other data from the same.
    """

    rows: int
    chunk_rows: int
    columns: list[str] | None
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int:
        """Count the chunks."""

    @abstractmethod
    def starting_at(self, chunk: int) -> Iterator[npt.NDArray[Any]]:
        """Iterate over the chunks from this one on, without reading those before."""

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return self.starting_at(0)


def _chunk_rows(name: str, given: int | None, row_bytes: int) -> int:
    if given is None:
        return max(1, CHUNK_BYTES // max(1, row_bytes))
    if given < 1:
        raise ValueError(f"{name}: chunk_rows must be positive, got {given}")
    return given


def _fingerprint(path: Path, *how: Any) -> str:
    """Digest a file's length, its ends and pieces in between, and how it is cut."""
    size = path.stat().st_size
    digest = hashlib.blake2b(repr((size, how)).encode(), digest_size=16)
    with open(path, "rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


class NpyChunks(FileChunks):
    """The rows of an .npy file: see `npy_chunks`."""

    columns = None

    def __init__(self, path: str | os.PathLike[str], *, chunk_rows: int | None = None) -> None:
        self._path = Path(path)
        with open(self._path, "rb") as file:
            shape, self._fortran, self._dtype = self._header(file)
            self._start = file.tell()
        if len(shape) != 2 or self._dtype.kind not in "fiub":
            what = f"got shape {shape} and dtype {self._dtype}"
            raise ValueError(f"npy_chunks: {self._path} must hold a table of numbers; {what}")
        self.rows, self._features = shape
        if self._path.stat().st_size < self._start + math.prod(shape) * self._dtype.itemsize:
            raise ValueError(f"npy_chunks: {self._path} ends before its table of shape {shape} and {self._dtype} does")
        self.chunk_rows = _chunk_rows("npy_chunks", chunk_rows, self._features * self._dtype.itemsize)
        self.fingerprint = _fingerprint(self._path, self.chunk_rows)

    def _header(self, file: io.BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"npy_chunks: {self._path} is no .npy file of a table: {error}") from error
        return shape, fortran, dtype

    def __len__(self) -> int:
        """Count the chunks."""
        return -(-self.rows // self.chunk_rows)

    def starting_at(self, chunk: int) -> Iterator[npt.NDArray[Any]]:
        """Iterate over the chunks from this one on, without reading those before."""
        read = self._gathered if self._fortran else self._mapped
        with open(self._path, "rb") as file:
            for first in range(chunk * self.chunk_rows, self.rows, self.chunk_rows):
                yield read(file, first, min(self.chunk_rows, self.rows - first))

    def _mapped(self, file: io.BufferedReader, first: int, rows: int) -> npt.NDArray[Any]:
        """Map a chunk by itself: the file need not fit in the address space."""
        row_bytes = self._features * self._dtype.itemsize
        begin = self._start + first * row_bytes
        skipped = begin % mmap.ALLOCATIONGRANULARITY
        length = skipped + rows * row_bytes
        window = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=begin - skipped)
        window.madvise(mmap.MADV_WILLNEED)
        table = np.frombuffer(window, self._dtype, rows * self._features, skipped)
        return table.reshape(rows, self._features)

    def _gathered(self, file: io.BufferedReader, first: int, rows: int) -> npt.NDArray[Any]:
        """Put a chunk of a table that lies column by column together from a piece of each."""
        size = self._dtype.itemsize
        pieces = np.empty((self._features, rows * size), np.uint8)
        for column, piece in enumerate(pieces):
            file.seek(self._start + (column * self.rows + first) * size)
            if file.readinto(piece.data) != rows * size:
                raise ValueError(f"npy_chunks: {self._path} became shorter while it was read")
        return pieces.view(self._dtype).T


def npy_chunks(path: str | os.PathLike[str], *, chunk_rows: int | None = None) -> NpyChunks:
    """Iterate over the rows of an .npy file, mapped into memory a chunk at a time.

    Parameters
    ----------
    path : path
        A file as `numpy.save` writes it, of an array of shape (n_samples, n_features) of numbers.
    chunk_rows : int, optional
        Rows in a chunk; as many as 16 MiB hold by default.

    Returns
    -------
    NpyChunks
        To be iterated over; its chunks are read-only arrays of the file's dtype.

    Raises
    ------
    ValueError
        The file holds no table of numbers, or is shorter than its header says; or `chunk_rows` is not positive.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from normkit.preprocessing import MinMaxScaler
    >>> from normkit.streams import fit_chunks, npy_chunks
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "table.npy")
    ...     np.save(path, np.arange(12.0).reshape(6, 2))
    ...     chunks = npy_chunks(path, chunk_rows=4)
    ...     len(chunks), fit_chunks(MinMaxScaler(), chunks).data_max_
    (2, array([10., 11.]))
    """
    return NpyChunks(path, chunk_rows=chunk_rows)


class ParquetChunks(FileChunks):
    """The rows of a Parquet file: see `parquet_chunks`."""

    columns: list[str]

    def __init__(
        self, path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, chunk_rows: int | None = None
    ) -> None:
        self._path = Path(path)
        with self._open() as file:
            schema, metadata = file.schema_arrow, file.metadata
            self.rows = metadata.num_rows
            self._groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.columns = list(schema.names if columns is None else columns)
        missing = [name for name in self.columns if name not in schema.names]
        if missing or not self.columns:
            raise ValueError(f"parquet_chunks: {self._path} has the columns {schema.names}, not {missing or 'none'}")
        self._dtype = np.result_type(*(self._column_dtype(name, schema.field(name).type) for name in self.columns))
        self.chunk_rows = _chunk_rows("parquet_chunks", chunk_rows, len(self.columns) * self._dtype.itemsize)
        self.fingerprint = _fingerprint(self._path, self.columns, self.chunk_rows)

    def _open(self) -> Any:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError("parquet_chunks needs pyarrow: pip install 'normkit[streams]'") from error
        # Columns are decoded out of small buffers, not read whole.
        return pyarrow.parquet.ParquetFile(self._path, buffer_size=2**18, pre_buffer=False)

    def _column_dtype(self, name: str, kind: Any) -> np.dtype[Any]:
        import pyarrow.types as types

        if types.is_floating(kind):
            dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
            return dtype
        if types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind):
            return np.dtype(np.float64)
        what = f"column {name!r} of {self._path} holds {kind}, not numbers"
        raise TypeError(f"parquet_chunks: {what}; choose others with columns=")

    def __len__(self) -> int:
        """Count the chunks; none goes across row groups."""
        return sum(self._chunks_of(rows) for rows in self._groups)

    def _chunks_of(self, rows: int) -> int:
        return -(-rows // self.chunk_rows)

    def starting_at(self, chunk: int) -> Iterator[npt.NDArray[Any]]:
        """Iterate over the chunks from this one on, without reading row groups before its own."""
        with self._open() as file:
            for group, rows in enumerate(self._groups):
                if chunk >= self._chunks_of(rows):
                    chunk -= self._chunks_of(rows)
                    continue
                batches = file.iter_batches(self.chunk_rows, row_groups=[group], columns=self.columns)
                for batch in itertools.islice(batches, chunk, None):
                    yield self._table(batch)
                chunk = 0

    def _table(self, batch: Any) -> npt.NDArray[Any]:
        """Make a record batch an array, null being NaN."""
        import pyarrow
        import pyarrow.types as types

        table = np.empty((batch.num_rows, len(self.columns)), self._dtype, order="F")
        for i, name in enumerate(self.columns):
            column = batch.column(name)
            if types.is_boolean(column.type) or types.is_decimal(column.type):
                column = column.cast(pyarrow.float64() if types.is_decimal(column.type) else pyarrow.uint8())
            table[:, i] = column.to_numpy(zero_copy_only=False)
        return table


def parquet_chunks(
    path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, chunk_rows: int | None = None
) -> ParquetChunks:
    """Iterate over the rows of a Parquet file, decoded a record batch at a time by pyarrow.

    Parameters
    ----------
    path : path
        A file of columns of floating-point numbers, integers, booleans or decimals; null is NaN.
    columns : sequence of str, optional
        The names of those to take, in this order; all of them by default.
    chunk_rows : int, optional
        Rows in a chunk, which does not go across row groups; as many as 16 MiB hold by default.

    Returns
    -------
    ParquetChunks
        To be iterated over; its chunks are arrays of the widest of the columns' floating-point dtypes, float64 if
        there are columns of other numbers.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    TypeError
        A column does not hold numbers.
    ValueError
        There is no such column, or `chunk_rows` is not positive.

    Examples
    --------
    >>> from normkit.preprocessing import StandardScaler
    >>> from normkit.streams import fit_chunks, parquet_chunks
    >>> chunks = parquet_chunks("trips.parquet", columns=["distance", "fare"])  # doctest: +SKIP
    >>> scaler = fit_chunks(StandardScaler(), chunks, checkpoint="trips.fit", progress=True)  # doctest: +SKIP
    """
    return ParquetChunks(path, columns=columns, chunk_rows=chunk_rows)
