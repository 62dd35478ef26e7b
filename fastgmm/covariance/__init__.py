"""Covariance families, one file each, behind one registry. Read `spherical` first, then `base` for the contract.

The functions here join a family to the other values: `density` makes what a data pass reads, `maximize` is the M-step,
`make_params` is the checked way to parameters that come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.constants import EMPTY_FRACTION, LOG_2PI, PIVOT_TOLERANCE_FLOAT32, RESOLUTION, WEIGHT_SUM_ATOL
from fastgmm.covariance import components as _components
from fastgmm.covariance._triangular import exceeds
from fastgmm.covariance.base import Family, Reference, feature_scales, floor_levels, singular
from fastgmm.covariance.diag import Diag
from fastgmm.covariance.full import Full
from fastgmm.covariance.spherical import Spherical
from fastgmm.covariance.tied import Tied
from fastgmm.density import Density
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.pieces import piecewise
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array

__all__ = [
    "ALIASES",
    "FAMILIES",
    "Family",
    "Reference",
    "density",
    "empty_components",
    "exceeds",
    "family",
    "feature_scales",
    "is_shared",
    "make_params",
    "maximize",
    "maximize_but",
    "n_parameters",
    "place",
    "repair",
    "take",
    "unresolved",
]

_TINY = float(np.finfo(np.float64).tiny)
_ROOT = 1.3e154  # nearly that of the largest float64

FAMILIES: dict[str, Family] = {f.name: f for f in (Full(), Tied(), Diag(), Spherical())}
"""Canonical name -> family."""

ALIASES: dict[str, str] = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}
"""mclust's codes for the same families."""


def family(name: str) -> Family:
    """Look a family up by its name or by mclust's code.

    Raises
    ------
    InvalidParameterError
        If there is no such family; the message lists the names.
    """
    found = FAMILIES.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if found is None:
        valid = ", ".join(repr(n) for n in (*FAMILIES, *ALIASES))
        msg = f"covariance_type must be one of {valid}; got {name!r}"
        raise InvalidParameterError(msg)
    return found


def n_parameters(covariance_type: str, n_components: int, n_features: int) -> int:
    """Free parameters of a whole mixture: K - 1 weights, K D means, and the covariances."""
    covariances = family(covariance_type).n_parameters(n_components, n_features)
    return n_components - 1 + n_components * n_features + covariances


def density(params: Params, dtype: npt.DTypeLike = np.float64) -> Density:
    """Prepare parameters for a data pass: inverse factors and normalising constants.

    Parameters
    ----------
    params : Params
    dtype : float64 or float32
        Of the rows that the parameters were found from: what counts as noise in a covariance. Parameters from elsewhere
        are what they are, so the default suits them.

    Raises
    ------
    SingularCovarianceError
        If a covariance is not positive definite to working precision.

    Notes
    -----
    log_norm_k = log pi_k + log det W_k - D/2 log 2 pi, with log det W_k summed from logs: a determinant itself would
    leave the range of float64 for a few hundred features.
    """
    fam = FAMILIES[params.covariance_type]
    n_components, n_features = params.means.shape
    factor, log_norm = fam.factorize(params.covariances, n_components, n_features)
    if fam.factor == "chol" and dtype == np.float32:
        _check_pivots(params, factor)
    weights = params.weights
    if np.minimum.reduce(weights) > 0.0:
        log_weights = np.log(weights)
    else:
        log_weights = np.log(weights, out=np.full(n_components, -np.inf), where=weights > 0.0)
    log_norm += log_weights
    log_norm -= 0.5 * n_features * LOG_2PI
    return Density(fam.factor, params.means, factor, log_norm, log_weights)


def _check_pivots(params: Params, factor: Float64Array) -> None:
    """Raise `SingularCovarianceError` where a pivot, relative to its variance, is no more than the noise of float32."""
    diagonal, variances = (a.diagonal(0, 1, 2) for a in (factor, params.covariances))
    noise = PIVOT_TOLERANCE_FLOAT32 * np.square(diagonal) * variances > 1.0
    if noise.any():
        component = int(noise.any(axis=1).argmax())
        smallest = float(np.linalg.eigvalsh(params.covariances[component])[0])
        raise singular(params.covariance_type, component, smallest)


def empty_components(stats: SufficientStatistics) -> Array | None:
    """Mask (K,) of the components whose rows weigh next to nothing, or None where there are none.

    "Nothing" is at most ``EMPTY_FRACTION`` (ten eps) of the weight of all rows.
    """
    weight = stats.weight
    limit = EMPTY_FRACTION * stats.total_weight
    if np.minimum.reduce(weight) > limit:
        return None
    return ~(weight > limit)


def maximize(stats: SufficientStatistics, previous: Params, reg_covar: Reference) -> Params:
    """The M-step: the parameters that maximise the expected log-likelihood given the statistics.

    Parameters
    ----------
    stats : SufficientStatistics
        Of the scatter kind of the family of `previous`.
    previous : Params
        Parameters of the pass. An empty component keeps its mean and covariance from here; its weight becomes what its
        rows weigh, possibly 0.
    reg_covar : float or ndarray (D,)
        Added to every variance, in squared units of the data; one for each feature where given so (a spherical
        covariance takes their mean).

    Notes
    -----
    pi_k = n_k / sum_j n_j, mu_k = mean_k, Sigma_k = S_k / n_k + diag(reg_covar), constrained to the family.
    """
    return maximize_but(empty_components(stats), stats, previous, reg_covar)


def maximize_but(empty: Array | None, stats: SufficientStatistics, previous: Params, reg_covar: Reference) -> Params:
    """`maximize` for those who have asked for the `empty_components` already, as EM has in every iteration."""
    means = stats.mean
    weights = previous.weights
    total = stats.weight.sum()
    if total > 0.0:
        weights = stats.weight / total
    if empty is not None:
        means = np.where(empty[:, None], previous.means, means)
    fam = FAMILIES[previous.covariance_type]
    covariances = fam.maximize(stats, reg_covar, previous.covariances, empty)
    return Params(weights, means, covariances, previous.covariance_type)


def is_shared(covariance_type: str) -> bool:
    """Whether all components of this family have one covariance."""
    fam = FAMILIES[covariance_type]
    return fam.shape(1, 1) == fam.shape(2, 1)


def take(params: Params, keep: Sequence[int]) -> Params:
    """Return the mixture of the components `keep` alone; see `fastgmm.covariance.components`."""
    return _components.take(params, keep, shared=is_shared(params.covariance_type))


def place(params: Params, components: Sequence[int], means: Float64Array, models: Sequence[int]) -> Params:
    """Return the mixture with `components` started elsewhere; see `fastgmm.covariance.components`."""
    return _components.place(params, components, means, models, shared=is_shared(params.covariance_type))


def unresolved(params: Params) -> Array | None:
    """Mask (K, D) of the variances that are no more than the rounding of their mean, or None where all are sound.

    So looks a component that sits on one row, or on copies of one row, far from the origin; its "variance" is noise.
    """
    fam = FAMILIES[params.covariance_type]
    spread = fam.variances(params.covariances, *params.means.shape)
    limit = np.abs(params.means)
    limit *= RESOLUTION
    np.minimum(limit, _ROOT, out=limit)  # for the square to be finite
    limit *= limit
    limit += _TINY  # below it, the inverse of a variance may be infinite
    sound = spread > limit
    return None if np.logical_and.reduce(sound, axis=None) else ~sound


def below_floor(params: Params, components: list[int], reference_variance: Reference) -> Array | None:
    """Mask (K, D) of the variances of `components` that lie below the floor of a collapsed one, or None.

    A component that was repaired and shrinks again is still collapsed, however its rounding looks this time.
    """
    fam = FAMILIES[params.covariance_type]
    k, d = params.means.shape
    spread = np.broadcast_to(fam.variances(params.covariances, k, d), (k, d))
    mask = np.zeros((k, d), dtype=np.bool_)
    mask[components] = spread[components] < floor_levels(reference_variance, d)
    return mask if mask.any() else None


def repair(
    params: Params,
    reference_variance: Reference,
    error: SingularCovarianceError | None = None,
    *,
    collapsed: Array | None = None,
) -> tuple[Params, list[int]]:
    """Apply the family's floor to collapsed components; return the parameters themselves if there are none.

    Parameters
    ----------
    params : Params
    reference_variance : float or ndarray (D,)
        The data's variance, all features together or one by one.
    error : SingularCovarianceError, optional
        A failure to be repaired: its component gets the floor even if it looks sound here.
    collapsed : ndarray (K, D) bool, optional
        Variances known to need the floor; `unresolved` where not given.

    Returns
    -------
    params : Params
        `fastgmm.covariance.density` accepts these.
    repaired : list of int
        Components whose covariance was changed.
    """
    fam = FAMILIES[params.covariance_type]
    collapsed = unresolved(params) if collapsed is None else collapsed
    if collapsed is None:
        collapsed = np.zeros(params.means.shape, dtype=np.bool_)
    covariances, repaired = fam.floor(params.covariances, reference_variance, collapsed=collapsed)
    if error is not None and not repaired:
        collapsed[slice(None) if error.component is None else error.component] = True
        covariances, repaired = fam.floor(params.covariances, reference_variance, collapsed=collapsed)
    if not repaired:
        return params, repaired
    return Params(params.weights, params.means, covariances, params.covariance_type), repaired


def make_params(weights: Any, means: Any, covariances: Any, covariance_type: str = "full") -> Params:
    """Check parameters that come from outside and copy them into a `Params`.

    Parameters
    ----------
    weights : array-like (K,)
        Non-negative, summing to one within 1e-6; normalised exactly.
    means : array-like (K, D)
    covariances : array-like
        In the family's shape.
    covariance_type : str
        Family name or mclust code.

    Raises
    ------
    InvalidParameterError
        If a shape does not fit, a value is not finite, the weights are not a distribution, or a covariance is not
        symmetric positive definite.
    """
    fam = family(covariance_type)
    mu = _as_float64("means", means)
    if mu.ndim != 2 or mu.size == 0:
        msg = f"means must have shape (n_components, n_features), neither of them 0; got {mu.shape}"
        raise InvalidParameterError(msg)
    if not np.isfinite(mu).all():
        msg = "means must be finite; got NaN or infinity"
        raise InvalidParameterError(msg)
    pi = _as_float64("weights", weights)
    if pi.shape != (mu.shape[0],):
        msg = f"weights must have shape ({mu.shape[0]},), one for each row of means; got {pi.shape}"
        raise InvalidParameterError(msg)
    if not (pi.min() >= 0.0 and abs(pi.sum() - 1.0) <= WEIGHT_SUM_ATOL):
        msg = f"weights must be >= 0 and sum to 1; got smallest {pi.min():.6g} and sum {pi.sum():.9g}"
        raise InvalidParameterError(msg)
    sigma = _as_float64("covariances", covariances)
    fam.check(sigma, *mu.shape)
    return Params(pi / pi.sum(), mu, sigma, fam.name)


def _as_float64(name: str, value: Any) -> Float64Array:
    try:
        if isinstance(value, np.ndarray) and value.ndim > 0:
            return piecewise(lambda some: np.array(some, order="C"), value.astype(np.float64, copy=False))
        return np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        msg = f"{name} must be an array of real numbers; got {type(value).__name__} ({error})"
        raise InvalidParameterError(msg) from None
