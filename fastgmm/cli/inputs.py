"""From the words of a command line to rows, weights and names: which reader, which columns, and are they numbers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fastgmm.cli.csvfile import CsvTable
from fastgmm.cli.tables import (
    NpyTable,
    ParquetTable,
    Table,
    choose_columns,
    describe_columns,
    first_non_finite,
    label,
)
from fastgmm.errors import InvalidDataError
from fastgmm.typing import FloatArray

__all__ = ["READERS", "Data", "open_table", "read_data"]

READERS: Final[dict[str, Callable[[Path], Table]]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".txt": CsvTable,
    ".dat": CsvTable,
    ".npy": NpyTable,
    ".parquet": ParquetTable,
    ".pq": ParquetTable,
}
STANDARD_INPUT: Final = "-"


@dataclass(frozen=True)
class Data:
    """Rows ready for a fit.

    Attributes
    ----------
    x : ndarray of shape (n, D)
        Finite, float32 or float64; may be a memory map.
    weights : ndarray of shape (n,) or None
        Row weights, finite.
    names : tuple of str, or None
        Names of the D columns where the file has names.
    source : str
        What messages call the file.
    """

    x: FloatArray
    weights: FloatArray | None
    names: tuple[str, ...] | None
    source: str


def open_table(name: str, header: str = "auto") -> Table:
    """Open a table by the extension of its file.

    Parameters
    ----------
    name : str
        A path, or "-" for CSV on the standard input.
    header : {"auto", "yes", "no"}, default "auto"
        Whether a text file begins with column names.

    Returns
    -------
    Table
        The table; its rows are not read yet.

    Raises
    ------
    InvalidDataError
        If the extension is unknown, or the file is not what its extension says.
    OSError
        If it cannot be read.
    """
    if name == STANDARD_INPUT:
        return CsvTable(None, header)
    path = Path(name)
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if reader is None:
        msg = f"{name}: cannot tell its format from the name; expected one that ends in {', '.join(READERS)}."
        raise InvalidDataError(msg)
    return CsvTable(path, header) if reader is CsvTable else reader(path)


def read_data(
    name: str,
    *,
    columns: Sequence[str] | None = None,
    weights: str | None = None,
    header: str = "auto",
    expected: Sequence[str] | None = None,
    n_expected: int | None = None,
) -> Data:
    """Read the rows of a table, and check that every value is a finite number.

    Parameters
    ----------
    name : str
        A path, or "-".
    columns : sequence of str, optional
        The features. Without it: those that the model was fitted on if the file names them, else all but the weights.
    weights : str, optional
        Column of row weights; or a file with one column, if no column is called so.
    header : {"auto", "yes", "no"}, default "auto"
        Whether a text file begins with column names.
    expected : sequence of str, optional
        Names of the features of the model that will be applied.
    n_expected : int, optional
        Number of features of that model.

    Returns
    -------
    Data
        Rows, weights and names.

    Raises
    ------
    InvalidDataError
        If there are no rows, a column is unknown, a value is no finite number, or the number of features is wrong.
    OSError
        If a file cannot be read.
    """
    table = open_table(name, header)
    weight_column = None
    if weights is not None and (weights in table.names or not Path(weights).exists()):
        weight_column = choose_columns(table, [weights])[0]
    if columns is not None:
        chosen = choose_columns(table, columns)
    elif expected is not None and table.named:
        missing = [feature for feature in expected if feature not in table.names]
        if missing:
            msg = (
                f"{table.source} has no column '{missing[0]}', which the model was fitted on;"
                f" {describe_columns(table)}; name the columns to use with --columns."
            )
            raise InvalidDataError(msg)
        chosen = choose_columns(table, expected)
    else:
        chosen = [j for j in range(len(table.names)) if j != weight_column]
    if weight_column in chosen:
        msg = (
            f"{label(table, weight_column)} of {table.source} cannot be a feature and the weight; leave it out of one."
        )
        raise InvalidDataError(msg)
    if n_expected is not None and len(chosen) != n_expected:
        msg = (
            f"{table.source} gives {len(chosen)} column{'s' * (len(chosen) != 1)}, but the model has {n_expected}"
            f" feature{'s' * (n_expected != 1)};"
            f" {describe_columns(table)}; choose with --columns."
        )
        raise InvalidDataError(msg)
    together = chosen if weight_column is None else [*chosen, weight_column]
    values = _finite(table, together)
    x = values if weight_column is None else values[:, :-1]
    row_weights: FloatArray | None = None
    if weight_column is not None:
        row_weights = np.ascontiguousarray(values[:, -1], dtype=np.float64)
    if weights is not None and weight_column is None:
        row_weights = _weight_file(weights, len(x), table.source)
    return Data(x, row_weights, tuple(table.names[j] for j in chosen) if table.named else None, table.source)


def _finite(table: Table, columns: Sequence[int]) -> FloatArray:
    """Read columns of a table that must have rows, all of finite numbers."""
    values = table.read(columns)
    if not values.size:
        msg = f"{table.source} has no rows of data."
        raise InvalidDataError(msg)
    problem = first_non_finite(table, values, columns)
    if problem is not None:
        raise InvalidDataError(problem)
    return values


def _weight_file(name: str, n_rows: int, source: str) -> FloatArray:
    """Read row weights that have a file of their own."""
    table = open_table(name)
    if len(table.names) != 1:
        msg = f"{name}: expected one column of weights, got {len(table.names)}."
        raise InvalidDataError(msg)
    values = _finite(table, [0])
    if len(values) != n_rows:
        msg = f"{name} has {len(values)} weights, but {source} has {n_rows} rows."
        raise InvalidDataError(msg)
    return np.ascontiguousarray(values[:, 0], dtype=np.float64)
