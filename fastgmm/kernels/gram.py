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

from fastgmm.kernels.micro import BLOCKS, V, add_to, for_vector_groups, keep_sum
from fastgmm.kernels.simd import DOUBLE, I64, Emitter, Value, micro_apart

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
    wide = e.real != DOUBLE
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

    def within(place: tuple[Value, Value], r: int, c: Value, v: int) -> Value:
        return e.at(place[0], e.add(e.times(place[1], r), e.times(e.add(c, v), e.lanes)))

    def weigh(c: Value, nv: int, row: Value, totals: list[Value]) -> list[Value]:
        """A row of panels c .. c + nv - 1 times its responsibility."""
        weight, x = e.broadcast(resp, row), []
        for v in range(nv):
            source = e.at(panels, e.times(e.add(c, v), step))
            x.append(e.mul(weight, e.load(source, e.times(row, e.lanes))))
        for v, total in enumerate(totals):
            e.store(x[v], work, e.add(e.times(row, V * e.lanes), v * e.lanes))
            e.set(total, e.plus(x[v], e.get(total)))
        return x

    def keep(c: Value, totals: list[Value]) -> None:
        for v, total in enumerate(totals):
            add_to(e, e.get(total), sums, e.times(e.add(c, v), e.lanes))

    def multiply(
        q: int, first: Value, place: tuple[Value, Value], c: Value, nv: int, *, begin: bool = False, more: bool = False
    ) -> None:
        """Columns c L .. (c + nv) L - 1 of q rows of moments; at the beginning these columns are weighed meanwhile."""
        left = panel(first)
        places = [[within(place, r, c, v) for v in range(nv)] for r in range(q)]
        s = [[e.variable(e.zero() if wide else e.load(places[r][v])) for v in range(nv)] for r in range(q)]
        if more:
            following = place_of(e.add(first, q))
            for r in range(q):
                for v in range(nv):
                    e.prefetch(within(following, r, c, v))
        totals = [e.variable(e.zero()) for _ in range(nv if begin else 0)]
        with e.loop(0, count, STEPS) as t:
            for u in range(STEPS):
                row = e.add(t, u)
                if begin:
                    x = weigh(c, nv, row, totals)
                else:
                    x = [e.load(work, e.add(e.times(row, V * e.lanes), v * e.lanes)) for v in range(nv)]
                for r in range(q):
                    a = e.broadcast(left, e.add(e.times(row, e.lanes), r))
                    for v in range(nv):
                        e.set(s[r][v], e.fma(a, x[v], e.get(s[r][v])))
        keep(c, totals)
        for r in range(q):
            for v in range(nv):
                keep_sum(e, e.get(s[r][v]), places[r][v], 0)

    def group(c: Value, nv: int) -> None:
        begin = e.times(c, e.lanes)
        *blocks, (last, _) = [(e.add(begin, b), b // e.lanes + 1) for b in range(0, nv * e.lanes, 8)]
        whole = e.builder.icmp_signed("<", last, eights)
        with e.when(whole):
            multiply(8, last, place_of(last), c, nv, begin=True)
        with e.when(e.builder.not_(whole)):
            totals = [e.variable(e.zero()) for _ in range(nv)]
            with e.loop(0, count) as t:
                weigh(c, nv, t, totals)
            keep(c, totals)
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
