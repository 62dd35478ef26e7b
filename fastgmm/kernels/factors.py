"""Cholesky factors of symmetric matrices, and the inverses of these, all components of a mixture in one launch.

A matrix A = U'U is eliminated eight rows at a time. Elimination turns A's rows into those of U and the identity's rows
into those of W = U'^-1, the inverse of the lower factor. Eight rows first take all pivots before them, in one sweep
with sums of eight by three vectors in registers; then they eliminate among themselves, first in the square on the
diagonal, then, by what it says, everywhere else.

This is substitution, row by row, with its small backward error; nothing is multiplied by the inverse of a block. An
item is a component and knows nothing of the others, so its bits depend neither on these nor on the threads.

Long matrices are eliminated in several launches (`PART_FIRST`, `PART_ROWS`: rows), for Ctrl-C waits for a launch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import compile_block, launch, n_threads
from fastgmm.kernels.arguments import at, float64_pointer, int64_pointer
from fastgmm.kernels.edges import in_all_lanes, lane_numbers, load_before
from fastgmm.kernels.micro import V
from fastgmm.kernels.registers import Part, for_parts
from fastgmm.kernels.runner import address, aligned_empty
from fastgmm.kernels.schedule import LAUNCH_SECONDS, SERIAL_SECONDS
from fastgmm.kernels.simd import Emitter, Value, micro, micro_apart

Float64 = npt.NDArray[np.float64]

UPPER, PRODUCT = 1, 2  # modes
PIVOTS = 8  # rows of a block: a whole vector
AHEAD = 8  # rows
SECONDS, PIVOT_SECONDS = 1.2e-11, 3e-8  # of one pivot, row and column, and of a pivot with nothing else, roughly


def for_panels(e: Emitter, begin: Value, end: Value, body: Callable[[Value, int], None]) -> None:
    """Run ``body(j, count)`` for the columns `begin` to `end` - 1, up to three vectors from column j on at a time."""
    some = V * e.lanes
    whole = e.add(begin, e.times(e.builder.udiv(e.builder.sub(end, begin), e.index(some)), some))
    with e.loop(begin, whole, some) as j:
        body(j, V)
    for count in range(1, V):
        with e.when(e.builder.icmp_signed("==", e.builder.sub(end, whole), e.index(count * e.lanes))):
            body(whole, count)


@micro_apart
def add_rows(
    e: Emitter,
    rows: Value,
    shares: Value,
    target: Value,
    width: Value,
    begin: Value,
    end: Value,
    first: Value,
    last: Value,
    triangular: Value,
) -> None:
    """target[r] += sum of shares[p, r] * rows[p] for p from `first` to `last` - 1; the columns `begin` to `end` - 1.

    Rows are `width` apart; `target` has eight of them. `triangular` is 1 where row p has p + 1 columns, else 0.
    """
    narrow = e.narrow

    def panel(j: Value, count: int) -> None:
        start = e.times(j, triangular)
        start = e.builder.select(e.builder.icmp_signed("<", start, first), first, start)
        for_parts(e, PIVOTS, count, lambda part: some(j, start, part))

    def some(j: Value, start: Value, part: Part) -> None:
        place = e.add(e.add(e.times(width, part.row), j), part.column)
        places = [[e.add(e.add(place, e.times(width, r)), c) for c in part.columns] for r in range(part.rows)]
        sums = [[e.variable(narrow.load(target, place)) for place in row] for row in places]
        with e.loop(start, last) as p:
            row = e.at(rows, e.add(e.add(e.times(p, width), j), part.column))
            factors = e.at(shares, e.add(e.times(p, PIVOTS), part.row))
            values = [narrow.load(row, c) for c in part.columns]
            for c in part.columns:  # rows are too far apart for the processor to ask for the next one itself
                if c % e.lanes == 0:
                    e.prefetch(row, e.add(e.times(width, AHEAD), c))
            for r, totals in enumerate(sums):
                factor = narrow.broadcast(factors, r)
                for value, total in zip(values, totals, strict=True):
                    e.set(total, narrow.fma(factor, value, e.get(total)))
        for row_places, totals in zip(places, sums, strict=True):
            for place, total in zip(row_places, totals, strict=True):
                e.store(e.get(total), target, place)

    for_panels(e, begin, end, panel)


@micro
def bring_rows(
    e: Emitter, source: Value, n: Value, first: Value, width: Value, upper: Value, lower: Value, shares: Value
) -> None:
    """The rows from `first` on as elimination begins with them, and their shares of the pivots before them.

    `upper`, (width, width): U so far; takes eight rows of the matrix at `source`, (n, n), from column `first` on, and 0
    where it ends. `lower`: eight rows of zeros. `shares`, (first, 8): what rows before are multiplied by.
    """
    b = e.builder
    with e.loop(0, PIVOTS) as r:
        i = e.add(first, r)
        given, end = e.at(source, e.times(i, n)), b.select(b.icmp_signed("<", i, n), n, e.index(0))
        with e.loop(first, width, e.lanes) as j:
            e.store(load_before(e, given, j, end), upper, e.add(e.times(i, width), j))
        next_given, next_lower = e.at(given, e.times(n, PIVOTS)), e.at(lower, e.times(e.add(r, PIVOTS), width))
        with e.loop(0, width, e.lanes) as j:
            e.store(e.zero(), lower, e.add(e.times(r, width), j))
            e.prefetch(next_lower, j, write=True)
        with e.loop(first, width, e.lanes) as j:
            e.prefetch(next_given, j)
    with e.loop(0, first) as p:
        e.store(b.fneg(e.load(upper, e.add(e.times(p, width), first))), shares, e.times(p, PIVOTS))


@micro
def copy_rows(e: Emitter, source: Value, apart: Value, target: Value, step: Value, count: Value, width: Value) -> None:
    """`count` rows of `width` numbers, `apart` and then `step` numbers apart."""
    with e.loop(0, count) as r, e.loop(0, width, e.lanes) as j:
        e.store(e.load(source, e.add(e.times(r, apart), j)), target, e.add(e.times(r, step), j))


@micro
def eliminate_pivot(e: Emitter, square: Value, place: Value, root: Value) -> None:
    """Eliminate pivot `place` of eight rows of eight numbers from the rows behind it; `root` is that of the pivot.

    What is left are W up to the diagonal and U behind it.
    """
    b = e.builder
    own = b.icmp_signed("==", lane_numbers(e), in_all_lanes(e, place))
    pivot = e.at(square, e.times(place, PIVOTS))
    inverse = e.splat(b.fdiv(ir.Constant(e.real, 1.0), b.load(root)))
    values = e.mul(inverse, e.select(own, e.constant(1.0), e.load(pivot)))
    e.store(values, pivot)
    with e.loop(e.add(place, 1), PIVOTS) as i:
        row = e.at(square, e.times(i, PIVOTS))
        share = e.splat(b.fneg(e.scalar(pivot, i)))
        e.store(e.fma(share, values, e.select(own, e.zero(), e.load(row))), row)


@micro_apart
def eliminate_columns(e: Emitter, rows: Value, begin: Value, end: Value, width: Value, square: Value) -> None:
    """Eliminate among eight rows as it was done in `square`, in the columns `begin` to `end` - 1.

    On the diagonal of `square` are the reciprocals of the pivots' roots, and what rows are multiplied by behind it.
    """
    with e.loop(begin, end, e.lanes) as j:
        values = [e.load(rows, e.add(e.times(width, r), j)) for r in range(PIVOTS)]
        for p in range(PIVOTS):
            values[p] = e.mul(e.broadcast(square, p * PIVOTS + p), values[p])
            for i in range(p + 1, PIVOTS):
                share = e.splat(e.builder.fneg(e.scalar(square, p * PIVOTS + i)))
                values[i] = e.fma(share, values[p], values[i])
        for r, value in enumerate(values):
            e.store(value, rows, e.add(e.times(width, r), j))


@micro
def keep_square(e: Emitter, square: Value, lower: Value, upper: Value, width: Value) -> None:
    """The square of eight rows as part of W, below and on the diagonal, and of U."""
    for r in range(PIVOTS):
        row = e.load(square, r * PIVOTS)
        e.store(row, upper, e.times(width, r))
        lanes = [lane if lane <= r else e.lanes for lane in range(e.lanes)]
        e.store(e.shuffle(row, e.zero(), lanes), lower, e.times(width, r))


@micro
def show_upper(e: Emitter, upper: Value, n: Value, width: Value, rows: Value) -> None:
    """rows = upper, behind the diagonal."""
    with e.loop(0, n) as i, e.loop(e.builder.and_(i, e.index(-e.lanes)), width, e.lanes) as j:
        place = e.add(e.times(i, width), j)
        behind = e.builder.icmp_signed(">", lane_numbers(e), in_all_lanes(e, e.builder.sub(i, j)))
        e.store(e.select(behind, e.load(upper, place), e.load(rows, place)), rows, place)


@micro
def begin_product(e: Emitter, rows: Value, first: Value, n: Value, width: Value, shares: Value, target: Value) -> None:
    """What eight rows of W'W from `first` on begin with, zeros, and what the rows of W are multiplied by in them."""
    with e.loop(first, n) as p:
        e.store(e.load(rows, e.add(e.times(p, width), first)), shares, e.times(p, PIVOTS))
    with e.loop(0, e.times(width, PIVOTS), e.lanes) as i:
        e.store(e.zero(), target, i)


def factor_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Eliminate the rows PART_FIRST .. PART_FIRST + PART_ROWS - 1 of matrix FIRST_BLOCK + `item`, or multiply them.

    ROWS: the matrices, (K, D, D); OUT: room for W, (K, D, PADDED); WEIGHTS: one number, what the root of a pivot must
    exceed as a part of the root of its entry of the matrix; FAILED: (K,) int64, the pivot that was none, or -1. MODE
    UPPER writes U above the diagonals. SCRATCH: see `scratch_numbers`; one a worker or, where a matrix takes several
    launches (SEGMENT), one an item.

    MODE PRODUCT: ROWS is W, (K, D, PADDED), and OUT becomes W'W, (K, PADDED, PADDED). Entries (i, j) and (j, i) have
    the same bits. It is here for what both have in common to be compiled once.
    """
    n, width = table[a.N_FEATURES], table[a.PADDED]
    first = table[a.PART_FIRST]
    end = min(first + table[a.PART_ROWS], n)
    square = float64_pointer(table[a.SCRATCH] + (item if table[a.SEVERAL] != 0 else worker) * table[a.SCRATCH_BYTES])
    spare, shares = at(square, PIVOTS * (PIVOTS + 1)), at(square, PIVOTS * (PIVOTS + 1 + width))
    upper = at(square, PIVOTS * (PIVOTS + 1 + 2 * width))
    item += table[a.FIRST_BLOCK]
    if table[a.MODE] == PRODUCT:
        factors = float64_pointer(table[a.ROWS] + item * n * width * 8)
        for i in range(first, end, PIVOTS):
            target = float64_pointer(table[a.OUT] + (item * width + i) * width * 8)
            begin_product(factors, i, n, width, shares, target)
            add_rows(factors, shares, target, width, 0, width, i, n, 1)
        return
    source = float64_pointer(table[a.ROWS] + item * n * n * 8)
    rows = float64_pointer(table[a.OUT] + item * n * width * 8)
    failed = at(int64_pointer(table[a.FAILED]), item)
    least = float64_pointer(table[a.WEIGHTS])[0]
    if first == 0:
        failed[0] = -1
    while first < end and failed[0] < 0:
        here = min(n - first, PIVOTS)
        lower, own = at(rows, first * width) if here == PIVOTS else spare, at(upper, first * width)
        bring_rows(source, n, first, width, upper, lower, shares)
        add_rows(rows, shares, lower, width, 0, first, 0, first, 1)
        add_rows(upper, shares, own, width, first, width, 0, first, 0)
        copy_rows(at(own, first), width, square, PIVOTS, PIVOTS, PIVOTS)
        for p in range(here):
            root = math.sqrt(square[p * (PIVOTS + 1)])
            # Roots on both sides: a variance of 1e-300 times a tolerance is denormal. NaN and infinities fail, too.
            if not (root > least * math.sqrt(source[(first + p) * (n + 1)])):
                failed[0] = first + p
                break
            square[PIVOTS * PIVOTS] = root
            eliminate_pivot(square, p, at(square, PIVOTS * PIVOTS))
        eliminate_columns(lower, 0, first, width, square)
        eliminate_columns(own, first + PIVOTS, width, width, square)
        keep_square(square, at(lower, first), at(own, first), width)
        if here < PIVOTS:
            copy_rows(spare, width, at(rows, first * width), width, here, width)
        first += PIVOTS
    if end == n and table[a.MODE] == UPPER:
        show_upper(upper, n, width, rows)


def scratch_numbers(width: int) -> int:
    """Of a worker, float64: the square and a root, eight rows, the shares of all pivots in eight rows, and U."""
    return PIVOTS * (PIVOTS + 1 + 2 * width) + width * width


@functools.lru_cache(maxsize=64)
def _plan(n: int, mode: int) -> tuple[npt.NDArray[np.int64], int, float]:
    """The table for matrices of n rows but for addresses, the numbers of a row's room, and the seconds of a matrix."""
    width = -(-n // PIVOTS) * PIVOTS
    seconds = matrix_seconds(n)
    table = a.table()
    table[a.N_FEATURES], table[a.PADDED], table[a.MODE] = n, width, mode
    table[a.PART_ROWS] = max(int(width * min(LAUNCH_SECONDS / seconds, 1.0)) // PIVOTS, 1) * PIVOTS
    table[a.SEVERAL] = int(table[a.PART_ROWS] < n)
    table[a.SCRATCH_BYTES] = 8 * scratch_numbers(width)
    return table, width, seconds


def matrix_seconds(n: int) -> float:
    """Rough time of one matrix of n rows."""
    return n * n * n * SECONDS + n * PIVOT_SECONDS


def eliminate(
    matrices: Float64, least: float, *, upper: bool = False, padded: bool = False
) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Inverses of the lower Cholesky factors of symmetric matrices.

    Parameters
    ----------
    matrices : ndarray (K, D, D) float64
        Symmetric; only what is on and above the diagonals counts.
    least : float
        What the root of a pivot must exceed, as a part of the root of the entry of the matrix.
    upper : bool
        Leave the factors' transposes above the diagonals; else 0 stands there.
    padded : bool
        Return rows with all of their room, for `inverses_of`.

    Returns
    -------
    inverses : ndarray (K, D, D)
        A new array, whose rows need not follow each other without a gap. Of a matrix that failed: anything.
    failed : ndarray (K,) int64
        The first pivot that is none, be it too small or not finite, or -1.
    """
    k, n, _ = matrices.shape
    fixed, width, seconds = _plan(n, UPPER if upper else 0)
    table = fixed.copy()
    matrices = np.ascontiguousarray(matrices)
    out = aligned_empty(k * n * width * 8).view(np.float64)
    failed, limit = np.empty(k, np.int64), np.array([least])
    table[a.ROWS], table[a.WEIGHTS] = address(matrices), address(limit)
    table[a.OUT], table[a.FAILED] = address(out), address(failed)
    _launch(table, k, n, seconds)
    room = out.reshape(k, n, width)
    return room if padded else room[:, :, :n], failed


def inverses_of(factors: Float64) -> Float64:
    """W'W of what `eliminate` returns as `padded`: the inverses of the matrices, (K, D, D), symmetric."""
    k, n, width = factors.shape
    fixed, _, seconds = _plan(n, PRODUCT)
    table, out = fixed.copy(), aligned_empty(k * width * width * 8).view(np.float64).reshape(k, width, width)
    table[a.ROWS], table[a.OUT] = address(factors), address(out)
    _launch(table, k, n, seconds)
    return np.ascontiguousarray(out[:, :n, :n])


def _launch(table: npt.NDArray[np.int64], k: int, n: int, seconds: float) -> None:
    """Do all parts of K matrices, as many in a launch as Ctrl-C may wait for."""
    workers = 1 if k == 1 or k * seconds < SERIAL_SECONDS else n_threads()
    count = min(k, max(int(workers * LAUNCH_SECONDS / seconds), workers))
    workers = min(workers, count)
    code, part = compile_block(factor_block, "float64"), int(table[a.PART_ROWS])
    scratch = np.empty(workers * scratch_numbers(-(-n // PIVOTS) * PIVOTS))
    table[a.SCRATCH] = address(scratch)
    for begin in range(0, k, count):
        table[a.FIRST_BLOCK] = begin
        for first in range(0, n, part):
            table[a.PART_FIRST] = first
            launch(code, table, min(count, k - begin), workers)
