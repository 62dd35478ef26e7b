"""All that a fit of several starts knows at one moment, as a value and as the content of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from fastgmm import __version__
from fastgmm.archive import Archive
from fastgmm.checkpoint.generator import unpack_generator
from fastgmm.covariance import family
from fastgmm.em import FitResult, FitState, FitStatus, IterationRecord, StartRecord
from fastgmm.em.packing import pack_number, pack_start, pack_state, unpack_start, unpack_state
from fastgmm.errors import CheckpointError
from fastgmm.params import Params
from fastgmm.typing import Array

FORMAT: Final = "fastgmm checkpoint"
FORMAT_VERSION: Final = 1

_PARAMS: Final = ("weights", "means", "covariances")


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The best start that came to its end.

    Attributes
    ----------
    index : int
        Which one it was, counted from 0.
    status : FitStatus
    log_map : float
    state : FitState
        At its end.
    """

    index: int
    status: FitStatus
    log_map: float
    state: FitState

    def result(self) -> FitResult:
        """Return it as EM did."""
        return self.state.result(self.status, self.log_map)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A fit at one moment.

    Attributes
    ----------
    settings : dict of str to JSON
        What decides the result, by the names of the user's parameters.
    data : dict of str to JSON
        What the data were recognised by.
    tol : float
        Of the fit that wrote it.
    single : bool
        Whether there is only one start, whatever n_init says.
    generator_before, generator_now : dict
        State of the random generator when the fit began, and after the last start was drawn.
    records : tuple of StartRecord
        Of the starts that came to their end.
    best : Best or None
    current : FitState or None
        Of the start that is under way; it is number ``len(records)``.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    tol: float
    single: bool
    generator_before: dict[str, Any]
    generator_now: dict[str, Any]
    records: tuple[StartRecord, ...]
    best: Best | None
    current: FitState | None


def pack(snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and arrays of a file."""
    best, current = snapshot.best, snapshot.current
    states = {"best": None if best is None else best.state, "current": current}
    arrays = {
        f"{name}.{part}": getattr(state.params, part)
        for name, state in states.items()
        if state is not None
        for part in _PARAMS
    }
    histories = [() if state is None else state.history for state in states.values()]
    histories += [record.history for record in snapshot.records]
    flat = [(record.log_likelihood, record.seconds) for history in histories for record in history]
    arrays["history"] = np.array(flat, dtype=np.float64).reshape(-1, 2)
    arrays["history_ends"] = np.cumsum([len(history) for history in histories], dtype=np.int64)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": {"fastgmm": __version__, "numpy": np.__version__},
        "settings": snapshot.settings,
        "data": snapshot.data,
        "tol": pack_number(snapshot.tol),
        "single": snapshot.single,
        "generator_before": snapshot.generator_before,
        "generator_now": snapshot.generator_now,
        "starts": [pack_start(record) for record in snapshot.records],
        "best": None
        if best is None
        else {
            "index": best.index,
            "status": best.status.name,
            "log_map": pack_number(best.log_map),
            "state": _pack_state(best.state),
        },
        "current": None if current is None else _pack_state(current),
    }
    return header, arrays


def unpack(archive: Archive) -> Snapshot:
    """Return the snapshot that a file holds.

    Raises
    ------
    CheckpointError
        If it is no checkpoint, or one of a newer release.
    """
    header, arrays = archive.header, archive.arrays
    if header.get("format") != FORMAT:
        msg = f"the file is no checkpoint: its format is {header.get('format')!r}, expected {FORMAT!r}"
        raise CheckpointError(msg)
    if header.get("format_version") != FORMAT_VERSION:
        msg = (
            f"the checkpoint is of format_version {header.get('format_version')!r}, and this release ({__version__}) "
            f"reads {FORMAT_VERSION}; resume with the release that wrote it"
        )
        raise CheckpointError(msg)
    try:
        of_best, of_current, *rest = _histories(arrays)
        best, current = header["best"], header["current"]
        for name in ("generator_before", "generator_now"):
            unpack_generator(header[name])  # raises
        snapshot = Snapshot(
            settings=dict(header["settings"]),
            data=dict(header["data"]),
            tol=float(header["tol"]),
            single=bool(header["single"]),
            generator_before=dict(header["generator_before"]),
            generator_now=dict(header["generator_now"]),
            records=tuple(unpack_start(start, h) for start, h in zip(header["starts"], rest, strict=True)),
            best=None
            if best is None
            else Best(
                int(best["index"]),
                FitStatus[best["status"]],
                float(best["log_map"]),
                _unpack_state(best["state"], "best", of_best, arrays),
            ),
            current=None if current is None else _unpack_state(current, "current", of_current, arrays),
        )
        _check(snapshot)
        return snapshot
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
        msg = f"the checkpoint is not complete: {type(error).__name__} {error}"
        raise CheckpointError(msg) from error


def _check(snapshot: Snapshot) -> None:
    """Raise `ValueError` unless the parts of a snapshot fit together: a fit must be able to work with it."""
    if not all(math.isfinite(value) for value in (snapshot.tol, snapshot.data["total_weight"])):
        msg = "tol or total_weight is not finite"
        raise ValueError(msg)
    if snapshot.best is not None and not 0 <= snapshot.best.index < len(snapshot.records):
        msg = f"the best of {len(snapshot.records)} starts is number {snapshot.best.index}"
        raise ValueError(msg)
    kind = family(snapshot.settings["covariance_type"]).name
    d = snapshot.data["n_features"]
    for state in (snapshot.current, None if snapshot.best is None else snapshot.best.state):
        if state is None:
            continue
        params, k = state.params, len(state.params.weights)
        _expect("covariance_type", params.covariance_type, kind)
        _expect("shape of means", params.means.shape, (k, d))
        _expect("shape of covariances", params.covariances.shape, family(kind).shape(k, d))
        for name in _PARAMS:
            part = getattr(params, name)
            _expect(f"dtype of {name}", part.dtype, np.float64)
            _expect(f"whether {name} are finite", bool(np.isfinite(part).all()), True)
        _expect("smallest weight below 0", bool(params.weights.min() < 0.0), False)
        _expect("length of the history", len(state.history), state.iteration)
        _expect("length of numbers and reseeds", (len(state.numbers), len(state.reseeds)), (k, k))
        here = {*state.empty, *state.collapsed}
        _expect("components out of range", sorted(here - set(range(k))), [])
        starts = range(snapshot.settings["n_components"])
        _expect("numbers", sorted({*state.numbers, *state.dropped}), list(starts))


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        msg = f"{what}: {found}, expected {expected}"
        raise ValueError(msg)


def _pack_state(state: FitState) -> dict[str, Any]:
    return {"covariance_type": state.params.covariance_type, **pack_state(state)}


def _unpack_state(
    packed: Mapping[str, Any], name: str, history: tuple[IterationRecord, ...], arrays: Mapping[str, Array]
) -> FitState:
    weights, means, covariances = (arrays[f"{name}.{part}"] for part in _PARAMS)
    return unpack_state(packed, Params(weights, means, covariances, str(packed["covariance_type"])), history)


def _histories(arrays: Mapping[str, Array]) -> Sequence[tuple[IterationRecord, ...]]:
    flat = arrays["history"].tolist()
    return [
        tuple(IterationRecord(float(value), float(seconds)) for value, seconds in flat[first:last])
        for first, last in pairwise([0, *arrays["history_ends"].tolist()])
    ]
