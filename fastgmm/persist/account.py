"""An estimator's settings and the account of its fit, as JSON and arrays (`fastgmm.em.packing` has the parts).

Arrays of settings and all histories are arrays of the file; the rest is JSON, so that a header alone tells the story.
JSON has no NaN and no infinities; those are stored as text.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np

from fastgmm.em import IterationRecord
from fastgmm.em.packing import pack_number, pack_result, pack_start, unpack_result, unpack_start
from fastgmm.errors import FastgmmWarning, InvalidParameterError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.mixture import Mixture
from fastgmm.params import Params
from fastgmm.typing import Array

__all__ = ["pack_fit", "pack_settings", "unpack_fit", "unpack_settings"]

_PREFIX: Final = "settings."  # of arrays that are settings
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def pack_settings(model: GaussianMixture, arrays: dict[str, Array]) -> dict[str, Any]:
    """Return the constructor's parameters for the header; those that are arrays go into `arrays`.

    What is code or a generator's state is left out with a `FastgmmWarning`: a file that could bring code would be
    unsafe to open.
    """
    packed: dict[str, Any] = {}
    left_out = []
    for name, value in model.get_params(deep=False).items():
        if name == "first_passes":
            continue  # has a key of its own in the header
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            packed[name] = value
        elif isinstance(value, float):
            packed[name] = pack_number(value)
        elif (array := _numeric(value)) is not None:
            arrays[_PREFIX + name] = array
        else:
            left_out.append(name)
    if left_out:
        msg = (
            f"{', '.join(left_out)}: functions and random generators cannot be stored in a model file; the loaded model"
            " will have the default there"
        )
        warnings.warn(msg, FastgmmWarning, stacklevel=3)
    return packed


def unpack_settings(packed: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return constructor parameters; those this release does not know are ignored with a `FastgmmWarning`.

    Raises
    ------
    InvalidParameterError
        If a value is not one that `pack_settings` writes.
    """
    settings = dict(packed)
    settings.update({name.removeprefix(_PREFIX): array for name, array in arrays.items() if name.startswith(_PREFIX)})
    known = GaussianMixture().get_params(deep=False)
    for name, value in settings.items():
        if isinstance(value, dict | list):
            msg = f"the setting {name} must be a number, a text or an array; got a {type(value).__name__}"
            raise InvalidParameterError(msg)
        if isinstance(known.get(name), float):
            settings[name] = float(value)
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        msg = f"this release of fastgmm does not know the settings {', '.join(unknown)}; they are ignored"
        warnings.warn(msg, FastgmmWarning, stacklevel=4)
    return {name: value for name, value in settings.items() if name in known}


def pack_fit(model: GaussianMixture, arrays: dict[str, Array]) -> dict[str, Any]:
    """Return the account of the fit for the header; histories go into `arrays`."""
    result = model.result_
    histories = ([] if result is None else [result.history]) + [start.history for start in model.starts_]
    # All histories in one array: a model of a thousand starts has no thousand members.
    flat = [(record.log_likelihood, record.seconds) for history in histories for record in history]
    arrays["history"] = np.array(flat, dtype=np.float64).reshape(-1, 2)
    arrays["history_ends"] = np.cumsum([len(history) for history in histories], dtype=np.int64)
    arrays["lower_bounds"] = np.array(model.lower_bounds_, dtype=np.float64)
    return {
        "dtype": model._dtype.name,
        "converged": bool(model.converged_),
        "n_iter": int(model.n_iter_),
        "lower_bound": pack_number(model.lower_bound_),
        "result": None if result is None else pack_result(result),
        "flat": [int(k) for k in getattr(model, "_flat", ())],
        "starts": [pack_start(start) for start in model.starts_],
    }


def unpack_fit(model: GaussianMixture, params: Params, packed: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Make `model` fitted, as it was when `pack_fit` wrote `packed`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something is missing or of the wrong kind.
    """
    flat = arrays["history"].tolist()
    ends = arrays["history_ends"].tolist()
    if sorted(ends) != ends or (ends[-1] if ends else 0) != len(flat):
        msg = f"history_ends must ascend to the {len(flat)} records of history; got {ends[:10]}"
        raise InvalidParameterError(msg)
    histories = [
        tuple(IterationRecord(float(value), float(seconds)) for value, seconds in flat[first:last])
        for first, last in pairwise([0, *ends])
    ]
    result = None
    if packed["result"] is not None:
        result = unpack_result(packed["result"], params, histories.pop(0))
    starts = tuple(unpack_start(start, history) for start, history in zip(packed["starts"], histories, strict=True))
    model._adopt(Mixture.from_params(params), _DTYPES[packed["dtype"]], result, starts)
    model._flat = tuple(int(k) for k in packed["flat"])
    # A model that was converted from another library has these without a result.
    model.converged_ = bool(packed["converged"])
    model.n_iter_ = int(packed["n_iter"])
    model.lower_bound_ = float(packed["lower_bound"])
    model.lower_bounds_ = [float(value) for value in arrays["lower_bounds"].tolist()]


def _numeric(value: Any) -> Array | None:
    """Return an array-like setting as a plain array of numbers, or None if it is no such thing."""
    if callable(value) or isinstance(value, np.random.RandomState):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False) if array.dtype != np.float32 else array
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iub" else None
