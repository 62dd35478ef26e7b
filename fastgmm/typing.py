"""Array aliases, and the protocol by which rows reach a data pass.

A pass needs three things of a data set: its shape, its precision, and its rows in order, in C-contiguous blocks. Every
reader (arrays, memory maps, files) is a `RowSource`; nothing above a reader knows where rows come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Float64Array: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


class RowBlock(NamedTuple):
    """A run of consecutive rows.

    Attributes
    ----------
    first : int
        Global index of the first row.
    x : ndarray (n, D), float32 or float64
        The rows: C-contiguous, native byte order, aligned; possibly the user's own memory, so never written to.
    weight : ndarray (n,) float64, or None
        Row weights, finite and >= 0; None where every row counts once.
    """

    first: int
    x: FloatArray
    weight: Float64Array | None


@runtime_checkable
class RowSource(Protocol):
    """Rows that can be read from first to last, again and again.

    Attributes
    ----------
    n_rows, n_features : int
        Shape of the whole.
    dtype : numpy.dtype
        float32 or float64, the same for every block.
    weighted : bool
        Whether blocks carry weights.
    """

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features D."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of every block."""
        ...

    @property
    def weighted(self) -> bool:
        """Whether blocks carry weights."""
        ...

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield blocks in row order that cover all rows once.

        Every block but the last has a multiple of `multiple` rows, so that a pass can lay its own grid over the rows
        independently of how they are stored. An in-memory C array comes as one block without a copy; other layouts
        are copied block by block (at most 16 MB at a time).
        """
        ...
