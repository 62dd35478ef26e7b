"""What to say about the data and the result of a fit: warnings, each with its remedy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgmm import covariance
from fastgmm.covariance import Reference
from fastgmm.em import FitResult, FitStatus
from fastgmm.errors import DegenerateComponentWarning, DegenerateDataWarning
from fastgmm.estimators._settings import Settings
from fastgmm.estimators._sklearn import known_class
from fastgmm.initialize import RowSample
from fastgmm.mixture import Mixture
from fastgmm.pieces import pieces, piecewise
from fastgmm.typing import Array, Float64Array

STRONG_REG_COVAR = 1e-3
"""From this fraction of the data's variance on, `reg_covar` is meant to shape the fit, not just to stabilise it."""

SAME_DIRECTION = 0.1
"""A feature takes part in a flat direction if its share, in its own standard deviations, is this part of the
largest."""

ALMOST_ALL = 0.99
"""A direction of which features make up this much, squared, is theirs."""

MANY_FEATURES = 128
"""Above, the flattest direction is found by power iteration."""

POWER_STEPS = 100
"""Enough for a direction that is narrower than the others by a tenth; directions that are not are equally flat."""


def added_variance(settings: Settings, variance: Float64Array) -> Reference:
    """Return what is added to each variance: `reg_covar` itself, or that fraction of the data's variances (D,).

    scikit-learn's default of 1e-6 is made for data of unit variance. Where it exceeds the variance of every feature,
    a fit would describe `reg_covar` and not the data, so it is then taken relative to the largest variance. With
    ``reg_scale="relative"`` it is always relative, to the variance of each feature (for a constant one, the average of
    the others), or to their mean where a component has one variance for all of them.
    """
    given = settings.reg_covar if isinstance(settings.reg_covar, float) else float(np.max(settings.reg_covar))
    if settings.reg_scale == "relative":
        scales = covariance.feature_scales(variance, variance.shape[0])
        if settings.family.scatter == "trace":
            return given * (float((variance / variance.shape[0]).sum()) or float(scales[0]))
        return np.asarray(given * scales)
    largest = float(variance.max())
    return given * largest if 0.0 < largest < given else given


def usable_reg_covar(settings: Settings, sample: RowSample, *, stacklevel: int) -> Reference:
    """Return `added_variance`, with a warning where that is not what was asked for."""
    used = added_variance(settings, sample.variance)
    if settings.reg_scale == "absolute" and used != settings.reg_covar:
        msg = (
            f"reg_covar={float(np.max(settings.reg_covar)):g} exceeds the variance of every feature of X (at most "
            f"{sample.variance.max():.3g}) and would hide the data; it is taken relative to that variance: {used:.3g}. "
            "Rescale X, set reg_covar to a small fraction of the variances, or use reg_scale='relative'"
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


@dataclass(frozen=True, slots=True, eq=False)
class _Measure:
    """Units in which `reg_covar` is one number: the data's own, or the standard deviations of the features.

    Attributes
    ----------
    unit : ndarray (D,) or None
        Of each feature; None for 1.
    reg_covar : float
    """

    unit: Float64Array | None
    reg_covar: float

    def variances(self, sample: RowSample) -> Float64Array:
        """Variance of the data per feature, (D,)."""
        return sample.variance if self.unit is None else sample.variance / self.unit / self.unit

    def flattest(self, mixture: Mixture, component: int) -> Float64Array:
        """Return the direction (D,) in which a component's variance is smallest."""
        matrix = self._matrix(mixture, component)
        if matrix.ndim == 1:
            return np.asarray(np.eye(1, len(matrix), int(np.argmin(matrix)))[0])
        if len(matrix) <= MANY_FEATURES:
            return np.asarray(np.linalg.eigh(matrix)[1][:, 0])
        # Power iteration with the inverse: the rest of the spectrum is not needed, and takes seconds at a time.
        factor, _ = covariance.FAMILIES["full"].factorize(matrix[None], 1, len(matrix))
        direction = np.random.default_rng(0).normal(size=len(matrix))
        for _ in range(POWER_STEPS):
            direction = np.einsum("ij,i->j", factor[0], np.einsum("ij,j->i", factor[0], direction))
            direction /= np.linalg.norm(direction)
        return direction

    def is_flat(self, mixture: Mixture, component: int) -> bool:
        """Whether the smallest variance of a component in any direction is at most twice `reg_covar`.

        Eigenvalues would cost ten times as much as the factorisation that answers this, for many features.
        """
        limit = 2.0 * self.reg_covar
        matrix = self._matrix(mixture, component)
        return bool(matrix.min() <= limit) if matrix.ndim == 1 else not covariance.exceeds(matrix, limit)

    def _matrix(self, mixture: Mixture, component: int) -> Float64Array:
        """Return a component's covariance, (D, D), or its variances (D,) where there are no others."""
        family = covariance.FAMILIES[mixture.covariance_type]
        shape = (1, mixture.n_features)
        one = mixture.covariances
        if one.shape != family.shape(*shape):  # neither shared nor the only one
            one = one[component : component + 1]
        if family.shape(1, 2)[-2:] != (2, 2):  # no covariances between features
            variances: Float64Array = np.broadcast_to(family.variances(one, *shape), shape)[0]
            return variances if self.unit is None else variances / self.unit / self.unit
        dense: Float64Array = family.dense(one, *shape)[0]
        return dense if self.unit is None else dense / self.unit / self.unit[:, None]

    def variance_along(self, direction: Float64Array, sample: RowSample) -> float:
        """Return the variance of the data in a direction (D,)."""
        scale = sample.unit if self.unit is None else sample.unit / self.unit
        z = np.einsum("ij,j->i", sample.z, direction * scale)
        z = z - np.average(z, weights=sample.weight)
        return float(np.average(z * z, weights=sample.weight))


def _measure(settings: Settings, variance: Float64Array) -> _Measure:
    if not isinstance(settings.reg_covar, np.ndarray):
        return _Measure(None, settings.reg_covar)
    unit = np.sqrt(covariance.feature_scales(variance, variance.shape[0]))
    return _Measure(unit, float((settings.reg_covar / unit / unit).max()))


def held_up(mixture: Mixture, settings: Settings, sample: RowSample) -> list[int]:
    """Return the components that only `reg_covar` keeps from being flat in some direction.

    Parameters
    ----------
    mixture : Mixture
    settings : Settings
        With what was added to each variance as `reg_covar`.
    sample : RowSample
        Of the data.

    Notes
    -----
    The smallest eigenvalue of S_k / n_k is then at most reg_covar, that of Sigma_k at most 2 reg_covar. Since
    1 / lambda_min <= tr Sigma_k^-1 = |W_k|_F^2, most components need no eigenvalues.
    """
    measure = _measure(settings, sample.variance)
    limit = 2.0 * measure.reg_covar
    if not 0.0 < measure.reg_covar < STRONG_REG_COVAR * float(measure.variances(sample).max()):
        return []
    factor = mixture.density.factor
    if measure.unit is not None:
        factor = piecewise(lambda some: some * measure.unit, factor)
    # One component or one shared covariance is one row; a scalar factor stands for each of the equal eigenvalues.
    n_rows = 1 if mixture.density.kind == "shared_chol" else mixture.n_components
    factor = factor.reshape(n_rows, -1)
    trace = np.concatenate([np.square(factor[some]).sum(axis=1) for some in pieces(factor)])
    if float(trace.max()) * limit < 1.0:
        return []
    suspects = [int(k) for k in np.flatnonzero(trace * limit >= 1.0) if measure.is_flat(mixture, int(k))]
    return list(range(mixture.n_components)) if suspects and n_rows == 1 else suspects


def warn_about_flat(
    mixture: Mixture,
    components: Sequence[int],
    sample: RowSample,
    settings: Settings,
    names: Sequence[str] | None,
    *,
    stacklevel: int,
) -> None:
    """Warn about components that `held_up` has found, and name the features concerned, the cause and the remedy."""
    measure = _measure(settings, sample.variance)
    direction = measure.flattest(mixture, components[0])
    variances = measure.variances(sample)
    share = np.abs(direction) * np.sqrt(variances)
    features = np.flatnonzero(share >= SAME_DIRECTION * share.max())
    limit = 2.0 * measure.reg_covar
    narrow = variances <= limit
    if np.square(direction[narrow]).sum() >= ALMOST_ALL:
        features = np.flatnonzero(narrow)
        cause = f"the variance of all of X is no larger there than reg_covar={measure.reg_covar:g}"
        remedy = "Rescale these features, set a smaller reg_covar, or use reg_scale='relative'"
    elif measure.variance_along(direction, sample) <= limit:
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


def warn_about_result(result: FitResult, settings: Settings, n_starts: tuple[int, int], *, stacklevel: int) -> None:
    """Warn if the best fit did not converge, if time was too short, or if components died or collapsed.

    `n_starts` are the starts that came to their end, and those wanted.
    """
    if result.status is FitStatus.MAX_ITER and settings.max_iter > 0:
        msg = (
            "Best performing initialization did not converge. Try different init parameters, or increase max_iter, "
            "tol, or check for degenerate data."
        )
        warnings.warn(msg, known_class("ConvergenceWarning"), stacklevel=stacklevel + 1)
    elif result.status is FitStatus.MAX_TIME:
        warnings.warn(result.status.value, known_class("ConvergenceWarning"), stacklevel=stacklevel + 1)
    if result.status is not FitStatus.MAX_TIME and n_starts[0] < n_starts[1]:
        msg = (
            f"max_time was over after {n_starts[0]} of n_init={n_starts[1]} starts; the best of these is kept. Give "
            "the fit more time or fewer starts"
        )
        warnings.warn(msg, known_class("ConvergenceWarning"), stacklevel=stacklevel + 1)
    for components, text in (
        (
            result.empty,
            "of the fitted mixture have no rows and weight 0: X has fewer distinct clusters than n_components. Use "
            "fewer components, or other starts (n_init)",
        ),
        (
            result.collapsed,
            "of the fitted mixture collapsed onto too few distinct rows, or onto constant or collinear features; their "
            "variances are held up by a floor of 1e-6 of the data's variance, and the likelihood depends on it. Use "
            "fewer components, another covariance_type, or a larger reg_covar",
        ),
        (
            result.dropped,
            "of the start lost their rows or collapsed and were dropped: the fitted mixture has "
            f"{result.params.n_components} components. Use that many n_components, other starts (n_init), or "
            "degenerate='reseed'",
        ),
        (
            result.reseeded,
            "of the fitted mixture had lost their rows or collapsed, and were started again elsewhere; result_.events "
            "tells when. If it happens again with other starts (n_init), use fewer components",
        ),
    ):
        if components:
            msg = f"components {_listed(components)} {text}"
            warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)


def _listed(components: Sequence[int]) -> str:
    shown = ", ".join(map(str, components[:8]))
    return shown if len(components) <= 8 else f"{shown}, ..."


def _columns(index: Array, names: Sequence[str] | None) -> str:
    listed = ", ".join(repr(names[j]) if names is not None else str(j) for j in index[:5])
    more = f" and {len(index) - 5} more" if len(index) > 5 else ""
    return f"column{'s' if len(index) > 1 else ''} {listed}{more}"
