"""Data passes: the only code that sees rows. A slow NumPy version behind the final interface.

Nothing of size N x K is held: rows come in chunks. The fused kernels take this file's place behind the same names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastgmm.density import Density
from fastgmm.errors import InvalidParameterError, NonFiniteDataError
from fastgmm.stats import SufficientStatistics, scatter_shape
from fastgmm.typing import Array, Float64Array, IntArray, RowSource

__all__ = ["Accumulator", "NonFiniteDataError", "accumulate", "assign", "predict", "predict_proba", "score_samples"]

_CHUNK = 4096


def _chunks(rows: RowSource) -> Iterator[tuple[int, Float64Array, Float64Array]]:
    """Yield (first row, rows as float64, weights), finite rows only."""
    for block in rows.blocks(_CHUNK):
        for i in range(0, block.x.shape[0], _CHUNK):
            x = block.x[i : i + _CHUNK].astype(np.float64)
            if not np.isfinite(x).all():
                row, column = (int(v) for v in np.argwhere(~np.isfinite(x))[0])
                at = block.first + i + row
                msg = f"X must be finite; row {at}, column {column} is {x[row, column]}. Remove or impute such rows"
                raise NonFiniteDataError(msg, row=at, column=column)
            w = np.ones(x.shape[0]) if block.weight is None else block.weight[i : i + _CHUNK]
            yield block.first + i, x, w


def _whiten(density: Density, centred: Float64Array, k: int) -> Float64Array:
    if density.kind == "chol":
        return np.asarray(centred @ density.factor[k].T)
    if density.kind == "shared_chol":
        return np.asarray(centred @ density.factor.T)
    if density.kind in ("diag", "scalar"):
        return np.asarray(centred * density.factor[k])
    msg = f"unknown factor kind {density.kind!r}"
    raise InvalidParameterError(msg)


def _evaluate(density: Density, x: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Log-density (n,) and responsibilities (n, K); rows out of reach of all go to the nearest component."""
    with np.errstate(over="ignore", invalid="ignore"):
        y = [_whiten(density, x - density.means[k], k) for k in range(density.n_components)]
        scale = np.maximum(np.max([np.abs(v).max(axis=1) for v in y], axis=0), 1.0)
        near = np.array([((v / scale[:, None]) ** 2).sum(axis=1) for v in y]).T
        log_joint = density.log_norm - 0.5 * np.array([(v**2).sum(axis=1) for v in y]).T
    top = log_joint.max(axis=1)
    lost = ~(top > -np.inf)
    near[:, density.log_norm == -np.inf] = np.inf
    with np.errstate(invalid="ignore"):
        r = np.exp(log_joint - top[:, None])
    r[lost] = np.eye(density.n_components)[near[lost].argmin(axis=1)]
    total = r.sum(axis=1)
    return np.where(lost, -np.inf, top + np.log(total)), r / total[:, None]


class Accumulator:
    """A data source bound to a scatter kind; call it with a density to get statistics."""

    def __init__(self, rows: RowSource, scatter: str, *, n_threads: int | None = None) -> None:
        self.rows, self.scatter, self.n_threads = rows, scatter, n_threads

    def __call__(self, density: Density, *, moments: bool = True) -> SufficientStatistics:
        """Run one pass; without `moments` only log-likelihood, log_map and counts are filled in."""
        n_comp, n_feat = density.means.shape
        s0, s1 = np.zeros(n_comp), np.zeros((n_comp, n_feat))
        s2 = np.zeros(scatter_shape(self.scatter, n_comp, n_feat))
        log_likelihood = log_map = total = 0.0
        for _, x, w in _chunks(self.rows):
            log_density, r = _evaluate(density, x)
            keep = w > 0.0
            log_likelihood += float(w[keep] @ log_density[keep])
            log_map += float(w @ np.log(r.max(axis=1)))
            total += float(w.sum())
            for k in range(n_comp if moments else 0):
                wr, c = w * r[:, k], x - density.means[k]
                s0[k] += wr.sum()
                s1[k] += wr @ c
                if self.scatter == "full":
                    s2[k] += (c * wr[:, None]).T @ c
                elif self.scatter == "pooled":
                    s2 += (c * wr[:, None]).T @ c
                elif self.scatter == "diag":
                    s2[k] += wr @ c**2
                else:
                    s2[k] += wr @ (c**2).sum(axis=1)
        return SufficientStatistics.from_moments(
            self.scatter,
            density.means,
            s0,
            s1,
            s2,
            log_likelihood=log_likelihood,
            log_map=log_map,
            total_weight=total,
            n_rows=self.rows.n_rows,
        )


def accumulate(rows: RowSource, density: Density, scatter: str, *, moments: bool = True) -> SufficientStatistics:
    """Run one pass over `rows`."""
    return Accumulator(rows, scatter)(density, moments=moments)


def assign(rows: RowSource, centers: Array) -> tuple[Float64Array, Float64Array, float]:
    """One k-means step: weights (K,) and means (K, D) of the rows nearest to each center, and the inertia."""
    counts, sums, inertia = np.zeros(len(centers)), np.zeros(centers.shape), 0.0
    for _, x, w in _chunks(rows):
        distance = np.array([((x - c) ** 2).sum(axis=1) for c in centers]).T
        label = distance.argmin(axis=1)
        inertia += float(w @ distance.min(axis=1))
        for k in range(len(centers)):
            mine = label == k
            counts[k] += w[mine].sum()
            sums[k] += w[mine] @ (x[mine] - centers[k])
    return (
        counts,
        centers + np.divide(sums, counts[:, None], out=np.zeros(sums.shape), where=counts[:, None] > 0),
        inertia,
    )


def score_samples(rows: RowSource, density: Density) -> Float64Array:
    """Log-density of every row, (N,), nats."""
    return np.concatenate([_evaluate(density, x)[0] for _, x, _ in _chunks(rows)])


def predict(rows: RowSource, density: Density) -> IntArray:
    """Most probable component of every row, (N,); the first one wins a tie."""
    return np.concatenate([_evaluate(density, x)[1].argmax(axis=1) for _, x, _ in _chunks(rows)]).astype(np.int64)


def predict_proba(rows: RowSource, density: Density) -> Float64Array:
    """Responsibilities, (N, K)."""
    return np.concatenate([_evaluate(density, x)[1] for _, x, _ in _chunks(rows)])
