"""Second moments of large models from the kernels' packing to symmetric matrices, one component an item.

A kernel, because NumPy would gather through an index as large as a matrix, entry by entry and in one thread: for
K D^2 = 10^6 that takes as long as the Cholesky factors of all components. Eight rows come in at a time, eight columns
of them are turned over in registers, and go out on both sides of the diagonal; what statistics subtract from moments
about another point is subtracted on the way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels import layout
from fastgmm.kernels.arguments import at, float64_pointer
from fastgmm.kernels.each import FROM, launch_each
from fastgmm.kernels.entry import transposed
from fastgmm.kernels.runner import address
from fastgmm.kernels.simd import VECTOR_BYTES, Emitter, Value, micro

Float64 = npt.NDArray[np.float64]

SECONDS = 1e-9  # of an entry, roughly: mostly for memory that is touched the first time
SIDE = 8  # rows and columns of a tile


@micro
def fill(e: Emitter, source: Value, n: Value, lanes: Value, weight: Value, shift: Value, out: Value) -> None:
    """out = symmetric matrix of packed moments less weight * shift shift', (n, n) without gaps; whole tiles only.

    `lanes` are those of the pass that packed the moments: rows are padded to whole vectors of these.
    """
    b = e.builder
    scale, place = e.broadcast(weight), e.variable(source)

    def width(columns: Value) -> Value:
        return b.and_(e.add(columns, b.sub(lanes, e.index(1))), b.neg(lanes))

    with e.loop(0, b.and_(n, e.index(-SIDE)), SIDE) as first:
        step, given = width(e.add(first, SIDE)), e.get(place)
        rows = [e.at(given, e.times(step, r)) for r in range(SIDE)]
        own = [e.broadcast(shift, e.add(first, r)) for r in range(SIDE)]

        def tile(j: Value, rows: list[Value] = rows, own: list[Value] = own) -> list[Value]:
            """Eight rows of columns j .. j + 7. First d d', then times the weight: that product is symmetric."""
            others = e.load(shift, j)
            return [e.minus(e.load(rows[r], j), e.mul(e.mul(own[r], others), scale)) for r in range(SIDE)]

        def put(values: list[Value], row: Value, column: Value) -> None:
            for r in range(SIDE):
                e.store(values[r], out, e.add(e.times(e.add(row, r), n), column))

        with e.loop(0, first, SIDE) as j:
            values = tile(j)
            put(values, first, j)
            put(transposed(e, values), j, first)
        below = tile(first)
        above = transposed(e, below)
        lanes_of = [[c if c <= r else e.lanes + c for c in range(SIDE)] for r in range(SIDE)]
        put([e.shuffle(below[r], above[r], lanes_of[r]) for r in range(SIDE)], first, first)
        e.set(place, e.at(given, e.times(step, SIDE)))


def unpack_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Matrix FIRST_BLOCK + `item` at OUT, (K, D, D), from ROWS, MOMENT_LENGTH apart; see `layout.moment_length`.

    Less WEIGHTS (K,) times the squares of MEANS (K, D).
    """
    item += table[a.FIRST_BLOCK]
    n = table[a.N_FEATURES]
    fill(
        float64_pointer(table[a.ROWS] + item * table[a.MOMENT_LENGTH] * 8),
        n,
        VECTOR_BYTES // table[a.SIZE],
        at(float64_pointer(table[a.WEIGHTS]), item),
        at(float64_pointer(table[a.MEANS]), item * n),
        at(float64_pointer(table[a.OUT]), item * n * n),
    )


def unpack_moments(
    packed: Float64, n_features: int, size: int, weights: Float64 | None = None, shifts: Float64 | None = None
) -> Float64:
    """Second moments as symmetric matrices.

    Parameters
    ----------
    packed : ndarray (K, moment_length) float64
        The numbers of a component follow each other; the components may be apart.
    n_features, size : int
        D, and bytes of an element of the pass.
    weights, shifts : ndarray (K,), (K, D) float64, optional
        Subtract w_k d_k d_k'.

    Returns
    -------
    ndarray (K, D, D)
        What `layout.unpack_moments` returns, by the kernel where that is faster, less the products.
    """
    k, n = packed.shape[0], n_features
    if weights is None and k * n * n < FROM:
        return layout.unpack_moments(packed, n, size)
    weights = np.zeros(k) if weights is None else np.ascontiguousarray(weights)
    shifts = np.zeros((k, n)) if shifts is None else np.ascontiguousarray(shifts)
    out = np.empty((k, n, n))
    table = a.table()
    table[a.N_FEATURES], table[a.SIZE] = n, size
    table[a.MOMENT_LENGTH] = packed.strides[0] // 8
    table[a.ROWS], table[a.OUT] = address(packed), address(out)
    table[a.WEIGHTS], table[a.MEANS] = address(weights), address(shifts)
    launch_each(unpack_block, "float64", table, k, n * n * SECONDS)
    for i in range(n // SIDE * SIDE, n):  # the last few rows, for which the kernel would be twice as long
        place = layout.moment_rows(n, size)[i]
        row = shifts[:, i, None] * shifts[:, : i + 1]
        row *= weights[:, None]
        np.subtract(packed[:, place : place + i + 1], row, out=row)
        out[:, i, : i + 1] = out[:, : i + 1, i] = row
    return out
