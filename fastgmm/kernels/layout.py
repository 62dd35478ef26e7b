"""Parameters and moments between NumPy's layouts and the kernels' (`micro.py` defines the latter)."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgmm.kernels.micro import BLOCKS, V
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.pieces import pieces

Float64 = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating[Any]]


@functools.cache
def row_blocks(n: int) -> tuple[tuple[int, int], ...]:
    """(first, q) for rows 0..n-1 in blocks of 8, then of 4, 2 and 1 rows."""
    blocks, first = [], 0
    while first < n:
        q = next(q for q in BLOCKS if first + q <= n)
        blocks.append((first, q))
        first += q
    return tuple(blocks)


def padded_width(n_features: int, size: int) -> int:
    """`n_features` rounded up to whole vectors of elements of `size` bytes."""
    lanes = VECTOR_BYTES // size
    return -(-n_features // lanes) * lanes


def split(values: Float64, dtype: npt.DTypeLike, width: int) -> Real:
    """(..., n) as (..., 2, width): a high part in `dtype` and the low part that it leaves, padded with zeros."""
    n = values.shape[-1]
    out: Real = np.zeros((*values.shape[:-1], 2, width), dtype)
    out[..., 0, :n] = values
    if out.dtype != np.float64:
        out[..., 1, :n] = values - out[..., 0, :n]
    return out


def triangle_length(n: int) -> int:
    """Numbers in one packed triangle of n rows."""
    return sum(q * (first + q) for first, q in row_blocks(n))


def pack_triangles(factors: Float64, dtype: npt.DTypeLike) -> Real:
    """(K, D, D) lower triangles as (K, length): row blocks, column by column."""
    k, d, _ = factors.shape
    out: Real = np.empty((k, triangle_length(d)), dtype)
    for some in pieces(factors):
        pack_blocks(factors[some], out[some])
    return out


def pack_blocks(factors: Float64, out: Real, start: int = 0) -> None:
    """Pack the row blocks of triangles (K, D, D) that begin at row `start` or later."""
    k, d, _ = factors.shape
    offset = 0
    for first, q in row_blocks(d):
        columns = first + q
        if first >= start:
            block = factors[:, first:columns, :columns].transpose(0, 2, 1)
            out[:, offset : offset + q * columns].reshape(k, columns, q)[:] = block
        offset += q * columns


def pack_components(values: Float64, dtype: npt.DTypeLike) -> Real:
    """(K, D) as blocks of q components, feature by feature; a low part of the same length follows (0 in float64)."""
    k, d = values.shape
    high = values.astype(dtype)
    low = values - high
    out: Real = np.empty((2, k * d), dtype)
    for first, q in row_blocks(k):
        place = slice(first * d, (first + q) * d)
        out[0, place] = high[first : first + q].T.ravel()
        out[1, place] = low[first : first + q].T.ravel()
    return out


def moment_length(n_features: int, size: int) -> int:
    """Numbers in one component's packed second moments."""
    return sum(q * padded_width(first + q, size) for first, q in row_blocks(n_features))


@functools.cache
def moment_rows(n: int, size: int) -> tuple[int, ...]:
    """Where the rows of one component's packed second moments begin."""
    widths = [padded_width(first + q, size) for first, q in row_blocks(n) for _ in range(q)]
    return (0, *itertools.accumulate(widths[:-1]))


@functools.lru_cache(maxsize=8)
def _moment_places(n: int, size: int) -> npt.NDArray[np.intp]:
    """Where the packed second moments hold those of two features, (n, n)."""
    places = np.empty((n, n), np.intp)
    for i, place in enumerate(moment_rows(n, size)):
        places[i, : i + 1] = places[: i + 1, i] = place + np.arange(i + 1)
    return places


def unpack_moments(packed: Float64, n_features: int, size: int) -> Float64:
    """(K, moment_length) as symmetric (K, D, D)."""
    out: Float64 = np.take(packed, _moment_places(n_features, size), axis=1)
    return out


def features_begin(n: int, lanes: int) -> int:
    """The number of the first feature after a row's products (`products.py`)."""
    products = n * (n + 1) // 2
    return products if n % lanes else -(-products // lanes) * lanes


def product_count(n: int, lanes: int) -> int:
    """Vectors that hold a row's products and features (`products.py`)."""
    return -(-(features_begin(n, lanes) + n) // lanes)


class Piece(NamedTuple):
    """Lanes of a vector of products that lie on one diagonal: four numbers, in the order in which the kernel has them.

    A piece goes on to the vector's end; the next one, which begins at a later lane, is written over it.
    """

    column: int  # of the vector, in its group of V
    left: int  # the element of an extended row at which its left sides begin, as if they filled the vector
    right: int  # the same for its right sides; 0, where an extended row holds L roots, for the features
    lane: int  # its first lane


@functools.cache
def product_vectors(n: int, lanes: int) -> npt.NDArray[np.int64]:
    """The pieces of the vectors of products (`products.py`), for the kernel.

    First, for each vector and for the end, the number of its first piece; then the pieces, each as a `Piece`.

    For example three features in vectors of eight lanes: two vectors hold the six products and the features, and an
    extended row is the root of the row's scale eight times, then u0 u1 u2 u0 u1 u2 ... (all times that root)::

        lane           0     1     2     3     4     5     6     7
        vector 0    u0 u0 u1 u1 u2 u2 u0 u1 u1 u2 u2 u0 u0    u1
        vector 1    u2

    Vector 0 is three pieces, whose left sides are the row from its element 8 on: Piece(0, 8, 8, 0), whose right sides
    are the same, Piece(0, 8, 9, 3), whose right sides lie one element later, and Piece(0, 8, 0, 6), the features, whose
    right sides are roots. Vector 1 is Piece(1, 10, 0, 0); u2 is element 10. What its other lanes hold nobody reads. The
    result begins with the numbers of the first pieces of vector 0 and of vector 1, and of the piece after the last:

    >>> product_vectors(3, 8).tolist()
    [0, 3, 4, 0, 8, 8, 0, 0, 8, 9, 3, 0, 8, 0, 6, 1, 10, 0, 0]
    """
    segments = [(s * n, lanes + s) for s in range((n + 2) // 2)]  # first product, offset on the right side
    segments.append((features_begin(n, lanes), 0))
    starts: list[int] = [0]
    found: list[Piece] = []
    for v in range(product_count(n, lanes)):
        begin, end = v * lanes, (v + 1) * lanes
        column = begin % n
        for (first, offset), (last, _) in zip(segments, [*segments[1:], (end, 0)], strict=True):
            if first < end and (last > begin or offset == 0):
                right = offset + column if offset else 0
                found.append(Piece(v % V, lanes + column, right, max(first - begin, 0)))
        starts.append(len(found))
    return np.array([*starts, *itertools.chain.from_iterable(found)], np.int64)


@functools.cache
def _product_places(n: int, lanes: int) -> tuple[Any, Any]:
    """Numbers of the features and, (n, n), of the products of two."""
    products = np.arange(n * (n + 1) // 2)
    s, j = np.divmod(products, n)
    places = np.zeros((n, n), np.intp)
    places[j, (j + s) % n] = places[(j + s) % n, j] = products
    features = features_begin(n, lanes) + np.arange(n)
    return features[np.argsort(features % n)], places


def unpack_products(packed: Float64, n: int, lanes: int) -> tuple[Float64, Float64]:
    """(K, length L) as first moments (K, D) and symmetric second moments (K, D, D)."""
    features, places = _product_places(n, lanes)
    return np.ascontiguousarray(packed[:, features]), np.ascontiguousarray(packed[:, places])


@functools.cache
def _triangle(n: int) -> tuple[Any, Any, Any]:
    rows, columns = np.tril_indices(n)
    places = np.zeros((n, n), np.intp)
    places[rows, columns] = np.arange(rows.size)
    return rows, columns, np.maximum(places, places.T)


def pack_small(factors: Float64, dtype: npt.DTypeLike) -> Real:
    """(K, D, D) lower triangles as (K, D (D + 1) / 2), row by row."""
    rows, columns, _ = _triangle(factors.shape[1])
    return np.ascontiguousarray(factors[:, rows, columns], dtype)


def unpack_small(packed: Float64, n_features: int) -> Float64:
    """(K, D (D + 1) / 2), row by row, as symmetric (K, D, D)."""
    return np.ascontiguousarray(packed[:, _triangle(n_features)[2]])
