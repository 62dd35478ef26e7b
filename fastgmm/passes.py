"""Data passes: the only code that sees rows.

    accumulate(density, rows) -> SufficientStatistics       score_samples, predict, predict_proba -> one value a row

1. A pass is a row of two tables: `fastgmm.kernels.programs.PROGRAMS` (factor kind -> kernel) and
   `kernels.sums.MOMENTS` (what the kernel's sums mean for a scatter kind). No name of a covariance family occurs here.
2. Nothing of size N x K is held; `predict_proba` alone returns such an array, because it was asked for.
3. Rows that are not finite have no finite log-density, so a pass counts them on its way and nobody scans the data a
   second time. Only when there are some are they looked for, to name the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from fastgmm.density import Density
from fastgmm.errors import InvalidDataError, InvalidParameterError, NonFiniteDataError
from fastgmm.kernels import arguments as a
from fastgmm.kernels.programs import PROGRAMS, assignment, common_centre, program_of, scatter_program, set_cut
from fastgmm.kernels.runner import Program, Runner
from fastgmm.kernels.sums import MOMENTS, second, zeroth_and_first
from fastgmm.kernels.unpack import unpack_moments
from fastgmm.nearest import nearest
from fastgmm.stats import SufficientStatistics, scatter_shape
from fastgmm.typing import Array, Float64Array, IntArray, RowSource

__all__ = ["Accumulator", "NonFiniteDataError", "accumulate", "assign", "predict", "predict_proba", "score_samples"]

CANCELLATION = {"float64": 1e5, "float32": 1e3}
"""Ratio of the total to the within-component variance from which the pooled scatter is summed directly.

Total minus between loses log10(ratio) digits: of sixteen five, of seven three."""

SEPARATION = {"float64": 1e8, "float32": 3e3}
"""Distance of a component from the common centre, in standard deviations, from which a scalar factor's moments are
summed about its own mean, like a diagonal one's, and a shared factor's densities are computed about each mean.

About the common centre a mean has the error eps * distance: here the root of eps, which makes eps in a variance."""


def _build(
    density: Density, dtype: np.dtype[Any], n_rows: int | None = None, *, drop: bool = True
) -> tuple[Program, float]:
    if density.kind not in PROGRAMS:
        msg = f"factor kind must be one of {', '.join(map(repr, PROGRAMS))}; got {density.kind!r}"
        raise InvalidParameterError(msg)
    program, top = program_of(density, dtype, n_rows)
    set_cut(program, density, drop=drop)
    return program, top


def _separated(density: Density, dtype: np.dtype[Any]) -> Density:
    """The same density with a diagonal factor if its components are far apart for their width."""
    distance = np.abs(density.means - common_centre(density)).max(axis=1)
    if (distance * density.factor).max() < SEPARATION[dtype.name]:
        return density
    wide = np.repeat(density.factor[:, None], density.n_features, axis=1)
    return Density("diag", density.means, wide, density.log_norm, density.log_weights)


def _untied(density: Density, dtype: np.dtype[Any]) -> Density:
    """The same density with a factor for each component if a shared one is so narrow that their distances cost digits.

    A shared factor multiplies x - c and mu - c, with one centre c, and subtracts; both products may be large.
    """
    if density.kind != "shared_chol":
        return density
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.abs((density.means - common_centre(density)) @ density.factor.T).max()
    return density if distance < SEPARATION[dtype.name] else _one_factor_each(density)


def _one_factor_each(density: Density) -> Density:
    k, d = density.means.shape
    wide = np.broadcast_to(density.factor, (k, d, d))
    return Density("chol", density.means, wide, density.log_norm, density.log_weights)


class PassRunner(Protocol):
    """What runs a program over all rows: `fastgmm.kernels.runner.Runner`, or one whose rows are elsewhere."""

    def run(self, program: Program, rows: RowSource, mode: int) -> Float64Array:
        """Return the folded sums over all rows."""
        ...


class Accumulator:
    """A data source bound to a scatter kind; call it with a density to get statistics.

    Keeps scratch, and for the pooled scatter the total scatter of the data, from one call to the next. Not to be called
    from two threads at once.

    Parameters
    ----------
    rows : RowSource
    scatter : {"full", "pooled", "diag", "trace"}
        What second moments to return; see `SufficientStatistics`.
    n_threads : int, optional
        Use at most so many threads. The result does not depend on it.
    runner : PassRunner, optional
        What runs the passes; then `rows` are read here only to find a value that is not finite.
    centre : ndarray (D,), optional
        A place near the mean of the data, about which the total scatter is summed. Without it the first density says
        where, so that what a density gets depends, in the last bits, on which one came first.
    """

    def __init__(
        self,
        rows: RowSource,
        scatter: str,
        *,
        n_threads: int | None = None,
        runner: PassRunner | None = None,
        centre: Float64Array | None = None,
    ) -> None:
        self.rows = rows
        self.scatter = scatter
        self._runner = Runner(n_threads) if runner is None else runner
        self._centre = centre
        self._whole: tuple[Float64Array, Float64Array] | None = None  # mean and scatter of all rows

    def __call__(self, density: Density, *, moments: bool = True) -> SufficientStatistics:
        """Run one pass.

        Parameters
        ----------
        density : Density
            The parameters under which rows are shared out.
        moments : bool
            False: only log_likelihood, log_map, total_weight and n_rows are computed, in about half the time; the rest
            is zero.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        NonFiniteDataError
            If a row holds NaN or an infinity.
        InvalidDataError
            If a row is so far from all components that its density cannot be computed.
        InvalidParameterError
            If no kernel serves this pair of factor and scatter kind.
        """
        density = _untied(density, self.rows.dtype)
        if moments and density.kind == "shared_chol" and self.scatter == "pooled":
            return self._pooled(density)
        if moments and density.kind == "scalar":
            density = _separated(density, self.rows.dtype)
        if moments and (density.kind, self.scatter) not in MOMENTS:
            pair = f"factor kind {density.kind!r} and scatter kind {self.scatter!r}"
            msg = f"no pass serves {pair}; there are {sorted(MOMENTS)}"
            raise InvalidParameterError(msg)
        program, top = _build(density, self.rows.dtype, self.rows.n_rows)
        total = self._run(program, a.FIT if moments else a.EVALUATE)
        if moments:
            return self._statistics(total, top, *MOMENTS[density.kind, self.scatter](program, total, density))
        k, d = density.means.shape
        nothing = np.broadcast_to(0.0, scatter_shape(self.scatter, k, d))  # takes no memory
        return self._statistics(total, top, density.means, np.zeros(k), np.zeros((k, d)), lambda _c, _d: nothing)

    def _run(self, program: Program, mode: int) -> Float64Array:
        total = self._runner.run(program, self.rows, mode)
        if total[a.LOST] > 0.0:
            raise_lost(self.rows)
        return total

    def _statistics(
        self,
        total: Float64Array,
        top: float,
        reference: Float64Array,
        s0: Float64Array,
        s1: Float64Array,
        s2: Float64Array | Callable[[Float64Array, Float64Array], Float64Array],
    ) -> SufficientStatistics:
        weight = float(total[a.TOTAL_WEIGHT])
        return SufficientStatistics.from_moments(
            self.scatter,
            reference,
            s0,
            s1,
            s2,
            log_likelihood=float(total[a.LOG_LIKELIHOOD]) + top * weight,
            log_map=float(total[a.LOG_LARGEST]),
            total_weight=weight,
            n_rows=self.rows.n_rows,
        )

    def _pooled(self, density: Density) -> SufficientStatistics:
        """Pooled scatter = total scatter - scatter of the means, both about the mean of the data."""
        if self._whole is None:
            self._whole = self._total_scatter(density)
        centre, scatter = self._whole
        if np.isfinite(scatter).all():
            program, top = _build(density, self.rows.dtype)
            total = self._run(program, a.FIT)
            s0, s1 = zeroth_and_first(program, total)
            about = common_centre(density) if program.centre is None else program.centre
            s1 += s0[:, None] * (about - centre)
            means = np.broadcast_to(centre, s1.shape)
            stats = self._statistics(total, top, means, s0, s1, scatter.copy())
            weight = max(stats.total_weight, np.finfo(float).tiny)
            spread = ((density.factor @ (scatter / weight)) * density.factor).sum(axis=1)
            if spread.max() < CANCELLATION[self.rows.dtype.name]:
                return stats
        # The components are far apart for their width: sum within them instead, at the cost of a full pass.
        return self(_one_factor_each(density))

    def _total_scatter(self, density: Density) -> tuple[Float64Array, Float64Array]:
        """Mean (D,) of all rows and their scatter (D, D) about it."""
        centre = common_centre(density) if self._centre is None else self._centre
        # Two rounds are enough for any guess. Where squares underflow (features of 1e-30 beside others of 1, float32),
        # the test below is never met, and the last round has to do.
        for _ in range(4):
            # In float64 whatever the rows are: it is done once a fit, and what is left of it when the scatter of the
            # means is subtracted may be a small part.
            program = scatter_program(centre, np.dtype(np.float64))
            total = self._run(program, a.FIT)
            s0, s1 = zeroth_and_first(program, total)
            s2 = unpack_moments(second(program, total), centre.shape[0], program.dtype.itemsize)[0]
            if not np.isfinite(np.diag(s2)).all():
                raise_non_finite(self.rows)
                return centre, s2  # finite rows whose squares are not: `_pooled` will do without
            shift = s1[0] / s0[0]
            # about the mean itself, unless the guess was so far off that the correction would cost digits
            if (0.01 * s0[0] * shift**2 <= np.diag(s2) - s0[0] * shift**2).all() or not shift.any():
                return centre + shift, s2 - s0[0] * np.multiply.outer(shift, shift)
            moved = centre + shift
            if np.array_equal(moved, centre):
                return centre, s2
            centre = moved
        return centre, s2


def accumulate(rows: RowSource, density: Density, scatter: str, *, moments: bool = True) -> SufficientStatistics:
    """Run one pass over `rows`; see `Accumulator`."""
    return Accumulator(rows, scatter)(density, moments=moments)


def assign(
    rows: RowSource, centers: Array, *, runner: PassRunner | None = None
) -> tuple[Float64Array, Float64Array, float]:
    """One k-means step.

    Parameters
    ----------
    rows : RowSource
    centers : ndarray (K, D)
    runner : PassRunner, optional
        As for `Accumulator`.

    Returns
    -------
    weight : ndarray (K,) float64
        Sum of the weights of the rows nearest to each center; the first of equally near centers has a row.
    means : ndarray (K, D) float64
        Their weighted means; the center itself where it has no rows.
    inertia : float
        Weighted sum of squared distances to the nearest center.
    """
    centers = np.ascontiguousarray(centers, np.float64)
    k = centers.shape[0]
    density = Density("scalar", centers, np.ones(k), np.zeros(k), np.zeros(k))
    program = assignment(density, rows.dtype)
    total = (Runner() if runner is None else runner).run(program, rows, a.ASSIGN)
    if total[a.LOST] > 0.0:
        raise_lost(rows)
    s0, s1 = zeroth_and_first(program, total)
    shift = np.divide(s1, s0[:, None], out=np.zeros(s1.shape), where=s0[:, None] > 0.0)
    means = np.where(s0[:, None] > 0.0, common_centre(density) + shift, centers)
    return s0.copy(), means, float(second(program, total)[:, 0].sum())


# -- one value a row ---------------------------------------------------------------------------------------------------


def score_samples(rows: RowSource, density: Density) -> Float64Array:
    """Log-density of every row, (N,) float64, nats.

    -inf for a finite row so far out that the square of its scaled distance is not representable.

    Raises
    ------
    NonFiniteDataError
        If a row holds NaN or an infinity.
    """
    program, _ = _build(_untied(density, rows.dtype), rows.dtype)
    out = np.empty(rows.n_rows)
    if Runner().run(program, rows, a.SCORE, out)[a.LOST] > 0.0:
        raise_non_finite(rows)
    return out


def predict(rows: RowSource, density: Density, *, apart: bool = False) -> IntArray:
    """Most probable component of every row, (N,) int64; the first one wins a tie.

    With `apart`, distances from spheres are those of k-means' own kernel, wherever the spheres lie.

    Raises
    ------
    NonFiniteDataError
        If a row holds NaN or an infinity.
    """
    program = assignment(density, rows.dtype) if apart else _build(_untied(density, rows.dtype), rows.dtype)[0]
    out = np.empty(rows.n_rows, np.int64)
    if Runner().run(program, rows, a.PREDICT, out)[a.LOST] > 0.0:
        raise_non_finite(rows)
        for index, x in _chosen(rows, out < 0):
            out[index] = nearest(density, x)
    return out


def predict_proba(rows: RowSource, density: Density) -> Float64Array:
    """Responsibilities of every row, (N, K) float64, in C order.

    Raises
    ------
    NonFiniteDataError
        If a row holds NaN or an infinity.
    """
    program, _ = _build(_untied(density, rows.dtype), rows.dtype, drop=False)
    out = np.empty((rows.n_rows, density.n_components))
    if Runner().run(program, rows, a.PROBABILITY, out)[a.LOST] > 0.0:
        raise_non_finite(rows)
        for index, x in _chosen(rows, np.logical_not(out.any(axis=1))):
            out[index] = 0.0
            out[index, nearest(density, x)] = 1.0
    return out


# -- rows without a density --------------------------------------------------------------------------------------------


def _chosen(rows: RowSource, mask: Array) -> Any:
    """Yield (row numbers, rows) of the masked rows."""
    for block in rows.blocks(1024):
        index = np.flatnonzero(mask[block.first : block.first + block.x.shape[0]])
        if index.size:
            yield block.first + index, block.x[index].astype(np.float64)


def raise_non_finite(rows: RowSource) -> None:
    """Raise if a row holds NaN or an infinity, naming the first such value.

    Raises
    ------
    NonFiniteDataError
    """
    for block in rows.blocks(1024):
        for start in range(0, block.x.shape[0], 65536):
            x = block.x[start : start + 65536]
            wrong = ~np.isfinite(x)
            if wrong.any():
                row, column = (int(v) for v in np.argwhere(wrong)[0])
                at = block.first + start + row
                kind = "NaN" if np.isnan(x[row, column]) else "infinity"
                msg = (
                    f"Input X contains {kind}: row {at}, column {column}. Every entry must be finite; "
                    "remove or impute such rows"
                )
                raise NonFiniteDataError(msg, row=at, column=column)


def raise_lost(rows: RowSource) -> None:
    """Raise for rows that have no computable density.

    Raises
    ------
    NonFiniteDataError
        If a row holds NaN or an infinity.
    InvalidDataError
        Otherwise.
    """
    raise_non_finite(rows)
    far, remedy = ("1e150", "divide X by a constant") if rows.dtype == np.float64 else ("1e18", "pass X as float64")
    msg = (
        "X must hold rows whose distance from the components can be squared; got at least one row so far out (more "
        f"than {far} standard deviations) that its density is 0 for every component. Remove such rows, or {remedy}"
    )
    raise InvalidDataError(msg)
