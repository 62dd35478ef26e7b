"""Inverse factors of large models in the layouts that a pass reads, one component an item.

`layout.pack_triangles` and `matrix_twins.pack_tiles` say in NumPy what these layouts are; in NumPy, packing takes as
long as finding the factors, in one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from fastgmm.kernels import arguments as a
from fastgmm.kernels import layout
from fastgmm.kernels._jit import Body
from fastgmm.kernels.arguments import at, float64_pointer, pointer
from fastgmm.kernels.each import FROM, launch_each
from fastgmm.kernels.edges import load_before
from fastgmm.kernels.entry import transposed
from fastgmm.kernels.matrix_units import PARTS, SIDE, TERMS, TILE_BYTES, TILE_FLOATS, split
from fastgmm.kernels.runner import ELEMENT_NAMES, address, aligned_empty
from fastgmm.kernels.simd import DOUBLE, Emitter, Value, micro

Float64 = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating[Any]]

SECONDS = 5e-10  # of an entry, roughly
ROWS = 8  # of a block


@micro
def transpose_blocks(e: Emitter, out: Value, factor: Value, n: Value, stride: Value) -> None:
    """out = `layout.pack_triangles` of a triangle (n, n) float64, whose rows are `stride` apart; whole blocks only."""
    b = e.builder
    wide = Emitter(b, DOUBLE)
    place = e.variable(out)

    def converted(value: Value) -> Value:
        if e.real == DOUBLE:
            return value
        kind = ir.VectorType(e.real, value.type.count) if isinstance(value.type, ir.VectorType) else e.real
        return b.fptrunc(value, kind)

    with e.loop(0, b.and_(n, e.index(-ROWS)), ROWS) as first:
        rows, target = [e.at(factor, e.times(e.add(first, r), stride)) for r in range(ROWS)], e.get(place)
        with e.loop(0, e.add(first, ROWS), ROWS) as j:
            for c, column in enumerate(transposed(wide, [wide.load(row, j) for row in rows])):
                e.store(converted(column), target, e.times(e.add(j, c), ROWS))
        e.set(place, e.at(target, e.times(e.add(first, ROWS), ROWS)))


@micro
def split_tiles(e: Emitter, out: Value, factor: Value, n: Value, stride: Value) -> None:
    """out = left factors of `matrix.matrix_density` of a triangle (n, n) float64, whose rows are `stride` apart."""
    b = e.builder
    wide = Emitter(b, DOUBLE)
    upper = ir.VectorType(ir.IntType(16), SIDE)
    place = e.variable(out)

    def eight(row: Value, column: Value, end: Value) -> Value:
        """Eight numbers of a row as float32; 0 where the matrix has ended."""
        return b.fptrunc(load_before(wide, row, column, end), ir.VectorType(e.real, wide.lanes))

    def sixteen(row: Value, column: Value, end: Value) -> list[Value]:
        """The upper halves of the three parts of sixteen numbers."""
        low, high = (eight(row, e.add(column, 8 * h), end) for h in range(2))
        parts = split(e, e.shuffle(low, high, range(SIDE)))
        return [b.trunc(b.lshr(part, ir.Constant(part.type, [16] * SIDE)), upper) for part in parts]

    with e.loop(0, n, SIDE) as first, e.loop(0, e.add(first, SIDE), TERMS) as column:
        target = e.get(place)
        with e.loop(0, SIDE) as r:
            i = e.add(first, r)
            end = b.select(b.icmp_signed("<", i, n), n, e.index(0))
            row = e.at(factor, e.times(i, stride))
            low, high = (sixteen(row, e.add(column, SIDE * h), end) for h in range(2))
            for part in range(PARTS):
                terms = b.bitcast(e.shuffle(low[part], high[part], range(TERMS)), e.vector)
                e.store(terms, target, e.add(e.times(r, TILE_BYTES // SIDE // 4), part * TILE_FLOATS))
        e.set(place, e.at(target, PARTS * TILE_FLOATS))


def triangle_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """Factor FIRST_BLOCK + `item` at OUT, FACTOR_LENGTH apart, from ROWS, MATRIX_STEP and a row ROW_STEP apart."""
    item += table[a.FIRST_BLOCK]
    out = at(pointer(table[a.OUT], tag), item * table[a.FACTOR_LENGTH])
    factor = at(float64_pointer(table[a.ROWS]), item * table[a.MATRIX_STEP])
    transpose_blocks(out, factor, table[a.N_FEATURES], table[a.ROW_STEP])


def tiles_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """The same for matrix units."""
    item += table[a.FIRST_BLOCK]
    out = at(pointer(table[a.OUT], tag), item * table[a.FACTOR_LENGTH])
    factor = at(float64_pointer(table[a.ROWS]), item * table[a.MATRIX_STEP])
    split_tiles(out, factor, table[a.N_FEATURES], table[a.ROW_STEP])


def pack_triangles(factors: Float64, dtype: npt.DTypeLike) -> Real:
    """(K, D, D) lower triangles as `layout.pack_triangles` packs them, by a kernel where that is faster."""
    k, n, _ = factors.shape
    if k * n * n < FROM:
        return layout.pack_triangles(factors, dtype)
    out = _pack(triangle_block, factors, np.dtype(dtype), layout.triangle_length(n))
    layout.pack_blocks(factors, out, n // ROWS * ROWS)  # the last few rows, for which the kernel would be twice as long
    return out


def pack_tiles(factors: Float64) -> Real:
    """(K, D, D) lower triangles as the left factors of `matrix.matrix_density`, (K, length) float32."""
    n = factors.shape[1]
    tiles = sum(i // 2 + 1 for i in range(-(-n // SIDE)))
    return _pack(tiles_block, factors, np.dtype(np.float32), tiles * PARTS * TILE_FLOATS)


def _pack(body: Body, factors: Float64, dtype: np.dtype[Any], length: int) -> Real:
    k, n, _ = factors.shape
    if factors.strides[2] != 8:
        factors = np.ascontiguousarray(factors)
    out: Real = aligned_empty(k * length * dtype.itemsize).view(dtype)  # a tile's row is then a line of the cache
    table = a.table()
    table[a.N_FEATURES], table[a.FACTOR_LENGTH] = n, length
    table[a.MATRIX_STEP], table[a.ROW_STEP] = factors.strides[0] // 8, factors.strides[1] // 8
    table[a.ROWS], table[a.OUT] = address(factors), address(out)
    launch_each(body, ELEMENT_NAMES[dtype.itemsize], table, k, n * n * SECONDS)
    return out.reshape(k, length)
