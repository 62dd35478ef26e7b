"""``.npy`` files, by plain reads into the caller's buffer.

No memory map: pages of a map count as the process's memory until the system takes them back, a map of the whole file
needs as much address space, and a file that is cut while it is mapped ends the process. Plain reads are no slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastgmm.data.formats.base import (
    READ_BYTES,
    ColumnPiece,
    Part,
    Piece,
    file_stamp,
    first_sentence,
    new_stage,
    slice_of,
)
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array, Float64Array, FloatArray


class NpyPart(Part):
    """An array of real numbers, shape (n, D), or (n,) as one column, in C or Fortran order.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InvalidDataError
        If the file is no ``.npy`` file, is shorter than its header says, holds Python objects, text or complex numbers,
        or has more than two axes.
    OSError
    """

    named = False

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self._path = path
        with path.open("rb") as file:
            shape, self._fortran, self._type = self._header(file)
            self._begin = file.tell()
        self._stamp = file_stamp(path)
        self.n_rows, width = shape[0], shape[1] if len(shape) == 2 else 1
        self._fortran = self._fortran and width > 1
        self.names = tuple(str(j + 1) for j in range(width))
        self._row_bytes = width * self._type.itemsize
        expected, size = self._begin + self.n_rows * self._row_bytes, path.stat().st_size
        if size < expected:
            msg = (
                f"{self.source} is truncated: its header promises {self.n_rows} rows ({expected} bytes), but it has "
                f"{size} bytes. Write or copy it again."
            )
            raise InvalidDataError(msg)

    def _header(self, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            # Version 3 is version 2 with names of fields in UTF-8; such types are refused below anyway.
            shape, fortran, dtype = read.get(version, np.lib.format.read_array_header_2_0)(file)
        except (ValueError, EOFError) as error:
            if self._path.stat().st_size == 0:
                msg = f"{self.source} is empty: expected a .npy file of shape (rows, columns)."
            else:
                msg = f"{self.source} is not a .npy file of numbers: {first_sentence(error)}."
            raise InvalidDataError(msg) from error
        if dtype.hasobject:
            msg = f"{self.source} is not a .npy file of numbers: it holds Python objects."
            raise InvalidDataError(msg)
        if dtype.kind not in "biuf":
            msg = f"{self.source} holds values of type {dtype}; expected real numbers."
            raise InvalidDataError(msg)
        if len(shape) not in (1, 2):
            msg = f"{self.source} has shape {shape}; expected (rows, columns), or (rows,) for one column."
            raise InvalidDataError(msg)
        return shape, fortran, dtype

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:  # noqa: ARG002 - an array has one type
        """Return float32 for float32 of either byte order, else float64."""
        single = self._type.kind == "f" and self._type.itemsize == 4
        return np.dtype(np.float32 if single else np.float64)

    def stamp(self) -> object:
        """Return size, time and identity of the file."""
        return file_stamp(self._path)

    def whole(self, columns: Sequence[int], dtype: np.dtype[Any]) -> Array | None:
        """Return a memory map, for those who want an array; None where columns are chosen or converted."""
        plain = self._type == dtype and not self._fortran and len(columns) == len(self.names)
        if not plain or slice_of(columns) != slice(0, len(columns)) or not self.n_rows:
            return None
        shape = (self.n_rows, len(columns))
        return np.memmap(self._path, self._type, "r", self._begin, shape)

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield the file as one piece, or, in Fortran order, runs of columns."""
        with self._path.open("rb", buffering=0) as file:
            if not self._fortran:
                yield _CRows(self, file, columns, weight, start)
                return
            assert self.n_rows is not None
            wanted = [*columns] if weight is None else [*columns, weight]
            size = max(READ_BYTES // self._row_bytes, 1024)
            stage = new_stage()
            for at in range(start, self.n_rows, size):
                n = min(size, self.n_rows - at)
                read = [self._column(file, j, at, n) for j in wanted]
                yield ColumnPiece(read[: len(columns)], None if weight is None else read[-1], stage)

    def _column(self, file: BinaryIO, column: int, first: int, n: int) -> Array:
        assert self.n_rows is not None
        values = np.empty(n, self._type)
        self.fill(file, (column * self.n_rows + first) * self._type.itemsize, values)
        return values

    def fill(self, file: BinaryIO, offset: int, values: Array) -> None:
        """Read numbers from an offset behind the header; `values` is C-contiguous.

        Raises
        ------
        InvalidDataError
            If the file ends before.
        """
        file.seek(self._begin + offset)
        view = values.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            n = file.readinto(view[done:])  # type: ignore[attr-defined]  # raw files have it, BinaryIO does not say so
            if not n:
                msg = f"{self.source} is truncated: it ended while it was read. Write or copy it again."
                raise InvalidDataError(msg)
            done += n


class _CRows:
    """The rows of a file in C order, read when they are copied."""

    def __init__(self, part: NpyPart, file: BinaryIO, columns: Sequence[int], weight: int | None, start: int) -> None:
        assert part.n_rows is not None
        self._part, self._file, self._start = part, file, start
        self._columns, self._weight = slice_of(columns), weight
        self._all = weight is None and self._columns == slice(0, len(part.names))
        self.n_rows = part.n_rows - start

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        """Read straight into `x` where nothing is to be converted, else through a small buffer."""
        part = self._part
        row_bytes = part._row_bytes
        if self._all and part._type == x.dtype:
            part.fill(self._file, (self._start + start) * row_bytes, x)
            return
        size = max(READ_BYTES // row_bytes, 1)
        rows = np.empty((min(size, stop - start), len(part.names)), part._type)
        for at in range(start, stop, size):
            n = min(size, stop - at)
            part.fill(self._file, (self._start + at) * row_bytes, rows[:n])
            x[at - start : at - start + n] = rows[:n, self._columns]
            if w is not None and self._weight is not None:
                w[at - start : at - start + n] = rows[:n, self._weight]
