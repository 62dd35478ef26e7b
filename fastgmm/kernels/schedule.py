"""Which launch of a pass does which blocks: decided from shapes alone, before anything runs.

1. The grid: block i holds rows i B .. (i + 1) B - 1, B from `block_rows`. It depends on the model's shape only, and so
   does what is added up in which order; all else here decides how long things take and how much memory they need.
2. A wave is a run of blocks that are launched together, as many as there are slots for partials and as a launch may
   last; Python looks for Ctrl-C between two of them. Where even one block lasts longer, its rows are done in parts.
3. All seconds are rough: a few operations count for all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from fastgmm.kernels.arguments import TILE

SLOT_BYTES = 16 << 20
LAUNCH_SECONDS = 0.1  # of one launch, roughly, but one tile a thread at least: Ctrl-C waits no longer
TILE_SECONDS = 0.6  # from this (rough) time of a tile on, a launch does half of one: K D^2 = 1e8
SERIAL_SECONDS = 2e-4  # below this, waking a second thread takes longer than it saves
BLOCK_SECONDS = (3.5e-4, 1.2e-2)  # of a block, roughly: clearing and folding its partial takes microseconds at least,
BLOCK_SECONDS_PER_BYTE = 2e-8  # and a fiftieth of this; longer blocks would be too few to share out evenly
SEGMENT = 1 << 13  # elements that one task folds, at most
FOLD_TOGETHER = 1 << 16  # numbers that are folded by several threads, however few elements they are sums of
CACHE_BYTES = 1 << 20  # partials up to this size fold at the speed of a core's cache


def round8(n: int) -> int:
    """A number of float64, rounded up to whole cache lines."""
    return (n + 7) & -8


def row_seconds(n_components: int, slot_length: int) -> float:
    """Rough time of a row with one thread; only for the size of launches and blocks.

    A number of a partial is a multiply-add of every row, and a density takes about as many as the moments.
    """
    return n_components * 1e-9 + slot_length * 6e-11


@functools.lru_cache(maxsize=64)
def block_rows(n_components: int, slot_length: int) -> int:
    """Rows of a block: 5 to 20 tiles; enough work to outweigh its partial, little enough to share it out evenly."""
    if slot_length * 8 > CACHE_BYTES:
        return 10 * TILE
    least, most = BLOCK_SECONDS
    seconds = min(max(least, slot_length * 8 * BLOCK_SECONDS_PER_BYTE), most)
    tiles = seconds / (row_seconds(n_components, slot_length) * TILE)
    return int(min(max(tiles, 5), 20)) * TILE


def most_slots(threads: int, length: int) -> int:
    """Partials of so many numbers that are held at a time, if there are as many blocks."""
    return max(threads, min(512, SLOT_BYTES // (length * 8)))


def fold_segment(length: int, blocks: int, threads: int) -> int:
    """Elements that one task folds, of partials of `length` numbers: an equal share where threads fold together."""
    if threads > 1 and length * blocks >= FOLD_TOGETHER:
        return min(SEGMENT, round8(-(-length // threads)))
    return SEGMENT


def part_rows(n_components: int, slot_length: int) -> int:
    """Rows of a block that one launch does: all of them or, where they take too long, whole tiles, in the same order.

    Half tiles of the largest models round differently, but which models these are depends on shapes only.
    """
    seconds = row_seconds(n_components, slot_length) * TILE
    tile = TILE if seconds < TILE_SECONDS else TILE // 2
    return min(block_rows(n_components, slot_length), max(int(LAUNCH_SECONDS / seconds), 1) * tile)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a pass is launched.

    Attributes
    ----------
    block : int
        Rows of a block.
    part_rows : int
        Rows of a block that one launch does.
    ahead : int
        Waves that are under way at a time, each with its share of the slots.
    most : int
        Blocks of a wave, at most.
    workers : int
        Threads that may take part.
    row : float
        Seconds of a row with one thread.
    """

    block: int
    part_rows: int
    ahead: int
    most: int
    workers: int
    row: float

    def threads(self, n_rows: int) -> int:
        """Threads that take part in the waves of so many rows."""
        return 1 if n_rows * self.row < SERIAL_SECONDS else self.workers

    def waves(self, n_rows: int) -> Iterator[tuple[int, int]]:
        """Yield the first block of a wave and the number of its blocks, of rows that begin with a block."""
        blocks, most = -(-n_rows // self.block), self.most
        if blocks > most:
            most -= most % self.workers  # as many for every thread
        for first in range(0, blocks, most):
            yield first, min(most, blocks - first)


def make_schedule(n_components: int, slot_length: int, *, workers: int, slots: int, ahead: int) -> Schedule:
    """Plan a pass.

    Parameters
    ----------
    n_components, slot_length : int
        K, and the numbers in a partial with moments.
    workers : int
        Threads.
    slots : int
        Partials that there is room for; as many as workers at least.
    ahead : int
        Waves that whoever does them can begin before the first of them is finished.
    """
    block, row = block_rows(n_components, slot_length), row_seconds(n_components, slot_length)
    part = part_rows(n_components, slot_length)
    if part < block or slots < ahead * workers:
        ahead = 1
    most = max(min(slots // ahead, int(LAUNCH_SECONDS * workers / (block * row))), workers)
    return Schedule(block, part, ahead, most, workers, row)
