"""Several starts, the best of them, and what to say about the data and the result.

`fit_starts` is everything between checked arguments and a `FitResult`; estimators and model search call it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm import covariance
from fastgmm.data import ArrayRows, CopiedRows
from fastgmm.em import ComponentEvent, FitResult, FitStatus, IterationInfo, IterationRecord, fit_em
from fastgmm.errors import DegenerateComponentWarning, DegenerateDataWarning, SingularCovarianceError
from fastgmm.estimators._settings import Settings
from fastgmm.estimators._sklearn import known_class
from fastgmm.initialize import RowSample
from fastgmm.params import Params
from fastgmm.passes import Accumulator
from fastgmm.stats import SufficientStatistics

FitCallback = Callable[[IterationInfo], object]


@dataclass(frozen=True, slots=True, eq=False)
class StartRecord:
    """What became of one start; the parameters are kept of the best one only.

    Attributes
    ----------
    status : FitStatus or None
        None if the fit failed.
    lower_bound : float
        Mean log-likelihood, nats; NaN if the fit failed.
    n_iter : int
    history : tuple of IterationRecord
    events : tuple of ComponentEvent
    error : str
        Why the fit failed; empty if it did not.
    """

    status: FitStatus | None
    lower_bound: float
    n_iter: int
    history: tuple[IterationRecord, ...]
    events: tuple[ComponentEvent, ...]
    error: str


def fit_starts(
    rows: ArrayRows | CopiedRows,
    starts: Iterator[Params],
    settings: Settings,
    *,
    reference_variance: Any,
    callback: FitCallback | None,
) -> tuple[FitResult, tuple[StartRecord, ...]]:
    """Run EM from each start and return the result of the largest likelihood.

    Parameters
    ----------
    rows : row source
    starts : iterator of Params
        At least one; drawn one at a time.
    settings : Settings
    reference_variance : ndarray (D,)
        Variance of the features.
    callback : callable or None
        As in `fit_em`. When it stops a fit, no further start is made.

    Raises
    ------
    SingularCovarianceError
        With ``degenerate="raise"``, if a component collapsed from every start.
    """
    accumulator = Accumulator(rows, settings.family.scatter)

    def accumulate(params: Params, *, moments: bool = True) -> SufficientStatistics:
        return accumulator(covariance.density(params), moments=moments)

    best: FitResult | None = None
    failure: SingularCovarianceError | None = None
    records: list[StartRecord] = []
    for params in starts:
        try:
            result = fit_em(
                accumulate,
                params,
                reference_variance=reference_variance,
                reg_covar=settings.reg_covar,
                tol=settings.tol,
                max_iter=settings.max_iter,
                callback=callback,
                degenerate=settings.degenerate,
            )
        except SingularCovarianceError as error:
            failure = error
            records.append(StartRecord(None, float("nan"), 0, (), (), str(error)))
            continue
        records.append(StartRecord(result.status, result.lower_bound, result.n_iter, result.history, result.events, ""))
        if best is None or result.lower_bound > best.lower_bound:
            best = result
        if result.status is FitStatus.CALLBACK_STOPPED:
            break
    if best is None:
        assert failure is not None  # there is at least one start
        raise failure
    return best, tuple(records)


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
    sample: RowSample, n_rows: int, settings: Settings, names: tuple[str, ...] | None, *, stacklevel: int
) -> None:
    """Warn about data that cannot support the model asked for."""
    n_features = sample.variance.shape[0]
    constant = np.flatnonzero(sample.variance == 0.0) if sample.variance.min() == 0.0 else ()
    if len(constant) == n_features:
        msg = (
            "all rows of X are equal: the mixture is a single point, and its covariance is reg_covar or the variance "
            "floor, not a property of the data"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
    elif len(constant):
        listed = ", ".join(repr(names[j]) if names is not None else str(j) for j in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        msg = (
            f"X has constant features: column {listed}{more}. Their variance in the model is reg_covar or the variance "
            "floor, which inflates the likelihood; drop them"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)
    if n_rows <= n_features < settings.family.n_parameters(1, n_features):
        msg = (
            f"X has {n_rows} rows for {n_features} features: covariances between features cannot be estimated, and "
            f"reg_covar alone keeps them invertible. Use covariance_type='diag' or 'spherical', or fewer features"
        )
        warnings.warn(msg, DegenerateDataWarning, stacklevel=stacklevel + 1)


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


def _listed(components: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, components[:8]))
    return shown if len(components) <= 8 else f"{shown}, ..."
