"""Find the value that is not finite, once a pass has said that there is one.

No data are scanned in advance: a pass meets every value anyway and notices. Only then the rows are read again, to say
which value it was in the user's own numbering (a pass does not see rows of weight zero, nor the names of columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fastgmm.errors import NonFiniteDataError
from fastgmm.typing import Array


def raise_non_finite(
    blocks: Iterator[tuple[int, Array]],
    *,
    names: Sequence[str] | None,
    what: str = "X",
    weightable: bool = True,
    place: Callable[[int], str] = "row {},".format,
    is_missing: Callable[[int, int], bool] | None = None,
) -> None:
    """Raise for the first NaN or infinity in `blocks`; return if there is none.

    Parameters
    ----------
    blocks : iterator of (first, x)
        Row number of the first row and the rows (n, D), float; rows that do not count hold zeros.
    names : sequence of str or None
        Names of the columns.
    what : str
        Name of the argument.
    weightable : bool
        Whether rows may be left out by a weight of 0.
    place : callable
        Row number -> where it is, in words.
    is_missing : callable, optional
        (row, column) -> whether a NaN stands for a value that is missing.

    Raises
    ------
    NonFiniteDataError
        With row and column.
    """
    for first, x in blocks:
        finite = np.isfinite(x)
        if finite.all():
            continue
        row = int(np.argmin(finite.all(axis=1)))
        column = int(np.argmin(finite[row]))
        value = float(x[row, column])
        kind = "NaN" if math.isnan(value) else "-infinity" if value < 0 else "infinity"
        if kind == "NaN" and is_missing is not None and is_missing(first + row, column):
            kind = "missing (null)"
        where = f"column {column}" if names is None else f"column {names[column]!r}"
        msg = (
            f"{what} must hold finite numbers only; {place(first + row)} {where} is {kind} (NaN and inf are refused). "
            "Remove or impute such rows" + (", or give them sample_weight 0" if weightable else "")
        )
        raise NonFiniteDataError(msg, row=first + row, column=column)
