"""Dask on this machine beside the fit in memory: time of an iteration, and what a pass costs beyond its computing.

    python benchmarks/cluster.py fit        # N = 5e6, D = 16, K = 32: in memory, and on 1, 2, 4 workers
    python benchmarks/cluster.py overhead --rows 16000   # a pass of 16 slabs, beyond their computing: messages, tasks
    python benchmarks/cluster.py model      # the figures that docs/scaling.md is made of

Rows are made on the workers, chunk by chunk, so nothing is sent. Prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import fastgmm
from fastgmm import covariance, passes
from fastgmm.data import as_rows

try:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    import fastgmm.dask
    from fastgmm.dask import rows as dask_rows
    from fastgmm.dask import tasks
    from fastgmm.dask.cluster import use_cluster
    from fastgmm.dask.rows import DaskRows
    from fastgmm.dask.session import serving
    from fastgmm.dask.sums import accumulate_on, grid_rows
    from fastgmm.partials import Work
except ImportError:  # asv imports every file of this folder, in environments without Dask
    pass

D, K = 16, 32


def chunk(number: int, n_rows: int) -> Any:
    """Rows around 32 centres; any process makes the same."""
    rng = np.random.default_rng(number)
    centres = np.random.default_rng(10**6).normal(size=(K, D)) * 4.0
    return centres[rng.integers(0, K, n_rows)] + rng.normal(size=(n_rows, D))


def data(n_rows: int, n_chunks: int) -> Any:
    """The rows as a dask array."""
    edges = np.linspace(0, n_rows, n_chunks + 1).astype(int)
    make = dask.delayed(chunk)
    parts = [da.from_delayed(make(i, int(n)), (int(n), D), float) for i, n in enumerate(np.diff(edges))]
    return da.concatenate(parts)


@contextmanager
def cluster(n_workers: int) -> Iterator[Client]:
    """Worker processes of one thread."""
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as local,
        Client(local) as client,
    ):
        yield client


def model(iterations: int) -> fastgmm.GaussianMixture:
    """A fit of exactly so many iterations from a cheap start."""
    means = np.random.default_rng(10**6).normal(size=(K, D)) * 4.0
    return fastgmm.GaussianMixture(K, means_init=means + 0.3, tol=0.0, max_iter=iterations, random_state=0)


def seconds(result: Any) -> float:
    """Median time of the iterations that gather moments; the last one does not."""
    return statistics.median(record.seconds for record in result.history[:-1])


def fit(n_rows: int, iterations: int, workers: list[int]) -> None:
    """Time of an iteration."""
    x = np.concatenate([chunk(i, n_rows // 16) for i in range(16)])
    here = model(iterations).fit(x)
    base = seconds(here.result_)
    print(json.dumps({"what": "in memory, 2 threads", "rows": len(x), "seconds": round(base, 4)}), flush=True)
    del x
    for n in workers:
        with cluster(n):
            there = fastgmm.dask.fit(model(iterations), data(n_rows // 16 * 16, 16))
        took = seconds(there.result_)
        same = there.means_.tobytes() == here.means_.tobytes() and there.lower_bound_ == here.lower_bound_
        line = {"what": f"Dask, {n} workers", "seconds": round(took, 4), "ratio": round(took / base, 3), "same": same}
        print(json.dumps(line), flush=True)


def overhead(n_rows: int, n_tasks: int, repeats: int, *, direct: bool = True, workers: int = 2) -> None:
    """What a pass takes beyond the longest worker's computing."""
    with cluster(workers) as client:
        dask_rows.FEWEST_SLABS = n_tasks
        used = use_cluster(client)
        rows = DaskRows(used, data(n_rows, 16), block_rows=grid_rows(K, D, "full", np.float64))
        with serving(used, D, "float64") as session:
            params = model(0).fit(chunk(0, 20_000)).mixture_.params
            run = accumulate_on(rows, "full", session=session if direct else None)
            for _ in range(3):
                run(params)
            walls = []
            for _ in range(repeats):
                start = time.perf_counter()
                run(params)
                walls.append(time.perf_counter() - start)
            # the same slabs, one after the other in each worker, without anything between them
            program = passes._build(covariance.density(params), rows.dtype)[0]
            work = Work.of(program, 0, rows.n_rows)
            slabs, each = rows.slabs(), -(-len(rows.slabs()) // workers)
            shares = [slabs[at : at + each] for at in range(0, len(slabs), each)]
            alone = []
            for _ in range(max(repeats // 2, 3)):
                futures = client.map(timed, [work] * len(shares), shares, pure=False)
                alone.append(max(client.gather(futures)))
    wall, busy = statistics.median(walls), statistics.median(alone)
    line = {"what": "overhead", "direct": direct, "workers": workers, "rows": n_rows, "tasks": len(slabs)}
    line |= {"wall": round(wall * 1e3, 2), "busy": round(busy * 1e3, 2), "overhead": round((wall - busy) * 1e3, 2)}
    print(json.dumps(line), flush=True)


def timed(work: Work, slabs: list[tasks.Slab]) -> float:
    """Time of the passes over slabs, in a worker."""
    start = time.perf_counter()
    for slab in slabs:
        tasks.run_slab(work, slab)
    return time.perf_counter() - start


def measure_model() -> None:
    """Rows a second and thread, bytes of the sums, times of merges and of M-steps."""
    for k, d in ((32, 16), (256, 64), (1024, 128)):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(200_000 if k < 100 else 20_000, d))
        params = covariance.make_params(
            np.full(k, 1.0 / k), rng.normal(size=(k, d)), np.tile(np.eye(d), (k, 1, 1)), "full"
        )
        rows = as_rows(x)
        run = passes.Accumulator(rows, "full", n_threads=1)
        density = covariance.density(params)
        stats = run(density)
        start = time.perf_counter()
        stats = run(density)
        took = time.perf_counter() - start
        start = time.perf_counter()
        covariance.maximize(stats, params, 1e-6)
        covariance.density(params)
        m_step = time.perf_counter() - start
        program = passes._build(density, rows.dtype)[0]
        work = Work.of(program, 0, rows.n_rows)
        part = np.zeros(program.slot_length)
        start = time.perf_counter()
        for _ in range(10):
            part + part
        line = {
            "components": k,
            "features": d,
            "rows_per_second": round(len(x) / took),
            "work_bytes": len(pickle.dumps(work)),
            "sums_bytes": program.slot_length * 8,
            "merge_seconds": (time.perf_counter() - start) / 10,
            "m_step_seconds": round(m_step, 5),
        }
        print(json.dumps(line), flush=True)
        del stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "overhead", "model"))
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="*", default=[2])
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
    if args.what == "fit":
        fit(args.rows, args.iterations, args.workers)
    elif args.what == "overhead":
        for n in args.workers:
            for direct in (True, False):
                overhead(args.rows, args.tasks, args.repeats, direct=direct, workers=n)
    else:
        measure_model()


if __name__ == "__main__":
    main()
