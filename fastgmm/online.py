"""Online EM: running statistics that forget, with an M-step after every batch of rows.

Why it is like this

1. EM's E-step is a mean of statistics over all rows. Online EM keeps a running mean instead, S <- (1 - g) S + g s with
   the batch's s, and takes an M-step after every batch. S is a `SufficientStatistics`, so the blend is the exact merge
   about means: nothing cancels far from the origin.
2. The step g depends on the share that the batch has of all rows so far, not on how often the function was called.
   Batches of one size get the steps t^-decay of the literature, t = 1, 2, ...; a batch of one row among batches of
   thousands gets the small step that is due to a single row.
3. S is kept in the unit of the last batch: its `total_weight`, w / g, is the number of rows that the memory amounts to.
   The first batch's statistics are S to the bit, and with ``decay=1`` S is the plain sum over all rows.
4. A component without rows in a batch keeps its mean and scatter, because a merge with nothing changes nothing. Only
   its weight shrinks, as the memory of all rows does.
5. Where there is a model but no statistics (after a fit, or from given parameters), `recall` makes those that have this
   model as their M-step.

References
----------
O. Cappe, E. Moulines, "On-line expectation-maximization algorithm for latent data models", Journal of the Royal
Statistical Society B 71 (2009) 593-613, doi:10.1111/j.1467-9868.2009.00698.x.
P. Liang, D. Klein, "Online EM for unsupervised models", NAACL (2009) 611-619: batches instead of single rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastgmm import covariance
from fastgmm.covariance import Reference
from fastgmm.errors import SingularCovarianceError
from fastgmm.params import Params
from fastgmm.pieces import piecewise
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array

SMALLEST_STEP = 1e-200
"""Of a batch that weighs nothing beside what was before; something to divide by, and its inverse is a number."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """How far a batch moves the running statistics: (t + offset)^-decay, where the batch is the t-th of its size.

    Attributes
    ----------
    decay : float
        Above 0.5 and at most 1: between these the sum of the steps diverges, so any start is forgotten, and the sum of
        their squares converges, so noise dies out.
    offset : float
        At least 0; delays the first steps.
    """

    decay: float = 0.6
    offset: float = 0.0

    def __call__(self, before: float, batch: float) -> float:
        """Return the step of a batch.

        Parameters
        ----------
        before, batch : float
            Weight of all rows before the batch, and of its own.

        Returns
        -------
        float
            In (0, 1]; 1 where there is nothing before.
        """
        if before <= 0.0:
            return 1.0
        step: float = (before / batch + 1.0 + self.offset) ** -self.decay
        return max(step, SMALLEST_STEP)


@dataclass(frozen=True, slots=True, eq=False)
class OnlineState:
    """What online EM remembers between two batches, beside the parameters.

    Attributes
    ----------
    stats : SufficientStatistics
        The running statistics. Its `total_weight` is the number of rows that the memory amounts to, its `n_rows` the
        number of all rows so far, and its `log_likelihood` a running sum of what `score` is for each batch.
    total_weight : float
        Weight of all rows so far, in the user's unit.
    n_batches : int
    step : float
        Share of the last batch in `stats`.
    score : float
        Mean log-likelihood of the last batch under the parameters *before* it, nats per unit of row weight. From the
        second batch on these rows were new to the parameters, so it is an honest test score.
    empty, collapsed : tuple of int
        Components of which the memory holds no rows any more, and components whose covariance is held up by the
        variance floor.
    """

    stats: SufficientStatistics
    total_weight: float
    n_batches: int
    step: float
    score: float
    empty: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows so far; those of weight 0 do not count."""
        return self.stats.n_rows


def recall(params: Params, total_weight: float, reg_covar: Reference, n_rows: int = 0) -> OnlineState:
    """Return a memory of `total_weight` rows whose M-step is `params`.

    Parameters
    ----------
    params : Params
    total_weight : float
        How much the past is to count, in rows.
    reg_covar : float or ndarray (D,)
        What the M-step adds to every variance.
    n_rows : int
        Rows of the past.
    """
    family = covariance.FAMILIES[params.covariance_type]
    weight = total_weight * params.weights
    stats = SufficientStatistics(
        family.scatter,
        weight,
        params.means.copy(),
        _SCATTER[family.scatter](params.covariances, weight, params.n_features, reg_covar),
        log_likelihood=0.0,
        log_map=0.0,
        total_weight=total_weight,
        n_rows=n_rows,
    )
    return OnlineState(stats, total_weight, n_batches=0, step=math.nan, score=math.nan)


def _full(covariances: Float64Array, weight: Float64Array, n_features: int, reg_covar: Reference) -> Float64Array:
    ridge = reg_covar * np.eye(n_features)
    return piecewise(lambda some, share: (some - ridge) * share, covariances, weight[:, None, None])


def _pooled(covariances: Float64Array, weight: Float64Array, n_features: int, reg_covar: Reference) -> Float64Array:
    return (covariances - reg_covar * np.eye(n_features)) * float(weight.sum())


def _diag(covariances: Float64Array, weight: Float64Array, _: int, reg_covar: Reference) -> Float64Array:
    return (covariances - reg_covar) * weight[:, None]


def _trace(covariances: Float64Array, weight: Float64Array, n_features: int, reg_covar: Reference) -> Float64Array:
    return (covariances - np.mean(reg_covar)) * weight * n_features


_SCATTER: dict[str, Callable[[Float64Array, Float64Array, int, Reference], Float64Array]] = {
    "full": _full,
    "pooled": _pooled,
    "diag": _diag,
    "trace": _trace,
}
"""Scatter kind -> scatter that an M-step turns into the covariances."""


def absorb(memory: OnlineState | None, batch: SufficientStatistics, weight: float, step_size: StepSize) -> OnlineState:
    """Return the memory after one more batch: S <- (1 - g) S + g s, the E-step of online EM.

    Parameters
    ----------
    memory : OnlineState or None
        None before the first batch.
    batch : SufficientStatistics
        Of the batch, under the parameters that `memory` led to.
    weight : float
        Its total weight in the user's unit, which `batch` need not have.
    step_size : StepSize

    Notes
    -----
    Both sides are divided by g / w: with w the weight of `batch` and W that of the memory, S <- c S + s, where
    c = (w / g - w) / W makes the new total w / g.
    """
    score = batch.log_likelihood / batch.total_weight
    if memory is None:
        return OnlineState(batch, weight, n_batches=1, step=1.0, score=score)
    step = step_size(memory.total_weight, weight)
    kept = batch.total_weight * (1.0 - step) / step
    stats = memory.stats.scaled(kept / memory.stats.total_weight).merge(batch)
    return replace(
        memory,
        stats=stats,
        total_weight=memory.total_weight + weight,
        n_batches=memory.n_batches + 1,
        step=step,
        score=score,
    )


def settle(
    memory: OnlineState,
    previous: Params,
    reg_covar: Reference,
    reference_variance: Reference,
    *,
    floor: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[Params, OnlineState]:
    """Take the M-step of online EM, whose result has a density.

    Parameters
    ----------
    memory : OnlineState
    previous : Params
        What a component without rows keeps.
    reg_covar : float or ndarray (D,)
        Added to every variance.
    reference_variance, floor, dtype
        As in `sound`.

    Returns
    -------
    params : Params
    memory : OnlineState
        The same, with the components that are empty or have collapsed.

    Raises
    ------
    SingularCovarianceError
        Without `floor`, if a component collapsed.
    """
    params = covariance.maximize(memory.stats, previous, reg_covar)
    empty = covariance.empty_components(memory.stats)
    params, collapsed = sound(params, reference_variance, memory.collapsed, floor=floor, dtype=dtype)
    return params, replace(memory, empty=() if empty is None else _where(empty), collapsed=collapsed)


def sound(
    params: Params,
    reference_variance: Reference,
    collapsed: tuple[int, ...] = (),
    *,
    floor: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[Params, tuple[int, ...]]:
    """Return parameters that have a density, and the components that needed the variance floor for it.

    Parameters
    ----------
    params : Params
    reference_variance : float or ndarray (D,)
        The data's variance, for the floor.
    collapsed : tuple of int
        Components that were on the floor before: they stay there until they have outgrown it.
    floor : bool
        Whether a collapsed component gets the variance floor or an exception.
    dtype : float64 or float32
        Of the rows, as in `fastgmm.covariance.density`: a pass over float32 rows refuses more.

    Raises
    ------
    SingularCovarianceError
        Without `floor`, if a component collapsed.
    """
    mask = covariance.unresolved(params)
    if collapsed:
        again = covariance.below_floor(params, list(collapsed), reference_variance)
        mask = again if mask is None else mask if again is None else mask | again
    repaired: list[int] = []
    if mask is not None:
        if not floor:
            component = int(np.flatnonzero(mask.any(axis=1))[0])
            msg = (
                f"component {component} collapsed: its spread is below the rounding of its mean. Use fewer components, "
                "larger batches, a larger reg_covar, or degenerate='floor'"
            )
            raise SingularCovarianceError(msg, component=component, family=params.covariance_type, min_eig=0.0)
        params, repaired = covariance.repair(params, reference_variance, collapsed=mask)
    for _ in range(2 * params.n_components):  # a failure names one component at a time
        try:
            covariance.density(params, dtype)
            break
        except SingularCovarianceError as error:
            if not floor:
                raise
            params, more = covariance.repair(params, reference_variance, error)
            repaired = sorted({*repaired, *more})
    return params, tuple(repaired)


def _where(mask: Array) -> tuple[int, ...]:
    return tuple(int(k) for k in np.flatnonzero(mask))


def feature_variance(stats: SufficientStatistics) -> Float64Array:
    """Return the variance of each feature over all components, (D,); equal shares where only their sum is known."""
    total = float(stats.weight.sum())
    if total <= 0.0:
        return np.zeros(stats.n_features)
    deviation = stats.mean - stats.mean[int(np.argmax(stats.weight))]
    share = stats.weight / total
    deviation -= share @ deviation
    within = _WITHIN[stats.kind](stats.scatter, stats.n_features)
    return np.asarray(share @ (deviation * deviation) + np.maximum(within, 0.0) / total)


_WITHIN: dict[str, Callable[[Float64Array, int], Float64Array]] = {
    "full": lambda scatter, _: np.einsum("kdd->d", scatter),
    "pooled": lambda scatter, _: np.diagonal(scatter),
    "diag": lambda scatter, _: scatter.sum(axis=0),
    "trace": lambda scatter, n_features: np.full(n_features, scatter.sum() / n_features),
}
"""Scatter kind -> scatter of each feature within the components, (D,)."""
