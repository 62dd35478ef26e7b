"""From what the user gave to the parameters of the first iteration.

1. `check_start` looks at the arguments once per fit; `starting_params` is called once per start.
2. What a user gives is used as it is. What is missing is made to fit: given means decide which rows belong to which
   component, so weights and covariances that were not given are those of these rows (scikit-learn pairs given means
   with weights and covariances of unrelated k-means clusters).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm import covariance, passes
from fastgmm.clusters import has_partition, partition
from fastgmm.constants import WEIGHT_SUM_ATOL
from fastgmm.covariance import Family, Reference
from fastgmm.data import ArrayRows, Rows
from fastgmm.errors import InvalidParameterError
from fastgmm.initialize.methods import CENTERS, METHODS, nearest, random_responsibilities
from fastgmm.initialize.moments import by_label, by_responsibility, collect, lend, piece_rows
from fastgmm.initialize.sample import RowSample
from fastgmm.params import Params
from fastgmm.pieces import piecewise
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Array, Float64Array, IntArray, RowBlock
from fastgmm.validation import check_choice

Callback = Callable[[Any, int, np.random.Generator], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a user asked to start from, checked.

    Attributes
    ----------
    n_components : int
    family : Family
    method : str, callable or ndarray
        Name in `METHODS`; a function (X, n_components, rng); labels (N,) int64 or responsibilities (N, K).
    weights, means, covariances : ndarray or None
        Given parameters.
    """

    n_components: int
    family: Family
    method: str | Callback | Array
    weights: Float64Array | None
    means: Float64Array | None
    covariances: Float64Array | None

    @property
    def deterministic(self) -> bool:
        """Whether every start is the same, so that one is enough."""
        around_means = self.means is not None and isinstance(self.method, str)
        return around_means or self.complete or isinstance(self.method, np.ndarray)

    @property
    def complete(self) -> bool:
        """Whether all parameters are given."""
        return self.weights is not None and self.means is not None and self.covariances is not None


def check_start(
    init_params: Any,
    weights_init: Any,
    means_init: Any,
    precisions_init: Any,
    *,
    family: Family,
    n_components: int,
    n_features: int,
) -> Start:
    """Check the arguments of a start; none is changed.

    Parameters
    ----------
    init_params : str, callable or array-like
        See `Start`. Arrays are checked against the data later, by `starting_params`.
    weights_init : array-like (K,) or None
        In [0, 1], sum 1.
    means_init : array-like (K, D) or None
    precisions_init : array-like or None
        Inverse covariances in the family's shape.
    family : Family
    n_components, n_features : int
        K and D.

    Raises
    ------
    InvalidParameterError
        Naming the argument.
    """
    method: str | Callback | Array
    if isinstance(init_params, str) or init_params is None:
        method = check_choice(init_params, "init_params", METHODS, also=", a function, labels or responsibilities")
    elif callable(init_params):
        method = init_params
    else:
        method = _memberships(init_params, "init_params", n_components)
    weights = means = covariances = None
    if weights_init is not None:
        weights = _array(weights_init, "weights", (n_components,))
        if not (weights.min() >= 0.0 and weights.max() <= 1.0):
            msg = (
                "The parameter 'weights' (weights_init) should be in the range [0, 1], but got min value "
                f"{weights.min():.5f}, max value {weights.max():.5f}"
            )
            raise InvalidParameterError(msg)
        if not abs(weights.sum() - 1.0) <= WEIGHT_SUM_ATOL:
            msg = (
                "The parameter 'weights' (weights_init) should be normalized, but got sum(weights) = "
                f"{weights.sum():.5f}. Divide them by their sum"
            )
            raise InvalidParameterError(msg)
        weights = weights / weights.sum()
    if means_init is not None:
        means = _array(means_init, "means", (n_components, n_features))
    if precisions_init is not None:
        shape = family.shape(n_components, n_features)
        precisions = _array(precisions_init, "precisions", shape, copy=False)  # what becomes of them is new
        try:
            covariances = family.from_precisions(precisions)
        except InvalidParameterError as error:
            msg = f"precisions_init must be inverse covariances: {error}"
            raise InvalidParameterError(msg) from None
    return Start(n_components, family, method, weights, means, covariances)


def starting_params(
    start: Start,
    rows: Rows,
    sample: RowSample,
    rng: np.random.Generator,
    *,
    reg_covar: Reference,
    data: Any,
    deadline: float | None = None,
) -> Params:
    """Make the parameters of one start.

    Parameters
    ----------
    start : Start
    rows : row source
        All rows; read only where labels or responsibilities say what belongs where.
    sample : RowSample
        What all other starts are made from.
    rng : numpy.random.Generator
    reg_covar : float or ndarray (D,)
        Added to the variances, as in the M-step.
    data : object
        The user's X, for a callable.
    deadline : float or None
        Value of `time.perf_counter` from which on a simpler start will do; see `fastgmm.initialize.methods.CENTERS`.

    Returns
    -------
    Params

    Raises
    ------
    InvalidParameterError
        If labels or responsibilities, given or returned by the callable, do not fit the data.
    """
    n_components, family = start.n_components, start.family
    method = start.method
    if start.complete:
        assert start.weights is not None
        assert start.means is not None
        assert start.covariances is not None
        return Params(start.weights, start.means, start.covariances, family.name)  # which makes them read-only
    if start.means is not None and isinstance(method, str):
        params = _around_means(start, sample, reg_covar)
    elif isinstance(method, str):
        params = _by_method(method, start, sample, rng, reg_covar, deadline)
    else:
        if callable(method):
            made = method(data, n_components, rng)
            if isinstance(made, Params):
                return _replace(_check_params(made, start, rows.n_features), start)
            method = _memberships(made, "init_params", n_components, also="a function must return")
        stats = _by_memberships(method, start, rows)
        params = _params(stats, family, reg_covar)
    return _replace(params, start)


def _by_method(
    method: str,
    start: Start,
    sample: RowSample,
    rng: np.random.Generator,
    reg_covar: Reference,
    deadline: float | None,
) -> Params:
    """Start by one of `METHODS`."""
    n_components, family = start.n_components, start.family
    choose = CENTERS.get(method)
    if choose is None:
        part, responsibilities = random_responsibilities(sample, n_components, rng)
        blocks = [RowBlock(0, part.z, part.weight)]
        parts = by_responsibility(blocks, responsibilities, n_components)
        stats = collect(parts, n_components, part.z.shape[1], family)
        return _params(_unscaled(stats, sample), family, reg_covar)
    centers = choose(sample, n_components, rng, deadline)
    stats = _around(centers, sample, start)
    params = _params(stats, family, reg_covar)
    if method == "kmeans":
        return params
    # The other methods promise that means are rows of the data.
    return Params(params.weights, _positions(centers, sample), params.covariances, family.name)


def _around_means(start: Start, sample: RowSample, reg_covar: Reference) -> Params:
    """Complete given means by the rows that belong to them; every component keeps the weight of at least one row."""
    assert start.means is not None
    centers = (start.means - sample.origin) * (1.0 / sample.unit)
    if start.covariances is None:
        labels = nearest(sample, centers)
    else:
        weights = np.full(start.n_components, 1.0 / start.n_components) if start.weights is None else start.weights
        scaled = start.covariances * (1.0 / sample.unit) * (1.0 / sample.unit)
        density = covariance.density(Params(weights.copy(), centers, scaled, start.family.name))
        labels = passes.predict(ArrayRows(sample.z, sample.weight), density)
    stats = _partition(labels, sample, start)
    params = _params(stats, start.family, reg_covar)
    weights = np.maximum(params.weights, 1.0 / sample.z.shape[0])
    return Params(weights / weights.sum(), start.means.copy(), params.covariances, start.family.name)


def _around(centers: Float64Array, sample: RowSample, start: Start) -> SufficientStatistics:
    """Return the statistics of the rows nearest to each of `centers`, which lie amid them, in the data's own unit."""
    n_features = sample.z.shape[1]
    if sample.weight is not None or not has_partition(start.family.scatter, n_features):
        return _partition(nearest(sample, centers), sample, start)
    stats = partition(ArrayRows(sample.z), centers)
    return lend(_unscaled(stats, sample), stats.weight)


def _partition(labels: IntArray, sample: RowSample, start: Start) -> SufficientStatistics:
    """Return the statistics of a partition of the sample, in the data's own unit."""
    blocks = [RowBlock(0, sample.z, sample.weight)]
    parts = by_label(blocks, labels, start.n_components)
    stats = collect(parts, start.n_components, sample.z.shape[1], start.family)
    return lend(_unscaled(stats, sample), np.bincount(labels, minlength=start.n_components))


def _by_memberships(memberships: Array, start: Start, rows: Rows) -> SufficientStatistics:
    """Return the statistics of given labels or responsibilities over all rows."""
    n_components, family = start.n_components, start.family
    kept = rows.kept()
    expected = rows.n_rows if kept is None else kept.shape[0]
    if memberships.shape[0] != expected:
        what = "labels" if memberships.ndim == 1 else "responsibilities"
        msg = f"init_params: {what} must have one entry for each of the {expected} rows of X; got {memberships.shape}"
        raise InvalidParameterError(msg)
    if kept is not None:
        memberships = memberships[kept]
    blocks = rows.blocks(piece_rows(rows.n_features * rows.dtype.itemsize, n_components))
    if memberships.ndim == 1:
        n_rows: Array = np.bincount(memberships, minlength=n_components)
        parts = by_label(blocks, memberships, n_components)
    else:
        n_rows = memberships.sum(axis=0, dtype=np.float64)
        parts = by_responsibility(blocks, memberships, n_components)
    if not n_rows.min() > 0.0:
        msg = (
            f"init_params: every component must have rows to start from; component {int(np.argmin(n_rows))} of "
            f"{n_components} has none. Use fewer components"
        )
        raise InvalidParameterError(msg)
    return lend(collect(parts, n_components, rows.n_features, family), n_rows)


def _params(stats: SufficientStatistics, family: Family, reg_covar: Reference) -> Params:
    """M-step without anything before it: components without rows get weight 0 and the spread of all the others."""
    n_components, n_features = stats.mean.shape
    empty = covariance.empty_components(stats)
    if empty is not None:
        # `lend` has given such a component a covariance only if it has weight; a tiny one does.
        stats = _with_ghosts(stats, empty)
    nothing = np.zeros(family.shape(n_components, n_features))
    covariances = family.maximize(stats, reg_covar, nothing, None)
    weights = stats.weight if empty is None else np.where(empty, 0.0, stats.weight)
    return Params(weights / weights.sum(), stats.mean.copy(), covariances, family.name)


def _with_ghosts(stats: SufficientStatistics, empty: Array) -> SufficientStatistics:
    """Place components without rows at the mean of the others, with their common covariance."""
    full = ~empty
    total = stats.weight[full].sum()
    mean = stats.mean.copy()
    first = stats.mean[full][0]
    mean[empty] = first + (stats.weight[full] / total) @ (stats.mean[full] - first)
    scatter = stats.scatter.copy()
    if stats.kind != "pooled":
        scatter[empty] = stats.scatter[full].sum(axis=0) / total
    weight = np.where(empty, 1.0, stats.weight)
    return SufficientStatistics(
        stats.kind, weight, mean, scatter, stats.log_likelihood, stats.log_map, stats.total_weight, stats.n_rows
    )


def _unscaled(stats: SufficientStatistics, sample: RowSample) -> SufficientStatistics:
    """Bring statistics of the sample back to the data's own unit and origin."""
    with np.errstate(over="ignore"):  # variances beyond the range of float64 are refused where they are used
        scatter = piecewise(lambda some: some * sample.unit * sample.unit, stats.scatter)
    return SufficientStatistics(
        stats.kind,
        stats.weight.copy(),
        _positions(stats.mean, sample),
        scatter,
        stats.log_likelihood,
        stats.log_map,
        stats.total_weight,
        stats.n_rows,
    )


def _positions(z: Float64Array, sample: RowSample) -> Float64Array:
    return sample.origin + sample.unit * z


def _replace(params: Params, start: Start) -> Params:
    """Put what the user gave in the place of what was made."""
    if start.weights is None and start.means is None and start.covariances is None:
        return params
    return Params(
        params.weights if start.weights is None else start.weights.copy(),
        params.means if start.means is None else start.means.copy(),
        params.covariances if start.covariances is None else start.covariances.copy(),
        params.covariance_type,
    )


def _check_params(params: Params, start: Start, n_features: int) -> Params:
    """Check the parameters that a callable returned."""
    expected = (start.n_components, n_features)
    if params.means.shape != expected or covariance.family(params.covariance_type) is not start.family:
        msg = (
            f"init_params must return Params of covariance_type={start.family.name!r} with means of shape {expected}; "
            f"got covariance_type={params.covariance_type!r}, means of shape {params.means.shape}"
        )
        raise InvalidParameterError(msg)
    return covariance.make_params(params.weights, params.means, params.covariances, params.covariance_type)


def _memberships(value: Any, name: str, n_components: int, *, also: str = "") -> Array:
    """Return labels as (N,) int64, responsibilities as a float array (N, K)."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or array.size == 0:
        expected = also or f"must be one of {', '.join(map(repr, METHODS))}, a function,"
        msg = (
            f"{name}: {expected} labels (n_samples,) or responsibilities (n_samples, {n_components}) of numbers; "
            f"got {type(value).__name__}"
        )
        raise InvalidParameterError(msg)
    if array.ndim == 2:
        if array.shape[1] != n_components:
            msg = (
                f"{name}: responsibilities must have one column for each of the {n_components} components; "
                f"got shape {array.shape}"
            )
            raise InvalidParameterError(msg)
        with np.errstate(invalid="ignore"):
            sums = array.sum(axis=1, dtype=np.float64)
        if not (array.min() >= 0.0 and np.isfinite(sums).all() and sums.min() > 0.0):
            msg = f"{name}: responsibilities must be finite and >= 0 with a positive sum in every row"
            raise InvalidParameterError(msg)
        return array
    low, high = array.min(), array.max()
    if not (low >= 0 and high < n_components) or (array.dtype.kind == "f" and (array != np.floor(array)).any()):
        msg = f"{name}: labels must be integers from 0 to n_components - 1 = {n_components - 1}; got {low} to {high}"
        raise InvalidParameterError(msg)
    return array.astype(np.int64, copy=False)


def _array(value: Any, name: str, shape: tuple[int, ...], *, copy: bool = True) -> Float64Array:
    """Return a given parameter as a finite float64 array, by default a copy."""
    try:
        array = (np.array if copy else np.asarray)(value, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        msg = f"The parameter '{name}' ({name}_init) should be an array of numbers of shape {shape}: {error}"
        raise InvalidParameterError(msg) from None
    if array.shape != shape:
        msg = f"The parameter '{name}' ({name}_init) should have the shape of {shape}, but got {array.shape}"
        raise InvalidParameterError(msg)
    if not np.isfinite(array).all():
        msg = f"The parameter '{name}' ({name}_init) should be finite, but got NaN or infinity"
        raise InvalidParameterError(msg)
    return array
