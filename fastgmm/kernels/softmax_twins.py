"""Plain NumPy twins of the micro-kernels in `softmax.py`; see `twins.py`."""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.twins import Array, V, by_component, front, lanes

LOWEST = {8: -1e300, 4: -3e38}  # a log-density at or below counts as none


def _softmax(
    resp: Array,
    tops: Array,
    known: int,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
    groups: Array,
    power: float,
) -> None:
    out = by_component(resp, k, stride, count)
    joint = out.astype(np.float64)
    if not known:
        front(tops, count)[:] = np.fmax.reduce(joint, axis=0, initial=-np.inf)  # NaN counts as no density
    largest = front(tops, count).astype(np.float64)
    fine = largest > LOWEST[resp.itemsize]
    with np.errstate(invalid="ignore", over="ignore"):
        below = joint - np.where(fine, largest, 0.0)
        alive = below >= cut.reshape(-1)[:k, None]
        r = np.where(alive, np.exp(below), 0.0)
    found.reshape(-1)[0] = alive.sum()
    width = V * lanes(resp)
    marks = alive.reshape(k, -1, width).any(axis=2)
    groups.reshape(-1)[:k] = (marks << np.arange(marks.shape[1])).sum(axis=1)
    total = np.where(fine, r.sum(axis=0), 1.0)
    w = front(weight, count)
    usable = np.where(fine, w, 0.0)
    log_density = np.where(fine, largest, 0.0) + np.log(total)
    out[:] = r**power
    front(scale, count)[:] = (usable / total) ** power
    front(logs, count)[:] = np.where(fine, log_density, -np.inf)
    sums.reshape(-1)[:4] += (usable @ log_density, -(usable @ np.log(total)), (~fine & (w > 0.0)).sum(), w.sum())


def softmax(
    resp: Array,
    tops: Array,
    known: int,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
    groups: Array,
) -> None:
    """Log-densities l to r = exp(l - max l), 0 where l - max l < cut; scale = weight / sum of r; logs = log sum exp l.

    Tops = the largest l, or already are if known.

    Sums += (sum of w logs, sum of w log(largest responsibility), rows without a density, sum of w); found = r that are
    not 0; bit g of groups[c]: panel g has one.
    """
    _softmax(resp, tops, known, cut, weight, scale, count, k, stride, logs, sums, found, groups, 1.0)


def softmax_roots(
    resp: Array,
    tops: Array,
    known: int,
    cut: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    logs: Array,
    sums: Array,
    found: Array,
    groups: Array,
) -> None:
    """`softmax` that leaves the square roots of r and of scale."""
    _softmax(resp, tops, known, cut, weight, scale, count, k, stride, logs, sums, found, groups, 0.5)


def _usable(tops: Array, count: int) -> tuple[Array, Array]:
    """Whether rows have a density, and the largest log-density or 0."""
    top = front(tops, count).astype(np.float64)
    fine = top > LOWEST[tops.itemsize]
    return fine, np.where(fine, top, 0.0)


def exponentials(resp: Array, tops: Array, cut: Array, count: int, k: int, stride: int, totals: Array) -> None:
    """resp = exp(resp - tops), 0 where resp - tops < cut; totals = their sums."""
    out = by_component(resp, k, stride, count)
    with np.errstate(invalid="ignore", over="ignore"):
        below = out.astype(np.float64) - _usable(tops, count)[1]
        out[:] = np.where(below >= cut.reshape(-1)[:k, None], np.exp(below), 0.0)
    front(totals, count)[:] = out.astype(np.float64).sum(axis=0)


all_exponentials = exponentials


def row_scales(tops: Array, weight: Array, scale: Array, count: int, logs: Array, sums: Array) -> None:
    """Scale (sums of responsibilities) to weight / scale; logs = tops + log scale; sums as `softmax` has them."""
    fine, top = _usable(tops, count)
    total, w = np.where(fine, front(scale, count), 1.0), front(weight, count)
    usable = np.where(fine, w, 0.0)
    front(scale, count)[:] = usable / total
    density = top + np.log(total)
    front(logs, count)[:] = np.where(fine, density, -np.inf)
    sums.reshape(-1)[:4] += (usable @ density, -(usable @ np.log(total)), (~fine & (w > 0.0)).sum(), w.sum())


def live_components(resp: Array, tops: Array, cut: Array, k: int, stride: int, found: Array) -> None:
    """found[0] = components with resp - tops >= cut in a row of the first panel."""
    count = V * lanes(resp)
    with np.errstate(invalid="ignore"):
        below = by_component(resp, k, stride, count).astype(np.float64) - _usable(tops, count)[1]
    found.reshape(-1)[0] = (below >= cut.reshape(-1)[:k, None]).any(axis=1).sum()


def equal_row_scales(tops: Array, weight: Array, scale: Array, count: int, sums: Array) -> None:
    """`row_scales` for rows of one weight, without logs."""
    row_scales(tops, np.full(count, weight[0]), scale, count, np.empty(count), sums)


def row_tops(resp: Array, count: int, k: int, stride: int, tops: Array) -> None:
    """Largest of each row's log-densities; NaN counts as none."""
    front(tops, count)[:] = np.fmax.reduce(by_component(resp, k, stride, count), axis=0, initial=-np.inf)


def sum_exponentials(resp: Array, tops: Array, count: int, k: int, stride: int, digits: int, totals: Array) -> None:
    """Totals = sum of exp(resp - tops) where that is at least 2^-digits / k, k rounded up to a power of two."""
    digits += (k - 1).bit_length()
    with np.errstate(invalid="ignore", over="ignore"):
        below = by_component(resp, k, stride, count).astype(np.float64) - _usable(tops, count)[1]
        front(totals, count)[:] = np.where(below >= -digits * np.log(2.0), np.exp(below), 0.0).sum(axis=0)


sum_all_exponentials = sum_exponentials


def row_logs(tops: Array, totals: Array, weight: Array, count: int, more: float, out: Array, sums: Array) -> None:
    """Out = tops + log totals + more, -inf for rows without a density; sums[2] += such rows of positive weight."""
    fine, top = _usable(tops, count)
    log = np.log(np.where(fine, front(totals, count), 1.0))
    front(out, count)[:] = np.where(fine, top + log + more, -np.inf)
    sums.reshape(-1)[2] += (~fine & (front(weight, count) > 0.0)).sum()
