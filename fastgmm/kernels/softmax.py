"""From log-densities to responsibilities, and to the log-density of every row; the plain twins: `softmax_twins.py`.

A fit needs the exponentials of all log-densities (`softmax`; `exponentials`, where the largest of every row is known),
a log-density only their sum (`sum_exponentials`), whose logarithm `row_logs` takes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from typing import Any

import numpy as np
from llvmlite import ir

from fastgmm.kernels import elementary
from fastgmm.kernels.micro import V
from fastgmm.kernels.registers import joined
from fastgmm.kernels.simd import DOUBLE, I1, I64, VECTOR_BYTES, Emitter, Value, micro_apart
from fastgmm.kernels.tile import add_total

LN2 = math.log(2.0)
LOWEST = {8: -1e300, 4: -3e38}  # a log-density at or below counts as none, by element size


def together(e: Emitter) -> tuple[Emitter, range]:
    """The emitter for a panel of rows, whose long chains overlap, and where its vectors begin, from the first row on.

    With AVX2 they are more than registers hold. That costs less than waiting for chains, or than looking twice or
    three times as often whether a component has rows.
    """
    narrow = e.narrow
    return narrow, range(0, V * e.lanes, narrow.lanes)


def doubles(wide: Emitter, pointer: Value, index: Value) -> Value:
    """A vector for the float64 emitter `wide` from an array of either type."""
    real = pointer.type.pointee
    if real == DOUBLE:
        return wide.load(pointer, index)
    given = Emitter(wide.builder, real, wide.registers, wide.lanes)
    return wide.builder.fpext(given.load(pointer, index), wide.vector)


def keep(wide: Emitter, value: Value, pointer: Value, index: Value) -> None:
    """Write a vector of the float64 emitter `wide` to an array of either type."""
    real = pointer.type.pointee
    value = value if real == DOUBLE else wide.builder.fptrunc(value, ir.VectorType(real, wide.lanes))
    wide.store(value, pointer, index)


def lowest(e: Emitter) -> float:
    """A log-density at or below counts as none: `LOWEST` as a number of the rows' type."""
    return LOWEST[8] if e.size == 8 else float(np.float32(LOWEST[4]))


def finish_rows(
    e: Emitter, tops: Value, weight: Value, scale: Value, count: Value, logs: Value, sums: Value, *, roots: bool
) -> None:
    """From the largest log-density of every row and, in `scale`, its sum to their logs, scales and shares of `sums`."""
    wide = e.doubles.narrow
    parts, least = range(0, 8, wide.lanes), wide.constant(lowest(e))
    likelihood, uncertainty, weights = ([wide.variable(wide.zero()) for _ in parts] for _ in range(3))
    bad = e.variable(e.index(0))
    with e.loop(0, count, e.lanes) as t:
        for eight in range(0, e.lanes, 8):
            rows = [e.add(t, eight + part) for part in parts]
            top = [doubles(wide, tops, row) for row in rows]
            fine = [wide.compare(">", m, least) for m in top]
            totals = [
                wide.select(f, doubles(wide, scale, row), wide.constant(1.0)) for f, row in zip(fine, rows, strict=True)
            ]
            found = elementary.logs_and_inverses(wide, totals)
            for i, (row, m, f, (rest, inverse)) in enumerate(zip(rows, top, fine, found, strict=True)):
                w = wide.load(weight, row)
                wide.set(weights[i], wide.plus(w, wide.get(weights[i])))
                usable = wide.select(f, w, wide.zero())
                density = wide.plus(wide.select(f, m, wide.zero()), rest)
                wide.store(wide.select(f, density, wide.constant(float("-inf"))), logs, row)
                wide.set(likelihood[i], wide.fma(usable, density, wide.get(likelihood[i])))
                wide.set(uncertainty[i], wide.fma(usable, rest, wide.get(uncertainty[i])))
                factor = wide.mul(usable, inverse)
                keep(wide, wide.sqrt(factor) if roots else factor, scale, row)
                lost = e.builder.and_(e.builder.not_(f), wide.compare(">", w, wide.zero()))
                e.set(bad, e.add(e.get(bad), wide.count(lost)))
    certainty = [wide.minus(wide.zero(), wide.get(value)) for value in uncertainty]
    for i, values in ((0, [wide.get(value) for value in likelihood]), (1, certainty)):
        add_total(e.doubles, joined(wide, values), sums, e.index(i))
    add_total(e.doubles, joined(wide, [wide.get(value) for value in weights]), sums, e.index(3))
    add_lost(e.doubles, e.get(bad), sums)


def add_lost(wide: Emitter, bad: Value, sums: Value) -> None:
    """sums[2] += a number of rows."""
    builder = wide.builder
    builder.store(builder.fadd(wide.scalar(sums, 2), builder.sitofp(bad, DOUBLE)), wide.at(sums, 2))


def make_softmax(*, roots: bool) -> Any:
    """`softmax` as it is described below; with `roots` it leaves the square roots of what it describes."""

    @micro_apart
    def softmax(
        given: Emitter,
        resp: Value,
        tops: Value,
        known: Value,
        cut: Value,
        weight: Value,
        scale: Value,
        count: Value,
        k: Value,
        stride: Value,
        logs: Value,
        sums: Value,
        found: Value,
        groups: Value,
    ) -> None:
        """Log-densities to unnormalised responsibilities, for `count` rows (whole panels).

        tops[row] becomes, or is if `known` is not 0, m, the row's largest l, -inf where all are or are no number;
        resp[component, row] becomes exp(l - m), or 0 where l - m < cut[component];
        scale[row] becomes weight[row] / sum, so that resp * scale is the weighted responsibility; logs[row] (float64)
        becomes the log-density, -inf where no component's is finite. Added to `sums` (float64): the weighted
        log-likelihood, weight * (m + log sum); the weighted log of the largest responsibility, -weight * log sum; the
        number of rows of positive weight without a finite log-density, which get no responsibility; the sum of the
        weights. found[0] (int64) says how many responsibilities are not 0, and bit g of groups[component] (int64)
        whether any of panel g's is not.
        """
        e, vectors = together(given)
        panel = V * given.lanes
        alive = e.variable(e.index(0))
        has_tops = e.builder.icmp_signed("!=", known, e.index(0))
        with e.loop(0, count, len(vectors) * e.lanes) as t:
            rows = [e.add(t, v) for v in vectors]
            with e.when(e.builder.not_(has_tops)):
                most = [e.variable(e.constant(float("-inf"))) for _ in rows]
                with e.loop(0, k) as c:
                    for top, row in zip(most, rows, strict=True):
                        e.set(top, e.maximum(e.load(resp, e.add(e.times(c, stride), row)), e.get(top)))
                for top, row in zip(most, rows, strict=True):
                    e.store(e.get(top), tops, row)
            largest = [usable_top(e, e.load(tops, row)) for row in rows]
            totals = [e.variable(e.zero()) for _ in rows]
            with e.loop(0, k) as c:
                places = [e.add(e.times(c, stride), row) for row in rows]
                least = e.broadcast(cut, c)
                x = [e.minus(e.load(resp, place), m) for place, m in zip(places, largest, strict=True)]
                live = [e.compare(">=", value, least) for value in x]
                values = [e.variable(e.zero()) for _ in rows]
                marks = packed(e, live)
                e.set(alive, e.add(e.get(alive), e.call("llvm.ctpop.i64", I64, [marks])))
                anywhere = e.builder.icmp_unsigned("!=", marks, e.index(0))
                with e.when(anywhere):
                    for value, found_value in zip(values, elementary.exps(e, x, half=roots, where=live), strict=True):
                        e.set(value, found_value)
                first = e.builder.icmp_signed("==", t, e.index(0))
                before = e.builder.select(first, e.index(0), e.builder.load(e.at(groups, c)))
                bit = e.builder.shl(e.builder.zext(anywhere, I64), e.builder.udiv(t, e.index(panel)))
                e.builder.store(e.builder.or_(before, bit), e.at(groups, c))
                for value, place, total in zip(values, places, totals, strict=True):
                    v = e.get(value)
                    e.store(v, resp, place)
                    e.set(total, e.fma(v, v, e.get(total)) if roots else e.plus(e.get(total), v))
            for row, total in zip(rows, totals, strict=True):
                e.store(e.get(total), scale, row)
        e.builder.store(e.get(alive), found)
        finish_rows(given, tops, weight, scale, count, logs, sums, roots=roots)

    return softmax


softmax = make_softmax(roots=False)
softmax_roots = make_softmax(roots=True)


def make_exponentials(*, skips: bool) -> Any:
    """`exponentials` as it is described below; with `skips` a panel is passed over where a component has none."""

    @micro_apart
    def exponentials(
        e: Emitter, resp: Value, tops: Value, cut: Value, count: Value, k: Value, stride: Value, totals: Value
    ) -> None:
        """resp[component, row] = exp(l - m), or 0 where l - m < cut[component]; totals[row] = their sum.

        m is tops[row], the largest l of the row, or 0 where none is finite. For `count` rows, whole panels.
        """
        e, vectors = together(e)
        with e.loop(0, count, len(vectors) * e.lanes) as t:
            rows = [e.add(t, v) for v in vectors]
            largest = [usable_top(e, e.load(tops, row)) for row in rows]
            found = [e.variable(e.zero()) for _ in rows]
            with e.loop(0, k) as c:
                places = [e.add(e.times(c, stride), row) for row in rows]
                least = e.broadcast(cut, c)
                x = [e.minus(e.load(resp, place), m) for place, m in zip(places, largest, strict=True)]
                live = [e.compare(">=", value, least) for value in x]
                values = [e.variable(e.zero()) for _ in rows]
                with e.when(any_of(e, live)) if skips else contextlib.nullcontext():
                    for value, result in zip(values, elementary.exps(e, x, where=live), strict=True):
                        e.set(value, result)
                for value, place, total in zip(values, places, found, strict=True):
                    e.store(e.get(value), resp, place)
                    e.set(total, e.plus(e.get(total), e.get(value)))
            for row, total in zip(rows, found, strict=True):
                e.store(e.get(total), totals, row)

    return exponentials


exponentials = make_exponentials(skips=True)
all_exponentials = make_exponentials(skips=False)  # faster where hardly a panel would be passed over


@micro_apart
def live_components(e: Emitter, resp: Value, tops: Value, cut: Value, k: Value, stride: Value, found: Value) -> None:
    """found[0] (int64) = the number of components that have a row of the first panel: l - m >= cut[component]."""
    e, places = together(e)
    largest = [usable_top(e, e.load(tops, place)) for place in places]
    alive = e.variable(e.index(0))
    with e.loop(0, k) as c:
        least = e.broadcast(cut, c)
        given = [e.load(resp, e.add(e.times(c, stride), place)) for place in places]
        live = [e.compare(">=", e.minus(x, m), least) for x, m in zip(given, largest, strict=True)]
        e.set(alive, e.add(e.get(alive), e.builder.zext(any_of(e, live), I64)))
    e.builder.store(e.get(alive), found)


@micro_apart
def row_scales(e: Emitter, tops: Value, weight: Value, scale: Value, count: Value, logs: Value, sums: Value) -> None:
    """What `softmax` says of scale, logs and sums, from tops[row] and, in scale[row], the row's sum of `resp`."""
    finish_rows(e, tops, weight, scale, count, logs, sums, roots=False)


@micro_apart
def equal_row_scales(e: Emitter, tops: Value, weight: Value, scale: Value, count: Value, sums: Value) -> None:
    """What `row_scales` does for rows that all weigh weight[0] (float64), but no logs, for whole panels.

    Of every eighth row of a panel one logarithm and one reciprocal are taken, those of the product of their sums: there
    are at most six, and each is at least 1 and at most the number of components.
    """
    wide = e.doubles.narrow
    parts, least = range(0, 8, wide.lanes), wide.constant(lowest(e))
    likelihood, certainty = ([wide.variable(wide.zero()) for _ in parts] for _ in range(2))
    lost, w = e.variable(e.index(0)), wide.broadcast(weight)
    with e.loop(0, count, V * e.lanes) as t:
        rows = [[e.add(t, eight + part) for eight in range(0, V * e.lanes, 8)] for part in parts]
        top, total = (
            [[e.variable(doubles(wide, source, row)) for row in some] for some in rows] for source in (tops, scale)
        )
        some_bad = any_of(wide, [none_fine(wide, wide.get(m), least) for some in top for m in some])
        with e.when(some_bad):
            for m, s in zip(itertools.chain(*top), itertools.chain(*total), strict=True):
                mask = none_fine(wide, wide.get(m), least)
                e.set(m, wide.select(mask, wide.zero(), wide.get(m)))
                e.set(s, wide.select(mask, wide.constant(1.0), wide.get(s)))
                e.set(lost, e.add(e.get(lost), wide.count(mask)))
        sums_of = [[wide.get(s) for s in some] for some in total]
        products = [list(itertools.accumulate(some, wide.mul)) for some in sums_of]
        found = elementary.logs_and_inverses(wide, [some[-1] for some in products])
        for i, (log, inverse) in enumerate(found):
            density = wide.plus(functools.reduce(wide.plus, [wide.get(m) for m in top[i]]), log)
            wide.set(likelihood[i], wide.fma(w, density, wide.get(likelihood[i])))
            wide.set(certainty[i], wide.minus(wide.get(certainty[i]), wide.mul(w, log)))
            left = wide.mul(inverse, w)
            for j in reversed(range(len(products[i]))):  # `left` is that of products[i][j]
                value = wide.mul(left, products[i][j - 1]) if j else left
                left = wide.mul(left, sums_of[i][j])
                keep(wide, value, scale, rows[i][j])
        with e.when(some_bad):
            for row in itertools.chain(*rows):
                mask = none_fine(wide, doubles(wide, tops, row), least)
                keep(wide, wide.select(mask, wide.zero(), doubles(wide, scale, row)), scale, row)
    for i, values in ((0, likelihood), (1, certainty)):
        add_total(e.doubles, joined(wide, [wide.get(value) for value in values]), sums, e.index(i))
    one = wide.scalar(weight)
    weighs = e.builder.fcmp_ordered(">", one, ir.Constant(DOUBLE, 0.0))
    add_lost(wide, e.builder.select(weighs, e.get(lost), e.index(0)), sums)
    together = e.builder.fmul(one, e.builder.sitofp(count, DOUBLE))
    e.builder.store(e.builder.fadd(wide.scalar(sums, 3), together), wide.at(sums, 3))


@micro_apart
def row_tops(e: Emitter, resp: Value, count: Value, k: Value, stride: Value, tops: Value) -> None:
    """tops[row] = the largest of resp[component, row], -inf where all are or are no number; whole panels."""
    with e.loop(0, count, V * e.lanes) as t:
        rows = [e.add(t, v * e.lanes) for v in range(V)]
        found = [e.variable(e.constant(float("-inf"))) for _ in rows]
        with e.loop(0, k) as c:
            for top, row in zip(found, rows, strict=True):
                e.set(top, e.maximum(e.load(resp, e.add(e.times(c, stride), row)), e.get(top)))
        for top, row in zip(found, rows, strict=True):
            e.store(e.get(top), tops, row)


def make_sum_exponentials(*, skips: bool) -> Any:
    """`sum_exponentials` as it is described below; `skips` as for `make_exponentials`."""

    @micro_apart
    def sum_exponentials(
        e: Emitter, resp: Value, tops: Value, count: Value, k: Value, stride: Value, digits: Value, totals: Value
    ) -> None:
        """totals[row] = sum of exp(l - m) over the components, without what is below 2^-digits / k: at most 2^-digits.

        l and m as for `exponentials`, for `count` rows, whole panels.
        """
        e, vectors = together(e)
        leading = e.call("llvm.ctlz.i64", I64, [e.add(k, -1), ir.Constant(I1, 0)])
        digits = e.add(digits, e.builder.sub(e.index(64), leading))  # and those of k
        least = e.splat(e.builder.fmul(e.builder.sitofp(digits, e.real), ir.Constant(e.real, -LN2)))
        with e.loop(0, count, len(vectors) * e.lanes) as t:
            rows = [e.add(t, v) for v in vectors]
            largest = [usable_top(e, e.load(tops, row)) for row in rows]
            bounds = [e.plus(m, least) for m in largest]
            found = [e.variable(e.zero()) for _ in rows]
            with e.loop(0, k) as c:
                given = [e.load(resp, e.add(e.times(c, stride), row)) for row in rows]
                live = [e.compare(">=", value, bound) for value, bound in zip(given, bounds, strict=True)]
                with e.when(any_of(e, live)) if skips else contextlib.nullcontext():
                    x = [e.minus(value, m) for value, m in zip(given, largest, strict=True)]
                    results = elementary.add_exps(e, [e.get(total) for total in found], x, live)
                    for total, result in zip(found, results, strict=True):
                        e.set(total, result)
            for row, total in zip(rows, found, strict=True):
                e.store(e.get(total), totals, row)

    return sum_exponentials


sum_exponentials = make_sum_exponentials(skips=True)
sum_all_exponentials = make_sum_exponentials(skips=False)


@micro_apart
def row_logs(
    e: Emitter, tops: Value, totals: Value, weight: Value, count: Value, more: Value, out: Value, sums: Value
) -> None:
    """out[row] (float64) = tops + log(totals) + more, -inf where no component has a finite log-density.

    The number of such rows of positive weight is added to sums[2]. `more` is a float64.
    """
    wide = e.doubles.narrow
    parts, least = range(0, 8, wide.lanes), wide.constant(lowest(e))
    bad, rest = e.variable(e.index(0)), wide.splat(more)
    with e.loop(0, count, e.lanes) as t:
        rows = [e.add(t, place) for eight in range(0, e.lanes, 8) for place in (eight + part for part in parts)]
        top = [doubles(wide, tops, row) for row in rows]
        found = elementary.logs_and_inverses(wide, [doubles(wide, totals, row) for row in rows])
        for row, m, (log, _) in zip(rows, top, found, strict=True):
            wide.store(wide.plus(wide.plus(m, log), rest), out, row)
        with e.when(any_of(wide, [none_fine(wide, m, least) for m in top])):
            for row in rows:
                mask = none_fine(wide, doubles(wide, tops, row), least)
                wide.store(wide.select(mask, wide.constant(float("-inf")), wide.load(out, row)), out, row)
                positive = wide.compare(">", wide.load(weight, row), wide.zero())
                e.set(bad, e.add(e.get(bad), wide.count(e.builder.and_(mask, positive))))
    add_lost(wide, e.get(bad), sums)


def none_fine(wide: Emitter, top: Value, least: Value) -> Value:
    """The rows that have no density."""
    return wide.builder.not_(wide.compare(">", top, least))


def usable_top(e: Emitter, top: Value) -> Value:
    """The largest log-density of rows; 0 where there is none."""
    return e.select(e.compare(">", top, e.constant(LOWEST[e.size])), top, e.zero())


def packed(e: Emitter, masks: list[Value]) -> Value:
    """The lanes of some masks as the bits of one i64: their number and whether there are any then take one look."""
    parts = [e.builder.zext(e.bits(mask), I64) for mask in masks]
    if e.registers.size < VECTOR_BYTES:  # an instruction each; the compiler would join the masks first, in four
        parts = [e.hidden(part) for part in parts]
    return functools.reduce(e.builder.or_, [e.builder.shl(part, e.index(i * e.lanes)) for i, part in enumerate(parts)])


def any_of(e: Emitter, masks: list[Value]) -> Value:
    """Whether any lane of any mask is set."""
    return e.any(functools.reduce(e.builder.or_, masks))
