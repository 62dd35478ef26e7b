"""Plain NumPy twins of the micro-kernels: the formulas, in the kernels' own arguments and layouts.

The functions of `micro.py` and `small.py` have their twin here under the same name, those of `tile.py`, `entry.py`
and `normalise.py` in `tile_twins.py`, those of `softmax.py` in `softmax_twins.py`, those of `near_small.py` in
`small_twins.py`, the others in `near_twins.py`; the tests compare the two number by number. To understand a kernel,
read its twin first: unpack the layout, one or two lines of mathematics, pack.

* Everything is computed in float64, whatever the element type; results are rounded when they are written.
* Results go into the arrays that are passed, from their first element on, as the kernels do it. Arrays may be longer.
* The centred panel that some kernels leave in their scratch array `work` is no result, so twins do not write it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# The layouts' constants, written down a second time so that this file needs NumPy alone; a test compares them.
VECTOR_BYTES = 64
V = 3
TILE = 192
BLOCKS = (8, 4, 2, 1)

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


# -- layouts -----------------------------------------------------------------------------------------------------------


def lanes(array: Array) -> int:
    """Elements of a vector."""
    return VECTOR_BYTES // array.itemsize


def row_blocks(n: int) -> Iterator[tuple[int, int]]:
    """Yield (first, q): rows 0..n-1 in blocks of 8 and, for the rest, of 4, 2 and 1 rows."""
    first = 0
    for q in BLOCKS:
        while n - first >= q:
            yield first, q
            first += q


def front(array: Array, *shape: int) -> Array:
    """The first elements of an array in a shape; a view."""
    return array.reshape(-1)[: int(np.prod(shape))].reshape(shape)


def rows_of(panels: Array, count: int, n: int) -> Float64:
    """Panels (count, n, Q) as rows (count * Q, n)."""
    width = V * lanes(panels)
    rows: Float64 = front(panels, count, n, width).astype(np.float64).transpose(0, 2, 1).reshape(count * width, n)
    return rows


def to_panels(rows: Array, panels: Array) -> None:
    """Write rows (a multiple of Q, n) as panels."""
    width = V * lanes(panels)
    count, n = rows.shape[0] // width, rows.shape[1]
    front(panels, count, n, width)[:] = rows.reshape(count, width, n).transpose(0, 2, 1)


def by_component(array: Array, k: int, stride: int, count: int) -> Array:
    """Element (component, row) of an array whose components are `stride` apart; a view (k, count)."""
    return front(array, k, stride)[:, :count]


def mean_of(mean: Array, n: int, width: int) -> Float64:
    """A point (n,) stored as a high part and, in float32, `width` elements later, a low part."""
    flat = mean.reshape(-1)
    high: Float64 = flat[:n].astype(np.float64)
    return high if mean.dtype == np.float64 else high + flat[width : width + n]


def unpack_triangle(factor: Array, n: int) -> Float64:
    """A packed factor as a lower triangle (n, n): row blocks, each stored column by column."""
    lower = np.zeros((n, n))
    flat, offset = factor.reshape(-1), 0
    for first, q in row_blocks(n):
        columns = first + q
        lower[first:columns, :columns] = flat[offset : offset + q * columns].reshape(columns, q).T
        offset += q * columns
    return np.tril(lower)


def unpack_components(values: Array, k: int, n: int, *, low: bool) -> Float64:
    """(k, n) from blocks of components, feature by feature; with `low`, plus the low part that follows in float32."""
    flat = values.reshape(-1)
    out = np.zeros((k, n))
    for part in range(2 if low and values.dtype != np.float64 else 1):
        for first, q in row_blocks(k):
            begin = (part * k + first) * n
            out[first : first + q] += flat[begin : begin + q * n].reshape(n, q).T
    return out


def add_lower(moments: Array, square: Float64, size: int) -> None:
    """Add the lower triangle of (n, n) to packed moments: row blocks of full rows, padded to whole vectors.

    In the columns between a row's diagonal and the end of its block's last vector the kernels leave what their lanes
    compute; so does this: `square` may have more columns than rows.
    """
    n = square.shape[0]
    width, flat, offset = VECTOR_BYTES // size, moments.reshape(-1), 0
    for first, q in row_blocks(n):
        columns = -(-(first + q) // width) * width
        flat[offset : offset + q * columns] += square[first : first + q, :columns].reshape(-1)
        offset += q * columns


# -- densities (micro.py) ----------------------------------------------------------------------------------------------


def triangular_density(
    panels: Array, count: int, mean: Array, factor: Array, work: Array, n: int, log_norm: Array, out: Array
) -> None:
    """out = log_norm - |W (x - mean)|^2 / 2."""
    y = (rows_of(panels, count, n) - mean_of(mean, n, n)) @ unpack_triangle(factor, n).T
    front(out, len(y))[:] = log_norm.reshape(-1)[0] - 0.5 * (y * y).sum(axis=1)


def whiten(panels: Array, count: int, mean: Array, factor: Array, work: Array, n: int, out: Array) -> None:
    """out = W (x - mean)."""
    to_panels((rows_of(panels, count, n) - mean_of(mean, n, n)) @ unpack_triangle(factor, n).T, out)


def diagonal_density(
    panels: Array,
    count: int,
    means: Array,
    scales: Array,
    log_norm: Array,
    n: int,
    k: int,
    out: Array,
    stride: int,
) -> None:
    """out[c] = log_norm[c] - |scale_c * (x - mean_c)|^2 / 2."""
    x, mean = rows_of(panels, count, n), unpack_components(means, k, n, low=True)
    scale = unpack_components(scales, k, n, low=False)
    for c, log_density in enumerate(by_component(out, k, stride, len(x))):
        y = scale[c] * (x - mean[c])
        log_density[:] = log_norm.reshape(-1)[c] - 0.5 * (y * y).sum(axis=1)


def scalar_density(
    panels: Array,
    count: int,
    means: Array,
    scales: Array,
    log_norm: Array,
    n: int,
    k: int,
    out: Array,
    squares: Array,
    stride: int,
) -> None:
    """squares[c] = |x - mean_c|^2; out[c] = log_norm[c] - scale_c^2 squares[c] / 2."""
    x, mean = rows_of(panels, count, n), unpack_components(means, k, n, low=True)
    log_density, distance = by_component(out, k, stride, len(x)), by_component(squares, k, stride, len(x))
    for c in range(k):
        square, scale = ((x - mean[c]) ** 2).sum(axis=1), float(scales.reshape(-1)[c])
        distance[c] = square
        log_density[c] = log_norm.reshape(-1)[c] - 0.5 * scale * (scale * square)


# -- moments (micro.py) ------------------------------------------------------------------------------------------------


def rank_update(z: Array, count: int, n: int, stride: int, moments: Array) -> None:
    """Moments += Z' Z, lower triangle."""
    rows = front(z, count, stride).astype(np.float64)
    add_lower(moments, rows[:, :n].T @ rows, z.itemsize)


def _live(rows: Array, live: Array, count: int, padded: int, mean: Array) -> Float64:
    """Live rows about a mean, (count, padded)."""
    chosen = live.reshape(-1)[:count]
    every: Float64 = front(rows, int(chosen.max(initial=-1)) + 1, padded).astype(np.float64)
    return every[chosen] - mean_of(mean, padded, padded)


def gather(
    rows: Array,
    live: Array,
    roots: Array,
    count: int,
    padded: int,
    mean: Array,
    z: Array,
    stride: int,
    first: Array,
) -> None:
    """z = sqrt(r) (x - mean) of the live rows; first += sum of r (x - mean)."""
    root = roots.reshape(-1)[:count, None].astype(np.float64)
    u = _live(rows, live, count, padded, mean)
    front(z, count, stride)[:, :padded] = root * u
    front(first, padded)[:] += (root**2 * u).sum(axis=0)


def diagonal_moments(
    rows: Array, live: Array, resp: Array, count: int, padded: int, mean: Array, first: Array, second: Array
) -> None:
    """First += sum of r (x - mean), second += sum of r (x - mean)^2 over the live rows."""
    r = resp.reshape(-1)[:count, None].astype(np.float64)
    u = _live(rows, live, count, padded, mean)
    front(first, padded)[:] += (r * u).sum(axis=0)
    front(second, padded)[:] += (r * u**2).sum(axis=0)


# -- one to four features (small.py) -----------------------------------------------------------------------------------


def _columns(columns: Array, d: int, count: int) -> Float64:
    """The tile as rows (count, d); its columns are TILE apart."""
    x: Float64 = by_component(columns, d, TILE, count).T.astype(np.float64)
    return x


def make_deinterleave(d: int) -> Callable[[Array, int, Array], None]:
    """Twin for `d` features: rows to columns."""

    def deinterleave(rows: Array, count: int, out: Array) -> None:
        by_component(out, d, TILE, count)[:] = front(rows, count, d).T

    return deinterleave


def make_density(d: int) -> Callable[..., None]:
    """Twin for `d` features: out[component] = log_norm - |W (x - mean)|^2, W stored row by row; tops: the largest."""

    def density(
        columns: Array,
        count: int,
        means: Array,
        factors: Array,
        log_norm: Array,
        k: int,
        out: Array,
        tops: Array,
        ahead: Array,
        following: Array,
    ) -> None:
        triangle = d * (d + 1) // 2
        for c in range(k):
            w = np.zeros((d, d))
            w[np.tril_indices(d)] = front(factors, k * triangle)[c * triangle : (c + 1) * triangle]
            y = (_columns(columns, d, count) - mean_of(front(means, k * 2 * d)[c * 2 * d :], d, d)) @ w.T
            by_component(out, k, TILE, count)[c] = log_norm.reshape(-1)[c] - (y * y).sum(axis=1)
        front(tops, count)[:] = by_component(out, k, TILE, count).max(axis=0)

    return density


def make_moments(d: int) -> Callable[[Array, Array, Array, int, Array, Array, Array, Array], None]:
    """Twin for `d` features: sums of r, r u and r u u' (lower triangle, row by row) about the mean."""

    def moments(
        columns: Array,
        resp: Array,
        scale: Array,
        count: int,
        mean: Array,
        weight: Array,
        first: Array,
        second: Array,
    ) -> None:
        r = front(resp, count).astype(np.float64) * front(scale, count)
        u = _columns(columns, d, count) - mean_of(mean, d, d)
        weight.reshape(-1)[0] += r.sum()
        front(first, d)[:] += r @ u
        front(second, d * (d + 1) // 2)[:] += ((r[:, None] * u).T @ u)[np.tril_indices(d)]

    return moments
