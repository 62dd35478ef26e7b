"""Micro-kernels for 1 to 4 features and components near one another: everything about one common centre c.

With u = x - c a density begins with the constant -W (mu - c) instead of a centred row. Moments are sums of
responsibilities times what a row has for all components: s, s u_j and s u_i u_j, with s what turns a row's
exponentials into responsibilities. So they are a small product of matrices (K, rows) (rows, moments), with lanes over
samples: q components times up to M moments stay in registers. Each lane has its own sum until the block is done
(`fold_lanes`), float64 from tile to tile. `programs.py` says how near is near enough; the plain twins are in
`small_twins.py`.
"""

from __future__ import annotations

from typing import Any

from fastgmm.kernels.arguments import TILE
from fastgmm.kernels.micro import V, centred
from fastgmm.kernels.registers import evenly, joined
from fastgmm.kernels.simd import Emitter, Value, micro

BLOCKS = (4, 2, 1)  # components at a time
M = 6  # moments at a time, at most
WIDTH = 8  # sums of a moment, float64: so many samples later the first of them has the next


def n_moments(d: int) -> int:
    """1, u and the lower triangle of u u', row by row."""
    return 1 + d + d * (d + 1) // 2


def extra_bytes(k: int, d: int) -> int:
    """Scratch of a worker for sums."""
    return k * n_moments(d) * WIDTH * 8


def make_near_density(d: int) -> Any:
    """Log-densities of all components for a tile, and the largest of every row; see `small.make_density`.

    A component's shift is -W (mu - c), its factor the lower triangle of W, row by row, both times sqrt(1/2). The low
    part of the centre (float32) follows after a vector.
    """
    triangle = d * (d + 1) // 2

    @micro
    def near_density(
        e: Emitter,
        columns: Value,
        count: Value,
        centre: Value,
        shifts: Value,
        factors: Value,
        log_norm: Value,
        k: Value,
        out: Value,
        tops: Value,
        ahead: Value,
        following: Value,
    ) -> None:
        narrow = e.narrow

        def panel(t: Value, some: range, *, asks: bool) -> None:
            places = [e.add(t, place) for place in some]
            u = [[centred_column(e, columns, place, j, centre) for j in range(d)] for place in places]
            largest = [e.variable(narrow.constant(float("-inf"))) for _ in places]
            if asks:
                ask_ahead(e, t, d, ahead, following)
            with e.loop(0, k) as c:
                shift, factor = e.at(shifts, e.times(c, d)), e.at(factors, e.times(c, triangle))
                values = [narrow.broadcast(log_norm, c)] * len(places)
                for i in range(d):
                    ys = [narrow.broadcast(shift, i)] * len(places)
                    for j in range(i + 1):
                        w = narrow.broadcast(factor, i * (i + 1) // 2 + j)
                        ys = [narrow.fma(w, row[j], y) for row, y in zip(u, ys, strict=True)]
                    values = [narrow.fma(e.builder.fneg(y), y, value) for y, value in zip(ys, values, strict=True)]
                for place, value, top in zip(places, values, largest, strict=True):
                    e.store(value, out, e.add(e.times(c, TILE), place))
                    e.set(top, narrow.maximum(value, e.get(top)))
            for place, top in zip(places, largest, strict=True):
                e.store(e.get(top), tops, place)

        with e.loop(0, count, V * e.lanes) as t:
            for some in beside(e, d):
                panel(t, some, asks=some.start == 0)

    return near_density


def beside(e: Emitter, d: int) -> list[range]:
    """Where the registers of a panel begin, those together that are worked on side by side for `d` features."""
    lanes = e.narrow.lanes
    n = V * e.lanes // lanes
    many = n if lanes == e.lanes else 3 if d < 4 else 2  # each takes d + 3 registers
    return [range(i * lanes, (i + many) * lanes, lanes) for i in range(0, n, many)]


def ask_ahead(e: Emitter, t: Value, d: int, ahead: Value, following: Value) -> None:
    """Ask for the lines of a panel, from row t on: of `ahead`, a float64 a row, and of rows that follow."""
    for line in range(V * e.lanes // 8):
        e.prefetch(ahead, e.add(t, line * 8), write=True)
    for line in range(V * d):
        e.prefetch(following, e.add(e.times(t, d), line * e.lanes))


def centred_column(e: Emitter, columns: Value, place: Value, j: int, centre: Value) -> Value:
    """A register of feature j of the rows from `place` on, about the centre."""
    narrow = e.narrow
    return centred(narrow, narrow.load(columns, e.add(place, j * TILE)), centre, j, e.index(e.lanes))


def make_products(d: int) -> Any:
    """What all components share of a tile's rows: s, s u and the lower triangle of s u u', (moments, TILE)."""

    @micro
    def products(e: Emitter, columns: Value, scale: Value, count: Value, centre: Value, out: Value) -> None:
        narrow = e.narrow
        with e.loop(0, count, e.lanes) as begin:
            for t in [e.add(begin, h) for h in range(0, e.lanes, narrow.lanes)]:
                s = narrow.load(scale, t)
                u = [centred_column(e, columns, t, j, centre) for j in range(d)]
                scaled = [e.mul(s, x) for x in u]
                second = [e.mul(scaled[i], u[j]) for i in range(d) for j in range(i + 1)]
                for i, value in enumerate((s, *scaled, *second)):
                    e.store(value, out, e.add(t, i * TILE))

    return products


def make_lane_sums(d: int) -> Any:
    """sums[component, moment, i] (float64) += sum over the rows t with t mod WIDTH = i of resp * shared moment."""
    n = n_moments(d)

    @micro
    def lane_sums(e: Emitter, resp: Value, shared: Value, count: Value, k: Value, sums: Value) -> None:
        narrow, native = e.narrow, e.narrow.lanes == e.lanes
        halves = range(0, e.lanes, narrow.lanes)  # of a vector, in registers
        largest, most = (BLOCKS[0], M) if native else (2, 3)  # with AVX2 2 times 3 sums of 2 registers
        groups = evenly(range(n), most)

        def block(q: int, first: Value) -> None:
            weights, target = e.at(resp, e.times(first, TILE)), e.at(sums, e.times(first, n * WIDTH))
            for columns in groups:
                places = [[(r * n + j) * WIDTH for j in columns] for r in range(q)]
                s = [[[begun(narrow, target, p, h) for h in halves] for p in row] for row in places]
                with e.loop(0, count, e.lanes) as t:
                    for number, h in enumerate(halves):
                        here = e.add(t, h) if h else t
                        r = [narrow.load(weights, e.add(here, i * TILE)) for i in range(q)]
                        for i, j in enumerate(columns):
                            x = narrow.load(shared, e.add(here, j * TILE))
                            for own, mine in zip(s, r, strict=True):
                                total = own[i][number]
                                e.set(total, narrow.fma(mine, x, e.get(total)))
                for row, own in zip(places, s, strict=True):
                    for place, totals in zip(row, own, strict=True):
                        keep(e, joined(e, [e.get(total) for total in totals]), target, place)

        done = e.builder.and_(k, e.index(-largest))
        with e.loop(0, done, largest) as first:
            block(largest, first)
        for q in BLOCKS[BLOCKS.index(largest) + 1 :]:
            bit = e.builder.and_(k, e.index(q))
            with e.when(e.builder.icmp_unsigned("!=", bit, e.index(0))):
                block(q, done)
            done = e.add(done, bit)

    def begun(e: Emitter, target: Value, place: int, h: int) -> Value:
        """What the sums of some lanes begin with."""
        return e.variable(e.zero() if e.size == 4 else e.load(target, place + h))

    def keep(e: Emitter, value: Value, target: Value, place: int) -> None:
        """Write sums; those of float32, which began at 0, are added, the upper half of the lanes to the lower."""
        wide = e.doubles
        if e.size == 4:
            half = e.builder.fadd(e.half(value, 0), e.half(value, 1))
            value = wide.plus(e.builder.fpext(half, wide.vector), wide.load(target, place))
        wide.store(value, target, place)

    return lane_sums


def make_fold_lanes(d: int) -> Any:
    """Add the lanes of all sums to the weights (K,), first (K, padded) and second moments (K, D (D + 1) / 2) of a slot.

    All float64; the sums are left at 0.
    """
    n, triangle = n_moments(d), d * (d + 1) // 2

    @micro
    def fold_lanes(
        e: Emitter, sums: Value, k: Value, weight: Value, first: Value, padded: Value, second: Value
    ) -> None:
        wide = e.doubles
        with e.loop(0, k) as c:
            targets = [e.at(weight, c)]
            targets += [e.at(first, e.add(e.times(c, padded), j)) for j in range(d)]
            targets += [e.at(second, e.add(e.times(c, triangle), j)) for j in range(triangle)]
            for i, target in enumerate(targets):
                place = e.times(e.add(e.times(c, n), i), WIDTH)
                value = e.builder.fadd(e.builder.load(target), wide.total(wide.load(sums, place)))
                e.builder.store(value, target)
                wide.store(wide.zero(), sums, place)

    return fold_lanes
