"""Micro-kernels on matrix units (`matrix_units.py`): float32 densities and moments about a common centre.

Layouts, in float32 elements; B = ceil(D / 16) blocks and S = ceil(D / 32) steps of features, R = ceil(T / 32) of rows:

* columns: (R, S, 2, parts, tile), right factors of the density: terms are features, columns are two times 16 rows;
* factors: for block i of a triangle's rows and step s <= i / 2 the three parts of a left factor, one after another;
* halves: (R, B, parts, tile), right factors of the moments: terms are rows t and t + 16, columns are features;
* weighted: (2, R, 2, parts, tile), left factors of the moments: for two blocks of features in turn, of two components;
* sums: (K, B (B + 1) / 2, tile), the tiles of the lower triangles, row by row;
* moments: as `micro.rank_update` packs them, which for vectors of 16 means: row i of the triangle begins at
  128 b (b + 1) + (i mod 16) 16 (b + 1) with b = i / 16, and has 16 (b + 1) columns.

The units work beside the rest of the processor: what is done with a sum, and the next factors, come between products.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from fastgmm.kernels.matrix_units import (
    SIDE,
    STEP_FLOATS,
    TERMS,
    TILE_FLOATS,
    awake,
    bring,
    clear,
    configure,
    keep,
    multiply_add,
    paired,
    release,
    split,
)
from fastgmm.kernels.micro import V, add_to
from fastgmm.kernels.simd import Emitter, Value, micro

WIDTH = V * SIDE  # rows of a panel
PAIR = 2  # right factors that share a left one, and components that share right ones
LAG = 2  # pairs of blocks between the products of a density and what is done with them
ROOM = 2 * PAIR * TILE_FLOATS  # sums of a pair of blocks
WORK = (LAG + 1) * ROOM + TILE_FLOATS  # and one to be stored for nothing


def _blocks(e: Emitter, n: Value, size: int) -> Value:
    return e.builder.udiv(e.add(n, size - 1), e.index(size))


def _at_most(e: Emitter, a: Value, b: Value) -> Value:
    return e.builder.select(e.builder.icmp_signed("<", a, b), a, b)


def _in_panels(e: Emitter, vector: Value, n: Value) -> Value:
    """Where in panels the vector of rows 16 `vector` .. begins; its features lie `WIDTH` apart."""
    panel = e.builder.udiv(vector, e.index(V))
    return e.add(e.times(e.times(panel, n), WIDTH), e.times(e.builder.urem(vector, e.index(V)), SIDE))


@micro
def begin_units(e: Emitter, any_pointer: Value) -> None:
    """Set the units up in this thread."""
    configure(e)


@micro
def end_units(e: Emitter, any_pointer: Value) -> None:
    """Give them back."""
    release(e)


@micro
def split_columns(e: Emitter, panels: Value, count: Value, n: Value, out: Value) -> None:
    """`columns` of `count` rows, a multiple of 16."""
    steps = _blocks(e, n, TERMS)
    whole = e.builder.udiv(n, e.index(2))
    last = e.builder.udiv(e.add(n, 1), e.index(2))
    zero = split(e, e.zero())
    vectors = e.builder.udiv(count, e.index(SIDE))
    with e.loop(0, vectors) as v:
        source = e.at(panels, _in_panels(e, v, n))
        pair, inside = e.builder.udiv(v, e.index(PAIR)), e.builder.urem(v, e.index(PAIR))
        target = e.at(out, e.add(e.times(e.times(pair, steps), PAIR * STEP_FLOATS), e.times(inside, STEP_FLOATS)))

        def place(q: Value, target: Value = target) -> Value:
            """Row of pair q of features, in the tile of its step."""
            step = e.builder.udiv(q, e.index(TERMS // 2))
            row = e.builder.urem(q, e.index(TERMS // 2))
            return e.at(target, e.add(e.times(step, PAIR * STEP_FLOATS), e.times(row, SIDE)))

        def feature(j: Value, source: Value = source) -> list[Value]:
            return split(e, e.load(source, e.times(j, WIDTH)))

        with e.loop(0, whole) as q:
            paired(e, feature(e.times(q, 2)), feature(e.add(e.times(q, 2), 1)), place(q))
        with e.loop(whole, last) as q:
            paired(e, feature(e.times(q, 2)), zero, place(q))
        with e.loop(last, e.times(steps, TERMS // 2)) as q:
            paired(e, zero, zero, place(q))


@micro
def matrix_density(
    e: Emitter,
    columns: Value,
    shifts: Value,
    factors: Value,
    length: Value,
    n: Value,
    k: Value,
    log_norm: Value,
    work: Value,
    out: Value,
    stride: Value,
) -> None:
    """out[component, row] = log_norm - |W x_row + shift|^2 / 2 for 32 rows and all of `k` components.

    `columns` are those of the 32 rows, so small that they stay in the first-level cache. `shifts` have whole blocks,
    filled with zeros, `factors` lie `length` elements apart, the components of `out` `stride`. `work` has room for
    `WORK` elements.
    """
    builder = e.builder
    blocks, none = _blocks(e, n, SIDE), e.index(0)
    squares = [e.variable(e.zero()) for _ in range(PAIR)]
    # Sums lie in a ring of `LAG` + 1 rooms, and are used while those of the second pair after them are formed: what
    # reads a tile right after its store waits for all products before it, and the next products wait for what waits.
    past = [[e.variable(none) for _ in range(3)] for _ in range(LAG)]  # component, first block, room; oldest first

    def use(rows: range) -> None:
        """Square some of the oldest sums, by row of two blocks."""
        c, i, room = (e.get(value) for value in past[0])
        start = e.at(shifts, e.add(e.times(c, e.times(blocks, SIDE)), e.times(i, SIDE)))
        place = e.at(work, room)

        def add(r: int) -> None:
            block, row = divmod(r, SIDE)
            shift = e.broadcast(start, r)
            for g in range(PAIR):
                y = e.plus(e.load(place, (PAIR * block + g) * TILE_FLOATS + row * SIDE), shift)
                e.set(squares[g], e.fma(y, y, e.get(squares[g])))

        if 0 in rows:  # of a component's first blocks?
            begins = builder.icmp_signed("==", i, none)
            for g in range(PAIR):
                e.set(squares[g], builder.select(begins, e.zero(), e.get(squares[g])))
        for r in rows:
            if r < SIDE:
                add(r)
        with e.when(builder.icmp_signed("<", e.add(i, 1), blocks)):  # is there a second block?
            for r in rows:
                if r >= SIDE:
                    add(r)
        if rows.stop == PAIR * SIDE:  # a component's last blocks write last
            constant = e.broadcast(log_norm, c)
            for g in range(PAIR):
                value = e.fma(e.get(squares[g]), e.constant(-0.5), constant)
                e.store(value, out, e.add(e.times(c, stride), g * SIDE))

    def pass_on(*newest: Value) -> None:
        for older, newer in itertools.pairwise(past):
            for to, source in zip(older, newer, strict=True):
                e.set(to, e.get(source))
        for to, value in zip(past[-1], newest, strict=False):
            e.set(to, value)

    def store_last(register: int) -> None:
        """What the register holds of the pair of blocks before, or, at first, whatever it holds."""
        keep(e, register, e.at(work, e.add(e.get(past[-1][2]), register * TILE_FLOATS)))

    def begin(register: int) -> None:
        store_last(register)
        clear(e, register)

    def multiply(i: Value, left: Value, many: int) -> None:
        """Sums of one block or two from i on, into registers; meanwhile those before are stored, older ones used."""
        steps = e.add(builder.udiv(i, e.index(2)), 1)

        def meanwhile(place: int) -> None:
            use(range(6 * place, min(6 * place + 6, PAIR * SIDE)))

        def step(s: Value, **between: Callable[[int], None]) -> None:
            lefts = [e.at(left, e.times(e.add(s, e.times(steps, b)), STEP_FLOATS)) for b in range(many)]
            rights = [e.at(columns, e.times(e.add(e.times(s, PAIR), g), STEP_FLOATS)) for g in range(PAIR)]
            multiply_add(e, lefts, rights, lambda b, g: PAIR * b + g, **between)

        for register in range(PAIR * many, 2 * PAIR):
            store_last(register)
        step(none, meanwhile=meanwhile, before=begin)
        with e.loop(1, steps) as s:
            step(s)
            awake(e, e.at(work, (LAG + 1) * ROOM))

    room = e.variable(none)
    with e.loop(0, k) as c:
        left = e.variable(e.at(factors, e.times(c, length)))
        with e.loop(0, blocks, 2) as i:
            single = builder.icmp_signed("==", e.add(i, 1), blocks)
            for many in (1, 2):
                with e.when(single if many == 1 else builder.not_(single)):
                    multiply(i, e.get(left), many)
            e.set(left, e.at(e.get(left), e.times(e.add(i, 2), STEP_FLOATS)))
            pass_on(c, i, e.get(room))
            following = e.add(e.get(room), ROOM)
            beyond = builder.icmp_signed("==", following, e.index((LAG + 1) * ROOM))
            e.set(room, builder.select(beyond, none, following))
    for register in range(2 * PAIR):
        store_last(register)
    for _ in range(LAG):
        use(range(PAIR * SIDE))
        pass_on()


@micro
def split_halves(e: Emitter, rows: Value, count: Value, padded: Value, out: Value) -> None:
    """`halves` of `count` rows, a multiple of 16."""
    blocks = e.builder.udiv(padded, e.index(SIDE))
    whole = e.builder.udiv(count, e.index(TERMS))
    zero = split(e, e.zero())

    def step(s: Value, *, both: bool) -> None:
        with e.loop(0, SIDE) as q:
            t = e.add(e.times(s, TERMS), q)
            with e.loop(0, blocks) as b:

                def part(t: Value, b: Value = b) -> list[Value]:
                    return split(e, e.load(rows, e.add(e.times(t, padded), e.times(b, SIDE))))

                place = e.add(e.times(e.add(e.times(s, blocks), b), STEP_FLOATS), e.times(q, SIDE))
                paired(e, part(t), part(e.add(t, SIDE)) if both else zero, e.at(out, place))

    with e.loop(0, whole) as s:
        step(s, both=True)
    with e.when(e.builder.icmp_unsigned("!=", e.times(whole, TERMS), count)):
        step(whole, both=False)


@micro
def matrix_moments(
    e: Emitter,
    resp: Value,
    stride: Value,
    k: Value,
    panels: Value,
    halves: Value,
    begin: Value,
    end: Value,
    n: Value,
    weighted: Value,
    work: Value,
    fresh: Value,
    out: Value,
) -> None:
    """Sums of each of `k` components += sum over rows `begin` .. `end` - 1 of resp u u'; lower triangles.

    `begin` is a multiple of 32, `end` one of 16. Where `fresh` is not 0 the sums begin here.

    `panels` hold the rows by columns (`micro.py`; the 15 columns after the last are read, but do not matter), `halves`
    the same rows. Responsibilities of a component lie `stride` elements apart. `work` has room for a tile. Two
    components at a time share what is loaded; one without a partner gets nobody's, so `out` has places for an even
    number.
    """
    builder = e.builder
    blocks = _blocks(e, n, SIDE)
    before = builder.udiv(begin, e.index(TERMS))
    steps = builder.sub(_blocks(e, end, TERMS), before)
    none, one = e.index(0), e.index(1)
    size = e.times(builder.ashr(e.times(blocks, e.add(blocks, 1)), one), TILE_FLOATS)  # of a component's sums
    buffer = e.times(steps, PAIR * STEP_FLOATS)

    def weigher(c: Value, i: Value, s: Value, target: Value) -> Callable[[range], None]:
        """What makes some rows of step s of the left factors of block i for components c and c + 1."""
        vector = e.times(e.add(before, s), 2)
        columns, weights = [], []
        for half in range(2):
            v = e.add(vector, half)
            inside = builder.icmp_signed("<", e.times(v, SIDE), end)  # past the last row: any numbers, times zero
            v = builder.select(inside, v, vector)
            columns.append(e.at(panels, e.add(_in_panels(e, v, n), e.times(i, SIDE * WIDTH))))
            for g in range(PAIR):
                there = builder.and_(inside, builder.icmp_signed("<", e.add(c, g), k))
                mine = builder.select(there, e.add(c, g), c)
                weight = e.load(resp, e.add(e.times(mine, stride), e.times(v, SIDE)))
                weights.append(builder.select(there, weight, e.zero()))
        place = e.at(target, e.times(s, PAIR * STEP_FLOATS))

        def weigh(rows: range) -> None:
            for r in rows:
                x = [e.load(column, r * WIDTH) for column in columns]
                for g in range(PAIR):
                    both = [split(e, e.mul(weights[half * PAIR + g], x[half])) for half in range(2)]
                    paired(e, both[0], both[1], e.at(place, g * STEP_FLOATS + r * SIDE))

        return weigh

    with e.when(builder.icmp_signed("!=", fresh, none)):  # here and once, so that every group can bring its sums
        everything = e.times(builder.and_(e.add(k, 1), e.index(-PAIR)), size)
        with e.loop(0, everything, e.lanes) as place:
            e.store(e.zero(), out, place)
    held = [e.variable(work) for _ in range(PAIR * PAIR)]  # where what the registers hold belongs, at first nowhere
    current = e.variable(none)  # which of the two buffers holds the left factors
    with e.loop(0, steps) as s:
        weigher(none, none, s, weighted)(range(SIDE))
    with e.loop(0, k, PAIR) as c, e.loop(0, blocks) as i:
        left = e.at(weighted, e.times(e.get(current), buffer))
        e.set(current, builder.sub(e.index(1), e.get(current)))
        other = e.at(weighted, e.times(e.get(current), buffer))
        ends = builder.icmp_signed("==", e.add(i, 1), blocks)
        next_c = builder.select(ends, e.add(c, PAIR), c)
        next_i = builder.select(ends, none, e.add(i, 1))
        more = builder.icmp_signed("<", next_c, k)

        def group(
            j: Value,
            tiles: int,
            *,
            busy: bool,
            left: Value = left,
            following: tuple[Value, Value, Value] = (next_c, next_i, other),
        ) -> None:
            """The products of a block with `tiles` blocks from j on; meanwhile, if busy, the next left factors."""
            place = e.add(
                e.times(c, size), e.times(e.add(e.builder.ashr(e.times(i, e.add(i, 1)), one), j), TILE_FLOATS)
            )

            def sums(g: int, h: int, place: Value = place) -> Value:
                return e.at(out, e.add(place, e.add(e.times(size, g), h * TILE_FLOATS)))

            def begin(register: int) -> None:
                """Store the sum that the register holds of an earlier group, and bring this group's."""
                keep(e, register, e.get(held[register]))
                target = sums(*divmod(register, PAIR))
                bring(e, register, target)
                e.set(held[register], target)

            def step(s: Value, first: Callable[[int], None] | None = None) -> None:
                right = e.at(halves, e.times(e.add(e.times(e.add(before, s), blocks), j), STEP_FLOATS))
                mine = e.at(left, e.times(s, PAIR * STEP_FLOATS))
                next_c, next_i, other = following
                weigh = weigher(next_c, next_i, s, other) if busy else lambda _: None

                def meanwhile(place: int, weigh: Callable[[range], None] = weigh) -> None:
                    weigh(range(3 * place, min(3 * place + 3, SIDE)))

                lefts = [e.at(mine, g * STEP_FLOATS) for g in range(PAIR)]
                rights = [e.at(right, h * STEP_FLOATS) for h in range(tiles)]
                multiply_add(e, lefts, rights, lambda g, h: PAIR * g + h, meanwhile, first)

            step(none, begin)
            with e.loop(1, steps) as s:
                step(s)
                with e.when(builder.icmp_unsigned("==", builder.and_(s, e.index(3)), e.index(3))):
                    awake(e, work)

        with e.loop(0, e.add(i, 1), PAIR) as j:
            wanted = builder.and_(more, builder.icmp_signed("==", j, none))
            single = builder.icmp_signed("==", j, i)
            for busy in (False, True):
                for tiles in (1, PAIR):
                    fits = single if tiles == 1 else builder.not_(single)
                    with e.when(builder.and_(wanted if busy else builder.not_(wanted), fits)):
                        group(j, tiles, busy=busy)
    for register, place in enumerate(held):
        keep(e, register, e.get(place))


@micro
def add_sums(e: Emitter, given: Value, k: Value, n: Value, moments: Value, length: Value) -> None:
    """Add the sums of `matrix_moments` to float64 moments, which lie `length` elements apart."""
    blocks = _blocks(e, n, SIDE)
    place = e.variable(given)
    with e.loop(0, k) as c, e.loop(0, blocks) as i:
        rows = _at_most(e, e.builder.sub(n, e.times(i, SIDE)), e.index(SIDE))
        width = e.times(e.add(i, 1), SIDE)
        target = e.at(moments, e.add(e.times(c, length), e.times(e.times(i, e.add(i, 1)), 128)))
        with e.loop(0, e.add(i, 1)) as j:
            tile = e.get(place)
            with e.loop(0, rows) as r:
                value = e.load(tile, e.times(r, SIDE))
                add_to(e, value, target, e.add(e.times(r, width), e.times(j, SIDE)))
            e.set(place, e.at(tile, TILE_FLOATS))
