"""Work on long arrays in pieces: Python looks for Ctrl-C between two calls of NumPy and not within one.

A model of a hundred full covariances of a thousand features is near a gigabyte, and one addition takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NUMBERS: Final = 1 << 21
"""Numbers of a piece: some milliseconds of work, so that the calls cost nothing, and little enough for caches."""


def pieces(array: npt.NDArray[Any]) -> Iterator[slice]:
    """Yield ranges of the first axis with at most `NUMBERS` numbers, or one index, each."""
    length = array.shape[0]
    size = max(1, NUMBERS * length // max(array.size, 1))
    for first in range(0, length, size):
        yield slice(first, first + size)


def piecewise(function: Callable[..., npt.NDArray[Any]], *arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``function(*arrays)``, of arrays with one first axis, whose result at an index depends on that index only.

    Parameters
    ----------
    function : callable
        Its result has the shape and the dtype of the first array.
    *arrays : ndarray (n, ...)
    """
    first = arrays[0]
    if first.size <= NUMBERS:
        return function(*arrays)
    result = np.empty(first.shape, first.dtype)
    for some in pieces(first):
        result[some] = function(*(array[some] for array in arrays))
    return result
