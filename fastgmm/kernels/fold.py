"""The sum over blocks: a fixed order, whatever the number of threads, and few partials in memory.

Blocks are numbered from 0 over all rows of the data. Level 0 adds the partials of 16 consecutive blocks, in order;
level 1 adds 16 such sums, and so on: a counter in base 16 whose digits are partial sums. So the order of every addition
depends on the block numbers alone, a run of 16^j blocks that begins at a multiple of 16^j can be summed anywhere, and
n blocks need about log16(n) + 1 sums in memory.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels.arguments import float64_pointer

RADIX = 16


def n_levels(blocks: int) -> int:
    """Digits of the counter for a number of blocks."""
    levels = 1
    while blocks >= RADIX:
        blocks //= RADIX
        levels += 1
    return levels


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
