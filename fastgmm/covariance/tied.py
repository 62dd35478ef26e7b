"""One covariance matrix for all components.

Covariances are (D, D). Right where clusters are copies of one shape in different places, as in linear discriminant
analysis; robust with few rows, because every row informs the one matrix (mclust: EEE).
"""

# ruff: noqa: ARG002 - a family's methods have the protocol's signatures, needed or not
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgmm.covariance import _triangular
from fastgmm.covariance.base import Reference, check_shape, floor_levels
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array, IntArray


class Tied:
    """One shared covariance; see `fastgmm.covariance.base.Family` for the methods' contract."""

    name = "tied"
    factor = "shared_chol"
    scatter = "pooled"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return (D, D)."""
        return (n_features, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Return D (D + 1) / 2."""
        return n_features * (n_features + 1) // 2

    def maximize(
        self, stats: SufficientStatistics, reg_covar: Reference, previous: Float64Array, empty: Array | None
    ) -> Float64Array:
        """Return S / n + reg_covar I with S pooled and n the weight of all components."""
        if empty is not None and bool(empty.all()):
            return previous.copy()
        covariances: Float64Array = stats.scatter / stats.weight.sum()
        covariances.reshape(-1)[:: stats.n_features + 1] += reg_covar
        return covariances

    def factorize(
        self,
        covariances: Float64Array,
        n_components: int,
        n_features: int,
    ) -> tuple[Float64Array, Float64Array]:
        """Return the inverse lower Cholesky factor and its log-determinant, K times."""
        factor, log_det = _triangular.inverse_cholesky(self.name, covariances[None], shared=True)
        return factor[0], np.full(n_components, log_det[0])

    def floor(
        self, covariances: Float64Array, reference_variance: Reference, *, collapsed: Array | None = None
    ) -> tuple[Float64Array, list[int]]:
        """Raise the diagonal by a fraction of the data's variances; K is that of `collapsed`, else unknown and 1."""
        n_components = 1 if collapsed is None else collapsed.shape[0]
        if _triangular.is_definite(covariances) and (collapsed is None or not collapsed.any()):
            return covariances, []
        levels = floor_levels(reference_variance, covariances.shape[0])
        return _triangular.lift(covariances, levels), list(range(n_components))

    def variances(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return the diagonal, (D,)."""
        return covariances.diagonal()

    def dense(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return K copies."""
        return np.array(np.broadcast_to(covariances, (n_components, n_features, n_features)))

    def precisions(self, covariances: Float64Array) -> Float64Array:
        """Return the inverse."""
        result: Float64Array = _triangular.inverse(self.name, covariances[None])[0]
        return result

    def precisions_cholesky(self, covariances: Float64Array) -> Float64Array:
        """Return the transposed inverse Cholesky factor, upper triangular."""
        factor, _ = _triangular.inverse_cholesky(self.name, covariances[None], shared=True)
        return np.ascontiguousarray(factor[0].T)

    def from_precisions(self, precisions: Float64Array) -> Float64Array:
        """Return the inverse of a given precision."""
        _triangular.check_definite(self.name, "precisions", precisions[None], shared=True)
        return self.precisions(precisions)

    def colorize(self, covariances: Float64Array, component: int, z: Float64Array) -> Float64Array:
        """Return z L' with L the Cholesky factor of the shared covariance."""
        lower = _triangular.cholesky(self.name, covariances[None], shared=True)[0]
        result: Float64Array = z @ lower.T
        return result

    def marginal(self, covariances: Float64Array, dims: Sequence[int] | IntArray) -> Float64Array:
        """Return the rows and columns `dims`."""
        index = np.asarray(dims, dtype=np.intp)
        result: Float64Array = covariances[index[:, None], index[None, :]]
        return result

    def check(self, covariances: Float64Array, n_components: int, n_features: int) -> None:
        """Check shape, finiteness, symmetry and definiteness."""
        check_shape(self.name, "covariances", covariances, self.shape(n_components, n_features))
        _triangular.check_definite(self.name, "covariances", covariances[None], shared=True)
