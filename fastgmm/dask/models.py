"""What a user calls: fit, and the methods of a fitted model, on data that lie on a cluster.

`fit` is the fit of the local estimator with another engine (`fastgmm.estimators._engine`): the same checks, starts, EM,
warnings, callbacks and checkpoints, and the same bits. `predict`, `predict_proba` and `score_samples` are lazy: they
describe the work, chunk by chunk, for any Dask scheduler.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import dask.array as da
import numpy as np

from fastgmm import covariance
from fastgmm.dask import lazy
from fastgmm.dask.cluster import Cluster, use_cluster
from fastgmm.dask.inputs import check_features, collect, shape_of
from fastgmm.dask.rows import DaskRows
from fastgmm.dask.session import serving
from fastgmm.dask.sums import accumulate_on, grid_rows
from fastgmm.data import StreamRows, opened
from fastgmm.estimators._engine import Engine
from fastgmm.estimators._sklearn import naming_bad_values
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.initialize import RowSample, draw_sample

Model = TypeVar("Model", bound=GaussianMixture)


def fit(
    model: Model,
    X: Any,
    *,
    sample_weight: Any = None,
    client: Any = None,
    persist: bool = True,
    direct: bool = True,
    **options: Any,
) -> Model:
    """Fit a model on a cluster; the result has the bits of ``model.fit`` on the same rows in memory.

    Parameters
    ----------
    model : GaussianMixture
        Fitted in place, with its parameters.
    X : dask.array.Array (N, D), dask dataframe, or rows from `fastgmm.open_rows` (or a path) that all workers can open
        In chunks of any length. Lengths that are not known are counted once.
    sample_weight : array-like (N,), dask array or dask series, optional
        As in `GaussianMixture.fit`.
    client : distributed.Client, optional
        The current one if not given.
    persist : bool, default True
        Workers keep their rows between passes (as Dask keeps results: counted, spilled to disk, made again when lost).
        False reads them anew in every pass, for data that exceed the workers' memory.
    direct : bool, default True
        This process asks the workers itself in every pass, some milliseconds in all. False makes a pass of tasks, which
        go through the scheduler: only for clusters whose workers cannot be reached from here (that is noticed anyway,
        but costs seconds). With ``persist=False`` passes are of tasks.
    **options
        ``callback``, ``checkpoint`` and what else `GaussianMixture.fit` takes.

    Returns
    -------
    GaussianMixture
        `model`.

    Raises
    ------
    ClusterError
        If there is no usable client or worker, or workers keep dying.
    InvalidParameterError, InvalidDataError, NonFiniteDataError, SingularCovarianceError
        As `GaussianMixture.fit`.
    """
    cluster = use_cluster(client)

    def make_rows(X: Any, sample_weight: Any = None, *, dtype: Any = None) -> DaskRows:
        return _rows(cluster, model, X, sample_weight, dtype=dtype, persist=persist)

    rows = make_rows(X, sample_weight)
    with serving(cluster, rows.n_features, rows.dtype.name) as session:
        accumulate = partial(accumulate_on, session=session if direct else None)
        engine = Engine(rows=make_rows, sample=_draw, accumulate=accumulate)  # type: ignore[arg-type]  # rows elsewhere
        model._fit(X, sample_weight, engine=engine, rows=rows, names=rows.names, **options)  # type: ignore[arg-type]  # rows elsewhere
    return model


def score(model: GaussianMixture, X: Any, *, sample_weight: Any = None, client: Any = None) -> float:
    """Return the mean log-density of the rows, nats per unit of row weight; as `GaussianMixture.score`.

    Parameters
    ----------
    model : GaussianMixture
        Fitted.
    X, sample_weight, client
        As in `fit`.

    Raises
    ------
    NotFittedError, ClusterError, InvalidDataError
    """
    model._check_is_fitted()
    cluster = use_cluster(client)
    rows = _rows(cluster, model, X, sample_weight, dtype=model._pass_dtype, persist=False, fitted=True)
    scatter = covariance.FAMILIES[model.mixture_.covariance_type].scatter
    with serving(cluster, rows.n_features, rows.dtype.name), naming_bad_values(rows, weightable=True):  # type: ignore[arg-type]  # rows elsewhere
        stats = accumulate_on(rows, scatter)(model.mixture_.params, moments=False)
    return stats.log_likelihood / rows.total_weight


def predict(model: GaussianMixture, X: Any) -> da.Array:
    """Return the most probable component of each row, lazily: a dask array (N,) int64 in chunks as `X`.

    Parameters
    ----------
    model : GaussianMixture
        Fitted.
    X : dask array (N, D), dask dataframe, or rows from `fastgmm.open_rows`
    """
    return lazy.rowwise(model, X, "predict", np.dtype(np.int64))


def predict_proba(model: GaussianMixture, X: Any) -> da.Array:
    """Return the posterior probabilities of the components, lazily: a dask array (N, K) float64; see `predict`."""
    return lazy.rowwise(model, X, "predict_proba", np.dtype(np.float64), width=True)


def score_samples(model: GaussianMixture, X: Any) -> da.Array:
    """Return the log-density of each row in nats, lazily: a dask array (N,) float64; see `predict`."""
    return lazy.rowwise(model, X, "score_samples", np.dtype(np.float64))


def _rows(
    cluster: Cluster,
    model: GaussianMixture,
    X: Any,
    sample_weight: Any,
    *,
    dtype: Any,
    persist: bool,
    fitted: bool = False,
) -> DaskRows:
    """Return data of any kind as distributed rows."""
    X = opened(X)
    x, weight, names = collect(X, sample_weight, dtype, cluster)
    if fitted:
        check_features(model, x)
        k, family = model.mixture_.n_components, model.mixture_.covariance_type
    else:
        k, family = shape_of(model)
    block = grid_rows(k, x.shape[1], family, x.dtype)
    files = X if isinstance(X, StreamRows) else None
    return DaskRows(cluster, x, weight, names=names, block_rows=block, persist=persist, files=files)


def _draw(rows: DaskRows, n_components: int, rng: np.random.Generator, *, spread_only: bool = False) -> RowSample:
    """Draw the sample of a start where the rows are; the same rows as in memory."""
    ways = {"whole": DaskRows.whole, "pick": DaskRows.pick}
    return draw_sample(rows, n_components, rng, spread_only=spread_only, **ways)  # type: ignore[arg-type]  # as above
