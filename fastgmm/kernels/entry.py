"""How a tile of rows comes in: from the caller's array to rows and to panels, in one sweep.

The plain twin is in `tile_twins.py`.
"""

from __future__ import annotations

from llvmlite import ir

from fastgmm.kernels.edges import lanes_before, load_where
from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import DOUBLE, Emitter, Value, micro_apart


def transposed(e: Emitter, rows: list[Value]) -> list[Value]:
    """Vectors whose lanes are features in groups of as many as there are vectors, transposed within every group."""
    side = len(rows)
    groups = range(0, e.lanes, side)
    for half in (half for half in (1, 2, 4) if half < side):
        low = [g + (i if not i & half else e.lanes + i - half) for g in groups for i in range(side)]
        high = [g + (i + half if not i & half else e.lanes + i) for g in groups for i in range(side)]
        result = list(rows)
        for i in range(side):
            if not i & half:
                result[i] = e.shuffle(rows[i], rows[i + half], low)
                result[i + half] = e.shuffle(rows[i], rows[i + half], high)
        rows = result
    return rows


def emit(
    e: Emitter,
    source: Value,
    n: Value,
    padded: Value,
    count: Value,
    total: Value,
    centred: Value,
    centre: Value,
    rows: Value | None,
    panels: Value,
) -> None:
    """`enter_rows`, or without rows `enter_panels`."""
    b = e.builder
    width = V * e.lanes
    e = e.narrow
    side = min(e.lanes, 8)  # of a square that is transposed
    short = ir.VectorType(e.real, side)
    zeros = ir.Constant(short, [0.0] * side)
    subtract = b.icmp_signed("!=", centred, e.index(0))
    last = b.sub(count, e.index(1))

    def address(pointer: Value, place: Value) -> Value:
        return b.bitcast(e.at(pointer, place), short.as_pointer())

    with e.loop(0, total, e.lanes) as t:
        places = [e.add(t, i) for i in range(e.lanes)]
        takes = [e.at(source, e.times(b.select(b.icmp_signed("<", i, last), i, last), n)) for i in places]
        panel = b.udiv(t, e.index(width))
        target = e.at(panels, e.add(e.times(panel, e.times(n, width)), b.sub(t, e.times(panel, width))))
        with e.loop(0, padded, side) as j:  # the last of these may lie beyond the features altogether
            centres = [e.variable(zeros) for _ in range(1 if e.real == DOUBLE else 2)]
            with e.when(subtract):
                for part, c in enumerate(centres):
                    e.set(c, b.load(address(centre, e.add(j, e.times(padded, part))), align=e.size))
            mask = lanes_before(e, j, n, side)
            given = []
            for take in takes:
                x = load_where(e, mask, take, j)
                for c in centres:
                    x = b.fsub(x, e.get(c))
                given.append(x)
            if rows is not None:
                for x, place in zip(given, places, strict=True):
                    e.store(x, rows, e.add(e.times(place, padded), j))
            if e.lanes > side:
                given = [e.shuffle(given[i], given[side + i], range(e.lanes)) for i in range(side)]
            for i, column in enumerate(transposed(e, given)):
                with e.when(b.icmp_signed("<", e.add(j, i), n)):
                    e.store(column, target, e.times(e.add(j, i), width))


@micro_apart
def enter_rows(
    e: Emitter,
    source: Value,
    n: Value,
    padded: Value,
    count: Value,
    total: Value,
    centred: Value,
    centre: Value,
    rows: Value,
    panels: Value,
) -> None:
    """rows[i] = source[i] - centre, padded with zeros, and panels[p, j, i] = rows[p Q + i, j], for i < total.

    `total` is a multiple of Q; for i >= count the last row is taken. `centre` is padded like a row and its low part
    follows (float32); it is read only if `centred` is not 0. Nothing outside the `count` rows is read.
    """
    emit(e, source, n, padded, count, total, centred, centre, rows, panels)


@micro_apart
def enter_panels(
    e: Emitter,
    source: Value,
    n: Value,
    padded: Value,
    count: Value,
    total: Value,
    centred: Value,
    centre: Value,
    panels: Value,
) -> None:
    """The panels of `enter_rows` alone, for passes without moments: half of what would leave the first cache."""
    emit(e, source, n, padded, count, total, centred, centre, None, panels)
