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

from fastgmm.kernels.micro import BLOCKS, V, add_to, for_vector_groups, sums_of_products
from fastgmm.kernels.registers import Part, parts
from fastgmm.kernels.simd import I64, Emitter, Value, micro_apart

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

    `count` is a multiple of `UNROLL`; `work` has room for V panels, of which it keeps the weighted rows, (T, V L).
    """
    narrow = e.narrow
    vectors = e.builder.udiv(e.add(n, e.lanes - 1), e.index(e.lanes))
    eights = e.builder.and_(n, e.index(-8))

    def panel(first: Value) -> Value:
        """Where column `first` of the first row lies."""
        start = e.times(e.builder.udiv(first, e.index(e.lanes)), step)
        return e.at(panels, e.add(start, e.builder.and_(first, e.index(e.lanes - 1))))

    def place_of(first: Value) -> tuple[Value, Value]:
        """Where the block of 8 rows from `first` on begins in `moments`, and how far its rows lie apart."""
        b = e.builder.ashr(first, e.index(3))  # blocks before it, of 1, 2, 3, ... vectors or of 1, 1, 2, 2, 3, ...
        if e.lanes == 8:
            return e.at(moments, e.times(e.times(b, e.add(b, 1)), 32)), e.add(first, 8)
        half = e.builder.ashr(e.add(b, 1), e.index(1))
        before = e.times(half, e.builder.sub(e.add(b, 1), half))
        return e.at(moments, e.times(before, 128)), e.builder.and_(e.add(first, 23), e.index(-16))

    def weigh(c: Value, row: Value, part: Part, totals: list[Value]) -> list[Value]:
        """Some of a row of the panels from c on times its responsibility."""
        weight, found = narrow.broadcast(resp, row), []
        for i, column in enumerate(part.columns):
            v, lane = divmod(column, e.lanes)
            source = e.at(panels, e.add(e.times(e.add(c, v), step), lane))
            x = e.mul(weight, narrow.load(source, e.times(row, e.lanes)))
            e.store(x, work, e.add(e.times(row, V * e.lanes), column))
            e.set(totals[i], e.plus(x, e.get(totals[i])))
            found.append(x)
        return found

    def begin_totals(part: Part) -> list[Value]:
        return [e.variable(narrow.zero()) for _ in part.columns]

    def keep(c: Value, part: Part, totals: list[Value]) -> None:
        for total, column in zip(totals, part.columns, strict=True):
            add_to(narrow, e.get(total), sums, e.add(e.times(c, e.lanes), column))

    def multiply(
        q: int, first: Value, place: tuple[Value, Value], c: Value, nv: int, *, begin: bool = False, more: bool = False
    ) -> None:
        """Columns c L .. (c + nv) L - 1 of q rows of moments; at the beginning these columns are weighed meanwhile."""
        left, start = panel(first), e.times(c, e.lanes)
        places = [e.at(place[0], e.add(e.times(place[1], r), start)) for r in range(q)]
        if more:
            following = place_of(e.add(first, q))
            for r in range(q):
                for v in range(nv):
                    e.prefetch(following[0], e.add(e.add(e.times(following[1], r), start), v * e.lanes))
        for part in parts(e, q, nv):
            weighs = begin and part.rows.start == 0
            totals = begin_totals(part) if weighs else []

            def operands(
                row: Value, part: Part, totals: list[Value] = totals, weighs: bool = weighs
            ) -> tuple[list[Value], list[Value]]:
                weighted = e.at(work, e.times(row, V * e.lanes))
                x = weigh(c, row, part, totals) if weighs else [narrow.load(weighted, i) for i in part.columns]
                return x, [narrow.broadcast(left, e.add(e.times(row, e.lanes), r)) for r in part.rows]

            sums_of_products(e, part, places, count, operands, STEPS)
            if weighs:
                keep(c, part, totals)

    def group(c: Value, nv: int) -> None:
        begin = e.times(c, e.lanes)
        *blocks, (last, _) = [(e.add(begin, b), b // e.lanes + 1) for b in range(0, nv * e.lanes, 8)]
        whole = e.builder.icmp_signed("<", last, eights)
        with e.when(whole):
            multiply(8, last, place_of(last), c, nv, begin=True)
        with e.when(e.builder.not_(whole)):
            for part in parts(e, 1, nv):
                totals = begin_totals(part)
                with e.loop(0, count) as t:
                    weigh(c, t, part, totals)
                keep(c, part, totals)
        for first, many in blocks:
            with e.when(e.builder.icmp_signed("<", first, eights)):
                multiply(8, first, place_of(first), c, many)
        with e.loop(e.add(begin, nv * e.lanes), eights, 8) as first:
            multiply(8, first, place_of(first), c, nv, more=True)
        first, (target, _), columns = eights, place_of(eights), e.times(vectors, e.lanes)
        for q in BLOCKS[1:]:
            bit = e.builder.and_(n, e.index(q))
            with e.when(e.builder.icmp_unsigned("!=", bit, e.index(0))):
                multiply(q, first, (target, columns), c, nv)
            first, target = e.add(first, bit), e.at(target, e.times(bit, columns))

    for_vector_groups(e, vectors, group)
