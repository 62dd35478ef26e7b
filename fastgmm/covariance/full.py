"""A covariance matrix of its own for every component.

Covariances are (K, D, D). Follows clusters of any ellipsoidal shape; needs several times D rows per component
(mclust: VVV).
"""

# ruff: noqa: ARG002 - a family's methods have the protocol's signatures, needed or not
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgmm.covariance import _triangular
from fastgmm.covariance.base import Reference, check_shape, floor_levels
from fastgmm.kernels.divide import divided
from fastgmm.pieces import piecewise
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array, IntArray


class Full:
    """Unconstrained covariances; see `fastgmm.covariance.base.Family` for the methods' contract."""

    name = "full"
    factor = "chol"
    scatter = "full"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return (K, D, D)."""
        return (n_components, n_features, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Return K D (D + 1) / 2."""
        return n_components * n_features * (n_features + 1) // 2

    def maximize(
        self, stats: SufficientStatistics, reg_covar: Reference, previous: Float64Array, empty: Array | None
    ) -> Float64Array:
        """Return S_k / n_k + reg_covar I."""
        weight = stats.weight if empty is None else np.where(empty, 1.0, stats.weight)
        covariances = divided(stats.scatter, weight)
        n_components, n_features = stats.mean.shape
        covariances.reshape(n_components, -1)[:, :: n_features + 1] += reg_covar
        if empty is not None:
            covariances[empty] = previous[empty]
        return covariances

    def factorize(
        self,
        covariances: Float64Array,
        n_components: int,
        n_features: int,
    ) -> tuple[Float64Array, Float64Array]:
        """Return the inverse lower Cholesky factors and the log-determinants of these."""
        return _triangular.inverse_cholesky(self.name, covariances)

    def floor(
        self, covariances: Float64Array, reference_variance: Reference, *, collapsed: Array | None = None
    ) -> tuple[Float64Array, list[int]]:
        """Raise the diagonal of each unusable covariance by a fraction of the data's variances."""
        repaired = [
            k
            for k, matrix in enumerate(covariances)
            if not _triangular.is_definite(matrix) or (collapsed is not None and bool(collapsed[k].any()))
        ]
        if not repaired:
            return covariances, repaired
        levels = floor_levels(reference_variance, covariances.shape[1])
        result = piecewise(np.copy, covariances)
        for k in repaired:
            result[k] = _triangular.lift(covariances[k], levels)
        return result, repaired

    def variances(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return the diagonals, (K, D)."""
        return covariances.diagonal(0, 1, 2)

    def dense(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return a copy."""
        return piecewise(np.copy, covariances)

    def precisions(self, covariances: Float64Array) -> Float64Array:
        """Return the inverses."""
        return _triangular.inverse(self.name, covariances)

    def precisions_cholesky(self, covariances: Float64Array) -> Float64Array:
        """Return the transposed inverse Cholesky factors, upper triangular."""
        factor, _ = _triangular.inverse_cholesky(self.name, covariances)
        return piecewise(lambda lower: np.ascontiguousarray(lower.transpose(0, 2, 1)), factor)

    def from_precisions(self, precisions: Float64Array) -> Float64Array:
        """Return the inverses of given precisions."""
        return _triangular.checked_inverse(self.name, "precisions", precisions)

    def colorize(self, covariances: Float64Array, component: int, z: Float64Array) -> Float64Array:
        """Return z L' with L the Cholesky factor of the component's covariance."""
        lower = _triangular.cholesky(self.name, covariances[component : component + 1])[0]
        result: Float64Array = z @ lower.T
        return result

    def marginal(self, covariances: Float64Array, dims: Sequence[int] | IntArray) -> Float64Array:
        """Return the rows and columns `dims`."""
        index = np.asarray(dims, dtype=np.intp)
        result: Float64Array = covariances[:, index[:, None], index[None, :]]
        return result

    def check(self, covariances: Float64Array, n_components: int, n_features: int) -> None:
        """Check shape, finiteness, symmetry and definiteness."""
        check_shape(self.name, "covariances", covariances, self.shape(n_components, n_features))
        _triangular.check_definite(self.name, "covariances", covariances)
