"""What a stored table is to this library: a `Part` with named columns, read front to back in `Piece`s.

1. A part holds no open file, only what is needed to open it: a pass opens it anew, in the thread that reads. So a
   source can be pickled, and survives a fork.
2. A piece copies rows straight to where they are wanted, converting on the way: no format needs more memory than its
   own decoder.
3. Optional packages are imported where they are used; `needs` says which extra brings them.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array, Float64Array, FloatArray

STAGE_BYTES = 1 << 18
"""Columns become rows through a transposed copy of this size, which stays in a core's cache."""

READ_BYTES = 1 << 20
"""Rows that need a conversion are read in runs of this size."""


class Piece(Protocol):
    """A run of rows of one part.

    Attributes
    ----------
    n_rows : int
    """

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        """Write rows start..stop-1 to `x` (n, D), and their weights to `w` (n,) where there is a weight column."""
        ...


class Part(ABC):
    """One file, or something like one.

    Attributes
    ----------
    source : str
        What messages call it.
    names : tuple of str
        One a column; "1", "2", ... where the file has none.
    named : bool
        Whether the names come from the file.
    n_rows : int or None
        None where only reading tells.
    remedy : str
        How to write it so that `held_bytes` is less.
    """

    source: str
    names: tuple[str, ...]
    named: bool
    n_rows: int | None
    remedy: str = ""

    @abstractmethod
    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """Return float32 if all these columns are float32, else float64.

        Raises
        ------
        InvalidDataError
            If one of them holds no numbers.
        """

    @abstractmethod
    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield the rows from `start` on, in order. A piece is valid until the next one is asked for.

        Parameters
        ----------
        columns : sequence of int
            Positions of the features.
        weight : int or None
            Position of the weights.
        start : int
            First row.
        """

    def until(self, stop: int) -> Part:  # noqa: ARG002 - few formats decode ahead of what they yield
        """Return a part that need not give the rows from `stop` on, for who wants only those before."""
        return self

    def held_bytes(self, columns: Sequence[int]) -> int:  # noqa: ARG002 - few formats decode column by column
        """Return what reading these columns takes at a time, roughly, beside the rows that are handed out."""
        return READ_BYTES

    def stamp(self) -> object:
        """Return what changes when the part changes, None if nothing tells."""
        return None

    def place(self, row: int) -> str:
        """Say where row number `row` (from 0) is, for a person: rows count from 1."""
        return f"row {row + 1}"

    def is_missing(self, row: int, column: int) -> bool:  # noqa: ARG002 - only some formats know missing values
        """Whether the value there is missing, and not a NaN that somebody stored."""
        return False

    def whole(self, columns: Sequence[int], dtype: np.dtype[Any]) -> Array | None:  # noqa: ARG002 - few formats can
        """Return all rows without reading them, if the format allows that, else None."""
        return None


class ArrayPiece:
    """Rows of something that is sliced by rows: an array in memory, or one that reads when it is sliced.

    Parameters
    ----------
    array : ndarray, h5py.Dataset, zarr.Array, ...
        Shape (n, C) or (n,).
    columns, weight
        As in `Part.pieces`.
    first : int
        Row of the array that is the first of the piece.
    step : int
        Rows to slice at a time.
    """

    def __init__(self, array: Any, columns: Sequence[int], weight: int | None, first: int = 0, step: int = 0) -> None:
        self._array = array
        self._columns = slice_of(columns)
        self._weight = weight
        self._first = first
        self._step = step
        self.n_rows = int(array.shape[0]) - first

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        """Slice, choose the columns and convert."""
        begin, end = start + self._first, stop + self._first
        at = begin
        while at < end:
            # Steps end where chunks end, so that none is decoded twice.
            to = min((at // self._step + 1) * self._step, end) if self._step else end
            rows = self._array[at:to]
            rows = rows.reshape(to - at, -1)
            x[at - begin : to - begin] = rows[:, self._columns]
            if w is not None and self._weight is not None:
                w[at - begin : to - begin] = rows[:, self._weight]
            at = to


class ColumnPiece:
    """Rows of a table that is stored column by column.

    Parameters
    ----------
    columns : sequence of ndarray (n,)
        The features.
    weight : ndarray (n,) or None
    stage : ndarray of uint8 (STAGE_BYTES,)
        Scratch that the pieces of one reader share.
    """

    def __init__(self, columns: Sequence[Array], weight: Array | None, stage: Array) -> None:
        self._columns = columns
        self._weight = weight
        self._stage = stage
        self.n_rows = len(columns[0])

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        """Transpose through the cache: a column is read, and a row is written, in whole cache lines."""
        if w is not None and self._weight is not None:
            w[:] = self._weight[start:stop]
        width = len(self._columns)
        if width == 1:
            x[:, 0] = self._columns[0][start:stop]
            return
        rows = self._stage.shape[0] // (width * x.itemsize)
        if rows < 16:  # thousands of columns
            for j, column in enumerate(self._columns):
                x[:, j] = column[start:stop]
            return
        stage = self._stage[: rows * width * x.itemsize].view(x.dtype).reshape(width, rows)
        for at in range(start, stop, rows):
            to = min(at + rows, stop)
            for j, column in enumerate(self._columns):
                stage[j, : to - at] = column[at:to]
            x[at - start : to - start] = stage[:, : to - at].T


class _Rest:
    """A piece without its first rows."""

    def __init__(self, piece: Piece, first: int) -> None:
        self._piece, self._first = piece, first
        self.n_rows = piece.n_rows - first

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        self._piece.copy(start + self._first, stop + self._first, x, w)


def skipped(pieces: Iterator[Piece], start: int) -> Iterator[Piece]:
    """Yield pieces without the first `start` rows, which are read and dropped."""
    for piece in pieces:
        if start >= piece.n_rows:
            start -= piece.n_rows
        elif start:
            yield _Rest(piece, start)
            start = 0
        else:
            yield piece


def new_stage() -> Array:
    """Return scratch for `ColumnPiece`."""
    return np.empty(STAGE_BYTES, np.uint8)


def slice_of(columns: Sequence[int]) -> Any:
    """Return an index of these columns: a slice, which copies nothing, if they are consecutive."""
    first = columns[0]
    if list(columns) == list(range(first, first + len(columns))):
        return slice(first, first + len(columns))
    return list(columns)


def narrowest(types: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return float32 if all types are, else float64."""
    return np.dtype(np.float32 if all(t == np.float32 for t in types) else np.float64)


def file_stamp(path: Path) -> object:
    """Return size, time of change and identity of a file; None if it is gone."""
    try:
        status = os.stat(path)  # noqa: PTH116 - one call for files and folders
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def needs(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or say how to install it.

    Raises
    ------
    ImportError
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        msg = f"{purpose} needs {package}, which is not installed; run: pip install 'fastgmm[{extra}]'."
        raise ImportError(msg, name=package) from error


def first_sentence(error: BaseException) -> str:
    """Cut another library's message to its first line, without the full stop we add."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def refuse_type(source: str, column: str, kind: object) -> InvalidDataError:
    """Build the error for a column that holds no numbers."""
    return InvalidDataError(
        f"{source}, {column}: holds values of type {kind}, expected numbers; choose numeric columns with columns=."
    )
