"""Kill a worker of a Dask cluster with SIGKILL at a random moment of a fit, again and again; compare the bits.

    python benchmarks/kill_workers.py --kills 20

Prints one JSON object a fit, and at the end how many fits were killed, and how many gave the bits of the fit in memory.

Fits go on until so many were killed before they ended.

A LocalCluster looks, `distributed.deploy.lost-worker-timeout` (15 s) after a worker was lost, whether there is one of
its name, and if not it closes the nanny for good. A worker that is killed again 15 s later is just then being started
again, and so never comes back. Here, where this would happen about every tenth time, that time is an hour.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import threading
import time
import warnings
from typing import Any

import numpy as np

import fastgmm

try:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    import fastgmm.dask
except ImportError:  # asv imports every file of this folder, in environments without Dask
    pass


def chunk(number: int) -> Any:
    """Rows that any process makes the same."""
    rng = np.random.default_rng(number)
    return rng.normal(size=(100_003, 8)) + rng.integers(0, 5, (100_003, 1)) * 3.0


def model() -> fastgmm.GaussianMixture:
    """Sixty iterations, most of the fit's time."""
    return fastgmm.GaussianMixture(8, tol=0.0, max_iter=60, random_state=0, init_params="k-means++")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", action="store_true", help="passes of tasks, not of messages from the caller")
    args = parser.parse_args()
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
    chance = random.Random(args.seed)
    here = model().fit(np.concatenate([chunk(i) for i in range(6)]))
    make = dask.delayed(chunk)
    rows = da.concatenate([da.from_delayed(make(i), (100_003, 8), float) for i in range(6)])
    same = killed = 0
    moments = []
    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            fastgmm.dask.fit(model(), rows, direct=not args.tasks)
            usual = time.perf_counter() - start
        while killed < args.kills:
            client.wait_for_workers(3, timeout=120)
            victim = chance.choice(sorted(client.run(os.getpid, on_error="ignore").values()))
            moment = chance.uniform(0.0, usual)
            timer = threading.Timer(moment, os.kill, (victim, signal.SIGKILL))
            timer.start()
            start = time.perf_counter()
            there = fastgmm.dask.fit(model(), rows, direct=not args.tasks)
            took = time.perf_counter() - start
            killed += not timer.is_alive()
            timer.join()
            moments.append(round(moment, 2))
            equal = there.means_.tobytes() == here.means_.tobytes() and there.lower_bounds_ == here.lower_bounds_
            same += equal
            print(json.dumps({"killed_after": moments[-1], "seconds": round(took, 2), "same_bits": equal}), flush=True)
    line = {"fits": len(moments), "killed_during_the_fit": killed, "same_bits": same, "usual_seconds": round(usual, 2)}
    print(json.dumps({**line, "moments": moments}))


if __name__ == "__main__":
    main()
