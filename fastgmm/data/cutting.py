"""From parts to blocks: the rows of all files, in order, cut to one size and converted on the way.

Runs in the reading thread. Blocks do not end where files or pieces end, so a pass gives the same bits as over an array
in memory. Rows of weight 0 are left out, and weights are scaled, as `RowWeights` does for arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.data.formats.base import Part
from fastgmm.data.pump import Buffer, Take
from fastgmm.data.weights import PIECE, RowWeights
from fastgmm.typing import Float64Array, FloatArray, RowBlock

BLOCK_BYTES = 1 << 23
"""Rows that are handed out at a time: 8 MiB, some ten times what the threads of a small machine compute at a time."""

PREFETCH = 2
"""Blocks read ahead."""

SPARE_ROWS = 1024
"""Rows of weight 0 are squeezed out in runs of so many."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is read of each part, and how.

    Attributes
    ----------
    columns : tuple of int
        Positions of the features.
    weight : int or None
        Position of the weights.
    names : tuple of str, or None
        Names of the features, if the files have names.
    dtype : numpy.dtype
        float32 or float64.
    block_bytes : int
    prefetch : int
        0 reads in the calling thread.
    """

    columns: tuple[int, ...]
    weight: int | None
    names: tuple[str, ...] | None
    dtype: np.dtype[Any]
    block_bytes: int = BLOCK_BYTES
    prefetch: int = PREFETCH


@dataclass(frozen=True, slots=True)
class Cut:
    """How rows become blocks.

    Attributes
    ----------
    size : int
        Rows in a block.
    drop : bool
        Whether rows of weight 0 are left out; else they are there, as zeros.
    given : RowWeights or None
        Weights beside the files, which are scaled already.
    scale : float
        What to multiply weights in the files by.
    """

    size: int
    drop: bool
    given: RowWeights | None = None
    scale: float = 1.0


def fill(parts: Sequence[Part], selection: Selection, cut: Cut, take: Take) -> Iterator[tuple[RowBlock, Buffer]]:
    """Yield blocks of ``cut.size`` rows, the last one shorter, each in a buffer that was taken.

    Parameters
    ----------
    parts : sequence of Part
    selection : Selection
    cut : Cut
    take : callable
        Gives buffers of ``cut.size`` rows.
    """
    buffer = take()
    first = filled = 0
    row = 0  # of all that are stored
    for part in parts:
        for piece in part.pieces(selection.columns, selection.weight, 0):
            start = 0
            while start < piece.n_rows:
                n = min(cut.size - filled, piece.n_rows - start)
                x = buffer.x[filled : filled + n]
                w = None if buffer.w is None else buffer.w[filled : filled + n]
                piece.copy(start, start + n, x, w)
                if w is not None:
                    if cut.given is not None:
                        w[:] = cut.given.read(row, row + n)
                    elif cut.scale != 1.0:
                        w *= cut.scale
                    filled += _compressed(x, w) if cut.drop else _blanked(x, w)
                else:
                    filled += n
                start += n
                row += n
                if filled == cut.size:
                    yield RowBlock(first, buffer.x, buffer.w), buffer
                    first, filled = first + cut.size, 0
                    buffer = take()
    if filled:
        yield RowBlock(first, buffer.x[:filled], None if buffer.w is None else buffer.w[:filled]), buffer


def weights_of(part: Part, column: int) -> Iterator[Float64Array]:
    """Yield the weights of a part, `PIECE` or fewer at a time."""
    for piece in part.pieces([column], None, 0):
        for start in range(0, piece.n_rows, PIECE):
            stop = min(start + PIECE, piece.n_rows)
            w = np.empty((stop - start, 1))
            piece.copy(start, stop, w, None)
            yield w[:, 0]


def _compressed(x: FloatArray, w: Float64Array) -> int:
    """Move the rows of positive weight to the front, in place; return how many there are."""
    if w.all():
        return int(w.shape[0])
    filled = 0
    for start in range(0, w.shape[0], SPARE_ROWS):
        kept = start + np.flatnonzero(w[start : start + SPARE_ROWS])
        x[filled : filled + kept.size] = x[kept]
        w[filled : filled + kept.size] = w[kept]
        filled += kept.size
    return filled


def _blanked(x: FloatArray, w: Float64Array) -> int:
    """Put zeros into the rows of weight 0: what is there does not matter."""
    x[w == 0.0] = 0.0
    return int(w.shape[0])
