"""The pass for full covariances on matrix units: float32, many features, components near a common centre.

It is `full.near_full_block` with the products of a dense tile done by `matrix.py`; tiles in which most pairs of row and
component do not count take their moments as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels import matrix, near, normalise
from fastgmm.kernels._jit import inlined
from fastgmm.kernels.arguments import TILE, at
from fastgmm.kernels.full import dense_tile, moments_by_gram
from fastgmm.kernels.layout import padded_width
from fastgmm.kernels.matrix_units import SIDE, STEP_FLOATS, TERMS, TILE_FLOATS
from fastgmm.kernels.workspace import begin_block, finish_tile, helper, load_tile, parameters, prefetch_tile, workspace

Float32 = npt.NDArray[np.float32]
STEPS = TILE // TERMS  # of a tile's rows
CACHE = 1 << 19  # bytes of a second-level cache for the factors of components that are done together
WORK = matrix.WORK
WEIGHTED = 2 * STEPS * matrix.PAIR * STEP_FLOATS
ROWS, FEATURES = 64, 64  # rows whose left factors stay in a first-level cache, and features up to which that pays
TILES = 4  # of rows, between float32 and float64 sums: 768 rows


def blocks(n_features: int) -> int:
    """Blocks of 16 features."""
    return padded_width(n_features, 4) // SIDE


@helper
def columns_length(n_features: int) -> int:
    """Elements of the columns of 32 rows; halves take no more, and their place, for both are not needed at once."""
    return ((n_features + TERMS - 1) // TERMS) * matrix.PAIR * STEP_FLOATS


def extra_bytes(n_components: int, n_features: int) -> int:
    """Scratch of a worker: products, left factors, columns or halves, sums of an even number of components."""
    b = blocks(n_features)
    sums = (n_components + n_components % 2) * (b * (b + 1) // 2) * TILE_FLOATS
    return 4 * (WORK + WEIGHTED + STEPS * columns_length(n_features) + sums)


def pack_shifts(shifts: npt.NDArray[np.float64]) -> Float32:
    """(K, D) in whole blocks, filled with zeros."""
    k, d = shifts.shape
    out = np.zeros((k, padded_width(d, 4)), np.float32)
    out[:, :d] = shifts
    return out


@inlined
def matrix_moments(table, total, tag, ws, slot, extra, fresh):  # type: ignore[no-untyped-def]  # Numba code
    """Weights and first moments of all components from all rows of a tile, and sums of their second moments."""
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    work, weighted, split_rows, sums = extra
    normalise.normalise(ws.resp, ws.scale, total, k, TILE, at(slot, a.WEIGHT))
    near.weighted_sums(ws.resp, ws.rows, total, k, TILE, padded, at(slot, table[a.FIRST]))
    matrix.split_halves(ws.rows, total, padded, split_rows)
    some = ROWS if d <= FEATURES else TILE
    for begin in range(0, total, some):
        end, first = min(begin + some, total), fresh and begin == 0
        matrix.matrix_moments(ws.resp, TILE, k, ws.panels, split_rows, begin, end, d, weighted, work, first, sums)


def matrix_full_block(table: Any, item: int, worker: int, tag: Any) -> None:
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    shifts, factors, log_norm = parameters(table, tag)
    length, columns = table[a.FACTOR_LENGTH], columns_length(d)
    group = max(CACHE // (length * 4), 1)
    work, weighted, split_rows = ws.extra, at(ws.extra, WORK), at(ws.extra, WORK + WEIGHTED)
    sums = at(split_rows, STEPS * columns)
    matrix.begin_units(work)
    held = 0  # tiles whose moments are in `sums`
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        matrix.split_columns(ws.panels, total, d, split_rows)
        for c in range(0, k, group):
            for t in range(0, total, TERMS):
                matrix.matrix_density(
                    at(split_rows, t // TERMS * columns),
                    at(shifts, c * padded),
                    at(factors, c * length),
                    length,
                    d,
                    min(group, k - c),
                    at(log_norm, c),
                    work,
                    at(ws.resp, c * TILE + t),
                    TILE,
                )
            prefetch_tile(table, first, end, tag, c, min(c + group, k), k)
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] != a.FIT:
            continue
        if dense_tile(ws, total, k):
            matrix_moments(table, total, tag, ws, slot, (work, weighted, split_rows, sums), held == 0)
            held += 1
        else:
            moments_by_gram(table, panels, total, tag, ws, slot, False)
        if held == TILES or (held > 0 and first + TILE >= end):
            matrix.add_sums(sums, k, d, at(slot, table[a.SECOND]), table[a.MOMENT_LENGTH])
            held = 0
    matrix.end_units(work)
