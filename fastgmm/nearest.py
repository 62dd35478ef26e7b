"""The component of a row so far out that all densities underflow: the one at the smallest scaled distance."""

from __future__ import annotations

import numpy as np

from fastgmm.density import Density
from fastgmm.typing import Float64Array, IntArray


def nearest(density: Density, x: Float64Array) -> IntArray:
    """Component at the smallest scaled distance, for rows (n, D) whose densities all underflow."""
    best = np.full(x.shape[0], np.inf)
    label = np.zeros(x.shape[0], np.int64)
    for k in np.flatnonzero(density.log_norm > -np.inf):
        u = x - density.means[k]
        size = np.maximum(np.abs(u).max(axis=1), np.finfo(float).tiny)
        u /= size[:, None]
        factor = density.factor if density.kind == "shared_chol" else density.factor[k]
        y = u @ factor.T if factor.ndim == 2 else u * factor
        with np.errstate(divide="ignore"):
            distance = np.log(size) + 0.5 * np.log((y * y).sum(axis=1))  # the distance itself may overflow
        label[distance < best] = k
        best = np.minimum(best, distance)
    return label
