"""Second moments of large models from the kernels' packing to symmetric matrices, one component an item.

A kernel, because NumPy would gather through an index as large as a matrix, entry by entry and in one thread: for
K D^2 = 10^6 that takes as long as the Cholesky factors of all components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels import layout
from fastgmm.kernels._jit import compile_block, launch, n_threads
from fastgmm.kernels.arguments import at, float64_pointer
from fastgmm.kernels.runner import LAUNCH_SECONDS, SERIAL_SECONDS, address
from fastgmm.kernels.simd import VECTOR_BYTES

Float64 = npt.NDArray[np.float64]

SECONDS = 1.5e-9  # of an entry, roughly
FROM = 1 << 16  # entries; below, the call and the compilation are not worth it


def unpack_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Matrix FIRST_BLOCK + `item` at OUT, (K, D, D), from ROWS, MOMENT_LENGTH apart; see `layout.moment_length`."""
    item += table[a.FIRST_BLOCK]
    n = table[a.N_FEATURES]
    lanes = VECTOR_BYTES // table[a.SIZE]
    source = float64_pointer(table[a.ROWS] + item * table[a.MOMENT_LENGTH] * 8)
    out = float64_pointer(table[a.OUT] + item * n * n * 8)
    first = 0
    while first < n:
        q = 8
        while first + q > n:
            q //= 2
        width = (first + q + lanes - 1) // lanes * lanes
        for j in range(first + q):
            for r in range(max(j - first, 0), q):
                value = source[r * width + j]
                out[(first + r) * n + j] = value
                out[j * n + first + r] = value
        source = at(source, q * width)
        first += q


def unpack_moments(packed: Float64, n_features: int, size: int) -> Float64:
    """(K, moment_length) as symmetric (K, D, D): `layout.unpack_moments`, by the kernel where that is faster.

    The numbers of a component follow each other, and so do the components.
    """
    k, n = packed.shape[0], n_features
    if k * n * n < FROM:
        return layout.unpack_moments(packed, n, size)
    out = np.empty((k, n, n))
    table = a.table()
    table[a.N_FEATURES], table[a.SIZE], table[a.MOMENT_LENGTH] = n, size, packed.shape[1]
    table[a.ROWS], table[a.OUT] = address(packed), address(out)
    seconds = n * n * SECONDS  # of one matrix
    workers = 1 if k == 1 or k * seconds < SERIAL_SECONDS else n_threads()
    count = max(int(workers * LAUNCH_SECONDS / seconds), workers)
    code = compile_block(unpack_block, "float64")
    for begin in range(0, k, count):
        table[a.FIRST_BLOCK] = begin
        launch(code, table, min(count, k - begin), workers)
    return out
