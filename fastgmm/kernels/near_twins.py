"""Plain NumPy twins of the micro-kernels in `near.py`; see `twins.py`."""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.twins import Array, by_component, front, rows_of, unpack_components


def square_norms(panels: Array, count: int, n: int, out: Array) -> None:
    """Squared lengths of the rows."""
    x = rows_of(panels, count, n)
    front(out, len(x))[:] = (x * x).sum(axis=1)


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
) -> None:
    """out[c] = log_norm[c] - |scale_c * x + shift_c|^2 / 2."""
    x, shift = rows_of(panels, count, n), unpack_components(shifts, k, n, low=False)
    scale = unpack_components(scales, k, n, low=False)
    for c, log_density in enumerate(by_component(out, k, stride, len(x))):
        y = scale[c] * x + shift[c]
        log_density[:] = log_norm.reshape(-1)[c] - 0.5 * (y * y).sum(axis=1)


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
) -> None:
    """out[c] = constant_c + scale_c (x . mean_c - norms / 2)."""
    x, mean = rows_of(panels, count, n), unpack_components(means, k, n, low=False)
    half = 0.5 * front(norms, len(x)).astype(np.float64)
    for c, log_density in enumerate(by_component(out, k, stride, len(x))):
        log_density[:] = constants.reshape(-1)[c] + scales.reshape(-1)[c] * (x @ mean[c] - half)


def square_rows(rows: Array, padded: int, count: int, out: Array) -> None:
    """Squares of the elements."""
    front(out, count, padded)[:] = front(rows, count, padded).astype(np.float64) ** 2
