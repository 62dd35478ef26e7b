"""The pass for one scale a component (spherical covariances), and for k-means, which is its hard case.

For reference, per row x and component k, with a = 1 / std and a centre c common to all components:

    q = |x - mu_k|^2    log p = log_norm_k - (a_k^2 q) / 2    r = softmax(log p)
    s0 += r    s1 += r (x - c)    t += r q

First moments need no centre of their own (a mean is only as exact as eps times its distance from c, like any number
about c), so they are one plain matrix product for all components.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import micro, tile
from fastgmm.kernels.arguments import TILE, at, pointer
from fastgmm.kernels.workspace import begin_block, finish_tile, helper, load_tile, parameters, workspace


@helper
def common_moments(table, total, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """Weights and first moments about the common centre, for all components."""
    padded, k = table[a.PADDED], table[a.N_COMPONENTS]
    tile.normalise(ws.resp, ws.scale, total, k, TILE, at(slot, a.WEIGHT))
    tile.centre_rows(ws.rows, pointer(table[a.WIDE_MEANS], tag), padded, total)
    micro.weighted_sums(ws.resp, ws.rows, total, k, TILE, padded, at(slot, table[a.FIRST]))


def spherical_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, scales, log_norm = parameters(table, tag)
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        micro.scalar_density(ws.panels, panels, means, scales, log_norm, d, k, ws.resp, ws.squares, TILE)
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] == a.FIT or table[a.MODE] == a.ASSIGN:
            common_moments(table, total, tag, ws, slot)
            tile.weigh(ws.squares, ws.resp, total, k, TILE, at(slot, table[a.SECOND]))
