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

from llvmlite import ir

from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import DOUBLE, I1, I64, Emitter, Value, micro_apart
from fastgmm.kernels.tile import add_total

LN2 = math.log(2.0)
LOWEST = {8: -1e300, 4: -3e38}  # a log-density at or below counts as none, by element size


def finish_rows(
    e: Emitter, tops: Value, weight: Value, scale: Value, count: Value, logs: Value, sums: Value, *, roots: bool
) -> None:
    """From the largest log-density of every row and, in `scale`, its sum to their logs, scales and shares of `sums`."""
    wide = e.doubles
    likelihood, uncertainty, weights = (wide.variable(wide.zero()) for _ in range(3))
    bad = e.variable(e.index(0))
    with e.loop(0, count, e.lanes) as t:
        scales = []
        for part, (f, s, m) in enumerate(in_halves(e, e.load(tops, t), e.load(scale, t))):
            w = wide.load(weight, e.add(t, part * 8))
            wide.set(weights, wide.plus(w, wide.get(weights)))
            rest, inverse = wide.log_and_inverse(wide.select(f, s, wide.constant(1.0)))
            usable = wide.select(f, w, wide.zero())
            density = wide.plus(m, rest)
            wide.store(wide.select(f, density, wide.constant(float("-inf"))), logs, e.add(t, part * 8))
            wide.set(likelihood, wide.fma(usable, density, wide.get(likelihood)))
            wide.set(uncertainty, wide.fma(usable, rest, wide.get(uncertainty)))
            factor = wide.mul(usable, inverse)
            scales.append(wide.sqrt(factor) if roots else factor)
            lost = e.builder.and_(e.builder.not_(f), wide.compare(">", w, wide.zero()))
            e.set(bad, e.add(e.get(bad), wide.count(lost)))
        narrow = ir.VectorType(e.real, 8)
        for part, s in enumerate(scales):
            e.store(s if len(scales) == 1 else e.builder.fptrunc(s, narrow), scale, e.add(t, part * 8))
    certainty = wide.minus(wide.zero(), wide.get(uncertainty))
    for i, value in ((0, wide.get(likelihood)), (1, certainty), (3, wide.get(weights))):
        add_total(wide, value, sums, e.index(i))
    add_lost(wide, e.get(bad), sums)


def in_halves(e: Emitter, top: Value, total: Value) -> list[tuple[Value, Value, Value]]:
    """Whether rows have a density, their sums and their largest log-densities or 0, as float64 vectors."""
    fine = e.compare(">", top, e.constant(LOWEST[e.size]))
    fines = [fine] if e.lanes == 8 else [e.half(fine, 0), e.half(fine, 1)]
    return list(zip(fines, e.widen(total), e.widen(e.select(fine, top, e.zero())), strict=True))


def add_lost(wide: Emitter, bad: Value, sums: Value) -> None:
    """sums[2] += a number of rows."""
    builder = wide.builder
    builder.store(builder.fadd(wide.scalar(sums, 2), builder.sitofp(bad, DOUBLE)), wide.at(sums, 2))


def make_softmax(*, roots: bool) -> Any:
    """`softmax` as it is described below; with `roots` it leaves the square roots of what it describes."""

    @micro_apart
    def softmax(
        e: Emitter,
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
        alive = e.variable(e.index(0))
        has_tops = e.builder.icmp_signed("!=", known, e.index(0))
        # V vectors of rows at a time, so that the long chains of exp overlap
        with e.loop(0, count, V * e.lanes) as t:
            rows = [e.add(t, v * e.lanes) for v in range(V)]
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
                    for value, mask, argument in zip(values, live, x, strict=True):
                        e.set(value, e.exp(argument, half=roots, where=mask))
                first = e.builder.icmp_signed("==", t, e.index(0))
                before = e.builder.select(first, e.index(0), e.builder.load(e.at(groups, c)))
                bit = e.builder.shl(e.builder.zext(anywhere, I64), e.builder.udiv(t, e.index(V * e.lanes)))
                e.builder.store(e.builder.or_(before, bit), e.at(groups, c))
                for value, place, total in zip(values, places, totals, strict=True):
                    v = e.get(value)
                    e.store(v, resp, place)
                    e.set(total, e.fma(v, v, e.get(total)) if roots else e.plus(e.get(total), v))
            for row, total in zip(rows, totals, strict=True):
                e.store(e.get(total), scale, row)
        e.builder.store(e.get(alive), found)
        finish_rows(e, tops, weight, scale, count, logs, sums, roots=roots)

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
        with e.loop(0, count, V * e.lanes) as t:
            rows = [e.add(t, v * e.lanes) for v in range(V)]
            largest = [usable_top(e, e.load(tops, row)) for row in rows]
            found = [e.variable(e.zero()) for _ in rows]
            with e.loop(0, k) as c:
                places = [e.add(e.times(c, stride), row) for row in rows]
                least = e.broadcast(cut, c)
                x = [e.minus(e.load(resp, place), m) for place, m in zip(places, largest, strict=True)]
                live = [e.compare(">=", value, least) for value in x]
                values = [e.variable(e.zero()) for _ in rows]
                with e.when(any_of(e, live)) if skips else contextlib.nullcontext():
                    for value, mask, argument in zip(values, live, x, strict=True):
                        e.set(value, e.exp(argument, where=mask))
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
    largest = [usable_top(e, e.load(tops, v * e.lanes)) for v in range(V)]
    alive = e.variable(e.index(0))
    with e.loop(0, k) as c:
        least = e.broadcast(cut, c)
        given = [e.load(resp, e.add(e.times(c, stride), v * e.lanes)) for v in range(V)]
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
    wide = e.doubles
    likelihood, certainty = (wide.variable(wide.zero()) for _ in range(2))
    lost, w = e.variable(e.index(0)), wide.broadcast(weight)
    with e.loop(0, count, V * e.lanes) as t:
        rows = [e.add(t, v * e.lanes) for v in range(V)]
        top, total = ([e.variable(e.load(source, row)) for row in rows] for source in (tops, scale))
        bad = [e.builder.not_(e.compare(">", e.get(m), e.constant(LOWEST[e.size]))) for m in top]
        some = any_of(e, bad)
        with e.when(some):
            for m, s, mask in zip(top, total, bad, strict=True):
                e.set(m, e.select(mask, e.zero(), e.get(m)))
                e.set(s, e.select(mask, e.constant(1.0), e.get(s)))
                e.set(lost, e.add(e.get(lost), e.count(mask)))
        s, m = ([part for value in values for part in e.widen(e.get(value))] for values in (total, top))
        products = list(itertools.accumulate(s, wide.mul))
        log, inverse = wide.log_and_inverse(products[-1])
        density = wide.plus(functools.reduce(wide.plus, m), log)
        wide.set(likelihood, wide.fma(w, density, wide.get(likelihood)))
        wide.set(certainty, wide.minus(wide.get(certainty), wide.mul(w, log)))
        inverse = wide.mul(inverse, w)
        for i in reversed(range(len(s))):  # `inverse` is that of products[i]
            value = wide.mul(inverse, products[i - 1]) if i else inverse
            inverse = wide.mul(inverse, s[i])
            narrow = value if e.size == 8 else e.builder.fptrunc(value, ir.VectorType(e.real, 8))
            e.store(narrow, scale, e.add(t, i * 8))
        with e.when(some):
            for row, mask in zip(rows, bad, strict=True):
                e.store(e.select(mask, e.zero(), e.load(scale, row)), scale, row)
    for i, value in ((0, wide.get(likelihood)), (1, wide.get(certainty))):
        add_total(wide, value, sums, e.index(i))
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
        leading = e.call("llvm.ctlz.i64", I64, [e.add(k, -1), ir.Constant(I1, 0)])
        digits = e.add(digits, e.builder.sub(e.index(64), leading))  # and those of k
        least = e.splat(e.builder.fmul(e.builder.sitofp(digits, e.real), ir.Constant(e.real, -LN2)))
        with e.loop(0, count, V * e.lanes) as t:
            rows = [e.add(t, v * e.lanes) for v in range(V)]
            largest = [usable_top(e, e.load(tops, row)) for row in rows]
            bounds = [e.plus(m, least) for m in largest]
            found = [e.variable(e.zero()) for _ in rows]
            with e.loop(0, k) as c:
                given = [e.load(resp, e.add(e.times(c, stride), row)) for row in rows]
                live = [e.compare(">=", value, bound) for value, bound in zip(given, bounds, strict=True)]
                with e.when(any_of(e, live)) if skips else contextlib.nullcontext():
                    for value, mask, m, total in zip(given, live, largest, found, strict=True):
                        e.set(total, e.add_exp(e.get(total), e.minus(value, m), mask))
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
    wide = e.doubles
    bad = e.variable(e.index(0))
    with e.loop(0, count, e.lanes) as t:
        top, total = e.load(tops, t), e.load(totals, t)
        densities = []
        for m, s in zip(e.widen(top), e.widen(total), strict=True):
            densities.append(wide.plus(wide.plus(m, wide.log_and_inverse(s)[0]), wide.splat(more)))
            wide.store(densities[-1], out, e.add(t, (len(densities) - 1) * 8))
        lost = e.builder.not_(e.compare(">", top, e.constant(LOWEST[e.size])))
        with e.when(e.any(lost)):
            for part, density in enumerate(densities):
                row, mask = e.add(t, part * 8), lost if e.lanes == 8 else e.half(lost, part)
                wide.store(wide.select(mask, wide.constant(float("-inf")), density), out, row)
                positive = wide.compare(">", wide.load(weight, row), wide.zero())
                e.set(bad, e.add(e.get(bad), wide.count(e.builder.and_(mask, positive))))
    add_lost(wide, e.get(bad), sums)


def usable_top(e: Emitter, top: Value) -> Value:
    """The largest log-density of rows; 0 where there is none."""
    return e.select(e.compare(">", top, e.constant(LOWEST[e.size])), top, e.zero())


def packed(e: Emitter, masks: list[Value]) -> Value:
    """The lanes of V masks as the bits of one i64: their number and whether there are any then take one look."""
    parts = [e.builder.zext(e.bits(mask), I64) for mask in masks]
    return functools.reduce(e.builder.or_, [e.builder.shl(part, e.index(i * e.lanes)) for i, part in enumerate(parts)])


def any_of(e: Emitter, masks: list[Value]) -> Value:
    """Whether any lane of any mask is set."""
    return e.any(functools.reduce(e.builder.or_, masks))
