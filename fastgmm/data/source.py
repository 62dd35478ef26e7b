"""`as_rows`: any data a user may hold, normalised once to a `RowSource`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastgmm.data.arrays import BLOCK_BYTES, ArrayReader, ArrayRows, CopiedRows, Reader, to_float
from fastgmm.data.checks import raise_non_finite
from fastgmm.data.opening import opened
from fastgmm.data.streams import StreamRows
from fastgmm.data.tables import TableReader, table_kind
from fastgmm.data.weights import RowWeights
from fastgmm.errors import InvalidDataError, InvalidDataTypeError, InvalidParameterError
from fastgmm.typing import Array

Rows = ArrayRows | CopiedRows | StreamRows
"""Every kind of source that `as_rows` returns."""

_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


def as_rows(X: Any, sample_weight: Any = None, *, dtype: Any = None, name: str = "X") -> Rows:
    """Normalise data and row weights to a source of rows.

    Parameters
    ----------
    X : array-like (N, D), or a table
        A NumPy array of any layout, byte order and real type, a memory map, nested lists, anything with ``__array__``;
        a pandas or Polars DataFrame, a PyArrow Table or RecordBatch with numeric columns; what `fastgmm.open_rows`
        returns, or a path, which means ``open_rows(path)``. float32 stays float32, all else becomes float64.
    sample_weight : array-like (N,), number or None
        Finite, >= 0, at least one > 0. Rows of weight 0 are left out; weights beyond 1e+-6 are scaled by a power of
        two (``weight_scale``).
    dtype : float32, float64 or None
        Convert to this instead.
    name : str
        What messages call the data.

    Returns
    -------
    ArrayRows, CopiedRows or StreamRows
        A `fastgmm.typing.RowSource` with, in addition, ``total_weight`` (sum of the weights it hands out),
        ``weight_scale``, ``even`` (whether all rows weigh the same), ``names`` and ``n_given``, the rows with those of
        weight 0. It refers to `X`; nothing larger than 16 MiB is copied at any time.

    Raises
    ------
    InvalidDataError
        If there is no row or no column, the array is not two-dimensional, values are complex or text, or weights are
        not valid.
    InvalidDataTypeError
        For sparse and masked arrays, ``numpy.matrix``, and objects that are no numbers.

    Notes
    -----
    NaN and infinities are not looked for here: the first pass over the rows notices them.

    Examples
    --------
    >>> import numpy as np
    >>> rows = as_rows(np.arange(6).reshape(3, 2), sample_weight=[1, 0, 2])
    >>> rows.n_rows, rows.n_features, rows.total_weight
    (2, 2, 3.0)
    """
    if isinstance(X, ArrayRows | CopiedRows) and sample_weight is None and dtype is None:
        return X
    if type(X) is np.ndarray and dtype is None:
        if X.dtype in _FLOATS and X.ndim == 2 and X.size and X.flags.c_contiguous and X.flags.aligned:
            if sample_weight is None:
                return ArrayRows(X, total_weight=float(X.shape[0]))
            return _with_weights(ArrayReader(X, X.dtype, name), RowWeights(sample_weight, X.shape[0]))
        return _weighted(_array_reader(X, None, name), sample_weight)
    target = None if dtype is None else np.dtype(dtype)
    if target is not None and target not in _FLOATS:
        msg = f"dtype must be float32 or float64; got {dtype!r}"
        raise InvalidParameterError(msg)
    if isinstance(X, str | os.PathLike | StreamRows):
        stream: StreamRows = opened(X)
        if target is not None:
            stream = stream.with_dtype(target)
        return stream if sample_weight is None else stream.with_weights(sample_weight)
    kind = table_kind(X)
    if kind is not None:
        reader = TableReader(X, kind, target, name)
        _check_shape((reader.n_rows, reader.n_features), name)
        return _weighted(reader, sample_weight)
    return _weighted(_array_reader(_as_array(X, name), target, name), sample_weight)


def name_bad_value(rows: Rows, *, weightable: bool = True) -> None:
    """Look for a value that is not finite and raise; return if there is none.

    Parameters
    ----------
    rows : row source
    weightable : bool
        Whether rows may be left out by a weight of 0.

    Raises
    ------
    NonFiniteDataError
        Naming row and column as the user counts them, and the file.
    """
    # Rows that are read in blocks know their files; rows on a cluster know what they were read from.
    files = rows if isinstance(rows, StreamRows) else getattr(rows, "files", None)
    if files is None:
        raise_non_finite(rows.originals(), names=rows.names, weightable=weightable)
    else:
        raise_non_finite(
            rows.originals(), names=rows.names, weightable=weightable, place=files.place, is_missing=files.is_missing
        )


def _weighted(reader: Reader, sample_weight: Any) -> Rows:
    return _with_weights(reader, None if sample_weight is None else RowWeights(sample_weight, reader.n_rows))


def _with_weights(reader: Reader, weights: RowWeights | None) -> Rows:
    """Choose the source: one block where that costs no large copy, else blocks."""
    plain = None if weights is None else weights.plain
    if weights is None or plain is not None:
        # Already in order (a view of the whole), or small enough to copy once for all passes.
        if isinstance(reader, ArrayReader) and reader.is_plain:
            return _one_block(reader, weights, plain)
        if reader.n_rows * reader.n_features * reader.dtype.itemsize <= BLOCK_BYTES:
            return _one_block(reader, weights, plain)
        return CopiedRows(reader, weights)
    rows = CopiedRows(reader, weights)
    if rows.n_rows * (rows.n_features + 1) * 8 <= BLOCK_BYTES:
        block = next(rows.blocks(rows.n_rows))
        return ArrayRows(
            block.x,
            block.weight,
            total_weight=rows.total_weight,
            weight_scale=rows.weight_scale,
            original=(reader, weights),
        )
    return rows


def _one_block(reader: Reader, weights: RowWeights | None, plain: Any) -> ArrayRows:
    x = reader.read(0, reader.n_rows)
    total = float(reader.n_rows) if weights is None else weights.total
    return ArrayRows(x, plain, total_weight=total, original=(reader, weights))


def _array_reader(x: Array, dtype: np.dtype[Any] | None, name: str) -> ArrayReader:
    """Check shape and type of an array and wrap it."""
    if x.dtype.kind == "c":
        msg = f"Complex data not supported: {name} must hold real numbers; got dtype {x.dtype}"
        raise InvalidDataError(msg)
    if x.dtype.kind not in "fiubOUS":
        msg = f"{name} must hold real numbers; got dtype {x.dtype}"
        raise InvalidDataTypeError(msg)
    if x.ndim < 2:
        msg = (
            f"Expected 2D array, got {'scalar' if x.ndim == 0 else '1D'} array instead: {name} must have shape "
            f"(n_samples, n_features); got shape {x.shape}. Reshape your data either using array.reshape(-1, 1) if "
            "your data has a single feature or array.reshape(1, -1) if it contains a single sample"
        )
        raise InvalidDataError(msg)
    _check_shape(x.shape, name)
    if x.dtype.kind in "OUS":
        # Text and objects are no numbers until converted; do it once, since no pass could read them fast.
        x = to_float(x, np.dtype(np.float64) if dtype is None else dtype, name)
    if dtype is None:
        dtype = np.dtype(np.float32 if x.dtype.kind == "f" and x.dtype.itemsize == 4 else np.float64)
    return ArrayReader(x, dtype, name)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) > 2:
        msg = f"Found array with dim {len(shape)}: {name} must have shape (n_samples, n_features); got shape {shape}"
        raise InvalidDataError(msg)
    for axis, what in enumerate(("sample(s)", "feature(s)")):
        if shape[axis] == 0:
            msg = f"Found array with 0 {what} (shape={tuple(shape)}) while a minimum of 1 is required: {name} is empty"
            raise InvalidDataError(msg)


def _as_array(X: Any, name: str) -> Array:
    """Return anything that is no table as an array, refusing what would convert to nonsense."""
    if isinstance(X, np.ma.MaskedArray):
        msg = (
            f"{name} must not be a masked array: its mask would be ignored. Fill it, drop the rows concerned, or give "
            "them sample_weight 0"
        )
        raise InvalidDataTypeError(msg)
    if isinstance(X, np.matrix):
        msg = f"{name} must not be a np.matrix: np.matrix is not supported. Convert to a numpy array with np.asarray"
        raise InvalidDataTypeError(msg)
    if type(X).__module__.startswith("scipy.sparse") or (hasattr(X, "toarray") and hasattr(X, "nnz")):
        msg = (
            f"Sparse data was passed for {name}, but dense data is required. Use '.toarray()' to convert to a dense "
            "numpy array"
        )
        raise InvalidDataTypeError(msg)
    if isinstance(X, str | bytes | dict | set) or X is None:
        msg = f"{name} must be an array-like of shape (n_samples, n_features); got {type(X).__name__}"
        raise InvalidDataTypeError(msg)
    try:
        array: Array = np.asarray(X)
    except (TypeError, ValueError) as error:
        msg = f"{name} must be an array-like of shape (n_samples, n_features): {error}"
        raise InvalidDataError(msg) from error
    if array.ndim == 0 and array.dtype.kind == "O":  # NumPy made nothing of it
        msg = f"{name} must be an array-like of shape (n_samples, n_features); got {type(X).__name__}"
        if callable(X) or (isinstance(X, Iterable) and not isinstance(X, np.ndarray)):
            msg += ". Pass a function that returns an iterator over blocks of rows to fastgmm.open_rows"
        raise InvalidDataTypeError(msg)
    return array
