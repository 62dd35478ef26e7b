"""A data pass in pieces: sums over a run of blocks, computed anywhere, that can only be added up to the right whole.

1. A pass is packed once, by whoever holds the parameters (`Work`), and run as it is: another process could round the
   packing differently.
2. The sums of a run of blocks are digits of the counter of `fastgmm.kernels.fold`, so pieces add up to the bits of the
   pass in one piece, however the grid was cut and in whatever order the pieces came together.
3. A piece says of which pass it is and which blocks it covers. Pieces of other parameters, pieces that overlap and
   wholes that lack a piece are refused, so that work which is done again after a failure is never counted twice.
4. A piece holds numbers in plain arrays: to load one runs no code of its sender's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np

from fastgmm import __version__
from fastgmm.errors import IncompatibleStatisticsError, InvalidParameterError
from fastgmm.kernels.fold import RADIX, Digit, total
from fastgmm.kernels.programs import body_of, name_of
from fastgmm.kernels.runner import Program, Runner
from fastgmm.kernels.schedule import block_rows
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.typing import Array, Float64Array, RowSource


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A pass over rows that may be anywhere: its code by name, its packed parameters, and the grid over all rows.

    Attributes
    ----------
    body : str
        A key of `fastgmm.kernels.programs.BODIES`.
    dtype : str
        Of the rows.
    shape : tuple of int
        Components, features, second moments and first moments of one component.
    arrays : tuple of (int, ndarray)
        Slot of the table and packed parameters.
    numbers : tuple of (int, int)
    mode : int
        See `fastgmm.kernels.arguments`.
    n_rows : int
        Of the whole.
    key : bytes
        Digest of all of these, of the version, and of the width of vectors, which the layouts depend on.
    """

    body: str
    dtype: str
    shape: tuple[int, int, int, int]
    arrays: tuple[tuple[int, Array], ...]
    numbers: tuple[tuple[int, int], ...]
    mode: int
    n_rows: int
    key: bytes

    @classmethod
    def of(cls, program: Program, mode: int, n_rows: int) -> Work:
        """Pack a pass over `n_rows` rows."""
        body, dtype = name_of(program), program.dtype.name
        shape = (program.n_components, program.n_features, program.moment_length, program.first_length)
        arrays = tuple((slot, np.ascontiguousarray(array)) for slot, array in sorted(program.arrays.items()))
        numbers = tuple(sorted(program.numbers.items()))
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((__version__, VECTOR_BYTES, body, dtype, shape, numbers, mode, n_rows)).encode())
        for slot, array in arrays:
            digest.update(repr((slot, array.shape, array.dtype.str)).encode())
            digest.update(array.view(np.uint8).reshape(-1).data)
        return cls(body, dtype, shape, arrays, numbers, mode, n_rows, digest.digest())

    def program(self) -> Program:
        """Return the pass, ready to run here."""
        k, d, second, first = self.shape
        body = body_of(self.body, d)
        return Program(body, np.dtype(self.dtype), k, d, second, first, dict(self.arrays), dict(self.numbers))

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        program = self.program()
        return block_rows(program.n_components, program.slot_length)

    @property
    def n_blocks(self) -> int:
        """Blocks of the grid over all rows."""
        return -(-self.n_rows // self.block_rows)


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """Sums over the blocks `begin` .. `end` - 1 of a pass.

    Attributes
    ----------
    key : bytes
        Of the `Work`.
    n_blocks : int
        Of the whole grid.
    begin, end : int
    places : tuple of (int, int, int)
        Level, first block and number of runs of every digit, in order of blocks; see `fastgmm.kernels.fold.Digit`.
    values : ndarray (digits, slot_length) float64
        Their sums.
    """

    key: bytes
    n_blocks: int
    begin: int
    end: int
    places: tuple[tuple[int, int, int], ...]
    values: Float64Array

    def total(self) -> Float64Array:
        """Return the sum over all blocks: the bits of the pass in one piece.

        Raises
        ------
        IncompatibleStatisticsError
            If blocks are missing.
        """
        if (self.begin, self.end) != (0, self.n_blocks):
            msg = (
                f"the sums of a pass need all of its blocks 0 to {self.n_blocks - 1}; these cover {self.begin} to "
                f"{self.end - 1}. Merge the missing pieces first"
            )
            raise IncompatibleStatisticsError(msg)
        return total(self._digits())

    def _digits(self) -> list[Digit]:
        return [Digit(*place, values) for place, values in zip(self.places, self.values, strict=True)]


def run_partial(work: Work, rows: RowSource, begin: int, *, runner: Runner | None = None) -> Partial:
    """Run a pass over some of its blocks.

    Parameters
    ----------
    work : Work
    rows : RowSource
        The rows of the blocks, no more and no fewer; only the last block of the grid may be short.
    begin : int
        The first of them.
    runner : Runner, optional
        Scratch to use; it must not be in use by another thread.

    Raises
    ------
    InvalidParameterError
        If the rows are not those of whole blocks of the grid, or of another number of features or precision.
    """
    program, block, n_blocks = work.program(), work.block_rows, work.n_blocks
    end = begin + -(-rows.n_rows // block)
    expected = min(end * block, work.n_rows) - begin * block
    if not (0 <= begin < end <= n_blocks and rows.n_rows == expected):
        msg = (
            f"rows must be those of whole blocks of {block} rows within the {work.n_rows} rows of the pass; got "
            f"{rows.n_rows} rows from block {begin}"
        )
        raise InvalidParameterError(msg)
    if rows.n_features != program.n_features or rows.dtype.itemsize > program.dtype.itemsize:
        msg = f"rows must have {program.n_features} features in {program.dtype}; got {rows.n_features} in {rows.dtype}"
        raise InvalidParameterError(msg)
    digits = (Runner() if runner is None else runner).run_from(program, rows, work.mode, begin)
    return _partial(work.key, n_blocks, begin, end, _folded(digits))


def merge(parts: Iterable[Partial]) -> Partial:
    """Return the sums over the blocks of all parts, which together must be one run of blocks; any order will do.

    Raises
    ------
    IncompatibleStatisticsError
        If parts belong to different passes, overlap, or leave a gap.
    InvalidParameterError
        If there are none.
    """
    ordered = sorted(parts, key=lambda part: (part.begin, part.end))
    if not ordered:
        msg = "parts must hold at least one part of a pass; got none"
        raise InvalidParameterError(msg)
    for one, other in pairwise(ordered):
        if (one.key, one.n_blocks, one.values.shape[1]) != (other.key, other.n_blocks, other.values.shape[1]):
            msg = (
                f"parts of a pass merge only with parts of the same pass; blocks {one.begin} to {one.end - 1} and "
                f"{other.begin} to {other.end - 1} are of different parameters, modes, rows or versions"
            )
            raise IncompatibleStatisticsError(msg)
        if other.begin != one.end:
            what = "overlap" if other.begin < one.end else "leave a gap"
            msg = (
                f"parts of a pass must cover each block once; blocks {one.begin} to {one.end - 1} and {other.begin} to "
                f"{other.end - 1} {what}"
            )
            raise IncompatibleStatisticsError(msg)
    digits = [digit for part in ordered for digit in part._digits()]
    first, last = ordered[0], ordered[-1]
    return _partial(first.key, first.n_blocks, first.begin, last.end, _folded(digits))


def _partial(key: bytes, n_blocks: int, begin: int, end: int, digits: list[Digit]) -> Partial:
    values = np.array([digit.values for digit in digits])
    values.setflags(write=False)
    return Partial(key, n_blocks, begin, end, tuple((d.level, d.first, d.runs) for d in digits), values)


def _folded(digits: list[Digit]) -> list[Digit]:
    """Add up what stands side by side, exactly as the counter does."""
    return reduce(_push, digits, [])


def _push(done: list[Digit], new: Digit) -> list[Digit]:
    while done:
        top = done[-1]
        beside = top.level == new.level and top.end == new.first and new.runs == 1
        if not (beside and top.first % RADIX ** (top.level + 1) == 0):
            break
        done.pop()
        new = Digit(top.level, top.first, top.runs + 1, top.values + new.values)
        if new.runs < RADIX:
            break
        new = Digit(top.level + 1, top.first, 1, new.values)
    done.append(new)
    return done


class PartialRunner:
    """A runner for `fastgmm.passes.Accumulator` whose rows are elsewhere.

    Parameters
    ----------
    compute : callable
        ``compute(work) -> iterable of Partial``, which together cover the grid.
    """

    def __init__(self, compute: Callable[[Work], Iterable[Partial]]) -> None:
        self._compute = compute

    def run(self, program: Program, rows: RowSource, mode: int, out: Array | None = None) -> Float64Array:
        """Run a pass; see `fastgmm.kernels.runner.Runner.run`. Values row by row (`out`) are not for this one."""
        if out is not None:
            msg = "out must be None: a pass in pieces returns sums only"
            raise InvalidParameterError(msg)
        return merge(self._compute(Work.of(program, mode, rows.n_rows))).total()
