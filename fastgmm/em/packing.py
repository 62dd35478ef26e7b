"""What describes a fit, as JSON and back; histories and parameters are arrays and go beside it.

JSON has no NaN and no infinities; those are stored as text. Everything comes back with the same bits, because Python
writes the shortest decimal that names a float64 and no other. Model files and checkpoints hold these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastgmm.em.account import ComponentEvent, FitResult, FitState, FitStatus, IterationRecord, StartRecord
from fastgmm.params import Params

__all__ = [
    "pack_number",
    "pack_result",
    "pack_start",
    "pack_state",
    "unpack_result",
    "unpack_start",
    "unpack_state",
]

_SUMS: Final = ("log_likelihood", "lower_bound", "log_map", "initial_log_likelihood", "total_weight")
_STATE_NUMBERS: Final = ("log_likelihood", "change", "initial_log_likelihood", "total_weight")
_STATE_COMPONENTS: Final = ("empty", "collapsed", "numbers", "dropped", "reseeds")

History = tuple[IterationRecord, ...]


def pack_number(value: float) -> float | str:
    """Return a float as JSON can hold it; `float` turns both forms back."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def pack_result(result: FitResult) -> dict[str, Any]:
    """Return a result without its parameters and its history."""
    return {
        "status": result.status.name,
        "n_iter": int(result.n_iter),
        **{name: pack_number(getattr(result, name)) for name in _SUMS},
        "events": _pack_events(result.events),
        "empty": _integers(result.empty),
        "collapsed": _integers(result.collapsed),
        "reseeded": _integers(result.reseeded),
        "dropped": _integers(result.dropped),
    }


def unpack_result(packed: Mapping[str, Any], params: Params, history: History) -> FitResult:
    """Return what `pack_result` packed.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something is missing or of the wrong kind.
    """
    log_likelihood, lower_bound, log_map, initial, total = (float(packed[name]) for name in _SUMS)
    return FitResult(
        params=params,
        status=FitStatus[packed["status"]],
        n_iter=int(packed["n_iter"]),
        log_likelihood=log_likelihood,
        lower_bound=lower_bound,
        log_map=log_map,
        initial_log_likelihood=initial,
        total_weight=total,
        history=history,
        events=_unpack_events(packed["events"]),
        empty=_integers(packed["empty"]),
        collapsed=_integers(packed["collapsed"]),
        # Files of the first releases know only the floor.
        reseeded=_integers(packed.get("reseeded", ())),
        dropped=_integers(packed.get("dropped", ())),
    )


def pack_start(start: StartRecord) -> dict[str, Any]:
    """Return the record of a start without its history."""
    return {
        "status": None if start.status is None else start.status.name,
        "lower_bound": pack_number(start.lower_bound),
        "n_iter": int(start.n_iter),
        "events": _pack_events(start.events),
        "error": start.error,
    }


def unpack_start(packed: Mapping[str, Any], history: History) -> StartRecord:
    """Return what `pack_start` packed; raises as `unpack_result`."""
    return StartRecord(
        status=None if packed["status"] is None else FitStatus[packed["status"]],
        lower_bound=float(packed["lower_bound"]),
        n_iter=int(packed["n_iter"]),
        history=history,
        events=_unpack_events(packed["events"]),
        error=str(packed["error"]),
    )


def pack_state(state: FitState) -> dict[str, Any]:
    """Return a state without its parameters and its history."""
    return {
        "iteration": int(state.iteration),
        "with_moments": bool(state.with_moments),
        "n_reseeds": int(state.n_reseeds),
        **{name: pack_number(getattr(state, name)) for name in _STATE_NUMBERS},
        **{name: _integers(getattr(state, name)) for name in _STATE_COMPONENTS},
        "events": _pack_events(state.events),
    }


def unpack_state(packed: Mapping[str, Any], params: Params, history: History) -> FitState:
    """Return what `pack_state` packed; raises as `unpack_result`."""
    log_likelihood, change, initial, total = (float(packed[name]) for name in _STATE_NUMBERS)
    empty, collapsed, numbers, dropped, reseeds = (_integers(packed[name]) for name in _STATE_COMPONENTS)
    return FitState(
        params=params,
        iteration=int(packed["iteration"]),
        log_likelihood=log_likelihood,
        with_moments=bool(packed["with_moments"]),
        change=change,
        initial_log_likelihood=initial,
        total_weight=total,
        history=history,
        events=_unpack_events(packed["events"]),
        empty=empty,
        collapsed=collapsed,
        numbers=numbers,
        dropped=dropped,
        reseeds=reseeds,
        n_reseeds=int(packed["n_reseeds"]),
    )


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(k) for k in values)


def _pack_events(events: Sequence[ComponentEvent]) -> list[dict[str, Any]]:
    return [
        {
            "iteration": int(event.iteration),
            "component": None if event.component is None else int(event.component),
            "kind": event.kind,
            "detail": event.detail,
        }
        for event in events
    ]


def _unpack_events(packed: Sequence[Mapping[str, Any]]) -> tuple[ComponentEvent, ...]:
    return tuple(
        ComponentEvent(
            iteration=int(event["iteration"]),
            component=None if event["component"] is None else int(event["component"]),
            kind=str(event["kind"]),
            detail=str(event["detail"]),
        )
        for event in packed
    )
