"""Parameters and moments between NumPy's layouts and the kernels' (`micro.py` defines the latter)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import products
from fastgmm.kernels.micro import BLOCKS
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


def pack_triangles(factors: Float64, dtype: npt.DTypeLike) -> Real:
    """(K, D, D) lower triangles as (K, length): row blocks, column by column."""
    k, d, _ = factors.shape
    out: Real = np.empty((k, sum(q * (first + q) for first, q in row_blocks(d))), dtype)
    for some in pieces(factors):
        _pack_triangles(factors[some], out[some])
    return out


def _pack_triangles(factors: Float64, out: Real) -> None:
    k, d, _ = factors.shape
    offset = 0
    for first, q in row_blocks(d):
        columns = first + q
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


@functools.lru_cache(maxsize=8)
def _moment_places(n: int, size: int) -> npt.NDArray[np.intp]:
    """Where the packed second moments hold those of two features, (n, n)."""
    places, offset = np.empty((n, n), np.intp), 0
    for first, q in row_blocks(n):
        width = padded_width(first + q, size)
        for i in range(first, first + q):
            places[i, : i + 1] = places[: i + 1, i] = offset + np.arange(i + 1)
            offset += width
    return places


def unpack_moments(packed: Float64, n_features: int, size: int) -> Float64:
    """(K, moment_length) as symmetric (K, D, D)."""
    out: Float64 = np.take(packed, _moment_places(n_features, size), axis=1)
    return out


@functools.cache
def product_vectors(n: int, lanes: int) -> npt.NDArray[np.int64]:
    """Row, first column and contents (`products.py`) of the vectors that hold a row's products, (length, 3)."""
    rows = [(n - 1, n)] + [(i, n) for i in range(n - 2, -1, -1) if i > n - 2 - i]
    if n % 2 == 0:
        rows.append((n // 2 - 1, n // 2))  # its own partner: half a row
    vectors = []
    for i, end in rows:
        for j in range(0, end, lanes):
            beyond = min(j + lanes, end) - 1
            vectors.append((i, j, products.OWN if beyond <= i else products.PARTNER if j > i else products.BOTH))
    vectors += [(0, j, products.PLAIN) for j in range(0, n, lanes)]
    return np.array(vectors, np.int64)


@functools.lru_cache(maxsize=8)
def _product_places(n: int, lanes: int) -> npt.NDArray[np.intp]:
    """Where the packed sums hold the n features, and the products of two of them, (1 + n, n)."""
    places = np.empty((1 + n, n), np.intp)
    for v, (i, j, contents) in enumerate(product_vectors(n, lanes).tolist()):
        columns = np.arange(j, min(j + lanes, n))
        where = v * lanes + columns - j
        if contents == products.PLAIN:
            places[0, columns] = where
            continue
        own = columns <= i
        places[1 + i, columns[own]] = places[1 + columns[own], i] = where[own]
        if contents != products.OWN:
            others = n - 1 - columns[~own]
            places[n - 1 - i, others] = places[1 + others, n - 2 - i] = where[~own]
    return places


def unpack_products(packed: Float64, n: int, lanes: int) -> tuple[Float64, Float64]:
    """(K, length L) as first moments (K, D) and symmetric second moments (K, D, D)."""
    both = np.take(packed, _product_places(n, lanes), axis=1)
    return both[:, 0], both[:, 1:]


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
