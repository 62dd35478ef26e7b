"""The micro-kernels: the few loops in which a fit spends its time.

Shapes and layouts (T rows a tile, D features, K components, L lanes, V = 3 vectors, Q = V L rows a panel)

* rows: (T, Dp), the tile as it lies in the user's array, padded with zeros to Dp, a multiple of L;
* panels: (T / Q, D, Q), the tile transposed so that lanes run over samples;
* resp: (K, T), log-densities first, then exp(log-density - largest), see `softmax`;
* factors: for every component its lower triangle in row blocks of 8, then of 4, 2 and 1 rows (`row_blocks`); a block of
  q rows that begins at row i stores columns 0..i+q-1, each as q numbers;
* moments: lower triangle in the same row blocks; a block stores its q rows, each padded to a multiple of L columns.

Register blocking: q x V accumulators stay in registers (8 x 3 of 32 vector registers with AVX-512). Each step loads V
vectors, broadcasts q numbers and does q V fused multiply-adds, so loads are never the limit. The plain twin of every
kernel is in `twins.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastgmm.kernels.registers import Part, for_parts
from fastgmm.kernels.simd import DOUBLE, I64, Emitter, Value, micro_apart

V = 3
BLOCKS = (8, 4, 2, 1)
Block = Callable[[int, Value], None]


def for_row_blocks(e: Emitter, n: Value, body: Block, start: Any = None) -> None:
    """Run ``body(q, first)`` for rows 0..n-1 in blocks of 8 and, for the rest, of 4, 2 and 1 rows.

    Blocks before row `start`, with which one of them begins, are left out.
    """
    eights = e.builder.and_(n, e.index(-8))
    with e.loop(0 if start is None else start, eights, 8) as first:
        body(8, first)
    done = eights
    for q in BLOCKS[1:]:
        bit = e.builder.and_(n, e.index(q))
        wanted = e.builder.icmp_unsigned("!=", bit, e.index(0))
        if start is not None:
            wanted = e.builder.and_(wanted, e.builder.icmp_signed(">=", done, start))
        with e.when(wanted):
            body(q, done)
        done = e.add(done, bit)


def block_offset(e: Emitter, first: Value, q: int) -> Value:
    """Where the block of q rows from `first` on begins in a packed factor: the size of all blocks before it.

    Blocks of 8 rows before row i hold 8 * (8 + 16 + ... + i) = i (i + 8) / 2 numbers.
    """
    eights = e.builder.and_(first, e.index(-8))
    offset = e.builder.ashr(e.times(eights, e.add(eights, 8)), e.index(1))
    row = eights
    for p in BLOCKS[1:]:
        if p <= q:
            break
        bit = e.builder.and_(first, e.index(p))
        row = e.add(row, bit)
        offset = e.add(offset, e.times(bit, row))
    return offset


def centred(e: Emitter, x: Value, mean: Value, j: Any, n: Value) -> Value:
    """x minus element j of a mean: its high and, n elements later, its low part (float32 only)."""
    value = e.minus(x, e.broadcast(mean, j))
    return value if e.real == DOUBLE else e.minus(value, e.broadcast(mean, e.add(j, n)))


def steps_at_once(e: Emitter, q: int) -> int:
    """How many columns before a part of a block of q rows go together: a divisor of their number."""
    return 1 if e.narrow is e else min(4, 2 * q)


def triangular(e: Emitter, panel: Value, mean: Value, factor: Value, work: Value, n: Value, use: Any) -> None:
    """y = W (x - mean) for one panel, W lower triangular; ``use(part, first, y)`` takes registers of some rows of y.

    The centred panel is written to `work` as its columns are first met, so centring costs no pass of its own.
    """
    narrow, width = e.narrow, V * e.lanes

    def block(q: int, first: Value) -> None:
        packed = e.at(factor, block_offset(e, first, q))

        def some(part: Part) -> None:
            y = [[e.variable(narrow.zero()) for _ in part.columns] for _ in range(part.rows)]
            begin, coefficients = e.add(first, part.row), e.at(packed, part.row)

            def step(x: list[Value], j: Any, rows: range) -> None:
                for r in rows:
                    w = narrow.broadcast(coefficients, e.add(e.times(j, q), r))
                    for v, total in enumerate(y[r]):
                        e.set(total, narrow.fma(w, x[v], e.get(total)))

            several = steps_at_once(e, q)
            with e.loop(0, begin, several) as j:
                for i in (e.add(j, u) for u in range(several)):
                    step([narrow.load(work, column(part, i, c)) for c in part.columns], i, range(part.rows))
            for r in range(part.rows):
                j = e.add(begin, r)
                places = [column(part, j, c) for c in part.columns]
                x = [centred(narrow, narrow.load(panel, place), mean, j, n) for place in places]
                for value, place in zip(x, places, strict=True):
                    e.store(value, work, place)
                step(x, j, range(r, part.rows))
            use(part, begin, [[e.get(total) for total in totals] for totals in y])

        for_parts(e, q, V, some)

    def column(part: Part, j: Value, c: int) -> Value:
        return e.add(e.add(e.times(j, width), part.column), c)

    for_row_blocks(e, n, block)


@micro_apart
def triangular_density(
    e: Emitter,
    panels: Value,
    count: Value,
    mean: Value,
    factor: Value,
    work: Value,
    n: Value,
    log_norm: Value,
    out: Value,
) -> None:
    """out[row] = log_norm - |W (x_row - mean)|^2 / 2 for the rows of `count` panels."""
    narrow, width = e.narrow, V * e.lanes
    constant = narrow.broadcast(log_norm)
    squares = e.room(V)
    with e.loop(0, count) as p:
        for v in range(V):
            e.store(e.zero(), squares, v * e.lanes)

        def add(part: Part, _first: Value, y: list[list[Value]]) -> None:
            for v, c in enumerate(part.columns):
                place = e.add(part.column, c)
                total = narrow.load(squares, place)
                for row in y:
                    total = narrow.fma(row[v], row[v], total)
                e.store(total, squares, place)

        triangular(e, e.at(panels, e.times(p, e.times(n, width))), mean, factor, work, n, add)
        for c in range(0, width, narrow.lanes):
            value = narrow.fma(narrow.load(squares, c), narrow.constant(-0.5), constant)
            e.store(value, out, e.add(e.times(p, width), c))


@micro_apart
def whiten(
    e: Emitter, panels: Value, count: Value, mean: Value, factor: Value, work: Value, n: Value, out: Value
) -> None:
    """out = W (x - mean) for `count` panels, in the same layout."""
    width = V * e.lanes
    with e.loop(0, count) as p:
        offset = e.times(p, e.times(n, width))

        def keep(part: Part, first: Value, y: list[list[Value]], offset: Value = offset) -> None:
            start = e.add(offset, part.column)
            for r, row in enumerate(y):
                for c, value in zip(part.columns, row, strict=True):
                    e.store(value, out, e.add(e.add(start, e.times(e.add(first, r), width)), c))

        triangular(e, e.at(panels, offset), mean, factor, work, n, keep)


@micro_apart
def rank_update(e: Emitter, z: Value, count: Value, n: Value, stride: Value, moments: Value) -> None:
    """moments += sum over rows of z z', lower triangle only; `moments` is float64, rows lie `stride` elements apart.

    For reference: S[i, j] += sum_t z[t, i] z[t, j], j <= i. Lanes run over j, so rows are read as they lie and nothing
    is summed across lanes.
    """
    narrow = e.narrow
    size = e.variable(e.index(0))  # what the blocks before take in `moments`

    def block(q: int, first: Value) -> None:
        vectors = e.builder.udiv(e.add(e.add(first, q), e.lanes - 1), e.index(e.lanes))
        columns = e.times(vectors, e.lanes)
        target = e.at(moments, e.get(size))

        def group(c: Value, nv: int) -> None:
            begin = e.times(c, e.lanes)

            def operands(t: Value, part: Part) -> tuple[list[Value], Iterable[Value]]:
                row = e.at(z, e.times(t, stride))
                left, right = e.at(row, e.add(first, part.row)), e.at(row, e.add(begin, part.column))
                return [narrow.load(right, c) for c in part.columns], (
                    narrow.broadcast(left, r) for r in range(part.rows)
                )

            sums_of_products(e, q, nv, e.at(target, begin), columns, count, operands)

        for_vector_groups(e, vectors, group)
        e.set(size, e.add(e.get(size), e.times(columns, q)))

    for_row_blocks(e, n, block)


def sums_of_products(
    e: Emitter, q: int, nv: int, target: Value, step: Value, count: Value, operands: Any, unroll: int = 1
) -> None:
    """Add to q rows, `step` elements apart, of nv vectors of sums at `target`, float64, `count` products each.

    See `sum_part` for `operands` and `unroll`.
    """
    for_parts(e, q, nv, lambda part: sum_part(e, part, target, step, count, operands, unroll))


def sum_part(e: Emitter, part: Part, target: Value, step: Value, count: Value, operands: Any, unroll: int = 1) -> None:
    """`sums_of_products` for a part of a block.

    ``operands(t, part)`` gives the registers of product t and what multiplies them, a vector for each row of the part,
    one after the other: those that wait take registers. `unroll` steps, a divisor of `count`, go together, but where
    sums take most registers: there the compiler, left to itself, keeps them in place.
    """
    narrow = e.narrow
    unroll = unroll if narrow is e else 1
    place = e.at(target, e.add(e.times(step, part.row), part.column))
    rows = [e.at(place, e.times(step, r)) for r in range(part.rows)]
    sums = [[e.variable(begun_sum(narrow, row, c)) for c in part.columns] for row in rows]
    with e.loop(0, count, unroll) as start:
        for u in range(unroll):
            right, left = operands(e.add(start, u), part)
            for a, totals in zip(left, sums, strict=True):
                for x, total in zip(right, totals, strict=True):
                    e.set(total, narrow.fma(a, x, e.get(total)))
    for row, totals in zip(rows, sums, strict=True):
        for total, c in zip(totals, part.columns, strict=True):
            keep_sum(narrow, e.get(total), row, c)


def add_to(e: Emitter, value: Value, target: Value, index: Any) -> None:
    """target[index...] += value, where target is float64 whatever the emitter's type."""
    at = 0
    for piece in e.widen(value):
        address = e.builder.bitcast(e.at(target, e.add(index, at)), piece.type.as_pointer())
        old = e.builder.load(address, align=8)
        e.builder.store(e.builder.fadd(old, piece), address, align=8)
        at += piece.type.count


def begun_sum(e: Emitter, target: Value, index: Any) -> Value:
    """What a sum begins with that `keep_sum` keeps."""
    return e.load(target, index) if e.real == DOUBLE else e.zero()


def keep_sum(e: Emitter, value: Value, target: Value, index: Any) -> None:
    """Keep a sum in `target`, float64: one of float64 began with what was there, one of float32 at 0."""
    if e.real == DOUBLE:
        e.store(value, target, index)
    else:
        add_to(e, value, target, index)


def for_vector_groups(e: Emitter, vectors: Value, body: Callable[[Value, int], None]) -> None:
    """Run ``body(first, count)`` over so many vectors in groups of V, and once for the rest."""
    whole = e.times(e.builder.udiv(vectors, e.index(V)), V)
    with e.loop(0, whole, V) as c:
        body(c, V)
    for rest in range(1, V):
        with e.when(e.builder.icmp_unsigned("==", e.builder.sub(vectors, whole), e.index(rest))):
            body(whole, rest)


def for_column_groups(e: Emitter, padded: Value, body: Block, largest: int = 4, least: int = 1) -> None:
    """Run ``body(vectors, first)`` over the columns in groups of 4, then of 2 and 1 vectors; `least` divides all."""
    total = e.builder.udiv(padded, e.index(e.lanes))
    done = e.variable(e.index(0))
    q = largest
    while q >= least:
        with e.loop(e.get(done), e.add(e.builder.sub(total, e.index(q)), 1), q) as c:
            body(q, e.times(c, e.lanes))
            e.set(done, e.add(c, q))
        q //= 2


@micro_apart
def gather(
    e: Emitter,
    rows: Value,
    live: Value,
    roots: Value,
    count: Value,
    padded: Value,
    mean: Value,
    z: Value,
    stride: Value,
    first: Value,
) -> None:
    """z[i] = sqrt(r) (x - mean) for the `count` live rows; first += sum of r (x - mean), float64.

    `live` holds row numbers (int32), `roots` the square roots of their responsibilities. `mean` is padded like the
    rows, its low part follows (float32). Rows of z lie `stride` elements apart.
    """
    whole, e = e.lanes, e.narrow

    def group(q: int, c: Value) -> None:
        m = [e.load(mean, e.add(c, v * e.lanes)) for v in range(q)]
        low = None if e.real == DOUBLE else [e.load(mean, e.add(e.add(c, padded), v * e.lanes)) for v in range(q)]
        s = [e.variable(e.zero()) for _ in range(q)]
        with e.loop(0, count) as i:
            t = e.builder.sext(e.scalar(live, i), I64)
            root = e.broadcast(roots, i)
            source = e.add(e.times(t, padded), c)
            target = e.add(e.times(i, stride), c)
            for v in range(q):
                x = e.minus(e.load(rows, e.add(source, v * e.lanes)), m[v])
                x = x if low is None else e.minus(x, low[v])
                x = e.mul(x, root)
                e.store(x, z, e.add(target, v * e.lanes))
                e.set(s[v], e.fma(root, x, e.get(s[v])))
        for v in range(q):
            add_to(e, e.get(s[v]), first, e.add(c, v * e.lanes))

    for_column_groups(e, padded, group, least=whole // e.lanes)


@micro_apart
def diagonal_moments(
    e: Emitter,
    rows: Value,
    live: Value,
    resp: Value,
    count: Value,
    padded: Value,
    mean: Value,
    first: Value,
    second: Value,
) -> None:
    """first += sum of r (x - mean), second += sum of r (x - mean)^2 over the live rows; both float64."""
    whole, e = e.lanes, e.narrow

    def group(q: int, c: Value) -> None:
        m = [e.load(mean, e.add(c, v * e.lanes)) for v in range(q)]
        low = None if e.real == DOUBLE else [e.load(mean, e.add(e.add(c, padded), v * e.lanes)) for v in range(q)]
        s1 = [e.variable(e.zero()) for _ in range(q)]
        s2 = [e.variable(e.zero()) for _ in range(q)]
        with e.loop(0, count) as i:
            t = e.builder.sext(e.scalar(live, i), I64)
            r = e.broadcast(resp, i)
            source = e.add(e.times(t, padded), c)
            for v in range(q):
                x = e.minus(e.load(rows, e.add(source, v * e.lanes)), m[v])
                x = x if low is None else e.minus(x, low[v])
                weighted = e.mul(x, r)
                e.set(s1[v], e.plus(weighted, e.get(s1[v])))
                e.set(s2[v], e.fma(weighted, x, e.get(s2[v])))
        for v in range(q):
            add_to(e, e.get(s1[v]), first, e.add(c, v * e.lanes))
            add_to(e, e.get(s2[v]), second, e.add(c, v * e.lanes))

    for_column_groups(e, padded, group, least=whole // e.lanes)
