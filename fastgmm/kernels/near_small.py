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
        with e.loop(0, count, V * e.lanes) as t:
            places = [e.add(t, v * e.lanes) for v in range(V)]
            u = [[centred_column(e, columns, place, j, centre) for j in range(d)] for place in places]
            largest = [e.variable(e.constant(float("-inf"))) for _ in places]
            ask_ahead(e, t, d, ahead, following)
            with e.loop(0, k) as c:
                shift, factor = e.at(shifts, e.times(c, d)), e.at(factors, e.times(c, triangle))
                w = [[e.broadcast(factor, i * (i + 1) // 2 + j) for j in range(i + 1)] for i in range(d)]
                starts = [e.broadcast(shift, i) for i in range(d)]
                constant = e.broadcast(log_norm, c)
                for place, row, top in zip(places, u, largest, strict=True):
                    value = constant
                    for i, y in enumerate(starts):
                        for j in range(i + 1):
                            y = e.fma(w[i][j], row[j], y)
                        value = e.fma(e.builder.fneg(y), y, value)
                    e.store(value, out, e.add(e.times(c, TILE), place))
                    e.set(top, e.maximum(value, e.get(top)))
            for place, top in zip(places, largest, strict=True):
                e.store(e.get(top), tops, place)

    return near_density


def ask_ahead(e: Emitter, t: Value, d: int, ahead: Value, following: Value) -> None:
    """Ask for the lines of a panel, from row t on: of `ahead`, a float64 a row, and of rows that follow."""
    for line in range(V * e.lanes // 8):
        e.prefetch(ahead, e.add(t, line * 8), write=True)
    for line in range(V * d):
        e.prefetch(following, e.add(e.times(t, d), line * e.lanes))


def centred_column(e: Emitter, columns: Value, place: Value, j: int, centre: Value) -> Value:
    """A vector of feature j of the rows from `place` on, about the centre."""
    return centred(e, e.load(columns, e.add(place, j * TILE)), centre, j, e.index(e.lanes))


def make_products(d: int) -> Any:
    """What all components share of a tile's rows: s, s u and the lower triangle of s u u', (moments, TILE)."""

    @micro
    def products(e: Emitter, columns: Value, scale: Value, count: Value, centre: Value, out: Value) -> None:
        with e.loop(0, count, e.lanes) as t:
            s = e.load(scale, t)
            u = [centred_column(e, columns, t, j, centre) for j in range(d)]
            scaled = [e.mul(s, x) for x in u]
            second = [e.mul(scaled[i], u[j]) for i in range(d) for j in range(i + 1)]
            for i, value in enumerate((s, *scaled, *second)):
                e.store(value, out, e.add(t, i * TILE))

    return products


def make_lane_sums(d: int) -> Any:
    """sums[component, moment, i] (float64) += sum over the rows t with t mod WIDTH = i of resp * shared moment."""
    n = n_moments(d)
    pieces = -(-n // M)
    most = -(-n // pieces)

    @micro
    def lane_sums(e: Emitter, resp: Value, shared: Value, count: Value, k: Value, sums: Value) -> None:
        wide = e.doubles

        def block(q: int, first: Value) -> None:
            weights, target = e.at(resp, e.times(first, TILE)), e.at(sums, e.times(first, n * WIDTH))
            for begin in range(0, n, most):
                columns = range(begin, min(begin + most, n))
                places = [[(r * n + j) * WIDTH for j in columns] for r in range(q)]
                s = [[e.variable(e.zero() if e.size == 4 else e.load(target, p)) for p in row] for row in places]
                with e.loop(0, count, e.lanes) as t:
                    r = [e.load(weights, e.add(t, i * TILE)) for i in range(q)]
                    for i, j in enumerate(columns):
                        x = e.load(shared, e.add(t, j * TILE))
                        for own, mine in zip(s, r, strict=True):
                            e.set(own[i], e.fma(mine, x, e.get(own[i])))
                for row, own in zip(places, s, strict=True):
                    for place, total in zip(row, own, strict=True):
                        value = e.get(total)
                        if e.size == 4:
                            half = e.builder.fadd(e.half(value, 0), e.half(value, 1))
                            value = wide.plus(e.builder.fpext(half, wide.vector), wide.load(target, place))
                        wide.store(value, target, place)

        largest = BLOCKS[0]
        done = e.builder.and_(k, e.index(-largest))
        with e.loop(0, done, largest) as first:
            block(largest, first)
        for q in BLOCKS[1:]:
            bit = e.builder.and_(k, e.index(q))
            with e.when(e.builder.icmp_unsigned("!=", bit, e.index(0))):
                block(q, done)
            done = e.add(done, bit)

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
