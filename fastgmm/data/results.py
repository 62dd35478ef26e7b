"""Results of one value or one line a row, written as they are computed.

1. Rows are read, scored and written in pieces, so memory does not grow with their number, and X may be anything.
2. The file is complete or not there: it is written beside its target and renamed when the last row is in it
   (`fastgmm.files.replacing`). After an error, or Ctrl-C, what was written is removed and an older file stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from fastgmm.data.arrays import ArrayRows
from fastgmm.data.checks import raise_non_finite
from fastgmm.data.formats.base import needs
from fastgmm.data.source import Rows
from fastgmm.data.streams import StreamRows
from fastgmm.errors import InvalidParameterError, NonFiniteDataError
from fastgmm.files import replacing
from fastgmm.typing import Array

PIECE_BYTES = 1 << 22
"""Results held at a time."""

PIECE_ROWS = 3840
"""Pieces are cut at multiples of this, which is one of the rows of a tile: a row then has the same bits as in a pass
over all rows at once."""

CSV_ROWS = 1 << 14
"""Rows formatted at a time: the text of so many is in memory."""

Columns = Mapping[str, Array]
Compute = Callable[[ArrayRows], Array]
"""Rows -> their results, (n,) or (n, width)."""


class Writer(Protocol):
    """Writes named columns to an open file, some rows at a time."""

    def write(self, columns: Columns) -> None:
        """Add rows; the names are the same every time."""
        ...

    def close(self) -> None:
        """Write what comes after the last row, also after a failure; the file stays open."""
        ...


class NpyWriter:
    """One array: (n,) of the column's own type for one column, else (n, columns).

    Parameters
    ----------
    file : binary file
    n_rows : int
        Rows that will come.
    """

    def __init__(self, file: BinaryIO, n_rows: int) -> None:
        self._file, self._n_rows = file, n_rows
        self._dtype: np.dtype[Any] | None = None

    def write(self, columns: Columns) -> None:
        """Add rows."""
        arrays = list(columns.values())
        if self._dtype is None:
            self._dtype = np.result_type(*arrays)
            shape = (self._n_rows,) if len(arrays) == 1 else (self._n_rows, len(arrays))
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
        rows = arrays[0] if len(arrays) == 1 else np.column_stack(arrays)
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def close(self) -> None:
        """Nothing comes after the last row."""


class CsvWriter:
    """A header and one line a row; every float in the shortest form that reads back to the same bits."""

    def __init__(self, file: BinaryIO, n_rows: int) -> None:  # noqa: ARG002 - all writers have one signature
        self._file = file
        self._begun = False

    def write(self, columns: Columns) -> None:
        """Add rows."""
        if not self._begun:
            self._file.write((",".join(_quoted(name) for name in columns) + "\n").encode())
            self._begun = True
        for first in range(0, len(next(iter(columns.values()))), CSV_ROWS):
            # tolist() makes Python numbers, whose repr is the shortest exact one.
            texts = [list(map(repr, column[first : first + CSV_ROWS].tolist())) for column in columns.values()]
            self._file.write("".join(",".join(row) + "\n" for row in zip(*texts, strict=True)).encode())

    def close(self) -> None:
        """Nothing comes after the last row."""


class ParquetWriter:
    """A Parquet table, one row group for each call of `write`; needs pyarrow."""

    def __init__(self, file: BinaryIO, n_rows: int) -> None:  # noqa: ARG002 - all writers have one signature
        self._arrow = needs("pyarrow", "parquet", "writing Parquet")
        self._parquet = needs("pyarrow.parquet", "parquet", "writing Parquet")
        self._file = file
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        """Add rows."""
        table = self._arrow.table([self._column(values) for values in columns.values()], names=list(columns))
        if self._writer is None:
            # Numbers that hardly repeat are smaller without a dictionary, and faster to read.
            repeated = [name for name, values in columns.items() if values.dtype.kind != "f"]
            self._writer = self._parquet.ParquetWriter(self._file, table.schema, use_dictionary=repeated)
        self._writer.write_table(table)

    def _column(self, values: Array) -> Any:
        """Return an Arrow array of the same memory; ``pyarrow.array`` would import pandas for it."""
        values = np.ascontiguousarray(values)
        kind = self._arrow.from_numpy_dtype(values.dtype)
        return self._arrow.Array.from_buffers(kind, len(values), [None, self._arrow.py_buffer(values)])

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


WRITERS: dict[str, Callable[[BinaryIO, int], Writer]] = {
    ".csv": CsvWriter,
    ".npy": NpyWriter,
    ".parquet": ParquetWriter,
    ".pq": ParquetWriter,
}
"""End of a file's name -> how to write it: ``writer(file, n_rows)``."""


def row_results(rows: Rows, compute: Compute, width: int) -> Iterator[Array]:
    """Yield the results of all rows, piece by piece, in order.

    Parameters
    ----------
    rows : row source
        Without weights.
    compute : callable
        Such as ``lambda piece: passes.predict(piece, density)``.
    width : int
        Numbers in a result.

    Raises
    ------
    NonFiniteDataError
        Naming row and column as the user counts them, and the file.
    """
    most = max(PIECE_BYTES // (8 * width) // PIECE_ROWS, 1) * PIECE_ROWS
    for first, x, _ in rows.blocks(PIECE_ROWS):
        for start in range(0, x.shape[0], most):
            piece = x[start : start + most]
            try:
                result = compute(ArrayRows(piece))
            except NonFiniteDataError:
                found = iter([(first + start, piece)])
                if isinstance(rows, StreamRows):
                    raise_non_finite(
                        found, names=rows.names, weightable=False, place=rows.place, is_missing=rows.is_missing
                    )
                raise_non_finite(found, names=rows.names, weightable=False)
                raise
            yield result


def write_results(out: Any, rows: Rows, compute: Compute, names: Sequence[str]) -> Path:
    """Write one line of results for each row to a file, as they are computed.

    Parameters
    ----------
    out : str or os.PathLike
        Its end says what is written; see `WRITERS`. One column of ``.npy`` has shape (N,), several (N, columns).
    rows, compute
        As in `row_results`.
    names : sequence of str
        Columns of the results.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InvalidParameterError
        If the format is unknown, or `out` is a file that is being read.
    OSError
        If it cannot be written.
    """
    path = check_out(out, rows)
    with replacing(path) as file, closing(WRITERS[path.suffix.lower()](file, rows.n_rows)) as writer:
        for result in row_results(rows, compute, len(names)):
            writer.write(dict(zip(names, result.T if result.ndim == 2 else [result], strict=True)))
    return path


def check_out(out: Any, rows: Rows) -> Path:
    """Return `out` as a path that results of `rows` can be written to."""
    if not isinstance(out, str | os.PathLike):
        msg = f"out must be the path of a file to write, or None; got {type(out).__name__}"
        raise InvalidParameterError(msg)
    path = Path(out)
    if path.suffix.lower() not in WRITERS:
        msg = f"out: cannot tell the format of {str(path)!r}; expected a name that ends in {', '.join(WRITERS)}"
        raise InvalidParameterError(msg)
    if isinstance(rows, StreamRows) and os.path.realpath(path) in map(os.path.realpath, rows.sources):
        msg = f"out must not be a file that is read; got {str(path)!r}. Choose another name"
        raise InvalidParameterError(msg)
    return path


def _quoted(name: str) -> str:
    """Quote a column name where CSV needs it."""
    return '"' + name.replace('"', '""') + '"' if any(mark in name for mark in ',"\r\n') else name
