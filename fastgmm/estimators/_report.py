"""What to say about the data and the result of a fit: warnings, each with its remedy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from fastgmm import covariance
from fastgmm.em import FitResult, FitStatus
from fastgmm.errors import DegenerateComponentWarning, DegenerateDataWarning
from fastgmm.estimators._settings import Settings
from fastgmm.estimators._sklearn import known_class
from fastgmm.initialize import RowSample
from fastgmm.mixture import Mixture
from fastgmm.typing import Array, Float64Array

STRONG_REG_COVAR = 1e-3
"""From this fraction of the data's variance on, `reg_covar` is meant to shape the fit, not just to stabilise it."""

SAME_DIRECTION = 0.1
"""A feature takes part in a flat direction if its share, in its own standard deviations, is this part of the
largest."""

ALMOST_ALL = 0.99
"""A direction of which features make up this much, squared, is theirs."""


def usable_reg_covar(reg_covar: float, sample: RowSample, *, stacklevel: int) -> float:
    """Return `reg_covar`, or, where it would drown the data, the same fraction of their variance.

    scikit-learn's default of 1e-6 is made for data of unit variance. Where it exceeds the variance of every feature,
    a fit would describe `reg_covar` and not the data, so it is then taken relative to the largest variance, with a
    warning.
    """
    largest = float(sample.variance.max())
    if not 0.0 < largest < reg_covar:
        return reg_covar
    used = reg_covar * largest
    msg = (
        f"reg_covar={reg_covar:g} exceeds the variance of every feature of X (at most {largest:.3g}) and would hide "
        f"the data; it is taken relative to that variance: {used:.3g}. Rescale X, or set reg_covar to a small fraction "
        "of the variances"
    )
    warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
    return used


def warn_about_data(
    sample: RowSample, n_rows: int, settings: Settings, names: Sequence[str] | None, *, stacklevel: int
) -> bool:
    """Warn about data that cannot support the model asked for; return whether there was anything to say."""
    n_features = sample.variance.shape[0]
    said = False
    constant = np.flatnonzero(sample.variance == 0.0)
    if len(constant) == n_features:
        msg = (
            "all rows of X are equal: the mixture is a single point, and its covariance is reg_covar or the variance "
            "floor, not a property of the data"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
        said = True
    elif len(constant):
        msg = (
            f"X has constant features: {_columns(constant, names)}. Their variance in the model is reg_covar or the "
            "variance floor, which inflates the likelihood; drop them"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
        said = True
    if n_rows <= n_features < settings.family.n_parameters(1, n_features):
        msg = (
            f"X has {n_rows} rows for {n_features} features: covariances between features cannot be estimated, and "
            f"reg_covar alone keeps them invertible. Use covariance_type='diag' or 'spherical', or fewer features"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
        said = True
    return said


def held_up(mixture: Mixture, reg_covar: float, variance: Float64Array) -> list[int]:
    """Return the components that only `reg_covar` keeps from being flat in some direction.

    Parameters
    ----------
    mixture : Mixture
    reg_covar : float
    variance : ndarray (D,)
        Of the data.

    Notes
    -----
    The smallest eigenvalue of S_k / n_k is then at most reg_covar, that of Sigma_k at most 2 reg_covar. Since
    1 / lambda_min <= tr Sigma_k^-1 = |W_k|_F^2, most components need no eigenvalues.
    """
    limit = 2.0 * reg_covar
    if not 0.0 < reg_covar < STRONG_REG_COVAR * float(variance.max()):
        return []
    factor = mixture.density.factor
    # One component or one shared covariance is one row; a scalar factor stands for each of the equal eigenvalues.
    n_rows = 1 if mixture.density.kind == "shared_chol" else mixture.n_components
    trace = np.square(factor).reshape(n_rows, -1).sum(axis=1)
    if float(trace.max()) * limit < 1.0:
        return []
    suspects = np.flatnonzero(np.broadcast_to(trace, (mixture.n_components,)) * limit >= 1.0)
    return [int(k) for k in suspects if _flattest(mixture, int(k))[0] <= limit]


def _flattest(mixture: Mixture, component: int) -> tuple[float, Float64Array]:
    """Return the smallest variance of a component in any direction, and that direction (D,)."""
    family = covariance.FAMILIES[mixture.covariance_type]
    shape = (1, mixture.n_features)
    one = mixture.covariances
    if one.shape != family.shape(*shape):  # neither shared nor the only one
        one = one[component : component + 1]
    variances, directions = np.linalg.eigh(family.dense(one, *shape)[0])
    return float(variances[0]), np.asarray(directions[:, 0])


def warn_about_flat(
    mixture: Mixture,
    components: Sequence[int],
    sample: RowSample,
    reg_covar: float,
    names: Sequence[str] | None,
    *,
    stacklevel: int,
) -> None:
    """Warn about components that `held_up` has found, and name the features concerned, the cause and the remedy."""
    direction = _flattest(mixture, components[0])[1]
    share = np.abs(direction) * np.sqrt(sample.variance)
    features = np.flatnonzero(share >= SAME_DIRECTION * share.max())
    limit = 2.0 * reg_covar
    narrow = sample.variance <= limit
    if np.square(direction[narrow]).sum() >= ALMOST_ALL:
        features = np.flatnonzero(narrow)
        cause = f"the variance of all of X is no larger there than reg_covar={reg_covar:g}"
        remedy = "Rescale these features, or set a smaller reg_covar"
    elif _variance_along(direction, sample) <= limit:
        cause, remedy = "collinear features", "Drop redundant features, or choose another covariance_type"
    else:
        cause = "too few distinct rows, or rows on a line or plane"
        remedy = "Use fewer components, or choose another covariance_type"
    msg = (
        f"components {_listed(components)} of the fitted mixture are flat in some direction "
        f"({_columns(features, names)}) and only reg_covar keeps them from collapsing, so the likelihood depends on "
        f"it: {cause}. {remedy}"
    )
    warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)


def _variance_along(direction: Float64Array, sample: RowSample) -> float:
    """Return the variance of the data in a direction (D,), in the data's own unit."""
    z = np.einsum("ij,j->i", sample.z, direction)
    z = z - np.average(z, weights=sample.weight)
    return float(np.average(z * z, weights=sample.weight)) * sample.unit * sample.unit


def warn_about_result(result: FitResult, max_iter: int, *, stacklevel: int) -> None:
    """Warn if the best fit did not converge, or holds components that died or collapsed."""
    if result.status is FitStatus.MAX_ITER and max_iter > 0:
        msg = (
            "Best performing initialization did not converge. Try different init parameters, or increase max_iter, "
            "tol, or check for degenerate data."
        )
        warnings.warn(msg, known_class("ConvergenceWarning"), stacklevel=stacklevel + 1)
    if result.empty:
        msg = (
            f"components {_listed(result.empty)} of the fitted mixture have no rows and weight 0: X has fewer distinct "
            "clusters than n_components. Use fewer components, or other starts (n_init)"
        )
        warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)
    if result.collapsed:
        msg = (
            f"components {_listed(result.collapsed)} of the fitted mixture collapsed onto too few distinct rows, "
            "or onto constant or collinear features; their variances are held up by a floor of 1e-6 of the data's "
            "variance, and the likelihood depends on it. Use fewer components, another "
            "covariance_type, or a larger reg_covar"
        )
        warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)


def _listed(components: Sequence[int]) -> str:
    shown = ", ".join(map(str, components[:8]))
    return shown if len(components) <= 8 else f"{shown}, ..."


def _columns(index: Array, names: Sequence[str] | None) -> str:
    listed = ", ".join(repr(names[j]) if names is not None else str(j) for j in index[:5])
    more = f" and {len(index) - 5} more" if len(index) > 5 else ""
    return f"column{'s' if len(index) > 1 else ''} {listed}{more}"
