"""Micro-kernels for components that lie near one another: sums about one centre common to all of them.

With u = x - c and the components within a few standard deviations of c, nothing is lost by expanding a square, and half
of the work of `micro.py` goes away: one fused multiply-add replaces the subtraction and the scaling of a diagonal
density, a plain product of rows and means replaces the squared distance, a triangular product begins with a constant
instead of a centred row, and moments are products of responsibilities with u and u^2 (u u': `products.py`), which
all components share. Rows come in panel by panel, each to the same place, and meanwhile those of the next are asked
for, so that little leaves the first-level cache. `programs.py` says how near is near enough; layouts are those of
`micro.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastgmm.kernels.micro import Block, V, block_offset, for_row_blocks, steps_at_once, sums_of_products
from fastgmm.kernels.pairs import numbered, over_pairs
from fastgmm.kernels.registers import Part, for_parts
from fastgmm.kernels.simd import Emitter, Value, micro_apart

LARGE = 4  # vectors of a row that `weighted_sums` takes at a time, if it can


@micro_apart
def square_norms(e: Emitter, panels: Value, count: Value, n: Value, out: Value) -> None:
    """out[row] = -|row|^2 / 2 for the rows of `count` panels."""
    width = V * e.lanes
    with e.loop(0, count) as p:
        panel = e.at(panels, e.times(p, e.times(n, width)))
        sums = [e.variable(e.zero()) for _ in range(V)]
        with e.loop(0, n) as j:
            for v in range(V):
                x = e.load(panel, e.add(e.times(j, width), v * e.lanes))
                e.set(sums[v], e.fma(x, x, e.get(sums[v])))
        for v in range(V):
            value = e.mul(e.get(sums[v]), e.constant(-0.5))
            e.store(value, out, e.add(e.times(p, width), v * e.lanes))


@micro_apart
def shifted_density(
    e: Emitter,
    panels: Value,
    count: Value,
    shift: Value,
    factor: Value,
    n: Value,
    log_norm: Value,
    out: Value,
    tops: Value,
    before: Value,
    ahead: Value,
    share: Value,
) -> None:
    """out[row] = log_norm - |W x_row + shift|^2 / 2 for the rows of `count` panels, W lower triangular.

    `shift` is -W times the component's mean. tops[row] becomes the larger of itself and out[row], or out[row] where
    `before` is 0, and -inf for what is no number. Of the panel's rows at `ahead`, as long as here, the first `share`
    numbers are asked for.
    """
    narrow, width = e.narrow, V * e.lanes
    constant, squares = narrow.broadcast(log_norm), e.room(V)
    begins = e.builder.icmp_signed("==", before, e.index(0))
    none, all_of_them = narrow.constant(float("-inf")), narrow.constant(float("inf"))
    highest = e.builder.select(begins, none, all_of_them)  # of the tops so far
    with e.loop(0, count) as p:
        place = e.times(p, e.times(n, width))
        panel, next_rows = e.at(panels, place), e.at(ahead, place)
        with e.loop(0, share, e.lanes) as i:
            e.prefetch(next_rows, i)
        for v in range(V):
            e.store(e.zero(), squares, v * e.lanes)

        def block(q: int, first: Value, panel: Value = panel) -> None:
            packed = e.at(factor, block_offset(e, first, q))

            def some(part: Part) -> None:
                begin, coefficients = e.add(first, part.row), e.at(packed, part.row)
                begun = [narrow.broadcast(shift, e.add(begin, r)) for r in range(part.rows)]
                y = [[e.variable(value) for _ in part.columns] for value in begun]
                source = e.at(panel, part.column)

                def step(columns: Value, weights: Value, j: Any, rows: range) -> None:
                    x = [narrow.load(columns, e.add(e.times(j, width), c)) for c in part.columns]
                    for r in rows:
                        w = narrow.broadcast(weights, e.add(e.times(j, q), r))
                        for value, total in zip(x, y[r], strict=True):
                            e.set(total, narrow.fma(w, value, e.get(total)))

                def add_square(r: int) -> None:
                    for total, square in zip(y[r], found, strict=True):
                        e.set(square, narrow.fma(e.get(total), e.get(total), e.get(square)))

                several = steps_at_once(e, q)
                with e.loop(0, begin, several) as j:
                    for u in range(several):
                        step(source, coefficients, e.add(j, u), range(part.rows))
                places = [e.add(part.column, c) for c in part.columns]
                found = [e.variable(narrow.load(squares, place)) for place in places]
                columns, weights = e.at(source, e.times(begin, width)), e.at(coefficients, e.times(begin, q))
                for j in range(part.rows):
                    step(columns, weights, j, range(j, part.rows))
                    if j > 0:  # not all at the end: each addition waits for the one before
                        add_square(j - 1)
                add_square(part.rows - 1)
                for square, place in zip(found, places, strict=True):
                    e.store(e.get(square), squares, place)

            for_parts(e, q, V, some)

        for_row_blocks(e, n, block)
        for c in range(0, width, narrow.lanes):
            row = e.add(e.times(p, width), c)
            value = narrow.fma(narrow.load(squares, c), narrow.constant(-0.5), constant)
            e.store(value, out, row)
            top = narrow.load(tops, row)
            e.store(e.maximum(value, e.select(e.compare("<", top, highest), top, highest)), tops, row)


def writer(e: Emitter, row: Value, density: Any, out: Value, stride: Value, tops: Value) -> Any:
    """What `over_pairs` does with the sums of a panel whose first row is `row`: write log-densities and the largest.

    ``density(component)`` returns ``result(row, sum)``, the log-density of a register of rows.
    """
    narrow = e.narrow
    for c in range(0, V * e.lanes, narrow.lanes):
        e.store(narrow.constant(float("-inf")), tops, e.add(row, c))

    def use(part: Part, first: Value, sums: list[list[Value]]) -> None:
        places = [e.add(e.add(row, part.column), c) for c in part.columns]
        largest = [narrow.load(tops, place) for place in places]
        for component, found in numbered(e, first, sums):
            result, start = density(component), e.times(component, stride)
            for i, (place, value) in enumerate(zip(places, found, strict=True)):
                x = result(place, value)
                e.store(x, out, e.add(start, place))
                largest[i] = e.maximum(x, largest[i])
        for value, place in zip(largest, places, strict=True):
            e.store(value, tops, place)

    return use


@micro_apart
def affine_density(
    e: Emitter,
    panels: Value,
    count: Value,
    shifts: Value,
    scales: Value,
    log_norm: Value,
    n: Value,
    k: Value,
    out: Value,
    stride: Value,
    tops: Value,
    ahead: Value,
) -> None:
    """out[component, row] = log_norm - |scale * x_row + shift|^2 / 2; shift is -scale * mean.

    tops[row] becomes the largest of them, -inf where all are or are no number. The rows that follow `ahead` are asked
    for.
    """
    narrow, width = e.narrow, V * e.lanes

    def term(where: Value) -> Any:
        scale, shift = narrow.broadcast(scales, where), narrow.broadcast(shifts, where)

        def add(x: Value, total: Value) -> Value:
            y = narrow.fma(x, scale, shift)
            return narrow.fma(y, y, total)

        return add

    def density(component: Value) -> Any:
        constant = narrow.broadcast(log_norm, component)
        return lambda _row, d: narrow.fma(d, narrow.constant(-0.5), constant)

    with e.loop(0, count) as p:
        use = writer(e, e.times(p, width), density, out, stride, tops)
        place = e.times(p, e.times(n, width))
        over_pairs(e, e.at(panels, place), n, k, term, use, e.at(ahead, place), columns=2)


@micro_apart
def product_density(
    e: Emitter,
    panels: Value,
    count: Value,
    means: Value,
    scales: Value,
    constants: Value,
    norms: Value,
    n: Value,
    k: Value,
    out: Value,
    stride: Value,
    tops: Value,
    ahead: Value,
) -> None:
    """out[component, row] = constant + scale * (x_row . mean + norms[row]), with norms[row] = -|x_row|^2 / 2.

    With scale = 1 / variance and constant = log_norm - scale |mean|^2 / 2 this is the log-density. `tops` and `ahead`
    as for `affine_density`.
    """
    narrow, width = e.narrow, V * e.lanes

    def term(where: Value) -> Any:
        mean = narrow.broadcast(means, where)
        return lambda x, total: narrow.fma(x, mean, total)

    def density(component: Value) -> Any:
        scale, constant = narrow.broadcast(scales, component), narrow.broadcast(constants, component)
        return lambda row, dot: narrow.fma(e.plus(narrow.load(norms, row), dot), scale, constant)

    with e.loop(0, count) as p:
        use = writer(e, e.times(p, width), density, out, stride, tops)
        place = e.times(p, e.times(n, width))
        over_pairs(e, e.at(panels, place), n, k, term, use, e.at(ahead, place), unroll=2)


@micro_apart
def square_rows(e: Emitter, rows: Value, padded: Value, count: Value, out: Value) -> None:
    """Out = rows * rows, element by element."""
    with e.loop(0, e.times(count, padded), e.lanes) as i:
        x = e.load(rows, i)
        e.store(e.mul(x, x), out, i)


def for_pieces(e: Emitter, total: Value, large: int, body: Block) -> None:
    """Run ``body(size, first)`` over `total` things in pieces of `large` and large - 1; once for what is too few."""
    small = large - 1
    few = e.builder.urem(e.times(total, small), e.index(large))  # so many small pieces leave only large ones
    enough = e.builder.icmp_unsigned("<=", e.times(few, small), total)
    few = e.builder.select(enough, few, e.builder.udiv(total, e.index(small)))
    whole = e.builder.select(enough, e.builder.sub(total, e.times(few, small)), e.index(0))
    end = e.add(whole, e.times(few, small))
    with e.loop(0, whole, large) as first:
        body(large, first)
    with e.loop(whole, end, small) as first:
        body(small, first)
    for rest in range(1, small):
        with e.when(e.builder.icmp_unsigned("==", e.builder.sub(total, end), e.index(rest))):
            body(rest, end)


@micro_apart
def weighted_sums(
    e: Emitter, resp: Value, rows: Value, count: Value, k: Value, stride: Value, padded: Value, out: Value
) -> None:
    """out[component] += sum over rows of resp[component, row] * row; `out` is float64, (K, padded).

    Six components times four vectors stay in registers, or eight times three where the width asks for it, or parts of
    these.
    """
    narrow = e.narrow

    def group(nv: int, c: Value) -> None:
        column = e.times(c, e.lanes)

        def block(q: int, first: Value) -> None:
            weights = e.at(resp, e.times(first, stride))
            target = e.at(out, e.add(e.times(first, padded), column))

            def operands(t: Value, part: Part) -> tuple[list[Value], Iterable[Value]]:
                row = e.at(rows, e.add(e.add(e.times(t, padded), column), part.column))
                some = e.at(weights, e.times(stride, part.row))
                left = (narrow.broadcast(some, e.add(e.times(stride, r), t)) for r in range(part.rows))
                return [narrow.load(row, c) for c in part.columns], left

            sums_of_products(e, q, nv, target, padded, count, operands)

        if nv <= V:
            for_row_blocks(e, k, block)
            return
        for_pieces(e, e.builder.lshr(k, e.index(1)), 3, lambda q, first: block(2 * q, e.times(first, 2)))
        odd = e.builder.and_(k, e.index(1))
        with e.when(e.builder.icmp_unsigned("!=", odd, e.index(0))):
            block(1, e.builder.sub(k, odd))

    large = LARGE if narrow is e else V
    for_pieces(e, e.builder.udiv(padded, e.index(e.lanes)), large, group)
