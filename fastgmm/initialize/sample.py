"""The rows that starts are made from: all of a small data set, a random part of a large one.

1. A start needs no more rows than tell K clusters apart, so its cost must not grow with N. The part has at most
   max(65536 rows or 16 MiB, whichever is less; 32 K) rows.
2. One row is drawn from each of as many equal shares of the total weight: rows are drawn in proportion to their
   weights, a row of weight 2 exactly as often as a row that is there twice, and every stretch of the data is covered.
3. The part is kept centred and scaled by one power of two. Distances then neither overflow nor cancel, for data of any
   unit and any distance from the origin, and the rows can be given back exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.data import ArrayRows, Rows, name_bad_value
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Array, Float64Array, FloatArray, IntArray

MAX_ROWS = 1 << 16
"""Rows of the part, unless `MAX_BYTES` or `ROWS_PER_COMPONENT` say otherwise."""

SPREAD_ROWS, SPREAD_NUMBERS, LEAST_SPREAD_ROWS = 1 << 14, 1 << 19, 1 << 12
"""Rows of the part where only the spread of the data is asked for, and numbers in it, but so many rows at least: enough
for a variance to one or two percent, and for a feature that is seldom not 0 not to look constant."""

MAX_BYTES = 1 << 24
"""Bytes of the part in float64, unless `ROWS_PER_COMPONENT` asks for more."""

ROWS_PER_COMPONENT = 32
"""Fewer would leave components of a large model without a start of their own."""

SMALLEST_VARIANCE = 1e-302
"""A feature that is not constant must vary more than this: the inverse must be a float64, for components, too."""

FARTHEST = 1e12
"""Rows of next to no weight may be this many standard deviations out; sums of squares in float32 go little farther."""

CROWD_ROWS = 1 << 10
"""Rows whose quartiles are looked at."""

Weighted = tuple[FloatArray, Float64Array | None]
"""Rows, and their weights if they have any."""

NARROW = 8
"""Up to so many features, arithmetic goes by columns: NumPy works along rows, and theirs are short."""

OUTLYING = 2.0**8
"""A first row this many variances from the mean, squared, is too far out for the rows to be taken about it."""

_PIECE = 1 << 16
"""Values that are worked on at a time when moments of the part are taken: they stay in a cache."""


@dataclass(frozen=True, slots=True, eq=False)
class RowSample:
    """Rows in memory, centred and scaled: row i of the data is ``origin + unit * z[i]``.

    Attributes
    ----------
    z : ndarray (n, D), float32 or float64
        C-contiguous, in the precision of the data, or float64 where float32 could not tell the rows apart or nobody
        looked whether it could.
    weight : ndarray (n,) float64, or None
        All > 0.
    origin : ndarray (D,) float64
        Near the mean of the data.
    unit : float
        A power of two near the largest standard deviation.
    variance : ndarray (D,) float64
        Of the features, in the data's own unit; exactly 0 for a constant one.
    complete : bool
        Whether these are all the rows.
    """

    z: FloatArray
    weight: Float64Array | None
    origin: Float64Array
    unit: float
    variance: Float64Array
    complete: bool

    def take(self, index: IntArray) -> RowSample:
        """Return the sample of these rows only."""
        weight = None if self.weight is None else self.weight[index]
        return RowSample(self.z[index], weight, self.origin, self.unit, self.variance, complete=False)


def draw_sample(
    rows: Rows,
    n_components: int,
    rng: np.random.Generator,
    *,
    spread_only: bool = False,
    whole: Callable[[Any], Weighted] | None = None,
    pick: Callable[[Any, Float64Array], Weighted] | None = None,
) -> RowSample:
    """Draw the rows to start from.

    Parameters
    ----------
    rows : row source
        All rows.
    n_components : int
        K; many components need many rows.
    rng : numpy.random.Generator
        Not used where all rows are taken.
    spread_only : bool
        No start will be found in the part, so fewer rows do.
    whole : callable, optional
        ``whole(rows)`` returns all rows and their weights, for rows that cannot be read here.
    pick : callable, optional
        ``pick(rows, targets)`` returns the rows in whose share of the weight the targets lie (float64, rising), and how
        many targets each holds, (n,) float64; for rows that cannot be read here.

    Raises
    ------
    NonFiniteDataError
        If one of these rows holds NaN or infinity.
    InvalidDataError
        If variances leave the range of float64.
    """
    limit = max(min(MAX_ROWS, MAX_BYTES // (8 * rows.n_features)), ROWS_PER_COMPONENT * n_components)
    if spread_only:
        limit = min(limit, SPREAD_ROWS, max(SPREAD_NUMBERS // rows.n_features, LEAST_SPREAD_ROWS))
    if rows.n_rows <= limit:
        x, weight = (_all if whole is None else whole)(rows)
        if weight is not None and rows.even:
            weight = None  # as if there were none: what is drawn from the rows is the same then
    else:
        x, weight = _stratified(rows, limit, rng, pick)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z, origin, variance = _centred(x, weight)
        largest = float(variance.max())
        if not math.isfinite(largest):
            name_bad_value(rows)
            _raise_out_of_range(x, "large", weighted=rows.weighted)
        if not variance.min() > SMALLEST_VARIANCE:
            small = variance <= SMALLEST_VARIANCE
            if (np.ptp(x[:, small], axis=0) > 0.0).any():
                _raise_out_of_range(x[:, small], "close together", weighted=rows.weighted)
        # Halves of exponents, since the power of two of a variance may be odd.
        unit = 2.0 ** (math.frexp(largest)[1] // 2) if largest > 0.0 else 1.0
        z *= 1.0 / unit
    return RowSample(
        z=z if spread_only or x.dtype == z.dtype or _wide(z) else z.astype(x.dtype),  # for few rows a look costs more
        weight=weight,
        origin=origin,
        unit=unit,
        variance=variance,
        complete=rows.n_rows <= limit,
    )


def _wide(z: Float64Array) -> bool:
    """Whether float32 would not do: rows too far out to be squared, or a bulk far from the origin that it would merge.

    The latter is judged by the quartiles of at most `CROWD_ROWS` rows: float32 must resolve their distance to 12 bits.
    """
    if np.abs(z).max() > FARTHEST:
        return True
    part = z[:: -(-z.shape[0] // CROWD_ROWS)]
    n = part.shape[0]
    low, middle, high = np.partition(part, [n // 4, n // 2, 3 * n // 4], axis=0)[[n // 4, n // 2, 3 * n // 4]]
    return bool((high - low < np.abs(middle) * 2.0**-12).any())


def _all(rows: Rows) -> tuple[FloatArray, Float64Array | None]:
    """Return all rows and their weights; copies, unless they are in memory anyway."""
    if isinstance(rows, ArrayRows):
        _, x, weight = next(rows.blocks(1))
        return x, weight
    x = np.empty((rows.n_rows, rows.n_features), rows.dtype)
    weights = np.empty(rows.n_rows) if rows.weighted else None
    for first, part, w in rows.blocks(1):
        x[first : first + part.shape[0]] = part
        if weights is not None:
            weights[first : first + part.shape[0]] = w
    return x, weights


def _stratified(
    rows: Rows,
    size: int,
    rng: np.random.Generator,
    pick: Callable[[Any, Float64Array], Weighted] | None,
) -> Weighted:
    """Draw one row from each of `size` equal shares of the total weight; return rows and how often each was drawn."""
    shares = np.arange(size + 1.0)  # and few arrays more: fresh memory takes longer than what is done with it
    shares *= (rows.n_rows if rows.even else rows.total_weight) / size
    if rows.even:
        np.floor(shares, out=shares)  # shares of whole rows, so that no row is drawn twice
        shares *= rows.total_weight / rows.n_rows
    targets = rng.random(size)
    targets *= np.diff(shares)
    targets += shares[:-1]
    if pick is not None:
        x, drawn = pick(rows, targets)
        assert drawn is not None
        return x, None if drawn.max() == 1.0 else drawn
    parts: list[FloatArray] = []
    counts: list[Float64Array | None] = []
    before = 0.0
    used = 0
    for _, x, weight in rows.blocks(1):
        if weight is None:
            after = before + x.shape[0]
            last = int(np.searchsorted(targets, after))
            part = targets[used:last]
            index = (part - before if before else part).astype(np.int64)
        else:
            # The sum goes on where the last block ended: the same sums however the rows are cut.
            edges = np.cumsum(np.concatenate(([before], weight)))[1:]
            after = float(edges[-1])
            last = int(np.searchsorted(targets, after))
            index = np.searchsorted(edges, targets[used:last], side="right")
        before, used = after, last
        np.minimum(index, x.shape[0] - 1, out=index)
        count = None
        if not (index[1:] > index[:-1]).all():  # as those of unweighted rows are, but for a rounding
            index, repeats = np.unique(index, return_counts=True)
            count = repeats.astype(np.float64)
        parts.append(x.take(index, axis=0, mode="clip"))  # faster than an index in brackets, for short rows
        counts.append(count)
    x = _joined(parts)
    if all(count is None for count in counts):
        return x, None
    drawn = _joined([np.ones(len(part)) if n is None else n for part, n in zip(parts, counts, strict=True)])
    return x, None if drawn.max() == 1.0 else drawn


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _centred(x: FloatArray, weight: Float64Array | None) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return the rows about their mean (n, D), in C order, the mean and the variances (D,), all float64.

    A constant column has variance 0 exactly.
    """
    n, n_features = x.shape
    size = max(_PIECE // n_features, 1)
    first = x[0].astype(np.float64)[:, None]
    # (D, n) in either case, but NumPy works along what is one run in memory: features, where they are few
    d = np.empty((n_features, n)) if n_features <= NARROW else np.empty((n, n_features)).T
    pieces = [slice(start, start + size) for start in range(0, n, size)]
    total = float(n) if weight is None else float(weight.sum())
    shift = np.zeros(n_features)
    for some in pieces:
        part = np.subtract(x[some].T, first, out=d[:, some])
        shift += part.sum(axis=1) if weight is None else np.einsum("j,ij->i", weight[some], part)
    shift /= total
    variance = np.zeros(n_features)
    for some in pieces:
        part = d[:, some]
        part -= shift[:, None]
        # einsum and not a matrix product: its sums do not depend on the number of threads.
        if weight is None:
            variance += np.einsum("ij,ij->i", part, part)
        else:
            variance += np.einsum("j,ij,ij->i", weight[some], part, part)
    variance /= total
    origin = first[:, 0] + shift
    if (shift * shift > OUTLYING * variance).any():  # the others are not exact about such a first row
        np.subtract(x.T, origin[:, None], out=d)
    return np.ascontiguousarray(d.T), origin, variance


def _raise_out_of_range(x: FloatArray, how: str, *, weighted: bool) -> None:
    note = ", weighted with sample_weight," if weighted else ""
    msg = (
        f"X must have variances within the range of float64 (about 1e-300 to 1e300); its values{note} are too {how}: "
        f"they lie between {float(x.min()):.3g} and {float(x.max()):.3g}. Multiply X by a constant"
    )
    raise InvalidDataError(msg)
