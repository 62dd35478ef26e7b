"""Row sources over arrays in memory or on disk.

1. `ArrayRows` is the good case: a C-contiguous array of native float32 or float64 is one block, without a copy.
2. `CopiedRows` is everything else: any layout, byte order or number type, tables, memory maps of any order, rows of
   weight zero. It copies at most `BLOCK_BYTES` at a time, again in every pass.
3. So data up to `BLOCK_BYTES` are copied once instead, and are `ArrayRows` from then on (see `source`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from fastgmm.data.weights import RowWeights, are_even
from fastgmm.errors import InvalidDataError, InvalidDataTypeError
from fastgmm.typing import Array, Float64Array, FloatArray, RowBlock

BLOCK_BYTES = 1 << 24
"""Largest copy of rows at any time: 16 MiB."""


class Reader(Protocol):
    """Random access to the rows of one data set, zero weights included.

    Attributes
    ----------
    n_rows, n_features : int
    dtype : numpy.dtype
        What `read` returns: float32 or float64.
    names : tuple of str, or None
        Names of the columns.
    """

    n_rows: int
    n_features: int
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None

    def read(self, start: int, stop: int) -> FloatArray:
        """Return rows start..stop-1, C-contiguous, native, aligned; a view where possible."""
        ...


class ArrayReader:
    """Rows of a two-dimensional array of any layout, byte order and real number type.

    Parameters
    ----------
    x : ndarray (N, D)
    dtype : numpy.dtype
        float32 or float64: what to convert to.
    what : str
        Name of the argument, for messages.
    """

    __slots__ = ("_what", "_x", "dtype", "n_features", "n_rows", "names")

    def __init__(self, x: Array, dtype: np.dtype[Any], what: str = "X") -> None:
        self._x = x
        self._what = what
        self.dtype = dtype
        self.n_rows, self.n_features = x.shape
        self.names: tuple[str, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether passes can read the array as it is."""
        flags = self._x.flags
        return bool(self._x.dtype == self.dtype and flags.c_contiguous and flags.aligned)

    def read(self, start: int, stop: int) -> FloatArray:
        """Return rows start..stop-1."""
        return to_float(self._x[start:stop], self.dtype, self._what)


def to_float(x: Array, dtype: np.dtype[Any], what: str) -> FloatArray:
    """Return `x` as a C-contiguous, native, aligned float array; not copied if it is one.

    Raises
    ------
    InvalidDataError, InvalidDataTypeError
        If the entries are text or objects that are no numbers.
    """
    try:
        converted: FloatArray = np.require(x, dtype, ["C", "A"])
    except TypeError as error:
        msg = f"{what} must hold real numbers only: {error}"
        raise InvalidDataTypeError(msg) from error
    except (ValueError, OverflowError) as error:
        msg = f"{what} must hold real numbers only: {error}"
        raise InvalidDataError(msg) from error
    return converted


class ArrayRows:
    """Rows of a C-contiguous float array: one block, no copy.

    Parameters
    ----------
    x : ndarray (N, D), float32 or float64
        C-contiguous, native byte order, aligned. Kept, never written to.
    weight : ndarray (N,) float64, or None
        All > 0.
    total_weight : float, optional
        Sum of `weight`, if known.
    weight_scale : float
        What the user's weights were multiplied by.
    original : tuple of (Reader, RowWeights or None), optional
        What the rows were made from, for messages.
    """

    __slots__ = (
        "_original",
        "_weight",
        "_x",
        "dtype",
        "n_features",
        "n_given",
        "n_rows",
        "total_weight",
        "weight_scale",
        "weighted",
    )

    def __init__(
        self,
        x: FloatArray,
        weight: Float64Array | None = None,
        *,
        total_weight: float | None = None,
        weight_scale: float = 1.0,
        original: tuple[Reader, RowWeights | None] | None = None,
    ) -> None:
        self._x = x
        self._weight = weight
        self._original = original
        self.n_rows, self.n_features = x.shape
        self.n_given: int = self.n_rows if original is None else original[0].n_rows
        self.dtype: np.dtype[Any] = x.dtype
        self.weighted = weight is not None
        self.weight_scale = weight_scale
        if total_weight is None:
            total_weight = float(self.n_rows) if weight is None else float(weight.sum())
        self.total_weight = total_weight

    @property
    def even(self) -> bool:
        """Whether all rows weigh the same."""
        return self._weight is None or are_even(float(self._weight.max()), self.n_rows, self.total_weight)

    def blocks(self, multiple: int) -> Iterator[RowBlock]:  # noqa: ARG002 - one block ends where the data end
        """Yield the whole array."""
        yield RowBlock(0, self._x, self._weight)

    def originals(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield the rows in the user's numbering, as `raise_non_finite` wants them."""
        if self._original is None:
            yield from originals(ArrayReader(self._x, self.dtype), None)
        else:
            yield from originals(*self._original)

    def kept(self) -> Array | None:
        """Return which of the user's rows these are, (N,) bool, or None if all."""
        return None if self._original is None or self._original[1] is None else self._original[1].kept()

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns, if the user gave any."""
        return None if self._original is None else self._original[0].names


class CopiedRows:
    """Rows that are converted block by block, at most `BLOCK_BYTES` at a time.

    Parameters
    ----------
    reader : Reader
    weights : RowWeights or None
        Rows of weight 0 are left out, and `n_rows` does not count them.
    """

    __slots__ = (
        "_reader",
        "_weights",
        "dtype",
        "even",
        "n_features",
        "n_given",
        "n_rows",
        "total_weight",
        "weight_scale",
        "weighted",
    )

    def __init__(self, reader: Reader, weights: RowWeights | None) -> None:
        self._reader = reader
        self._weights = weights
        self.n_rows = reader.n_rows if weights is None else weights.n_kept
        self.n_given = reader.n_rows
        self.n_features = reader.n_features
        self.dtype = reader.dtype
        self.weighted = weights is not None
        self.total_weight = float(reader.n_rows) if weights is None else weights.total
        self.weight_scale = 1.0 if weights is None else weights.scale
        self.even = weights is None or weights.even

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns, if the user gave any."""
        return self._reader.names

    def kept(self) -> Array | None:
        """Return which of the user's rows these are, (N,) bool, or None if all."""
        return None if self._weights is None else self._weights.kept()

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield blocks of a multiple of `multiple` rows in order; the last one has the rest."""
        row_bytes = self.n_features * self.dtype.itemsize
        size = max(BLOCK_BYTES // row_bytes // multiple, 1) * multiple
        if self._weights is not None and self._weights.n_kept < self._weights.n_rows:
            yield from self._kept(self._weights, size)
            return
        read_weight: Callable[[int, int], Float64Array] | None = None if self._weights is None else self._weights.read
        for start in range(0, self.n_rows, size):
            stop = min(start + size, self.n_rows)
            weight = None if read_weight is None else read_weight(start, stop)
            yield RowBlock(start, self._reader.read(start, stop), weight)

    def _kept(self, weights: RowWeights, size: int) -> Iterator[RowBlock]:
        """Yield blocks of exactly `size` rows of positive weight, the last one shorter."""
        first, filled = 0, 0
        x = np.empty((min(size, self.n_rows), self.n_features), self.dtype)
        w = np.empty(x.shape[0])
        for start in range(0, weights.n_rows, size):
            stop = min(start + size, weights.n_rows)
            part = weights.read(start, stop)
            kept = np.flatnonzero(part)
            if kept.size == 0:
                continue
            rows = self._reader.read(start, stop)
            used = 0
            while used < kept.size:
                take = kept[used : used + x.shape[0] - filled]
                x[filled : filled + take.size] = rows[take]
                w[filled : filled + take.size] = part[take]
                used += take.size
                filled += take.size
                if filled == x.shape[0]:
                    yield RowBlock(first, x, w)
                    first, filled = first + filled, 0
                    # A new buffer: the consumer may still hold the last one.
                    x = np.empty((min(size, self.n_rows - first), self.n_features), self.dtype)
                    w = np.empty(x.shape[0])

    def originals(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield the rows in the user's numbering, as `raise_non_finite` wants them."""
        yield from originals(self._reader, self._weights)


def originals(reader: Reader, weights: RowWeights | None) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first row, rows) in the user's numbering, rows of weight zero blanked out."""
    size = max(BLOCK_BYTES // (reader.n_features * reader.dtype.itemsize), 1)
    for start in range(0, reader.n_rows, size):
        stop = min(start + size, reader.n_rows)
        rows = reader.read(start, stop)
        if weights is not None:
            rows = np.where(weights.read(start, stop)[:, None] > 0.0, rows, 0.0)
        yield start, rows
