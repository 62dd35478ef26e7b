"""Tables with named columns: pandas, Polars and PyArrow, each converted in blocks of rows.

Nothing is imported: a table brings its own package, and is recognised by the module of its type. Supporting another
library is one more entry in `_TABLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastgmm.data.streams import StreamRows
from fastgmm.errors import InvalidDataError, InvalidDataTypeError
from fastgmm.typing import Array, FloatArray


class _Kind(NamedTuple):
    """How to ask a kind of table what the reader needs to know.

    Attributes
    ----------
    names : callable
        table -> list of column names, of any type.
    dtypes : callable
        table -> list of NumPy-like names of the column types ("float32", "int64", ...), None for a column that holds no
        numbers.
    rows : callable
        (table, start, stop, dtype) -> array (n, D) of these rows, missing values as NaN.
    """

    names: Callable[[Any], list[Any]]
    dtypes: Callable[[Any], list[str | None]]
    rows: Callable[[Any, int, int, np.dtype[Any]], Array]


def _numeric(name: str) -> str | None:
    """Return the normalised name of a column type if it is one of numbers (``Int64[pyarrow]`` and such included)."""
    name = name.lower().split("[", maxsplit=1)[0].split("(", maxsplit=1)[0]
    return name if name.startswith(("float", "int", "uint", "bool", "double", "half", "decimal")) else None


def _pandas_rows(table: Any, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
    part = table.iloc[start:stop]
    if all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in part.dtypes):
        return np.asarray(part.to_numpy())
    # Nullable columns: NA becomes NaN, which a pass then names.
    return np.asarray(part.to_numpy(dtype=dtype, na_value=np.nan))


def _columns(arrays: list[Array], dtype: np.dtype[Any]) -> Array:
    part: Array = np.empty((len(arrays[0]) if arrays else 0, len(arrays)), dtype)
    for column, values in enumerate(arrays):
        part[:, column] = values
    return part


def _polars_rows(table: Any, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
    part = table.slice(start, stop - start)
    return _columns([part.to_series(i).to_numpy() for i in range(part.width)], dtype)


def _arrow_rows(table: Any, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
    part = table.slice(start, stop - start)
    # RecordBatch columns need to be told that a copy is fine; those of a Table (chunked) never mind.
    return _columns([column.to_numpy(zero_copy_only=False) for column in part.columns], dtype)


def _pandas_dtypes(table: Any) -> list[str | None]:
    # Objects may well be numbers (Decimal, or a table built row by row): conversion decides.
    return ["object" if str(kind) == "object" else _numeric(str(kind)) for kind in table.dtypes]


_ARROW = _Kind(
    names=lambda table: list(table.schema.names),
    dtypes=lambda table: [_numeric(str(field.type)) for field in table.schema],
    rows=_arrow_rows,
)

_TABLES: dict[tuple[str, str], _Kind] = {
    ("pandas", "DataFrame"): _Kind(lambda table: list(table.columns), _pandas_dtypes, _pandas_rows),
    ("polars", "DataFrame"): _Kind(
        names=lambda table: list(table.columns),
        dtypes=lambda table: [_numeric(str(kind)) for kind in table.dtypes],
        rows=_polars_rows,
    ),
    ("pyarrow", "Table"): _ARROW,
    ("pyarrow", "RecordBatch"): _ARROW,
}
"""(package, class) -> how to read it."""


def table_kind(x: Any) -> _Kind | None:
    """Return how to read `x` if it is a table of a known package, else None.

    Raises
    ------
    InvalidDataTypeError
        If it is a lazy table.
    """
    for base in type(x).__mro__:
        package = base.__module__.partition(".")[0]
        kind = _TABLES.get((package, base.__name__))
        if kind is not None:
            return kind
        if (package, base.__name__) == ("polars", "LazyFrame"):
            msg = "X must be a table in memory; got a polars LazyFrame. Call .collect() first"
            raise InvalidDataTypeError(msg)
    return None


def feature_names(x: Any) -> tuple[str, ...] | None:
    """Return the column names of a table, or None for anything without names that are strings.

    Parameters
    ----------
    x : object
        Any data.

    Raises
    ------
    TypeError
        If some names are strings and some are not, as in scikit-learn.
    """
    if type(x) is np.ndarray:
        return None
    if isinstance(x, StreamRows):
        return x.names
    kind = table_kind(x)
    if kind is None:
        return None
    names = kind.names(x)
    types = sorted({type(name).__qualname__ for name in names})
    if len(types) > 1 and "str" in types:
        msg = (
            "Feature names are only supported if all input features have string names, but your input has "
            f"{types} as feature name / column name types. If you want feature names to be stored and validated, you "
            "must convert them all to strings, by using X.columns = X.columns.astype(str) for example. Otherwise you "
            "can remove feature / column names from your input data, or convert them all to a non-string data type."
        )
        raise InvalidDataTypeError(msg)
    return tuple(names) if types == ["str"] else None


class TableReader:
    """Rows of a table, converted when read.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
        Its columns must hold numbers.
    kind : _Kind
        From `table_kind`.
    dtype : numpy.dtype or None
        What to convert to; None takes float32 if all columns are float32 (or float16), else float64.
    what : str
        Name of the argument, for messages.

    Raises
    ------
    InvalidDataError
        Naming the first column that does not hold numbers.
    """

    __slots__ = ("_kind", "_table", "_what", "dtype", "n_features", "n_rows", "names")

    def __init__(self, table: Any, kind: _Kind, dtype: np.dtype[Any] | None, what: str) -> None:
        labels = kind.names(table)
        types = kind.dtypes(table)
        for label, column_type in zip(labels, types, strict=True):
            if column_type is None:
                msg = (
                    f"{what} must hold numbers only; column {label!r} does not. "
                    "Select the numeric columns, or convert this one"
                )
                raise InvalidDataError(msg)
        if dtype is None:
            narrow = bool(types) and all(name in ("float32", "float") for name in types if name is not None)
            dtype = np.dtype(np.float32 if narrow else np.float64)
        self._table, self._kind, self._what = table, kind, what
        self.dtype = dtype
        self.n_rows, self.n_features = int(table.shape[0]), len(labels)
        self.names: tuple[str, ...] | None = tuple(map(str, labels))

    def read(self, start: int, stop: int) -> FloatArray:
        """Return rows start..stop-1."""
        try:
            part: FloatArray = np.require(self._kind.rows(self._table, start, stop, self.dtype), self.dtype, ["C", "A"])
        except (TypeError, ValueError) as error:
            msg = f"{self._what} must hold numbers only: {error}"
            raise InvalidDataError(msg) from error
        return part
