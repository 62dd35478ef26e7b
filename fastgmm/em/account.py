"""What there is to say about a fit, as frozen values: how it ended, its history, its events, its state half way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from fastgmm.params import Params


class FitStatus(Enum):
    """How a fit ended; each value is a sentence for the user."""

    CONVERGED = "The fit converged: the mean log-likelihood changed by less than tol."
    MAX_ITER = (
        "The fit stopped at max_iter before it converged: raise max_iter or tol, try other starts (init_params, "
        "n_init), or check the data for degenerate features."
    )
    CALLBACK_STOPPED = "The fit was stopped by the callback: fit again with warm_start=True to go on."
    MAX_TIME = (
        "The fit stopped at max_time before it converged: give it more time or a larger tol, or go on from here with "
        "warm_start=True, or with resume=True if it has a checkpoint."
    )


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
        Its number among the start parameters, which it keeps when others are dropped. None where the event concerns
        the whole mixture.
    kind : str
        "empty": the component lost its rows and keeps its mean and covariance. "collapsed": its covariance became
        singular and got the variance floor. "reseeded": it had emptied or collapsed and was started again elsewhere.
        "dropped": it had, and was removed. "decrease": the log-likelihood fell by more than rounding and `reg_covar`
        explain. Of "empty" and "collapsed" only the first iteration of an unbroken run is recorded. In an iteration
        with a "reseeded" or "dropped" the log-likelihood may fall without a "decrease".
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
    reseeded : tuple of int
        Components of `params` that were started again at least once, in the numbering of `params`.
    dropped : tuple of int
        Components that `params` no longer has, in the numbering of the start. The others keep their order.
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
    reseeded: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.status is FitStatus.CONVERGED


@dataclass(frozen=True, slots=True, eq=False)
class FitState:
    """All that EM knows between two iterations: a fit that goes on from here computes what it would have computed.

    Attributes
    ----------
    params : Params
    iteration : int
        M-steps done.
    log_likelihood : float
        Nats, summed over rows, of `params`.
    with_moments : bool
        Whether it is that of a pass with moments. One without may round differently.
    change : float
        What the iteration added to the mean log-likelihood; infinite where that says nothing about convergence.
    initial_log_likelihood, total_weight : float
    history : tuple of IterationRecord
    events : tuple of ComponentEvent
    empty, collapsed : tuple of int
        In the numbering of `params`.
    numbers : tuple of int
        For each component of `params`, its number among the start parameters.
    dropped : tuple of int
        In the numbering of the start.
    reseeds : tuple of int
        How often each component of `params` was started again.
    n_reseeds : int
        The same for all components, dropped ones included.
    """

    params: Params
    iteration: int
    log_likelihood: float
    with_moments: bool
    change: float
    initial_log_likelihood: float
    total_weight: float
    history: tuple[IterationRecord, ...]
    events: tuple[ComponentEvent, ...]
    empty: tuple[int, ...]
    collapsed: tuple[int, ...]
    numbers: tuple[int, ...]
    dropped: tuple[int, ...]
    reseeds: tuple[int, ...]
    n_reseeds: int

    def result(self, status: FitStatus, log_map: float) -> FitResult:
        """Return the outcome of a fit that ends here."""
        total = self.total_weight
        return FitResult(
            params=self.params,
            status=status,
            n_iter=self.iteration,
            log_likelihood=self.log_likelihood,
            lower_bound=self.log_likelihood / total if total > 0.0 else math.nan,
            log_map=log_map,
            initial_log_likelihood=self.initial_log_likelihood,
            total_weight=total,
            history=self.history,
            events=self.events,
            empty=self.empty,
            collapsed=self.collapsed,
            reseeded=tuple(k for k, times in enumerate(self.reseeds) if times),
            dropped=tuple(sorted(self.dropped)),
        )


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
