"""Several starts and the best of them.

`fit_starts` knows neither rows nor where starts come from; `_run` joins it to both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from fastgmm.covariance import Reference
from fastgmm.em import Accumulate, FitResult, FitState, FitStatus, IterationInfo, Places, StartRecord, fit_em
from fastgmm.errors import SingularCovarianceError
from fastgmm.estimators._settings import Settings
from fastgmm.params import Params

FitCallback = Callable[[IterationInfo], object]

STOPPED = (FitStatus.CALLBACK_STOPPED, FitStatus.MAX_TIME)
"""A fit that ended like this was interrupted: no further start is made."""


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """Where a fit that is resumed goes on.

    Attributes
    ----------
    records : tuple of StartRecord
        Of the starts that came to their end.
    best : FitResult or None
        The best of them.
    state : FitState or None
        Of the start that was under way.
    index : int
        Which one that is, counted from 0.
    """

    records: tuple[StartRecord, ...]
    best: FitResult | None
    state: FitState | None
    index: int


class Book(Protocol):
    """Keeps checkpoints: `fastgmm.estimators._journal.Journal`."""

    def recall(self, settings: Settings) -> Recalled:
        """Return where to go on."""
        ...

    def watch(self, state: FitState) -> None:
        """Take note of an iteration."""
        ...

    def ended(self, result: FitResult | None, record: StartRecord) -> None:
        """Take note of the end of a start; `result` is None if it failed."""
        ...


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
    book: Book | None = None,
) -> tuple[FitResult, tuple[StartRecord, ...]]:
    """Run EM from each start and return the result of the largest likelihood.

    Parameters
    ----------
    accumulate : callable
        As in `fit_em`.
    starts : iterator of Params
        At least one; drawn one at a time, and none after the deadline.
    settings : Settings
    reference_variance : ndarray (D,)
        Variance of the features.
    monotone_rtol : float
        As in `fit_em`.
    callback : callable or None
        As in `fit_em`. When it stops a fit, no further start is made.
    places : callable or None
        As in `fit_em`.
    book : Book or None
        Told of every iteration, so that it can keep checkpoints; says where a fit that is resumed goes on.
    deadline : float or None
        As in `fit_em`, for all starts together: none is begun later, but every call has one.

    Raises
    ------
    SingularCovarianceError
        With ``degenerate="raise"``, if a component collapsed from every start.
    """
    recalled = Recalled((), None, None, 0) if book is None else book.recall(settings)
    records, best, state = list(recalled.records), recalled.best, recalled.state
    at = recalled.index
    failure: SingularCovarianceError | None = None
    todo = starts if state is None else chain([state.params], starts)
    for params in _until(deadline, todo, enough=lambda: any(record.status for record in records)):
        result, record = None, None
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
                state=state,
                watch=None if book is None else book.watch,
                deadline=deadline,
            )
        except SingularCovarianceError as error:
            failure = error
            record = StartRecord(None, float("nan"), 0, (), (), str(error))
        else:
            record = StartRecord(result.status, result.lower_bound, result.n_iter, result.history, result.events, "")
        records.insert(at, record)
        at, state = len(records), None
        if book is not None:
            book.ended(result, record)
        if result is not None and (best is None or result.lower_bound > best.lower_bound):
            best = result
        if result is not None and result.status in STOPPED:
            break
    if best is None:
        raise failure or SingularCovarianceError(records[-1].error, component=None, family="", min_eig=float("nan"))
    return best, tuple(records)


def _until(deadline: float | None, starts: Iterator[Params], *, enough: Callable[[], bool]) -> Iterator[Params]:
    """Yield starts until the deadline; at least one, and as long as there is not `enough`.

    The clock is looked at before the next one is drawn: that may take as long as some iterations.
    """
    first = True
    while first or deadline is None or time.perf_counter() < deadline or not enough():
        params = next(starts, None)
        if params is None:
            return
        first = False
        yield params
