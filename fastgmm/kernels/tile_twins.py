"""Plain NumPy twins of the micro-kernels in `tile.py`, `entry.py` and `normalise.py`; see `twins.py`."""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.twins import Array, V, by_component, front, lanes, mean_of, to_panels


def copy_rows(source: Array, n: int, padded: int, count: int, total: int, rows: Array) -> None:
    """Rows padded with zeros to the width; the last row again for count <= i < total."""
    out = front(rows, total, padded)
    out[:] = 0.0
    out[:, :n] = front(source, count, n)[np.minimum(np.arange(total), count - 1)]


def enter_rows(
    source: Array,
    n: int,
    padded: int,
    count: int,
    total: int,
    centred: int,
    centre: Array,
    rows: Array,
    panels: Array,
) -> None:
    """Rows about the centre, padded with zeros, the last row again for count <= i < total; and the same as panels."""
    copy_rows(source, n, padded, count, total, rows)
    if centred:
        centre_rows(rows, centre, padded, total)
    to_panels(front(rows, total, padded)[:, :n], panels)


def enter_panels(
    source: Array, n: int, padded: int, count: int, total: int, centred: int, centre: Array, panels: Array
) -> None:
    """The panels of `enter_rows`."""
    enter_rows(source, n, padded, count, total, centred, centre, np.zeros(total * padded, source.dtype), panels)


def centre_rows(rows: Array, centre: Array, padded: int, count: int) -> None:
    """Subtract the centre from every row."""
    front(rows, count, padded)[:] = front(rows, count, padded) - mean_of(centre, padded, padded)


def weigh(values: Array, step: int, resp: Array, count: int, k: int, stride: int, sums: Array) -> None:
    """sums[c] += sum over rows of resp * values; where resp is 0, values may be infinite."""
    r = by_component(resp, k, stride, count).astype(np.float64)
    given = by_component(values, k, step, count) if step else front(values, count)
    value = np.where(r > 0.0, given, 0.0)
    front(sums, k)[:] += (r * value).sum(axis=1)


def normalise(resp: Array, scale: Array, count: int, k: int, stride: int, weights: Array) -> None:
    """Resp *= scale; weights[c] += sum over rows."""
    out = by_component(resp, k, stride, count)
    r = out.astype(np.float64) * front(scale, count)
    out[:] = r
    front(weights, k)[:] += r.sum(axis=1)


def normalise_and_weigh(
    resp: Array,
    scale: Array,
    norms: Array,
    count: int,
    k: int,
    stride: int,
    weights: Array,
    sums: Array,
) -> None:
    """Resp *= scale; weights += sums of resp, sums += those of resp * norms; norms that are no numbers become 0."""
    x = front(norms, count)
    x[~np.isfinite(x)] = 0.0
    normalise(resp, scale, count, k, stride, weights)
    front(sums, k)[:] += by_component(resp, k, stride, count).astype(np.float64) @ x.astype(np.float64)


def _select(
    resp: Array,
    scale: Array,
    panels: int,
    groups: Array,
    live: Array,
    values: Array,
    found: Array,
    weights: Array,
    power: float,
) -> None:
    width = V * lanes(resp)
    r = front(resp, panels * width).astype(np.float64) * front(scale, panels * width)
    marked = (groups.reshape(-1)[0] >> np.arange(panels)) & 1
    chosen = np.flatnonzero((r > 0.0) & np.repeat(marked > 0, width))
    live.reshape(-1)[: len(chosen)] = chosen
    values.reshape(-1)[: len(chosen)] = r[chosen]
    found.reshape(-1)[0] = len(chosen)
    weights.reshape(-1)[0] += (r[chosen] ** power).sum()


def select_live(
    resp: Array,
    scale: Array,
    panels: int,
    groups: Array,
    live: Array,
    values: Array,
    found: Array,
    weights: Array,
) -> None:
    """List the rows of marked panels where r = resp * scale > 0, and r there; weights[0] += sum of r."""
    _select(resp, scale, panels, groups, live, values, found, weights, 1.0)


def select_live_roots(
    resp: Array,
    scale: Array,
    panels: int,
    groups: Array,
    live: Array,
    values: Array,
    found: Array,
    weights: Array,
) -> None:
    """`select_live` of square roots: resp, scale and values hold roots, weights[0] += sum of their squares."""
    _select(resp, scale, panels, groups, live, values, found, weights, 2.0)


def largest(resp: Array, count: int, k: int, stride: int, labels: Array) -> None:
    """Component of the largest log-density, the first of equal ones; -1 where none is above -inf."""
    joint = by_component(resp, k, stride, count)
    joint = np.where(np.isnan(joint), -np.inf, joint)
    front(labels, count)[:] = np.where((joint > -np.inf).any(axis=0), joint.argmax(axis=0), -1)


def one_hot(
    resp: Array,
    labels: Array,
    weight: Array,
    scale: Array,
    count: int,
    k: int,
    stride: int,
    sums: Array,
) -> None:
    """resp[c] = 1 where the label is c, else 0; scale = weight, 0 without a label.

    sums[0] += sum of w times the label's log-density, sums[2] += rows of positive weight without a label.
    """
    out, label, w = by_component(resp, k, stride, count), front(labels, count), front(weight, count)
    labelled = label >= 0
    density = out[np.maximum(label, 0), np.arange(count)].astype(np.float64)
    sums.reshape(-1)[0] += (w * np.where(labelled, density, 0.0)).sum()
    sums.reshape(-1)[2] += (~labelled & (w > 0.0)).sum()
    front(scale, count)[:] = np.where(labelled, w, 0.0)
    out[:] = np.arange(k)[:, None] == label


def write_probabilities(resp: Array, scale: Array, count: int, k: int, stride: int, out: Array) -> None:
    """out[row, c] = resp[c, row] * scale[row]."""
    front(out, count, k)[:] = (by_component(resp, k, stride, count).astype(np.float64) * front(scale, count)).T


def write_probabilities_roots(resp: Array, scale: Array, count: int, k: int, stride: int, out: Array) -> None:
    """`write_probabilities` from square roots."""
    front(out, count, k)[:] = (by_component(resp, k, stride, count).astype(np.float64) * front(scale, count)).T ** 2


def prefetch(rows: Array, begin: int, end: int) -> None:
    """Changes nothing."""
