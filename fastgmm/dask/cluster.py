"""The cluster, looked at before anything starts: a client, workers, and the same package with compiled kernels on each.

A worker that joins later, or is started again after it died, is warmed up by a plugin before it gets a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from distributed import Client, KilledWorker, WorkerPlugin, default_client
from distributed.comm import CommClosedError

from fastgmm import passes
from fastgmm.covariance import FAMILIES, density, make_params
from fastgmm.dask import tasks
from fastgmm.data.arrays import ArrayRows
from fastgmm.errors import ClusterError, InvalidParameterError
from fastgmm.kernels._jit import compile_launchers

LOST = (KilledWorker, CancelledError, CommClosedError, ConnectionError, TimeoutError)
"""What a task or a call ends with when a worker was lost; none of these says that the task itself is wrong."""

ATTEMPTS = 5
"""How often the tasks of one pass are tried. Dask itself moves tasks of dead workers to others before any of this."""

WAIT_SECONDS = 60.0
"""How long a fit waits for a worker when all are gone; nannies start new ones within a few."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A client and the workers it has.

    Attributes
    ----------
    client : distributed.Client
    threads : dict
        Address of each worker -> number of its threads.
    """

    client: Client
    threads: dict[str, int]

    def retried(self, what: Callable[[], T], recover: Callable[[], None] | None = None) -> T:
        """Return ``what()``, tried again when workers were lost under it.

        Raises
        ------
        ClusterError
            If the client was closed, no worker comes back, or workers keep dying.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return what()
            except LOST as error:
                if self.client.status != "running":
                    msg = "the Dask client was closed during the fit; make a new Client and fit again"
                    raise ClusterError(msg) from error
                if attempt == ATTEMPTS:
                    msg = (
                        f"workers were lost {ATTEMPTS} times in the same pass, the last time with {error!r}. If they "
                        "ran out of memory, use more workers or persist=False"
                    )
                    raise ClusterError(msg) from error
                self._wait(error)
                if recover is not None:
                    recover()
        raise AssertionError  # the loop ends by return or raise

    def _wait(self, cause: BaseException) -> None:
        try:
            self.client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError:
            msg = f"all workers are gone, and none came back within {WAIT_SECONDS:.0f} s; scale the cluster up again"
            raise ClusterError(msg) from cause


def use_cluster(client: Any = None) -> Cluster:
    """Return the client given or current, checked, with its workers.

    Raises
    ------
    ClusterError
        If there is no client, it is closed or asynchronous, it has no workers, or a worker lacks this package in this
        version.
    InvalidParameterError
        If `client` is something else.
    """
    if client is None:
        try:
            client = default_client()
        except ValueError as error:
            msg = (
                "no Dask client: make one first, client = distributed.Client('tcp://host:8786') or "
                "distributed.Client(n_workers=4, threads_per_worker=1), and pass it with client= or leave it current"
            )
            raise ClusterError(msg) from error
    if not isinstance(client, Client):
        msg = f"client must be a distributed.Client or None; got {type(client).__name__}"
        raise InvalidParameterError(msg)
    if client.asynchronous:
        msg = "client must not be asynchronous: a fit waits for its results. Use Client(..., asynchronous=False)"
        raise ClusterError(msg)
    if client.status != "running":
        msg = f"the Dask client is {client.status}; make a new Client"
        raise ClusterError(msg)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        msg = (
            "the Dask cluster has no workers: start some (dask worker tcp://host:8786) or cluster.scale(n), wait with "
            "client.wait_for_workers(1), and give an adaptive cluster a minimum of 1"
        )
        raise ClusterError(msg)
    cluster = Cluster(client, {address: int(info["nthreads"]) for address, info in workers.items()})
    _check_versions(cluster)
    return cluster


def _check_versions(cluster: Cluster) -> None:
    """Refuse workers with another version of this package, or without it."""
    ours = tasks.describe_worker()
    try:
        found = cluster.client.run(tasks.describe_worker, on_error="return")
    except LOST:
        return  # a worker died just now; the fit will cope
    except Exception as error:  # an unpicklable name comes back as whatever the worker raised
        found = {"a worker": error}
    for address, theirs in found.items():
        if isinstance(theirs, LOST):
            continue
        if isinstance(theirs, BaseException):
            msg = (
                f"the worker {address} cannot run fastgmm: {theirs!r}. Install fastgmm=={ours[0]} in the environment "
                "of every worker"
            )
            raise ClusterError(msg) from theirs
        if theirs != ours:
            what = "the same number but other kernels" if theirs[0] == ours[0] else f"version {theirs[0]}"
            msg = (
                f"the worker {address} has fastgmm of {what}, this process has {ours[0]}: results would depend on "
                "which worker computed what. Install the same release everywhere"
            )
            raise ClusterError(msg)


# -- warm-up -----------------------------------------------------------------------------------------------------------


class WarmUp(WorkerPlugin):  # type: ignore[misc]  # distributed has no stubs here
    """Compiles, on every worker and before its first task, the kernels that a fit needs.

    Parameters
    ----------
    n_features : int
    dtype : str
    """

    def __init__(self, n_features: int, dtype: str) -> None:
        self.name = f"fastgmm-{n_features}-{dtype}"
        self._fit = (n_features, dtype)

    def setup(self, worker: Any) -> None:
        """Compile what this worker will run."""
        compile_launchers(worker.state.nthreads)
        warm_up(*self._fit)


def warm_up(n_features: int, dtype: str) -> None:
    """Run the passes of every family over two rows: some fall back on those of another."""
    rows = ArrayRows(np.vstack([np.zeros(n_features), np.ones(n_features)]).astype(dtype))
    for name, family in FAMILIES.items():
        square = np.eye(n_features) if family.shape(1, n_features)[-2:] == (n_features, n_features) else 1.0
        covariances = np.ones(family.shape(1, n_features)) * square
        params = make_params(np.ones(1), np.full((1, n_features), 0.5), covariances, name)
        run = passes.Accumulator(rows, family.scatter)
        for moments in (True, False):
            run(density(params), moments=moments)


@contextmanager
def warmed(cluster: Cluster, n_features: int, dtype: str) -> Iterator[None]:
    """Keep the workers, and those that join, warm for a fit."""
    plugin = WarmUp(n_features, dtype)
    cluster.retried(lambda: cluster.client.register_plugin(plugin))
    try:
        yield
    finally:
        with suppress(*LOST, ValueError, OSError):  # the cluster may be gone: that is not what went wrong
            cluster.client.unregister_worker_plugin(plugin.name)
            cluster.client.run(tasks.forget, on_error="ignore")
