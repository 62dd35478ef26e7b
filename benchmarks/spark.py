"""Spark ML's GaussianMixture beside our fit on two worker processes, on the same Parquet file.

    python benchmarks/spark.py data.parquet spark   # in an environment with pyspark and Java
    python benchmarks/spark.py data.parquet dask

Prints one JSON object: seconds an iteration, and the log-likelihood after four iterations (of different starts: Spark's
is random).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings

COMPONENTS, ITERATIONS = 32, 4


def spark(path: str) -> dict[str, float]:
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g").getOrCreate()
    table = session.read.parquet(path)
    rows = VectorAssembler(inputCols=table.columns, outputCol="features").transform(table).select("features").cache()
    rows.count()
    seconds = []
    for n in (1, 2, ITERATIONS):  # the first is a warm-up; a fit of n iterations has a start, too
        start = time.perf_counter()
        model = GaussianMixture(k=COMPONENTS, maxIter=n, tol=1e-30, seed=1).fit(rows)
        seconds.append(time.perf_counter() - start)
    return {"seconds": (seconds[2] - seconds[1]) / (ITERATIONS - 2), "log_likelihood": model.summary.logLikelihood}


def dask(path: str) -> dict[str, float]:
    from distributed import Client, LocalCluster

    import fastgmm
    import fastgmm.dask

    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        model = fastgmm.GaussianMixture(COMPONENTS, random_state=0, tol=0.0, max_iter=ITERATIONS)
        result = fastgmm.dask.fit(model, path).result_
    assert result is not None
    seconds = statistics.median(record.seconds for record in result.history[:-1])
    return {"seconds": seconds, "log_likelihood": result.log_likelihood}


if __name__ == "__main__":
    print(json.dumps({"spark": spark, "dask": dask}[sys.argv[2]](sys.argv[1])))
