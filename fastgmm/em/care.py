"""What happens to a component that loses its rows or collapses onto too few of them.

Why it is like this

1. Such a component is an event, not an exception in the 90th iteration: it is repaired by the stated policy, recorded
   and warned about at the end.
2. "floor": a collapsed component gets a variance floor relative to the data's variance (`fastgmm.covariance.repair`);
   an empty one keeps its mean and covariance and may come back. "reseed": it is started again where the data are
   poorly fitted, a few times at most, then the floor holds it. "drop": it is removed. "raise": a collapse is an
   exception.
3. A shared covariance collapses for all components at once, so none of them can be reseeded or dropped for it: there
   the floor is the policy. The last component is never dropped, and the last iteration never reseeds: a component
   that was started and not fitted is worse than one on the floor.
4. After a reseed or a drop the log-likelihood starts from a new place, usually a lower one: that of a collapsed
   component was large for no good reason. So there is no "best so far" to go back to; the fit goes on from there, and
   what it did before says nothing about convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from fastgmm import covariance
from fastgmm.constants import FLOOR_FRACTION, RESEEDS_PER_COMPONENT, RESEEDS_PER_FIT
from fastgmm.covariance import Reference
from fastgmm.em.account import ComponentEvent, FitState
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array

DEGENERATE: Final = ("floor", "reseed", "drop", "raise")
"""Policies for a component that emptied or collapsed."""

Places: TypeAlias = Callable[[Params, int, int], Float64Array]
"""``places(params, n, attempt) -> (n, D)``: where `params` fit the data poorly; `attempt` counts the calls of a fit."""

_FLOORED: Final = (
    f"its covariance became singular; variances were raised by {FLOOR_FRACTION:g} of the data's "
    "variance or the least multiple by a power of ten that suffices"
)


class Care:
    """The policy for degenerate components, and what it has seen in one fit.

    Parameters
    ----------
    policy : {"floor", "reseed", "drop", "raise"}
    reference_variance : float or ndarray (D,)
    places : callable or None
        See `Places`; "reseed" needs it.
    params : Params
        The start.
    state : FitState or None
        Of the fit that is taken up again.

    Attributes
    ----------
    events : list of ComponentEvent
    empty, collapsed : list of int
        In the numbering of the present parameters; replaced, never changed in place.
    restarted : bool
        Whether components were reseeded or dropped since the loop last set this to False.
    """

    def __init__(
        self,
        policy: str,
        reference_variance: Reference,
        places: Places | None,
        params: Params,
        state: FitState | None,
    ) -> None:
        if policy not in DEGENERATE:
            msg = f"degenerate must be one of {', '.join(map(repr, DEGENERATE))}; got {policy!r}"
            raise InvalidParameterError(msg)
        if policy == "reseed" and places is None:
            msg = "degenerate='reseed' needs places: a function that says where the data are poorly fitted; got None"
            raise InvalidParameterError(msg)
        self.policy = policy
        self.reference_variance = reference_variance
        self.places = places
        k = params.n_components
        self.events: list[ComponentEvent] = [] if state is None else list(state.events)
        self.empty: list[int] = [] if state is None else list(state.empty)
        self.collapsed: list[int] = [] if state is None else list(state.collapsed)
        self.numbers: list[int] = list(range(k)) if state is None else list(state.numbers)
        self.dropped: list[int] = [] if state is None else list(state.dropped)
        self.reseeds: list[int] = [0] * k if state is None else list(state.reseeds)
        self.n_reseeds = 0 if state is None else state.n_reseeds
        self.restarted = False
        self._floored: list[int] = []
        self._apart = not covariance.is_shared(params.covariance_type)

    def after_m_step(
        self, params: Params, stats: SufficientStatistics, mask: Array | None, iteration: int, *, final: bool
    ) -> Params:
        """Look at the components without rows, marked in `mask` (K,); `final` if no iteration follows."""
        if mask is None:
            self.empty = []
            return params
        now = [int(k) for k in np.flatnonzero(mask)]
        why = {k: f"its rows weigh {stats.weight[k]:.3g} of {stats.total_weight:.6g} together" for k in now}
        if self.policy == "drop":
            self.empty = []
            return self._drop(params, now, why, iteration)
        if self.policy == "reseed" and not final:
            healthy = [k for k in range(params.n_components) if not mask[k]]
            chosen = self._affordable(now)
            params = self._reseed(params, chosen, healthy, why, iteration)
            now = [k for k in now if k not in chosen]
        for k in now:
            if k not in self.empty:
                self._record(iteration, k, "empty", why[k])
        self.empty = now
        return params

    def before_pass(self, params: Params, iteration: int, *, final: bool) -> Params:
        """Look at the covariances that are no more than rounding."""
        mask = covariance.unresolved(params)
        self._floored = []
        if self.collapsed:
            again = covariance.below_floor(params, self.collapsed, self.reference_variance)
            mask = again if mask is None else mask if again is None else mask | again
        if mask is None:
            return params
        if self.policy == "raise":
            raise self._collapse_error(params, mask, iteration)
        repaired, bad = covariance.repair(params, self.reference_variance, collapsed=mask)
        return self._treat(repaired, bad, iteration, final=final)

    def after_failure(self, params: Params, error: SingularCovarianceError, iteration: int, *, final: bool) -> Params:
        """Look at parameters that a pass has refused; what is returned has a density."""
        if self.policy == "raise":
            raise error
        repaired, bad = covariance.repair(params, self.reference_variance, error)
        return self._treat(repaired, bad, iteration, final=final)

    def after_pass(self, iteration: int) -> None:
        """Record what the floor holds up."""
        if self._floored or self.collapsed:
            for k in self._floored:
                if k not in self.collapsed:
                    self._record(iteration, k, "collapsed", _FLOORED)
            self.collapsed = self._floored

    def _treat(self, repaired: Params, bad: list[int], iteration: int, *, final: bool) -> Params:
        """Apply the policy to components that collapsed; `repaired` has the floor already."""
        why = dict.fromkeys(bad, "its covariance became singular")
        rest = bad
        if self._apart and self.policy == "drop":
            if len(bad) == repaired.n_components:  # the heaviest stays, held up by the floor
                stays = int(np.argmax(repaired.weights))
                bad = [k for k in bad if k != stays]
            self._floored = sorted({*self._floored, *rest} - set(bad))
            return self._drop(repaired, bad, why, iteration)
        if self._apart and self.policy == "reseed" and not final:
            healthy = [k for k in range(repaired.n_components) if k not in bad and repaired.weights[k] > 0.0]
            chosen = self._affordable(bad) if healthy else []
            repaired = self._reseed(repaired, chosen, healthy, why, iteration)
            rest = [k for k in bad if k not in chosen]
        self._floored = sorted({*self._floored, *rest})
        return repaired

    def _affordable(self, components: list[int]) -> list[int]:
        """Return the components that may be started once more."""
        left = RESEEDS_PER_FIT - self.n_reseeds
        return [k for k in components if self.reseeds[k] < RESEEDS_PER_COMPONENT][: max(left, 0)]

    def _reseed(
        self, params: Params, components: list[int], healthy: Sequence[int], why: dict[int, str], iteration: int
    ) -> Params:
        if not components:
            return params
        assert self.places is not None  # checked by the constructor
        means = self.places(params, len(components), self.n_reseeds)
        params = covariance.place(params, components, means, healthy)
        for k in components:
            self.reseeds[k] += 1
            self.n_reseeds += 1
            detail = f"{why[k]}; it was started again elsewhere ({self.reseeds[k]} of at most {RESEEDS_PER_COMPONENT})"
            self._record(iteration, k, "reseeded", detail)
        self.restarted = True
        return params

    def _drop(self, params: Params, components: list[int], why: dict[int, str], iteration: int) -> Params:
        if not components:
            return params
        for k in components:
            self._record(iteration, k, "dropped", f"{why[k]}; it was removed")
        keep = [k for k in range(params.n_components) if k not in components]
        self.dropped += [self.numbers[k] for k in components]
        self.numbers = [self.numbers[k] for k in keep]
        self.reseeds = [self.reseeds[k] for k in keep]
        self.collapsed = [keep.index(k) for k in self.collapsed if k in keep]
        self._floored = [keep.index(k) for k in self._floored if k in keep]
        self.restarted = True
        return covariance.take(params, keep)

    def _record(self, iteration: int, component: int, kind: str, detail: str) -> None:
        self.events.append(ComponentEvent(iteration, self.numbers[component], kind, detail))

    def _collapse_error(self, params: Params, mask: Array, iteration: int) -> SingularCovarianceError:
        component = int(np.flatnonzero(mask.any(axis=1))[0])
        msg = (
            f"component {component} collapsed in iteration {iteration}: its spread is below the rounding of its mean. "
            "Use fewer components, a larger reg_covar, or degenerate='floor'"
        )
        return SingularCovarianceError(msg, component=component, family=params.covariance_type, min_eig=0.0)
