"""Covariances of large models from scatter: every matrix by its component's weight, one component an item.

A division of eight numbers takes sixteen cycles, and memory that is touched the first time costs as much again; both
are done by all threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels.arguments import at, float64_pointer
from fastgmm.kernels.each import FROM, launch_each
from fastgmm.kernels.runner import address
from fastgmm.kernels.simd import Emitter, Value, micro

Float64 = npt.NDArray[np.float64]

SECONDS = 1e-9  # of an entry, roughly
LEAST = 3  # features: a matrix fills a vector


@micro
def divide(e: Emitter, source: Value, count: Value, weight: Value, out: Value) -> None:
    """out = source / weight, `count` numbers, at least a vector of them."""
    divisor = e.broadcast(weight)
    last = e.builder.sub(count, e.index(e.lanes))
    for start, stop in ((0, last), (last, count)):  # the last vector, of which some is there already
        with e.loop(start, stop, e.lanes) as i:
            e.store(e.over(e.load(source, i), divisor), out, i)


def divide_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Matrix FIRST_BLOCK + `item` of ROWS, (K, D, D), by its number of WEIGHTS, (K,), as OUT, (K, D, D)."""
    item += table[a.FIRST_BLOCK]
    count = table[a.N_FEATURES] * table[a.N_FEATURES]
    source, out = float64_pointer(table[a.ROWS]), float64_pointer(table[a.OUT])
    weight = at(float64_pointer(table[a.WEIGHTS]), item)
    divide(at(source, item * count), count, weight, at(out, item * count))


def divided(matrices: Float64, weights: Float64) -> Float64:
    """Matrices (K, D, D) / weights (K,), a new array; as NumPy divides, to the bit."""
    k, n, _ = matrices.shape
    if matrices.size < FROM or n < LEAST or not matrices.flags.c_contiguous:
        result: Float64 = matrices / weights[:, None, None]
        return result
    weights, out = np.ascontiguousarray(weights), np.empty(matrices.shape)
    table = a.table()
    table[a.N_FEATURES], table[a.WEIGHTS] = n, address(weights)
    table[a.ROWS], table[a.OUT] = address(matrices), address(out)
    launch_each(divide_block, "float64", table, k, n * n * SECONDS)
    return out
