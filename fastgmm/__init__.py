"""Gaussian mixture models, fast: fit, predict, sample, compare, save and load.

>>> import numpy as np
>>> import fastgmm
>>> rng = np.random.default_rng(0)
>>> X = np.vstack([rng.normal(-4.0, 1.0, (200, 2)), rng.normal(4.0, 1.0, (100, 2))])
>>> model = fastgmm.GaussianMixture(2, random_state=0).fit(X)
>>> np.round(np.sort(model.weights_), 2)
array([0.33, 0.67])

Start with `GaussianMixture` (scikit-learn's estimator, with weights, callbacks and more), `select_model` (number of
components and covariance type by BIC, AIC or ICL) and `Mixture` (the fitted distribution as a value).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgmm import datasets, plotting
    from fastgmm.checkpoint import Checkpoint
    from fastgmm.data import open_rows
    from fastgmm.em import ComponentEvent, FitResult, FitStatus, IterationInfo, IterationRecord
    from fastgmm.errors import (
        CheckpointError,
        ConvergenceWarning,
        DataChangedError,
        DegenerateComponentWarning,
        DegenerateDataWarning,
        FastgmmError,
        FastgmmWarning,
        InvalidDataError,
        InvalidDataTypeError,
        InvalidParameterError,
        ModelFileError,
        NonFiniteDataError,
        NotFittedError,
        SingularCovarianceError,
    )
    from fastgmm.estimators.gaussian import GaussianMixture
    from fastgmm.minibatch import MiniBatch
    from fastgmm.mixture import Mixture
    from fastgmm.online import OnlineState
    from fastgmm.params import Params
    from fastgmm.persist import load, save
    from fastgmm.selection import SelectionResult, select_model

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ComponentEvent",
    "ConvergenceWarning",
    "DataChangedError",
    "DegenerateComponentWarning",
    "DegenerateDataWarning",
    "FastgmmError",
    "FastgmmWarning",
    "FitResult",
    "FitStatus",
    "GaussianMixture",
    "InvalidDataError",
    "InvalidDataTypeError",
    "InvalidParameterError",
    "IterationInfo",
    "IterationRecord",
    "MiniBatch",
    "Mixture",
    "ModelFileError",
    "NonFiniteDataError",
    "NotFittedError",
    "OnlineState",
    "Params",
    "SelectionResult",
    "SingularCovarianceError",
    "__version__",
    "datasets",
    "load",
    "open_rows",
    "plotting",
    "save",
    "select_model",
]

# Public name -> module that defines it. Nothing is imported before it is asked for (PEP 562), so `import fastgmm` costs
# next to nothing, and never loads numba.
_MODULES = {
    "Checkpoint": "fastgmm.checkpoint",
    **dict.fromkeys(["ComponentEvent", "FitResult", "FitStatus", "IterationInfo", "IterationRecord"], "fastgmm.em"),
    **dict.fromkeys(
        [
            "CheckpointError",
            "ConvergenceWarning",
            "DataChangedError",
            "DegenerateComponentWarning",
            "DegenerateDataWarning",
            "FastgmmError",
            "FastgmmWarning",
            "InvalidDataError",
            "InvalidDataTypeError",
            "InvalidParameterError",
            "ModelFileError",
            "NonFiniteDataError",
            "NotFittedError",
            "SingularCovarianceError",
        ],
        "fastgmm.errors",
    ),
    "GaussianMixture": "fastgmm.estimators.gaussian",
    "MiniBatch": "fastgmm.minibatch",
    "Mixture": "fastgmm.mixture",
    "OnlineState": "fastgmm.online",
    "Params": "fastgmm.params",
    "open_rows": "fastgmm.data",
    **dict.fromkeys(["load", "save"], "fastgmm.persist"),
    **dict.fromkeys(["SelectionResult", "select_model"], "fastgmm.selection"),
}


_SUBMODULES = ("datasets", "plotting")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"fastgmm.{name}")
    module = _MODULES.get(name)
    if module is None:
        msg = f"module 'fastgmm' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
