"""The pass for one scale a component (spherical covariances), and for k-means, which is its hard case.

For reference, per row x and component k, with a = 1 / std and a centre c common to all components:

    q = |x - mu_k|^2    log p = log_norm_k - (a_k^2 q) / 2    r = softmax(log p)
    s0 += r    s1 += r (x - c)    t += r q

First moments need no centre of their own (a mean is only as exact as eps times its distance from c, like any number
about c), so they are one plain matrix product for all components. Where the components lie near c (`programs.py`
decides), so are the distances: with u = x - c, m = mu_k - c, q = |u|^2 - 2 u.m + |m|^2, and t is about c as well.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import near, normalise, pairs, tile
from fastgmm.kernels.arguments import TILE, at, pointer
from fastgmm.kernels.near_tiles import begin_tile, exponentials, finish_near, load_panel, near_rows, rows_ahead
from fastgmm.kernels.workspace import (
    begin_block,
    common_moments,
    finish_labels,
    finish_tile,
    load_tile,
    parameters,
    workspace,
)


def spherical_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, scales, log_norm = parameters(table, tag)
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        pairs.scalar_density(ws.panels, panels, means, scales, log_norm, d, k, ws.resp, ws.squares, TILE)
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT:
            tile.centre_rows(ws.rows, pointer(table[a.WIDE_MEANS], tag), table[a.PADDED], total)
            common_moments(table, total, ws, slot)
            tile.weigh(ws.squares, TILE, ws.resp, total, k, TILE, at(slot, table[a.SECOND]))


def assign_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """One block of rows, each of which belongs to the nearest center: modes ASSIGN and PREDICT alone.

    A kernel of its own because most fits start with k-means, which a new machine compiles in half the time without all
    that `spherical_block` has for the other modes.
    """
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, scales, log_norm = parameters(table, tag)
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        pairs.scalar_density(ws.panels, panels, means, scales, log_norm, d, k, ws.resp, ws.squares, TILE)
        finish_labels(table, first, count, total, ws, slot)
        if table[a.MODE] == a.ASSIGN:
            tile.centre_rows(ws.rows, pointer(table[a.WIDE_MEANS], tag), table[a.PADDED], total)
            common_moments(table, total, ws, slot)
            tile.weigh(ws.squares, TILE, ws.resp, total, k, TILE, at(slot, table[a.SECOND]))


def near_spherical_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """One block of rows, for components near one another."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, scales, constants = parameters(table, tag)
    norms = ws.values
    size = near_rows(table)
    for first in range(begin, end, size):
        count, total, panel = begin_tile(table, first, min(end, first + size), ws)
        for start in range(0, total, panel):
            load_panel(table, first, start, count, panel, tag, ws)
            here = at(norms, start)
            near.square_norms(ws.panels, 1, d, here)
            ahead = rows_ahead(table, first + start, end, panel, tag)
            out, tops = at(ws.resp, start), at(ws.work, start)
            near.product_density(ws.panels, 1, means, scales, constants, here, d, k, out, TILE, tops, ahead)
            exponentials(table, start, panel, tag, ws)
        finish_near(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT:
            weights, squares = at(slot, a.WEIGHT), at(slot, table[a.SECOND])
            normalise.normalise_and_weigh(ws.resp, ws.scale, norms, total, k, TILE, weights, squares)
            near.weighted_sums(ws.resp, ws.rows, total, k, TILE, table[a.PADDED], at(slot, table[a.FIRST]))
