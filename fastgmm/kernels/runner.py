"""Runs a pass over all rows of a source: grid of blocks, waves of partials, fold, scratch.

The grid depends on shapes only: block i holds rows i B .. (i + 1) B - 1, B from `block_rows`. A wave computes as many
blocks as there are slots for partials, then folds them (`fold.py`). So the bits of a result do not depend on the number
of threads, on the number of slots, or on how the source cuts its rows, as long as it cuts them at block boundaries.

Memory of a `Runner`, beside the rows and the parameters: `slots` partials of at most `SLOT_BYTES` together (but one a
thread), 1 + log16(blocks) more for the fold, and one workspace a thread.
"""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import compile_block, launch, n_threads
from fastgmm.kernels.arguments import ALIGNMENT, TILE
from fastgmm.kernels.fold import Counter, Digit, fold_block, n_levels, total
from fastgmm.kernels.layout import padded_width
from fastgmm.kernels.team import Crew, OpenMP, Wave, new_wave, team
from fastgmm.kernels.workspace import workspace_bytes
from fastgmm.pieces import pieces

ELEMENT_NAMES = {8: "float64", 4: "float32"}  # by size: `dtype.name` takes microseconds
SLOT_BYTES = 16 << 20
LAUNCH_SECONDS = 0.1  # of one launch, roughly, but one tile a thread at least: Ctrl-C waits no longer
TILE_SECONDS = 0.6  # from this (rough) time of a tile on, a launch does half of one: K D^2 = 1e8
TOUCH_BYTES = 1 << 26  # scratch above this is given its memory in pieces: half a second a gigabyte
PAGE = 4096
SERIAL_SECONDS = 2e-4  # below this, waking a second thread takes longer than it saves
BLOCK_SECONDS = (3.5e-4, 1.2e-2)  # of a block, roughly: clearing and folding its partial takes microseconds at least,
BLOCK_SECONDS_PER_BYTE = 2e-8  # and a fiftieth of this; longer blocks would be too few to share out evenly
CONVERT_BYTES = 1 << 22  # rows that are converted to a pass's precision at a time
SEGMENT = 1 << 13  # elements that one task folds, at most
FOLD_TOGETHER = 1 << 16  # numbers that are folded by several threads, however few elements they are sums of
OPEN_MP = OpenMP()
_BYTE: Any = ctypes.c_char
CACHE_BYTES = 1 << 20  # partials up to this size fold at the speed of a core's cache


@dataclass(slots=True)
class Program:
    """One pass, ready to run: its code, its packed parameters and where its moments lie in a slot.

    `arrays` maps slots of the table to arrays, which live as long as the program; `numbers` to integers.
    """

    body: Callable[..., None]
    dtype: np.dtype[Any]
    n_components: int
    n_features: int
    moment_length: int  # second moments of one component
    first_length: int  # first moments of one component
    arrays: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    centre: npt.NDArray[np.float64] | None = None  # what moments are about, if not the components' means

    first: int = field(init=False)  # where the first moments begin
    second: int = field(init=False)  # where the second moments begin
    slot_length: int = field(init=False)  # numbers in a partial with moments

    def __post_init__(self) -> None:
        self.first = _round8(a.WEIGHT + self.n_components)
        self.second = self.first + _round8(self.n_components * self.first_length)
        self.slot_length = self.second + _round8(self.n_components * self.moment_length)


def _round8(n: int) -> int:
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


def partial_length(program: Program, mode: int) -> int:
    """Numbers in a partial of a pass."""
    return program.slot_length if mode in (a.FIT, a.ASSIGN) else _round8(a.WEIGHT)


def _in_precision(parts: Iterable[Any], dtype: np.dtype[Any], block: int) -> Iterator[Any]:
    """Yield the parts of a source; rows of another precision are converted, `CONVERT_BYTES` at a time."""
    for part in parts:
        if part.x.dtype == dtype:
            yield part
            continue
        size = max(CONVERT_BYTES // (part.x.shape[1] * dtype.itemsize) // block, 1) * block
        for start in range(0, part.x.shape[0], size):
            weight = None if part.weight is None else part.weight[start : start + size]
            yield part._replace(first=part.first + start, x=part.x[start : start + size].astype(dtype), weight=weight)


class Runner:
    """Scratch and partials, kept between passes over the same source.

    Parameters
    ----------
    threads : int, optional
        At most so many; None for as many as Numba gives this thread.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._shape: tuple[int, ...] = ()
        self._length = 0  # of the partials that there is room for

    def run(
        self,
        program: Program,
        rows: Any,
        mode: int,
        out: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Run over all blocks of `rows`; return the folded partial, (slot_length,) or (WEIGHT,) without moments.

        It is scratch: valid until the next run.
        """
        return total(self.run_from(program, rows, mode, 0, out), spend=True)

    def run_from(
        self,
        program: Program,
        rows: Any,
        mode: int,
        begin: int,
        out: npt.NDArray[Any] | None = None,
    ) -> list[Digit]:
        """Run over `rows`, the blocks `begin`, `begin` + 1, ... of a grid; return their sums as digits, in order.

        Values of digits may be scratch: they are valid until the next run.
        """
        block = block_rows(program.n_components, program.slot_length)
        length = partial_length(program, mode)
        table = self._table(program, mode, block, length, -(-rows.n_rows // block))
        workers = self._workers
        code = compile_block(program.body, ELEMENT_NAMES[program.dtype.itemsize])
        row = row_seconds(program.n_components, program.slot_length)
        # Where even one block takes longer, a launch does the same part of each block: whole tiles, in the same order.
        # Half tiles of the largest models round differently, but which models these are depends on shapes only.
        tile = TILE if row * TILE < TILE_SECONDS else TILE // 2
        part_rows = min(block, max(int(LAUNCH_SECONDS / (row * TILE)), 1) * tile)
        if rows.n_rows <= block:
            self._run_one(code, table, rows, program.dtype, part_rows, out)
            return [Digit(0, begin, 1, self._slots[:length])]
        fold = compile_block(fold_block, "float64")
        sums = Counter(self._stack, length, begin)

        def finish(wave: Wave) -> None:
            crew.finish(wave)
            threads = wave.threads if crew.ahead == 1 else 1  # the others are at work on the next wave
            segment = SEGMENT
            if threads > 1 and length * wave.blocks >= FOLD_TOGETHER:
                segment = min(SEGMENT, _round8(-(-length // threads)))
            wave.table[a.SEGMENT] = segment
            sums.push(wave.table, wave.blocks, lambda: launch(fold, wave.table, -(-length // segment), threads))

        with self._crew(rows) as crew:
            ahead = crew.ahead if part_rows == block and self._n_slots >= crew.ahead * workers else 1
            most = min(self._n_slots // ahead, int(LAUNCH_SECONDS * workers / (block * row)))
            most = max(most, workers)
            waves: deque[Wave] = deque()
            place = 0  # of the next wave's partials: with two waves at a time, each has its half
            for part in _in_precision(rows.blocks(block), program.dtype, block):
                x, weight = part.x, part.weight
                blocks = -(-x.shape[0] // block)
                threads = 1 if x.shape[0] * row < SERIAL_SECONDS else workers
                even = most if blocks <= most else most // workers * workers  # as many for every thread
                for first in range(0, blocks, even):
                    own = table.copy()
                    own[a.ROWS] = address(x)
                    own[a.WEIGHTS] = 0 if weight is None else address(weight)
                    own[a.N_ROWS], own[a.FIRST_BLOCK] = x.shape[0], first
                    own[a.SLOTS] += place * most * length * 8
                    if out is not None:
                        own[a.OUT] = address(out[part.first : part.first + x.shape[0]])
                    place = (place + 1) % ahead
                    wave = new_wave(code, own, min(even, blocks - first), threads, part_rows, part)
                    crew.begin(wave)
                    waves.append(wave)
                    if len(waves) == ahead:
                        finish(waves.popleft())
            for wave in waves:
                finish(wave)
        return sums.digits()

    @staticmethod
    def _run_one(
        code: int,
        table: npt.NDArray[np.int64],
        rows: Any,
        dtype: np.dtype[Any],
        part_rows: int,
        out: npt.NDArray[Any] | None,
    ) -> None:
        """Run over rows that are one block: there is nothing to share out and nothing to fold."""
        block = int(table[a.BLOCK_ROWS])
        (part,) = _in_precision(rows.blocks(block), dtype, block)
        table[a.ROWS] = address(part.x)
        table[a.WEIGHTS] = 0 if part.weight is None else address(part.weight)
        table[a.N_ROWS], table[a.PART_ROWS] = rows.n_rows, part_rows
        if out is not None:
            table[a.OUT] = address(out)
        for first in range(0, rows.n_rows, part_rows):
            table[a.PART_FIRST] = first
            launch(code, table, 1, 1)

    def _crew(self, rows: Any) -> AbstractContextManager[Crew]:
        """Beside a thread that reads ahead, one whose threads sleep while they wait."""
        return team(self._workers) if self._workers > 1 and reads_ahead(rows) else nullcontext(OPEN_MP)

    def _table(self, program: Program, mode: int, block: int, length: int, blocks: int) -> npt.NDArray[np.int64]:
        """The table for a program; what does not change from pass to pass is kept."""
        k, d, size = program.n_components, program.n_features, program.dtype.itemsize
        threads = 1 if blocks <= 1 or self._threads == 1 else min(self._threads or blocks, blocks, n_threads())
        slots = self._n_slots = min(most_slots(threads, length), max(blocks, 1))
        more = program.numbers.get(a.WHITE, 0), program.numbers.get(a.EXTRA, 0)
        shape = (k, d, size, slots, n_levels(blocks), threads, *more)
        if shape != self._shape or length > self._length:
            self._allocate(shape, length)
        table = self._fixed.copy()
        table[a.SLOT_LENGTH] = length
        for slot, array in program.arrays.items():
            table[slot] = address(array)
        for slot, number in program.numbers.items():
            table[slot] = number
        table[a.BLOCK_ROWS], table[a.MODE] = block, mode
        table[a.FIRST], table[a.SECOND] = program.first, program.second
        table[a.MOMENT_LENGTH] = program.moment_length
        return table

    def _allocate(self, shape: tuple[int, ...], length: int) -> None:
        k, d, size, slots, levels, threads, white, extra = shape
        padded = padded_width(d, size)
        self._shape, self._length, self._workers = shape, length, threads
        scratch_bytes = workspace_bytes(k, d, padded, size, white, extra)
        n_slots = slots * length  # both are multiples of whole cache lines
        n_scratch = n_slots * 8 + threads * scratch_bytes
        room = aligned_empty(n_scratch + length * levels * 8)
        self._slots, self._scratch = room[: n_slots * 8].view(np.float64), room[n_slots * 8 : n_scratch]
        self._stack = room[n_scratch:].view(np.float64)
        for array in (self._slots, self._stack):
            if array.nbytes > TOUCH_BYTES:
                for some in pieces(array):  # or the first launch would wait for the system to find the memory
                    array[some][:: PAGE // 8] = 0.0
        self._fixed = table = a.table()
        table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS], table[a.SIZE] = d, padded, k, size
        table[a.SLOTS] = address(self._slots)
        table[a.SCRATCH], table[a.SCRATCH_BYTES] = address(self._scratch), scratch_bytes
        table[a.STACK] = address(self._stack)


def reads_ahead(rows: Any) -> bool:
    """Whether a thread of its own reads these rows, so that a block is valid while the caller has the next one, too."""
    return bool(getattr(rows, "reads_ahead", False))


def address(array: npt.NDArray[Any]) -> int:
    """Address of an array's first element."""
    if array.flags.carray and array.size:
        return ctypes.addressof(_BYTE.from_buffer(array))  # a third of the time of what follows
    where: int = array.__array_interface__["data"][0]
    return where


def aligned_empty(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialised bytes that begin at a cache line."""
    raw = np.empty(n_bytes + ALIGNMENT, np.uint8)
    begin = -address(raw) % ALIGNMENT
    return raw[begin : begin + n_bytes]
