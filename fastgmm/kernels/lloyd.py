"""All iterations of k-means in one launch, for rows so few that Python around each pass would be most of the time.

Every round is the pass of `spherical.py` itself, called through its address, so distances, labels and sums are those of
rounds that are launched one by one. Sums are about 0: rows of a sample are centred (`fastgmm.initialize.sample`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import compile_block
from fastgmm.kernels.arguments import at, float64_pointer, pointer
from fastgmm.kernels.programs import DensityLike, assignment
from fastgmm.kernels.runner import ELEMENT_NAMES, Program
from fastgmm.kernels.schedule import LAUNCH_SECONDS, block_rows, row_seconds
from fastgmm.kernels.workspace import helper


@intrinsic
def call_block(typingctx: Any, address: Any, table: Any, tag: Any) -> Any:
    """Call ``block(table, 0, 0, tag)`` at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        given, end = args[1], args[2]
        kind = ir.FunctionType(ir.VoidType(), [given.type, i64, i64, end.type])
        zero = ir.Constant(i64, 0)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [given, zero, zero, end])
        return context.get_dummy_value()

    return types.void(types.int64, table, tag), codegen


@helper
def pack_centers(centers, k, d, means):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """`layout.pack_components`: blocks of 8, 4, 2 and 1 components, feature by feature; then what rounding left."""
    low = at(means, k * d)
    first = 0
    while first < k:
        q = 8
        while first + q > k:
            q //= 2
        for j in range(d):
            for r in range(q):
                value = centers[(first + r) * d + j]
                place = first * d + j * q + r
                means[place] = value
                low[place] = value - means[place]
        first += q


def lloyd_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """Move the centers, (K, D) float64 at CENTERS, until they rest; what follows them there is the tolerance."""
    k, d = table[a.N_COMPONENTS], table[a.N_FEATURES]
    centers = float64_pointer(table[a.CENTERS])
    means = pointer(table[a.MEANS], tag)
    slot = float64_pointer(table[a.SLOTS])
    sums, padded = at(slot, table[a.FIRST]), table[a.PADDED]
    for _ in range(table[a.ROUNDS]):
        pack_centers(centers, k, d, means)
        call_block(table[a.BLOCK], table, tag)
        if slot[a.LOST] > 0.0:
            return
        moved = 0.0
        for c in range(k):
            weight = slot[a.WEIGHT + c]
            if weight > 0.0:
                for j in range(d):
                    place = c * d + j
                    mean = sums[c * padded + j] / weight
                    shift = mean - centers[place]
                    moved += shift * shift
                    centers[place] = mean
        if moved <= centers[k * d]:
            return


def is_short(program: Program, n_rows: int) -> bool:
    """Whether all rounds of a program are one block of rows and take no longer than a launch may."""
    k, length = program.n_components, program.slot_length
    seconds = 2 * program.numbers[a.ROUNDS] * n_rows * row_seconds(k, length)  # twice: certainly one launch then
    return seconds <= LAUNCH_SECONDS and n_rows <= block_rows(k, length)


def lloyd_program(
    density: DensityLike, dtype: np.dtype[Any], tol: float, rounds: int
) -> tuple[Program, npt.NDArray[np.float64]]:
    """The program, to be run with `a.ASSIGN`, and the centers (K, D) that it moves.

    Parameters
    ----------
    density : DensityLike
        Equal spheres around the centers to begin with.
    dtype : numpy.dtype
        Of the rows.
    tol : float
        Squared distances that all centers moved together, at which they rest.
    rounds : int
        At most so many.
    """
    program = assignment(density, dtype)
    program.numbers[a.BLOCK] = compile_block(program.body, ELEMENT_NAMES[dtype.itemsize])
    program.numbers[a.ROUNDS] = rounds
    program.body = lloyd_block
    values = np.empty(density.means.size + 1)
    values[:-1], values[-1] = density.means.ravel(), tol
    program.arrays[a.CENTERS] = values
    program.arrays[a.WIDE_MEANS][:] = 0.0
    return program, values[:-1].reshape(density.means.shape)
