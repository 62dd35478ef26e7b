"""Runs a pass over all rows of a source: waves of blocks (`schedule.py`), partials, fold, scratch.

A wave computes as many blocks of a grid that depends on shapes only as there are slots for partials, then folds them
(`fold.py`). So the bits of a result do not depend on the number of threads, on the number of slots, or on how the
source cuts its rows, as long as it cuts them at block boundaries.

Memory of a `Runner`, beside the rows and the parameters: `slots` partials of at most `SLOT_BYTES` together (but one a
thread), 1 + log16(blocks) more for the fold, and one workspace a thread.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import compile_block, launch, n_threads
from fastgmm.kernels.arguments import ALIGNMENT
from fastgmm.kernels.fold import Counter, Digit, fold_block, n_levels, total
from fastgmm.kernels.layout import padded_width
from fastgmm.kernels.schedule import block_rows, fold_segment, make_schedule, most_slots, part_rows, round8
from fastgmm.kernels.team import Crew, OpenMP, Wave, new_wave, team
from fastgmm.kernels.workspace import workspace_bytes
from fastgmm.pieces import pieces

ELEMENT_NAMES = {8: "float64", 4: "float32"}  # by size: `dtype.name` takes microseconds
TOUCH_BYTES = 1 << 26  # scratch above this is given its memory in pieces: half a second a gigabyte
PAGE = 4096
CONVERT_BYTES = 1 << 22  # rows that are converted to a pass's precision at a time
OPEN_MP = OpenMP()
_BYTE: Any = ctypes.c_char


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
        self.first = round8(a.WEIGHT + self.n_components)
        self.second = self.first + round8(self.n_components * self.first_length)
        self.slot_length = self.second + round8(self.n_components * self.moment_length)


def partial_length(program: Program, mode: int) -> int:
    """Numbers in a partial of a pass."""
    return program.slot_length if mode in (a.FIT, a.ASSIGN) else round8(a.WEIGHT)


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
        shape = program.n_components, program.slot_length
        block, length = block_rows(*shape), partial_length(program, mode)
        table = self._table(program, mode, block, length, -(-rows.n_rows // block))
        code = compile_block(program.body, ELEMENT_NAMES[program.dtype.itemsize])
        if rows.n_rows <= block:
            self._run_one(code, table, rows, program.dtype, part_rows(*shape), out)
            return [Digit(0, begin, 1, self._slots[:length])]
        fold = compile_block(fold_block, "float64")
        sums = Counter(self._stack, length, begin)

        def finish(wave: Wave) -> None:
            crew.finish(wave)
            threads = wave.threads if crew.ahead == 1 else 1  # the others are at work on the next wave
            segment = wave.table[a.SEGMENT] = fold_segment(length, wave.blocks, threads)
            sums.push(wave.table, wave.blocks, lambda: launch(fold, wave.table, -(-length // segment), threads))

        with self._crew(rows) as crew:
            plan = make_schedule(*shape, workers=self._workers, slots=self._n_slots, ahead=crew.ahead)
            places = itertools.cycle(range(plan.ahead))  # of a wave's partials: of two at a time, each has its half
            waves: deque[Wave] = deque()
            for part in _in_precision(rows.blocks(block), program.dtype, block):
                x, weight = part.x, part.weight
                threads = plan.threads(x.shape[0])
                for first, blocks in plan.waves(x.shape[0]):
                    own = table.copy()
                    own[a.ROWS] = address(x)
                    own[a.WEIGHTS] = 0 if weight is None else address(weight)
                    own[a.N_ROWS], own[a.FIRST_BLOCK] = x.shape[0], first
                    own[a.SLOTS] += next(places) * plan.most * length * 8
                    if out is not None:
                        own[a.OUT] = address(out[part.first : part.first + x.shape[0]])
                    wave = new_wave(code, own, blocks, threads, plan.part_rows, part)
                    crew.begin(wave)
                    waves.append(wave)
                    if len(waves) == plan.ahead:
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
