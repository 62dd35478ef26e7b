"""One variance per component and feature: Sigma_k = diag(v_k).

Covariances are the variances, (K, D). Right where features are independent within a cluster, and for many features;
cannot follow a tilted cluster, and then spends several components on it (mclust: VVI).
"""

# ruff: noqa: ARG002 - a family's methods have the protocol's signatures, needed or not
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgmm.covariance.base import (
    Reference,
    check_positive,
    check_shape,
    floor_levels,
    lift_variances,
    raise_singular_variances,
)
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array, IntArray


class Diag:
    """Diagonal covariances; see `fastgmm.covariance.base.Family` for the methods' contract."""

    name = "diag"
    factor = "diag"
    scatter = "diag"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return (K, D)."""
        return (n_components, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Return K D."""
        return n_components * n_features

    def maximize(
        self, stats: SufficientStatistics, reg_covar: Reference, previous: Float64Array, empty: Array | None
    ) -> Float64Array:
        """Return diag(S_k) / n_k + reg_covar."""
        weight = stats.weight if empty is None else np.where(empty, 1.0, stats.weight)
        covariances: Float64Array = stats.scatter / weight[:, None]
        covariances += reg_covar
        if empty is not None:
            covariances[empty] = previous[empty]
        return covariances

    def factorize(
        self,
        covariances: Float64Array,
        n_components: int,
        n_features: int,
    ) -> tuple[Float64Array, Float64Array]:
        """Return 1 / sqrt(v_k) and -1/2 sum of log v_k."""
        if not (covariances.min() > 0.0 and covariances.max() < np.inf):
            raise_singular_variances(self.name, covariances)
        log_det: Float64Array = np.log(covariances).sum(axis=1)
        log_det *= -0.5
        return self.precisions_cholesky(covariances), log_det

    def floor(
        self, covariances: Float64Array, reference_variance: Reference, *, collapsed: Array | None = None
    ) -> tuple[Float64Array, list[int]]:
        """Raise unusable variances by a fraction of the feature's variance in the data."""
        bad = ~((covariances > 0.0) & (covariances < np.inf))
        if collapsed is not None:
            bad |= collapsed
        if not bad.any():
            return covariances, []
        levels = floor_levels(reference_variance, covariances.shape[1])
        return lift_variances(covariances, bad, levels), [int(k) for k in np.flatnonzero(bad.any(axis=1))]

    def variances(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return the covariances, (K, D)."""
        return covariances

    def dense(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return diag(v_k)."""
        result: Float64Array = covariances[:, :, None] * np.eye(n_features)
        return result

    def precisions(self, covariances: Float64Array) -> Float64Array:
        """Return 1 / v_k."""
        result: Float64Array = 1.0 / covariances
        return result

    def precisions_cholesky(self, covariances: Float64Array) -> Float64Array:
        """Return 1 / sqrt(v_k)."""
        result: Float64Array = 1.0 / np.sqrt(covariances)
        return result

    def from_precisions(self, precisions: Float64Array) -> Float64Array:
        """Return 1 / p_k."""
        check_positive(self.name, "precisions", precisions)
        return self.precisions(precisions)

    def colorize(self, covariances: Float64Array, component: int, z: Float64Array) -> Float64Array:
        """Return sqrt(v_k) z."""
        result: Float64Array = z * np.sqrt(covariances[component])
        return result

    def marginal(self, covariances: Float64Array, dims: Sequence[int] | IntArray) -> Float64Array:
        """Return the columns `dims`."""
        result: Float64Array = covariances[:, np.asarray(dims, dtype=np.intp)]
        return result

    def check(self, covariances: Float64Array, n_components: int, n_features: int) -> None:
        """Check shape, finiteness and positivity."""
        check_shape(self.name, "covariances", covariances, self.shape(n_components, n_features))
        check_positive(self.name, "covariances", covariances)
