"""To scikit-learn's estimator and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastgmm.errors import InvalidParameterError
from fastgmm.initialize import METHODS
from fastgmm.mixture import Mixture

if TYPE_CHECKING:
    from fastgmm.estimators.gaussian import GaussianMixture

    Model = TypeVar("Model", bound=GaussianMixture)

_ARRAYS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
_NUMBERS = ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_")


def copy_to_sklearn(model: GaussianMixture) -> Any:
    """Return a fitted ``sklearn.mixture.GaussianMixture``; its arrays are writable copies."""
    from sklearn.mixture import GaussianMixture as Theirs

    params = {name: value for name, value in model.get_params().items() if name in Theirs().get_params()}
    params["covariance_type"] = model.mixture_.covariance_type
    params["n_components"] = model.mixture_.n_components  # fewer than asked for where some were dropped
    if not (isinstance(params["init_params"], str) and params["init_params"] in METHODS):
        params["init_params"] = "kmeans"  # labels and functions are ours alone
    if isinstance(params["random_state"], np.random.Generator | np.random.SeedSequence | np.random.BitGenerator):
        params["random_state"] = None
    copy = Theirs(**params)
    for name in _ARRAYS:
        setattr(copy, name, np.array(getattr(model, name)))
    for name in _NUMBERS:
        setattr(copy, name, getattr(model, name))
    if "feature_names_in_" in model.__dict__:
        copy.feature_names_in_ = model.feature_names_in_
    return copy


def copy_from_sklearn(cls: type[Model], model: Any) -> Model:
    """Return a fitted estimator of ours with the parameters of scikit-learn's.

    Raises
    ------
    InvalidParameterError
        If it is something else, or not fitted.
    """
    missing = [name for name in ("weights_", "means_", "covariances_", "covariance_type") if not hasattr(model, name)]
    if missing:
        msg = (
            "model must be a fitted sklearn.mixture.GaussianMixture; got "
            f"{type(model).__name__} without {', '.join(missing)}"
        )
        raise InvalidParameterError(msg)
    if hasattr(model, "weight_concentration_"):
        msg = (
            f"model must be a fitted sklearn.mixture.GaussianMixture; got {type(model).__name__}, whose lower bound is "
            "not a likelihood. Its point estimates go through from_parameters(weights_, means_, covariances_)"
        )
        raise InvalidParameterError(msg)
    valid = cls().get_params()
    params = {name: value for name, value in model.get_params().items() if name in valid}
    copy = cls(**params)
    mixture = Mixture(model.weights_, model.means_, model.covariances_, model.covariance_type)
    copy._adopt(mixture, np.dtype(np.float32 if np.asarray(model.means_).dtype == np.float32 else np.float64))
    for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_"):
        if hasattr(model, name):
            setattr(copy, name, getattr(model, name))
    names = getattr(model, "feature_names_in_", None)
    copy._remember_names(None if names is None else tuple(names))
    return copy
