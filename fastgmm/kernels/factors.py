"""Cholesky factors of symmetric matrices, and the inverses of these, all components of a mixture in one launch.

A matrix A = U'U is eliminated where it lies, eight pivots at a time. Elimination turns A's rows into those of U and,
left of the diagonal, the identity's rows into those of W = U'^-1, the inverse of the lower factor: a row holds W up to
its pivot and U behind it, so one array serves both. Rows below eight pivots take all eight in one sweep over their
numbers, two rows at a time: sixteen multiply-adds for ten loads.

This is substitution, row by row, with its small backward error; nothing is multiplied by the inverse of a block. An
item is a component and knows nothing of the others, so its bits depend neither on these nor on the threads.

Long matrices are eliminated in several launches (`PART_FIRST`, `PART_ROWS`: pivots), for Ctrl-C waits for a launch.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import Body, compile_block, launch, n_threads
from fastgmm.kernels.arguments import at, float64_pointer, int64_pointer
from fastgmm.kernels.runner import LAUNCH_SECONDS, SERIAL_SECONDS, address, aligned_empty
from fastgmm.kernels.simd import Emitter, Value, micro
from fastgmm.kernels.workspace import helper
from fastgmm.pieces import pieces

Float64 = npt.NDArray[np.float64]

PIVOTS = 8  # a whole vector: what lies left and right of the pivots' block never shares a vector with it
SECONDS = 4e-11  # of one pivot, one row and one column, roughly


@micro
def scale_row(e: Emitter, row: Value, factor: Value, width: Value) -> None:
    """Row *= factor."""
    scale = e.splat(factor)
    with e.loop(0, width, e.lanes) as j:
        e.store(e.mul(scale, e.load(row, j)), row, j)


@micro
def subtract_row(e: Emitter, row: Value, pivot: Value, factor: Value, width: Value) -> None:
    """Row -= factor * pivot."""
    scale = e.splat(e.builder.fneg(factor))
    with e.loop(0, width, e.lanes) as j:
        e.store(e.fma(scale, e.load(pivot, j), e.load(row, j)), row, j)


@micro
def subtract_pivots(e: Emitter, rows: Value, pivots: Value, first: Value, place: Value, width: Value) -> None:
    """Two rows less their shares of eight pivots' rows.

    `rows` and `pivots` are `width` apart. A row's share of a pivot is what stands in the pivot's row at column `place`
    of the first and `place` + 1 of the second row. Columns first + 8 to the vector of `place` are left alone: nothing
    is there. Columns first to first + 7 of the rows count as 0.
    """
    shares = [
        [e.splat(e.builder.fneg(e.scalar(pivots, e.add(e.times(width, q), e.add(place, r))))) for q in range(PIVOTS)]
        for r in range(2)
    ]

    def update(j: Value, *, own: bool) -> None:
        sums = [e.zero() if own else e.load(rows, e.add(e.times(width, r), j)) for r in range(2)]
        for q in range(PIVOTS):
            pivot = e.load(pivots, e.add(e.times(width, q), j))
            if own:  # behind the diagonal stands U, and W is 0
                pivot = e.shuffle(pivot, e.zero(), [lane if lane <= q else e.lanes for lane in range(e.lanes)])
            sums = [e.fma(shares[r][q], pivot, sums[r]) for r in range(2)]
        for r in range(2):
            e.store(sums[r], rows, e.add(e.times(width, r), j))

    with e.loop(0, first, e.lanes) as j:
        update(j, own=False)
    update(first, own=True)
    with e.loop(e.builder.and_(place, e.index(-e.lanes)), width, e.lanes) as j:
        update(j, own=False)


@micro
def add_products(e: Emitter, rows: Value, factors: Value, place: Value, end: Value, width: Value) -> None:
    """Two rows plus eight rows of `factors`, times what stands in these at `place` and `place` + 1; columns < `end`."""
    shares = [
        [e.broadcast(factors, e.add(e.times(width, q), e.add(place, r))) for q in range(PIVOTS)] for r in range(2)
    ]
    with e.loop(0, end, e.lanes) as j:
        sums = [e.load(rows, e.add(e.times(width, r), j)) for r in range(2)]
        for q in range(PIVOTS):
            factor = e.load(factors, e.add(e.times(width, q), j))
            sums = [e.fma(shares[r][q], factor, sums[r]) for r in range(2)]
        for r in range(2):
            e.store(sums[r], rows, e.add(e.times(width, r), j))


@helper
def eliminate_block(rows, first, n, width, source, least):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Eliminate among the rows first .. first + 7 themselves; return the pivot that is none, or -1."""
    last = min(first + PIVOTS, n)
    for p in range(first, last):
        pivot = at(rows, p * width)
        root = math.sqrt(pivot[p])
        # Roots on both sides: variances of 1e-300 times a tolerance would be denormal. NaN and infinities fail, too.
        if not (root > least * math.sqrt(source[p * n + p])):
            return p
        pivot[p] = 1.0
        scale_row(pivot, 1.0 / root, width)
        for i in range(p + 1, last):
            row = at(rows, i * width)
            row[p] = 0.0
            subtract_row(row, pivot, pivot[i], width)
    return -1


def factor_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """Eliminate the pivots PART_FIRST .. PART_FIRST + PART_ROWS - 1 of matrix FIRST_BLOCK + `item`.

    ROWS: the matrices, (K, D, D); OUT: room for them, (K, N_ROWS, PADDED), where N_ROWS >= D is even; WEIGHTS: one
    number, what the root of a pivot must exceed as a part of the root of its entry of the matrix; FAILED: (K,) int64,
    the pivot that was none, or -1. MODE 1 leaves U where it is, above the diagonals.
    """
    item += table[a.FIRST_BLOCK]
    n, width = table[a.N_FEATURES], table[a.PADDED]
    height = table[a.N_ROWS]
    first, end = table[a.PART_FIRST], min(table[a.PART_FIRST] + table[a.PART_ROWS], n)
    source = float64_pointer(table[a.ROWS] + item * n * n * 8)
    rows = float64_pointer(table[a.OUT] + item * height * width * 8)
    failed = at(int64_pointer(table[a.FAILED]), item)
    if first == 0:
        failed[0] = -1
        for i in range(height):
            for j in range(width):
                rows[i * width + j] = source[i * n + j] if i < n and j < n else 0.0
    if failed[0] >= 0:
        return
    least = float64_pointer(table[a.WEIGHTS])[0]
    for p in range(first, end, PIVOTS):
        failed[0] = eliminate_block(rows, p, n, width, source, least)
        if failed[0] >= 0:
            return
        for i in range(p + PIVOTS, n, 2):
            subtract_pivots(at(rows, i * width), at(rows, p * width), p, i, width)
    if end == n and table[a.MODE] == 0:
        for i in range(n):
            for j in range(i + 1, n):
                rows[i * width + j] = 0.0


def product_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """Add W'W to a matrix of zeros at OUT, for eight rows of W at a time: those from PART_FIRST on, PART_ROWS of them.

    ROWS: W, (K, PADDED, PADDED), lower triangles; OUT: the same shape. Entries (i, j) and (j, i) have the same bits.
    """
    item += table[a.FIRST_BLOCK]
    n, width = table[a.N_FEATURES], table[a.PADDED]
    factors = float64_pointer(table[a.ROWS] + item * width * width * 8)
    rows = float64_pointer(table[a.OUT] + item * width * width * 8)
    for p in range(table[a.PART_FIRST], min(table[a.PART_FIRST] + table[a.PART_ROWS], n), PIVOTS):
        for i in range(0, p + PIVOTS, 2):
            add_products(at(rows, i * width), at(factors, p * width), i, p + PIVOTS, width)


@functools.lru_cache(maxsize=64)
def _plan(k: int, n: int, *, upper: bool, square: bool) -> tuple[npt.NDArray[np.int64], tuple[int, int], float]:
    """The table of K matrices but for addresses, (height, width) of a matrix's room, and the seconds that one takes."""
    width = -(-n // PIVOTS) * PIVOTS
    height = width if square else n + n % 2
    seconds = n * n * n * SECONDS
    table = a.table()
    table[a.N_FEATURES], table[a.PADDED], table[a.N_ROWS], table[a.MODE] = n, width, height, int(upper)
    table[a.PART_ROWS] = max(int(width * min(LAUNCH_SECONDS / seconds, 1.0)) // PIVOTS, 1) * PIVOTS
    return table, (height, width), seconds


def eliminate(
    matrices: Float64, least: float, *, upper: bool = False, square: bool = False
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
    square : bool
        Return all of the room, for `inverses_of`.

    Returns
    -------
    inverses : ndarray (K, D, D)
        A new array, whose rows need not follow each other without a gap. Of a matrix that failed: anything.
    failed : ndarray (K,) int64
        The first pivot that is none, be it too small or not finite, or -1.
    """
    k, n, _ = matrices.shape
    fixed, (height, width), seconds = _plan(k, n, upper=upper, square=square)
    table = fixed.copy()
    matrices = np.ascontiguousarray(matrices)
    out = aligned_empty(k * height * width * 8).view(np.float64)
    failed, limit = np.empty(k, np.int64), np.array([least])
    table[a.ROWS], table[a.WEIGHTS] = address(matrices), address(limit)
    table[a.OUT], table[a.FAILED] = address(out), address(failed)
    _launch(factor_block, table, k, n, seconds)
    room = out.reshape(k, height, width)
    return room if square else room[:, :n, :n], failed


def inverses_of(factors: Float64, n: int) -> Float64:
    """W'W of what `eliminate` returns as `square` for matrices of n rows: their inverses, (K, n, n), symmetric."""
    k = factors.shape[0]
    fixed, _, seconds = _plan(k, n, upper=False, square=True)
    table, out = fixed.copy(), aligned_empty(factors.nbytes).view(np.float64)
    for some in pieces(out):
        out[some] = 0.0
    table[a.ROWS], table[a.OUT] = address(factors), address(out)
    _launch(product_block, table, k, n, seconds)
    return np.ascontiguousarray(out.reshape(factors.shape)[:, :n, :n])


def _launch(body: Body, table: npt.NDArray[np.int64], k: int, n: int, seconds: float) -> None:
    """Do all parts of K matrices, as many in a launch as Ctrl-C may wait for."""
    workers = 1 if k == 1 or k * seconds < SERIAL_SECONDS else n_threads()
    count = min(k, max(int(workers * LAUNCH_SECONDS / seconds), workers))
    code, part = compile_block(body, "float64"), int(table[a.PART_ROWS])
    for begin in range(0, k, count):
        table[a.FIRST_BLOCK] = begin
        for first in range(0, n, part):
            table[a.PART_FIRST] = first
            launch(code, table, min(count, k - begin), workers)
