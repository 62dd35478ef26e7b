"""Results as the command line writes them: named columns as CSV, ``.npy``, Parquet or JSON, by the file's extension."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fastgmm.cli.tables import needs

__all__ = ["WRITERS", "plain", "to_json", "write_csv"]

CHUNK_ROWS = 1 << 14  # rows formatted at a time: the text of a chunk, not of the whole table, is in memory

Columns = Mapping[str, npt.NDArray[Any]]
Writer = Callable[[BinaryIO, Columns], None]


def write_csv(file: BinaryIO, columns: Columns) -> None:
    """Write a header and one line a row; every float in the shortest form that reads back to the same bits.

    Parameters
    ----------
    file : binary file
        Where to write, UTF-8.
    columns : mapping of str to ndarray of shape (n,)
        The columns; all of one length.
    """
    file.write((",".join(_quoted(name) for name in columns) + "\n").encode())
    n_rows = len(next(iter(columns.values())))
    for first in range(0, n_rows, CHUNK_ROWS):
        # tolist() makes Python numbers, whose repr is the shortest exact one.
        texts = [list(map(repr, column[first : first + CHUNK_ROWS].tolist())) for column in columns.values()]
        file.write("".join(",".join(row) + "\n" for row in zip(*texts, strict=True)).encode())


def write_npy(file: BinaryIO, columns: Columns) -> None:
    """Write one array: (n,) of the column's own type for one column, else (n, columns)."""
    arrays = list(columns.values())
    array = arrays[0] if len(arrays) == 1 else np.column_stack(arrays)
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def write_parquet(file: BinaryIO, columns: Columns) -> None:
    """Write a Parquet table; needs pyarrow."""
    pyarrow = needs("pyarrow", "parquet", "writing Parquet")
    parquet = needs("pyarrow.parquet", "parquet", "writing Parquet")
    parquet.write_table(pyarrow.table({name: np.ascontiguousarray(column) for name, column in columns.items()}), file)


def write_json(file: BinaryIO, columns: Columns) -> None:
    """Write one object with a list for each column."""
    file.write(to_json({name: column.tolist() for name, column in columns.items()}).encode())
    file.write(b"\n")


WRITERS: dict[str, Writer] = {
    ".csv": write_csv,
    ".npy": write_npy,
    ".parquet": write_parquet,
    ".json": write_json,
}


def to_json(value: object) -> str:
    """Format as JSON; NaN and infinities, which JSON does not have, become null.

    Parameters
    ----------
    value : object
        Anything `plain` takes.

    Returns
    -------
    str
        JSON text on one line.
    """
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False)


def plain(value: object) -> Any:
    """Turn arrays, NumPy scalars, paths and tuples into what JSON knows.

    Parameters
    ----------
    value : object
        Mappings, sequences, arrays and scalars, nested at will.

    Returns
    -------
    object
        The same as dict, list, str, int, float, bool or None.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    msg = f"cannot write a {type(value).__name__} as JSON"
    raise TypeError(msg)


def _quoted(name: str) -> str:
    """Quote a column name where CSV needs it."""
    return '"' + name.replace('"', '""') + '"' if any(mark in name for mark in ',"\r\n') else name
