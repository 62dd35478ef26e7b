"""`partial_fit` from checked arguments to the new state: the start, or the step of online EM.

Nothing here changes an estimator, so a batch that cannot be used leaves the model as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.data import Rows
from fastgmm.errors import DegenerateComponentWarning, InvalidParameterError
from fastgmm.estimators._engine import Engine
from fastgmm.estimators._fitted import FittedMixture, out_of_float32
from fastgmm.estimators._report import added_variance, usable_reg_covar, warn_about_data
from fastgmm.estimators._settings import Settings
from fastgmm.estimators._sklearn import naming_bad_values
from fastgmm.initialize import Start, starting_params
from fastgmm.mixture import Mixture
from fastgmm.online import OnlineState, absorb, feature_variance, recall, settle, sound
from fastgmm.params import Params
from fastgmm.typing import Float64Array

LARGEST_WEIGHT = 1e300
"""Weight of a batch at most: only ratios of such weights matter, and their sum must stay a number."""


@dataclass(frozen=True, slots=True, eq=False)
class OnlineOutcome:
    """What a batch hands to its estimator.

    Attributes
    ----------
    mixture : Mixture
    dtype : numpy.dtype
        Of the user's data.
    state : OnlineState
    """

    mixture: Mixture
    dtype: np.dtype[Any]
    state: OnlineState


def begin(
    rows: Rows,
    settings: Settings,
    start: Start,
    rng: np.random.Generator,
    *,
    engine: Engine,
    data: Any,
    sample_weight: Any,
    names: Sequence[str] | None,
    stacklevel: int,
) -> OnlineOutcome:
    """Start from the first batch and take the first step, which is an iteration of EM on that batch.

    Parameters
    ----------
    rows, settings, start, rng, engine, data, sample_weight, names, stacklevel
        As in `fastgmm.estimators._run.run_fit`.

    Raises
    ------
    InvalidDataError, NonFiniteDataError, InvalidParameterError, SingularCovarianceError
        See `GaussianMixture.partial_fit`.
    """
    dtype = rows.dtype
    with naming_bad_values(rows, weightable=True):
        sample = engine.sample(rows, settings.n_components, rng, spread_only=start.complete)
        reg_covar = usable_reg_covar(settings, sample, stacklevel=stacklevel + 1)
        if out_of_float32(sample.variance) and dtype == np.float32:
            rows = engine.rows(data, sample_weight, dtype=np.float64)
        warn_about_data(sample, rows.n_rows, settings, names, stacklevel=stacklevel + 1)
        params = starting_params(start, rows, sample, rng, reg_covar=reg_covar, data=data)
        floor = settings.degenerate != "raise"
        params, _ = sound(params, sample.variance, floor=floor, dtype=rows.dtype)
        state = _absorb(None, rows, params, settings, engine, sample.origin)
    params, state = settle(state, params, reg_covar, sample.variance, floor=floor, dtype=rows.dtype)
    _warn(state, None, stacklevel=stacklevel + 1)
    return OnlineOutcome(Mixture.from_params(params), dtype, state)


def go_on(rows: Rows, settings: Settings, model: FittedMixture, *, engine: Engine, stacklevel: int) -> OnlineOutcome:
    """Take a step from what `model` has learnt so far.

    Parameters
    ----------
    rows, settings, engine, stacklevel
        As in `fastgmm.estimators._run.run_fit`.
    model : fitted estimator
        A model without a memory gets one: of a fit, as much as the rows of that fit; of parameters from elsewhere, as
        much as this batch.

    Raises
    ------
    NonFiniteDataError, InvalidParameterError, SingularCovarianceError
        See `GaussianMixture.partial_fit`.
    """
    params = model.mixture_.params
    _check_same_model(params, settings)
    before = model.online_
    memory = before
    if memory is None:
        result = model.result_
        past = rows.total_weight / rows.weight_scale if result is None else result.total_weight
        spread = feature_variance(recall(params, 1.0, 0.0).stats)
        memory = recall(params, past, added_variance(settings, spread))
    floor = settings.degenerate != "raise"
    with naming_bad_values(rows, weightable=True):
        if rows.dtype == np.float32:  # what other rows have led to may be mere noise to these
            params, _ = sound(params, feature_variance(memory.stats), floor=floor, dtype=rows.dtype)
        state = _absorb(memory, rows, params, settings, engine, params.weights @ params.means)
    variance = feature_variance(state.stats)
    reg_covar = added_variance(settings, variance)
    params, state = settle(state, params, reg_covar, variance, floor=floor, dtype=rows.dtype)
    _warn(state, before, stacklevel=stacklevel + 1)
    dtype = np.promote_types(model._dtype, rows.dtype)
    return OnlineOutcome(Mixture.from_params(params), dtype, state)


def _absorb(
    memory: OnlineState | None, rows: Rows, params: Params, settings: Settings, engine: Engine, centre: Float64Array
) -> OnlineState:
    """Run the pass over the batch, a point amid its rows given, and merge its statistics."""
    stats = engine.accumulate(rows, settings.family.scatter, centre)(params)
    weight = min(rows.total_weight / rows.weight_scale, LARGEST_WEIGHT)
    return absorb(memory, stats, weight, settings.step_size)


def _check_same_model(params: Params, settings: Settings) -> None:
    """Refuse constructor parameters that were changed to those of another model since the last call."""
    wanted = (settings.n_components, settings.family.name)
    found = (params.n_components, params.covariance_type)
    dropped = settings.degenerate == "drop" and params.n_components < settings.n_components
    if found != wanted and not (dropped and found[1] == wanted[1]):
        msg = (
            "partial_fit goes on with the model there is, so n_components and covariance_type must stay what they "
            f"were, {found}; got {wanted}. Fit anew, or use another estimator"
        )
        raise InvalidParameterError(msg)


def _warn(state: OnlineState, before: OnlineState | None, *, stacklevel: int) -> None:
    """Warn about components that have become empty or collapsed with this batch."""
    empty = [k for k in state.empty if before is None or k not in before.empty]
    collapsed = [k for k in state.collapsed if before is None or k not in before.collapsed]
    if empty:
        msg = (
            f"components {', '.join(map(str, empty))} have no rows any more: those there were have been "
            "forgotten. They keep their means and covariances and may come back. Use fewer components, or a larger "
            "learning_decay"
        )
        warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)
    if collapsed:
        msg = (
            f"components {', '.join(map(str, collapsed))} collapsed onto too few distinct rows, or onto constant or "
            "collinear features; their variances are held up by a floor of 1e-6 of the data's variance. Use larger "
            "batches, fewer components, another covariance_type, or a larger reg_covar"
        )
        warnings.warn(msg, DegenerateComponentWarning, stacklevel=stacklevel + 1)
