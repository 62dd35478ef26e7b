"""Spark's Gaussian mixtures beside our fit on two worker processes, all on the same Parquet file.

    python benchmarks/spark.py rows spark.parquet     # makes it: 1e6 rows, D = 16, around 32 centres
    python benchmarks/spark.py ml spark.parquet       # pyspark.ml; this and the next need pyspark and Java
    python benchmarks/spark.py mllib spark.parquet    # pyspark.mllib, from the start that we take, too
    python benchmarks/spark.py dask spark.parquet
    python benchmarks/spark.py epsilon spark.parquet  # what Spark does, in a few lines of NumPy

Each but the first prints a JSON object: seconds an iteration, the log-likelihood of the mixture after four iterations,
computed by us from its parameters over all rows, and how far it is from that of the planted one. pyspark.ml takes no
start; the older pyspark.mllib does. Spark adds 2**-52 to each component's weighted density, of whatever size the
densities are; ``epsilon`` shows what comes of that. ``--unit 100`` makes the rows (and the start, and the planted
mixture) in a unit a hundred times as large, which changes nothing for EM but the scale of the densities.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from types import SimpleNamespace

import numpy as np

K, D, ITERATIONS = 32, 16, 4
GROUPS = 16  # of rows in the file; Spark gives whole ones to its tasks


def planted(unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, means and covariances of the mixture that the rows are drawn from."""
    means = np.random.default_rng(10**6).normal(size=(K, D)) * 4.0
    return np.full(K, 1 / K), means / unit, np.tile(np.eye(D), (K, 1, 1)) / unit**2


def begin(unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the start: centres that are off by one standard deviation in each feature, variances twice too large."""
    weights, means, covariances = planted(unit)
    return weights, means + np.random.default_rng(1).normal(size=(K, D)) / unit, 2.0 * covariances


def rows(path: str, unit: float, n: int) -> dict[str, float]:
    """Write the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    x = planted(unit)[1][rng.integers(0, K, n)] + rng.normal(size=(n, D)) / unit
    pq.write_table(pa.table({f"x{j}": x[:, j] for j in range(D)}), path, row_group_size=-(-n // GROUPS))
    return {"rows": n}


def found(path: str, unit: float, seconds: float, parameters: tuple[np.ndarray, ...]) -> dict[str, float]:
    """Return the result of a fit: our log-likelihoods of what it found."""
    import fastgmm

    total, best = (
        float(fastgmm.Mixture(*some).logpdf(fastgmm.open_rows(path)).sum()) for some in (parameters, planted(unit))
    )
    return {"seconds": seconds, "log_likelihood": total, "less_than_planted": best - total}


def spark_session():
    """Start Spark on two threads."""
    from pyspark.sql import SparkSession

    return SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g").getOrCreate()


def timed(fit):
    """Return seconds an iteration, and the model after the last; fits also have a start, and read the rows."""
    fit(1)  # a warm-up
    seconds = []
    for n in (1, ITERATIONS):
        start = time.perf_counter()
        model = fit(n)
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / (ITERATIONS - 1), model


def ml(path: str, unit: float) -> dict[str, float]:
    """Fit with pyspark.ml, from a random start of its own."""
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler

    table = spark_session().read.parquet(path)
    data = VectorAssembler(inputCols=table.columns, outputCol="features").transform(table).select("features").cache()
    data.count()
    seconds, model = timed(lambda n: GaussianMixture(k=K, maxIter=n, tol=1e-30, seed=1).fit(data))
    parts = model.gaussians
    means, covariances = np.array([g.mean.toArray() for g in parts]), np.array([g.cov.toArray() for g in parts])
    return found(path, unit, seconds, (np.array(model.weights), means, covariances))


def mllib(path: str, unit: float) -> dict[str, float]:
    """Fit with pyspark.mllib, from the start."""
    from pyspark.mllib.clustering import GaussianMixture
    from pyspark.mllib.linalg import Matrices, Vectors
    from pyspark.mllib.stat.distribution import MultivariateGaussian

    weights, means, covariances = begin(unit)
    gaussians = [
        MultivariateGaussian(Vectors.dense(mean), Matrices.dense(D, D, covariance.ravel()))
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    start = SimpleNamespace(k=K, weights=weights.tolist(), gaussians=gaussians)  # no more of a model is looked at
    data = spark_session().read.parquet(path).rdd.map(Vectors.dense).cache()
    data.count()
    seconds, model = timed(lambda n: GaussianMixture.train(data, K, 1e-30, n, initialModel=start))
    parts = model.gaussians
    means, covariances = np.array([g.mu.toArray() for g in parts]), np.array([g.sigma.toArray() for g in parts])
    return found(path, unit, seconds, (np.array(model.weights), means, covariances))


def dask(path: str, unit: float) -> dict[str, float]:
    """Fit with fastgmm.dask, from the start."""
    from distributed import Client, LocalCluster

    import fastgmm
    import fastgmm.dask

    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
    weights, means, covariances = begin(unit)
    model = fastgmm.GaussianMixture(
        K,
        weights_init=weights,
        means_init=means,
        precisions_init=np.linalg.inv(covariances),
        tol=0.0,
        reg_covar=0.0,  # Spark adds nothing to variances
        max_iter=ITERATIONS,
    )
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        result = fastgmm.dask.fit(model, path).result_
    assert result is not None
    seconds = statistics.median(record.seconds for record in result.history[:-1])
    return found(path, unit, seconds, (model.weights_, model.means_, model.covariances_))


def epsilon(path: str, unit: float) -> dict[str, float]:
    """Fit with NumPy, from the start, with the number that Spark adds to densities."""
    import fastgmm

    x = fastgmm.open_rows(path).to_array()
    weights, means, covariances = begin(unit)
    start = time.perf_counter()
    for _ in range(ITERATIONS):
        shares = np.empty((len(x), K))
        for k in range(K):
            factor = np.linalg.cholesky(covariances[k])
            distance = (np.linalg.solve(factor, (x - means[k]).T) ** 2).sum(axis=0)
            norm = np.log(np.diag(factor)).sum() + D / 2 * np.log(2.0 * np.pi)
            shares[:, k] = weights[k] * np.exp(-0.5 * distance - norm) + 2.0**-52
        shares /= shares.sum(axis=1, keepdims=True)
        counts = shares.sum(axis=0)
        weights, means = counts / counts.sum(), shares.T @ x / counts[:, None]
        squares = np.array([(x * shares[:, [k]]).T @ x / counts[k] for k in range(K)])
        covariances = squares - means[:, :, None] * means[:, None, :]
    seconds = (time.perf_counter() - start) / ITERATIONS
    return found(path, unit, seconds, (weights, means, covariances))


WHAT = {"ml": ml, "mllib": mllib, "dask": dask, "epsilon": epsilon}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", *WHAT])
    parser.add_argument("path")
    parser.add_argument("--unit", type=float, default=1.0, help="of the features, in their standard deviations")
    parser.add_argument("--rows", type=int, default=10**6, help="how many are made")
    asked = parser.parse_args()
    if asked.what == "rows":
        print(json.dumps(rows(asked.path, asked.unit, asked.rows)))
    else:
        print(json.dumps(WHAT[asked.what](asked.path, asked.unit)))
