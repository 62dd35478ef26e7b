"""The CPU's vector registers, and how a block of sums is cut so that they hold it.

A vector of the micro-kernels is 64 bytes, one register with AVX-512, two with AVX2, four with NEON. Their blocks of
8 x 3 vectors of sums fill 24 of the 32 registers of AVX-512. AVX2 has 16, of half the size, and a block that does not
fit is written to memory and read again at every step, which takes three times as long. So a block is done in parts,
each with a loop of its own over the same operands, which lie in the first-level cache. A sum has the same terms in the
same order whatever part it belongs to: the bits do not depend on the registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

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
    def sums(self) -> int:
        """How many may hold sums; the others hold what is multiplied."""
        return 3 * self.number // 4


def registers_of(features: str) -> Registers:
    """The registers of a CPU by LLVM's list of its features."""
    known = set(features.split(","))
    if "+avx512f" in known:
        return Registers(permutes=True)
    if "+avx" in known:
        return Registers(32, 16, picks="+avx2" in known)
    return Registers(16, 32 if "+neon" in known else 16)


class Part(NamedTuple):
    """Some of a block's sums."""

    rows: range  # of the block
    columns: range  # of the first row: where registers begin, in elements


def parts(e: Emitter, rows: int, vectors: int, columns: int = COLUMNS) -> Iterator[Part]:
    """Cut `rows` times `vectors` vectors of sums into what registers hold, `columns` side by side at most.

    Where a vector is a register the block is one part. Of the same columns, the upper rows come first.
    """
    lanes = e.narrow.lanes
    if lanes == e.lanes:
        yield Part(range(rows), range(0, vectors * lanes, lanes))
        return
    for few in evenly(range(vectors * e.lanes // lanes), columns):
        for some in evenly(range(rows), e.registers.sums // columns):
            yield Part(some, range(few.start * lanes, few.stop * lanes, lanes))


def joined(e: Emitter, pieces: list[Value]) -> Value:
    """A vector from the registers that hold it, in order."""
    while len(pieces) > 1:
        lanes = 2 * pieces[0].type.count
        pieces = [e.shuffle(low, high, range(lanes)) for low, high in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def evenly(things: range, most: int) -> list[range]:
    """Cut a range into as few pieces of at most `most` as there can be, of nearly the same length."""
    n, pieces = len(things), -(-len(things) // most)
    return [things[i * n // pieces : (i + 1) * n // pieces] for i in range(pieces)]
