"""The checkpoints of one fit: what is compared before it goes on, when one is written, and where it goes on.

1. What decides the result must be what it was, or the fit is refused with the name of the setting: the settings of the
   model and of its starts, and the data, by their shape, their weights and a digest of the rows that starts are made
   from. Then the first pass has to give the stored log-likelihood to the bit (`fastgmm.em.loop`).
2. When to stop may change: max_iter, tol, max_time, n_init, callbacks and what is shown. A fit that was finished goes
   on if it now has more iterations, a smaller tol or more starts; of several starts only the best does.
3. A disk that is full half way is no reason to lose the fit: it goes on, with one warning and the last checkpoint
   intact. At the first checkpoint it is an error, since nothing is lost yet.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np

from fastgmm.checkpoint import Checkpoint
from fastgmm.checkpoint.generator import pack_generator, unpack_generator
from fastgmm.checkpoint.snapshot import Best, Snapshot, pack, unpack
from fastgmm.checkpoint.store import Store
from fastgmm.data import Rows
from fastgmm.em import FitResult, FitState, FitStatus, StartRecord
from fastgmm.em.packing import pack_number
from fastgmm.errors import CheckpointError, FastgmmWarning, InvalidParameterError
from fastgmm.estimators._fit import STOPPED, Recalled
from fastgmm.estimators._settings import Settings
from fastgmm.initialize import RowSample
from fastgmm.params import Params
from fastgmm.typing import Array
from fastgmm.validation import check_flag, check_integer, check_number

COST: Final = 20.0
"""Seconds between two checkpoints, at least, for each second that one takes to write."""

DECISIVE: Final = (
    "n_components",
    "covariance_type",
    "reg_covar",
    "reg_scale",
    "degenerate",
    "init_params",
    "weights_init",
    "means_init",
    "precisions_init",
    "random_state",
    "first_passes",
)
"""Constructor parameters that decide the result."""

ONLY_WITH_FIRST_PASSES: Final = ("learning_decay", "learning_offset")


def check_checkpoint(checkpoint: Any, resume: Any) -> Checkpoint | None:
    """Check two arguments of `fit`.

    Raises
    ------
    InvalidParameterError
    """
    resume = check_flag(resume, "resume")
    if checkpoint is None:
        if resume:
            msg = "resume=True needs checkpoint, the directory of the fit that is to go on; got checkpoint=None"
            raise InvalidParameterError(msg)
        return None
    if isinstance(checkpoint, str | os.PathLike):
        return Checkpoint(checkpoint)
    if not isinstance(checkpoint, Checkpoint) or not isinstance(checkpoint.path, str | os.PathLike):
        msg = f"checkpoint must be a path, a fastgmm.Checkpoint or None; got {checkpoint!r}"
        raise InvalidParameterError(msg)
    every = checkpoint.every_iterations
    return Checkpoint(
        checkpoint.path,
        check_number(checkpoint.every_seconds, "every_seconds of the checkpoint", minimum=0.0),
        None if every is None else check_integer(every, "every_iterations of the checkpoint", minimum=1),
    )


class _Drawn(NamedTuple):
    """The start under way."""

    number: int  # of it, from 0
    generator: dict[str, Any]  # the state after it was drawn
    repeats: int = -1  # the iteration that its first pass repeats, where it goes on


class Journal:
    """Keeps the checkpoints of one fit; a context manager around it, so that none is lost when it is interrupted.

    Parameters
    ----------
    options : Checkpoint
    resume : bool
    estimator : estimator
        Whose parameters are compared.
    rng : numpy.random.Generator
        Of the fit, before anything is drawn from it.

    Attributes
    ----------
    rng : numpy.random.Generator
        To be used by the fit: the one given, or, where a fit goes on, one as it was at the beginning of that.

    Raises
    ------
    CheckpointError
        If there is a fit and it is not to be resumed, or if it had other settings.
    """

    def __init__(self, options: Checkpoint, *, resume: bool, estimator: Any, rng: np.random.Generator) -> None:
        self._options = options
        self._store = Store(Path(options.path))
        settings = _settings(estimator)
        if not resume and self._store.numbers():
            msg = (
                f"{options.path} holds the checkpoints of a fit already. Use resume=True to go on with it, another "
                "directory for another fit, or remove the directory to begin anew"
            )
            raise CheckpointError(msg)
        archive = self._store.read()
        self._resumed = archive is not None
        if archive is None:
            before = pack_generator(rng)
            snapshot = Snapshot(settings, {}, 0.0, False, before, before, (), None, None)
        else:
            snapshot = unpack(archive)
            _compare(snapshot.settings, settings, "settings", str(options.path))
            rng = unpack_generator(snapshot.generator_before)
        self.rng = rng
        # Values that are replaced and never changed: Ctrl-C at any moment finds either the old one or the new one.
        self._now = snapshot
        self._start = _Drawn(len(snapshot.records), snapshot.generator_now)
        self._written = snapshot if self._resumed else None
        self._warned = False
        self._next = -np.inf

    def meet(self, rows: Rows, sample: RowSample, settings: Settings, *, single: bool) -> bool:
        """Compare the data with those of the fit that goes on; return whether there is only one start.

        Raises
        ------
        CheckpointError
            If they differ.
        """
        data = _fingerprint(rows, sample)
        if self._resumed:
            _compare(self._now.data, data, "data", str(self._options.path))
            return self._now.single
        self._now = replace(self._now, data=data, single=single, tol=settings.tol)
        return single

    def recall(self, settings: Settings) -> Recalled:
        """Return where the fit is to go on."""
        now, index = self._now, self._start.number
        best, state = now.best, now.current
        if state is None and best is not None and _has_more_to_do(best, settings, now.tol):
            records = (*now.records[: best.index], *now.records[best.index + 1 :])
            index, state = best.index, best.state
            now = replace(now, records=records, best=None, current=state)
        self._now = replace(now, tol=settings.tol)
        if self._resumed:
            self._written = self._now
            self._next = time.perf_counter() + self._options.every_seconds
        self._start = _Drawn(index, now.generator_now, -1 if state is None else state.iteration)
        result = None if now.best is None else now.best.result()
        return Recalled(now.records, result, state, index)

    def following(self, starts: Iterator[Params], n_starts: int, rng: np.random.Generator) -> Iterator[Params]:
        """Yield the starts that are yet to be made, of `n_starts` in all; `rng` is what they are drawn with."""
        if self._resumed:
            rng.bit_generator.state = unpack_generator(self._now.generator_now).bit_generator.state
        drawn = len(self._now.records) + (self._now.current is not None)
        for _ in range(drawn, n_starts):
            params = next(starts)
            # Not in `_now` before the start is, or a fit that is interrupted in between would draw another one.
            self._start = _Drawn(len(self._now.records), pack_generator(rng))
            yield params

    def watch(self, state: FitState) -> None:
        """Take note of an iteration; write a checkpoint if it is time."""
        if state.iteration == self._start.repeats:
            return  # the pass that a resumed fit repeats
        self._now = replace(self._now, current=state, generator_now=self._start.generator)
        every = self._options.every_iterations
        due = every is not None and state.iteration % every == 0
        if due or time.perf_counter() >= self._next:
            self._write()

    def ended(self, result: FitResult | None, record: StartRecord) -> None:
        """Take note that a start has come to its end, or was stopped; `result` is None if it failed."""
        if result is not None and result.status in STOPPED:
            return  # it is still under way
        now, index, best = self._now, self._start.number, self._now.best
        if result is not None and (best is None or result.lower_bound > best.result().lower_bound):
            assert now.current is not None  # every fit that ends has been watched
            best = Best(index, result.status, result.log_map, now.current)
        records = (*now.records[:index], record, *now.records[index:])
        self._now = replace(now, records=records, best=best, current=None, generator_now=self._start.generator)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is not written yet."""
        if self._now is self._written or not (self._now.records or self._now.current):
            return
        if kind is None:
            self._write()
            return
        with suppress(FastgmmWarning, OSError):  # the exception on its way matters more
            self._write()

    def _write(self) -> None:
        began = time.perf_counter()
        now = self._now
        try:
            self._store.write(*pack(now))
        except OSError as error:
            if self._written is None:
                raise
            self._complain(error)
        else:
            self._written = now
        ended = time.perf_counter()
        self._next = ended + max(self._options.every_seconds, COST * (ended - began))

    def _complain(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        msg = (
            f"no checkpoint could be written to {self._options.path}: {error.strerror or error}. The fit goes on and "
            "keeps trying, and the last checkpoint is as it was. Make room there, or let the fit end"
        )
        warnings.warn(msg, FastgmmWarning, stacklevel=2)


def _has_more_to_do(best: Best, settings: Settings, tol: float) -> bool:
    """Whether a fit that ended with `tol` would have gone on under these settings."""
    state = best.state
    if state.iteration >= settings.max_iter:
        return False
    if best.status is FitStatus.CONVERGED and settings.tol < tol:
        values = [state.initial_log_likelihood, *(record.log_likelihood for record in state.history)]
        means = [value / state.total_weight for value in values[-3:-1]]
        return not (len(means) == 2 and abs(means[1] - means[0]) < settings.tol)
    return best.status is FitStatus.MAX_ITER


def _settings(estimator: Any) -> dict[str, Any]:
    """Return the decisive parameters in a form that JSON holds and that tells two of them apart."""
    params = estimator.get_params(deep=False)
    names = DECISIVE if params.get("first_passes") is None else (*DECISIVE, *ONLY_WITH_FIRST_PASSES)
    return {name: _described(params[name]) for name in names if name in params}


def _described(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return pack_number(value)
    if isinstance(value, np.random.Generator | np.random.RandomState | np.random.BitGenerator | np.random.SeedSequence):
        return f"a {type(value).__name__}"
    if callable(value):
        return f"function {getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', type(value).__name__)}"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return repr(value)
    if array.dtype.kind in "fiub":
        return f"array of shape {array.shape}, {_digest(array.astype(np.float64))}"
    return repr(value)


def _fingerprint(rows: Rows, sample: RowSample) -> dict[str, Any]:
    """Return what the data are recognised by."""
    parts = (sample.z, sample.weight, sample.origin, np.array([sample.unit]), sample.variance)
    return {
        "n_rows": int(rows.n_rows),
        "n_features": int(rows.n_features),
        "dtype": np.dtype(rows.dtype).name,
        "weighted": bool(rows.weighted),
        "total_weight": pack_number(rows.total_weight),
        "weight_scale": pack_number(rows.weight_scale),
        "rows": _digest(*(part for part in parts if part is not None)),
    }


def _digest(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return f"sha256 {digest.hexdigest()[:16]}"


def _compare(there: Mapping[str, Any], here: Mapping[str, Any], what: str, path: str) -> None:
    """Refuse to go on with something else, and say what differs."""
    different = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if different:
        listed = "; ".join(f"{name} was {there.get(name)!r} and is {here.get(name)!r}" for name in different)
        msg = (
            f"the fit in {path} cannot be resumed, because it had other {what}: {listed}. Give it what it was begun "
            "with, or use another checkpoint directory"
        )
        raise CheckpointError(msg)
