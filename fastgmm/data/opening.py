"""`open_rows`: whatever rows are stored in, as a source that every method takes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastgmm.data.cutting import BLOCK_BYTES, PREFETCH, Selection
from fastgmm.data.formats import HEADERS, Options, Part, open_parts
from fastgmm.data.formats.base import narrowest
from fastgmm.data.formats.chunked import OpenArrayPart
from fastgmm.data.formats.iterables import BlocksPart
from fastgmm.data.streams import StreamRows
from fastgmm.errors import FastgmmWarning, InvalidDataError, InvalidDataTypeError, InvalidParameterError
from fastgmm.validation import check_choice, check_integer

LARGE = 1 << 27
"""Memory that a decoder may take without a warning."""

HEAVY = 1 << 25
"""Memory of a decoder from which blocks are a quarter as large."""

_FLOATS = ("float32", "float64")


def open_rows(
    what: Any,
    *,
    columns: Sequence[str | int] | None = None,
    weights: Any = None,
    dtype: Any = None,
    dataset: str | None = None,
    header: str = "auto",
    block_bytes: int | None = None,
    prefetch: int = PREFETCH,
) -> StreamRows:
    """Open stored rows as a source for `fit`, `score`, `predict` and all other methods that take data.

    Nothing but metadata is read here. Passes read the rows block by block, in a thread of its own, so data may be far
    larger than memory, and results are those of the same rows in an array, bit for bit.

    Parameters
    ----------
    what : str, path, list, iterable or callable
        - A file: ``.npy``; Parquet ``.parquet``, ``.pq``; Arrow IPC ``.feather``, ``.arrow``, ``.arrows``, ``.ipc``;
          HDF5 ``.h5``, ``.hdf5``, ``.hdf``; Zarr ``.zarr``; text ``.csv``, ``.tsv``, ``.txt``, ``.dat``.
        - A folder of such files, a pattern such as ``"part-*.parquet"``, or a list of paths: one after the other, in
          the order of their names, or of the list.
        - ``"file.h5:/name"``: one of several datasets (the same for Zarr).
        - A `zarr.Array` or `h5py.Dataset`.
        - A list, or anything else that can be iterated again and again, of arrays (n, D), record batches or data
          frames; or a function that returns a new iterator of them.
    columns : sequence of str or int, optional
        The features, by name or by position from 0. Without it all columns but the weights.
    weights : str, int or array-like (N,), optional
        Column of row weights, by name or position; or the weights themselves.
    dtype : {"float32", "float64"}, optional
        Convert to this. Without it float32 if all columns are float32, else float64.
    dataset : str, optional
        Name of the array in an HDF5 file or Zarr store with several.
    header : {"auto", "yes", "no"}
        Whether a text file begins with column names; "auto": if its first line holds no number.
    block_bytes : int, optional
        Rows in a block. By default 8 MiB, or 2 MiB where reading takes more than 32 MiB beside. More is better only
        with many threads: a block should hold ten thousand rows for each.
    prefetch : int, default 2
        Blocks that are read ahead; 0 reads in the calling thread.

    Returns
    -------
    StreamRows
        With ``n_rows``, ``n_features``, ``dtype``, ``names``.

    Raises
    ------
    InvalidDataError
        If a file is empty, damaged, not of its format or without numbers, if a column is missing, or if files do not
        have the same columns.
    InvalidDataTypeError
        If `what` can be read only once, such as a generator, or is nothing that has rows.
    InvalidParameterError
        If another argument is not valid.
    ImportError
        Naming the extra to install: ``parquet``, ``hdf5``, ``zarr``.
    OSError
        If a file does not exist or may not be read.

    Notes
    -----
    Peak memory of a pass beyond its statistics: ``(prefetch + 1) * block_bytes`` and what the decoder of the format
    holds, a few MB, for any number of rows.

    Examples
    --------
    >>> import fastgmm, tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rows.npy")
    ...     np.save(path, np.concatenate([rng.normal(-4, 1, (300, 2)), rng.normal(4, 1, (100, 2))]))
    ...     rows = fastgmm.open_rows(path)
    ...     print(rows.n_rows, rows.n_features, rows.dtype)
    ...     fastgmm.GaussianMixture(2, random_state=0).fit(rows).weights_.round(2)
    400 2 float64
    array([0.75, 0.25])
    """
    if dtype is not None:
        dtype = np.dtype(check_choice(np.dtype(dtype).name, "dtype", _FLOATS))
    check_choice(header, "header", HEADERS)
    if block_bytes is not None:
        block_bytes = check_integer(block_bytes, "block_bytes", minimum=1)
    prefetch = check_integer(prefetch, "prefetch", minimum=0)
    parts = _parts(what, Options(dataset, header), dtype)
    by_column = weights if isinstance(weights, str | int) and not isinstance(weights, bool) else None
    weight = None if by_column is None else _position(parts[0], by_column)
    if columns is None:
        chosen = [j for j in range(len(parts[0].names)) if j != weight]
        check_same(parts)
    else:
        if isinstance(columns, str):
            msg = f"columns must be a sequence of names or positions; got {columns!r}. Write columns=[{columns!r}]"
            raise InvalidParameterError(msg)
        chosen = [_position(parts[0], column) for column in columns]
        check_same(parts, [*chosen] if weight is None else [*chosen, weight])
    _check_chosen(parts[0], chosen, weight)
    rows = choose(parts, chosen, weight, dtype, block_bytes=block_bytes, prefetch=prefetch)
    return rows if weights is None or by_column is not None else rows.with_weights(weights)


def choose(
    parts: Sequence[Part],
    columns: Sequence[int],
    weight: int | None,
    dtype: np.dtype[Any] | None = None,
    *,
    block_bytes: int | None = None,
    prefetch: int = PREFETCH,
) -> StreamRows:
    """Return the rows of parts with these columns, by position.

    Raises
    ------
    InvalidDataError
        If one of them holds no numbers.
    """
    types = [part.dtype(columns) for part in parts]
    if weight is not None:
        for part in parts:
            part.dtype([weight])
    held = _held_bytes(parts, [*columns] if weight is None else [*columns, weight])
    names = tuple(parts[0].names[j] for j in columns) if parts[0].named else None
    if block_bytes is None:
        block_bytes = BLOCK_BYTES // 4 if held > HEAVY else BLOCK_BYTES
    selection = Selection(tuple(columns), weight, names, dtype or narrowest(types), block_bytes, prefetch)
    return StreamRows(parts, selection)


def _held_bytes(parts: Sequence[Part], columns: Sequence[int]) -> int:
    """Return what reading takes beside the blocks; say so if it is much more than the blocks that are read ahead."""
    part = max(parts, key=lambda one: one.held_bytes(columns))
    held = part.held_bytes(columns)
    if held > LARGE:
        msg = f"{part.source} takes some {held >> 20} MiB of memory to be read, for {part.remedy}"
        warnings.warn(msg, FastgmmWarning, stacklevel=4)
    return held


def opened(what: Any) -> Any:
    """Return `what`, or the rows it is the path of."""
    return open_rows(what) if isinstance(what, str | os.PathLike) else what


def _parts(what: Any, options: Options, dtype: np.dtype[Any] | None) -> list[Part]:
    """Recognise what was given."""
    if isinstance(what, str | os.PathLike):
        return open_parts(what, options)
    if isinstance(what, list | tuple) and what and all(isinstance(one, str | os.PathLike) for one in what):
        return [part for one in what for part in open_parts(one, options)]
    if type(what).__module__.partition(".")[0] in ("zarr", "h5py") and hasattr(what, "shape"):
        return [OpenArrayPart(what, f"the {type(what).__name__}")]
    if isinstance(what, np.ndarray) or hasattr(what, "__dataframe__"):
        return [BlocksPart([what], dtype)]
    if callable(what) or (isinstance(what, Iterable) and not isinstance(what, bytes | dict | set)):
        blocks: Iterable[Any] | Callable[[], Iterable[Any]] = what
        return [BlocksPart(blocks, dtype)]
    msg = f"rows must be a path, a list of paths, arrays, or a function that returns them; got {type(what).__name__}"
    raise InvalidDataTypeError(msg)


def _position(part: Part, column: str | int) -> int:
    """Return the position of a column.

    Raises
    ------
    InvalidDataError
        If there is none, or several of that name.
    """
    if isinstance(column, str):
        if part.names.count(column) == 1 and part.named:
            return part.names.index(column)
        problem = "several columns" if part.named and column in part.names else "no column"
        msg = f"{part.source} has {problem} called {column!r}; {described(part)}."
        raise InvalidDataError(msg)
    position = check_integer(column, "columns", minimum=0)
    if position >= len(part.names):
        msg = f"{part.source} has no column {position}; {described(part)}."
        raise InvalidDataError(msg)
    return position


def described(part: Part, most: int = 20) -> str:
    """List the columns for a message, cut where there are very many."""
    if not part.named:
        return f"its {len(part.names)} columns have no names"
    more = f" and {len(part.names) - most} more" if len(part.names) > most else ""
    return f"its columns are {', '.join(part.names[:most])}{more}"


def _check_chosen(part: Part, chosen: Sequence[int], weight: int | None) -> None:
    if not chosen:
        msg = f"{part.source} gives no features: at least one column is needed beside the weights"
        raise InvalidDataError(msg)
    if len(set(chosen)) < len(chosen):
        msg = f"columns must name each column once; got {[part.names[j] for j in chosen]}"
        raise InvalidParameterError(msg)
    if weight is not None and weight in chosen:
        msg = f"column {part.names[weight]!r} cannot be a feature and the weight; leave it out of one"
        raise InvalidParameterError(msg)


def check_same(parts: Sequence[Part], positions: Sequence[int] | None = None) -> None:
    """Refuse parts whose columns are not those of the first; with `positions`, only these need to agree."""
    first = parts[0]
    for part in parts[1:]:
        if positions is None:
            same = len(part.names) == len(first.names) and (part.names == first.names or not part.named)
        else:
            same = max(positions) < len(part.names) and (
                not part.named or all(part.names[j] == first.names[j] for j in positions)
            )
        if not same:
            msg = (
                f"{part.source} does not have the columns of {first.source}: {described(part)}, but those of the first "
                f"are {', '.join(first.names[:20])}. Give all files the same columns in the same order"
            )
            raise InvalidDataError(msg)
