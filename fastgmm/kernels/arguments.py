"""How a block of work is told what to do: one table of 64-bit integers, addresses and sizes.

Every pass is compiled once, as a C function ``block(table, item, worker, tag)``. A generic launcher calls it for item
0, 1, 2, ... from one thread or from many, so the serial and the parallel path run the same machine code, and a further
pass costs no further parallel compilation. `tag` is null; its type says which element type the pass works in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

TILE = 192  # rows a tile: a multiple of 3 vectors of either element type
ALIGNMENT = 64  # bytes

# -- slots of the table ------------------------------------------------------------------------------------------------
(
    ROWS,  # address of the rows, (n, D), C order
    WEIGHTS,  # address of their weights, float64, or 0
    N_ROWS,
    N_FEATURES,
    PADDED,  # n_features rounded up to whole vectors
    N_COMPONENTS,
    SIZE,  # bytes of an element
    BLOCK_ROWS,
    FIRST_BLOCK,  # item 0 is this block of the rows
    MODE,
    MEANS,
    FACTORS,
    FACTOR_LENGTH,  # elements of one component's packed factor
    LOG_NORM,
    SCALES,
    ORIGIN,  # of a pass about one centre: zeros, its mean there
    WHITE,  # 1 where the workspace needs `white` and `squares`, else 0
    EXTRA,  # bytes of the workspace's `extra`
    CUT,
    COMMON,  # of a pass about one centre: address of the centre, else 0
    WIDE_MEANS,  # means as the moments' kernels read them
    SLOTS,  # address of the partials, float64
    SLOT_LENGTH,
    FIRST,  # where in a slot the first moments begin
    SECOND,  # where the second moments begin
    MOMENT_LENGTH,  # elements of one component's second moments
    SHARED,  # of `full.py`: how tiles whose rows belong to most components take their moments
    TOPS,  # 1 where a tile's densities leave the largest of every row in the workspace's `values`, else 0
    PRODUCTS,  # where among the second moments the sums of shared products begin
    VECTORS,  # address of what `layout.product_vectors` says of them
    N_VECTORS,  # of products of a row
    SCRATCH,  # address of the workers' scratch
    SCRATCH_BYTES,  # of one worker
    OUT,
    TOP,  # address of what is added to every log-density in OUT, float64, or 0
    STACK,  # of the fold: address of the levels
    DEPTH,  # of the fold: blocks before those of this wave
    SEGMENT,  # of the fold: elements a segment
    COUNT,  # of the fold: filled slots
    SEVERAL,  # of factors: 1 where a matrix takes several launches, else 0
    MATRIX_STEP,  # of packing: elements from one matrix to the next
    ROW_STEP,  # of packing: elements from one row of a matrix to the next
    PART_FIRST,  # a block may be done in parts: this one begins so many rows after the block
    PART_ROWS,  # and has at most so many
    BLOCK,  # of k-means in one launch: address of the pass
    CENTERS,  # address of the centers, (K, D) float64, and of the tolerance after them
    ROUNDS,  # passes at most
    FAILED,  # of factors: address of the pivots that were none
    N_SLOTS_IN_TABLE,
) = range(49)

# -- a slot: the partial sums of a block, float64 ----------------------------------------------------------------------
LOG_LIKELIHOOD, LOG_LARGEST, LOST, TOTAL_WEIGHT = range(4)
WEIGHT = 4  # where the weights of the components begin


# -- SHARED ------------------------------------------------------------------------------------------------------------
BY_PRODUCTS = 1  # `products.py`; 0: like all other tiles
BY_GRAM = 2  # `gram.py`

# -- modes: what a pass is to give -------------------------------------------------------------------------------------
FIT = 0  # sums and moments
EVALUATE = 1  # sums only
SCORE = 2  # OUT: log-density of every row, float64
PREDICT = 3  # OUT: the most probable component of every row, int64
PROBABILITY = 4  # OUT: (n, K) responsibilities, float64
ASSIGN = 5  # like FIT, with hard assignment: k-means


def table() -> npt.NDArray[np.int64]:
    """An empty table."""
    return np.zeros(N_SLOTS_IN_TABLE, np.int64)


@intrinsic
def pointer(typingctx: Any, address: Any, tag: Any) -> Any:
    """An address as a pointer of the tag's type."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return tag(address, tag), codegen


def _typed(dtype: Any) -> Any:
    @intrinsic
    def convert(typingctx: Any, address: Any) -> Any:
        """An address as a pointer."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(dtype)(types.int64), codegen

    return convert


float64_pointer = _typed(types.float64)
int64_pointer = _typed(types.int64)
int32_pointer = _typed(types.int32)


@intrinsic
def at(typingctx: Any, base: Any, offset: Any) -> Any:
    """The pointer `offset` elements on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return base(base, types.int64), codegen


def aligned(size: int) -> int:
    """Bytes, rounded up to whole cache lines."""
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
