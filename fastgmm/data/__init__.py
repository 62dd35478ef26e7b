"""Rows in, blocks out: everything that knows how a user's data are stored.

Read `arrays` first; `tables` adds pandas, Polars and PyArrow, `weights` the row weights. Above this package rows are a
`fastgmm.typing.RowSource` and nothing else.
"""

from __future__ import annotations

from fastgmm.data.arrays import BLOCK_BYTES, ArrayRows, CopiedRows
from fastgmm.data.checks import raise_non_finite
from fastgmm.data.source import as_rows
from fastgmm.data.tables import feature_names
from fastgmm.data.weights import RowWeights

__all__ = ["BLOCK_BYTES", "ArrayRows", "CopiedRows", "RowWeights", "as_rows", "feature_names", "raise_non_finite"]
