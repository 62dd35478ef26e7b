"""The pass for one triangular factor shared by all components (tied covariances).

For reference, per row x, with a centre c: z = W (x - c) once, then per component |z - W (mu_k - c)|^2, so that the
triangular product is paid once a row, not once a row and component:

    log p = log_norm_k - |z - W (mu_k - c)|^2 / 2        r = softmax(log p)        s0 += r    s1 += r (x - c)

Where the components lie near the centre (`programs.py` decides), with u = x - c and m = W (mu_k - c), the distance is
|W u|^2 - 2 u.(W'm) + |m|^2: W u is then wanted for its length alone, and the components see u itself.

The scatter needs no pass of its own: sum of r (x - m_k)(x - m_k)' over all components is the total scatter about c,
which does not change between iterations, minus the scatter of the means (`scatter_block` computes the former once).
"""

from __future__ import annotations

import math

from fastgmm.kernels import arguments as a
from fastgmm.kernels import micro, near, pairs, tile
from fastgmm.kernels.arguments import TILE, at, pointer
from fastgmm.kernels.micro import V
from fastgmm.kernels.near_tiles import begin_tile, exponentials, finish_near, load_panel, near_rows, rows_ahead
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.workspace import (
    begin_block,
    common_moments,
    finish_tile,
    helper,
    load_tile,
    load_weights,
    parameters,
    workspace,
)


@helper
def load_white(table, first, end, tag, ws, factor):  # type: ignore[no-untyped-def]  # Numba code
    """Bring a tile in about the common centre, and whiten it; what `load_tile` returns."""
    count, panels, total = load_tile(table, first, end, tag, ws)
    origin = pointer(table[a.ORIGIN], tag)
    micro.whiten(ws.panels, panels, origin, factor, ws.work, table[a.N_FEATURES], ws.white)
    return count, panels, total


def tied_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, factor, log_norm = parameters(table, tag)
    ones = pointer(table[a.SCALES], tag)
    for first in range(begin, end, TILE):
        count, panels, total = load_white(table, first, end, tag, ws, factor)
        pairs.scalar_density(ws.white, panels, means, ones, log_norm, d, k, ws.resp, ws.squares, TILE)
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT:
            common_moments(table, total, ws, slot)


def near_tied_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """One block of rows, for components near one another: |W u - m|^2 = |W u|^2 - 2 u.W'm + |m|^2."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, factor, constants = parameters(table, tag)
    ones, norms, origin = pointer(table[a.SCALES], tag), ws.values, pointer(table[a.ORIGIN], tag)
    size = near_rows(table)
    for first in range(begin, end, size):
        count, total, panel = begin_tile(table, first, min(end, first + size), ws)
        for start in range(0, total, panel):
            load_panel(table, first, start, count, panel, tag, ws)
            ahead = rows_ahead(table, first + start, end, panel, tag)
            out, tops = at(ws.resp, start), at(ws.work, start)
            near.shifted_density(ws.panels, 1, origin, factor, d, origin, norms, tops, 0, ahead, 0)
            near.product_density(ws.panels, 1, means, ones, constants, norms, d, k, out, TILE, tops, ahead)
            exponentials(table, start, panel, tag, ws)
        finish_near(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT:
            common_moments(table, total, ws, slot)


def scatter_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """Weight, first and second moments of all rows of a block about one centre: one component, responsible for all."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, padded = table[a.N_FEATURES], table[a.PADDED]
    lanes = VECTOR_BYTES // table[a.SIZE]
    stride = padded + lanes
    for first in range(begin, end, TILE):
        count = min(TILE, end - first)
        panels = (count + V * lanes - 1) // (V * lanes)
        total = panels * V * lanes
        tile.copy_rows(at(pointer(table[a.ROWS], tag), first * d), d, padded, count, total, ws.rows)
        load_weights(table, first, count, total, ws.weight)
        for i in range(total):
            ws.resp[i] = 1.0
            ws.scale[i] = math.sqrt(ws.weight[i])
        ws.groups[0] = -1  # every panel
        tile.select_live_roots(ws.resp, ws.scale, panels, ws.groups, ws.live, ws.values, ws.found, at(slot, a.WEIGHT))
        live = ws.found[0]
        if live > 0:
            mean, sums = pointer(table[a.WIDE_MEANS], tag), at(slot, table[a.FIRST])
            micro.gather(ws.rows, ws.live, ws.values, live, padded, mean, ws.centred, stride, sums)
            micro.rank_update(ws.centred, live, d, stride, at(slot, table[a.SECOND]))
