"""The EM loop. It never sees a row: it knows a function ``accumulate(params) -> SufficientStatistics``.

Why it is like this

1. An array, a file, a cluster or a test double differ only in their `accumulate`, so there is one loop.
2. The sequence of parameters is scikit-learn's: E-step, M-step, and the fit ends after the M-step of the iteration
   whose log-likelihood moved by less than `tol`. But every number reported belongs to the parameters it is reported
   with: a last pass, without moments, gives the log-likelihood of what is returned. (scikit-learn reports the one
   before.)
3. A component that dies or collapses is an event, not an exception in the 90th iteration. One without rows keeps its
   mean and covariance and may come back; one that collapsed onto too few rows gets a variance floor relative to the
   data's variance (`fastgmm.covariance.repair`). What happened is in `FitResult.events`.
4. A pass discovers a singular covariance itself when it factorises; asking beforehand would cost a second
   factorisation in every iteration.
5. Between passes only one set of covariances is alive here, because K D^2 numbers are what a fit in many dimensions
   consists of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from fastgmm import covariance
from fastgmm.constants import FLOOR_FRACTION, MONOTONE_RTOL, SMALL_COVARIANCES_BYTES
from fastgmm.covariance import Reference
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array


class Accumulate(Protocol):
    """One data pass: the statistics of all rows under the given parameters."""

    def __call__(self, params: Params, *, moments: bool = True) -> SufficientStatistics:
        """Run the pass; without `moments` only log-likelihood, log_map, total_weight and n_rows are needed."""
        ...


class FitStatus(Enum):
    """How a fit ended; each value is a sentence for the user."""

    CONVERGED = "The fit converged: the mean log-likelihood changed by less than tol."
    MAX_ITER = (
        "The fit stopped at max_iter before it converged: raise max_iter or tol, try other starts (init_params, "
        "n_init), or check the data for degenerate features."
    )
    CALLBACK_STOPPED = "The fit was stopped by the callback: fit again with warm_start=True to go on."


@dataclass(frozen=True, slots=True)
class IterationRecord:
    """One line of a fit's history.

    Attributes
    ----------
    log_likelihood : float
        Nats, summed over rows, of the parameters that this iteration produced.
    seconds : float
        Wall time of the iteration: M-step and the pass that evaluates it.
    """

    log_likelihood: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class IterationInfo:
    """What a callback is told after each iteration.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    max_iter : int
    params : Params
        The parameters that this iteration produced.
    log_likelihood : float
        Nats, summed over rows, of `params`.
    lower_bound : float
        `log_likelihood` per unit of row weight.
    change : float
        What the iteration added to `lower_bound`.
    seconds : float
        Wall time of the iteration.
    """

    iteration: int
    max_iter: int
    params: Params
    log_likelihood: float
    lower_bound: float
    change: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ComponentEvent:
    """Something that the policy for degenerate components had to handle.

    Attributes
    ----------
    iteration : int
        0 for the start parameters.
    component : int or None
        None where the event concerns the whole mixture.
    kind : str
        "empty": the component lost its rows and keeps its mean and covariance. "collapsed": its covariance became
        singular and got the variance floor. "decrease": the log-likelihood fell by more than rounding and `reg_covar`
        explain. Only the first iteration of an unbroken run of the same trouble is recorded.
    detail : str
        A sentence.
    """

    iteration: int
    component: int | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """Outcome of `fit_em`. Every number belongs to `params`.

    Attributes
    ----------
    params : Params
    status : FitStatus
    n_iter : int
        M-steps done.
    log_likelihood : float
        Nats, summed over rows.
    lower_bound : float
        `log_likelihood` per unit of row weight.
    log_map : float
        Sum over rows of the log of the largest responsibility; ICL = BIC - 2 log_map (with smaller-is-better BIC).
    initial_log_likelihood : float
        Of the start parameters.
    total_weight : float
    history : tuple of IterationRecord
        One for each iteration.
    events : tuple of ComponentEvent
    empty, collapsed : tuple of int
        Components of `params` without rows, and components whose covariance is held up by the variance floor.
    """

    params: Params
    status: FitStatus
    n_iter: int
    log_likelihood: float
    lower_bound: float
    log_map: float
    initial_log_likelihood: float
    total_weight: float
    history: tuple[IterationRecord, ...]
    events: tuple[ComponentEvent, ...]
    empty: tuple[int, ...]
    collapsed: tuple[int, ...]

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.status is FitStatus.CONVERGED


DEGENERATE = ("floor", "raise")
"""Policies for a collapsed component."""


def fit_em(
    accumulate: Accumulate,
    params: Params,
    *,
    reference_variance: Reference,
    reg_covar: float = 1e-6,
    tol: float = 1e-3,
    max_iter: int = 100,
    callback: Callable[[IterationInfo], object] | None = None,
    degenerate: str = "floor",
    monotone_rtol: float = MONOTONE_RTOL,
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
    reg_covar : float
        Added to every variance in each M-step, squared units of the data.
    tol : float
        The fit has converged when the mean log-likelihood (nats per unit of row weight) moves by less. 0 never stops.
    max_iter : int
        Number of M-steps at most; 0 evaluates the start.
    callback : callable, optional
        Called with an `IterationInfo` after each iteration; a true result stops the fit. Its exceptions propagate.
    degenerate : {"floor", "raise"}
        What to do with a collapsed component.
    monotone_rtol : float
        Relative rounding error of the log-likelihoods of `accumulate`; a fall within it is no "decrease". Passes over
        float32 rows need ``MONOTONE_RTOL_FLOAT32``.

    Returns
    -------
    FitResult

    Raises
    ------
    InvalidParameterError
        If `degenerate` is unknown.
    SingularCovarianceError
        With ``degenerate="raise"``, when a component collapses.

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
    if degenerate not in DEGENERATE:
        msg = f"degenerate must be one of {', '.join(map(repr, DEGENERATE))}; got {degenerate!r}"
        raise InvalidParameterError(msg)
    loop = _Loop(accumulate, reference_variance, reg_covar, degenerate, monotone_rtol)
    return loop.run(params, tol, max_iter, callback)


class _Loop:
    """State of one fit; lives as long as `run`."""

    def __init__(
        self,
        accumulate: Accumulate,
        reference_variance: Reference,
        reg_covar: float,
        degenerate: str,
        monotone_rtol: float,
    ) -> None:
        self.accumulate = accumulate
        self.reference_variance = reference_variance
        self.reg_covar = reg_covar
        self.degenerate = degenerate
        self.monotone_rtol = monotone_rtol
        self.events: list[ComponentEvent] = []
        self.empty: list[int] = []
        self.collapsed: list[int] = []

    def run(
        self,
        params: Params,
        tol: float,
        max_iter: int,
        callback: Callable[[IterationInfo], object] | None,
    ) -> FitResult:
        clock = time.perf_counter
        history: list[IterationRecord] = []
        status = FitStatus.MAX_ITER
        iteration = 0
        params, stats = self.evaluate(params, iteration, moments=max_iter > 0)
        total = stats.total_weight
        initial = log_likelihood = stats.log_likelihood
        bound, change = _mean(log_likelihood, total), math.inf
        started = clock()
        while iteration < max_iter:
            iteration += 1
            converged = abs(change) < tol
            before, weight = self.keep(params), stats.weight
            params = self.maximize(stats, params, iteration)
            del stats  # its K D^2 numbers are not needed while the pass gathers the next
            last = converged or iteration == max_iter
            params, stats = self.evaluate(params, iteration, moments=not last)
            fall = log_likelihood - stats.log_likelihood
            if fall > 0.0:
                self.note_fall(fall, stats, iteration, before, params, weight)
            del before
            log_likelihood = stats.log_likelihood
            previous_bound, bound = bound, _mean(log_likelihood, total)
            change = bound - previous_bound
            now = clock()
            seconds, started = now - started, now
            history.append(IterationRecord(log_likelihood, seconds))
            stop = callback is not None and callback(
                IterationInfo(iteration, max_iter, params, log_likelihood, bound, change, seconds)
            )
            if converged:
                status = FitStatus.CONVERGED
                break
            if stop:
                status = FitStatus.CALLBACK_STOPPED
                break
        return FitResult(
            params=params,
            status=status,
            n_iter=iteration,
            log_likelihood=log_likelihood,
            lower_bound=bound,
            log_map=stats.log_map,
            initial_log_likelihood=initial,
            total_weight=total,
            history=tuple(history),
            events=tuple(self.events),
            empty=tuple(self.empty),
            collapsed=tuple(self.collapsed),
        )

    def maximize(self, stats: SufficientStatistics, params: Params, iteration: int) -> Params:
        """M-step, noting the components that are empty."""
        mask = covariance.empty_components(stats)
        if mask is not None or self.empty:
            now = [] if mask is None else [int(k) for k in np.flatnonzero(mask)]
            for k in now:
                if k not in self.empty:
                    detail = f"its rows weigh {stats.weight[k]:.3g} of {stats.total_weight:.6g} together"
                    self.events.append(ComponentEvent(iteration, k, "empty", detail))
            self.empty = now
        return covariance.maximize(stats, params, self.reg_covar)

    def evaluate(self, params: Params, iteration: int, *, moments: bool) -> tuple[Params, SufficientStatistics]:
        """Run a pass under `params`, repaired where they have no sound density."""
        repaired: list[int] = []
        mask = covariance.unresolved(params)
        if self.collapsed:
            again = covariance.below_floor(params, self.collapsed, self.reference_variance)
            mask = again if mask is None else mask if again is None else mask | again
        if mask is not None:
            if self.degenerate == "raise":
                raise self.collapse_error(params, mask, iteration)
            params, repaired = covariance.repair(params, self.reference_variance, collapsed=mask)
        try:
            stats = self.accumulate(params, moments=moments)
        except SingularCovarianceError as error:
            if self.degenerate == "raise":
                raise
            params, more = covariance.repair(params, self.reference_variance, error)
            repaired = sorted({*repaired, *more})
            stats = self.accumulate(params, moments=moments)
        if repaired or self.collapsed:
            for k in repaired:
                if k not in self.collapsed:
                    detail = (
                        f"its covariance became singular; variances were raised by {FLOOR_FRACTION:g} of the data's "
                        "variance or the least multiple by a power of ten that suffices"
                    )
                    self.events.append(ComponentEvent(iteration, k, "collapsed", detail))
            self.collapsed = repaired
        return params, stats

    def collapse_error(self, params: Params, mask: Array, iteration: int) -> SingularCovarianceError:
        component = int(np.flatnonzero(mask.any(axis=1))[0])
        msg = (
            f"component {component} collapsed in iteration {iteration}: its spread is below the rounding of its mean. "
            "Use fewer components, a larger reg_covar, or degenerate='floor'"
        )
        return SingularCovarianceError(msg, component=component, family=params.covariance_type, min_eig=0.0)

    def keep(self, params: Params) -> Params | None:
        """Return parameters that `note_fall` may need, if they are small; only `reg_covar` makes it need them."""
        return params if self.reg_covar > 0.0 and params.covariances.nbytes <= SMALL_COVARIANCES_BYTES else None

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
        An M-step with reg_covar maximises Q - reg/2 sum_k n_k tr(Sigma_k^-1) instead of Q, so the log-likelihood may
        fall by reg/2 sum_k n_k (tr Sigma_old^-1 - tr Sigma_new^-1), and by no more. Where the old covariances were not
        kept (they are large) a fall with reg_covar > 0 is not judged; nor is one after a variance floor.
        """
        allowed = self.monotone_rtol * (abs(stats.log_likelihood) + stats.total_weight)
        if fall <= allowed or self.collapsed:
            return
        if self.reg_covar > 0.0:
            if before is None:
                return
            rise = _trace_precisions(before) - _trace_precisions(params)
            allowed += max(0.0, 0.5 * self.reg_covar * float(weight @ rise))
        if fall > allowed:
            detail = f"the log-likelihood fell by {fall:.6g}; rounding and reg_covar explain {allowed:.3g}"
            self.events.append(ComponentEvent(iteration, None, "decrease", detail))


def _trace_precisions(params: Params) -> Float64Array:
    """Trace of each component's precision, (K,)."""
    shape = params.means.shape
    family = covariance.FAMILIES[params.covariance_type]
    diagonal = family.variances(family.precisions(params.covariances), *shape)
    return np.asarray(np.broadcast_to(diagonal, shape).sum(axis=1))


def _mean(log_likelihood: float, total_weight: float) -> float:
    return log_likelihood / total_weight if total_weight > 0.0 else math.nan
