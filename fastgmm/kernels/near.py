"""Micro-kernels for components that lie near one another: sums about one centre common to all of them.

With u = x - c and the components within a few standard deviations of c, nothing is lost by expanding a square, and half
of the work of `micro.py` goes away: one fused multiply-add replaces the subtraction and the scaling of a diagonal
density, a plain product of rows and means replaces the squared distance, and moments are products of responsibilities
with u and u^2, which all components share. `programs.py` says how near is near enough; layouts are those of `micro.py`.
"""

from __future__ import annotations

from fastgmm.kernels.micro import V, for_row_blocks
from fastgmm.kernels.simd import Emitter, Value, micro


@micro
def square_norms(e: Emitter, panels: Value, count: Value, n: Value, out: Value) -> None:
    """out[row] = |row|^2 for the rows of `count` panels."""
    width = V * e.lanes
    with e.loop(0, count) as p:
        panel = e.at(panels, e.times(p, e.times(n, width)))
        sums = [e.variable(e.zero()) for _ in range(V)]
        with e.loop(0, n) as j:
            for v in range(V):
                x = e.load(panel, e.add(e.times(j, width), v * e.lanes))
                e.set(sums[v], e.fma(x, x, e.get(sums[v])))
        for v in range(V):
            e.store(e.get(sums[v]), out, e.add(e.times(p, width), v * e.lanes))


@micro
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
) -> None:
    """out[component, row] = log_norm - |scale * x_row + shift|^2 / 2; shift is -scale * mean."""
    width = V * e.lanes
    with e.loop(0, count) as p:
        panel = e.at(panels, e.times(p, e.times(n, width)))

        def block(q: int, first: Value, p: Value = p, panel: Value = panel) -> None:
            base = e.times(first, n)
            d = [[e.variable(e.zero()) for _ in range(V)] for _ in range(q)]
            with e.loop(0, n) as j:
                x = [e.load(panel, e.add(e.times(j, width), v * e.lanes)) for v in range(V)]
                at = e.add(base, e.times(j, q))
                for r in range(q):
                    scale, shift = e.broadcast(scales, e.add(at, r)), e.broadcast(shifts, e.add(at, r))
                    for v in range(V):
                        y = e.fma(x[v], scale, shift)
                        e.set(d[r][v], e.fma(y, y, e.get(d[r][v])))
            for r in range(q):
                c = e.add(first, r)
                for v in range(V):
                    value = e.fma(e.get(d[r][v]), e.constant(-0.5), e.broadcast(log_norm, c))
                    e.store(value, out, e.add(e.times(c, stride), e.add(e.times(p, width), v * e.lanes)))

        for_row_blocks(e, k, block)


@micro
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
) -> None:
    """out[component, row] = constant + scale * (x_row . mean - norms[row] / 2), with norms[row] = |x_row|^2.

    With scale = 1 / variance and constant = log_norm - scale |mean|^2 / 2 this is the log-density.
    """
    width = V * e.lanes
    with e.loop(0, count) as p:
        panel = e.at(panels, e.times(p, e.times(n, width)))

        def block(q: int, first: Value, p: Value = p, panel: Value = panel) -> None:
            base = e.times(first, n)
            dot = [[e.variable(e.zero()) for _ in range(V)] for _ in range(q)]
            with e.loop(0, n) as j:
                x = [e.load(panel, e.add(e.times(j, width), v * e.lanes)) for v in range(V)]
                at = e.add(base, e.times(j, q))
                for r in range(q):
                    mean = e.broadcast(means, e.add(at, r))
                    for v in range(V):
                        e.set(dot[r][v], e.fma(x[v], mean, e.get(dot[r][v])))
            for v in range(V):
                row = e.add(e.times(p, width), v * e.lanes)
                norm = e.load(norms, row)
                for r in range(q):
                    c = e.add(first, r)
                    value = e.fma(norm, e.constant(-0.5), e.get(dot[r][v]))
                    value = e.fma(value, e.broadcast(scales, c), e.broadcast(constants, c))
                    e.store(value, out, e.add(e.times(c, stride), row))

        for_row_blocks(e, k, block)


@micro
def square_rows(e: Emitter, rows: Value, padded: Value, count: Value, out: Value) -> None:
    """Out = rows * rows, element by element."""
    with e.loop(0, e.times(count, padded), e.lanes) as i:
        x = e.load(rows, i)
        e.store(e.mul(x, x), out, i)
