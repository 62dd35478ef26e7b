"""Micro-kernels for second moments of many components about one common centre: a plain matrix product.

Moments of component k are sums over the rows of r_k times u_i u_j and u_j. The products do not depend on the component,
so a few of them are formed for a few rows, in the first-level cache, and multiplied with the responsibilities of all
components: no row is gathered, and hardly a multiply-add of the inner loop is wasted on the triangle's other half.

`layout.product_vectors` lists the vectors of products that make up a row's triangle: columns j .. j + L - 1 of the
triangle's row i where they belong to it; where j exceeds i, the row n - 2 - i from right to left, so that the two fill
the vectors between them:

    lane with column j:    u_i u_j for j <= i,    u_{n-2-i} u_{n-1-j} for j > i

and then u itself. Lanes that belong to no product are filled with what they compute. The plain twins are in
`near_twins.py`.
"""

from __future__ import annotations

from llvmlite import ir

from fastgmm.kernels.micro import BLOCKS, V, for_row_blocks, keep_sum
from fastgmm.kernels.simd import DOUBLE, I32, Emitter, Value, micro

UNROLL = 4  # rows a step; the number of rows is a multiple of it, for it is one of whole panels
OWN, PARTNER, BOTH, PLAIN = range(4)
"""Which products a vector holds: of row i; of row n - 2 - i, backwards; of both, up to lane i - j and from there; u."""


@micro
def reverse_rows(e: Emitter, rows: Value, count: Value, n: Value, padded: Value, out: Value, stride: Value) -> None:
    """out[t, j] = rows[t, n - 1 - j] for j < n, 0 up to `padded`.

    Rows of `out` lie `stride` apart, with room for a vector before each.
    """
    backwards = list(range(e.lanes - 1, -1, -1))
    with e.loop(0, count) as t:
        row, target = e.at(rows, e.times(t, padded)), e.at(out, e.times(t, stride))
        e.store(e.zero(), target, e.add(padded, -e.lanes))
        with e.loop(0, padded, e.lanes) as j:
            # vector j .. j + L - 1 goes to n - L - j ..; of the last one the padding falls into the room before
            x = e.load(row, j)
            e.store(e.shuffle(x, x, backwards), target, e.builder.sub(e.builder.sub(n, e.index(e.lanes)), j))


@micro
def product_moments(
    e: Emitter,
    resp: Value,
    rows: Value,
    backwards: Value,
    vectors: Value,
    length: Value,
    count: Value,
    n: Value,
    k: Value,
    stride: Value,
    padded: Value,
    buffer: Value,
    out: Value,
    step: Value,
) -> None:
    """out[component] += sum over the rows of resp[component, row] * products of the row.

    Parameters
    ----------
    resp : (K, stride)
    rows, backwards : (count, padded), (count, padded + L)
        Rows about the centre, and from `reverse_rows`; `count` is a multiple of `UNROLL`.
    vectors : (length, 3) int64
        Row i, first column j and contents of each vector of products.
    buffer : (count, V L)
        Scratch.
    out : (K, length L) float64
        Two components lie `step` elements apart.
    """
    wide = e.real != DOUBLE
    integers = ir.VectorType(e.integer, e.lanes)
    iota = ir.Constant(integers, list(range(e.lanes)))
    forth = [e.times(padded, u) for u in range(UNROLL + 1)]  # where a step's rows begin
    over = [e.times(e.add(padded, e.lanes), u) for u in range(UNROLL + 1)]
    steps = e.builder.udiv(count, e.index(UNROLL))

    def form(which: Value, column: Value) -> None:
        """One vector of products of every row, into a column of the buffer."""
        i, j, contents = (e.builder.load(e.at(vectors, e.add(e.times(which, 3), c))) for c in range(3))
        partner = e.builder.sub(e.builder.sub(n, e.index(2)), i)

        def plain(u: int, row: Value, _back: Value) -> Value:
            return e.load(row, e.add(forth[u], j))

        def own(u: int, row: Value, back: Value) -> Value:
            return e.mul(e.broadcast(row, e.add(forth[u], i)), plain(u, row, back))

        def other(u: int, row: Value, back: Value) -> Value:
            return e.mul(e.broadcast(row, e.add(forth[u], partner)), e.load(back, e.add(over[u], j)))

        last = e.builder.sub(i, j)
        last = e.builder.trunc(last, e.integer) if e.size == 4 else last
        one = e.builder.insert_element(ir.Constant(integers, ir.Undefined), last, ir.Constant(I32, 0))
        mask = e.builder.icmp_signed("<=", iota, e.shuffle(one, one, [0] * e.lanes))
        ways = {OWN: own, PARTNER: other, BOTH: lambda *row: e.select(mask, own(*row), other(*row)), PLAIN: plain}
        for name, way in ways.items():
            with e.when(e.builder.icmp_signed("==", contents, e.index(name))), e.loop(0, steps) as step:
                row, back = e.at(rows, e.times(step, forth[UNROLL])), e.at(backwards, e.times(step, over[UNROLL]))
                target = e.at(buffer, e.add(e.times(step, UNROLL * V * e.lanes), e.times(column, e.lanes)))
                for u in range(UNROLL):
                    e.store(way(u, row, back), target, u * V * e.lanes)

    def add(first_vector: Value, nv: int) -> None:
        """The sums of nv vectors of products, for all components."""

        def block(q: int, first: Value) -> None:
            weights = e.at(resp, e.times(first, stride))
            target = e.at(out, e.add(e.times(first, step), e.times(first_vector, e.lanes)))
            place = [[e.add(e.times(step, r), v * e.lanes) for v in range(nv)] for r in range(q)]
            s = [[e.variable(e.zero() if wide else e.load(target, place[r][v])) for v in range(nv)] for r in range(q)]
            unroll = UNROLL if q == BLOCKS[0] else 1  # what is left of a number of components need not be as fast
            with e.loop(0, count, unroll) as t:
                for u in range(unroll):
                    row = e.at(buffer, e.times(e.add(t, u), V * e.lanes))
                    x = [e.load(row, v * e.lanes) for v in range(nv)]
                    for r in range(q):
                        a = e.broadcast(weights, e.add(e.times(stride, r), e.add(t, u)))
                        for v in range(nv):
                            e.set(s[r][v], e.fma(a, x[v], e.get(s[r][v])))
            for r in range(q):
                for v in range(nv):
                    keep_sum(e, e.get(s[r][v]), target, place[r][v])

        for_row_blocks(e, k, block)

    with e.loop(0, length, V) as c:
        left = e.builder.sub(length, c)
        with e.loop(0, e.builder.select(e.builder.icmp_signed("<", left, e.index(V)), left, e.index(V))) as column:
            form(e.add(c, column), column)
        for nv in range(1, V + 1):
            relation = ">=" if nv == V else "=="
            with e.when(e.builder.icmp_signed(relation, left, e.index(nv))):
                add(c, nv)
