"""Plain NumPy twins of the micro-kernels in `near.py`, `products.py` and `gram.py`; see `twins.py`."""

from __future__ import annotations

import itertools

import numpy as np

from fastgmm.kernels.layout import Piece
from fastgmm.kernels.softmax_twins import row_tops
from fastgmm.kernels.twins import (
    VECTOR_BYTES,
    Array,
    add_lower,
    by_component,
    front,
    rows_of,
    unpack_components,
    unpack_triangle,
)


def square_norms(panels: Array, count: int, n: int, out: Array) -> None:
    """Minus half of the squared lengths of the rows."""
    x = rows_of(panels, count, n)
    front(out, len(x))[:] = -0.5 * (x * x).sum(axis=1)


def affine_density(
    panels: Array,
    count: int,
    shifts: Array,
    scales: Array,
    log_norm: Array,
    n: int,
    k: int,
    out: Array,
    stride: int,
    tops: Array,
    ahead: Array,
) -> None:
    """out[c] = log_norm[c] - |scale_c * x + shift_c|^2 / 2; tops = the largest."""
    x, shift = rows_of(panels, count, n), unpack_components(shifts, k, n, low=False)
    scale = unpack_components(scales, k, n, low=False)
    for c, log_density in enumerate(by_component(out, k, stride, len(x))):
        y = scale[c] * x + shift[c]
        log_density[:] = log_norm.reshape(-1)[c] - 0.5 * (y * y).sum(axis=1)
    row_tops(out, len(x), k, stride, tops)


def product_density(
    panels: Array,
    count: int,
    means: Array,
    scales: Array,
    constants: Array,
    norms: Array,
    n: int,
    k: int,
    out: Array,
    stride: int,
    tops: Array,
    ahead: Array,
) -> None:
    """out[c] = constant_c + scale_c (x . mean_c + norms); tops = the largest."""
    x, mean = rows_of(panels, count, n), unpack_components(means, k, n, low=False)
    half = front(norms, len(x)).astype(np.float64)
    for c, log_density in enumerate(by_component(out, k, stride, len(x))):
        log_density[:] = constants.reshape(-1)[c] + scales.reshape(-1)[c] * (x @ mean[c] + half)
    row_tops(out, len(x), k, stride, tops)


def square_rows(rows: Array, padded: int, count: int, out: Array) -> None:
    """Squares of the elements."""
    front(out, count, padded)[:] = front(rows, count, padded).astype(np.float64) ** 2


def weighted_sums(resp: Array, rows: Array, count: int, k: int, stride: int, padded: int, out: Array) -> None:
    """out += R X, for all components."""
    r = by_component(resp, k, stride, count).astype(np.float64)
    front(out, k, padded)[:] += r @ front(rows, count, padded)


def shifted_density(
    panels: Array,
    count: int,
    shift: Array,
    factor: Array,
    n: int,
    log_norm: Array,
    out: Array,
    tops: Array,
    before: int,
    ahead: Array,
    share: int,
) -> None:
    """out = log_norm - |W x + shift|^2 / 2; tops = the larger of it and, unless nothing was before, what was there."""
    y = rows_of(panels, count, n) @ unpack_triangle(factor, n).T + front(shift, n)
    value = log_norm.reshape(-1)[0] - 0.5 * (y * y).sum(axis=1)
    front(out, len(y))[:] = value
    front(tops, len(y))[:] = np.fmax(front(tops, len(y)) if before else -np.inf, value)


def extend_rows(rows: Array, roots: Array, count: int, n: int, padded: int, out: Array, length: int) -> None:
    """L times the root of a row's scale, then the row times it, as a period of n numbers."""
    width = VECTOR_BYTES // rows.itemsize
    places = np.arange(n + n // 2 + (0 if n % width == 0 else width - 1)) % n
    factor = front(roots, count)[:, None]
    given = front(out, count, length)
    given[:, :width] = factor
    given[:, width : width + places.size] = factor * front(rows, count, padded)[:, places]


def component_weights(resp: Array, scale: Array, count: int, k: int, stride: int, weights: Array) -> None:
    """Sums of resp * scale over the rows; scale becomes its square root."""
    given = front(scale, count)
    front(weights, k)[:] += front(resp, k, stride)[:, :count].astype(np.float64) @ given.astype(np.float64)
    given[:] = np.sqrt(given)


def product_moments(
    resp: Array,
    rows: Array,
    vectors: Array,
    length: int,
    count: int,
    k: int,
    stride: int,
    row_length: int,
    buffer: Array,
    out: Array,
    step: int,
) -> None:
    """out[c] += sum of resp_c times products of what each piece finds on its left and on its right."""
    width = VECTOR_BYTES // rows.itemsize
    u = front(rows, count, row_length).astype(np.float64)
    weights = front(resp, k, stride)[:, :count].astype(np.float64)
    starts, pieces = vectors[: length + 1].tolist(), vectors[length + 1 :].reshape(-1, len(Piece._fields)).tolist()
    for v in range(length):
        values = np.zeros((count, width))
        for piece in itertools.starmap(Piece, pieces[starts[v] : starts[v + 1]]):
            left, right = (u[:, side + piece.lane : side + width] for side in (piece.left, piece.right))
            values[:, piece.lane :] = left * right
        front(out, k, step)[:, v * width : (v + 1) * width] += weights @ values


def column_panels(rows: Array, count: int, padded: int, step: int, out: Array) -> None:
    """out[j / L, t, j % L] = rows[t, j]."""
    width = VECTOR_BYTES // rows.itemsize
    for panel, j in enumerate(range(0, padded, width)):
        front(out[panel * step :], count, width)[:] = front(rows, count, padded)[:, j : j + width]


def picked_panels(rows: Array, live: Array, count: int, padded: int, step: int, out: Array) -> None:
    """out[j / L, i, j % L] = rows[live[i], j]."""
    picked = front(rows, rows.size // padded, padded)[front(live, count)]
    column_panels(np.ascontiguousarray(picked), count, padded, step, out)


def gram(resp: Array, panels: Array, count: int, n: int, step: int, work: Array, sums: Array, moments: Array) -> None:
    """Sums += sum of r u; moments += sum of r u u'."""
    width = VECTOR_BYTES // panels.itemsize
    blocks = [front(panels[first:], count, width) for first in range(0, -(-n // width) * step, step)]
    u, r = np.hstack(blocks).astype(np.float64), front(resp, count).astype(np.float64)[:, None]
    front(sums, u.shape[1])[:] += (r * u).sum(axis=0)
    add_lower(moments, (r * u).T[:n] @ u, panels.itemsize)
