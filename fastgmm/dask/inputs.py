"""Any distributed data as dask arrays: float rows in one chunk across, and weights in the same chunks."""

from __future__ import annotations

import pickle
from itertools import pairwise
from numbers import Real
from typing import Any

import dask
import dask.array as da
import numpy as np

from fastgmm.covariance import family
from fastgmm.dask import tasks
from fastgmm.dask.cluster import Cluster
from fastgmm.data import StreamRows, opened
from fastgmm.data.arrays import to_float
from fastgmm.errors import InvalidDataError, InvalidDataTypeError, InvalidParameterError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.validation import check_integer

CHUNK_BYTES = 1 << 26
"""Rows of a source that one task reads."""


def lazy_rows(X: Any, dtype: Any = None) -> tuple[Any, tuple[str, ...] | None]:
    """Return data as a dask array of float rows, lengths of chunks possibly unknown, and the names of the columns.

    Raises
    ------
    InvalidDataTypeError
        If `X` is nothing distributed.
    InvalidDataError
        If it is no table of real numbers.
    """
    names = None
    X = opened(X)
    if isinstance(X, StreamRows):
        x, _ = _read(X if dtype is None else X.with_dtype(dtype))
        return x, X.names
    if isinstance(X, da.Array):
        x = X
    elif hasattr(X, "to_dask_array") and hasattr(X, "columns"):
        if all(isinstance(name, str) for name in X.columns):
            names = tuple(X.columns)
        wrong = [str(name) for name, kind in X.dtypes.items() if getattr(kind, "kind", "O") not in "fiub"]
        if wrong:
            msg = f"X must hold real numbers; column(s) {', '.join(wrong)} do not. Choose the others with X[[...]]"
            raise InvalidDataError(msg)
        x = X.to_dask_array()
    else:
        msg = (
            f"X must be a dask array, a dask dataframe or rows from fastgmm.open_rows; got {type(X).__name__}. For "
            "data in this process use the estimator's own methods, or dask.array.from_array"
        )
        raise InvalidDataTypeError(msg)
    _check(x)
    target = np.dtype(np.float32 if x.dtype == np.float32 else np.float64) if dtype is None else np.dtype(dtype)
    if len(x.chunks[1]) > 1:
        x = x.rechunk({1: -1})
    if x.dtype != target:
        x = x.map_blocks(to_float, target, "X", dtype=target, meta=np.empty((0, 0), target))
    return x, names


def collect(X: Any, sample_weight: Any, dtype: Any, cluster: Cluster) -> tuple[Any, Any, tuple[str, ...] | None]:
    """Return rows and weights as dask arrays in the same chunks of known lengths, and the names of the columns.

    Raises
    ------
    InvalidDataTypeError, InvalidDataError
    """
    X = opened(X)
    if isinstance(X, StreamRows) and X.weighted:
        if sample_weight is not None:
            msg = "sample_weight must be None for a source that was opened with weights: which of the two should count?"
            raise InvalidParameterError(msg)
        return *_read(X if dtype is None else X.with_dtype(dtype)), X.names
    x, names = lazy_rows(X, dtype)
    x = _with_lengths(x, cluster)
    if 0 in x.shape:
        msg = f"Found array of shape {x.shape} while a minimum of 1 row and 1 feature is required: X is empty"
        raise InvalidDataError(msg)
    if sample_weight is None:
        return x, None, names
    return x, _weights(sample_weight, x, cluster), names


def _read(rows: StreamRows) -> tuple[Any, Any]:
    """Describe the reading of a source, and of the weights in it, by the workers, each of which opens it itself."""
    given = rows._given
    if given is not None:
        rows = rows.unweighted()
    n_rows = rows.n_given
    try:
        source = dask.delayed(pickle.dumps(rows))
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        msg = f"X must be files that every worker can open, on storage they share; {rows!r} cannot be sent: {error}"
        raise InvalidDataTypeError(msg) from error
    size = max(CHUNK_BYTES // (rows.n_features * rows.dtype.itemsize), 1)
    edges = [*range(0, n_rows, size), n_rows]
    found, weights = [], []
    for start, stop in pairwise(edges):
        x = dask.delayed(tasks.read_x)(source, start, stop)
        found.append(da.from_delayed(x, (stop - start, rows.n_features), rows.dtype))
        if rows.weighted:
            w = dask.delayed(tasks.read_weights)(source, start, stop)
            weights.append(da.from_delayed(w, (stop - start,), np.float64))
    x = da.concatenate(found)
    if given is not None:
        return x, da.from_array(np.asarray(given._values, np.float64), chunks=(x.chunks[0],))
    return x, da.concatenate(weights) if weights else None


def _weights(sample_weight: Any, x: Any, cluster: Cluster) -> Any:
    n_rows = int(x.shape[0])
    if isinstance(sample_weight, Real):
        return da.full(n_rows, float(sample_weight), chunks=(x.chunks[0],))
    if hasattr(sample_weight, "to_dask_array"):
        sample_weight = sample_weight.to_dask_array()
    if not isinstance(sample_weight, da.Array):
        sample_weight = np.asarray(sample_weight)
        own = (x.chunks[0],) if sample_weight.shape == (n_rows,) else "auto"
        sample_weight = da.from_array(sample_weight, chunks=own)
    if sample_weight.dtype.kind not in "fiub":
        msg = f"sample_weight must hold one real number for each row of X; got dtype {sample_weight.dtype}"
        raise InvalidDataError(msg)
    if sample_weight.ndim == 1:
        sample_weight = _with_lengths(sample_weight, cluster)
    if sample_weight.shape != (n_rows,):
        msg = (
            f"sample_weight must have shape ({n_rows},), one weight for each row of X; got shape {sample_weight.shape}"
        )
        raise InvalidDataError(msg)
    if sample_weight.chunks != (x.chunks[0],):
        sample_weight = sample_weight.rechunk((x.chunks[0],))
    return sample_weight.astype(np.float64)


def _with_lengths(x: Any, cluster: Cluster) -> Any:
    """Return the array with known lengths of its chunks; counted on the cluster if they are not."""
    if not any(np.isnan(n) for n in x.chunks[0]):
        return x
    client = cluster.client
    chunks = [dask.delayed(len)(chunk) for chunk in x.to_delayed().reshape(-1)]
    lengths = cluster.retried(lambda: client.gather(client.compute(chunks, optimize_graph=False)))
    return da.Array(x.dask, x.name, ((*map(int, lengths),), *x.chunks[1:]), dtype=x.dtype, meta=x._meta)


def _check(x: Any) -> None:
    if x.ndim != 2:
        msg = f"Expected 2D array, got {x.ndim}D array instead: X must have shape (n_samples, n_features)"
        raise InvalidDataError(msg)
    if x.dtype.kind not in "fiub":
        msg = f"X must hold real numbers; got dtype {x.dtype}"
        raise InvalidDataError(msg)


def check_features(model: GaussianMixture, x: Any) -> None:
    """Refuse another number of features than the fit had.

    Raises
    ------
    InvalidDataError
    """
    if x.shape[1] != model.n_features_in_:
        expected = f"{type(model).__name__} is expecting {model.n_features_in_} features as input."
        msg = f"X has {x.shape[1]} features, but {expected}"
        raise InvalidDataError(msg)


def shape_of(model: GaussianMixture) -> tuple[int, str]:
    """Return number of components and covariance family of a model that is to be fitted."""
    return check_integer(model.n_components, "n_components", minimum=1), family(model.covariance_type).name
