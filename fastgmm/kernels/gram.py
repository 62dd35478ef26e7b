"""Micro-kernels for the second moments of one component about a centre that it shares with others.

The moments of component k are the Gram matrix sum of r u u', with rows u about the common centre. Rows are brought into
panels of L columns; a component weighs one panel at a time, in the first-level cache, and multiplies it with the panels
themselves. So where a component is responsible for most rows of a tile, it takes the panels of all rows, which are made
once for all components; else it has panels of its own rows made.

Panels are (padded / L, T, L), `step` elements apart: a little more than T L, so that panels do not share the same lines
of the cache. Moments are packed as `micro.rank_update` packs them.
"""

from __future__ import annotations

from fastgmm.kernels.micro import BLOCKS, V, add_to, for_row_blocks, for_vector_groups, keep_sum
from fastgmm.kernels.simd import DOUBLE, I64, Emitter, Value, micro

UNROLL = 4  # rows a step; the number of rows is a multiple of it


@micro
def column_panels(e: Emitter, rows: Value, count: Value, padded: Value, step: Value, out: Value) -> None:
    """out[j / L, t, j % L] = rows[t, j]."""
    with e.loop(0, padded, e.lanes) as j:
        target = e.at(out, e.times(e.builder.udiv(j, e.index(e.lanes)), step))
        with e.loop(0, count) as t:
            e.store(e.load(rows, e.add(e.times(t, padded), j)), target, e.times(t, e.lanes))


@micro
def picked_panels(e: Emitter, rows: Value, live: Value, count: Value, padded: Value, step: Value, out: Value) -> None:
    """out[j / L, i, j % L] = rows[live[i], j]; `live` (int32) holds `count` numbers of rows."""
    with e.loop(0, padded, e.lanes) as j:
        target = e.at(out, e.times(e.builder.udiv(j, e.index(e.lanes)), step))
        with e.loop(0, count) as i:
            t = e.builder.sext(e.scalar(live, i), I64)
            e.store(e.load(rows, e.add(e.times(t, padded), j)), target, e.times(i, e.lanes))


@micro
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

    `count` is a multiple of `UNROLL`; `work` has room for one panel, of which it keeps the weighted rows.
    """
    size = e.variable(e.index(0))  # what the blocks before take in `moments`
    end = e.times(count, e.lanes)
    wide = e.real != DOUBLE

    def weigh(first: Value) -> None:
        """The panel that begins at column `first`, times the responsibilities."""
        panel = e.at(panels, e.times(e.builder.udiv(first, e.index(e.lanes)), step))
        totals = [e.variable(e.zero()) for _ in range(UNROLL)]  # several, for an addition waits for the one before
        with e.loop(0, count, UNROLL) as t:
            weights, place = e.at(resp, t), e.times(t, e.lanes)
            for u in range(UNROLL):
                x = e.mul(e.broadcast(weights, u), e.load(panel, e.add(place, u * e.lanes)))
                e.store(x, work, e.add(place, u * e.lanes))
                e.set(totals[u], e.plus(x, e.get(totals[u])))
        for total in totals:
            add_to(e, e.get(total), sums, first)

    def block(q: int, first: Value) -> None:
        vectors = e.builder.udiv(e.add(e.add(first, q), e.lanes - 1), e.index(e.lanes))
        columns = e.times(vectors, e.lanes)
        target = e.at(moments, e.get(size))
        within = e.builder.and_(first, e.index(e.lanes - 1))
        with e.when(e.builder.icmp_unsigned("==", within, e.index(0))):
            weigh(first)
        left = e.at(work, within)

        def group(c: Value, nv: int) -> None:
            place = [[e.add(e.times(columns, r), e.times(e.add(c, v), e.lanes)) for v in range(nv)] for r in range(q)]
            s = [[e.variable(e.zero() if wide else e.load(target, place[r][v])) for v in range(nv)] for r in range(q)]
            right = [e.at(panels, e.times(e.add(c, v), step)) for v in range(nv)]
            unroll = UNROLL if q == BLOCKS[0] and nv == V else 1  # the rest is little
            with e.loop(0, end, unroll * e.lanes) as t:
                for u in range(unroll):
                    at = e.add(t, u * e.lanes)
                    x = [e.load(right[v], at) for v in range(nv)]
                    row = e.at(left, at)
                    for r in range(q):
                        a = e.broadcast(row, r)
                        for v in range(nv):
                            e.set(s[r][v], e.fma(a, x[v], e.get(s[r][v])))
            for r in range(q):
                for v in range(nv):
                    keep_sum(e, e.get(s[r][v]), target, place[r][v])

        for_vector_groups(e, vectors, group)
        e.set(size, e.add(e.get(size), e.times(columns, q)))

    for_row_blocks(e, n, block)
