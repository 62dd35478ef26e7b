"""Fitted arrays as attributes that are views of the fitted mixture."""

from __future__ import annotations

from typing import Any, Never, Self, overload

import numpy as np

from fastgmm.typing import Array, Float64Array


class FittedArray:
    """Attribute ``<name>_`` of an estimator: an array of its ``mixture_``, in the precision of the data.

    Made when it is first asked for: most fits never need the precisions, and most users never need them in float32. It
    does not exist before a fit, as scikit-learn's tools expect, and cannot be set: a mixture whose means and precisions
    were changed one by one would be a different one in every method.

    Parameters
    ----------
    name : str
        Attribute of `fastgmm.Mixture`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.__doc__ = f"Fitted {name.replace('_', ' ')}; see the class."

    @overload
    def __get__(self, estimator: None, owner: type) -> Self: ...
    @overload
    def __get__(self, estimator: Any, owner: type) -> Array: ...
    def __get__(self, estimator: Any, owner: type) -> Self | Array:
        if estimator is None:
            return self
        mixture = estimator.__dict__.get("mixture_")
        if mixture is None:
            msg = f"{owner.__name__!r} object has no attribute '{self._name}_' before fit"
            raise AttributeError(msg)
        cache: dict[str, Array] = estimator._arrays
        if self._name not in cache:
            cache[self._name] = _narrowed(getattr(mixture, self._name), estimator._dtype)
        return cache[self._name]

    def __set__(self, estimator: Any, value: Any) -> Never:
        msg = (
            f"{self._name}_ cannot be set: make a model of given parameters with "
            f"{type(estimator).__name__}.from_parameters(weights, means, covariances, covariance_type)"
        )
        raise AttributeError(msg)


def _narrowed(values: Float64Array, dtype: np.dtype[Any]) -> Array:
    """Return `values` in `dtype`, or unchanged where their squares of units leave its range."""
    if dtype != values.dtype:
        with np.errstate(over="ignore", under="ignore"):
            narrow = values.astype(dtype)
        # Data of 1e20 fit into float32; their variances do not. Nor do those of data of 1e-25.
        largest = np.abs(narrow).max()
        if np.isfinite(largest) and (largest > 0.0 or not values.any()):
            values = narrow
    values.setflags(write=False)
    return values
