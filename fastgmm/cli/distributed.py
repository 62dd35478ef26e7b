"""Where `fastgmm fit` runs: in this process, on worker processes that it starts here, or on a cluster that is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastgmm.cli.inputs import Data
from fastgmm.cli.watch import watched
from fastgmm.errors import ClusterError, InvalidDataError
from fastgmm.estimators.gaussian import GaussianMixture

__all__ = ["fitting"]

CONNECT_SECONDS = 15

EXPECTED = "--dask: expected local:N or the address of a scheduler such as tcp://host:8786; got {!r}."

Fit = Callable[..., None]
"""``(model, data, bar, **limits)``, with the progress bar as callback and what else the estimator's `fit` takes."""


@contextmanager
def fitting(where: str | None) -> Iterator[Fit]:
    """Give a function ``(model, data, bar, **limits)`` that fits where the user said.

    Parameters
    ----------
    where : str or None
        "local:2" for so many processes of one thread, "tcp://host:8786" (or tls://) for a scheduler, None for here.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached.
    InvalidDataError
        If `where` is neither, or Dask is not installed.
    """
    if where is None:
        yield _here
        return
    local = re.fullmatch(r"local:([1-9][0-9]*)", where)
    if local is None and "://" not in where:
        raise InvalidDataError(EXPECTED.format(where))
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        msg = "--dask needs dask, which is not installed; run: pip install 'fastgmm[dask]'."
        raise InvalidDataError(msg) from error
    if local is not None:
        with (
            LocalCluster(n_workers=int(local[1]), threads_per_worker=1, processes=True, dashboard_address=":0") as made,
            Client(made) as client,
        ):
            yield _on(client)
        return
    try:
        client = Client(where, timeout=CONNECT_SECONDS)
    except OSError as error:
        msg = f"no Dask scheduler answers at {where} within {CONNECT_SECONDS} s"
        raise ClusterError(msg) from error
    except ValueError as error:  # no port, or another scheme
        raise InvalidDataError(EXPECTED.format(where)) from error
    with client:
        yield _on(client)


def _here(model: GaussianMixture, data: Data, bar: Any, **limits: Any) -> None:
    model.fit(watched(data.x, bar.within), sample_weight=data.weights, callback=bar, **limits)


def _on(client: Any) -> Fit:
    def run(model: GaussianMixture, data: Data, bar: Any, **limits: Any) -> None:
        from fastgmm.dask import fit

        fit(model, data.x, sample_weight=data.weights, client=client, callback=bar, **limits)

    return run
