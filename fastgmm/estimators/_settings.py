"""Constructor parameters, checked once at the beginning of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastgmm.covariance import Family, Reference, family
from fastgmm.em import DEGENERATE
from fastgmm.errors import InvalidParameterError
from fastgmm.minibatch import MiniBatch
from fastgmm.online import StepSize
from fastgmm.validation import check_choice, check_flag, check_integer, check_number, check_verbosity

REG_SCALES: Final = ("absolute", "relative")
"""What `reg_covar` is measured in: squared units of X, or the variances of its features."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked parameters of a fit; see `fastgmm.GaussianMixture` for what they mean.

    `reg_covar` is the user's number first, and what is added to each variance once the data are known.
    """

    n_components: int
    family: Family
    tol: float
    reg_covar: Reference
    reg_scale: str
    max_iter: int
    n_init: int
    warm_start: bool
    verbose: int
    verbose_interval: int
    degenerate: str
    step_size: StepSize
    first_passes: MiniBatch | None


def check_settings(estimator: Any) -> Settings:
    """Check the constructor parameters of an estimator; those of the start are checked with the data.

    Raises
    ------
    InvalidParameterError
        Naming the first parameter that is not valid.
    """
    return Settings(
        n_components=check_integer(estimator.n_components, "n_components", minimum=1),
        family=family(estimator.covariance_type),
        tol=check_number(estimator.tol, "tol", minimum=0.0),
        reg_covar=check_number(estimator.reg_covar, "reg_covar", minimum=0.0),
        reg_scale=check_choice(estimator.reg_scale, "reg_scale", REG_SCALES),
        max_iter=check_integer(estimator.max_iter, "max_iter", minimum=0),
        n_init=check_integer(estimator.n_init, "n_init", minimum=1),
        warm_start=check_flag(estimator.warm_start, "warm_start"),
        verbose=check_verbosity(estimator.verbose),
        verbose_interval=check_integer(estimator.verbose_interval, "verbose_interval", minimum=1),
        degenerate=check_choice(estimator.degenerate, "degenerate", DEGENERATE),
        step_size=StepSize(
            _check_decay(estimator.learning_decay),
            check_number(estimator.learning_offset, "learning_offset", minimum=0.0),
        ),
        first_passes=_check_first_passes(estimator.first_passes),
    )


def _check_decay(value: Any) -> float:
    decay = check_number(value, "learning_decay", minimum=0.0)
    if not 0.5 < decay <= 1.0:
        msg = (
            f"learning_decay must be a number above 0.5 and at most 1; got {value!r}. The steps of partial_fit, "
            "t**-learning_decay, forget the start and let noise die out only within these limits"
        )
        raise InvalidParameterError(msg)
    return decay


def _check_first_passes(value: Any) -> MiniBatch | None:
    if value is None or isinstance(value, MiniBatch):
        return value
    msg = f"first_passes must be a fastgmm.MiniBatch or None; got {value!r}"
    raise InvalidParameterError(msg)
