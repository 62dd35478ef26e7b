"""One variance per component: Sigma_k = s_k I. The simplest family; read it first.

Covariances are the variances, (K,). Right for clusters that are round in the features' own units, and for very many
features with few rows; wrong as soon as units differ (mclust: VII).
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


class Spherical:
    """Spherical covariances of different size; see `fastgmm.covariance.base.Family` for the methods' contract."""

    name = "spherical"
    factor = "scalar"
    scatter = "trace"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return (K,)."""
        return (n_components,)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Return K."""
        return n_components

    def maximize(
        self, stats: SufficientStatistics, reg_covar: Reference, previous: Float64Array, empty: Array | None
    ) -> Float64Array:
        """Return trace(S_k) / (D n_k) + reg_covar, the mean of it where it is given per feature."""
        weight = stats.weight if empty is None else np.where(empty, 1.0, stats.weight)
        covariances: Float64Array = stats.scatter / (weight * stats.n_features)
        covariances += reg_covar.mean() if isinstance(reg_covar, np.ndarray) else reg_covar
        if empty is not None:
            covariances[empty] = previous[empty]
        return covariances

    def factorize(
        self,
        covariances: Float64Array,
        n_components: int,
        n_features: int,
    ) -> tuple[Float64Array, Float64Array]:
        """Return 1 / sqrt(s_k) and -D/2 log s_k."""
        if not (covariances.min() > 0.0 and covariances.max() < np.inf):
            raise_singular_variances(self.name, covariances)
        log_det: Float64Array = np.log(covariances) * (-0.5 * n_features)
        return self.precisions_cholesky(covariances), log_det

    def floor(
        self, covariances: Float64Array, reference_variance: Reference, *, collapsed: Array | None = None
    ) -> tuple[Float64Array, list[int]]:
        """Raise unusable variances by a fraction of the data's (mean) variance."""
        bad = ~((covariances > 0.0) & (covariances < np.inf))
        if collapsed is not None:
            bad |= collapsed.any(axis=1)
        if not bad.any():
            return covariances, []
        level = floor_levels(float(np.mean(reference_variance)), 1)[0]
        return lift_variances(covariances, bad, level), [int(k) for k in np.flatnonzero(bad)]

    def variances(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return (K, 1)."""
        return covariances[:, None]

    def dense(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return s_k I."""
        result: Float64Array = covariances[:, None, None] * np.eye(n_features)
        return result

    def precisions(self, covariances: Float64Array) -> Float64Array:
        """Return 1 / s_k."""
        result: Float64Array = 1.0 / covariances
        return result

    def precisions_cholesky(self, covariances: Float64Array) -> Float64Array:
        """Return 1 / sqrt(s_k)."""
        result: Float64Array = 1.0 / np.sqrt(covariances)
        return result

    def from_precisions(self, precisions: Float64Array) -> Float64Array:
        """Return 1 / p_k."""
        check_positive(self.name, "precisions", precisions)
        return self.precisions(precisions)

    def colorize(self, covariances: Float64Array, component: int, z: Float64Array) -> Float64Array:
        """Return sqrt(s_k) z."""
        result: Float64Array = z * np.sqrt(covariances[component])
        return result

    def marginal(self, covariances: Float64Array, dims: Sequence[int] | IntArray) -> Float64Array:
        """Return the variances as they are."""
        return covariances

    def check(self, covariances: Float64Array, n_components: int, n_features: int) -> None:
        """Check shape, finiteness and positivity."""
        check_shape(self.name, "covariances", covariances, self.shape(n_components, n_features))
        check_positive(self.name, "covariances", covariances)
