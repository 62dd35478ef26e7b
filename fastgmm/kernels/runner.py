"""Runs a pass over all rows of a source: grid of blocks, waves of partials, fold, scratch.

The grid depends on shapes only: block i holds rows i B .. (i + 1) B - 1, B from `block_rows`. A wave computes as many
blocks as there are slots for partials, then folds them (`fold.py`). So the bits of a result do not depend on the number
of threads, on the number of slots, or on how the source cuts its rows, as long as it cuts them at block boundaries.

Memory of a `Runner`, beside the rows and the parameters: `slots` partials of at most `SLOT_BYTES` together (but one a
thread), about 2 + log16(blocks) more for the fold, and one workspace a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import compile_block, launch, n_threads
from fastgmm.kernels.arguments import ALIGNMENT, TILE
from fastgmm.kernels.fold import MAX_LEVELS, RADIX, fold_block
from fastgmm.kernels.layout import padded_width
from fastgmm.kernels.workspace import workspace_bytes

SLOT_BYTES = 16 << 20
LAUNCH_SECONDS = 0.1  # of one launch, roughly: Ctrl-C, progress and callbacks wait no longer
SEGMENT = 1 << 15  # elements that one task folds
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

    @property
    def first(self) -> int:
        """Where the first moments begin."""
        return _round8(a.WEIGHT + self.n_components)

    @property
    def second(self) -> int:
        """Where the second moments begin."""
        return self.first + _round8(self.n_components * self.first_length)

    @property
    def slot_length(self) -> int:
        """Numbers in a partial with moments."""
        return self.second + _round8(self.n_components * self.moment_length)


def _round8(n: int) -> int:
    return (n + 7) & -8


def row_seconds(n_components: int, n_features: int) -> float:
    """Rough time of a row with one thread; only for the size of launches and blocks."""
    return n_components * (3e-9 + n_features * (n_features + 1) * 3e-11)


def block_rows(n_components: int, n_features: int, slot_length: int) -> int:
    """Rows of a block: 5 to 20 tiles; enough work to outweigh its partial, little enough to share it out evenly."""
    if slot_length * 8 > CACHE_BYTES:
        return 10 * TILE
    tiles = 6e-5 / (row_seconds(n_components, n_features) * TILE)
    return int(min(max(tiles, 5), 20)) * TILE


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
        self._scratch = np.empty(0, np.uint8)
        self._slots = np.empty(0)
        self._stack = np.empty(0)

    def run(
        self,
        program: Program,
        rows: Any,
        mode: int,
        out: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Run over all blocks of `rows`; return the folded partial, (slot_length,) or (WEIGHT,) without moments."""
        moments = mode in (a.FIT, a.ASSIGN)
        block = block_rows(program.n_components, program.n_features, program.slot_length)
        length = program.slot_length if moments else _round8(a.WEIGHT)
        table = self._table(program, mode, block, length)
        workers, slots = self._workers, self._n_slots
        code = compile_block(program.body, program.dtype.name)
        fold = compile_block(fold_block, "float64")
        seconds = block * row_seconds(program.n_components, program.n_features)
        wave = max(workers, min(slots, int(LAUNCH_SECONDS * workers / seconds)))
        done = 0
        for part in rows.blocks(block):
            x, weight = part.x, part.weight
            table[a.ROWS] = x.ctypes.data
            table[a.WEIGHTS] = 0 if weight is None else weight.ctypes.data
            table[a.N_ROWS] = x.shape[0]
            if out is not None:
                here = out[part.first : part.first + x.shape[0]]
                table[a.OUT] = here.ctypes.data
            blocks = -(-x.shape[0] // block)
            for begin in range(0, blocks, wave):
                count = min(wave, blocks - begin)
                table[a.FIRST_BLOCK] = begin
                launch(code, table, count, workers)
                table[a.COUNT], table[a.DEPTH] = count, done
                launch(fold, table, -(-length // SEGMENT), workers)
                done += count
        return self._total(done, length)

    def _total(self, blocks: int, length: int) -> npt.NDArray[np.float64]:
        """The counter's digits, the smallest first."""
        total = np.zeros(length)
        level = 0
        while blocks:
            if blocks % RADIX:
                total += self._stack[level * length : (level + 1) * length]
            blocks //= RADIX
            level += 1
        return total

    def _table(self, program: Program, mode: int, block: int, length: int) -> npt.NDArray[np.int64]:
        k, d, size = program.n_components, program.n_features, program.dtype.itemsize
        padded = padded_width(d, size)
        threads = n_threads() if self._threads is None else min(self._threads, n_threads())
        shape = (k, d, size, length, threads)
        if shape != self._shape:
            self._shape = shape
            self._workers = threads
            self._n_slots = max(threads, min(512, SLOT_BYTES // (length * 8)))
            self._slots = np.empty(self._n_slots * length + 8)
            self._stack = np.empty(length * MAX_LEVELS)  # levels that are never reached cost no memory
            self._bytes = workspace_bytes(k, d, padded, size)
            self._scratch = np.empty(threads * self._bytes + ALIGNMENT, np.uint8)
        table = a.table()
        for slot, array in program.arrays.items():
            table[slot] = array.ctypes.data
        for slot, number in program.numbers.items():
            table[slot] = number
        table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS], table[a.SIZE] = d, padded, k, size
        table[a.BLOCK_ROWS], table[a.MODE] = block, mode
        table[a.SLOTS], table[a.SLOT_LENGTH] = _aligned_address(self._slots), length
        table[a.FIRST], table[a.SECOND] = program.first, program.second
        table[a.MOMENT_LENGTH] = program.moment_length
        table[a.SCRATCH], table[a.SCRATCH_BYTES] = _aligned_address(self._scratch), self._bytes
        table[a.STACK], table[a.SEGMENT] = self._stack.ctypes.data, SEGMENT
        return table


def _aligned_address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
