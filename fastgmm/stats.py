"""Sufficient statistics of a mixture: what a data pass returns and all that an M-step reads.

Why it is like this

1. Statistics are a small frozen value that merges. In-memory EM, files read block by block, clusters and mini-batches
   differ only in how they fold these values.
2. Second moments are about the component means, never raw: E[x^2] - E[x]^2 loses all its digits once a mean is 1e8
   standard deviations from the origin.
3. A covariance family says which second moments it needs by a *scatter kind*. The kinds differ only in one operation,
   sum_k c_k d_k d_k', so that is the one table here (`OUTER`).
4. Arrays of K D^2 numbers dominate the memory of a fit in many dimensions, so nothing here copies one needlessly:
   `from_moments` corrects the kernel's sums in place, and `merge` allocates only its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastgmm.errors import IncompatibleStatisticsError, InvalidParameterError
from fastgmm.pieces import piecewise
from fastgmm.typing import Float64Array

_LOOP_FROM = 1 << 16
"""Entries of a (K, D, D) array from which component-by-component work saves memory and costs no time."""


def _outer_full(c: Float64Array, d: Float64Array) -> Float64Array:
    # d d' first: the product is then symmetric to the last bit, as (c d) d' would not be.
    result: Float64Array = d[:, :, None] * d[:, None, :]
    result *= c[:, None, None]
    return result


def _outer_pooled(c: Float64Array, d: Float64Array) -> Float64Array:
    half: Float64Array = 0.5 * ((c[:, None] * d).T @ d)  # halves first: their sum overflows only if the result does
    return half + half.T


def _outer_diag(c: Float64Array, d: Float64Array) -> Float64Array:
    result: Float64Array = c[:, None] * d * d
    return result


def _outer_trace(c: Float64Array, d: Float64Array) -> Float64Array:
    result: Float64Array = (c[:, None] * d * d).sum(axis=1)
    return result


OUTER: dict[str, Callable[[Float64Array, Float64Array], Float64Array]] = {
    "full": _outer_full,
    "pooled": _outer_pooled,
    "diag": _outer_diag,
    "trace": _outer_trace,
}
"""Scatter kind -> function (c (K,), d (K, D)) -> sum of c_k d_k d_k' in the kind's layout."""


def scatter_shape(kind: str, n_components: int, n_features: int) -> tuple[int, ...]:
    """Shape of the scatter array of a kind: full (K, D, D), pooled (D, D), diag (K, D), trace (K,).

    Raises
    ------
    InvalidParameterError
        If the kind is unknown.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "full": (n_components, n_features, n_features),
        "pooled": (n_features, n_features),
        "diag": (n_components, n_features),
        "trace": (n_components,),
    }
    _check_kind(kind)
    return shapes[kind]


def _check_kind(kind: str) -> None:
    if kind not in OUTER:
        msg = f"scatter kind must be one of {', '.join(map(repr, OUTER))}; got {kind!r}"
        raise InvalidParameterError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class SufficientStatistics:
    """Weighted zeroth, first and second moments of the rows of every component.

    The constructor takes its arrays over and makes them read-only.

    Attributes
    ----------
    kind : str
        Scatter kind, a key of `OUTER`.
    weight : ndarray (K,) float64
        Sum over rows of weight times responsibility.
    mean : ndarray (K, D) float64
        Weighted mean of each component's rows; arbitrary but finite where `weight` is 0.
    scatter : ndarray float64
        Weighted sum of (x - mean)(x - mean)' about `mean`: "full" (K, D, D) symmetric, "pooled" (D, D) summed over the
        components, "diag" (K, D) the diagonals, "trace" (K,) their sums.
    log_likelihood : float
        Nats, weighted sum over rows, under the parameters that the responsibilities come from.
    log_map : float
        Nats, weighted sum over rows of the log of the largest responsibility (<= 0); ICL needs it.
    total_weight : float
        Sum of the row weights.
    n_rows : int

    Examples
    --------
    The rows 1 and 3, of one component, in two halves:

    >>> import numpy as np
    >>> def one_row(x):
    ...     return SufficientStatistics(
    ...         "trace", np.ones(1), np.array([[x]]), np.zeros(1),
    ...         log_likelihood=0.0, log_map=0.0, total_weight=1.0, n_rows=1,
    ...     )
    >>> both = one_row(1.0).merge(one_row(3.0))
    >>> both.weight, both.mean, both.scatter
    (array([2.]), array([[2.]]), array([2.]))
    """

    kind: str
    weight: Float64Array
    mean: Float64Array
    scatter: Float64Array
    log_likelihood: float
    log_map: float
    total_weight: float
    n_rows: int

    def __post_init__(self) -> None:
        self.weight.setflags(write=False)
        self.mean.setflags(write=False)
        self.scatter.setflags(write=False)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return int(self.mean.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return int(self.mean.shape[1])

    @classmethod
    def zeros(cls, kind: str, n_components: int, n_features: int) -> SufficientStatistics:
        """Return the statistics of no rows: the identity of `merge`.

        Raises
        ------
        InvalidParameterError
            If the kind is unknown.
        """
        return cls(
            kind,
            np.zeros(n_components),
            np.zeros((n_components, n_features)),
            np.zeros(scatter_shape(kind, n_components, n_features)),
            0.0,
            0.0,
            0.0,
            0,
        )

    @classmethod
    def from_moments(
        cls,
        kind: str,
        reference: Float64Array,
        s0: Float64Array,
        s1: Float64Array,
        s2: Float64Array | Callable[[Float64Array, Float64Array], Float64Array],
        *,
        log_likelihood: float,
        log_map: float,
        total_weight: float,
        n_rows: int,
    ) -> SufficientStatistics:
        """Build statistics from a pass's plain sums about a reference point of each component.

        Parameters
        ----------
        kind : str
            Scatter kind of `s2`.
        reference : ndarray (K, D)
            The points m_k that the sums are about: the means of the parameters that the pass read.
        s0 : ndarray (K,)
            Sum of w r.
        s1 : ndarray (K, D)
            Sum of w r (x - m_k).
        s2 : ndarray or callable
            Sum of w r (x - m_k)(x - m_k)' in the kind's layout ("pooled": summed over the components, each about
            its own reference). **Taken over and changed in place.** Or ``s2(c, d)``, which returns these sums less
            sum_k c_k d_k d_k', for c (K,) and d (K, D).
        log_likelihood, log_map, total_weight, n_rows
            As the attributes.

        Notes
        -----
        shift = s1 / s0 (0 where s0 is 0), mean = m + shift, scatter = s2 - sum_k s0 shift shift'. The reference lies
        within the cloud of rows, so the subtraction cancels little; nothing here depends on the origin.
        """
        _check_kind(kind)
        column = s0[:, None]
        # The plain quotient is three times as fast as the masked one, and this runs once an iteration.
        if np.minimum.reduce(s0) > 0.0:
            shift = s1 / column
        else:
            shift = np.divide(s1, column, out=np.zeros(s1.shape), where=column > 0.0)
        if isinstance(s2, np.ndarray):
            _subtract_outer(kind, s2, s0, shift)
        else:
            s2 = s2(s0, shift)
        weight = np.array(s0, dtype=np.float64)
        return cls(kind, weight, reference + shift, s2, log_likelihood, log_map, total_weight, n_rows)

    def merge(self, other: SufficientStatistics) -> SufficientStatistics:
        """Return the statistics of both sets of rows together; the order of the two does not matter but for rounding.

        Raises
        ------
        IncompatibleStatisticsError
            If kinds or shapes differ.

        Notes
        -----
        w = w_a + w_b, f = w_b / w (0 where w is 0), delta = m_b - m_a, m = m_a + f delta,
        S = S_a + S_b + sum_k w_a f delta delta'. The mean starts from the heavier side: an empty side changes nothing.

        References
        ----------
        T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance", The American
        Statistician 37 (1983), doi:10.1080/00031305.1983.10483115, equation 1.5.
        """
        if self.kind != other.kind or self.mean.shape != other.mean.shape:
            msg = (
                "statistics merge only with statistics of the same kind and shape; got "
                f"kind {self.kind!r}, {self.n_components} components, {self.n_features} features and "
                f"kind {other.kind!r}, {other.n_components} components, {other.n_features} features"
            )
            raise IncompatibleStatisticsError(msg)
        weight = self.weight + other.weight
        fraction = np.divide(other.weight, weight, out=np.zeros(weight.shape), where=weight > 0.0)
        # An empty side's mean is arbitrary, and so may be its distance: do not let it overflow or round.
        both = ((self.weight > 0.0) & (other.weight > 0.0))[:, None]
        delta = np.subtract(other.mean, self.mean, out=np.zeros(self.mean.shape), where=both)
        mean = np.where(
            fraction[:, None] > 0.5,
            other.mean - (1.0 - fraction)[:, None] * delta,
            self.mean + fraction[:, None] * delta,
        )
        scatter = piecewise(np.add, self.scatter, other.scatter)
        _subtract_outer(self.kind, scatter, -(self.weight * fraction), delta)
        return SufficientStatistics(
            self.kind,
            weight,
            mean,
            scatter,
            self.log_likelihood + other.log_likelihood,
            self.log_map + other.log_map,
            self.total_weight + other.total_weight,
            self.n_rows + other.n_rows,
        )

    def scaled(self, factor: float) -> SufficientStatistics:
        """Return the statistics with every row's weight multiplied by `factor`; means and the count of rows stay.

        ``old.scaled(1 - g).merge(new.scaled(g))`` is the exact blend of an online step.

        Raises
        ------
        InvalidParameterError
            If `factor` is negative or not finite.
        """
        if not (math.isfinite(factor) and factor >= 0.0):
            msg = f"factor must be finite and >= 0; got {factor!r}"
            raise InvalidParameterError(msg)
        return SufficientStatistics(
            self.kind,
            self.weight * factor,
            self.mean,
            piecewise(lambda scatter: scatter * factor, self.scatter),
            self.log_likelihood * factor,
            self.log_map * factor,
            self.total_weight * factor,
            self.n_rows,
        )


def _subtract_outer(kind: str, scatter: Float64Array, c: Float64Array, d: Float64Array) -> None:
    """Subtract sum_k c_k d_k d_k' from `scatter` in place, one component at a time where arrays are large."""
    outer = OUTER[kind]
    if kind == "full" and scatter.size > _LOOP_FROM:
        for k in range(scatter.shape[0]):
            product = np.multiply.outer(d[k], d[k])
            product *= c[k]
            scatter[k] -= product
    else:
        scatter -= outer(c, d)
