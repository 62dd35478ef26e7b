"""The pass for a triangular factor a component (full covariances) in 1 to 4 dimensions: one body for each.

The mathematics is that of `full.py`. With so few features all the moments of a component stay in registers, so lanes
run over samples throughout and nothing is gathered. Components near one another go about their common centre
(`near_small.py`). `make_block` writes the body for a number of features.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from fastgmm.kernels import arguments as a
from fastgmm.kernels import near_small, softmax, tile
from fastgmm.kernels._jit import inlined
from fastgmm.kernels.arguments import TILE, at, float64_pointer, pointer
from fastgmm.kernels.micro import V, centred
from fastgmm.kernels.near_small import ask_ahead, beside
from fastgmm.kernels.registers import joined
from fastgmm.kernels.simd import VECTOR_BYTES, Emitter, Value, micro
from fastgmm.kernels.tile import add_total
from fastgmm.kernels.workspace import (
    NEGLIGIBLE_DIGITS,
    NEGLIGIBLE_DIGITS_SINGLE,
    begin_block,
    finish_labels,
    helper,
    load_weights,
    parameters,
    workspace,
)

LARGEST = 4
PROBED = 4 * TILE  # rows, of whose first panel it is found out whether most components have none of it
SHARED_BYTES = 64  # of what a row has for all components, up to which those of a whole tile stay in a first-level cache


def make_deinterleave(d: int) -> Any:
    """(rows, d) to (d, TILE) for a number of rows that is a multiple of the lanes."""

    @micro
    def deinterleave(e: Emitter, rows: Value, count: Value, out: Value) -> None:
        with e.loop(0, count, e.lanes) as t:
            places = [e.add(e.times(t, d), i * e.lanes) for i in range(d)]
            given = [e.load(rows, place) for place in places]
            pairs = [
                e.shuffle(given[i], given[min(i + 1, d - 1)], range(2 * e.lanes)) for i in range(0, d, 2)
            ]  # one or two double vectors that hold everything in order
            for j in range(d):
                lanes = [i * d + j for i in range(e.lanes)]
                column = given[0] if d == 1 else e.shuffle(pairs[0], pairs[-1], _picked(lanes, len(pairs), e.lanes))
                e.store(column, out, e.add(t, j * TILE))

    return deinterleave


def _picked(lanes: list[int], pairs: int, width: int) -> list[int]:
    """Positions in the concatenation of the first and the last double vector."""
    return lanes if pairs == 2 else [i % (2 * width) for i in lanes]


def make_density(d: int) -> Any:
    """Log-densities of all components for a tile, and the largest of every row.

    A factor is its lower triangle, row by row, times sqrt(1/2). Asks for the lines of `ahead`, float64, a row each, to
    write to them later, and for those of the rows that are `following`: a CPU waits for at most 16 lines at a time.
    """
    triangle = d * (d + 1) // 2

    @micro
    def density(
        e: Emitter,
        columns: Value,
        count: Value,
        means: Value,
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
            x = [[narrow.load(columns, e.add(place, j * TILE)) for j in range(d)] for place in places]
            largest = [e.variable(narrow.constant(float("-inf"))) for _ in places]
            if asks:
                ask_ahead(e, t, d, ahead, following)
            with e.loop(0, k) as c:
                mean, factor = e.at(means, e.times(c, 2 * d)), e.at(factors, e.times(c, triangle))
                values = [narrow.broadcast(log_norm, c)] * len(places)
                u: list[list[Value]] = []
                for i in range(d):
                    u.append([centred(narrow, row[i], mean, i, e.index(d)) for row in x])
                    w = [narrow.broadcast(factor, i * (i + 1) // 2 + j) for j in range(i + 1)]
                    ys = [e.mul(w[0], start) for start in u[0]]
                    for j in range(1, i + 1):
                        ys = [narrow.fma(w[j], part, y) for part, y in zip(u[j], ys, strict=True)]
                    values = [narrow.fma(e.builder.fneg(y), y, value) for y, value in zip(ys, values, strict=True)]
                for place, value, top in zip(places, values, largest, strict=True):
                    e.store(value, out, e.add(e.times(c, TILE), place))
                    e.set(top, narrow.maximum(value, e.get(top)))
            for place, top in zip(places, largest, strict=True):
                e.store(e.get(top), tops, place)

        with e.loop(0, count, V * e.lanes) as t:
            for some in beside(e, d):
                panel(t, some, asks=some.start == 0)

    return density


def make_moments(d: int) -> Any:
    """Weight, first and second moments (lower triangle, row by row) of one component for a tile."""

    @micro
    def moments(
        e: Emitter,
        columns: Value,
        resp: Value,
        scale: Value,
        count: Value,
        mean: Value,
        weight: Value,
        first: Value,
        second: Value,
    ) -> None:
        narrow = e.narrow

        def some(h: int) -> list[Value]:
            s0 = e.variable(narrow.zero())
            s1 = [e.variable(narrow.zero()) for _ in range(d)]
            s2 = [[e.variable(narrow.zero()) for _ in range(i + 1)] for i in range(d)]
            with e.loop(0, count, V * e.lanes) as begin:
                places = [e.add(begin, v * e.lanes + h) for v in range(V)]
                shares = [e.mul(narrow.load(resp, t), narrow.load(scale, t)) for t in places]
                together = functools.reduce(e.plus, shares)
                e.set(s0, e.plus(together, e.get(s0)))
                with e.when(narrow.any(e.compare(">", together, narrow.zero()))):
                    for t, r in zip(places, shares, strict=True):
                        x = [narrow.load(columns, e.add(t, j * TILE)) for j in range(d)]
                        u = [centred(narrow, x[j], mean, j, e.index(d)) for j in range(d)]
                        for i in range(d):
                            weighted = e.mul(r, u[i])
                            e.set(s1[i], e.plus(weighted, e.get(s1[i])))
                            for j in range(i + 1):
                                e.set(s2[i][j], narrow.fma(weighted, u[j], e.get(s2[i][j])))
            return [e.get(total) for total in (s0, *s1, *itertools.chain(*s2))]

        # of each register of a vector the sums apart: all of them are too many where registers are small
        found = [some(h) for h in range(0, e.lanes, narrow.lanes)]
        sums = [joined(e, list(pieces)) for pieces in zip(*found, strict=True)]
        places = [(weight, 0), *((first, i) for i in range(d)), *((second, i) for i in range(d * (d + 1) // 2))]
        for total, (target, i) in zip(sums, places, strict=True):
            add_total(e, total, target, e.index(i))

    return moments


@helper
def alike(weight, count):  # type: ignore[no-untyped-def]  # Numba code
    """Whether rows weigh the same."""
    same = True
    for i in range(1, count):
        same = same and weight[i] == weight[0]
    return same


@inlined
def whole_panels(given, start, count, total, d, ws):  # type: ignore[no-untyped-def]  # Numba code
    """A tile's rows; the last panel is filled up with the last row."""
    rows = at(given, start * d)
    if count < total:
        for i in range(total * d):
            ws.rows[i] = rows[i] if i < count * d else rows[(count - 1) * d + i % d]
        rows = ws.rows
    return rows


@inlined
def finish_scores(table, count, total, sparse, out, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """What SCORE asks for, from log-densities and the largest of every row."""
    k = table[a.N_COMPONENTS]
    digits = NEGLIGIBLE_DIGITS if table[a.SIZE] == 8 else NEGLIGIBLE_DIGITS_SINGLE
    if sparse:
        softmax.sum_exponentials(ws.resp, ws.values, total, k, TILE, digits, ws.scale)
    else:
        softmax.sum_all_exponentials(ws.resp, ws.values, total, k, TILE, digits, ws.scale)
    top = float64_pointer(table[a.TOP])[0] if table[a.TOP] != 0 else 0.0
    where = out if count == total else ws.logs
    softmax.row_logs(ws.values, ws.scale, ws.weight, total, top, where, slot)
    if count < total:
        for i in range(count):
            out[i] = ws.logs[i]


@inlined
def finish_shares(table, total, sparse, alone, tag, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
    """From log-densities to resp and scale, whose product are the responsibilities.

    `alone`: what becomes of a row must not hang, in the last bits, on the rows beside it.
    """
    k, cut = table[a.N_COMPONENTS], pointer(table[a.CUT], tag)
    if sparse:
        softmax.exponentials(ws.resp, ws.values, cut, total, k, TILE, ws.scale)
    else:
        softmax.all_exponentials(ws.resp, ws.values, cut, total, k, TILE, ws.scale)
    if alone:
        softmax.row_scales(ws.values, ws.weight, ws.scale, total, ws.logs, slot)
    else:
        softmax.equal_row_scales(ws.values, ws.weight, ws.scale, total, slot)


@functools.cache
def make_block(d: int) -> Any:
    """The body of the pass for `d` features."""
    deinterleave, density, moments = make_deinterleave(d), make_density(d), make_moments(d)
    near_density, products = near_small.make_near_density(d), near_small.make_products(d)
    lane_sums, fold_lanes = near_small.make_lane_sums(d), near_small.make_fold_lanes(d)
    triangle, moments_a_row = d * (d + 1) // 2, near_small.n_moments(d)

    @inlined
    def near_moments(table, total, tag, ws, sums):  # type: ignore[no-untyped-def]  # Numba code
        """Moments of all components about the common centre."""
        k, centre = table[a.N_COMPONENTS], pointer(table[a.COMMON], tag)
        step = TILE if table[a.SIZE] * moments_a_row <= SHARED_BYTES else TILE // 2
        for i in range(0, total, step):
            some = min(step, total - i)
            products(at(ws.panels, i), at(ws.scale, i), some, centre, ws.centred)
            lane_sums(at(ws.resp, i), ws.centred, some, k, sums)

    @inlined
    def own_moments(table, total, means, ws, slot):  # type: ignore[no-untyped-def]  # Numba code
        """Moments of every component about its mean."""
        for c in range(table[a.N_COMPONENTS]):
            weight, mean = at(slot, a.WEIGHT + c), at(means, c * 2 * d)
            first, second = table[a.FIRST] + c * table[a.PADDED], table[a.SECOND] + c * triangle
            resp = at(ws.resp, c * TILE)
            moments(ws.panels, resp, ws.scale, total, mean, weight, at(slot, first), at(slot, second))

    def small_block(table, item, worker, tag):  # type: ignore[no-untyped-def]  # Numba code: its types are Numba's
        ws = workspace(table, worker, tag)
        begin, end, slot = begin_block(table, item)
        k, mode = table[a.N_COMPONENTS], table[a.MODE]
        panel = V * (VECTOR_BYTES // table[a.SIZE])
        given = pointer(table[a.ROWS], tag)
        means, factors, log_norm = parameters(table, tag)
        weighted = table[a.WEIGHTS] != 0 and (mode == a.FIT or mode == a.EVALUATE or mode == a.ASSIGN)
        near, centre = table[a.COMMON] != 0, pointer(table[a.COMMON], tag)
        sparse = True  # whether exponentials look for panels without a row of a component; the results are the same
        # float64 whatever the rows are: `extra`, which is last in the workspace
        sums = float64_pointer(table[a.SCRATCH] + (worker + 1) * table[a.SCRATCH_BYTES] - table[a.EXTRA])
        if near and mode == a.FIT:
            for i in range(k * moments_a_row * near_small.WIDTH):
                sums[i] = 0.0
        for start in range(begin, end, TILE):
            count = min(TILE, end - start)
            total = (count + panel - 1) // panel * panel
            deinterleave(whole_panels(given, start, count, total, d, ws), total, ws.panels)
            if weighted or count < total or start == begin:  # else all are 1 still
                load_weights(table, start, count, total, ws.weight)
            following = at(given, (start + TILE) * d)
            out = at(float64_pointer(table[a.OUT]), start) if mode == a.SCORE else ws.logs
            if near:
                near_density(ws.panels, total, centre, means, factors, log_norm, k, ws.resp, ws.values, out, following)
            else:
                density(ws.panels, total, means, factors, log_norm, k, ws.resp, ws.values, out, following)
            if near and (start - begin) % PROBED == 0:  # in an image, say, rows of few components lie together
                softmax.live_components(ws.resp, ws.values, pointer(table[a.CUT], tag), k, TILE, ws.found)
                sparse = 2 * ws.found[0] <= k
            if mode == a.SCORE:
                finish_scores(table, count, total, sparse, out, ws, slot)
            elif mode == a.PREDICT or mode == a.ASSIGN:
                finish_labels(table, start, count, total, ws, slot)
            else:
                # a row's own probabilities hang on no other, and weights of 1 are as good as none
                alone = mode == a.PROBABILITY or count < total or (weighted and not alike(ws.weight, total))
                finish_shares(table, total, sparse, alone, tag, ws, slot)
            if mode == a.PROBABILITY:
                probability = at(float64_pointer(table[a.OUT]), start * k)
                tile.write_probabilities(ws.resp, ws.scale, count, k, TILE, probability)
            if near and mode == a.FIT:
                near_moments(table, total, tag, ws, sums)
            elif mode == a.FIT or mode == a.ASSIGN:
                own_moments(table, total, means, ws, slot)
        if near and mode == a.FIT:
            weight, first, second = at(slot, a.WEIGHT), at(slot, table[a.FIRST]), at(slot, table[a.SECOND])
            fold_lanes(sums, k, weight, first, table[a.PADDED], second)

    return small_block
