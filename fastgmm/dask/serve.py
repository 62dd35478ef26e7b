"""What a worker does for a fit beside its tasks: it takes part in a pass when the caller asks it directly.

A task costs the scheduler milliseconds; a message from the caller to a worker, and its answer, one. So the steady state
of a fit is one message to each worker, with the parameters and the slabs that it should run, and one answer, with the
sums of each run of neighbouring slabs and the blocks that it covers.

1. The handler of these messages is installed by a worker plugin, so a worker that joins later, or is started again
   after it died, has it before anything can ask for it.
2. Nothing blocks the worker's event loop: passes run in one thread of their own, one after the other. The first thing
   that this thread does is to compile (or load) what the fit needs. To do that in the plugin's `setup` would keep a
   worker from its heartbeats, and one that is just being started from telling its nanny that it is there.
3. A worker runs what slabs it has and says nothing of the others: the caller sees from the blocks what is missing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import WorkerPlugin, get_worker, secede
from distributed.core import Status
from distributed.protocol import Serialize, to_serialize

from fastgmm.covariance import FAMILIES, density, make_params
from fastgmm.dask import tasks
from fastgmm.dask.shares import Share
from fastgmm.errors import ClusterError
from fastgmm.kernels._jit import compile_launchers
from fastgmm.partials import Partial, Work, merge

Answer = tuple[list[Partial], list[tuple[str, BaseException]]]
"""Sums of runs of blocks, and (address, what went wrong) for each worker that failed."""

HELD = ("executing", "long-running")

STAY_SECONDS = 1.0
"""How often a worker looks whether the caller is still there."""


class PassServer(WorkerPlugin):  # type: ignore[misc]  # distributed has no stubs here
    """Serves the passes of one fit on every worker, and warms the worker up for them.

    Parameters
    ----------
    name : str
        Of the fit; no other has it. The plugin and its message are called so.
    n_features : int
    dtype : str
    package : tuple of str
        Version and kernels of the caller, from `tasks.describe_worker`.
    """

    def __init__(self, name: str, n_features: int, dtype: str, package: tuple[str, str]) -> None:
        self.name = name
        self._fit = (n_features, dtype)
        self._package = package

    def setup(self, worker: Any) -> None:
        """Install the handler and begin to warm up; does not wait for it."""
        self._worker = worker
        self.over = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        self._thread.submit(warm_up, worker.state.nthreads, *self._fit)
        worker.handlers[self.name] = self.serve

    def teardown(self, worker: Any) -> None:
        """Take the handler away."""
        worker.handlers.pop(self.name, None)
        self.over.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def serve(self, order: tuple[Work, Share]) -> Any:
        """Run the slabs of a share, and have the workers below it run theirs; see `Answer`.

        Raises
        ------
        ClusterError
            If this worker has another release than the caller.
        """
        ours = tasks.describe_worker()
        if ours != self._package:
            msg = (
                f"the worker {self._worker.address} joined with fastgmm {ours[0]}, the caller has {self._package[0]} "
                "or other kernels of the same number. Install the same release everywhere"
            )
            raise ClusterError(msg)
        work, (keys, below) = order
        others = (ask(self._worker.rpc, address, self.name, work, share) for address, share in below)
        theirs = asyncio.gather(*others, return_exceptions=True)
        mine = await self._own(work, keys)
        parts, wrong = collected([address for address, _ in below], await theirs)
        if parts:
            mine = await asyncio.get_running_loop().run_in_executor(self._thread, runs, [*mine, *parts])
        return to_serialize((mine, wrong))

    async def _own(self, work: Work, keys: Sequence[str]) -> list[Partial]:
        """Run what is in memory in one go, and what Dask spilled to disk one after the other."""
        loop, data = asyncio.get_running_loop(), self._worker.data
        threads = self._worker.state.nthreads
        in_memory = getattr(data, "memory", data)
        slabs = [in_memory[key] for key in keys if key in in_memory]
        others = [key for key in keys if key not in in_memory]
        found = await loop.run_in_executor(self._thread, run_slabs, work, slabs, threads)
        del slabs
        for key in others:
            if key in data:  # to read it takes time of the event loop, as where Dask does it
                found = await loop.run_in_executor(self._thread, run_slabs, work, [data[key]], threads, found)
        return found


async def ask(pool: Any, address: str, name: str, work: Work, share: Share) -> Answer | None:
    """Ask a worker for a share of a pass; None if it does not serve the fit (yet).

    Parameters
    ----------
    pool : distributed.core.ConnectionPool
        Of the client, or of the worker that hands on.
    address : str
    name : str
        Of the fit.
    work : Work
    share : Share
    """
    answer = await getattr(pool(address), name)(order=to_serialize((work, share)))
    # Within a process nothing is serialized: what is in a message is handed over, but an answer as it was wrapped.
    found: Answer | None = answer.data if isinstance(answer, Serialize) else answer
    return found


def collected(asked: Sequence[str], answers: Sequence[Answer | BaseException | None]) -> Answer:
    """Join answers; a worker that failed, or does not serve the fit, is one that went wrong."""
    parts: list[Partial] = []
    wrong: list[tuple[str, BaseException]] = []
    for address, answer in zip(asked, answers, strict=True):
        if answer is None:
            wrong.append((address, ConnectionError(f"{address} does not serve this fit")))
        elif isinstance(answer, BaseException):
            wrong.append((address, answer))
        else:
            parts += answer[0]
            wrong += answer[1]
    return parts, wrong


def run_slabs(work: Work, slabs: Sequence[tasks.Slab], threads: int, before: Sequence[Partial] = ()) -> list[Partial]:
    """Run a pass over slabs and return its sums, together with those that are there already."""
    found = (tasks.run_slab(work, slab, threads) for slab in slabs)
    return runs([*before, *(part for part in found if part is not None)])


def runs(parts: Sequence[Partial]) -> list[Partial]:
    """Add up what stands side by side."""
    groups: list[list[Partial]] = []
    for part in sorted(parts, key=lambda part: part.begin):
        if groups and groups[-1][-1].end == part.begin:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [merge(group) for group in groups]


def warm_up(threads: int, n_features: int, dtype: str) -> None:
    """Compile what so many threads need, and run the passes of every family over two rows: some fall back on others."""
    import numpy as np

    from fastgmm import passes
    from fastgmm.data.arrays import ArrayRows

    compile_launchers(threads)
    rows = ArrayRows(np.vstack([np.zeros(n_features), np.ones(n_features)]).astype(dtype))
    for name, family in FAMILIES.items():
        square = np.eye(n_features) if family.shape(1, n_features)[-2:] == (n_features, n_features) else 1.0
        covariances = np.ones(family.shape(1, n_features)) * square
        params = make_params(np.ones(1), np.full((1, n_features), 0.5), covariances, name)
        run = passes.Accumulator(rows, family.scatter)
        for moments in (True, False):
            run(density(params), moments=moments)


def stay(name: str) -> None:
    """Tell the scheduler that this worker is in use, until the fit is over or the caller lets go of this task.

    It knows of tasks only, and an adaptive cluster closes what looks idle; a worker with a task that left its thread
    pool is never chosen.
    """
    worker = get_worker()
    key = worker.get_current_task()
    server = worker.plugins.get(name)
    if server is None:
        return
    secede()
    while worker.status in (Status.running, Status.paused) and not server.over.wait(STAY_SECONDS):
        task = worker.state.tasks.get(key)
        if task is None or task.state not in HELD:  # the caller is gone
            return
