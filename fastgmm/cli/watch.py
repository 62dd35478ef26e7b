"""Rows that say how far a pass over them has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastgmm.data import StreamRows
from fastgmm.typing import RowBlock

__all__ = ["watched"]

Tell = Callable[[int], None]


class _WatchedRows(StreamRows):
    """A `StreamRows` that calls a function with the number of rows handed out, after each block of a pass."""

    def __init__(self, rows: StreamRows, tell: Tell) -> None:
        self.__dict__.update(rows.__dict__)
        self._tell = tell

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield the blocks of the source."""
        for block in super().blocks(multiple):
            yield block
            self._tell(block.first + block.x.shape[0])


def watched(x: Any, tell: Tell) -> Any:
    """Return the same rows, watched if they are read block by block; an array is one block, and returned as it is.

    Parameters
    ----------
    x : ndarray or StreamRows
    tell : callable
        Called with the number of rows that the pass under way is done with.
    """
    return _WatchedRows(x, tell) if isinstance(x, StreamRows) else x
