"""Parquet, Arrow IPC and Feather, read by pyarrow batch by batch.

1. Parquet: ``ParquetFile.iter_batches`` without pre-buffering and with a small stream buffer a column. pyarrow's
   datasets and its defaults hold a whole file, or whole row groups; this holds a few MB, whatever the row groups are.
2. IPC files are read batch by batch with plain reads. Where batches are so large that this would take much memory, the
   file is memory mapped instead: its pages can be taken back at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastgmm.data.formats.base import (
    ColumnPiece,
    Part,
    Piece,
    file_stamp,
    first_sentence,
    narrowest,
    needs,
    new_stage,
    refuse_type,
)
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array

BATCH_BYTES = 1 << 22
"""Rows of a Parquet batch, decoded: large enough that pyarrow's cost a batch does not show."""

BUFFER_BYTES = 1 << 18
"""Encoded bytes of a column that pyarrow reads ahead."""

MAP_BYTES = 1 << 25
"""Average batch of an IPC file from which on it is mapped."""


def column_dtype(kind: Any) -> np.dtype[Any] | None:
    """Return the NumPy type that a column of an Arrow type is read as; None if it holds no numbers."""
    import pyarrow as pa

    if pa.types.is_float32(kind):
        return np.dtype(np.float32)
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return np.dtype(np.float64) if any(is_one(kind) for is_one in numeric) else None


def column_values(column: Any) -> Array:
    """Return an Arrow column as an array; missing values are NaN."""
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if column.null_count and pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values: Array = column.to_numpy(zero_copy_only=False)
    return values


class _ArrowPart(Part):
    """What Parquet and IPC have in common: a schema, and batches."""

    named = True

    def __init__(self, path: Path, schema: Any) -> None:
        self.source = str(path)
        self._path = path
        # pandas stores an unnamed index as a column of this name; it is no feature.
        fields = [field for field in schema if not field.name.startswith("__index_level_")]
        self.names = tuple(field.name for field in fields)
        self._types = [column_dtype(field.type) for field in fields]
        self._type_names = [str(field.type) for field in fields]
        positions = {name: j for j, name in enumerate(schema.names)}
        self._positions = [positions[name] for name in self.names]

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """Return float32 if all these columns are."""
        for j in columns:
            if self._types[j] is None:
                raise refuse_type(self.source, f"column '{self.names[j]}'", self._type_names[j])
        return narrowest([kind for j in columns if (kind := self._types[j]) is not None])

    def stamp(self) -> object:
        """Return size, time and identity of the file."""
        return file_stamp(self._path)

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield one piece a batch."""
        wanted = [*columns] if weight is None else [*columns, weight]
        stage = new_stage()
        with self._complaints():
            for batch, first in self._batches(wanted, start):
                rows = batch.slice(first) if first else batch
                if rows.num_rows:
                    read = [column_values(rows.column(i)) for i in range(len(wanted))]
                    yield ColumnPiece(read[: len(columns)], None if weight is None else read[-1], stage)

    def _batches(self, wanted: Sequence[int], start: int) -> Iterator[tuple[Any, int]]:
        """Yield batches of these columns, in this order, and the first row wanted of each."""
        raise NotImplementedError

    def is_missing(self, row: int, column: int) -> bool:
        """Whether the value is null."""
        with self._complaints():
            batch, first = next(self._batches([column], row))
            return not batch.column(0)[first].is_valid

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        """Turn what pyarrow raises while it reads into an error that names the file."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            msg = f"{self.source} is damaged: {first_sentence(error)}."
            raise InvalidDataError(msg) from error


def _opened(path: Path, what: str, open_it: Callable[[], Any]) -> Any:
    """Open a file with pyarrow, or say that it is empty, or not of its format."""
    pyarrow = needs("pyarrow", "parquet", f"reading {what}")
    if not path.stat().st_size:
        msg = f"{path} is empty: expected {what}."
        raise InvalidDataError(msg)
    try:
        return open_it()
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        msg = f"{path} is not {what}: {first_sentence(error)}."
        raise InvalidDataError(msg) from error


class ParquetPart(_ArrowPart):
    """A Parquet file of numeric columns; needs pyarrow.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ImportError
        If pyarrow is missing.
    InvalidDataError
        If the file is no Parquet file.
    OSError
    """

    def __init__(self, path: Path) -> None:
        needs("pyarrow", "parquet", "reading Parquet")
        with _opened(path, "a Parquet file", lambda: self._open(path)) as file:
            super().__init__(path, file.schema_arrow)
            self.n_rows = file.metadata.num_rows
            self._groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.read_bytes = 2 * BATCH_BYTES + BUFFER_BYTES * len(self.names)

    @staticmethod
    def _open(path: Path, columns: int = 1) -> Any:
        parquet = needs("pyarrow.parquet", "parquet", "reading Parquet")
        buffer_bytes = max(min(BUFFER_BYTES, (1 << 24) // columns), 1 << 14)
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=buffer_bytes)

    def _batches(self, wanted: Sequence[int], start: int) -> Iterator[tuple[Any, int]]:
        names = [self.names[j] for j in wanted]
        groups = list(range(len(self._groups)))
        while groups and start >= self._groups[groups[0]]:
            start -= self._groups[groups.pop(0)]
        rows = min(max(BATCH_BYTES // (8 * len(names)), 1024), 1 << 16)
        with self._open(self._path, len(names)) as file:
            for batch in file.iter_batches(rows, row_groups=groups, columns=names, use_threads=False):
                if start >= batch.num_rows:
                    start -= batch.num_rows
                    continue
                yield batch.select(names), start
                start = 0


class IpcPart(_ArrowPart):
    """An Arrow IPC file (Feather) or stream of numeric columns; needs pyarrow.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ImportError
        If pyarrow is missing.
    InvalidDataError
        If the file is neither.
    OSError
    """

    def __init__(self, path: Path) -> None:
        pa = needs("pyarrow", "parquet", "reading Arrow IPC")
        self._is_file = True
        self._map = False
        with path.open("rb") as probe:
            self._is_file = probe.read(6) == b"ARROW1"
        self._path = path
        with _opened(path, "an Arrow IPC (Feather) file or stream", lambda: self._reader(path)) as reader:
            super().__init__(path, reader.schema)
            self.n_rows = None
            if self._is_file:
                size = path.stat().st_size // max(reader.num_record_batches, 1)
                self._map = size > MAP_BYTES
                self.read_bytes = 2 * min(size, MAP_BYTES)
        if self._is_file:
            with self._complaints():
                try:
                    counted = pa.ipc.open_file(pa.memory_map(str(path)))  # touches the metadata only
                except OSError:  # not mappable
                    counted = self._reader(path)
                self.n_rows = sum(counted.get_batch(i).num_rows for i in range(counted.num_record_batches))

    def _reader(self, path: Path) -> Any:
        import pyarrow as pa

        file = pa.memory_map(str(path)) if self._map else pa.OSFile(str(path))
        return pa.ipc.open_file(file) if self._is_file else pa.ipc.open_stream(file)

    def _batches(self, wanted: Sequence[int], start: int) -> Iterator[tuple[Any, int]]:
        positions = [self._positions[j] for j in wanted]
        with self._reader(self._path) as reader:
            if self._is_file:
                stored: Iterator[Any] = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                stored = iter(reader)
            for batch in stored:
                if start >= batch.num_rows:
                    start -= batch.num_rows
                    continue
                yield batch.select(positions), start
                start = 0
