"""From the words of a command line to rows, weights and names: which columns, numbers or not, in memory or not."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fastgmm.cli.tables import (
    choose_columns,
    describe_columns,
    first_non_finite,
    label,
)
from fastgmm.data import StreamRows
from fastgmm.data.formats import CsvPart, Options, Part, open_parts
from fastgmm.data.opening import check_same, choose
from fastgmm.data.weights import WeightTotals
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array, FloatArray

__all__ = ["Data", "available_memory", "open_table", "read_data"]

STANDARD_INPUT: Final = "-"

MEMORY_SHARE: Final = 0.25
"""Data that take more than this share of the available memory are read in blocks in every pass."""


@dataclass(frozen=True)
class Data:
    """Rows ready for a fit.

    Attributes
    ----------
    x : ndarray of shape (n, D), or StreamRows
        Finite, float32 or float64, maybe a memory map; or rows read in blocks, with their weights, not checked yet.
    weights : ndarray of shape (n,) or None
        Row weights, finite; None if `x` has them.
    names : tuple of str, or None
        Names of the D columns where the file has names.
    source : str
        What messages and results call the file, the folder or the pattern.
    """

    x: FloatArray | StreamRows
    weights: FloatArray | None
    names: tuple[str, ...] | None
    source: str

    @property
    def n_rows(self) -> int:
        """Number of rows, those of weight 0 too."""
        return self.x.n_given if isinstance(self.x, StreamRows) else len(self.x)


def open_table(name: str, header: str = "auto") -> list[Part]:
    """Open a table by the end of its name.

    Parameters
    ----------
    name : str
        A path, a folder, a pattern, ``path:/dataset``, or "-" for CSV on the standard input.
    header : {"auto", "yes", "no"}, default "auto"
        Whether a text file begins with column names.

    Returns
    -------
    list of Part
        Files with the same columns; their rows are not read yet.

    Raises
    ------
    InvalidDataError
        If the format is unknown, a file is not what its name says, or a package is missing.
    OSError
        If one cannot be read.
    """
    if name == STANDARD_INPUT:
        return [CsvPart(sys.stdin.buffer.read(), header, "standard input")]
    try:
        parts = open_parts(name, Options(header=header))
    except ImportError as error:
        raise InvalidDataError(str(error)) from error
    check_same(parts)
    return parts


def read_data(
    name: str,
    *,
    columns: Sequence[str] | None = None,
    weights: str | None = None,
    header: str = "auto",
    stream: bool | None = None,
    expected: Sequence[str] | None = None,
    n_expected: int | None = None,
) -> Data:
    """Read the rows of a table and check that every value is a finite number; or prepare to read them in blocks.

    Parameters
    ----------
    name : str
        As in `open_table`.
    columns : sequence of str, optional
        The features. Without it: those that the model was fitted on if the file names them, else all but the weights.
    weights : str, optional
        Column of row weights; or a file with one column, if no column is called so.
    header : {"auto", "yes", "no"}, default "auto"
        Whether a text file begins with column names.
    stream : bool, optional
        Whether to read in blocks. Without it: where the data exceed `MEMORY_SHARE` of the memory, and a line on the
        standard error stream says so.
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
    parts = open_table(name, header)
    table = parts[0]  # its columns are those of all
    whole = table.source if len(parts) == 1 else name
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
    rows = choose(parts, chosen, weight_column)
    names = rows.names
    given = None if weights is None or weight_column is not None else _weight_file(weights)
    if stream if stream is not None else _is_large(rows, name):
        # Threads that wait for work would spin on the core that the reading thread needs. OpenMP reads this when it is
        # loaded, by the first pass; a choice of the user's stays.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        if given is not None:
            _check_length(given, str(weights), rows.n_given, whole)
            rows = rows.with_weights(given)
        return Data(rows, None, names, whole)
    x, w = rows.read_all()
    if not x.size:
        msg = f"{whole} has no rows of data."
        raise InvalidDataError(msg)
    _check_finite(rows, x, chosen)
    if w is not None and weight_column is not None:
        _check_finite(rows, w.reshape(-1, 1), [weight_column])
        totals = WeightTotals()
        totals.add(w)
        totals.check(rows.place)
    if given is not None:
        _check_length(given, str(weights), len(x), whole)
    return Data(x, w if given is None else given, names, whole)


def available_memory() -> int:
    """Return the bytes of memory that are free or can be freed, and no more than this process may use."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError):  # Windows
            free = 1 << 32
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            free = min(free, int(text))
    try:
        import resource
    except ImportError:  # Windows
        return free
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return free if soft == resource.RLIM_INFINITY else min(free, soft)


def _is_large(rows: StreamRows, name: str) -> bool:
    """Whether rows take more than their share of memory; tell the user if so."""
    if name == STANDARD_INPUT:
        return False
    n_bytes = rows.n_bytes
    if n_bytes is None:  # text: a number has about as many characters as bytes
        n_bytes = sum(Path(source).stat().st_size for source in rows.sources)
    memory = available_memory()
    if n_bytes <= MEMORY_SHARE * memory:
        return False
    note = (
        f"{name} takes {n_bytes / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of the {memory / 1e9:.1f} GB of memory:"
        " reading it in blocks (--no-stream reads it into memory)."
    )
    print(note, file=sys.stderr)
    return True


def _check_finite(rows: StreamRows, values: Array, columns: Sequence[int]) -> None:
    problem = first_non_finite(rows, values, columns)
    if problem is not None:
        raise InvalidDataError(problem)


def _check_length(weights: FloatArray, name: str, n_rows: int, source: str) -> None:
    if len(weights) != n_rows:
        msg = f"{name} has {len(weights)} weights, but {source} has {n_rows} rows."
        raise InvalidDataError(msg)


def _weight_file(name: str) -> FloatArray:
    """Read row weights that have a file of their own."""
    parts = open_table(name)
    if len(parts[0].names) != 1:
        msg = f"{name}: expected one column of weights, got {len(parts[0].names)}."
        raise InvalidDataError(msg)
    rows = choose(parts, [0], None)
    values = rows.read_all()[0]
    if not values.size:
        msg = f"{name} has no rows of data."
        raise InvalidDataError(msg)
    _check_finite(rows, values, [0])
    return np.ascontiguousarray(values[:, 0], dtype=np.float64)
