"""The CPU's vector registers, and how a block of sums is cut so that they hold it.

A vector of the micro-kernels is 64 bytes, one register with AVX-512, two with AVX2. Their blocks of 8 x 3 vectors of
sums fill 24 of the 32 registers of AVX-512. AVX2 has 16, of half the size, and a block that does not fit is written to
memory and read again at every step, which takes three times as long. So a block is done in parts, each with a loop of
its own over the same operands, which lie in the first-level cache. A sum has the same terms in the same order whatever
part it belongs to: the bits do not depend on the registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fastgmm.kernels.simd import Emitter, Value

COLUMNS = 3  # registers of a part side by side: loads are then fewer than multiply-adds


class Registers(NamedTuple):
    """Vector registers of a CPU."""

    size: int = 64  # bytes
    number: int = 32
    permutes: bool = False  # picks lanes of two vectors by an index, scales by powers of two: an instruction each
    picks: bool = False  # permutes the words of a vector by an index, and is AVX2

    @property
    def rows(self) -> int:
        """Rows of `COLUMNS` sums that three quarters of the registers hold; the others hold what is multiplied."""
        return 3 * self.number // 4 // COLUMNS


def registers_of(features: str) -> Registers:
    """The registers of a CPU by LLVM's list of its features."""
    known = features.split(",")
    if "+avx512f" in known:
        return Registers(permutes=True)
    return Registers(32, 16, picks="+avx2" in known)  # or pairs of NEON's 32 registers of 16 bytes


class Part(NamedTuple):
    """Some of a block's sums: `rows` beginning with `row`, registers at the `columns` from element `column` on."""

    rows: int
    columns: range
    row: Any = 0
    column: Any = 0


def for_parts(e: Emitter, rows: int, vectors: int, body: Callable[[Part], None], columns: int = COLUMNS) -> None:
    """Run ``body(part)`` for the parts of `rows` times `vectors` vectors of sums, each of what registers hold.

    At most `columns` registers are side by side. Where a vector is a register the block is one part; else all parts
    have the same shape and one code. Of the same columns, the upper rows come first.
    """
    lanes = e.narrow.lanes
    if lanes == e.lanes:
        body(Part(rows, range(0, vectors * lanes, lanes)))
        return
    whole = vectors * e.lanes
    width = divisor(whole // lanes, columns)
    height = divisor(rows, e.registers.rows * COLUMNS // width)
    with e.steps(whole, width * lanes) as column, e.steps(rows, height) as row:
        body(Part(height, range(0, width * lanes, lanes), row, column))


def joined(e: Emitter, pieces: list[Value]) -> Value:
    """A vector from the registers that hold it, in order."""
    while len(pieces) > 1:
        lanes = 2 * pieces[0].type.count
        pieces = [e.shuffle(low, high, range(lanes)) for low, high in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`."""
    return next(i for i in range(most, 0, -1) if number % i == 0)


def evenly(things: range, most: int) -> list[range]:
    """Cut a range into as few pieces of at most `most` as there can be, of nearly the same length."""
    n, pieces = len(things), -(-len(things) // most)
    return [things[i * n // pieces : (i + 1) * n // pieces] for i in range(pieces)]
