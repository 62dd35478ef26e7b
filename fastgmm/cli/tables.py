"""Tables of numbers as the command line reads them: CSV, ``.npy`` and Parquet behind one small interface.

1. A `Table` knows its column names before it reads a row, so that a wrong ``--columns`` fails at once, and only the
   columns asked for are ever converted: a text column that nobody uses does no harm.
2. Every complaint says which file, which row and which column. Rows count from 1 and without the header, as they do in
   the results; a CSV file adds the line, which is what an editor shows.
3. Optional packages (pyarrow) are imported by the reader that needs them and nowhere else.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastgmm.errors import InvalidDataError
from fastgmm.typing import FloatArray

__all__ = ["NpyTable", "ParquetTable", "Table", "choose_columns", "first_non_finite", "needs", "parse_columns"]

CHECK_ROWS = 1 << 16  # rows of a finiteness check: a block stays in the cache, a memory map stays out of memory


class Table(Protocol):
    """A table whose columns are known and whose rows have not been read yet.

    Attributes
    ----------
    source : str
        What messages call it: the path the user typed, or "standard input".
    names : tuple of str
        One name a column; "1", "2", ... where the file has none.
    named : bool
        Whether the names come from the file.
    """

    source: str
    names: tuple[str, ...]
    named: bool

    def read(self, columns: Sequence[int]) -> FloatArray:
        """Return the columns with these positions, shape (n, len(columns)), float32 or float64."""
        ...

    def where(self, row: int) -> str:
        """Say where row number `row` (from 0) is, in the words of a message."""
        ...


class NpyTable:
    """A ``.npy`` file of real numbers, memory mapped: shape (n, D), or (n,) as one column.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InvalidDataError
        If the file is no ``.npy`` file, holds Python objects, text or complex numbers, or has more than two axes.
    OSError
        If the file cannot be read.
    """

    named = False

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            if path.stat().st_size == 0:
                msg = f"{self.source} is empty: expected a .npy file of shape (rows, columns)."
            else:
                msg = f"{self.source} is not a .npy file of numbers: {_first_sentence(error)}."
            raise InvalidDataError(msg) from error
        if array.dtype.kind not in "biuf":
            msg = f"{self.source} holds values of type {array.dtype}; expected real numbers."
            raise InvalidDataError(msg)
        if array.ndim not in (1, 2):
            msg = f"{self.source} has shape {array.shape}; expected (rows, columns), or (rows,) for one column."
            raise InvalidDataError(msg)
        self._array = array.reshape(-1, 1) if array.ndim == 1 else array
        self.names = tuple(str(j + 1) for j in range(self._array.shape[1]))

    def read(self, columns: Sequence[int]) -> FloatArray:
        """Return the chosen columns; all of them in order come as the memory map itself, without a copy."""
        if list(columns) == list(range(self._array.shape[1])):
            return self._array
        return np.asarray(self._array[:, list(columns)])

    def where(self, row: int) -> str:
        """Say which row it is."""
        return f"row {row + 1}"


class ParquetTable:
    """A Parquet file of numeric columns; needs pyarrow.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InvalidDataError
        If the file is no Parquet file, or pyarrow is missing.
    OSError
        If the file cannot be read.
    """

    named = True

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        pyarrow = needs("pyarrow", "parquet", "reading Parquet")
        parquet = needs("pyarrow.parquet", "parquet", "reading Parquet")
        if not path.stat().st_size:
            msg = f"{self.source} is empty: expected a Parquet file."
            raise InvalidDataError(msg)
        try:
            # Without pre-buffering: with it a file of any size is held in memory as a whole.
            self._file = parquet.ParquetFile(path, pre_buffer=False)
        except pyarrow.ArrowInvalid as error:
            msg = f"{self.source} is not a Parquet file: {_first_sentence(error)}."
            raise InvalidDataError(msg) from error
        # pandas stores an unnamed index as a column of this name; it is no feature.
        self._schema = [field for field in self._file.schema_arrow if not field.name.startswith("__index_level_")]
        self.names = tuple(field.name for field in self._schema)

    def read(self, columns: Sequence[int]) -> FloatArray:
        """Read the chosen columns batch by batch: beyond the result only one batch is in memory."""
        import pyarrow as pa

        fields = [self._schema[j] for j in columns]
        for field in fields:
            kind = field.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                msg = (
                    f"{self.source}, column '{field.name}': holds values of type {kind}, expected numbers;"
                    " choose numeric columns with --columns."
                )
                raise InvalidDataError(msg)
        single = all(pa.types.is_float32(field.type) or pa.types.is_float16(field.type) for field in fields)
        values = np.empty((self._file.metadata.num_rows, len(fields)), np.float32 if single else np.float64)
        first = 0
        try:
            for batch in self._file.iter_batches(columns=[field.name for field in fields]):
                for j, field in enumerate(fields):
                    column = batch.column(batch.schema.get_field_index(field.name))
                    if column.null_count:
                        row = first + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                        msg = f"{self.source}, {self.where(row)}, column '{field.name}': the value is missing; {REMEDY}"
                        raise InvalidDataError(msg)
                    values[first : first + len(column), j] = column.to_numpy(zero_copy_only=False)
                first += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            msg = f"{self.source} is damaged: {_first_sentence(error)}."
            raise InvalidDataError(msg) from error
        return values

    def where(self, row: int) -> str:
        """Say which row it is."""
        return f"row {row + 1}"


REMEDY = "remove the row or fill the value in."


def first_non_finite(table: Table, values: FloatArray, columns: Sequence[int]) -> str | None:
    """Describe the first value that is NaN or infinite.

    Parameters
    ----------
    table : Table
        Where the values come from.
    values : ndarray of shape (n, len(columns))
        What ``table.read(columns)`` returned.
    columns : sequence of int
        The positions read.

    Returns
    -------
    str or None
        A sentence that names file, row, column and value, or None where all values are finite.
    """
    if values.dtype.kind != "f":
        return None
    for first in range(0, len(values), CHECK_ROWS):
        block = values[first : first + CHECK_ROWS]
        finite = np.isfinite(block)
        if not finite.all():
            row, column = divmod(int(np.argmin(finite)), block.shape[1])
            where = table.where(first + row)
            return (
                f"{table.source}, {where}, {label(table, columns[column])}: {block[row, column]} is no number; {REMEDY}"
            )
    return None


def label(table: Table, column: int) -> str:
    """Name a column in a message: quoted where the file names it, by its number where not."""
    return f"column '{table.names[column]}'" if table.named else f"column {table.names[column]}"


def parse_columns(text: str) -> list[str]:
    """Split ``a,b,"c,d"`` as one line of CSV.

    Parameters
    ----------
    text : str
        What the user gave for ``--columns``.

    Returns
    -------
    list of str
        The names, without surrounding blanks; never empty.

    Raises
    ------
    ValueError
        If a name is empty.
    """
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or not all(names):
        msg = f"expected names or numbers of columns separated by commas, got {text!r}"
        raise ValueError(msg)
    return names


def choose_columns(table: Table, wanted: Sequence[str]) -> list[int]:
    """Turn names, numbers (from 1) and ranges of numbers (``2-5``) into positions.

    A name wins over a number, so that a file with the columns "2019" and "2020" can be used.

    Parameters
    ----------
    table : Table
        The table.
    wanted : sequence of str
        Names, numbers and ranges.

    Returns
    -------
    list of int
        Positions from 0, in the order asked for.

    Raises
    ------
    InvalidDataError
        If there is no such column, listing those there are, or if one is chosen twice or bears the name of another.
    """
    chosen: list[int] = []
    for name in wanted:
        low, dash, high = name.partition("-")
        if table.names.count(name) > 1:
            places = ", ".join(str(j + 1) for j, other in enumerate(table.names) if other == name)
            msg = f"{table.source} has several columns called '{name}'; choose one by its number ({places})."
            raise InvalidDataError(msg)
        if name in table.names:
            chosen.append(table.names.index(name))
        elif _is_position(name, table):
            chosen.append(int(name) - 1)
        elif dash and _is_position(low, table) and _is_position(high, table) and int(low) <= int(high):
            chosen.extend(range(int(low) - 1, int(high)))
        else:
            msg = f"{table.source} has no column '{name}'; {describe_columns(table)}."
            raise InvalidDataError(msg)
    for column in chosen:
        if chosen.count(column) > 1:
            msg = f"{label(table, column)} of {table.source} is chosen twice; name it once."
            raise InvalidDataError(msg)
    return chosen


def describe_columns(table: Table, most: int = 20) -> str:
    """List the columns for a message, cut where there are very many."""
    if not table.named:
        return f"its {len(table.names)} columns have no names and are numbered from 1"
    shown = ", ".join(table.names[:most])
    return f"its columns are {shown}" + (f" and {len(table.names) - most} more" if len(table.names) > most else "")


def needs(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    package : str
        The module to import.
    extra : str
        The extra of fastgmm that installs it.
    purpose : str
        What it is needed for, as the start of the message.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    InvalidDataError
        If it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        msg = f"{purpose} needs {package}, which is not installed; run: pip install 'fastgmm[{extra}]'."
        raise InvalidDataError(msg) from error


def _is_position(text: str, table: Table) -> bool:
    """Whether `text` is the number of a column, counted from 1."""
    return text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= len(table.names)


def _first_sentence(error: BaseException) -> str:
    """Cut another library's message to its first line, without the full stop we add."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


Reader = Callable[[Path], Table]
