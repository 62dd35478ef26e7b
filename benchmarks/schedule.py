"""Interleaved rounds within a time budget.

In a round every contestant runs once. Cheap contestants take part in as many rounds as they are told to; one that would
overrun the budget sits out. The first one (ours) runs in every round in which another does, because a ratio is taken
within a round, and every contestant gets at least one round.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def rounds(
    names: list[str], most: int, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[int, str]]:
    """Yield (round, name) in the order in which to run; what the caller takes until it asks again is that run's cost.

    Parameters
    ----------
    names : list of str
        The first runs in every round. A name may be removed from the list on the way: it then runs no more.
    most : int
        Rounds.
    seconds : float
        Budget. The first round is run whatever it takes.
    clock : callable
    """
    start, first = clock(), names[0]
    cost: dict[str, float] = {}
    for round_ in range(most):
        chosen = list(names)
        if round_:
            planned = clock() - start + cost[first]
            chosen = [first]
            for name in names[1:]:
                if planned + cost[name] <= seconds:
                    chosen.append(name)
                    planned += cost[name]
            if planned > seconds or (chosen == [first] and len(names) > 1):
                return
        for name in chosen:
            before = clock()
            yield round_, name
            cost[name] = clock() - before
