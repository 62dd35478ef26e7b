"""The pass for a triangular factor a component (full covariances), five features and more.

For reference, per row x and component k, with W = inverse Cholesky factor, u = x - mu_k:

    log p = log_norm_k - |W_k u|^2 / 2        r = softmax(log p)        s0 += r    s1 += r u    S += r u u'

Per tile: the density of a component is a triangular product with lanes over samples; its moments take only the rows
that it is responsible for, about its mean, scaled by sqrt(r), and add their Gram matrix with lanes over features.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import micro, tile
from fastgmm.kernels.arguments import TILE, at, pointer
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.workspace import begin_block, finish_tile_roots, helper, load_tile, parameters, workspace

CACHE = 16 << 10  # bytes of a first-level cache for the gathered rows; the rest is the tile's and the moments'


@helper
def chunk_rows(row_bytes, size):  # type: ignore[no-untyped-def]  # Numba code
    """Rows between gathering and summing: what fits into the cache, or, where too few would, enough for long loops."""
    rows = CACHE // row_bytes // 8 * 8
    return min(rows, TILE) if rows * size >= 256 else 64 if size == 8 else 96


def full_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    means, factors, log_norm = parameters(table, tag)
    length, moment_length = table[a.FACTOR_LENGTH], table[a.MOMENT_LENGTH]
    wide_means = pointer(table[a.WIDE_MEANS], tag)
    stride = padded + VECTOR_BYTES // table[a.SIZE]
    chunk = chunk_rows(padded * table[a.SIZE], table[a.SIZE])
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        for c in range(k):
            micro.triangular_density(
                ws.panels,
                panels,
                at(means, c * 2 * d),
                at(factors, c * length),
                ws.work,
                d,
                at(log_norm, c),
                at(ws.resp, c * TILE),
            )
        finish_tile_roots(table, first, count, total, tag, ws, slot)
        if table[a.MODE] != a.FIT:
            continue
        for c in range(k):
            tile.select_live_roots(
                at(ws.resp, c * TILE), ws.scale, total, ws.live, ws.values, ws.found, at(slot, a.WEIGHT + c)
            )
            mean = at(wide_means, c * 2 * padded)
            sums, moments = at(slot, table[a.FIRST] + c * padded), at(slot, table[a.SECOND] + c * moment_length)
            live = ws.found[0]
            for i in range(0, live, chunk):
                some = min(chunk, live - i)
                micro.gather(ws.rows, at(ws.live, i), at(ws.values, i), some, padded, mean, ws.centred, stride, sums)
                micro.rank_update(ws.centred, some, d, stride, moments)
