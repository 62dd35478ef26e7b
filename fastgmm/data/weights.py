"""Row weights: checked once, handed out block by block.

1. A weight says how often a row counts. Weight 0 means that the row is not there, so such rows are taken out before a
   pass sees them: not even an outlier of 1e300 among them can do harm, and the block grid is that of the rest.
2. Fits do not depend on the unit of the weights, so weights whose largest is not about 1 to six digits are divided by
   a power of two near it (exactly); all others are left alone. What then underflows to 0 counts as 0.
3. Nothing of the data's length is copied where the weights already are float64 in native order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array, Float64Array

PIECE = 1 << 20
"""Weights per scan: bounds the temporary memory, and fixes the order in which weights are summed."""

_SAFE = (1e-6, 1e6)
"""Largest weights within this range need no scaling: their products with moments stay within float32, too."""


_ROUNDING = 1e-12
"""Sums of equal weights are as exact as this."""


class RowWeights:
    """Weights of the rows of one source.

    Parameters
    ----------
    sample_weight : array-like (N,) or number
        Finite and >= 0, at least one of them > 0. A number gives every row the same weight.
    n_rows : int
        Rows of the source, zero weights included.

    Attributes
    ----------
    n_kept : int
        Rows with weight > 0.
    total : float
        Sum of the weights as the passes see them.
    scale : float
        What the user's weights were multiplied by, a power of two.
    even : bool
        Whether all weights > 0 are the same.

    Raises
    ------
    InvalidDataError
        If the shape is wrong, a weight is negative, NaN or infinite, or all are zero.
    """

    __slots__ = ("_values", "even", "n_kept", "n_rows", "scale", "total")

    def __init__(self, sample_weight: Any, n_rows: int) -> None:
        values = _as_vector(sample_weight, n_rows)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high < math.inf):
            _raise_first_bad(values)
        if high == 0.0:
            msg = (
                "sample_weight must hold at least one weight > 0; all weights are zero. "
                "Pass sample_weight=None to count every row once"
            )
            raise InvalidDataError(msg)
        self._values = values
        self.n_rows = n_rows
        self.scale = safe_scale(high)
        self.n_kept, self.total = 0, 0.0
        for start in range(0, n_rows, PIECE):
            part = self.read(start, start + PIECE)
            self.n_kept += int(np.count_nonzero(part))
            self.total += float(part.sum())
        self.even = are_even(high * self.scale, self.n_kept, self.total)

    @property
    def plain(self) -> Float64Array | None:
        """The user's own array if passes can read it as it is, else None."""
        values = self._values
        usable = (
            self.scale == 1.0
            and self.n_kept == self.n_rows
            and values.dtype == np.float64
            and values.dtype.isnative
            and values.flags.c_contiguous
            and values.flags.aligned
        )
        return values if usable else None

    def kept(self) -> Array | None:
        """Return the mask (N,) of the rows with weight > 0, or None if all have."""
        if self.n_kept == self.n_rows:
            return None
        mask = np.empty(self.n_rows, dtype=np.bool_)
        for start in range(0, self.n_rows, PIECE):
            part = self.read(start, start + PIECE)
            mask[start : start + part.size] = part > 0.0
        return mask

    def read(self, start: int, stop: int) -> Float64Array:
        """Return the scaled weights of rows start..stop-1, zeros included: (n,) float64, C-contiguous."""
        part: Float64Array = np.require(self._values[start:stop], np.float64, ["C", "A"])
        return part if self.scale == 1.0 else part * self.scale


def safe_scale(high: float) -> float:
    """Return the power of two that brings weights up to `high` into a safe range, 1 where they are in it."""
    return 1.0 if _SAFE[0] <= high <= _SAFE[1] else 2.0 ** -max(math.frexp(high)[1], -1022)


def are_even(high: float, count: int, total: float) -> bool:
    """Whether `count` weights up to `high`, whose sum is `total`, are all the same, but for rounding."""
    return high * count - total <= _ROUNDING * total


class WeightTotals:
    """Number and sum of weights that come in runs of any length: the same bits as `RowWeights` over all of them.

    Parameters
    ----------
    scale : float
        What to multiply them by.

    Attributes
    ----------
    high : float
        Largest weight so far, not scaled.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.high = 0.0
        self._scale = scale
        self._piece = np.empty(PIECE)
        self._filled = 0
        self._row = 0
        self._bad: tuple[int, float] | None = None
        self._n_kept, self._total = 0, 0.0

    def add(self, w: Float64Array) -> None:
        """Add the next weights (n,)."""
        if w.shape[0] and self._bad is None:
            low, high = float(w.min()), float(w.max())
            if low >= 0.0 and high < math.inf:
                self.high = max(self.high, high)
            else:
                at = int(np.argmax(~((w >= 0.0) & (w < math.inf))))
                self._bad = self._row + at, float(w[at])
        self._row += w.shape[0]
        while w.shape[0]:
            n = min(PIECE - self._filled, w.shape[0])
            np.multiply(w[:n], self._scale, out=self._piece[self._filled : self._filled + n])
            self._filled += n
            w = w[n:]
            if self._filled == PIECE:
                self._sum()

    def _sum(self) -> None:
        part = self._piece[: self._filled]
        self._n_kept += int(np.count_nonzero(part))
        self._total += float(part.sum())
        self._filled = 0

    def end(self) -> tuple[int, float]:
        """Return how many weights are > 0, and their sum."""
        self._sum()
        return self._n_kept, self._total

    def check(self, place: Callable[[int], str]) -> None:
        """Refuse weights that are not finite or negative, or all zero.

        Parameters
        ----------
        place : callable
            Row number -> where it is, for the message.

        Raises
        ------
        InvalidDataError
        """
        if self._bad is not None:
            row, value = self._bad
            msg = (
                f"weights must be finite and >= 0; the weight of {place(row)} is {_kind(value)} ({value!r}). "
                "Use 0 to leave a row out"
            )
            raise InvalidDataError(msg)
        if self.high == 0.0:
            msg = "weights must hold at least one weight > 0; all weights are zero. Open the data without weights"
            raise InvalidDataError(msg)


def _kind(value: float) -> str:
    return "NaN" if math.isnan(value) else "negative" if value < 0.0 else "infinite"


def _as_vector(sample_weight: Any, n_rows: int) -> Array:
    """Return the weights as a one-dimensional real array, without a copy where possible."""
    if isinstance(sample_weight, Real) and not isinstance(sample_weight, np.ndarray):
        return np.broadcast_to(np.float64(sample_weight), (n_rows,))
    try:
        values = np.asarray(sample_weight)
        if values.dtype.kind not in "fiub" or values.dtype.itemsize > 8:
            if values.dtype.kind == "c":
                msg = "complex"
                raise TypeError(msg)
            values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        msg = f"sample_weight must hold one real number for each row of X; it could not be converted: {error}"
        raise InvalidDataError(msg) from error
    if values.ndim != 1:
        msg = (
            f"Sample weights must be 1D array or scalar: sample_weight must have shape ({n_rows},), one weight for "
            f"each row of X; got shape {values.shape}"
        )
        raise InvalidDataError(msg)
    if values.shape[0] != n_rows:
        msg = (
            f"sample_weight must have shape ({n_rows},), one weight for each row of X; got shape {values.shape}: "
            "found input variables with inconsistent numbers of samples"
        )
        raise InvalidDataError(msg)
    return values


def _raise_first_bad(values: Array) -> None:
    """Name the first weight that is negative, NaN or infinite."""
    bad = ~((values >= 0.0) & (values < math.inf))
    row = int(np.argmax(bad))
    value = float(values[row])
    msg = (
        f"sample_weight must be finite and >= 0; the weight of row {row} is {_kind(value)} ({value!r}) "
        f"and {int(bad.sum())} of {values.shape[0]} weights are not valid. Use 0 to leave a row out"
    )
    raise InvalidDataError(msg)
