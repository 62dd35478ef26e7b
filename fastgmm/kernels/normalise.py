"""From exponentials to responsibilities, and what they weigh; the plain twins: `tile_twins.py`.

Eight components at a time: a row's scale is read once for all of them, and the lanes of eight sums are added in a tree
that halves their number with every step, where eight times log2(lanes) additions would go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastgmm.kernels.registers import joined
from fastgmm.kernels.simd import Emitter, Value, micro_apart
from fastgmm.kernels.tile import add_total

GROUP = 8


def add_totals(e: Emitter, values: list[Value], target: Value, first: Value) -> None:
    """target[first + i] += the sum of the lanes of values[i], for `GROUP` of them; target is float64."""
    wide = e.doubles
    sums = []
    for value in values:
        pieces = e.widen(value)
        sums.append(pieces[0] if len(pieces) == 1 else wide.plus(*pieces))
    lanes = range(GROUP)
    for half in (1, 2, 4):  # after each, lanes whose numbers differ in a bit from `half` up hold sums of other values
        low = [i if not i & half else GROUP + i - half for i in lanes]
        high = [i + half if not i & half else GROUP + i for i in lanes]
        pairs = zip(sums[::2], sums[1::2], strict=True)
        sums = [wide.plus(wide.shuffle(x, y, low), wide.shuffle(x, y, high)) for x, y in pairs]
    wide.store(wide.plus(wide.load(target, first), sums[0]), target, first)


def emit(
    e: Emitter,
    resp: Value,
    scale: Value,
    norms: Value | None,
    count: Value,
    k: Value,
    stride: Value,
    weights: Value,
    sums: Value | None,
) -> None:
    """resp *= scale; weights[component] += sum over rows and, where there are norms, sums += that of resp * norms."""
    narrow = e.narrow
    halves = range(0, e.lanes, narrow.lanes)  # of a vector, in registers
    kinds = 1 if norms is None else 2

    def some(rows: list[Value], places: Sequence[int]) -> list[list[list[Value]]]:
        """For each kind of sum, row and register of a vector what it comes to."""
        sums = [[[e.variable(narrow.zero()) for _ in places] for _ in rows] for _ in range(kinds)]
        with e.loop(0, count, e.lanes) as begin:
            for i, t in enumerate(e.add(begin, place) for place in places):
                factor = narrow.load(scale, t)
                norm = None if norms is None else narrow.load(norms, t)
                shares = [e.mul(narrow.load(row, t), factor) for row in rows]
                for number, (row, r) in enumerate(zip(rows, shares, strict=True)):
                    e.store(r, row, t)
                    own = [of_kind[number][i] for of_kind in sums]
                    e.set(own[0], e.plus(e.get(own[0]), r))
                    if norm is not None:
                        e.set(own[1], narrow.fma(norm, r, e.get(own[1])))
        return [[[e.get(total) for total in own] for own in of_kind] for of_kind in sums]

    def block(first: Value, size: int) -> None:
        rows = [e.at(resp, e.times(e.add(first, i), stride)) for i in range(size)]
        # eight sums of a vector are too many for the registers where these are smaller
        parts = [some(rows, [place]) for place in halves] if size == GROUP else [some(rows, halves)]
        for kind, target in zip(range(kinds), (weights, sums), strict=False):
            values = [joined(e, [x for part in parts for x in part[kind][i]]) for i in range(size)]
            if size == GROUP:
                add_totals(e, values, target, first)
            else:
                add_total(e, values[0], target, first)

    whole = e.builder.and_(k, e.index(-GROUP))
    with e.loop(0, whole, GROUP) as first:
        block(first, GROUP)
    with e.loop(whole, k) as first:
        block(first, 1)


@micro_apart
def normalise(e: Emitter, resp: Value, scale: Value, count: Value, k: Value, stride: Value, weights: Value) -> None:
    """resp *= scale; weights[component] += sum over rows, float64."""
    emit(e, resp, scale, None, count, k, stride, weights, None)


@micro_apart
def normalise_and_weigh(
    e: Emitter,
    resp: Value,
    scale: Value,
    norms: Value,
    count: Value,
    k: Value,
    stride: Value,
    weights: Value,
    sums: Value,
) -> None:
    """resp *= scale; weights[component] += sum over rows, sums[component] += that of resp * norms; both float64.

    Rows whose norm is infinite or no number have no responsibilities; their norms become 0.
    """
    with e.loop(0, count, e.lanes) as t:
        x = e.load(norms, t)
        e.store(e.select(e.compare(">", x, e.constant(float("-inf"))), x, e.zero()), norms, t)
    emit(e, resp, scale, norms, count, k, stride, weights, sums)
