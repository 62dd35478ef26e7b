"""Sufficient statistics of rows whose memberships are known already: labels, or responsibilities.

The rows of one component alone are a pass with one component, so the same kernels do the work, in the same order for
any number of threads; the results are put side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fastgmm import passes
from fastgmm.covariance import Family
from fastgmm.data import ArrayRows
from fastgmm.density import Density
from fastgmm.pieces import pieces
from fastgmm.stats import SufficientStatistics, scatter_shape
from fastgmm.typing import Array, Float64Array, FloatArray, IntArray, RowBlock

PIECE_BYTES = 1 << 21
"""Rows are sorted by component in pieces of this size."""

ROWS_PER_PIECE = 1024
"""But of at least this many rows for each component, so that the passes are worth their calls."""

Part = tuple[int, FloatArray, Float64Array | None]
"""Component, its rows, their weights."""


def by_label(blocks: Iterable[RowBlock], labels: IntArray, n_components: int) -> Iterator[Part]:
    """Yield the rows of each component, piece by piece."""
    for first, x, weight in _pieces(blocks, n_components):
        mine = labels[first : first + x.shape[0]]
        for k in range(n_components):
            index = np.flatnonzero(mine == k)
            if index.size:
                yield k, x[index], None if weight is None else weight[index]


def by_responsibility(blocks: Iterable[RowBlock], responsibilities: Array, n_components: int) -> Iterator[Part]:
    """Yield all rows for each component, weighted by the responsibilities (N, K); each row's are scaled to sum to 1."""
    for first, x, weight in _pieces(blocks, n_components):
        mine = responsibilities[first : first + x.shape[0]].astype(np.float64)
        mine *= ((1.0 if weight is None else weight) / mine.sum(axis=1))[:, None]
        for k in range(n_components):
            yield k, x, np.ascontiguousarray(mine[:, k])


def piece_rows(row_bytes: int, n_components: int) -> int:
    """Return the rows of a piece. Blocks of a multiple of it give the same sums however many there are."""
    return max(PIECE_BYTES // row_bytes, ROWS_PER_PIECE * n_components)


def _pieces(blocks: Iterable[RowBlock], n_components: int) -> Iterator[RowBlock]:
    for first, x, weight in blocks:
        size = piece_rows(x.itemsize * x.shape[1], n_components)
        for start in range(0, x.shape[0], size):
            stop = start + size
            yield RowBlock(first + start, x[start:stop], None if weight is None else weight[start:stop])


def collect(parts: Iterable[Part], n_components: int, n_features: int, family: Family) -> SufficientStatistics:
    """Fold parts into the statistics of all components; one without rows has weight 0 and mean 0.

    Parameters
    ----------
    parts : iterable of (component, rows, weights)
    n_components, n_features : int
        K and D.
    family : Family
        Decides what second moments are taken.
    """
    found: list[SufficientStatistics | None] = [None] * n_components
    total_weight, n_rows = 0.0, 0
    for k, x, weight in parts:
        # About the first row: inside the cloud, so nothing cancels even far from the origin.
        density = _point(family.factor, x[:1].astype(np.float64))
        stats = passes.accumulate(ArrayRows(x, weight), density, family.scatter)
        total_weight += stats.total_weight
        n_rows += stats.n_rows
        before = found[k]
        found[k] = stats if before is None else before.merge(stats)
    weight, mean = np.zeros(n_components), np.zeros((n_components, n_features))
    scatter = np.zeros(scatter_shape(family.scatter, n_components, n_features))
    for k, single in enumerate(found):
        if single is None:
            continue
        weight[k], mean[k] = single.weight[0], single.mean[0]
        if family.scatter == "pooled":
            scatter += single.scatter
        else:
            scatter[k] = single.scatter[0]
        found[k] = None  # a second set of covariances is not kept longer than needed
    return SufficientStatistics(
        family.scatter,
        weight,
        mean,
        scatter,
        0.0,
        0.0,
        total_weight,
        n_rows,
    )


def _point(kind: str, center: Float64Array) -> Density:
    """Return a density of one component; responsibilities are then 1, whatever its spread."""
    n_features = center.shape[1]
    shapes: dict[str, tuple[int, ...]] = {
        "chol": (1, n_features, n_features),
        "shared_chol": (n_features, n_features),
        "diag": (1, n_features),
        "scalar": (1,),
    }
    shape = shapes[kind]
    factor = np.ones(shape)
    if shape[-2:] == (n_features, n_features):
        factor *= np.eye(n_features)
    return Density(kind, center, factor, np.zeros(1), np.zeros(1))


def lend(stats: SufficientStatistics, n_rows: Array) -> SufficientStatistics:
    """Let components of too few rows borrow the missing ones from the covariance within all components.

    Parameters
    ----------
    stats : SufficientStatistics
    n_rows : ndarray (K,)
        How many rows each component has. Below D + 1 its covariance would be singular: a start that leads straight
        into a collapse.

    Notes
    -----
    C_k = S_k / n_k becomes (n_k C_k + m_k P) / (n_k + m_k) with P = sum_j S_j / sum_j n_j and
    m_k = max(0, D + 1 - n_k), n in rows. Where the components share one covariance, nothing changes.
    """
    missing = np.maximum(0.0, stats.n_features + 1.0 - n_rows)
    if stats.kind == "pooled" or not missing.any():
        return stats
    pooled = stats.scatter.sum(axis=0) / stats.weight.sum()
    share = (missing / (n_rows + missing)).reshape((-1,) + (1,) * (stats.scatter.ndim - 1))
    weight = stats.weight.reshape(share.shape)
    scatter = np.empty(stats.scatter.shape)
    for some in pieces(scatter):
        scatter[some] = (1.0 - share[some]) * stats.scatter[some] + share[some] * weight[some] * pooled
    return SufficientStatistics(
        stats.kind,
        stats.weight.copy(),
        stats.mean.copy(),
        scatter,
        stats.log_likelihood,
        stats.log_map,
        stats.total_weight,
        stats.n_rows,
    )
