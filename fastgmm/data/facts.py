"""What is known of stored rows before the first pass: how many there are, and what their weights add up to.

The metadata of most formats tell the number of rows; text, streams and blocks are read for it, and so is a column of
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastgmm.data.cutting import Selection, weights_of
from fastgmm.data.formats.base import Part
from fastgmm.data.weights import RowWeights, WeightTotals, are_even, safe_scale
from fastgmm.errors import InvalidDataError


@dataclass(frozen=True, slots=True)
class Facts:
    """Counts and sums.

    Attributes
    ----------
    ends : tuple of int
        Rows up to the end of each part, those of weight 0 counted.
    n_given : int
        All of these.
    n_rows : int
        Rows of positive weight.
    total : float
        Sum of their weights, scaled.
    scale : float
        What weights are multiplied by.
    even : bool
        Whether all weights > 0 are the same.
    """

    ends: tuple[int, ...]
    n_given: int
    n_rows: int
    total: float
    scale: float
    even: bool


def scan(
    parts: Sequence[Part],
    selection: Selection,
    given: RowWeights | None,
    place: Callable[[int, tuple[int, ...]], str],
) -> Facts:
    """Count rows, and read the weights once (twice if they need scaling).

    Parameters
    ----------
    parts, selection
        As in `StreamRows`.
    given : RowWeights or None
        Weights beside the files.
    place : callable
        (row number, ends of the parts) -> where it is, for messages.

    Raises
    ------
    InvalidDataError
        If there are no rows, or weights are not valid; the message says where.
    """
    ends: list[int] = []
    column = selection.weight
    totals = WeightTotals()
    for part in parts:
        n_rows = part.n_rows
        if column is not None:
            n_rows = 0
            for w in weights_of(part, column):
                totals.add(w)
                n_rows += w.shape[0]
        elif n_rows is None:
            n_rows = sum(piece.n_rows for piece in part.pieces(selection.columns[:1], None, 0))
        ends.append(n_rows + (ends[-1] if ends else 0))
    n_given = ends[-1]
    if n_given == 0:
        msg = f"{parts[0].source} has no rows of data."
        raise InvalidDataError(msg)
    if given is not None:
        return Facts(tuple(ends), n_given, given.n_kept, given.total, given.scale, given.even)
    if column is None:
        return Facts(tuple(ends), n_given, n_given, float(n_given), 1.0, even=True)
    totals.check(lambda row: place(row, tuple(ends)))
    scale = safe_scale(totals.high)
    if scale != 1.0:
        totals = WeightTotals(scale)
        for part in parts:
            for w in weights_of(part, column):
                totals.add(w)
    n_kept, total = totals.end()
    return Facts(tuple(ends), n_given, n_kept, total, scale, are_even(totals.high * scale, n_kept, total))
