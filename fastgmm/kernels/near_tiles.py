"""What passes of near components do around their mathematics, a panel at a time.

A panel comes in to where every panel goes, its log-densities become exponentials at once, and meanwhile the rows of the
next are asked for: little leaves the first-level cache before it is done with.
"""

from __future__ import annotations

from fastgmm.kernels import arguments as a
from fastgmm.kernels import entry, softmax, tile
from fastgmm.kernels.arguments import TILE, at, float64_pointer, pointer
from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.workspace import (
    NEGLIGIBLE_DIGITS,
    NEGLIGIBLE_DIGITS_SINGLE,
    helper,
    load_weights,
    write_labels,
)

NEAR_BYTES = (20 << 10, 50 << 10, 50 << 10)  # for the rows and responsibilities of a whole, half or quarter tile


@helper
def near_rows(table):  # type: ignore[no-untyped-def]  # Numba code
    """Rows of a tile of near components: so few that they stay in a first-level cache; TILE where a quarter would not.

    A part is taken a little beyond what such a cache has room for: even then more of it is found there, and the longer
    the sums of a tile are, the rarer they are added to those of the block.
    """
    row = (table[a.PADDED] + table[a.N_COMPONENTS]) * table[a.SIZE]
    for halvings in range(3):
        if (TILE >> halvings) * row <= NEAR_BYTES[halvings]:
            return TILE >> halvings
    return TILE


@helper
def begin_tile(table, first, end, ws):  # type: ignore[no-untyped-def]  # Numba code
    """Rows of the tile at row `first` and of its panels, and rows of a panel; the weights come in."""
    panel = V * (VECTOR_BYTES // table[a.SIZE])
    count = min(TILE, end - first)
    total = (count + panel - 1) // panel * panel
    load_weights(table, first, count, total, ws.weight)
    return count, total, panel


@helper
def load_panel(table, first, start, count, panel, tag, ws):  # type: ignore[no-untyped-def]  # Numba code
    """Bring in the panel that begins at row `start` of a tile, to where every panel goes: it stays in the cache.

    The rows as they lie in memory come in for FIT alone.
    """
    d, padded, common = table[a.N_FEATURES], table[a.PADDED], table[a.COMMON]
    given, centre = at(pointer(table[a.ROWS], tag), (first + start) * d), pointer(common, tag)
    few = min(panel, count - start)
    if table[a.MODE] == a.FIT:
        entry.enter_rows(given, d, padded, few, panel, common, centre, at(ws.rows, start * padded), ws.panels)
    else:
        entry.enter_panels(given, d, padded, few, panel, common, centre, ws.panels)


@helper
def rows_ahead(table, row, end, panel, tag):  # type: ignore[no-untyped-def]  # Numba code
    """The rows to ask for while the panel at `row` is worked on: those after it, or its own at the end."""
    return at(pointer(table[a.ROWS], tag), (row + panel if row + panel < end else row) * table[a.N_FEATURES])


@helper
def exponentials(table, start, panel, tag, ws):  # type: ignore[no-untyped-def]  # Numba code
    """Exponentials of a panel, where the mode asks for them: `work` has the largest log-densities, `scale` the sums."""
    mode, k = table[a.MODE], table[a.N_COMPONENTS]
    resp, tops, totals = at(ws.resp, start), at(ws.work, start), at(ws.scale, start)
    if mode == a.SCORE:
        digits = NEGLIGIBLE_DIGITS if table[a.SIZE] == 8 else NEGLIGIBLE_DIGITS_SINGLE
        softmax.sum_exponentials(resp, tops, panel, k, TILE, digits, totals)
    elif mode != a.PREDICT:
        softmax.exponentials(resp, tops, pointer(table[a.CUT], tag), panel, k, TILE, totals)


@helper
def finish_near(table, first, count, total, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """`finish_tile` for tiles whose panels `exponentials` has seen."""
    mode, k = table[a.MODE], table[a.N_COMPONENTS]
    if mode == a.PREDICT:
        tile.largest(ws.resp, total, k, TILE, ws.labels)
        write_labels(table, first, count, ws, slot)
    elif mode == a.SCORE:
        top = float64_pointer(table[a.TOP])[0] if table[a.TOP] != 0 else 0.0
        softmax.row_logs(ws.work, ws.scale, ws.weight, total, top, ws.logs, slot)
        density = float64_pointer(table[a.OUT])
        for i in range(count):
            density[first + i] = ws.logs[i]
    else:
        softmax.row_scales(ws.work, ws.weight, ws.scale, total, ws.logs, slot)
        if mode == a.PROBABILITY:
            tile.write_probabilities(ws.resp, ws.scale, count, k, TILE, at(float64_pointer(table[a.OUT]), first * k))
