"""Rows in, blocks out: everything that knows how a user's data are stored.

Read `arrays` first; `tables` adds pandas, Polars and PyArrow, `weights` the row weights. Stored rows: `formats` knows
the files, `cutting` makes blocks of their rows, `pump` reads ahead, `streams` is the source that others see, `opening`
knows what a user may name, `results` writes what comes out. Above this package rows are a `fastgmm.typing.RowSource`
and nothing else.
"""

from __future__ import annotations

from fastgmm.data.arrays import BLOCK_BYTES, ArrayRows, CopiedRows
from fastgmm.data.checks import raise_non_finite
from fastgmm.data.opening import open_rows, opened
from fastgmm.data.results import write_results
from fastgmm.data.source import Rows, as_rows, name_bad_value
from fastgmm.data.streams import StreamRows
from fastgmm.data.tables import feature_names
from fastgmm.data.weights import RowWeights

__all__ = [
    "BLOCK_BYTES",
    "ArrayRows",
    "CopiedRows",
    "RowWeights",
    "Rows",
    "StreamRows",
    "as_rows",
    "feature_names",
    "name_bad_value",
    "open_rows",
    "opened",
    "raise_non_finite",
    "write_results",
]
