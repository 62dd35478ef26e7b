"""Micro-kernels for second moments of many components about one common centre: a plain matrix product.

Moments of component k are sums over the rows of r_k times u_i u_j and u_j. The products do not depend on the component,
so a few of them are formed for a few rows, in the first-level cache, and multiplied with the responsibilities of all
components: no row is gathered, and no multiply-add of the inner loop is wasted on the triangle's other half. What turns
a row's numbers into responsibilities, its weight over their sum, goes into the products instead: both of their sides
are times its root.

The products of a row are listed along the diagonals of u u', which go on at the other side where they leave it:

    number p of n (n + 1) / 2:    u_j u_{(j + s) mod n} with s = p div n, j = p mod n

and then come the features themselves, number p being u_{p mod n}, from wherever p mod n is by then; where diagonals are
whole vectors they begin with one, after the other half of the last diagonal. So nothing is idle between two diagonals,
whatever n: a vector holds L products that follow each other, and with rows written out as periods (`extend_rows`) both
sides are plain loads, the right one s places after the left one. A vector that holds pieces of several diagonals has a
right side for each. `layout.product_vectors` lists the pieces, with an example. The plain twins are in `near_twins.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llvmlite import ir

from fastgmm.kernels.layout import Piece
from fastgmm.kernels.micro import BLOCKS, V, for_row_blocks, sums_of_products
from fastgmm.kernels.registers import Part
from fastgmm.kernels.simd import I32, Emitter, Value, micro_apart
from fastgmm.kernels.tile import add_total

UNROLL = 4  # rows a step; the number of rows is a multiple of it, for it is one of whole panels
FORMING = BLOCKS[:2]  # blocks of components that may form products; there are fewer where nothing is shared


def extended_length(n: int, lanes: int) -> int:
    """Elements from one row of `extend_rows` to the next: an odd number of vectors, that is lines of the cache."""
    beyond = 0 if n % lanes == 0 else 2 * (lanes - 1)  # where vectors begin anywhere
    length = lanes + n + n // 2 + beyond
    return ((length + lanes - 1) // lanes | 1) * lanes  # and what the last vector has beyond


@micro_apart
def extend_rows(
    e: Emitter, rows: Value, roots: Value, count: Value, n: Value, padded: Value, out: Value, length: Value
) -> None:
    """out[t, i] = roots[t] for i < L and out[t, L + i] = roots[t] rows[t, i mod n], as far as pieces reach.

    Rows of `out` lie `length` apart, from `extended_length`; `count` is a multiple of `UNROLL`.
    """
    rest = e.builder.and_(n, e.index(e.lanes - 1))
    whole = e.builder.icmp_signed("==", rest, e.index(0))
    end = e.add(e.add(n, e.builder.ashr(n, e.index(1))), e.builder.select(whole, e.index(0), e.index(e.lanes - 1)))

    def every_row(write: Callable[[Value, Value], None]) -> None:
        """``write(t, root)`` for all rows, which is the innermost loop: a row has but a few vectors."""
        with e.loop(0, count, UNROLL) as t:
            for u in range(UNROLL):
                write(e.add(t, u), e.broadcast(roots, e.add(t, u)))

    every_row(lambda t, root: e.store(root, out, e.times(t, length)))
    # in order: the next period overwrites what the last vector of the one before has beyond its end
    with e.loop(0, end, n) as start:
        left = e.builder.sub(end, start)
        with e.loop(0, e.builder.select(e.builder.icmp_signed("<", left, padded), left, padded), e.lanes) as j:
            source, target = e.at(rows, j), e.at(out, e.add(e.add(start, j), e.lanes))

            def scaled(t: Value, root: Value, source: Value = source, target: Value = target) -> None:
                e.store(e.mul(e.load(source, e.times(t, padded)), root), target, e.times(t, length))

            every_row(scaled)


@micro_apart
def component_weights(
    e: Emitter, resp: Value, scale: Value, count: Value, k: Value, stride: Value, weights: Value
) -> None:
    """weights[component] (float64) += sum over the rows of resp[component, row] * scale[row]; then scale = its root."""

    def block(q: int, first: Value) -> None:
        source = e.at(resp, e.times(first, stride))
        totals = [e.variable(e.zero()) for _ in range(q)]
        with e.loop(0, count, e.lanes) as t:
            factor = e.load(scale, t)
            for r, total in enumerate(totals):
                e.set(total, e.fma(e.load(source, e.add(e.times(stride, r), t)), factor, e.get(total)))
        for r, total in enumerate(totals):
            add_total(e, e.get(total), weights, e.add(first, r))

    for_row_blocks(e, k, block)
    with e.loop(0, count, e.lanes) as t:
        e.store(e.sqrt(e.load(scale, t)), scale, t)


@micro_apart
def product_moments(
    e: Emitter,
    resp: Value,
    rows: Value,
    vectors: Value,
    length: Value,
    count: Value,
    k: Value,
    stride: Value,
    row_length: Value,
    buffer: Value,
    out: Value,
    step: Value,
) -> None:
    """out[component] += sum over the rows of resp[component, row] * products of the row.

    Parameters
    ----------
    resp : (K, stride)
    rows : (count, row_length)
        From `extend_rows`; `count` is a multiple of `UNROLL`.
    vectors : (length + 1 + numbers of all pieces,) int64
        From `layout.product_vectors`, for `length` vectors.
    buffer : (count, V L)
        Scratch.
    out : (K, length L) float64
        Two components lie `step` elements apart.
    """
    narrow = e.narrow
    integers = ir.VectorType(e.integer, e.lanes)
    iota = ir.Constant(integers, list(range(e.lanes)))
    steps = e.builder.udiv(count, e.index(UNROLL))
    pieces = e.at(vectors, e.add(length, 1))

    def given_piece(number: Value) -> Piece:
        """The piece of that number, as the kernel's integers."""
        first = e.times(number, len(Piece._fields))
        return Piece(*(e.builder.load(e.at(pieces, e.add(first, i))) for i in range(len(Piece._fields))))

    def form(number: Value) -> None:
        """One piece of a vector of products of every row, and what follows it, into a column of the buffer."""
        column, left, right, lane = given_piece(number)
        sources, target = (e.at(rows, left), e.at(rows, right)), e.at(buffer, e.times(column, e.lanes))
        begin = e.builder.trunc(lane, e.integer) if e.size == 4 else lane
        one = e.builder.insert_element(ir.Constant(integers, ir.Undefined), begin, ir.Constant(I32, 0))
        mask = e.builder.icmp_signed(">=", iota, e.shuffle(one, one, [0] * e.lanes))
        for relation, first in (("==", True), ("!=", False)):
            with e.when(e.builder.icmp_signed(relation, lane, e.index(0))), e.loop(0, steps) as s:
                t = e.times(s, UNROLL)
                x, y = (e.at(source, e.times(t, row_length)) for source in sources)
                place = e.at(target, e.times(t, V * e.lanes))
                for u in range(UNROLL):
                    value = e.mul(e.load(x, e.times(row_length, u)), e.load(y, e.times(row_length, u)))
                    value = value if first else e.select(mask, value, e.load(place, u * V * e.lanes))
                    e.store(value, place, u * V * e.lanes)

    def sides(first_vector: Value) -> list[tuple[Value, Value]]:
        """Where V vectors of products, each of one piece, have their left and right sides in the first row."""
        found = []
        for v in range(V):
            piece = given_piece(e.builder.load(e.at(vectors, e.add(first_vector, v))))
            found.append((e.at(rows, piece.left), e.at(rows, piece.right)))
        return found

    def block(q: int, first: Value, first_vector: Value, nv: int, *, forms: bool = False) -> None:
        """The sums of nv vectors of products, for q components."""
        weights = e.at(resp, e.times(first, stride))
        target = e.at(out, e.add(e.times(first, step), e.times(first_vector, e.lanes)))
        given = sides(first_vector) if forms else []

        def operands(t: Value, part: Part) -> tuple[list[Value], Iterable[Value]]:
            row = e.at(buffer, e.add(e.times(t, V * e.lanes), part.column))
            if forms:
                place = e.times(t, row_length)
                x = [e.mul(e.load(one, place), e.load(other, place)) for one, other in given]
                for v in range(nv):
                    e.store(x[v], row, v * e.lanes)
            else:
                x = [narrow.load(row, c) for c in part.columns]
            some = e.at(weights, e.times(stride, part.row))
            return x, (narrow.broadcast(some, e.add(e.times(stride, r), t)) for r in range(part.rows))

        # what is left of a number of components need not be as fast; to form products takes all registers for addresses
        unroll = UNROLL if q == BLOCKS[0] and not forms else 1
        sums_of_products(e, q, nv, target, step, count, operands, unroll)

    may_form = FORMING if narrow is e else ()  # as for a part of a block there are no registers for sides and sums
    forming = e.index(0)  # the first block's components, if they are enough
    for q in reversed(may_form):
        forming = e.builder.select(e.builder.icmp_signed(">=", k, e.index(q)), e.index(q), forming)
    with e.loop(0, length, V) as c:
        rest = e.builder.sub(length, c)
        few = e.builder.select(e.builder.icmp_signed("<", rest, e.index(V)), rest, e.index(V))
        begin, end = (e.builder.load(e.at(vectors, v)) for v in (c, e.add(c, few)))
        # with a block of components at hand whose sums wait for nothing else, products are formed on the way
        alone = e.builder.icmp_signed("==", e.builder.sub(end, begin), e.index(V))
        room = e.builder.and_(
            e.builder.icmp_signed(">=", rest, e.index(V)), e.builder.icmp_signed(">", forming, e.index(0))
        )
        aside = e.builder.and_(alone, room)
        with e.builder.if_else(aside) as (then, otherwise):
            with then:
                for q in may_form:
                    with e.when(e.builder.icmp_signed("==", e.index(q), forming)):
                        block(q, e.index(0), c, V, forms=True)
            with otherwise, e.loop(begin, end) as piece:
                form(piece)
        done = e.builder.select(aside, forming, e.index(0))
        for nv in range(1, V + 1):

            def sums(q: int, first: Value, c: Value = c, nv: int = nv) -> None:
                block(q, first, c, nv)

            relation = ">=" if nv == V else "=="
            with e.when(e.builder.icmp_signed(relation, rest, e.index(nv))):
                for_row_blocks(e, k, sums, done)
