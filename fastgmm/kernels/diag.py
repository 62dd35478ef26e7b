"""The pass for a diagonal factor a component.

For reference, per row x and component k, with a = 1 / std, u = x - mu_k:

    log p = log_norm_k - |a_k u|^2 / 2        r = softmax(log p)        s0 += r    s1 += r u    s2 += r u^2

Where the components lie near a common centre c (`programs.py` decides), u = x - c for all of them, and
log p = log_norm_k - |a_k u - a_k (mu_k - c)|^2 / 2.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import micro, near, pairs, tile
from fastgmm.kernels.arguments import TILE, at, pointer
from fastgmm.kernels.near_tiles import begin_tile, exponentials, finish_near, load_panel, near_rows, rows_ahead
from fastgmm.kernels.workspace import (
    begin_block,
    common_moments,
    finish_tile,
    load_tile,
    parameters,
    workspace,
)


def diag_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    means, scales, log_norm = parameters(table, tag)
    wide_means = pointer(table[a.WIDE_MEANS], tag)
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        pairs.diagonal_density(ws.panels, panels, means, scales, log_norm, d, k, ws.resp, TILE)
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] != a.FIT:
            continue
        for c in range(k):
            tile.select_live(
                at(ws.resp, c * TILE),
                ws.scale,
                panels,
                at(ws.groups, c),
                ws.live,
                ws.values,
                ws.found,
                at(slot, a.WEIGHT + c),
            )
            live = ws.found[0]
            if live > 0:
                mean = at(wide_means, c * 2 * padded)
                sums, squares = at(slot, table[a.FIRST] + c * padded), at(slot, table[a.SECOND] + c * padded)
                micro.diagonal_moments(ws.rows, ws.live, ws.values, live, padded, mean, sums, squares)


def near_diag_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """One block of rows, for components near one another."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    shifts, scales, log_norm = parameters(table, tag)
    size = near_rows(table)
    for first in range(begin, end, size):
        count, total, panel = begin_tile(table, first, min(end, first + size), ws)
        for start in range(0, total, panel):
            load_panel(table, first, start, count, panel, tag, ws)
            ahead = rows_ahead(table, first + start, end, panel, tag)
            out, tops = at(ws.resp, start), at(ws.work, start)
            near.affine_density(ws.panels, 1, shifts, scales, log_norm, d, k, out, TILE, tops, ahead)
            exponentials(table, start, panel, tag, ws)
        finish_near(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT:
            common_moments(table, total, ws, slot)
            near.square_rows(ws.rows, padded, total, ws.centred)
            near.weighted_sums(ws.resp, ws.centred, total, k, TILE, padded, at(slot, table[a.SECOND]))
