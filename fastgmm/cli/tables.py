"""Columns by the words of a command line: names, numbers and ranges; and `needs`, for optional packages.

Rows and columns count from 1 here, as in the results; a CSV file adds the line, which is what an editor shows.
"""

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgmm.cli.wording import bad_value
from fastgmm.data import formats
from fastgmm.data.formats import Part
from fastgmm.data.streams import StreamRows
from fastgmm.errors import InvalidDataError
from fastgmm.typing import FloatArray

__all__ = ["choose_columns", "describe_columns", "first_non_finite", "label", "needs", "parse_columns"]

CHECK_ROWS = 1 << 16  # rows of a finiteness check: a block stays in the cache, a memory map stays out of memory


def first_non_finite(rows: StreamRows, values: FloatArray, columns: Sequence[int]) -> str | None:
    """Describe the first value that is NaN, infinite or missing.

    Parameters
    ----------
    rows : StreamRows
        Where the values come from.
    values : ndarray of shape (n, len(columns))
        What was read.
    columns : sequence of int
        The positions read.

    Returns
    -------
    str or None
        A sentence that names file, row, column and value, or None where all values are finite.
    """
    for first in range(0, len(values), CHECK_ROWS):
        block = values[first : first + CHECK_ROWS]
        finite = np.isfinite(block)
        if not finite.all():
            row, column = divmod(int(np.argmin(finite)), block.shape[1])
            part, within = rows.locate(first + row)
            missing = part.is_missing(within, columns[column])
            what = "the value is missing" if missing else f"{block[row, column]} is no number"
            return bad_value(
                part.source, part.place(within), within + 1, first + row + 1, label(part, columns[column]), what
            )
    return None


def label(table: Part, column: int) -> str:
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


def choose_columns(table: Part, wanted: Sequence[str]) -> list[int]:
    """Turn names, numbers (from 1) and ranges of numbers (``2-5``) into positions.

    A name wins over a number, so that a file with the columns "2019" and "2020" can be used.

    Parameters
    ----------
    table : Part
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


def describe_columns(table: Part, most: int = 20) -> str:
    """List the columns for a message, cut where there are very many."""
    if not table.named:
        return f"its {len(table.names)} columns have no names and are numbered from 1"
    shown = ", ".join(table.names[:most])
    return f"its columns are {shown}" + (f" and {len(table.names) - most} more" if len(table.names) > most else "")


def needs(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or say how to install it, as an error of the command's data.

    Raises
    ------
    InvalidDataError
    """
    try:
        return formats.needs(package, extra, purpose)
    except ImportError as error:
        raise InvalidDataError(str(error)) from error


def _is_position(text: str, table: Part) -> bool:
    """Whether `text` is the number of a column, counted from 1."""
    return text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= len(table.names)
