"""The cluster: a client and its workers, looked at before anything starts, and what is tried again when workers die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client, KilledWorker, default_client, wait
from distributed.comm import CommClosedError

from fastgmm.dask import tasks
from fastgmm.errors import ClusterError, InvalidParameterError

LOST = (KilledWorker, CancelledError, asyncio.CancelledError, CommClosedError, ConnectionError, TimeoutError)
"""What a task or a call ends with when a worker was lost; none of these says that the task itself is wrong."""

ATTEMPTS = 5
"""How often the tasks of one pass are tried. Dask itself moves tasks of dead workers to others before any of this."""

WAIT_SECONDS = 60.0
"""How long a fit waits for a worker when all are gone; nannies start new ones within a few."""

LOOK_SECONDS = 10.0
"""How often a fit that waits for tasks looks whether there is a worker at all: Dask itself would wait for ever."""

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
                self.wait_for_a_worker(error)
                if recover is not None:
                    recover()
        raise AssertionError  # the loop ends by return or raise

    def finished(self, futures: Sequence[Any]) -> Sequence[Any]:
        """Wait for tasks to end, well or not, and return them.

        Raises
        ------
        ClusterError
            If there has been no worker for `WAIT_SECONDS`.
        """
        while True:
            try:
                wait(futures, timeout=LOOK_SECONDS)
            except TimeoutError as error:
                self.wait_for_a_worker(error)
            else:
                return futures

    def wait_for_a_worker(self, cause: BaseException) -> None:
        """Return when there is a worker.

        Raises
        ------
        ClusterError
            If there has been none for `WAIT_SECONDS`.
        """
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
    # Not `client.scheduler_info`: it returns what the client's own clock may have replaced meanwhile, without workers.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
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
