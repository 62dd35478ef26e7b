"""Micro-kernels for densities without products of features: diagonal and spherical covariances.

A log-density is a sum over the features, for every pair of component and row. Blocks of 8 components and a panel of
rows have their sums in registers (`registers.py`); layouts are those of `micro.py`, the plain twins in `twins.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastgmm.kernels.micro import BLOCKS, V, for_row_blocks
from fastgmm.kernels.registers import COLUMNS, Part, for_parts
from fastgmm.kernels.simd import DOUBLE, Emitter, Value, micro_apart


def over_pairs(
    e: Emitter,
    panel: Value,
    n: Value,
    k: Value,
    term: Any,
    use: Any,
    ahead: Value | None = None,
    unroll: int = 1,
    columns: int = COLUMNS,
) -> None:
    """Sum over the features for every component and row of a panel; ``use(part, first, sums)`` takes some of them.

    `first` is the first component of the sums, a list of registers for each component.
    ``term(where)`` reads the coefficients of a component and feature, at `where` of arrays that hold, for each block of
    q components (`row_blocks` of K), the features in order, each as q numbers; it returns ``add(x, sum)``, the new sum.
    Both are of the narrow emitter. At most `columns` registers of rows are beside one another: coefficients take some.
    The Q rows that lie at `ahead` are asked for meanwhile, evenly spread: a CPU waits for at most 16 lines at a time.
    Blocks of 8 components take `unroll` features a step.
    """
    narrow, width = e.narrow, V * e.lanes
    share = e.builder.sdiv(e.add(k, 8 * width - 1), k)  # elements of those rows for a feature and 8 components
    many = e.builder.icmp_signed(">", e.times(share, unroll), e.index(e.lanes))

    def block(q: int, first: Value) -> None:
        base = e.times(first, n)
        start = None if ahead is None else e.at(ahead, e.builder.sdiv(e.times(base, width), k))
        if start is not None and narrow is not e:  # once for all parts
            with e.loop(0, e.builder.sdiv(e.times(n, q * width), k), e.lanes) as i:
                e.prefetch(start, i)
            start = None

        def some(part: Part) -> None:
            sums = [[e.variable(narrow.zero()) for _ in part.columns] for _ in range(part.rows)]

            def step(j: Value, features: int, *, often: bool = True) -> None:
                values, at = e.at(panel, e.add(e.times(j, width), part.column)), e.add(base, e.times(j, q))
                if start is not None:
                    place = e.at(start, e.times(j, share))
                    for u in range(2 * features if often else 1):
                        e.prefetch(place, u * e.lanes)
                for u in range(features):
                    x = [narrow.load(values, u * width + c) for c in part.columns]
                    for r in range(part.rows):
                        add = term(e.add(e.add(at, part.row), u * q + r))
                        for value, total in zip(x, sums[r], strict=True):
                            e.set(total, add(value, e.get(total)))

            several = unroll if q == BLOCKS[0] and narrow is e else 1
            whole = n if several == 1 else e.builder.and_(n, e.index(-several))
            if start is None or q < BLOCKS[0]:
                with e.loop(0, whole, several) as j:
                    step(j, several)
            else:  # one request a step does where a line of those rows lasts for a step; no branch in the loop itself
                with e.builder.if_else(many) as (yes, no):
                    with yes, e.loop(0, whole, several) as j:
                        step(j, several)
                    with no, e.loop(0, whole, several) as j:
                        step(j, several, often=False)
            if several > 1:
                with e.loop(whole, n) as j:
                    step(j, 1)
            use(part, e.add(first, part.row), [[e.get(total) for total in totals] for totals in sums])

        for_parts(e, q, V, some, columns)

    for_row_blocks(e, k, block)


def numbered(e: Emitter, first: Value, rows: list[Any]) -> Iterator[tuple[Value, Any]]:
    """Components from `first` on, each with what a list has for it."""
    for r, row in enumerate(rows):
        yield e.add(first, r), row


def distances(e: Emitter, panel: Value, means: Value, scales: Value | None, n: Value, k: Value, use: Any) -> None:
    """Squared distances of a panel's rows from all components; see `over_pairs`.

    `scales` are 1/std, for diagonal covariances; for float32 the low parts of the means follow in an array of their
    shape.
    """
    low = e.times(n, k)
    narrow = e.narrow

    def term(where: Value) -> Any:
        mean = narrow.broadcast(means, where)
        rest = None if e.real == DOUBLE else narrow.broadcast(means, e.add(where, low))
        scale = None if scales is None else narrow.broadcast(scales, where)

        def add(x: Value, total: Value) -> Value:
            u = e.minus(x, mean)
            u = u if rest is None else e.minus(u, rest)
            u = u if scale is None else e.mul(u, scale)
            return narrow.fma(u, u, total)

        return add

    over_pairs(e, panel, n, k, term, use, columns=2)


@micro_apart
def diagonal_density(
    e: Emitter,
    panels: Value,
    count: Value,
    means: Value,
    scales: Value,
    log_norm: Value,
    n: Value,
    k: Value,
    out: Value,
    stride: Value,
) -> None:
    """out[component, row] = log_norm - |scale * (x_row - mean)|^2 / 2 for the rows of `count` panels."""
    narrow, width = e.narrow, V * e.lanes
    with e.loop(0, count) as p:

        def use(part: Part, first: Value, sums: list[list[Value]], p: Value = p) -> None:
            start = e.add(e.times(p, width), part.column)
            for component, found in numbered(e, first, sums):
                place, constant = e.add(e.times(component, stride), start), narrow.broadcast(log_norm, component)
                for c, d in zip(part.columns, found, strict=True):
                    e.store(narrow.fma(d, narrow.constant(-0.5), constant), out, e.add(place, c))

        distances(e, e.at(panels, e.times(p, e.times(n, width))), means, scales, n, k, use)


@micro_apart
def scalar_density(
    e: Emitter,
    panels: Value,
    count: Value,
    means: Value,
    scales: Value,
    log_norm: Value,
    n: Value,
    k: Value,
    out: Value,
    squares: Value,
    stride: Value,
) -> None:
    """out[component, row] = log_norm - (scale * |x_row - mean|)^2 / 2; one scale a component.

    squares[component, row] = |x_row - mean|^2.
    """
    narrow, width = e.narrow, V * e.lanes
    with e.loop(0, count) as p:

        def use(part: Part, first: Value, sums: list[list[Value]], p: Value = p) -> None:
            start = e.add(e.times(p, width), part.column)
            for component, found in numbered(e, first, sums):
                scale, constant = narrow.broadcast(scales, component), narrow.broadcast(log_norm, component)
                row = e.add(e.times(component, stride), start)
                for c, d in zip(part.columns, found, strict=True):
                    # scale twice, so that neither the square of a scale nor that of a distance has to be representable
                    value = narrow.fma(e.mul(e.mul(d, scale), scale), narrow.constant(-0.5), constant)
                    e.store(value, out, e.add(row, c))
                    e.store(d, squares, e.add(row, c))

        distances(e, e.at(panels, e.times(p, e.times(n, width))), means, None, n, k, use)
