"""Plain NumPy twins of the micro-kernels: the formulas, in the kernels' own arguments and layouts.

The functions of `micro.py`, `tile.py` and `small.py` have their twin here under the same name; the tests compare the
two number by number. To understand a kernel, read its twin first: unpack the layout, one or two lines of mathematics,
pack.

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
LOWEST = {8: -1e300, 4: -3e38}  # a log-density at or below counts as none

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


def weighted_sums(resp: Array, rows: Array, count: int, k: int, stride: int, padded: int, out: Array) -> None:
    """out += R X, for all components."""
    r = by_component(resp, k, stride, count).astype(np.float64)
    front(out, k, padded)[:] += r @ front(rows, count, padded)


# -- a tile (tile.py) --------------------------------------------------------------------------------------------------


def copy_rows(source: Array, n: int, padded: int, count: int, total: int, rows: Array) -> None:
    """Rows padded with zeros to the width; the last row again for count <= i < total."""
    out = front(rows, total, padded)
    out[:] = 0.0
    out[:, :n] = front(source, count, n)[np.minimum(np.arange(total), count - 1)]


def transpose(rows: Array, count: int, n: int, padded: int, panels: Array) -> None:
    """Rows to panels."""
    to_panels(front(rows, count, padded)[:, :n], panels)


def _softmax(
    resp: Array,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
    power: float,
) -> None:
    out = by_component(resp, k, stride, count)
    joint = out.astype(np.float64)
    largest = np.fmax.reduce(joint, axis=0, initial=-np.inf)  # NaN counts as no density
    fine = largest > LOWEST[resp.itemsize]
    with np.errstate(invalid="ignore", over="ignore"):
        below = joint - np.where(fine, largest, 0.0)
        alive = below >= cut.reshape(-1)[:k, None]
        r = np.where(alive, np.exp(below), 0.0)
    found.reshape(-1)[0] = alive.sum()
    total = np.where(fine, r.sum(axis=0), 1.0)
    w = front(weight, count)
    usable = np.where(fine, w, 0.0)
    log_density = np.where(fine, largest, 0.0) + np.log(total)
    out[:] = r**power
    front(scale, count)[:] = (usable / total) ** power
    front(logs, count)[:] = np.where(fine, log_density, -np.inf)
    sums.reshape(-1)[:4] += (usable @ log_density, -(usable @ np.log(total)), (~fine & (w > 0.0)).sum(), w.sum())


def softmax(
    resp: Array,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
) -> None:
    """Log-densities l to r = exp(l - max l), 0 where l - max l < cut; scale = weight / sum of r; logs = log sum exp l.

    Sums += (sum of w logs, sum of w log(largest responsibility), rows without a density, sum of w); found = r that are
    not 0.
    """
    _softmax(resp, cut, weight, scale, count, k, stride, logs, sums, found, 1.0)


def softmax_roots(
    resp: Array,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
) -> None:
    """`softmax` that leaves the square roots of r and of scale."""
    _softmax(resp, cut, weight, scale, count, k, stride, logs, sums, found, 0.5)


def centre_rows(rows: Array, centre: Array, padded: int, count: int) -> None:
    """Subtract the centre from every row."""
    front(rows, count, padded)[:] = front(rows, count, padded) - mean_of(centre, padded, padded)


def weigh(values: Array, step: int, resp: Array, count: int, k: int, stride: int, sums: Array) -> None:
    """sums[c] += sum over rows of resp * values; where resp is 0, values may be infinite."""
    r = by_component(resp, k, stride, count).astype(np.float64)
    given = by_component(values, k, step, count) if step else front(values, count)
    value = np.where(r > 0.0, given, 0.0)
    front(sums, k)[:] += (r * value).sum(axis=1)


def normalise(resp: Array, scale: Array, count: int, k: int, stride: int, weights: Array) -> None:
    """Resp *= scale; weights[c] += sum over rows."""
    out = by_component(resp, k, stride, count)
    r = out.astype(np.float64) * front(scale, count)
    out[:] = r
    front(weights, k)[:] += r.sum(axis=1)


def normalise_roots(resp: Array, scale: Array, count: int, k: int, stride: int, weights: Array) -> None:
    """`normalise` of square roots; what it leaves are none."""
    out = by_component(resp, k, stride, count)
    r = (out.astype(np.float64) * front(scale, count)) ** 2
    out[:] = r
    front(weights, k)[:] += r.sum(axis=1)


def _select(
    resp: Array, scale: Array, count: int, live: Array, values: Array, found: Array, weights: Array, power: float
) -> None:
    r = front(resp, count).astype(np.float64) * front(scale, count)
    chosen = np.flatnonzero(r > 0.0)
    live.reshape(-1)[: len(chosen)] = chosen
    values.reshape(-1)[: len(chosen)] = r[chosen]
    found.reshape(-1)[0] = len(chosen)
    weights.reshape(-1)[0] += (r**power).sum()


def select_live(
    resp: Array, scale: Array, count: int, live: Array, values: Array, found: Array, weights: Array
) -> None:
    """List the rows where r = resp * scale > 0, and r there; weights[0] += sum of r."""
    _select(resp, scale, count, live, values, found, weights, 1.0)


def select_live_roots(
    resp: Array, scale: Array, count: int, live: Array, values: Array, found: Array, weights: Array
) -> None:
    """`select_live` of square roots: resp, scale and values hold roots, weights[0] += sum of their squares."""
    _select(resp, scale, count, live, values, found, weights, 2.0)


def largest(resp: Array, count: int, k: int, stride: int, labels: Array) -> None:
    """Component of the largest log-density, the first of equal ones; -1 where none is above -inf."""
    joint = by_component(resp, k, stride, count)
    joint = np.where(np.isnan(joint), -np.inf, joint)
    front(labels, count)[:] = np.where((joint > -np.inf).any(axis=0), joint.argmax(axis=0), -1)


def one_hot(
    resp: Array,
    labels: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    sums: Array,
) -> None:
    """resp[c] = 1 where the label is c, else 0; scale = weight, 0 without a label.

    sums[0] += sum of w times the label's log-density, sums[2] += rows of positive weight without a label.
    """
    out, label, w = by_component(resp, k, stride, count), front(labels, count), front(weight, count)
    labelled = label >= 0
    density = out[np.maximum(label, 0), np.arange(count)].astype(np.float64)
    sums.reshape(-1)[0] += (w * np.where(labelled, density, 0.0)).sum()
    sums.reshape(-1)[2] += (~labelled & (w > 0.0)).sum()
    front(scale, count)[:] = np.where(labelled, w, 0.0)
    out[:] = np.arange(k)[:, None] == label


def write_probabilities(resp: Array, scale: Array, count: int, k: int, stride: int, out: Array) -> None:
    """out[row, c] = resp[c, row] * scale[row]."""
    front(out, count, k)[:] = (by_component(resp, k, stride, count).astype(np.float64) * front(scale, count)).T


def write_probabilities_roots(resp: Array, scale: Array, count: int, k: int, stride: int, out: Array) -> None:
    """`write_probabilities` from square roots."""
    front(out, count, k)[:] = (by_component(resp, k, stride, count).astype(np.float64) * front(scale, count)).T ** 2


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


def make_density(d: int) -> Callable[[Array, int, Array, Array, Array, Array], None]:
    """Twin for `d` features: out = log_norm - |W (x - mean)|^2 / 2, W stored row by row."""

    def density(columns: Array, count: int, mean: Array, factor: Array, log_norm: Array, out: Array) -> None:
        w = np.zeros((d, d))
        w[np.tril_indices(d)] = front(factor, d * (d + 1) // 2)
        y = (_columns(columns, d, count) - mean_of(mean, d, d)) @ w.T
        front(out, count)[:] = log_norm.reshape(-1)[0] - 0.5 * (y * y).sum(axis=1)

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
