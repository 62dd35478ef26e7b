"""The EM loop. It never sees a row: it knows a function ``accumulate(params) -> SufficientStatistics``.

Why it is like this

1. An array, a file, a cluster or a test double differ only in their `accumulate`, so there is one loop.
2. The sequence of parameters is scikit-learn's: E-step, M-step, and the fit ends after the M-step of the iteration
   whose log-likelihood moved by less than `tol`. But every number reported belongs to the parameters it is reported
   with: a last pass, without moments, gives the log-likelihood of what is returned. (scikit-learn reports the one
   before.)
3. What happens to a component that dies or collapses is the business of `care`. The log-likelihood never falls in an
   iteration of which no event is recorded, but for rounding and what `reg_covar` explains.
4. A pass discovers a singular covariance itself when it factorises; asking beforehand would cost a second
   factorisation in every iteration.
5. Between passes only one set of covariances is alive here, because K D^2 numbers are what a fit in many dimensions
   consists of. (A fit that keeps checkpoints holds two.)
6. The state between two iterations is a value, `FitState`: the parameters, exact to the bit, and a few numbers. That is
   all a checkpoint needs. Whoever takes it up repeats one pass, whose log-likelihood proves that the data are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from fastgmm import covariance
from fastgmm.constants import MONOTONE_RTOL, SMALL_COVARIANCES_BYTES
from fastgmm.covariance import Reference
from fastgmm.em.account import ComponentEvent, FitResult, FitState, FitStatus, IterationInfo, IterationRecord
from fastgmm.em.care import Care, Places
from fastgmm.errors import CheckpointError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Float64Array


class Accumulate(Protocol):
    """One data pass: the statistics of all rows under the given parameters."""

    def __call__(self, params: Params, *, moments: bool = True) -> SufficientStatistics:
        """Run the pass; without `moments` only log-likelihood, log_map, total_weight and n_rows are needed."""
        ...


def fit_em(
    accumulate: Accumulate,
    params: Params,
    *,
    reference_variance: Reference,
    reg_covar: Reference = 1e-6,
    tol: float = 1e-3,
    max_iter: int = 100,
    callback: Callable[[IterationInfo], object] | None = None,
    degenerate: str = "floor",
    places: Places | None = None,
    monotone_rtol: float = MONOTONE_RTOL,
    state: FitState | None = None,
    watch: Callable[[FitState], object] | None = None,
    deadline: float | None = None,
) -> FitResult:
    """Fit a Gaussian mixture by expectation maximisation.

    Parameters
    ----------
    accumulate : callable
        ``accumulate(params, moments=True) -> SufficientStatistics``: a pass over all rows, with the scatter kind of the
        family of `params`. It raises `SingularCovarianceError` for parameters that have no density.
    params : Params
        The start.
    reference_variance : float or ndarray (D,)
        The data's variance, together or per feature; the variance floor is 1e-6 of it.
    reg_covar : float or ndarray (D,)
        Added to every variance in each M-step, squared units of the data; one for each feature where the family has
        such variances.
    tol : float
        The fit has converged when the mean log-likelihood (nats per unit of row weight) moves by less. 0 never stops.
    max_iter : int
        Number of M-steps at most; 0 evaluates the start.
    callback : callable, optional
        Called with an `IterationInfo` after each iteration; a true result stops the fit. Its exceptions propagate.
    degenerate : {"floor", "reseed", "drop", "raise"}
        What to do with a component that empties or collapses; see `fastgmm.em.care`.
    places : callable, optional
        ``places(params, n, attempt) -> ndarray (n, D)``: means for `n` components to be started again, where `params`
        fit the data poorly; "reseed" needs it. `attempt` counts the components reseeded before.
    monotone_rtol : float
        Relative rounding error of the log-likelihoods of `accumulate`; a fall within it is no "decrease". Passes over
        float32 rows need ``MONOTONE_RTOL_FLOAT32``.
    state : FitState, optional
        Go on from here, where an earlier fit was; `params` is then not used. Its last pass is repeated.
    watch : callable, optional
        Called with a `FitState` after the first pass and after each iteration, before the callback.
    deadline : float, optional
        Value of `time.perf_counter`: the first iteration that ends later is the last. One is always done, so that a fit
        that is taken up again and again comes to its end.

    Returns
    -------
    FitResult

    Raises
    ------
    InvalidParameterError
        If `degenerate` is unknown.
    SingularCovarianceError
        With ``degenerate="raise"``, when a component collapses.
    CheckpointError
        If the pass repeated for `state` gives another log-likelihood, so that these are not the same data.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import covariance, passes
    >>> from fastgmm.data import as_rows
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(-3.0, 1.0, (100, 1)), rng.normal(3.0, 1.0, (100, 1))])
    >>> run = passes.Accumulator(as_rows(x), "trace")
    >>> start = covariance.make_params([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], "spherical")
    >>> result = fit_em(
    ...     lambda params, *, moments=True: run(covariance.density(params), moments=moments),
    ...     start, reference_variance=x.var(axis=0),
    ... )
    >>> result.status.name, result.params.means.round(1).ravel()
    ('CONVERGED', array([-2.9,  3. ]))
    """
    care = Care(degenerate, reference_variance, places, params, state)
    loop = _Loop(accumulate, care, reg_covar, monotone_rtol)
    return loop.run(params, tol, max_iter, callback, state=state, watch=watch, deadline=deadline)


class _Loop:
    """One fit; lives as long as `run`."""

    def __init__(self, accumulate: Accumulate, care: Care, reg_covar: Reference, monotone_rtol: float) -> None:
        self.accumulate = accumulate
        self.care = care
        self.reg_covar = reg_covar
        self.regularised = bool(np.max(reg_covar) > 0.0) if isinstance(reg_covar, np.ndarray) else reg_covar > 0.0
        self.monotone_rtol = monotone_rtol
        self.with_moments = True  # of the last pass

    def run(
        self,
        params: Params,
        tol: float,
        max_iter: int,
        callback: Callable[[IterationInfo], object] | None,
        *,
        state: FitState | None,
        watch: Callable[[FitState], object] | None,
        deadline: float | None,
    ) -> FitResult:
        clock, care = time.perf_counter, self.care
        status = FitStatus.MAX_ITER
        if state is None:
            iteration, change = 0, math.inf
            history: list[IterationRecord] = []
            params, stats = self.evaluate(params, 0, last=max_iter == 0, final=max_iter == 0)
            initial = stats.log_likelihood
        else:
            params, iteration, initial = state.params, state.iteration, state.initial_log_likelihood
            stats, history, change = self.take_up(state, go_on=iteration < max_iter)
        care.restarted = False
        log_likelihood, total = stats.log_likelihood, stats.total_weight
        bound = _mean(log_likelihood, total)
        if watch is not None:
            watch(self.state(params, iteration, log_likelihood, change, initial, total, history))
        started, begun = clock(), iteration
        while iteration < max_iter:
            if deadline is not None and started >= deadline and iteration > begun:
                status = FitStatus.MAX_TIME
                break
            iteration += 1
            converged, final = abs(change) < tol, iteration == max_iter
            before, weight = self.keep(params), stats.weight
            empty = covariance.empty_components(stats)
            params = covariance.maximize_but(empty, stats, params, self.reg_covar)
            if empty is not None or care.empty:
                params = care.after_m_step(params, stats, empty, iteration, final=final)
            del stats  # its K D^2 numbers are not needed while the pass gathers the next
            params, stats = self.evaluate(params, iteration, last=converged or final, final=final)
            fall = log_likelihood - stats.log_likelihood
            if fall > 0.0 and not care.restarted:
                self.note_fall(fall, stats, iteration, before, params, weight)
            del before
            log_likelihood = stats.log_likelihood
            previous_bound, bound = bound, _mean(log_likelihood, total)
            gain = change = bound - previous_bound
            if care.restarted:
                care.restarted, converged, change = False, False, math.inf
            now = clock()
            seconds, started = now - started, now
            history.append(IterationRecord(log_likelihood, seconds))
            if watch is not None:
                watch(self.state(params, iteration, log_likelihood, change, initial, total, history))
            stop = callback is not None and callback(
                IterationInfo(iteration, max_iter, params, log_likelihood, bound, gain, seconds)
            )
            if converged:
                status = FitStatus.CONVERGED
                break
            if stop:
                status = FitStatus.CALLBACK_STOPPED
                break
        end = self.state(params, iteration, log_likelihood, change, initial, total, history)
        return end.result(status, stats.log_map)

    def evaluate(
        self, params: Params, iteration: int, *, last: bool, final: bool
    ) -> tuple[Params, SufficientStatistics]:
        """Run a pass under `params`, treated where they have no sound density.

        Moments are not gathered for the `last` parameters; but if components were started again, there is another
        iteration, unless this was the `final` one that is allowed.
        """
        care = self.care
        params = care.before_pass(params, iteration, final=final)
        self.with_moments = not last or (care.restarted and not final)
        for _ in range(2 * params.n_components):  # a pass names one component at a time
            try:
                stats = self.accumulate(params, moments=self.with_moments)
                break
            except SingularCovarianceError as error:
                params = care.after_failure(params, error, iteration, final=final)
                self.with_moments = not last or (care.restarted and not final)
        else:
            stats = self.accumulate(params, moments=self.with_moments)
        care.after_pass(iteration)
        return params, stats

    def state(
        self,
        params: Params,
        iteration: int,
        log_likelihood: float,
        change: float,
        initial: float,
        total: float,
        history: list[IterationRecord],
    ) -> FitState:
        care = self.care
        return FitState(
            params=params,
            iteration=iteration,
            log_likelihood=log_likelihood,
            with_moments=self.with_moments,
            change=change,
            initial_log_likelihood=initial,
            total_weight=total,
            history=tuple(history),
            events=tuple(care.events),
            empty=tuple(care.empty),
            collapsed=tuple(care.collapsed),
            numbers=tuple(care.numbers),
            dropped=tuple(care.dropped),
            reseeds=tuple(care.reseeds),
            n_reseeds=care.n_reseeds,
        )

    def take_up(self, state: FitState, *, go_on: bool) -> tuple[SufficientStatistics, list[IterationRecord], float]:
        """Repeat the pass after which `state` was kept, and check that it says the same to the bit."""
        history, change = list(state.history), state.change
        self.with_moments = state.with_moments
        try:
            stats = self.accumulate(state.params, moments=state.with_moments)
        except SingularCovarianceError as error:  # there was a pass under these parameters
            msg = f"the fit cannot be resumed: {error}. X has another dtype, or this is not what was written"
            raise CheckpointError(msg) from error
        same = (stats.log_likelihood, stats.total_weight) == (state.log_likelihood, state.total_weight)
        if not same:
            msg = (
                f"the fit cannot be resumed: under the parameters of iteration {state.iteration} the log-likelihood of "
                f"X is {stats.log_likelihood!r}, but it was {state.log_likelihood!r}. X or its weights have changed, "
                "or this machine or release rounds differently. Give it the data it was begun with, or begin a new fit"
            )
            raise CheckpointError(msg)
        if go_on and not state.with_moments:
            # It was the last pass of a fit that is now to go on: a longer fit would have gathered moments here, and
            # that pass may round differently.
            self.with_moments = True
            stats = self.accumulate(state.params, moments=True)
            if history:
                history[-1] = IterationRecord(stats.log_likelihood, history[-1].seconds)
                if math.isfinite(change):
                    previous = history[-2].log_likelihood if len(history) > 1 else state.initial_log_likelihood
                    total = stats.total_weight
                    change = _mean(stats.log_likelihood, total) - _mean(previous, total)
        return stats, history, change

    def keep(self, params: Params) -> Params | None:
        """Return parameters that `note_fall` may need, if they are small; only `reg_covar` makes it need them."""
        return params if self.regularised and params.covariances.nbytes <= SMALL_COVARIANCES_BYTES else None

    def note_fall(
        self,
        fall: float,
        stats: SufficientStatistics,
        iteration: int,
        before: Params | None,
        params: Params,
        weight: Float64Array,
    ) -> None:
        """Record a fall of the log-likelihood that rounding and `reg_covar` do not explain.

        Notes
        -----
        An M-step with reg_covar maximises Q - 1/2 sum_k n_k tr(R Sigma_k^-1) instead of Q, where R is diagonal and
        holds reg_covar, so the log-likelihood may fall by 1/2 sum_k n_k tr R (Sigma_old^-1 - Sigma_new^-1), and by no
        more. Where the old covariances were not kept (they are large) a fall with reg_covar > 0 is not judged; nor is
        one after a variance floor.
        """
        allowed = self.monotone_rtol * (abs(stats.log_likelihood) + stats.total_weight)
        if fall <= allowed or self.care.collapsed:
            return
        if self.regularised:
            if before is None:
                return
            rise = _penalty(before, self.reg_covar) - _penalty(params, self.reg_covar)
            allowed += max(0.0, 0.5 * float(weight @ rise))
        if fall > allowed:
            detail = f"the log-likelihood fell by {fall:.6g}; rounding and reg_covar explain {allowed:.3g}"
            self.care.events.append(ComponentEvent(iteration, None, "decrease", detail))


def _penalty(params: Params, reg_covar: Reference) -> Float64Array:
    """Sum over features of reg_covar times the diagonal of each component's precision, (K,)."""
    shape = params.means.shape
    family = covariance.FAMILIES[params.covariance_type]
    diagonal = family.variances(family.precisions(params.covariances), *shape)
    return np.asarray((np.broadcast_to(diagonal, shape) * reg_covar).sum(axis=1))


def _mean(log_likelihood: float, total_weight: float) -> float:
    return log_likelihood / total_weight if total_weight > 0.0 else math.nan
