"""The sum over blocks: a fixed order, whatever the number of threads, and few partials in memory.

Blocks are numbered from 0 over all rows of the data. Level 0 adds the partials of 16 consecutive blocks, in order;
level 1 adds 16 such sums, and so on: a counter in base 16 whose digits are partial sums. So the order of every addition
depends on the block numbers alone, a run of 16^j blocks that begins at a multiple of 16^j can be summed anywhere, and
n blocks need about log16(n) + 1 sums in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels.arguments import float64_pointer
from fastgmm.pieces import pieces, piecewise

RADIX = 16


def n_levels(blocks: int) -> int:
    """Digits of the counter for a number of blocks."""
    levels = 1
    while blocks >= RADIX:
        blocks //= RADIX
        levels += 1
    return levels


class Digit(NamedTuple):
    """One digit of the counter: the sum, in order, of `runs` runs of 16^level blocks, the first of which is `first`.

    A digit above 1 begins at a multiple of 16^(level + 1): the next run of its level is added to it, and the sixteenth
    makes it a 1 of the next level. Runs that begin elsewhere wait, each on its own, for what comes before them.
    """

    level: int
    first: int
    runs: int
    values: npt.NDArray[np.float64]

    @property
    def end(self) -> int:
        """The block after the last one."""
        return self.first + int(self.runs * RADIX**self.level)


def unit_blocks(block: int) -> int:
    """Blocks of the largest run that begins at `block` and is summed the same wherever it is: 16^j; any number at 0."""
    if block == 0:
        return sys.maxsize
    size = 1
    while block % (size * RADIX) == 0:
        size *= RADIX
    return size


def counter_digits(stack: npt.NDArray[np.float64], length: int, unit: int, end: int) -> list[Digit]:
    """The digits of a counter that has summed the blocks `unit` .. `end` - 1, the highest first; views of `stack`."""
    count, level, found = end - unit, 0, []
    while count:
        digit = count % RADIX
        if digit:
            end -= digit * RADIX**level
            found.append(Digit(level, end, digit, stack[level * length : (level + 1) * length]))
        count //= RADIX
        level += 1
    return found[::-1]


class Counter:
    """Sums the blocks from `begin` on, as they come.

    Parameters
    ----------
    stack : ndarray of float64
        Room for as many levels as there will be digits.
    length : int
        Numbers in a partial.
    begin : int
        The first block.
    """

    def __init__(self, stack: npt.NDArray[np.float64], length: int, begin: int) -> None:
        self._stack, self._length = stack, length
        self._done = self._unit = begin
        self._end = begin + unit_blocks(begin)
        self._digits: list[Digit] = []

    def push(self, table: npt.NDArray[np.int64], count: int, add: Callable[[], None]) -> None:
        """Add `count` partials.

        Parameters
        ----------
        table : ndarray of int64
            Its SLOTS say where the first is; changed.
        count : int
        add : callable
            Runs `fold_block` for all segments.
        """
        while count:  # once, where the run begins at block 0
            take = min(count, self._end - self._done)
            table[a.COUNT], table[a.DEPTH] = take, self._done - self._unit
            add()
            table[a.SLOTS] += take * self._length * 8
            count, self._done = count - take, self._done + take
            if self._done == self._end:
                (digit,) = counter_digits(self._stack, self._length, self._unit, self._done)
                self._digits.append(digit._replace(values=digit.values.copy()))
                self._unit, self._end = self._done, self._done + unit_blocks(self._done)

    def digits(self) -> list[Digit]:
        """Return the sums, in order."""
        return [*self._digits, *counter_digits(self._stack, self._length, self._unit, self._done)]


def total(digits: list[Digit], *, spend: bool = False) -> npt.NDArray[np.float64]:
    """The sum of the digits of the blocks from 0 on, the lowest level first.

    A copy, or, to `spend` the digits, in the place of the lowest one.
    """
    lowest, *higher = (digit.values for digit in reversed(digits))
    result = lowest if spend else piecewise(np.copy, lowest)
    for values in higher:
        for some in pieces(result):
            result[some] += values[some]
    return result


def fold_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Push the filled slots, in order, into the counter; `item` is a segment of the partials."""
    length = table[a.SLOT_LENGTH]
    begin = item * table[a.SEGMENT]
    end = min(begin + table[a.SEGMENT], length)
    levels = float64_pointer(table[a.STACK])
    for index in range(table[a.COUNT]):
        carry = float64_pointer(table[a.SLOTS] + index * length * 8)
        number = table[a.DEPTH] + index  # blocks before this one
        base = 0
        while True:
            digit = number % RADIX
            if digit == 0:
                for i in range(begin, end):
                    levels[base + i] = carry[i]
            else:
                for i in range(begin, end):
                    levels[base + i] += carry[i]
            if digit < RADIX - 1:
                break
            carry = float64_pointer(table[a.STACK] + base * 8)
            base += length
            number //= RADIX
