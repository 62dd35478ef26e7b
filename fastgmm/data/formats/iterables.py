"""Rows that come as blocks from the caller's own code: a list of arrays, a function that returns a generator, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastgmm.data.arrays import to_float
from fastgmm.data.formats.base import ArrayPiece, Part, Piece, narrowest, skipped
from fastgmm.data.tables import TableReader, table_kind
from fastgmm.errors import InvalidDataError, InvalidDataTypeError


class BlocksPart(Part):
    """Blocks of rows, iterated anew in every pass.

    Parameters
    ----------
    blocks : iterable, or callable
        Gives two-dimensional arrays, record batches or data frames, all with the same columns; a callable returns an
        iterator of them. Its first block is looked at here.
    dtype : numpy.dtype or None
        What the caller will convert to; None takes that of the first block, and the others must have it, too.

    Raises
    ------
    InvalidDataTypeError
        If it can be read only once.
    InvalidDataError
        If it is empty, or its first block is none.
    """

    source = "the blocks"

    def __init__(self, blocks: Iterable[Any] | Callable[[], Iterable[Any]], dtype: np.dtype[Any] | None) -> None:
        self._blocks = blocks
        self._converted = dtype is not None
        self.n_rows = None
        first = next(self._arrays(), None)
        if first is None:
            msg = "X must give at least one block of rows; got none"
            raise InvalidDataError(msg)
        self.names = first[1] or tuple(str(j + 1) for j in range(first[0].shape[1]))
        self.named = first[1] is not None
        self._type = narrowest([first[0].dtype])

    def _iterator(self) -> Iterator[Any]:
        blocks = self._blocks() if callable(self._blocks) else self._blocks
        iterator = iter(blocks)
        if iterator is self._blocks:
            msg = (
                f"X must be readable more than once, since a fit makes many passes; a {type(self._blocks).__name__} "
                "ends after the first. Pass a list of blocks, or a function that returns a new iterator"
            )
            raise InvalidDataTypeError(msg)
        return iterator

    def _arrays(self) -> Iterator[tuple[Any, tuple[str, ...] | None]]:
        """Yield each block as an array (n, C) of floats or integers, with its names."""
        for number, block in enumerate(self._iterator()):
            kind = table_kind(block)
            what = f"block {number} of X"
            if kind is not None:
                reader = TableReader(block, kind, None, what)
                if reader.n_rows:
                    yield reader.read(0, reader.n_rows), reader.names
                continue
            try:
                array = np.asarray(block)
            except (TypeError, ValueError) as error:
                msg = f"{what} must be a two-dimensional array or a table: {error}"
                raise InvalidDataError(msg) from error
            if array.ndim != 2 or not array.shape[1]:
                msg = f"{what} must have shape (rows, columns); got {array.shape}"
                raise InvalidDataError(msg)
            if array.dtype.kind not in "biuf":
                if array.dtype.kind not in "OUS":
                    msg = f"{what} must hold real numbers; got dtype {array.dtype}"
                    raise InvalidDataTypeError(msg)
                array = to_float(array, np.dtype(np.float64), what)
            if array.shape[0]:
                yield array, None

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:  # noqa: ARG002 - that of the first block
        """Return float32 if the first block is, else float64."""
        return self._type

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield one piece a block."""
        yield from skipped(self._all(columns, weight), start)

    def _all(self, columns: Sequence[int], weight: int | None) -> Iterator[Piece]:
        for array, names in self._arrays():
            self._check(array, names)
            yield ArrayPiece(array, columns, weight)

    def _check(self, array: Any, names: tuple[str, ...] | None) -> None:
        """Refuse a block that does not look like the first."""
        if array.shape[1] != len(self.names):
            msg = f"all blocks of X must have the {len(self.names)} columns of the first; got one with {array.shape[1]}"
            raise InvalidDataError(msg)
        if names is not None and self.named and names != self.names:
            msg = f"all blocks of X must have the columns of the first, {self.names}; got one with {names}"
            raise InvalidDataError(msg)
        if not self._converted and self._type == np.float32 and array.dtype != np.float32:
            msg = (
                f"all blocks of X must be float32, as the first is; got {array.dtype}. Convert the blocks, or open "
                "them with dtype='float64'"
            )
            raise InvalidDataError(msg)
