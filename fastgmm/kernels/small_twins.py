"""Plain NumPy twins of the micro-kernels in `near_small.py`; see `twins.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastgmm.kernels.twins import TILE, Array, Float64, by_component, front, lanes, mean_of

WIDTH = 8


def _about(columns: Array, d: int, count: int, centre: Array) -> Float64:
    """(count, D): rows about the centre."""
    width = lanes(columns)
    rows = by_component(columns, d, TILE, count).astype(np.float64).T
    return np.asarray(rows - mean_of(centre, d, width))


def make_near_density(d: int) -> Callable[..., None]:
    """Twin for `d` features: out[component] = log_norm - |W u + shift|^2 with u = x - c; tops: the largest."""

    def near_density(
        columns: Array,
        count: int,
        centre: Array,
        shifts: Array,
        factors: Array,
        log_norm: Array,
        k: int,
        out: Array,
        tops: Array,
        ahead: Array,
        following: Array,
    ) -> None:
        w = np.zeros((k, d, d))
        rows, places = np.tril_indices(d)
        w[:, rows, places] = front(factors, k, rows.size)
        y = np.einsum("kij,tj->kti", w, _about(columns, d, count, centre)) + front(shifts, k, 1, d)
        by_component(out, k, TILE, count)[:] = log_norm.reshape(-1)[:k, None] - (y * y).sum(axis=2)
        front(tops, count)[:] = by_component(out, k, TILE, count).max(axis=0)

    return near_density


def make_products(d: int) -> Callable[[Array, Array, int, Array, Array], None]:
    """Twin for `d` features: s, s u and the lower triangle of s u u' for every row."""

    def products(columns: Array, scale: Array, count: int, centre: Array, out: Array) -> None:
        u, s = _about(columns, d, count, centre), front(scale, count).astype(np.float64)
        rows, places = np.tril_indices(d)
        moments = np.column_stack([np.ones(count), u, u[:, rows] * u[:, places]]) * s[:, None]
        by_component(out, moments.shape[1], TILE, count)[:] = moments.T

    return products


def make_lane_sums(d: int) -> Callable[[Array, Array, int, int, Array], None]:
    """Twin for `d` features: sums (K, moments, 8) of responsibilities times moments, by row modulo 8."""
    n = 1 + d + d * (d + 1) // 2

    def lane_sums(resp: Array, shared: Array, count: int, k: int, sums: Array) -> None:
        r = by_component(resp, k, TILE, count).astype(np.float64).reshape(k, -1, WIDTH)
        m = by_component(shared, n, TILE, count).astype(np.float64).reshape(n, -1, WIDTH)
        target = sums.reshape(-1).view(np.float64)
        front(target, k, n, WIDTH)[:] += np.einsum("kti,mti->kmi", r, m)

    return lane_sums


def make_fold_lanes(d: int) -> Callable[[Array, int, Array, Array, int, Array], None]:
    """Twin for `d` features: the sums over 8 lanes are added to weights, first and second moments, and set to 0."""
    triangle = d * (d + 1) // 2

    def fold_lanes(sums: Array, k: int, weight: Array, first: Array, padded: int, second: Array) -> None:
        lanes_of = front(sums, k, 1 + d + triangle, WIDTH)
        total = lanes_of.sum(axis=2)
        front(weight, k)[:] += total[:, 0]
        front(first, k, padded)[:, :d] += total[:, 1 : 1 + d]
        front(second, k, triangle)[:] += total[:, 1 + d :]
        lanes_of[:] = 0.0

    return fold_lanes
