"""What a fit keeps on the workers while it runs: something that answers the caller, and a sign that they are in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from distributed import wait

from fastgmm.dask import tasks
from fastgmm.dask.cluster import LOST, Cluster
from fastgmm.dask.serve import PassServer, stay

LET_GO_SECONDS = 0.5
"""How long the end of a fit waits for workers to see it."""


class Session:
    """The presence of one fit on a cluster.

    Parameters
    ----------
    name : str
        Of the fit, of its plugin on the workers and of the messages to it.
    cluster : Cluster
    """

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name = name
        self._client = cluster.client
        self._stays: dict[str, Any] = {}

    def hold(self, addresses: Iterable[str]) -> None:
        """Keep an adaptive cluster from closing these workers; see `fastgmm.dask.serve.stay`."""
        addresses = set(addresses)
        for address in [*self._stays]:
            if address not in addresses:
                del self._stays[address]
        for address in addresses - set(self._stays):
            key = f"fastgmm-stay-{uuid4().hex}"
            self._stays[address] = self._client.submit(stay, self.name, workers=[address], pure=False, key=key)

    def let_go(self) -> None:
        """Let the workers be closed."""
        with suppress(TimeoutError):  # on workers that died they wait for ever
            wait([*self._stays.values()], timeout=LET_GO_SECONDS)
        self._stays.clear()


@contextmanager
def serving(cluster: Cluster, n_features: int, dtype: str) -> Iterator[Session]:
    """Have the workers, and those that join, serve a fit, and keep them warm for it.

    Parameters
    ----------
    cluster : Cluster
    n_features : int
    dtype : str
    """
    name = f"fastgmm-{uuid4().hex}"
    plugin = PassServer(name, n_features, dtype, tasks.describe_worker())
    cluster.retried(lambda: cluster.client.register_plugin(plugin))
    session = Session(name, cluster)
    try:
        yield session
    finally:
        with suppress(*LOST, ValueError, OSError):  # the cluster may be gone: that is not what went wrong
            cluster.client.unregister_worker_plugin(name)
            cluster.client.run(tasks.forget, on_error="ignore")
            session.let_go()
