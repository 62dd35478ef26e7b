"""What every pass does with a tile of rows: bring it in, pick the live rows, label them; see `softmax.py` as well.

These micro-kernels know no covariance family. The plain twin of each is in `tile_twins.py`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastgmm.kernels.micro import V
from fastgmm.kernels.pick import append, picking
from fastgmm.kernels.registers import joined
from fastgmm.kernels.simd import DOUBLE, I32, I64, Emitter, Value, micro


@micro
def copy_rows(e: Emitter, source: Value, n: Value, padded: Value, count: Value, total: Value, rows: Value) -> None:
    """rows[i] = source[i] padded with zeros, for i < count; the last row again for count <= i < total."""
    last = e.builder.sub(count, e.index(1))
    whole = e.builder.and_(n, e.index(-e.lanes))
    with e.loop(0, total) as i:
        here = e.builder.select(e.builder.icmp_signed("<", i, count), i, last)
        take = e.at(source, e.times(here, n))
        give = e.at(rows, e.times(i, padded))
        with e.loop(0, whole, e.lanes) as j:
            e.store(e.load(take, j), give, j)
        with e.when(e.builder.icmp_signed("<", whole, n)):
            e.store(e.zero(), give, whole)
            with e.loop(whole, n) as j:
                e.builder.store(e.scalar(take, j), e.at(give, j))


@micro
def prefetch(e: Emitter, rows: Value, begin: Value, end: Value) -> None:
    """Ask for the elements `begin` to `end` - 1 of rows that will be copied soon; nothing changes."""
    with e.loop(begin, end, e.lanes) as i:
        e.prefetch(rows, i)


@micro
def centre_rows(e: Emitter, rows: Value, centre: Value, padded: Value, count: Value) -> None:
    """rows -= centre, in place; `centre` is padded like a row, its low part follows (float32)."""
    with e.loop(0, count) as t, e.loop(0, padded, e.lanes) as c:
        place = e.add(e.times(t, padded), c)
        x = e.minus(e.load(rows, place), e.load(centre, c))
        if e.real != DOUBLE:
            x = e.minus(x, e.load(centre, e.add(c, padded)))
        e.store(x, rows, place)


@micro
def weigh(
    e: Emitter, values: Value, step: Value, resp: Value, count: Value, k: Value, stride: Value, sums: Value
) -> None:
    """sums[component] (float64) += sum over rows of resp * values; where resp is 0, values may be infinite.

    Values of two components lie `step` elements apart; 0 where all share them.
    """
    with e.loop(0, k) as c:
        total = e.variable(e.zero())
        with e.loop(0, count, e.lanes) as t:
            r = e.load(resp, e.add(e.times(c, stride), t))
            given = e.load(values, e.add(e.times(c, step), t))
            value = e.select(e.compare(">", r, e.zero()), given, e.zero())
            e.set(total, e.fma(value, r, e.get(total)))
        add_total(e, e.get(total), sums, c)


def make_select(*, roots: bool) -> Any:
    """`select_live` as it is described below; with `roots`, `resp`, `scale` and `values` hold square roots."""

    @micro
    def select_live(
        e: Emitter,
        resp: Value,
        scale: Value,
        panels: Value,
        groups: Value,
        live: Value,
        values: Value,
        found: Value,
        weights: Value,
    ) -> None:
        """List one component's rows of positive responsibility r = resp * scale in the first `panels` panels.

        groups[0] says which panels have any, as `softmax` wrote it. live[i] (int32) is the i-th such row and values[i]
        its r; found[0] (int64) says how many; weights[0] (float64) += sum of r. `live` and `values` need room for one
        more vector than they can hold.
        """
        some = picking(e)
        used = e.variable(e.index(0))
        totals = [e.variable(some.zero()) for _ in range(0, e.lanes, some.lanes)]

        def pick(t: Value, total: Value) -> None:
            """Without a branch: which vectors of a marked panel have live rows nobody can foretell."""
            r = e.mul(some.load(resp, t), some.load(scale, t))
            e.set(used, append(some, e.compare(">", r, some.zero()), t, r, live, values, e.get(used)))
            e.set(total, some.fma(r, r, e.get(total)) if roots else e.plus(e.get(total), r))

        marked = e.builder.load(groups)
        with e.loop(0, panels) as g:
            bit = e.builder.and_(e.builder.lshr(marked, g), e.index(1))
            with e.when(e.builder.icmp_unsigned("!=", bit, e.index(0))):
                for i in range(0, V * e.lanes, some.lanes):
                    pick(e.add(e.times(g, V * e.lanes), i), totals[i % e.lanes // some.lanes])
        e.builder.store(e.get(used), found)
        add_total(e, joined(e, [e.get(total) for total in totals]), weights, e.index(0))

    return select_live


select_live = make_select(roots=False)
select_live_roots = make_select(roots=True)


def add_total(e: Emitter, value: Value, target: Value, index: Value) -> None:
    """target[index] += the sum of the lanes; target is float64."""
    wide = e.doubles
    pieces = e.widen(value)
    whole = pieces[0] if len(pieces) == 1 else wide.plus(pieces[0], pieces[1])
    e.builder.store(e.builder.fadd(wide.scalar(target, index), wide.total(whole)), wide.at(target, index))


@micro
def largest(e: Emitter, resp: Value, count: Value, k: Value, stride: Value, labels: Value) -> None:
    """labels[row] (int64) = the component of the largest log-density, the first of equal ones; -1 for none.

    `count` rows are whole panels.
    """
    integers = ir.VectorType(e.integer, e.lanes)

    def every(value: int) -> Value:
        return ir.Constant(integers, [value] * e.lanes)

    with e.loop(0, count, V * e.lanes) as t:
        rows = [e.add(t, v * e.lanes) for v in range(V)]
        tops = [e.variable(e.constant(float("-inf"))) for _ in rows]
        best = [e.variable(every(-1)) for _ in rows]
        with e.loop(0, k) as c:
            number = e.builder.trunc(c, e.integer) if e.size == 4 else c
            one = e.builder.insert_element(ir.Constant(integers, ir.Undefined), number, ir.Constant(I32, 0))
            numbers = e.shuffle(one, one, [0] * e.lanes)
            for row, top, label in zip(rows, tops, best, strict=True):
                x = e.load(resp, e.add(e.times(c, stride), row))
                better = e.compare(">", x, e.get(top))
                e.set(top, e.maximum(x, e.get(top)))
                e.set(label, e.select(better, numbers, e.get(label)))
        for row, label in zip(rows, best, strict=True):
            for part in range(e.lanes // 8):
                piece = e.get(label) if e.size == 8 else e.half(e.get(label), part)
                wide = piece if e.size == 8 else e.builder.sext(piece, ir.VectorType(I64, 8))
                e.store(wide, labels, e.add(row, part * 8))


@micro
def one_hot(
    e: Emitter,
    resp: Value,
    labels: Value,
    weight: Value,
    scale: Value,
    count: Value,
    k: Value,
    stride: Value,
    sums: Value,
) -> None:
    """Hard responsibilities: resp[component, row] = 1 for the row's label, else 0; scale[row] = weight[row].

    sums[0] += weight * log-density of the label, sums[2] += rows of positive weight without a label. `count` rows are
    whole panels.
    """
    wide = ir.VectorType(I64, 8)

    def load(t: Value, part: int) -> Value:
        """Labels of a part of a vector of rows."""
        place = e.builder.bitcast(e.at(labels, e.add(t, part * 8)), wide.as_pointer())
        return e.builder.load(place, align=8)

    zero = ir.Constant(DOUBLE, 0.0)
    density, lost = (e.variable(e.builder.load(e.at(sums, i))) for i in (0, 2))
    with e.loop(0, count) as t:
        label = e.builder.load(e.at(labels, t))
        w = e.builder.load(e.at(weight, t))
        found = e.builder.icmp_signed(">=", label, e.index(0))
        own = e.builder.load(e.at(resp, e.add(e.times(e.builder.select(found, label, e.index(0)), stride), t)))
        own = own if e.size == 8 else e.builder.fpext(own, DOUBLE)
        e.set(density, e.builder.fadd(e.get(density), e.builder.select(found, e.builder.fmul(w, own), zero)))
        missed = e.builder.and_(e.builder.not_(found), e.builder.fcmp_ordered(">", w, zero))
        e.set(lost, e.builder.fadd(e.get(lost), e.builder.uitofp(missed, DOUBLE)))
        usable = e.builder.select(found, w, zero)
        e.builder.store(usable if e.size == 8 else e.builder.fptrunc(usable, e.real), e.at(scale, t))
    for i, total in ((0, density), (2, lost)):
        e.builder.store(e.get(total), e.at(sums, i))
    with e.loop(0, k) as c:
        row = e.at(resp, e.times(c, stride))
        one = e.builder.insert_element(ir.Constant(wide, ir.Undefined), c, ir.Constant(I32, 0))
        numbers = e.shuffle(one, one, [0] * 8)
        with e.loop(0, count, e.lanes) as t:
            parts = [e.builder.icmp_signed("==", load(t, part), numbers) for part in range(e.lanes // 8)]
            own = parts[0] if e.lanes == 8 else e.shuffle(parts[0], parts[1], range(e.lanes))
            e.store(e.select(own, e.constant(1.0), e.zero()), row, t)


def make_write(*, roots: bool) -> Any:
    """`write_probabilities` for responsibilities or, with `roots`, their square roots."""

    @micro
    def write_probabilities(
        e: Emitter, resp: Value, scale: Value, count: Value, k: Value, stride: Value, out: Value
    ) -> None:
        """out[row, component] (float64) = resp[component, row] * scale[row]."""
        with e.loop(0, count) as t:
            s = e.scalar(scale, t)
            with e.loop(0, k) as c:
                r = e.builder.fmul(e.scalar(resp, e.add(e.times(c, stride), t)), s)
                r = r if e.size == 8 else e.builder.fpext(r, DOUBLE)
                e.builder.store(e.builder.fmul(r, r) if roots else r, e.at(out, e.add(e.times(t, k), c)))

    return write_probabilities


write_probabilities = make_write(roots=False)
write_probabilities_roots = make_write(roots=True)
