"""Who runs what in a pass that the caller hands out itself: pure functions of slabs, their holders and the workers.

A *share* is ``(numbers, below)``: the slabs that a worker runs, in order, and the (address, share) of workers that it
hands on and whose answers it merges with its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Share = tuple[tuple[Any, ...], tuple[tuple[str, "Share"], ...]]

GAIN = 0.05
"""Share of the longest worker's time that moving a slab must save, or it stays where it is."""


def assign(holders: Sequence[Sequence[str]], sizes: Sequence[int], threads: Mapping[str, int]) -> dict[str, list[int]]:
    """Give each slab to one of the workers that hold it: the one that has the least to do for its threads.

    Parameters
    ----------
    holders : sequence of sequences of str
        For each slab, addresses; those that are not in `threads` do not count.
    sizes : sequence of int
        Rows of each slab.
    threads : mapping of str to int
        Of each worker.

    Returns
    -------
    dict of str to list of int
        For every worker, numbers of slabs in order; a slab that nobody holds is in none.
    """
    shares: dict[str, list[int]] = {address: [] for address in threads}
    load = dict.fromkeys(threads, 0.0)
    for number, (some, size) in enumerate(zip(holders, sizes, strict=True)):
        there = [address for address in some if address in threads]
        if there:
            best = min(there, key=lambda address: (load[address] + size / threads[address], address))
            shares[best].append(number)
            load[best] += size / threads[best]
    return shares


def moves(
    shares: Mapping[str, Sequence[int]], sizes: Sequence[int], threads: Mapping[str, int]
) -> list[tuple[int, str]]:
    """Return (slab, worker that should have it) for as long as a move saves time; for workers that joined later."""
    left = {address: list(numbers) for address, numbers in shares.items()}
    load = {address: sum(sizes[n] for n in numbers) for address, numbers in left.items()}

    def seconds(address: str, more: int = 0) -> float:
        return (load[address] + more) / threads[address]

    found: list[tuple[int, str]] = []
    while left:
        heavy = max(left, key=lambda address: (seconds(address), address))
        if not left[heavy]:
            break
        slab = min(left[heavy], key=lambda n: (sizes[n], -n))
        light = min(left, key=lambda address: (seconds(address, sizes[slab]), address))
        if seconds(light, sizes[slab]) > seconds(heavy) * (1.0 - GAIN):
            break
        left[heavy].remove(slab)
        load[heavy] -= sizes[slab]
        load[light] += sizes[slab]  # what was moved is not moved again, so this ends
        found.append((slab, light))
    return found


def tree(shares: Sequence[tuple[str, tuple[Any, ...]]], fan: int) -> list[tuple[str, Share]]:
    """Return at most `fan` shares: of more workers, the first of a group hands on to the others of its group.

    Parameters
    ----------
    shares : sequence of (str, tuple)
        Address and slabs of each worker, neighbours side by side.
    fan : int
        Workers that one process speaks to.
    """
    if len(shares) <= fan:
        return [(address, (numbers, ())) for address, numbers in shares]
    edges = [i * len(shares) // fan for i in range(fan + 1)]
    groups = [shares[start:end] for start, end in pairwise(edges)]
    return [(group[0][0], (group[0][1], tuple(tree(group[1:], fan)))) for group in groups]


def addresses(share: Share) -> set[str]:
    """Return the workers below a share."""
    return {found for address, one in share[1] for found in (address, *addresses(one))}
