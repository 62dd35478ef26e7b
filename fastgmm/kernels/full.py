"""The pass for a triangular factor a component (full covariances), five features and more.

For reference, per row x and component k, with W = inverse Cholesky factor, u = x - mu_k:

    log p = log_norm_k - |W_k u|^2 / 2        r = softmax(log p)        s0 += r    s1 += r u    S += r u u'

Per tile: the density of a component is a triangular product with lanes over samples; its moments take only the rows
that it is responsible for, about its mean, scaled by sqrt(r), and add their Gram matrix with lanes over features.

Where the components lie near a common centre c (`programs.py` decides), u = x - c for all of them, and
log p = log_norm_k - |W_k u - W_k (mu_k - c)|^2 / 2, and moments are taken about c as well. A tile in which most rows
belong to most components takes them from what all components share: products of features (`products.py`), or, where
these are many, the rows as panels of columns (`gram.py`); other tiles have panels of each component's own rows made.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import gram, micro, near, normalise, products, tile
from fastgmm.kernels._jit import inlined
from fastgmm.kernels.arguments import TILE, at, int64_pointer, pointer
from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.workspace import (
    PRODUCT_ROWS,
    begin_block,
    finish_tile,
    finish_tile_roots,
    helper,
    load_tile,
    parameters,
    prefetch_tile,
    workspace,
)

extended_length = helper(products.extended_length)

DOUBLE_ROWS, SINGLE_ROWS, SINGLE_LANES = PRODUCT_ROWS[8], PRODUCT_ROWS[4], VECTOR_BYTES // 4
MANY = 32  # components whose sums cost more than the products that they share
CACHE = 16 << 10  # bytes of a first-level cache for the gathered rows; the rest is the tile's and the moments'


@helper
def dense_tile(ws, total, k):  # type: ignore[no-untyped-def]  # Numba code
    """Whether most pairs of row and component count.

    The same on every machine: it depends on the tile's rows and the parameters alone.
    """
    return 5 * ws.found[0] >= 3 * total * k


@helper
def chunk_rows(row_bytes, size):  # type: ignore[no-untyped-def]  # Numba code
    """Rows between gathering and summing: what fits into the cache, or, where too few would, enough for long loops."""
    rows = CACHE // row_bytes // 8 * 8
    return min(rows, TILE) if rows * size >= 256 else 64 if size == 8 else 96


@inlined
def gathered_moments(table, panels, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """Weights and moments of every component from the rows that it is responsible for."""
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    wide_means, moment_length = pointer(table[a.WIDE_MEANS], tag), table[a.MOMENT_LENGTH]
    stride = padded + VECTOR_BYTES // table[a.SIZE]
    chunk = chunk_rows(padded * table[a.SIZE], table[a.SIZE])
    for c in range(k):
        tile.select_live_roots(
            at(ws.resp, c * TILE),
            ws.scale,
            panels,
            at(ws.groups, c),
            ws.live,
            ws.values,
            ws.found,
            at(slot, a.WEIGHT + c),
        )
        mean = at(wide_means, c * 2 * padded)
        sums, moments = at(slot, table[a.FIRST] + c * padded), at(slot, table[a.SECOND] + c * moment_length)
        live = ws.found[0]
        for i in range(0, live, chunk):
            some = min(chunk, live - i)
            micro.gather(ws.rows, at(ws.live, i), at(ws.values, i), some, padded, mean, ws.centred, stride, sums)
            micro.rank_update(ws.centred, some, d, stride, moments)


@inlined
def moments_by_products(table, total, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """Weights and moments of all components from products of features about the common centre."""
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    length = extended_length(d, VECTOR_BYTES // table[a.SIZE])
    sums = at(slot, table[a.SECOND] + table[a.PRODUCTS])
    products.component_weights(ws.resp, ws.scale, total, k, TILE, at(slot, a.WEIGHT))
    # in float32 more rows pay where forming their products costs little, or where many components share them
    most = table[a.SIZE] == 4 and (k >= MANY or d % SINGLE_LANES == 0)
    rows, extended = SINGLE_ROWS if most else DOUBLE_ROWS, ws.centred
    if table[a.EXTRA] != 0:  # room for those of a tile
        rows, extended = TILE, ws.extra
    for i in range(0, total, rows):
        some = min(rows, total - i)
        products.extend_rows(at(ws.rows, i * padded), at(ws.scale, i), some, d, padded, extended, length)
        products.product_moments(
            at(ws.resp, i),
            extended,
            int64_pointer(table[a.VECTORS]),
            table[a.N_VECTORS],
            some,
            k,
            TILE,
            length,
            ws.work,
            sums,
            table[a.MOMENT_LENGTH],
        )


@inlined
def moments_by_gram(table, panels, total, tag, ws, slot, dense):  # type: ignore[no-untyped-def]  # Numba code
    """The same component by component: from all rows of the tile, which components share, or from a component's own."""
    d, padded, k = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS]
    step = (TILE + 1) * (VECTOR_BYTES // table[a.SIZE])
    chunk = TILE if dense else chunk_rows(padded * table[a.SIZE], table[a.SIZE])
    if dense:
        normalise.normalise(ws.resp, ws.scale, total, k, TILE, at(slot, a.WEIGHT))
        gram.column_panels(ws.rows, total, padded, step, ws.centred)
    for c in range(k):
        sums = at(slot, table[a.FIRST] + c * padded)
        moments = at(slot, table[a.SECOND] + c * table[a.MOMENT_LENGTH])
        resp, count = at(ws.resp, c * TILE), total
        if not dense:
            weight, groups = at(slot, a.WEIGHT + c), at(ws.groups, c)
            tile.select_live(resp, ws.scale, panels, groups, ws.live, ws.values, ws.found, weight)
            resp, count = ws.values, ws.found[0]
            while count % gram.UNROLL:
                ws.live[count], ws.values[count] = 0, 0.0
                count += 1
        for i in range(0, count, chunk):
            some = min(chunk, count - i)
            if not dense:
                gram.picked_panels(ws.rows, at(ws.live, i), some, padded, step, ws.centred)
            gram.gram(at(resp, i), ws.centred, some, d, step, ws.work, sums, moments)


def full_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """One block of rows; see `arguments.py`."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    means, factors, log_norm = parameters(table, tag)
    length = table[a.FACTOR_LENGTH]
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        for c in range(k):
            prefetch_tile(table, first, end, tag, c, c + 1, k)
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
        if table[a.MODE] == a.FIT:
            gathered_moments(table, panels, tag, ws, slot)


def near_full_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code
    """One block of rows, for components near one another."""
    ws = workspace(table, worker, tag)
    begin, end, slot = begin_block(table, item)
    d, k = table[a.N_FEATURES], table[a.N_COMPONENTS]
    shifts, factors, log_norm = parameters(table, tag)
    length, given = table[a.FACTOR_LENGTH], pointer(table[a.ROWS], tag)
    share = (V * (VECTOR_BYTES // table[a.SIZE]) * d + k - 1) // k  # of a panel's numbers, to be asked for with each
    # component: a CPU waits for 16 lines at once
    for first in range(begin, end, TILE):
        count, panels, total = load_tile(table, first, end, tag, ws)
        ahead = at(given, (first + TILE if first + TILE < end else first) * d)
        for c in range(k):
            near.shifted_density(
                ws.panels,
                panels,
                at(shifts, c * d),
                at(factors, c * length),
                d,
                at(log_norm, c),
                at(ws.resp, c * TILE),
                ws.values,
                c,
                at(ahead, c * share),
                share,
            )
        finish_tile(table, first, count, total, tag, ws, slot)
        if table[a.MODE] != a.FIT:
            continue
        dense = dense_tile(ws, total, k)
        if dense and table[a.SHARED] == a.BY_PRODUCTS:
            moments_by_products(table, total, tag, ws, slot)
        else:
            moments_by_gram(table, panels, total, tag, ws, slot, dense and table[a.SHARED] == a.BY_GRAM)
