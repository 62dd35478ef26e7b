"""Arrow columns as arrays: which types hold numbers, and how to get at them.

``pyarrow.Array.to_numpy`` imports pandas where that is installed, 45 MB and half a second for nothing; so numbers are
taken from the buffers of the column, without a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgmm.typing import Array

_FLOATS = {"halffloat": np.float16, "float": np.float32, "double": np.float64}


def column_dtype(kind: Any) -> np.dtype[Any] | None:
    """Return float32 or float64, what numbers of an Arrow type become; None if it holds no numbers."""
    import pyarrow as pa

    if pa.types.is_float32(kind):
        return np.dtype(np.float32)
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return np.dtype(np.float64) if any(is_one(kind) for is_one in numeric) else None


def stored_dtype(kind: Any) -> np.dtype[Any]:
    """Return what `column_values` gives for a column of this type of numbers without missing values."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return np.dtype(np.uint8)
    if pa.types.is_decimal(kind):
        return np.dtype(np.float64)
    name = str(kind)
    return np.dtype(_FLOATS.get(name, name))


def column_values(column: Any) -> Array:
    """Return an Arrow column of numbers as an array.

    Parameters
    ----------
    column : pyarrow.Array (n,)
        Of a type that `column_dtype` knows.

    Returns
    -------
    ndarray (n,)
        Of the column's own type, a view of its memory; missing values are NaN, and integers with some are float64.
    """
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    n, first = len(column), column.offset
    if not n:
        return np.empty(0, stored_dtype(column.type))
    validity, data = column.buffers()
    values = _bits(data, first, n) if pa.types.is_boolean(column.type) else None
    if values is None:
        dtype = stored_dtype(column.type)
        values = np.frombuffer(data, dtype, n, first * dtype.itemsize)
    if column.null_count:
        values = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
        values[_bits(validity, first, n) == 0] = np.nan
    return values


def _bits(buffer: Any, first: int, n: int) -> Array:
    """Return bits `first` .. `first + n - 1` of a buffer as 0 and 1, (n,) uint8."""
    begin = first // 8
    packed = np.frombuffer(buffer, np.uint8)[begin : (first + n + 7) // 8]
    return np.unpackbits(packed, bitorder="little")[first - 8 * begin :][:n]
