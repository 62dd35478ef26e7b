"""Fits on a Dask cluster: the same estimator, the same numbers, whatever the number of workers and the chunks.

    from dask.distributed import Client
    import fastgmm.dask

    client = Client("tcp://host:8786")
    model = fastgmm.dask.fit(fastgmm.GaussianMixture(32), X)  # dask array, dask dataframe, fastgmm.open_rows(...)
    labels = fastgmm.dask.predict(model, X)  # a lazy dask array

Read `models` first. `rows` says what a fit knows of data that lie on workers, `tasks` is all that runs there, `sums`
turns a pass into tasks and survives the loss of workers, `cluster` looks at the workers before anything starts.
"""

from __future__ import annotations

from fastgmm.dask.models import fit, predict, predict_proba, score, score_samples

__all__ = ["fit", "predict", "predict_proba", "score", "score_samples"]
