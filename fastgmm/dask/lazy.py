"""One value a row, lazily: the rows of a chunk to their labels, probabilities or log-densities.

Each task uses one thread: Dask runs as many of them as a worker has threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np

from fastgmm import passes
from fastgmm.dask.inputs import check_features, lazy_rows
from fastgmm.data import as_rows, raise_non_finite
from fastgmm.density import Density
from fastgmm.errors import NonFiniteDataError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.kernels._jit import limited_threads
from fastgmm.typing import Array

WAYS: dict[str, Callable[..., Array]] = {
    "predict": passes.predict,
    "predict_proba": passes.predict_proba,
    "score_samples": passes.score_samples,
}


def rowwise(model: GaussianMixture, X: Any, way: str, dtype: np.dtype[Any], *, width: bool = False) -> Any:
    """Describe a pass over `X` that gives a value, or with `width` K values, a row.

    Parameters
    ----------
    model : GaussianMixture
        Fitted.
    X : dask array, dask dataframe or source
    way : str
        A key of `WAYS`.
    dtype : numpy.dtype
        Of the result.
    width : bool
    """
    model._check_is_fitted()
    x, names = lazy_rows(X, model._pass_dtype)
    check_features(model, x)
    fixed = {"density": dask.delayed(model.mixture_.density), "way": way, "names": names}
    if width:
        chunks = (x.chunks[0], (model.mixture_.n_components,))
        return x.map_blocks(values, **fixed, chunks=chunks, dtype=dtype, meta=np.empty((0, 0), dtype))
    return x.map_blocks(values, **fixed, drop_axis=1, dtype=dtype, meta=np.empty(0, dtype))


def values(x: Array, *, density: Density, way: str, names: Any, block_info: Any = None) -> Array:
    """Return the values of the rows of one chunk.

    Raises
    ------
    NonFiniteDataError
        Naming the row of the whole array, if the lengths of chunks are known, else that of the chunk.
    """
    if x.shape[0] == 0:
        empty = np.empty((0, density.n_components)) if way == "predict_proba" else np.empty(0)
        return empty.astype(np.int64) if way == "predict" else empty
    try:
        with limited_threads(1):
            result: Array = WAYS[way](as_rows(x), density)
    except NonFiniteDataError:
        first = block_info[0]["array-location"][0][0] if block_info else 0
        try:
            raise_non_finite(iter([(0 if np.isnan(first) else int(first), x)]), names=names, weightable=False)
        except NonFiniteDataError as error:
            if not np.isnan(first):
                raise
            where = block_info[0]["chunk-location"][0]
            msg = (
                f"{error}. Rows are counted from the start of chunk {where}: the lengths of those before are not known"
            )
            raise NonFiniteDataError(msg, row=error.row, column=error.column) from None
        raise
    return result
