"""Who does the launches of a pass: OpenMP's threads, or, beside a thread that reads, a team of Python's own.

OpenMP's threads spin for milliseconds when they have no work, in case some comes. Where rows are read ahead, that is
time of the very core that the reader needs: streams lose up to a third of their speed. Threads of Python's sleep. And
they take orders ahead: while some are still busy with the last items of a wave of blocks, others begin the next one.

The items of a wave are drawn from a counter, each by calling the same machine code, as `_jit.launch` does, so results
have the same bits. A wave costs some 50 microseconds more, which is why rows in memory keep OpenMP.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import draw_items, launch
from fastgmm.threads import begun

FIRST = 8  # the counter's place in its array: so it shares no cache line with anything written
ALL = 1 << 62  # a counter beyond every item: nothing is left to draw


class _Helper:
    """A thread that takes part in launches."""

    def __init__(self, number: int) -> None:
        self._orders: SimpleQueue[tuple[int, int, int, int] | None] = SimpleQueue()
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._number = number
        self._thread = threading.Thread(target=self._work, name=f"fastgmm-{number}", daemon=True)

    def begin(self) -> bool:
        """Start; False where there is no room for a thread."""
        return begun(self._thread)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            address, table, items, counter = order
            try:
                draw_items(address, table, items, self._number, counter)
                self._answers.put(None)
            except BaseException as error:
                self._answers.put(error)

    def ask(self, address: int, table: int, items: int, counter: int) -> None:
        """Have it draw items of a launch."""
        self._orders.put((address, table, items, counter))

    def wait(self) -> None:
        """Wait until it is done with what it was asked for."""
        error = self._answers.get()
        if error is not None:
            raise error

    def end(self) -> None:
        """End the thread, after what it does; an interrupt has to wait, since it may still read the caller's rows."""
        told = False
        while True:
            with suppress(BaseException):
                if not told:
                    self._orders.put(None)
                    told = True
                if not self._thread.is_alive():
                    return
                self._thread.join()


class Wave(NamedTuple):
    """A run of blocks, ordered but not yet done.

    Attributes
    ----------
    code : int
        Address of the block's C function.
    table : ndarray of int64
        Of this wave alone.
    blocks : int
        How many.
    threads : int
        How many may take part.
    part_rows : int
        So many rows of each block in one launch.
    refers : object
        What must live until the wave is done.
    counter : ndarray of int64
    """

    code: int
    table: npt.NDArray[np.int64]
    blocks: int
    threads: int
    part_rows: int
    refers: object
    counter: npt.NDArray[np.int64]

    @property
    def parts(self) -> range:
        """Where in each block the launches begin."""
        return range(0, min(int(self.table[a.BLOCK_ROWS]), int(self.table[a.N_ROWS])), self.part_rows)


def new_wave(
    code: int, table: npt.NDArray[np.int64], blocks: int, threads: int, part_rows: int, refers: object
) -> Wave:
    """Describe a wave; it begins with part 0 of its blocks."""
    table[a.PART_FIRST], table[a.PART_ROWS] = 0, part_rows
    return Wave(code, table, blocks, threads, part_rows, refers, np.zeros(2 * FIRST, np.int64))


class Crew(Protocol):
    """Does waves, in the order in which they are given."""

    @property
    def ahead(self) -> int:
        """How many waves may be begun before the first of them is finished."""
        ...

    def begin(self, wave: Wave) -> None:
        """Begin a wave, as far as it can be done by others."""
        ...

    def finish(self, wave: Wave) -> None:
        """Return when all blocks of the wave are done; it is the first of those that were begun."""
        ...


class OpenMP:
    """The threads of Numba's threading layer."""

    ahead = 1

    def begin(self, wave: Wave) -> None:
        """Nothing: all is done by `finish`."""

    def finish(self, wave: Wave) -> None:
        """Do the wave."""
        for first in wave.parts:
            wave.table[a.PART_FIRST] = first
            launch(wave.code, wave.table, wave.blocks, wave.threads)


class Team:
    """Threads of Python's; the caller is one of them."""

    ahead = 2

    def __init__(self) -> None:
        self._waves: list[Wave] = []
        self._helpers: list[_Helper] = []

    def gather(self, threads: int) -> None:
        """Start the threads; what is interrupted here leaves them to `end`."""
        counter = np.zeros(2 * FIRST, np.int64)  # it has a name, so that it lives as long as the call
        draw_items(0, 0, 0, 0, counter.ctypes.data)  # loads the code: not in several threads at once
        for number in range(1, threads):
            self._helpers.append(_Helper(number))
            if not self._helpers[-1].begin():
                self._helpers.pop()
                break

    def begin(self, wave: Wave) -> None:
        """Have the helpers draw items, once they are done with the waves before."""
        self._waves.append(wave)
        order = _order(wave)
        for helper in self._asked(wave):
            helper.ask(*order)

    def _asked(self, wave: Wave) -> list[_Helper]:
        return self._helpers[: min(wave.threads, wave.blocks) - 1]

    def finish(self, wave: Wave) -> None:
        """Draw what is left, and wait for the helpers."""
        order = _order(wave)
        for first in wave.parts:
            if first:
                wave.table[a.PART_FIRST] = first
                wave.counter[FIRST] = 0
                for helper in self._asked(wave):
                    helper.ask(*order)
            draw_items(*order[:3], 0, order[3])
            for helper in self._asked(wave):
                helper.wait()
        self._waves.pop(0)

    def end(self) -> None:
        """End the threads; where a wave is not finished, after the items that they have drawn."""
        for wave in self._waves:
            wave.counter[FIRST] = ALL
        _end(self._helpers)


def _end(helpers: list[_Helper]) -> None:
    """End each, whatever happens to the one before."""
    if helpers:
        try:
            helpers[0].end()
        finally:
            _end(helpers[1:])


def _order(wave: Wave) -> tuple[int, int, int, int]:
    return wave.code, wave.table.ctypes.data, wave.blocks, wave.counter[FIRST:].ctypes.data


@contextmanager
def team(threads: int) -> Iterator[Crew]:
    """Give a team of at most so many threads, which end with the context."""
    crew = Team()
    try:
        crew.gather(threads)
        yield crew
    finally:
        crew.end()
