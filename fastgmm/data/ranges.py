"""A range of the rows of files, read by any process that holds the source: how workers get their share."""

from __future__ import annotations

import numpy as np

from fastgmm.data.streams import StreamRows
from fastgmm.typing import Float64Array, FloatArray


def read_range(rows: StreamRows, start: int, stop: int) -> tuple[FloatArray, Float64Array | None]:
    """Return rows `start` .. `stop` - 1 in the user's numbering, (n, D), and their weights as they are in the files.

    Parameters
    ----------
    rows : StreamRows
        Its weights, if it has any, are a column of the files.
    start, stop : int

    Raises
    ------
    DataChangedError
        If a file is not what it was when the source was made.
    InvalidDataError
        If it cannot be read.
    """
    rows._check_stamps()
    columns, weight = rows._selection.columns, rows._selection.weight
    x = np.empty((stop - start, rows.n_features), rows.dtype)
    w = None if weight is None else np.empty(stop - start)
    begin = 0
    for part, end in zip(rows._parts, rows._known().ends, strict=True):
        at, last = max(start, begin), min(stop, end)
        if at < last:
            for piece in part.until(last - begin).pieces(columns, weight, at - begin):
                n = min(piece.n_rows, last - at)
                here = slice(at - start, at - start + n)
                piece.copy(0, n, x[here], None if w is None else w[here])
                at += n
                if at == last:
                    break
        begin = end
    rows._check_stamps()
    return x, w
