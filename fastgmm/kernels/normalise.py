"""From exponentials to responsibilities, and what they weigh; the plain twins: `tile_twins.py`.

Eight components at a time: a row's scale is read once for all of them, and the lanes of eight sums are added in a tree
that halves their number with every step, where eight times log2(lanes) additions would go one by one.
"""

from __future__ import annotations

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

    def block(first: Value, size: int) -> None:
        rows = [e.at(resp, e.times(e.add(first, i), stride)) for i in range(size)]
        total = [e.variable(e.zero()) for _ in rows]
        weighed = [e.variable(e.zero()) for _ in rows] if norms is not None else []
        with e.loop(0, count, e.lanes) as t:
            factor = e.load(scale, t)
            norm = None if norms is None else e.load(norms, t)
            r = [e.mul(e.load(row, t), factor) for row in rows]
            for i, row in enumerate(rows):
                e.store(r[i], row, t)
                e.set(total[i], e.plus(e.get(total[i]), r[i]))
                if norm is not None:
                    e.set(weighed[i], e.fma(norm, r[i], e.get(weighed[i])))
        for found, target in ((total, weights), (weighed, sums)):
            values = [e.get(value) for value in found]
            if len(values) == GROUP:
                add_totals(e, values, target, first)
            elif values:
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
