"""What a covariance family is, and the small helpers that families share.

A family is everything about the shape of the covariances, on arrays of K and D with no rows in sight:

=====================  ================================================================================
M-step                 Sigma_k = S_k / n_k + diag(reg_covar), constrained to the family
density                W_k with W_k Sigma_k W_k' = I and log det W_k, in the form of the family's factor kind
count                  n_parameters: free parameters of the covariances alone (for BIC and AIC)
repair                 floor: what happens to a component that collapsed
views                  dense, precisions, precisions_cholesky (scikit-learn's definitions), variances
use                    colorize (sampling), marginal, check
=====================  ================================================================================

A new family is one new file with these methods and one row in ``FAMILIES``; no kernel, driver or estimator changes,
provided its factor and scatter kinds exist. `fastgmm.covariance.spherical` is the one to read first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np

from fastgmm.constants import FLOOR_FRACTION, FLOOR_GROWTH
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.pieces import pieces
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array, IntArray

Reference: TypeAlias = "float | Float64Array"
"""The data's variance: one number, or (D,) one for each feature (better where features have different units)."""


class Family(Protocol):
    """One covariance family; instances are stateless. K components, D features; arrays float64.

    Attributes
    ----------
    name : str
        Canonical name: the user's ``covariance_type``.
    factor : str
        Factor kind of the densities (`fastgmm.density.KINDS`).
    scatter : str
        Scatter kind of the statistics (`fastgmm.stats.OUTER`).
    """

    name: str
    factor: str
    scatter: str

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Shape of the covariances array."""
        ...

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Count the free parameters of the covariances alone."""
        ...

    def maximize(
        self, stats: SufficientStatistics, reg_covar: Reference, previous: Float64Array, empty: Array | None
    ) -> Float64Array:
        """Return new covariances; those of the components marked in `empty` (K,) bool are copied from `previous`.

        `reg_covar` is added to the variances: one number, or one for each feature.

        `empty` is None where no component is. The result is a new array; `stats` is not changed.
        """
        ...

    def factorize(
        self, covariances: Float64Array, n_components: int, n_features: int
    ) -> tuple[Float64Array, Float64Array]:
        """Return the inverse factor in the layout of `factor`, and log det W_k (K,), a sum of logs.

        Raises
        ------
        SingularCovarianceError
            If a covariance is not positive definite to working precision, or not finite.
        """
        ...

    def floor(
        self,
        covariances: Float64Array,
        reference_variance: Reference,
        *,
        collapsed: Array | None = None,
    ) -> tuple[Float64Array, list[int]]:
        """Repair the components that cannot be factorised, and the variances marked in `collapsed` (K, D) bool.

        The policy: the unusable variances of such a component (all of them where the family has off-diagonal entries)
        are raised by ``FLOOR_FRACTION`` (1e-6) of the data's variance, and by ten times more until its covariance can
        be factorised. Covariances between features, and every other component, stay.

        Returns
        -------
        covariances : ndarray
            A repaired copy, always factorisable; the argument itself where there was nothing to repair.
        repaired : list of int
            The components concerned; all of them where they share one covariance.
        """
        ...

    def variances(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Variance of each feature in each component, broadcastable to (K, D); a view, do not write."""
        ...

    def dense(self, covariances: Float64Array, n_components: int, n_features: int) -> Float64Array:
        """Return every covariance in full, (K, D, D), as a new array."""
        ...

    def precisions(self, covariances: Float64Array) -> Float64Array:
        """Inverses of the covariances, in the shape of the covariances."""
        ...

    def precisions_cholesky(self, covariances: Float64Array) -> Float64Array:
        """Upper triangular U with precision = U U' (scikit-learn's definition); 1/std for diag and spherical."""
        ...

    def from_precisions(self, precisions: Float64Array) -> Float64Array:
        """Covariances of given precisions.

        Raises
        ------
        InvalidParameterError
            If a precision is not symmetric positive definite.
        """
        ...

    def colorize(self, covariances: Float64Array, component: int, z: Float64Array) -> Float64Array:
        """Turn standard normal draws z (n, D) into zero-mean draws with the covariance of `component`."""
        ...

    def marginal(self, covariances: Float64Array, dims: Sequence[int] | IntArray) -> Float64Array:
        """Covariances of the features `dims`, in that order."""
        ...

    def check(self, covariances: Float64Array, n_components: int, n_features: int) -> None:
        """Check given covariances.

        Raises
        ------
        InvalidParameterError
            If the shape is wrong, a value is not finite, or a matrix is not symmetric positive definite.
        """
        ...


def feature_scales(reference_variance: Reference, n_features: int) -> Float64Array:
    """Scale of each feature, (D,): its variance.

    A constant feature takes the average of the others. Data without any variance have no scale: then it is 1, for
    which scikit-learn's default ``reg_covar`` is made.
    """
    variance = np.array(np.broadcast_to(np.asarray(reference_variance, dtype=np.float64), (n_features,)))
    usable = np.isfinite(variance) & (variance > 0.0)
    # The mean of logs: features of 1e-300 and 1e300 have no arithmetic mean that suits both.
    variance[~usable] = np.exp(np.log(variance[usable]).mean()) if usable.any() else 1.0
    return variance


def floor_levels(reference_variance: Reference, n_features: int) -> Float64Array:
    """First variance floor of each feature, (D,): ``FLOOR_FRACTION`` of its scale."""
    scales = feature_scales(reference_variance, n_features)
    floor: Float64Array = np.maximum(FLOOR_FRACTION * scales, np.finfo(np.float64).tiny)
    return floor


def check_shape(name: str, what: str, value: Float64Array, expected: tuple[int, ...]) -> None:
    """Raise `InvalidParameterError` unless `value` has the expected shape and is finite."""
    if value.shape != expected:
        msg = f"{what} of covariance_type={name!r} must have shape {expected}; got {value.shape}"
        raise InvalidParameterError(msg)
    if not all(np.isfinite(value[some]).all() for some in pieces(value)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        msg = f"{what} must be finite; entry {where} is {value[where]}"
        raise InvalidParameterError(msg)


def check_positive(name: str, what: str, value: Float64Array) -> None:
    """Raise `InvalidParameterError` unless every variance (or precision) of an array (K,) or (K, D) is positive."""
    if not value.min() > 0.0:
        where = tuple(int(i) for i in np.argwhere(~(value > 0.0))[0])
        msg = f"{what} of covariance_type={name!r} must be positive; entry {where} is {value[where]}"
        raise InvalidParameterError(msg)


def raise_singular_variances(name: str, variances: Float64Array) -> None:
    """Raise `SingularCovarianceError` for the first component whose variances, (K,) or (K, D), are not all usable."""
    rows = variances.reshape(variances.shape[0], -1)
    bad = ~((rows > 0.0) & (rows < np.inf)).all(axis=1)
    component = int(bad.argmax())
    smallest = float(rows[component].min()) if np.isfinite(rows[component]).all() else float("nan")
    raise singular(name, component, smallest)


def singular(name: str, component: int | None, min_eig: float) -> SingularCovarianceError:
    """Build the one error message about a covariance that cannot be factorised."""
    which = "the shared covariance" if component is None else f"the covariance of component {component}"
    msg = (
        f"{which} (covariance_type={name!r}) must be positive definite; its smallest eigenvalue is {min_eig:.3g}. "
        "The component has collapsed onto too few distinct rows, or features are constant or collinear: use fewer "
        "components, a simpler covariance_type, a larger reg_covar, or drop the redundant features"
    )
    return SingularCovarianceError(msg, component=component, family=name, min_eig=min_eig)


def lift_variances(variances: Float64Array, bad: Array, level: Float64Array | np.float64) -> Float64Array:
    """Return a copy with `level` added where `bad`, ten times more until every variance is positive and finite."""
    result = variances.copy()
    base = np.where(np.isfinite(variances), variances, 0.0)
    while bad.any():
        result = np.where(bad, base + level, result)
        level = np.minimum(level, np.finfo(np.float64).max / FLOOR_GROWTH) * FLOOR_GROWTH  # none beyond float64
        bad = ~((result > 0.0) & (result < np.inf))
    return result
