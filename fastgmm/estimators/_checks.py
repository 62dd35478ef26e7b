"""What a fit needs of data, start and the fit before, checked once the data are known."""

from __future__ import annotations

import time
from typing import Any

from fastgmm.data import Rows
from fastgmm.errors import InvalidDataError, InvalidParameterError
from fastgmm.estimators._settings import Settings
from fastgmm.initialize import Start, check_start
from fastgmm.params import Params
from fastgmm.validation import check_number


def check_counts(rows: Rows, settings: Settings, name: str) -> None:
    """Refuse fewer than two rows, or fewer rows than components; `name` is the estimator's.

    Raises
    ------
    InvalidDataError
    """
    if rows.n_rows >= max(2, settings.n_components):
        return
    note = "" if rows.kept() is None else " (rows of sample_weight 0 do not count)"
    if rows.n_rows < 2:
        msg = (
            f"Found array with {rows.n_rows} sample(s) (shape=({rows.n_rows}, {rows.n_features})) while a minimum "
            f"of 2 is required by {name}{note}. One row has no covariance: add rows"
        )
        raise InvalidDataError(msg)
    msg = (
        f"Expected n_samples >= n_components but got n_components = {settings.n_components}, "
        f"n_samples = {rows.n_rows}{note}. Use fewer components, or add rows"
    )
    raise InvalidDataError(msg)


def wanted_start(estimator: Any, settings: Settings, n_features: int) -> Start:
    """Check what the user asked an estimator to start from.

    Raises
    ------
    InvalidParameterError
    """
    return check_start(
        estimator.init_params,
        estimator.weights_init,
        estimator.means_init,
        estimator.precisions_init,
        family=settings.family,
        n_components=settings.n_components,
        n_features=n_features,
    )


def last_fit(params: Params, settings: Settings, n_features: int) -> Params:
    """Return the parameters of the last fit, if they suit this one.

    Raises
    ------
    InvalidParameterError
    """
    wanted = (settings.n_components, n_features, settings.family.name)
    fewer = settings.degenerate == "drop" and params.n_components < settings.n_components
    k = settings.n_components if fewer else params.n_components
    if (k, params.n_features, params.covariance_type) != wanted:
        msg = (
            "warm_start=True needs the last fit to have the same n_components, number of features and "
            f"covariance_type {wanted}; got {(params.n_components, params.n_features, params.covariance_type)}. "
            "Set warm_start=False for a new start"
        )
        raise InvalidParameterError(msg)
    return params


def check_callback(callback: Any) -> None:
    """Refuse a callback that cannot be called.

    Raises
    ------
    InvalidParameterError
    """
    if callback is not None and not callable(callback):
        msg = f"callback must be a function of one argument, or None; got {callback!r}"
        raise InvalidParameterError(msg)


def deadline_of(max_time: Any) -> float | None:
    """Return the value of `time.perf_counter` after which a fit is to end.

    Raises
    ------
    InvalidParameterError
        If `max_time` is no number of seconds.
    """
    return None if max_time is None else time.perf_counter() + check_number(max_time, "max_time", minimum=0.0)
