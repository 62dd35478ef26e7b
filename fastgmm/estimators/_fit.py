"""Several starts and the best of them.

`fit_starts` knows neither rows nor where starts come from; `_run` joins it to both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from fastgmm.covariance import Reference
from fastgmm.em import Accumulate, FitResult, FitStatus, IterationInfo, Places, StartRecord, fit_em
from fastgmm.errors import SingularCovarianceError
from fastgmm.estimators._settings import Settings
from fastgmm.params import Params

FitCallback = Callable[[IterationInfo], object]

STOPPED = (FitStatus.CALLBACK_STOPPED, FitStatus.MAX_TIME)
"""A fit that ended like this was interrupted: no further start is made."""


def fit_starts(
    accumulate: Accumulate,
    starts: Iterator[Params],
    settings: Settings,
    *,
    reference_variance: Reference,
    monotone_rtol: float,
    callback: FitCallback | None,
    places: Places | None = None,
    deadline: float | None = None,
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
    places : callable or None
        As in `fit_em`.
    deadline : float or None
        As in `fit_em`, for all starts together: none is begun later, but the first one is always evaluated.

    Raises
    ------
    SingularCovarianceError
        With ``degenerate="raise"``, if a component collapsed from every start.
    """
    best: FitResult | None = None
    failure: SingularCovarianceError | None = None
    records: list[StartRecord] = []
    for params in starts:
        if records and deadline is not None and time.perf_counter() >= deadline:
            break
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
                places=places,
                monotone_rtol=monotone_rtol,
                deadline=deadline,
            )
        except SingularCovarianceError as error:
            failure = error
            records.append(StartRecord(None, float("nan"), 0, (), (), str(error)))
            continue
        records.append(StartRecord(result.status, result.lower_bound, result.n_iter, result.history, result.events, ""))
        if best is None or result.lower_bound > best.lower_bound:
            best = result
        if result.status in STOPPED:
            break
    if best is None:
        assert failure is not None  # there is at least one start
        raise failure
    return best, tuple(records)
