"""Several starts and the best of them.

`fit_starts` knows neither rows nor where starts come from; `_run` joins it to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastgmm.covariance import Reference
from fastgmm.em import Accumulate, ComponentEvent, FitResult, FitStatus, IterationInfo, IterationRecord, fit_em
from fastgmm.errors import SingularCovarianceError
from fastgmm.estimators._settings import Settings
from fastgmm.params import Params

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
    accumulate: Accumulate,
    starts: Iterator[Params],
    settings: Settings,
    *,
    reference_variance: Reference,
    monotone_rtol: float,
    callback: FitCallback | None,
) -> tuple[FitResult, tuple[StartRecord, ...]]:
    """Run EM from each start and return the result of the largest likelihood.

    Parameters
    ----------
    accumulate : callable
        As in `fit_em`.
    starts : iterator of Params
        At least one; drawn one at a time.
    settings : Settings
    reference_variance : ndarray (D,)
        Variance of the features.
    monotone_rtol : float
        As in `fit_em`.
    callback : callable or None
        As in `fit_em`. When it stops a fit, no further start is made.

    Raises
    ------
    SingularCovarianceError
        With ``degenerate="raise"``, if a component collapsed from every start.
    """
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
                monotone_rtol=monotone_rtol,
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
