"""What files of Arrow's types have in common, and Arrow IPC (Feather), read by pyarrow batch by batch.

IPC files are read with plain reads. Where batches are so large that this would take much memory, the file is memory
mapped instead: its pages can be taken back at any time.
"""

from __future__ import annotations

from abc import abstractmethod
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
from fastgmm.data.formats.columns import column_dtype, column_values
from fastgmm.errors import InvalidDataError

MAP_BYTES = 1 << 25
"""Average batch of an IPC file from which on it is mapped."""


class ArrowPart(Part):
    """What Parquet and IPC have in common: a schema, and columns that may hold missing values.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
    """

    named = True

    def __init__(self, path: Path, schema: Any) -> None:
        self.source = str(path)
        self._path = path
        # pandas stores an unnamed index as a column of this name; it is no feature.
        places = [i for i, name in enumerate(schema.names) if not name.startswith("__index_level_")]
        self.names = tuple(schema.names[i] for i in places)
        self._positions = places
        self._types = [schema.field(i).type for i in places]

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """Return float32 if all these columns are."""
        found = [column_dtype(self._types[j]) for j in columns]
        for j, kind in zip(columns, found, strict=True):
            if kind is None:
                raise refuse_type(self.source, f"column '{self.names[j]}'", self._types[j])
        return narrowest([kind for kind in found if kind is not None])

    def stamp(self) -> object:
        """Return size, time and identity of the file."""
        return file_stamp(self._path)

    @abstractmethod
    def values(self, column: int, start: int) -> Iterator[Any]:
        """Yield one column from row `start` on, as Arrow arrays."""

    def is_missing(self, row: int, column: int) -> bool:
        """Whether the value is null."""
        with self.complaints():
            return not next(self.values(column, row))[0].is_valid

    @contextmanager
    def complaints(self) -> Iterator[None]:
        """Turn what pyarrow raises while it reads into an error that names the file."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            msg = f"{self.source} is damaged: {first_sentence(error)}."
            raise InvalidDataError(msg) from error


def opened(path: Path, what: str, open_it: Callable[[], Any]) -> Any:
    """Open a file with pyarrow, or say that it is empty, or not of its format.

    Raises
    ------
    ImportError, InvalidDataError, OSError
    """
    pyarrow = needs("pyarrow", "parquet", f"reading {what}")
    if not path.stat().st_size:
        msg = f"{path} is empty: expected {what}."
        raise InvalidDataError(msg)
    try:
        return open_it()
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        msg = f"{path} is not {what}, or is truncated: {first_sentence(error)}."
        raise InvalidDataError(msg) from error


class IpcPart(ArrowPart):
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

    remedy = "its record batches are read whole: write it again with batches of a few MiB"

    def __init__(self, path: Path) -> None:
        pa = needs("pyarrow", "parquet", "reading Arrow IPC")
        self._is_file = True
        self._map = False
        with path.open("rb") as probe:
            self._is_file = probe.read(6) == b"ARROW1"
        self._path = path
        self._batch_bytes = 0
        with opened(path, "an Arrow IPC (Feather) file or stream", lambda: self._reader(path)) as reader:
            super().__init__(path, reader.schema)
            self.n_rows = None
            if self._is_file:
                self._batch_bytes = path.stat().st_size // max(reader.num_record_batches, 1)
                self._map = self._batch_bytes > MAP_BYTES
        if self._is_file:
            with self.complaints():
                try:
                    counted = pa.ipc.open_file(pa.memory_map(str(path)))  # touches the metadata only
                except OSError:  # not mappable
                    counted = self._reader(path)
                self.n_rows = sum(counted.get_batch(i).num_rows for i in range(counted.num_record_batches))

    def _reader(self, path: Path) -> Any:
        import pyarrow as pa

        file = pa.memory_map(str(path)) if self._map else pa.OSFile(str(path))
        return pa.ipc.open_file(file) if self._is_file else pa.ipc.open_stream(file)

    def held_bytes(self, columns: Sequence[int]) -> int:  # noqa: ARG002 - batches are read whole
        """Return two batches."""
        return 2 * min(self._batch_bytes, MAP_BYTES)

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield one piece a batch."""
        wanted = [*columns] if weight is None else [*columns, weight]
        stage = new_stage()
        with self.complaints():
            for batch in self._batches(wanted, start):
                read = [column_values(column) for column in batch.columns]
                yield ColumnPiece(read[: len(columns)], None if weight is None else read[-1], stage)

    def values(self, column: int, start: int) -> Iterator[Any]:
        """Yield one column from row `start` on, as Arrow arrays."""
        for batch in self._batches([column], start):
            yield batch.column(0)

    def _batches(self, wanted: Sequence[int], start: int) -> Iterator[Any]:
        """Yield batches of these columns, in this order, that begin with row `start`; none is empty."""
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
                yield batch.slice(start).select(positions)
                start = 0
