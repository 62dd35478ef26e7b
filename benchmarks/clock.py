"""Timing calls against each other: alternating repetitions, so that a change of the machine's speed hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEAST, MOST = 3, 200  # repetitions


def alternate(
    calls: Mapping[str, Callable[[], object]],
    seconds: float = 1.0,
    least: int = LEAST,
    most: int = MOST,
    *,
    warm: float = 0.0,
) -> dict[str, list[float]]:
    """Return the times of calls made in turn, each once untimed before.

    Parameters
    ----------
    calls : mapping of str to callable
    seconds : float
        Go round for about so long, but `least` times at least and `most` at most.
    warm : float
        Seconds for which a call is made again and again before it is timed: then it is one of many, its threads awake,
        its code in the caches and all cores at their clock.

    Returns
    -------
    dict of str to list of float
        Name -> seconds of each repetition, in order; the same index is the same repetition.
    """
    for call in calls.values():
        call()
    before = dict.fromkeys(calls, 0)
    if warm > 0.0:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            before[name] = int(warm / (time.perf_counter() - start))
    times: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for repetition in range(most):
            if repetition >= least and time.perf_counter() > end:
                break
            for name, call in calls.items():
                for _ in range(before[name]):
                    call()
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return times


def ratio(times: Mapping[str, list[float]], top: str, bottom: str) -> float:
    """Return the median over the repetitions of one call's time over another's."""
    return statistics.median(a / b for a, b in zip(times[top], times[bottom], strict=True))
