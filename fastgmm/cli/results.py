"""Results as the command line writes them: named columns as CSV, ``.npy``, Parquet or JSON, by the file's extension."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastgmm.data import results
from fastgmm.data.results import Columns, Writer
from fastgmm.typing import Array

__all__ = ["WRITERS", "Collected", "JsonWriter", "plain", "to_json"]


class Collected:
    """Keeps what is written to it, for those who want it as a whole."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Array]] = {}

    def write(self, columns: Columns) -> None:
        """Add rows."""
        for name, column in columns.items():
            self._pieces.setdefault(name, []).append(column)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def columns(self) -> dict[str, Array]:
        """All rows."""
        return {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}


class JsonWriter(Collected):
    """One object with a list for each column; all of it is in memory until it is written."""

    def __init__(self, file: BinaryIO, n_rows: int) -> None:  # noqa: ARG002 - all writers have one signature
        super().__init__()
        self._file = file

    def close(self) -> None:
        """Write the object."""
        lists = {name: column.tolist() for name, column in self.columns.items()}
        self._file.write(to_json(lists).encode() + b"\n")


WRITERS: dict[str, Callable[[BinaryIO, int], Writer]] = {**results.WRITERS, ".json": JsonWriter}
"""End of a file's name -> how to write it."""


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
