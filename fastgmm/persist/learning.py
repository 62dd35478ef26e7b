"""What `partial_fit` remembers, and the schedule of first passes, as JSON and arrays.

Both are optional keys of the header: a model that was not learnt online has none of it, and files from before these
keys existed load as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from fastgmm.covariance import FAMILIES
from fastgmm.em.packing import pack_number
from fastgmm.errors import InvalidParameterError
from fastgmm.minibatch import MiniBatch
from fastgmm.online import OnlineState
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics, scatter_shape
from fastgmm.typing import Array
from fastgmm.validation import check_integer, check_number

__all__ = ["pack_first_passes", "pack_online", "unpack_first_passes", "unpack_online"]

_ARRAYS: Final = ("weight", "mean", "scatter")
_PREFIX: Final = "online."  # of arrays of the statistics
_SUMS: Final = ("log_likelihood", "log_map", "total_weight")


def pack_online(state: OnlineState | None, arrays: dict[str, Array]) -> dict[str, Any] | None:
    """Return the state for the header, its statistics into `arrays`; None where there is none."""
    if state is None:
        return None
    stats = state.stats
    arrays.update({_PREFIX + name: getattr(stats, name) for name in _ARRAYS})
    return {
        "n_batches": int(state.n_batches),
        "n_rows": int(stats.n_rows),
        "total_weight": pack_number(state.total_weight),
        "step": pack_number(state.step),
        "score": pack_number(state.score),
        "empty": [int(k) for k in state.empty],
        "collapsed": [int(k) for k in state.collapsed],
        "sums": {name: pack_number(getattr(stats, name)) for name in _SUMS},
    }


def unpack_online(packed: Mapping[str, Any] | None, params: Params, arrays: Mapping[str, Array]) -> OnlineState | None:
    """Return the state as it was when `pack_online` wrote it, every bit.

    Raises
    ------
    InvalidParameterError
        If it is not one that suits `params`.
    KeyError, TypeError, ValueError
        If something is missing or of the wrong kind.
    """
    if packed is None:
        return None
    kind = FAMILIES[params.covariance_type].scatter
    k, d = params.means.shape
    shapes = {"weight": (k,), "mean": (k, d), "scatter": scatter_shape(kind, k, d)}
    for name, shape in shapes.items():
        array = arrays[_PREFIX + name]
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            msg = f"{_PREFIX}{name} must hold finite float64 numbers of shape {shape}; got {array.dtype}, {array.shape}"
            raise InvalidParameterError(msg)
    if arrays[_PREFIX + "weight"].min() < 0.0:
        msg = f"{_PREFIX}weight must be >= 0; got {arrays[_PREFIX + 'weight'].min()}"
        raise InvalidParameterError(msg)
    sums = {name: float(packed["sums"][name]) for name in _SUMS}
    check_number(sums["total_weight"], "total_weight of the running statistics", minimum=0.0)
    weight, mean, scatter = (arrays[_PREFIX + name] for name in _ARRAYS)
    stats = SufficientStatistics(
        kind,
        weight,
        mean,
        scatter,
        **sums,
        n_rows=check_integer(packed["n_rows"], "n_rows", minimum=0),
    )
    return OnlineState(
        stats,
        total_weight=check_number(float(packed["total_weight"]), "total_weight", minimum=0.0),
        n_batches=check_integer(packed["n_batches"], "n_batches", minimum=0),
        step=float(packed["step"]),
        score=float(packed["score"]),
        empty=tuple(int(j) for j in packed["empty"]),
        collapsed=tuple(int(j) for j in packed["collapsed"]),
    )


def pack_first_passes(schedule: Any) -> dict[str, Any] | None:
    """Return the schedule for the header; None where there is none, or where no fit would accept it."""
    return (
        None
        if not isinstance(schedule, MiniBatch)
        else {"n_passes": schedule.n_passes, "batch_size": schedule.batch_size}
    )


def unpack_first_passes(packed: Mapping[str, Any] | None) -> MiniBatch | None:
    """Return the schedule that `pack_first_passes` wrote.

    Raises
    ------
    InvalidParameterError
        If it is none.
    """
    return None if packed is None else MiniBatch(packed["n_passes"], packed["batch_size"])
