"""A fit from checked arguments to its outcome: sample, starts, EM, and what to say about them.

Nothing here changes an estimator, so a fit that fails half way leaves the one before as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from fastgmm.constants import MONOTONE_RTOL, MONOTONE_RTOL_FLOAT32
from fastgmm.data import Rows
from fastgmm.em import FitResult, FitStatus, IterationInfo, StartRecord
from fastgmm.estimators._engine import Engine, PassHere
from fastgmm.estimators._fit import FitCallback, fit_starts
from fastgmm.estimators._fitted import out_of_float32
from fastgmm.estimators._journal import Journal
from fastgmm.estimators._memory import check_memory
from fastgmm.estimators._report import (
    held_up,
    usable_reg_covar,
    warn_about_data,
    warn_about_flat,
    warn_about_result,
)
from fastgmm.estimators._settings import Settings
from fastgmm.estimators._sklearn import naming_bad_values
from fastgmm.initialize import RowSample, Start, poorly_fitted, starting_params
from fastgmm.minibatch import run_passes
from fastgmm.mixture import Mixture
from fastgmm.params import Params


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a fit hands to its estimator.

    Attributes
    ----------
    mixture : Mixture
    dtype : numpy.dtype
        Of the user's data.
    result : FitResult
        Of the best start.
    starts : tuple of StartRecord
    flat : tuple of int
        Components that only `reg_covar` keeps from being flat in some direction.
    rows : row source
        What was fitted.
    """

    mixture: Mixture
    dtype: np.dtype[Any]
    result: FitResult
    starts: tuple[StartRecord, ...]
    flat: tuple[int, ...]
    rows: Rows


def run_fit(
    rows: Rows,
    settings: Settings,
    start: Start,
    rng: np.random.Generator,
    *,
    engine: Engine,
    data: Any,
    sample_weight: Any,
    names: Sequence[str] | None,
    warm: Params | None,
    callback: FitCallback | None,
    deadline: float | None = None,
    journal: Journal | None = None,
    stacklevel: int,
) -> Outcome:
    """Fit a mixture.

    Parameters
    ----------
    rows : row source
        ``engine.rows(data, sample_weight)``.
    settings : Settings
    start : Start
    rng : numpy.random.Generator
        Of the sample and the starts.
    engine : Engine
        How to get at the rows.
    data, sample_weight : object
        As the user gave them: for starts that are a function, and where the rows must be read once more as float64.
    names : sequence of str, or None
        Of the features, for messages.
    warm : Params or None
        Start from here, once, instead of `start`.
    callback : callable or None
        As in `fit_em`.
    deadline : float or None
        As in `fit_starts`. Starts are cut short by it, too, but where there is a journal: a fit that goes on must have
        begun where one that never stopped would have.
    journal : Journal or None
        Keeps checkpoints; `rng` is then its generator.
    stacklevel : int
        Of the warnings: 1 is the caller of this function.

    Returns
    -------
    Outcome

    Raises
    ------
    InvalidDataError, NonFiniteDataError, InvalidParameterError, SingularCovarianceError
        See `GaussianMixture.fit`.
    MemoryError
        If the system refuses the memory of the fit; nothing has been done then.
    """
    level = stacklevel + 1
    check_memory(settings.family, settings.n_components, rows.n_features)
    dtype = rows.dtype
    single = warm is not None or start.deterministic
    with naming_bad_values(rows, weightable=True):
        reseeding = settings.degenerate == "reseed"
        before = copy.deepcopy(rng) if reseeding else rng
        sample = engine.sample(rows, settings.n_components, rng, spread_only=start.complete)
        reg_covar = usable_reg_covar(settings, sample, stacklevel=level)
        if reg_covar is not settings.reg_covar:
            settings = replace(settings, reg_covar=reg_covar)
        if dtype == np.float32 and out_of_float32(sample.variance):
            rows = engine.rows(data, sample_weight, dtype=np.float64)
        said = warn_about_data(sample, rows.n_rows, settings, names, stacklevel=level)
        if journal is not None:
            single = journal.meet(rows, sample, settings, single=single)
        n_starts = 1 if single else settings.n_init
        starts = _starts(
            rows,
            settings,
            start,
            sample,
            rng,
            engine=engine,
            data=data,
            warm=warm,
            deadline=deadline if journal is None else None,
        )
        accumulate = engine.accumulate(rows, settings.family.scatter, sample.origin)
        with _progress(settings, rows.n_rows) as bar, nullcontext() if journal is None else journal:
            result, records = fit_starts(
                accumulate,
                islice(starts, n_starts) if journal is None else journal.following(starts, n_starts, rng),
                settings,
                reference_variance=sample.variance,
                monotone_rtol=MONOTONE_RTOL_FLOAT32 if rows.dtype == np.float32 else MONOTONE_RTOL,
                callback=_all_of(bar, callback, settings.verbose_interval),
                places=poorly_fitted(sample, before) if reseeding else None,
                deadline=deadline,
                book=journal,
            )
    known = accumulate.density(result.params) if isinstance(accumulate, PassHere) else None
    mixture = Mixture.from_params(result.params, known)
    flat = held_up(mixture, settings, sample)
    endings = [record.status for record in records]
    stopped = FitStatus.CALLBACK_STOPPED in endings
    made = n_starts if stopped else len(records) - endings.count(FitStatus.MAX_TIME)
    warn_about_result(result, settings, (made, n_starts), stacklevel=level)
    if flat and not said:
        warn_about_flat(mixture, flat, sample, settings, names, stacklevel=level)
    return Outcome(mixture, dtype, result, records, tuple(flat), rows)


def _starts(
    rows: Rows,
    settings: Settings,
    start: Start,
    sample: RowSample,
    rng: np.random.Generator,
    *,
    engine: Engine,
    data: Any,
    warm: Params | None,
    deadline: float | None,
) -> Iterator[Params]:
    """Yield the parameters to start from, one set at a time, for ever."""
    while True:
        if warm is not None:
            yield warm
            continue
        params = starting_params(start, rows, sample, rng, reg_covar=settings.reg_covar, data=data, deadline=deadline)
        if settings.first_passes is not None:
            params = run_passes(
                rows,
                params,
                settings.first_passes,
                accumulate=lambda part, scatter: engine.accumulate(part, scatter, sample.origin),
                scatter=settings.family.scatter,
                step_size=settings.step_size,
                reg_covar=settings.reg_covar,
                reference_variance=sample.variance,
                floor=settings.degenerate != "raise",
                deadline=deadline,
            )
        yield params


def _progress(settings: Settings, n_rows: int) -> Any:
    """Return a progress bar as a context manager, or nothing at all."""
    if settings.verbose < 1:
        return nullcontext()
    from fastgmm.progress import progress_bar

    return progress_bar(settings.max_iter, rows=n_rows)


def _all_of(bar: Any, callback: FitCallback | None, interval: int) -> FitCallback | None:
    """Join the progress bar and the user's callback."""
    if bar is None:
        return callback

    def both(info: IterationInfo) -> object:
        if info.iteration % interval == 0:
            bar(info)
        return callback is not None and callback(info)

    return both
