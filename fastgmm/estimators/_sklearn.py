"""What scikit-learn expects of an estimator, without depending on it.

1. scikit-learn asks by duck typing, so a base class of our own answers. It is imported only in methods that nobody but
   scikit-learn calls (tags, metadata routing), where it is loaded already.
2. Two classes must be scikit-learn's own once it is loaded, because users catch or filter them: `NotFittedError` and
   `ConvergenceWarning`. They are ours as well, so that ``except fastgmm.NotFittedError`` works either way.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import numpy as np

from fastgmm import errors
from fastgmm.data import Rows, StreamRows, as_rows, feature_names, name_bad_value, opened
from fastgmm.errors import InvalidDataError, InvalidParameterError, NonFiniteDataError
from fastgmm.estimators._repr import estimator_html, estimator_repr


@cache
def _joined(ours: type, theirs: type) -> type:
    """Return a class that is both."""
    return type(ours.__name__, (theirs, ours), {"__module__": ours.__module__, "__doc__": ours.__doc__})


def known_class(name: str) -> Any:
    """Return our exception or warning of that name, which also is scikit-learn's where scikit-learn is loaded."""
    ours = getattr(errors, name)
    exceptions = sys.modules.get("sklearn.exceptions")
    theirs = None if exceptions is None else getattr(exceptions, name, None)
    return ours if theirs is None else _joined(ours, theirs)


class _Requests(dict[str, Any]):
    """Method -> request for ``sample_weight``; scikit-learn's ``clone`` copies it, without scikit-learn in a pickle."""

    def __sklearn_clone__(self) -> _Requests:
        return _Requests(self)


class SklearnEstimator:
    """Parameters, tags, feature names and representations of an estimator.

    A subclass names its parameters in ``__init__`` and stores them there unchanged. When it is fitted, it sets
    ``mixture_``, ``n_features_in_``, ``_pass_dtype`` (what to convert data to, if anything) and, with
    `_remember_names`, ``feature_names_in_``.
    """

    @classmethod
    @cache
    def _defaults(cls) -> dict[str, Any]:
        """Constructor parameters and their defaults, in order."""
        signature = inspect.signature(cls.__init__)
        return {name: p.default for name, p in signature.parameters.items() if name != "self"}

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # scikit-learn's tools (HTML diagrams, metadata) ask for this one.
        return sorted(cls._defaults())

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - there is nothing nested
        """Return the constructor parameters by name.

        Parameters
        ----------
        deep : bool
            Of no effect; scikit-learn passes it.
        """
        return {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor parameters; they are checked by the next ``fit``.

        Raises
        ------
        InvalidParameterError
            If there is no such parameter.
        """
        valid = self._defaults()
        for name in params:
            if name not in valid:
                msg = (
                    f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: "
                    f"{self._get_param_names()!r}."
                )
                raise InvalidParameterError(msg)
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "mixture_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type="density_estimator", target_tags=TargetTags(required=False), input_tags=InputTags())

    def get_metadata_routing(self) -> Any:
        """Return which metadata scikit-learn's meta-estimators should pass to which method.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRequest
        """
        from sklearn.utils.metadata_routing import MetadataRequest

        request = MetadataRequest(owner=self)
        for method, aliases in getattr(self, "_metadata_request", {}).items():
            getattr(request, method).add_request(param="sample_weight", alias=aliases)
        for method in ("fit", "partial_fit", "score"):
            if "sample_weight" not in getattr(request, method).requests:
                getattr(request, method).add_request(param="sample_weight", alias=None)
        return request

    def _get_default_requests(self) -> Any:
        """Return the same: scikit-learn 1.6 asks for it, and does not pass weights to ``score`` where it is missing."""
        return self.get_metadata_routing()

    def set_fit_request(self, *, sample_weight: bool | str | None) -> Self:
        """Say whether scikit-learn's metadata routing passes `sample_weight` to ``fit``.

        Parameters
        ----------
        sample_weight : bool, str or None
            True: pass it; False: do not; str: pass what the user calls so; None: raise if the user gives any.
        """
        return self._request("fit", sample_weight)

    def set_partial_fit_request(self, *, sample_weight: bool | str | None) -> Self:
        """Say whether metadata routing passes `sample_weight` to ``partial_fit``; see `set_fit_request`."""
        return self._request("partial_fit", sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None) -> Self:
        """Say whether scikit-learn's metadata routing passes `sample_weight` to ``score``; see `set_fit_request`."""
        return self._request("score", sample_weight)

    def _request(self, method: str, alias: bool | str | None) -> Self:
        # clone() copies the attribute of this name.
        self._metadata_request = _Requests({**getattr(self, "_metadata_request", {}), method: alias})
        return self

    def __repr__(self) -> str:
        return estimator_repr(self, self._defaults())

    def _repr_html_(self) -> str:
        return estimator_html(self, self._defaults())

    def _check_is_fitted(self) -> None:
        if "mixture_" not in self.__dict__:
            msg = (
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )
            raise known_class("NotFittedError")(msg)

    def _rows(self, X: Any, sample_weight: Any = None, *, weighted: bool = False) -> Rows:
        """Normalise X for a method that needs a fitted model; the weights of a source count only where `weighted`."""
        self._check_is_fitted()
        X = opened(X)
        if not weighted and isinstance(X, StreamRows):
            X = X.unweighted()
        names = feature_names(X)
        if names is not None or "feature_names_in_" in self.__dict__:
            self._compare_names(names)
        rows = as_rows(X, sample_weight, dtype=self._pass_dtype)
        if rows.n_features != self.n_features_in_:
            expected = f"{type(self).__name__} is expecting {self.n_features_in_} features as input."
            msg = f"X has {rows.n_features} features, but {expected}"
            raise InvalidDataError(msg)
        return rows

    n_features_in_: int
    _pass_dtype: np.dtype[Any] | None

    def _remember_names(self, names: tuple[str, ...] | None) -> None:
        """Set ``feature_names_in_`` or remove that of an earlier fit."""
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        else:
            self.__dict__.pop("feature_names_in_", None)

    def _compare_names(self, names: tuple[str, ...] | None) -> None:
        """Raise or warn as scikit-learn does if the columns are not those of the fit."""
        name = type(self).__name__
        fitted = self.__dict__.get("feature_names_in_")
        if fitted is None:
            warnings.warn(f"X has feature names, but {name} was fitted without feature names", stacklevel=4)
            return
        if names is None:
            warnings.warn(
                f"X does not have valid feature names, but {name} was fitted with feature names", stacklevel=4
            )
            return
        if tuple(fitted) == names:
            return
        lines = ["The feature names should match those that were passed during fit."]
        unseen, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
        for title, listed in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
            if listed:
                lines += [f"Feature names {title}:", *(f"- {n}" for n in listed[:5])]
                lines += ["- ..."] if len(listed) > 5 else []
        if not unseen and not missing:
            lines.append("Feature names must be in the same order as they were in fit.")
        raise InvalidDataError("\n".join(lines) + "\n")


@contextmanager
def naming_bad_values(rows: Rows, *, weightable: bool = False) -> Iterator[None]:
    """Let an error about a value that is not finite name row and column as the user counts them.

    Parameters
    ----------
    rows : row source
    weightable : bool
        Whether the user's method takes `sample_weight`, so that a weight of 0 is a remedy.
    """
    try:
        yield
    except NonFiniteDataError:
        name_bad_value(rows, weightable=weightable)
        raise
