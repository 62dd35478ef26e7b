"""Parquet, read by pyarrow one column after another.

1. Row groups that decode to little (`RUN_BYTES`) are decoded whole, a column at a time, small ones several together:
   only one column's pages and dictionary are in memory, and in the cache, at any time.
2. A larger row group is read in step, a run of rows (`STEP_BYTES`) of every column in turn, through pages that are
   read as they are needed: memory is a page and a dictionary for every column, whatever the number of rows. Runs are
   long, so that a dictionary stays in the cache while its column is decoded. Of the two ways, the one that takes less
   memory is chosen.
3. pyarrow's own defaults (pre-buffering, datasets) hold a whole file, or whole row groups in their encoded form.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from fastgmm.data.formats.arrow import ArrowPart, opened
from fastgmm.data.formats.base import ColumnPiece, Piece, needs, new_stage
from fastgmm.data.formats.columns import column_values, stored_dtype
from fastgmm.data.room import ALIGNMENT, room
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array

RUN_BYTES = 1 << 24
"""Row groups up to this size, together, are decoded column by column at a time."""

BATCH_ROWS = 1 << 14
"""Rows that pyarrow decodes at a time: enough that its cost a batch does not show, while they stay in the cache."""

STEP_BYTES = 1 << 23
"""All columns of a run that is read in step."""

BUFFER_BYTES = 1 << 16
"""Encoded bytes of a column that pyarrow reads ahead."""

PAGE_BYTES = 1 << 20
"""What writers make a page of, unless told otherwise."""


class ParquetPart(ArrowPart):
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

    remedy = (
        "its row groups are large, and so are the pages and dictionaries of its columns: choose fewer columns, or "
        "write it again with smaller row groups and without dictionaries (pyarrow: write_table(..., "
        "row_group_size=100_000, use_dictionary=False))"
    )

    def __init__(self, path: Path) -> None:
        needs("pyarrow", "parquet", "reading Parquet")
        with opened(path, "a Parquet file", lambda: self._open(path)) as file:
            super().__init__(path, file.schema_arrow)
            metadata = file.metadata
            self.n_rows = metadata.num_rows
            self._groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._open_bytes = _open_bytes(metadata, int(np.argmax(self._groups))) if self._groups else {}

    @staticmethod
    def _open(path: Path) -> Any:
        parquet = needs("pyarrow.parquet", "parquet", "reading Parquet")
        # Checksums are verified where the writer stored them; of damage without, only its decoding may tell.
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True)

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """Return float32 if all these columns are."""
        for j in columns:
            if self.names.count(self.names[j]) > 1:
                msg = f"{self.source} has several columns called {self.names[j]!r}; choose others."
                raise InvalidDataError(msg)
        return super().dtype(columns)

    def held_bytes(self, columns: Sequence[int]) -> int:
        """Return a run of rows, or the pages and dictionaries of all these columns."""
        largest = max(self._groups, default=0) * self._row_bytes(columns)
        return max(min(largest, self._in_step_bytes(columns)), RUN_BYTES)

    def _row_bytes(self, columns: Sequence[int]) -> int:
        return sum(stored_dtype(self._types[j]).itemsize for j in columns)

    def _in_step_bytes(self, columns: Sequence[int]) -> int:
        """Return what a large row group takes to be read in step."""
        return sum(self._open_bytes.get(self.names[j], 0) for j in columns) + 2 * PAGE_BYTES + STEP_BYTES

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield a piece a run of rows: a row group or several, or a part of a large one."""
        wanted = [*columns] if weight is None else [*columns, weight]
        names = [self.names[j] for j in wanted]
        row_bytes = self._row_bytes(wanted)
        most = max(RUN_BYTES, self._in_step_bytes(wanted)) // row_bytes
        step = max(STEP_BYTES // row_bytes // BATCH_ROWS * BATCH_ROWS, min(STEP_BYTES // row_bytes, BATCH_ROWS), 1)
        stage = new_stage()
        with self.complaints(), self._open(self._path) as file:
            first, start = self._group_of(start)
            runs = list(self._runs(first, RUN_BYTES // row_bytes))
            longest = max((n if n <= most else min(step, n) for _, n in runs), default=0)
            run = _Run([stored_dtype(self._types[j]) for j in wanted], longest)
            for groups, n_rows in runs:
                if n_rows <= most:
                    found = iter([self._decoded(file, groups, names, n_rows, run)])
                else:
                    found = self._in_step(file, groups, names, n_rows, run, step)
                for read in found:
                    if start < len(read[0]):
                        rest = [values[start:] for values in read]
                        yield ColumnPiece(rest[: len(columns)], None if weight is None else rest[-1], stage)
                    start = max(start - len(read[0]), 0)
                del found
                _give_back()
        _give_back()  # the thread ends here

    def until(self, stop: int) -> ParquetPart:
        """Return the file without the rows from `stop` on: they are not decoded."""
        last, rows = self._group_of(stop)
        made = copy(self)
        made._groups = self._groups[:last] + ([rows] if rows else [])
        return made

    def _group_of(self, row: int) -> tuple[int, int]:
        """Return the row group that a row is in, and its number there."""
        ends = list(accumulate(self._groups))
        group = bisect_right(ends, row)
        return group, row - (ends[group - 1] if group else 0)

    def _runs(self, first: int, most: int) -> Iterator[tuple[list[int], int]]:
        """Yield runs of row groups and their numbers of rows: at most so many, but for a lone row group."""
        groups: list[int] = []
        n_rows = 0
        for group, n in enumerate(self._groups[first:], start=first):
            if groups and n_rows + n > most:
                yield groups, n_rows
                groups, n_rows = [], 0
            groups, n_rows = [*groups, group], n_rows + n
        if groups:
            yield groups, n_rows

    def _decoded(self, file: Any, groups: list[int], names: Sequence[str], n_rows: int, run: _Run) -> list[Array]:
        """Return these row groups, decoded column by column."""
        for j, name in enumerate(names):
            self._fill(run, j, name, _batches(file, groups, name, BATCH_ROWS), n_rows)
        return run.rows(n_rows)

    def _in_step(
        self, file: Any, groups: list[int], names: Sequence[str], n_rows: int, run: _Run, step: int
    ) -> Iterator[list[Array]]:
        """Yield runs of `step` rows of a row group, each column through pages of its own."""
        columns = [_batches(file, groups, name, min(step, BATCH_ROWS)) for name in names]
        for first in range(0, n_rows, step):
            n = min(step, n_rows - first)
            for j, name in enumerate(names):
                self._fill(run, j, name, columns[j], n)
            yield run.rows(n)

    def _fill(self, run: _Run, column: int, name: str, batches: Iterator[Any], n_rows: int) -> None:
        """Read the next rows of a column: whole batches, but for the end of the row group and where `until` cut it."""
        done = 0
        while done < n_rows and (batch := next(batches, None)) is not None:
            values = column_values(batch.column(0))[: n_rows - done]
            run.put(column, done, values)
            done += len(values)
        self._check_rows(name, done, n_rows)

    def _check_rows(self, name: str, n: int, expected: int) -> None:
        if n != expected:
            msg = f"{self.source} is damaged: column '{name}' has {n} rows where {expected} were expected."
            raise InvalidDataError(msg)

    def values(self, column: int, start: int) -> Iterator[Any]:
        """Yield one column from row `start` on, as Arrow arrays."""
        first, start = self._group_of(start)
        with self._open(self._path) as file:
            for batch in _batches(file, list(range(first, len(self._groups))), self.names[column], BATCH_ROWS):
                if start < batch.num_rows:
                    yield batch.column(0).slice(start)
                start = max(start - batch.num_rows, 0)


class _Run:
    """Room for decoded columns, used again for every run of rows.

    Parameters
    ----------
    types : sequence of numpy.dtype
        One a column.
    n_rows : int
        Rows of the longest run.
    """

    def __init__(self, types: Sequence[np.dtype[Any]], n_rows: int) -> None:
        sizes = [n_rows * kind.itemsize for kind in types]
        ends = list(accumulate(size + -size % ALIGNMENT for size in sizes))
        whole = room(max(ends[-1], 1))
        begins = [0, *ends[:-1]]
        self.columns: list[Array] = [
            whole[begin : begin + size].view(kind) for begin, size, kind in zip(begins, sizes, types, strict=True)
        ]

    def rows(self, n: int) -> list[Array]:
        """Return the first rows of all columns."""
        return [values[:n] for values in self.columns]

    def put(self, column: int, first: int, values: Array) -> None:
        """Store values of a column from row `first` on."""
        if values.dtype.kind == "f" and self.columns[column].dtype.kind != "f":  # integers, some of them missing
            self.columns[column] = self.columns[column].astype(np.float64)
        self.columns[column][first : first + len(values)] = values


def _batches(file: Any, groups: list[int], name: str, n_rows: int) -> Iterator[Any]:
    """Yield batches of one column; without threads, since the rows before these are being computed on."""
    found: Iterator[Any] = file.iter_batches(n_rows, row_groups=groups, columns=[name], use_threads=False)
    return found


def _give_back() -> None:
    """Return what pyarrow does not use any more to the system: its allocator keeps it for each thread that read."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _open_bytes(metadata: Any, group: int) -> dict[str, int]:
    """Return what reading a row group in step takes for each column: path of the column -> bytes.

    A dictionary and a page; what they are decompressed from is there for one column at a time.
    """
    found = {}
    described = metadata.row_group(group)
    for i in range(described.num_columns):
        chunk = described.column(i)
        whole = max(chunk.total_uncompressed_size, 0)
        dictionary = 0
        if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
            packed = chunk.data_page_offset - chunk.dictionary_page_offset
            dictionary = int(packed * whole / max(chunk.total_compressed_size, 1))
            dictionary = min(max(dictionary, 0), whole)
        page = min(whole - dictionary, PAGE_BYTES)
        found[chunk.path_in_schema] = dictionary + page + BUFFER_BYTES
    return found
