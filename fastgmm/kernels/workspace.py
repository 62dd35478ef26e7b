"""What every pass does around its own mathematics: scratch of a worker, a tile's rows in, what was asked for out."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba.extending

from fastgmm.kernels import arguments as a
from fastgmm.kernels import entry, near, normalise, softmax, tile
from fastgmm.kernels._cache import stamp
from fastgmm.kernels._jit import inlined
from fastgmm.kernels._parts import options
from fastgmm.kernels.arguments import TILE, aligned, at, float64_pointer, int32_pointer, int64_pointer, pointer
from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import VECTOR_BYTES

PRODUCT_ROWS = {8: 48, 4: 96}  # rows whose shared products are formed at a time, at most; whole panels
NEGLIGIBLE_DIGITS, NEGLIGIBLE_DIGITS_SINGLE = 54, 25  # binary ones of a share of a density that rounding swallows
WORK_ROWS = TILE  # rows of Q elements: V panels of columns


def helper(function: Any) -> Any:
    """Make a function callable from Numba code.

    Its name gets a digest of its code and closure: Numba names a symbol after the function and a counter, and two
    closures of one factory, cached by different processes, would otherwise meet in a third under one name.
    """
    return numba.extending.register_jitable(**options())(stamp(function))


aligned_ = helper(aligned)


class Workspace(NamedTuple):
    """A worker's scratch: pointers, each to whole cache lines."""

    rows: Any  # (TILE, padded) element type: the tile as it lies in memory
    centred: Any  # (TILE, padded + lanes): live rows about a mean, times the roots of their responsibilities; the odd
    # number of vectors a row keeps rows of a power of two apart from sharing the same lines of the cache. Also
    # PRODUCT_ROWS rows as `products.extend_rows` writes them, or panels of columns, (padded / lanes, TILE + 1, lanes)
    panels: Any  # (TILE / Q, D, Q): the tile with lanes over samples
    white: Any  # the same shape, for a shared factor; only where the table says WHITE, like `squares`
    work: Any  # (max(D, WORK_ROWS), Q): a centred panel, products of rows, or V panels of columns
    resp: Any  # (K, TILE): log-densities, then responsibilities
    squares: Any  # (K, TILE): squared distances
    scale: Any  # (TILE,)
    values: Any  # (TILE + lanes,)
    weight: Any  # (TILE,) float64
    logs: Any  # (TILE,) float64
    labels: Any  # (TILE,) int64
    live: Any  # (TILE + lanes,) int32
    found: Any  # (1,) int64
    groups: Any  # (K,) int64
    extra: Any  # as many bytes as the table says: what matrix units read and write, or `near_small.py` sums in, or a
    # tile's rows as `products.extend_rows` writes them


@functools.lru_cache(maxsize=64)
def workspace_bytes(n_components: int, n_features: int, padded: int, size: int, white: int, extra: int = 0) -> int:
    """Scratch of one worker in bytes: for float64 about 8 TILE (3 D + K + 32), with `white` up to twice that.

    `extra` comes on top: `extra_bytes` of `matrix_full.py` and `near_small.py`, or a tile's rows as
    `products.extend_rows` writes them, at most 8 TILE (3 D / 2 + 20).
    """
    lanes = VECTOR_BYTES // size
    return (
        aligned(TILE * padded * size)
        + aligned((TILE * (max(padded, lanes) + 2 * lanes) + padded) * size)
        + (1 + white) * aligned(TILE * n_features * size)
        + aligned(V * lanes * max(n_features, WORK_ROWS) * size)
        + (1 + white) * aligned(n_components * TILE * size)
        + aligned(TILE * size)
        + aligned((TILE + lanes) * size)
        + 3 * aligned(TILE * 8)
        + aligned((TILE + lanes) * 4)
        + aligned(8)
        + aligned(n_components * 8)
        + aligned(extra)
    )


@helper
def workspace(table, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
    """The scratch of a worker, cut in the order of `workspace_bytes`."""
    d, padded, k, size = table[a.N_FEATURES], table[a.PADDED], table[a.N_COMPONENTS], table[a.SIZE]
    lanes = VECTOR_BYTES // size
    base = table[a.SCRATCH] + worker * table[a.SCRATCH_BYTES]
    rows = pointer(base, tag)
    base += aligned_(TILE * padded * size)
    centred = pointer(base, tag)
    base += aligned_((TILE * (max(padded, lanes) + 2 * lanes) + padded) * size)
    panels = pointer(base, tag)
    base += aligned_(TILE * d * size)
    white = pointer(base, tag)
    base += aligned_(TILE * d * size) * table[a.WHITE]
    work = pointer(base, tag)
    base += aligned_(V * lanes * max(d, WORK_ROWS) * size)
    resp = pointer(base, tag)
    base += aligned_(k * TILE * size)
    squares = pointer(base, tag)
    base += aligned_(k * TILE * size) * table[a.WHITE]
    scale = pointer(base, tag)
    base += aligned_(TILE * size)
    values = pointer(base, tag)
    base += aligned_((TILE + lanes) * size)
    weight = float64_pointer(base)
    base += aligned_(TILE * 8)
    logs = float64_pointer(base)
    base += aligned_(TILE * 8)
    labels = int64_pointer(base)
    base += aligned_(TILE * 8)
    live = int32_pointer(base)
    base += aligned_((TILE + lanes) * 4)
    found = int64_pointer(base)
    base += aligned_(8)
    groups = int64_pointer(base)
    base += aligned_(k * 8)
    extra = pointer(base, tag)
    rest = (values, weight, logs, labels, live, found, groups, extra)
    return Workspace(rows, centred, panels, white, work, resp, squares, scale, *rest)


@helper
def begin_block(table, item):  # type: ignore[no-untyped-def]  # Numba code
    """First row, end and slot of a part of a block; the first part clears the slot, the others add to it."""
    first = (table[a.FIRST_BLOCK] + item) * table[a.BLOCK_ROWS]
    end = min(first + table[a.BLOCK_ROWS], table[a.N_ROWS])
    length = table[a.SLOT_LENGTH]
    slot = float64_pointer(table[a.SLOTS] + item * length * 8)
    if table[a.PART_FIRST] == 0:
        for i in range(length):
            slot[i] = 0.0
    first += table[a.PART_FIRST]
    return first, min(end, first + table[a.PART_ROWS]), slot


@helper
def load_weights(table, first, count, total, weight):  # type: ignore[no-untyped-def]  # Numba code
    """Weights of a tile's rows; the rows that only fill up the last panel weigh nothing."""
    address = table[a.WEIGHTS]
    if address == 0 or (table[a.MODE] > a.EVALUATE and table[a.MODE] != a.ASSIGN):
        for i in range(count):
            weight[i] = 1.0
    else:
        given = float64_pointer(address)
        for i in range(count):
            weight[i] = given[first + i]
    for i in range(count, total):
        weight[i] = 0.0


@helper
def load_tile(table, first, end, tag, ws):  # type: ignore[no-untyped-def]  # Numba code
    """Bring the tile at row `first` in, padded and transposed; return its rows, its panels, and the rows of those.

    The rows are taken about the common centre where the table has one.
    """
    d, padded = table[a.N_FEATURES], table[a.PADDED]
    panel = V * (VECTOR_BYTES // table[a.SIZE])
    count = min(TILE, end - first)
    panels = (count + panel - 1) // panel
    total = panels * panel
    given, centre = at(pointer(table[a.ROWS], tag), first * d), pointer(table[a.COMMON], tag)
    entry.enter_rows(given, d, padded, count, total, table[a.COMMON], centre, ws.rows, ws.panels)
    load_weights(table, first, count, total, ws.weight)
    return count, panels, total


@helper
def prefetch_tile(table, first, end, tag, part, last, parts):  # type: ignore[no-untyped-def]  # Numba code
    """Ask for shares part .. last - 1, of `parts`, of the rows of the tile after the one at `first`, ahead of need."""
    d = table[a.N_FEATURES]
    begin = (first + TILE) * d
    length = min(end * d - begin, TILE * d)
    tile.prefetch(pointer(table[a.ROWS], tag), begin + length * part // parts, begin + length * last // parts)


@helper
def parameters(table, tag):  # type: ignore[no-untyped-def]  # Numba code
    """Means, factors and normalisers as `programs.py` packs them."""
    return pointer(table[a.MEANS], tag), pointer(table[a.FACTORS], tag), pointer(table[a.LOG_NORM], tag)


@helper
def finish_labels(table, first, count, total, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """From log-densities to labels: what PREDICT and ASSIGN ask for."""
    k = table[a.N_COMPONENTS]
    tile.largest(ws.resp, total, k, TILE, ws.labels)
    if table[a.MODE] == a.ASSIGN:
        tile.one_hot(ws.resp, ws.labels, ws.weight, ws.scale, total, k, TILE, slot)
        return
    write_labels(table, first, count, ws, slot)


@helper
def write_labels(table, first, count, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """What PREDICT asks for, from labels."""
    out = int64_pointer(table[a.OUT])
    lost = 0
    for i in range(count):
        out[first + i] = ws.labels[i]
        lost -= ws.labels[i] >> 63  # without a branch, so that the compiler takes whole vectors
    slot[a.LOST] += lost


def make_finish(exponentials: Any, write_probabilities: Any) -> Any:
    """`finish_tile` with responsibilities, or with their square roots."""

    @helper
    def finish_tile(table, first, count, total, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
        """From log-densities to what the mode (not ASSIGN) asks for; after FIT, resp * scale are responsibilities."""
        mode, k, known = table[a.MODE], table[a.N_COMPONENTS], table[a.TOPS]
        if mode == a.PREDICT:
            tile.largest(ws.resp, total, k, TILE, ws.labels)
            write_labels(table, first, count, ws, slot)
            return
        if mode == a.SCORE:
            digits = NEGLIGIBLE_DIGITS if table[a.SIZE] == 8 else NEGLIGIBLE_DIGITS_SINGLE
            if known == 0:
                softmax.row_tops(ws.resp, total, k, TILE, ws.values)
            softmax.sum_exponentials(ws.resp, ws.values, total, k, TILE, digits, ws.scale)
            top = float64_pointer(table[a.TOP])[0] if table[a.TOP] != 0 else 0.0
            softmax.row_logs(ws.values, ws.scale, ws.weight, total, top, ws.logs, slot)
            density = float64_pointer(table[a.OUT])
            for i in range(count):
                density[first + i] = ws.logs[i]
            return
        cut = pointer(table[a.CUT], tag)
        tops, weight, scale, logs = ws.values, ws.weight, ws.scale, ws.logs
        exponentials(ws.resp, tops, known, cut, weight, scale, total, k, TILE, logs, slot, ws.found, ws.groups)
        if mode == a.PROBABILITY:
            probability = float64_pointer(table[a.OUT])
            write_probabilities(ws.resp, ws.scale, count, k, TILE, at(probability, first * k))

    return finish_tile


finish_tile = make_finish(softmax.softmax, tile.write_probabilities)
finish_tile_roots = make_finish(softmax.softmax_roots, tile.write_probabilities_roots)


@inlined
def common_moments(table, total, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """Weights and first moments of rows about the common centre, for all components; resp become responsibilities."""
    padded, k = table[a.PADDED], table[a.N_COMPONENTS]
    normalise.normalise(ws.resp, ws.scale, total, k, TILE, at(slot, a.WEIGHT))
    near.weighted_sums(ws.resp, ws.rows, total, k, TILE, padded, at(slot, table[a.FIRST]))
