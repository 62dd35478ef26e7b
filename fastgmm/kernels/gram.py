"""Micro-kernels for the second moments of one component about a centre that it shares with others.

The moments of component k are the Gram matrix sum of r u u', with rows u about the common centre. Rows are brought into
panels of L columns; a component weighs a few of them at a time, in the first-level cache, and multiplies these with the
panels themselves. So where a component is responsible for most rows of a tile, it takes the panels of all rows, which
are made once for all components; else it has panels of its own rows made.

Three panels that have been weighed are multiplied with all panels below them, from which one line of the cache a row is
read, beside three of the weighed rows: so what comes from the second-level cache is little, and what is used again and
again is near. The weighing itself happens on the way, in the product with the last rows of the diagonal block: alone it
would wait for memory. The sums of the block that comes next are asked for, since those of all components are many.

Panels are (padded / L, T, L), `step` elements apart: a little more than T L, so that panels do not share the same lines
of the cache. Moments are packed as `micro.rank_update` packs them.
"""

from __future__ import annotations

from collections.abc import Iterable

from llvmlite import ir

from fastgmm.kernels.micro import BLOCKS, add_to, for_vector_groups, sum_part
from fastgmm.kernels.registers import COLUMNS, Part
from fastgmm.kernels.simd import I1, I64, Emitter, Value, micro_apart

UNROLL = 4  # rows a step; the number of rows is a multiple of it
STEPS = 2  # of the products' loops in a row: what counts and compares stays beside the multiply-adds


@micro_apart
def column_panels(e: Emitter, rows: Value, count: Value, padded: Value, step: Value, out: Value) -> None:
    """out[j / L, t, j % L] = rows[t, j]."""
    with e.loop(0, padded, e.lanes) as j:
        target = e.at(out, e.times(e.builder.udiv(j, e.index(e.lanes)), step))
        with e.loop(0, count) as t:
            e.store(e.load(rows, e.add(e.times(t, padded), j)), target, e.times(t, e.lanes))


@micro_apart
def picked_panels(e: Emitter, rows: Value, live: Value, count: Value, padded: Value, step: Value, out: Value) -> None:
    """out[j / L, i, j % L] = rows[live[i], j]; `live` (int32) holds `count` numbers of rows."""
    with e.loop(0, padded, e.lanes) as j:
        target = e.at(out, e.times(e.builder.udiv(j, e.index(e.lanes)), step))
        with e.loop(0, count) as i:
            t = e.builder.sext(e.scalar(live, i), I64)
            e.store(e.load(rows, e.add(e.times(t, padded), j)), target, e.times(i, e.lanes))


@micro_apart
def gram(
    e: Emitter,
    resp: Value,
    panels: Value,
    count: Value,
    n: Value,
    step: Value,
    work: Value,
    sums: Value,
    moments: Value,
) -> None:
    """Sums += sum over rows of resp u; moments += sum of resp u u', lower triangle; both are float64.

    What blocks of moments have room for above the diagonal is left out or not, depending on the CPU's registers.
    `count` is a multiple of `UNROLL`; `work` has room for V panels: it keeps weighted rows of `COLUMNS` registers.
    """
    narrow = e.narrow
    lanes, height = narrow.lanes, e.registers.rows  # of a register; rows of sums that registers hold
    vectors = e.builder.udiv(e.add(n, e.lanes - 1), e.index(e.lanes))
    eights = e.builder.and_(n, e.index(-8))

    def panel(first: Value) -> Value:
        """Where column `first` of the first row lies."""
        start = e.times(e.builder.udiv(first, e.index(e.lanes)), step)
        return e.at(panels, e.add(start, e.builder.and_(first, e.index(e.lanes - 1))))

    def place_of(first: Value) -> tuple[Value, Value]:
        """Where row `first` begins in `moments`, and how far the rows of its block of 8 lie apart."""
        b = e.builder.ashr(first, e.index(3))  # blocks before it, of 1, 2, 3, ... vectors or of 1, 1, 2, 2, 3, ...
        apart = e.times(e.add(b, 1), 8)
        if e.lanes == 8:
            begin = e.times(e.times(b, e.add(b, 1)), 32)
        else:
            half = e.builder.ashr(e.add(b, 1), e.index(1))
            begin = e.times(e.times(half, e.builder.sub(e.add(b, 1), half)), 128)
            apart = e.builder.and_(e.add(apart, 15), e.index(-16))
        if height < 8:
            begin = e.add(begin, e.times(e.builder.and_(first, e.index(7)), apart))
        return e.at(moments, begin), apart

    def weigh(c: Value, row: Value, part: Part, totals: list[Value]) -> list[Value]:
        """A row of the registers from column c on times its responsibility."""
        weight, found = narrow.broadcast(resp, row), []
        for total, column in zip(totals, part.columns, strict=True):
            x = e.mul(weight, narrow.load(panel(e.add(c, column)), e.times(row, e.lanes)))
            e.store(x, work, e.add(e.times(row, COLUMNS * lanes), column))
            e.set(total, e.plus(x, e.get(total)))
            found.append(x)
        return found

    def begin_totals(part: Part) -> list[Value]:
        return [e.variable(narrow.zero()) for _ in part.columns]

    def keep(c: Value, part: Part, totals: list[Value]) -> None:
        for total, column in zip(totals, part.columns, strict=True):
            add_to(narrow, e.get(total), sums, e.add(c, column))

    def multiply(
        q: int,
        first: Value,
        place: tuple[Value, Value],
        c: Value,
        many: int,
        *,
        begin: bool = False,
        more: bool = False,
    ) -> None:
        """Registers from column c on, of q rows of moments; at the beginning these columns are weighed meanwhile."""
        left, part = panel(first), Part(q, range(0, many * lanes, lanes))
        if more:
            following, apart = place_of(e.add(first, q))
            for r in range(q):
                for column in part.columns:
                    e.prefetch(following, e.add(e.add(e.times(apart, r), c), column))
        totals = begin_totals(part) if begin else []

        def operands(row: Value, part: Part) -> tuple[list[Value], Iterable[Value]]:
            weighted = e.at(work, e.times(row, COLUMNS * lanes))
            x = weigh(c, row, part, totals) if begin else [narrow.load(weighted, i) for i in part.columns]
            return x, (narrow.broadcast(left, e.add(e.times(row, e.lanes), r)) for r in range(q))

        sum_part(e, part, e.at(place[0], c), place[1], count, operands, STEPS)
        if begin:
            keep(c, part, totals)

    def group(c: Value, many: int) -> None:
        """All that `many` registers from column c on are multiplied with: what lies below them."""
        *blocks, last = [(e.add(c, b), b // lanes + 1) for b in range(0, many * lanes, height)]
        whole = e.builder.icmp_signed("<", last[0], eights)
        if narrow is e:
            with e.when(whole):
                multiply(height, last[0], place_of(last[0]), c, many, begin=True)
        else:  # to weigh as well takes more registers than there are
            blocks, whole = [*blocks, last], ir.Constant(I1, 0)
        with e.when(e.builder.not_(whole)):
            part = Part(1, range(0, many * lanes, lanes))
            totals = begin_totals(part)
            with e.loop(0, count) as t:
                weigh(c, t, part, totals)
            keep(c, part, totals)
        for first, some in blocks:
            with e.when(e.builder.icmp_signed("<", first, eights)):
                multiply(height, first, place_of(first), c, some)
        with e.loop(e.add(c, many * lanes), eights, height) as first:
            multiply(height, first, place_of(first), c, many, more=True)
        first, (target, _), columns = eights, place_of(eights), e.times(vectors, e.lanes)
        for q in BLOCKS[1:]:
            bit = e.builder.and_(n, e.index(q))
            with e.when(e.builder.icmp_unsigned("!=", bit, e.index(0))):
                multiply(q, first, (target, columns), c, many)
            first, target = e.add(first, bit), e.at(target, e.times(bit, columns))

    registers = e.times(vectors, e.lanes // lanes)
    for_vector_groups(e, registers, lambda c, many: group(e.times(c, lanes), many))
