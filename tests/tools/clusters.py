"""Fits on clusters that are made as users make them: the same bits as in memory on each.

    python -m tests.tools.clusters                # all of them, about two minutes
    python -m tests.tools.clusters separate tls   # some

separate  `dask scheduler` and two `dask worker` as processes of their own, started from the command line
hosts     the same with the scheduler and each worker on a loopback address of its own (Linux), in place of hosts
tls       as separate, with certificates that openssl makes
shell     `fastgmm fit --dask tcp://...` and `--dask tls://...` on those
adaptive  `cluster.adapt(minimum=1, maximum=3)` grows and shrinks during a fit
spilled   workers that may keep no slab in memory: Dask writes each to disk, where every pass reads it

Prints one JSON object each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from distributed.security import Security

import fastgmm
import fastgmm.dask

WAIT_SECONDS = 60.0
HERE = ("127.0.0.1",) * 3  # addresses of the scheduler and of two workers
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
# A target below the size of a slab: whatever is stored goes to disk. The others look at the process, not at the data.
SPILL = {"target": 0.0001, "spill": False, "pause": False}


def chunk(number: int) -> Any:
    """Rows that any process makes the same; imported by none, so sent as a whole."""
    rng = np.random.default_rng(number)
    return rng.normal(size=(50_003, 6)) + rng.integers(0, 5, (50_003, 1)) * 3.0


def rows(n_chunks: int = 4) -> Any:
    """The rows as a dask array."""
    make = dask.delayed(chunk)
    return da.concatenate([da.from_delayed(make(i), (50_003, 6), float) for i in range(n_chunks)])


def model(**parameters: Any) -> fastgmm.GaussianMixture:
    """A fit that takes all of its iterations."""
    return fastgmm.GaussianMixture(6, **{"tol": 0.0, "max_iter": 20, "random_state": 0, **parameters})


def same(one: fastgmm.GaussianMixture, other: fastgmm.GaussianMixture) -> bool:
    """Whether two fits have the same bits."""
    return one.covariances_.tobytes() == other.covariances_.tobytes() and one.lower_bounds_ == other.lower_bounds_


@contextmanager
def started(*words: str) -> Iterator[None]:
    """A process that runs meanwhile."""
    with subprocess.Popen([sys.executable, "-m", "dask", *words], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def processes(folder: Path, security: Security | None, hosts: Sequence[str] = HERE) -> Iterator[tuple[Client, str]]:
    """A scheduler and workers from the command line, a client to them, and the scheduler's address."""
    options = [] if security is None else certificates(folder)
    protocol = "tcp" if security is None else "tls"
    found = folder / f"{protocol}.json"
    found.unlink(missing_ok=True)
    with ExitStack() as stack:
        start = ["scheduler", "--host", hosts[0], "--port", "0", "--protocol", protocol, "--no-dashboard"]
        stack.enter_context(started(*start, "--scheduler-file", str(found), *options))
        until = time.monotonic() + WAIT_SECONDS
        while not found.exists() or not found.read_text():
            if time.monotonic() > until:
                msg = "the scheduler does not start"
                raise TimeoutError(msg)
            time.sleep(0.05)
        for host in hosts[1:]:
            worker = ["worker", "--scheduler-file", str(found), "--host", host, "--nthreads", "1", "--no-dashboard"]
            stack.enter_context(started(*worker, "--local-directory", str(folder), *options))
        address = json.loads(found.read_text())["address"]
        client = stack.enter_context(Client(address, security=security))
        client.wait_for_workers(len(hosts) - 1, timeout=WAIT_SECONDS)
        yield client, address


def certificates(folder: Path) -> list[str]:
    """Make a certificate that signs itself; return the options of `dask scheduler` and `dask worker` for it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not cert.exists():
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        subprocess.run([*make, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return ["--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]


def tls(folder: Path) -> Security:
    """The client's side of it."""
    certificates(folder)
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    return Security(tls_ca_file=cert, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


def try_processes(
    folder: Path, here: fastgmm.GaussianMixture, security: Security | None, hosts: Sequence[str] = HERE
) -> dict[str, Any]:
    """A fit through processes."""
    with processes(folder, security, hosts) as (client, address):
        workers = sorted(worker.rsplit(":", 1)[0] for worker in client.nthreads())
        start = time.perf_counter()
        there = fastgmm.dask.fit(model(), rows(), client=client)
        seconds = time.perf_counter() - start
    scheduler = address.rsplit(":", 1)[0]
    return {"scheduler": scheduler, "workers": workers, "same_bits": same(there, here), "seconds": round(seconds, 2)}


def try_shell(folder: Path, security: Security | None) -> dict[str, Any]:
    """`fastgmm fit` on a scheduler elsewhere; the client's certificates come from Dask's configuration."""
    np.save(folder / "x.npy", np.concatenate([chunk(i) for i in range(4)]))
    words = [sys.executable, "-m", "fastgmm", "fit", str(folder / "x.npy"), "-k", "6", "--max-iter", "5", "--tol", "0"]
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    secret = {"CA_FILE": cert, "CLIENT__CERT": cert, "CLIENT__KEY": key} if security is not None else {}
    environment = os.environ | {f"DASK_DISTRIBUTED__COMM__TLS__{name}": value for name, value in secret.items()}
    with processes(folder, security) as (_, address):
        for out, where in (("there", ["--dask", address]), ("here", ["--no-stream"])):
            line = [*words, *where, "--out", str(folder / f"{out}.npz")]
            subprocess.run(line, check=True, env=environment, capture_output=True, timeout=WAIT_SECONDS * 2)
    there, here = (fastgmm.load(folder / f"{name}.npz") for name in ("there", "here"))
    return {"address": address.split("127")[0], "same_bits": there.means_.tobytes() == here.means_.tobytes()}


def try_adaptive(here: fastgmm.GaussianMixture) -> dict[str, Any]:
    """A cluster that grows while the fit makes its slabs, and may not shrink before the fit is over."""
    counts: list[int] = []

    def count(_: Any) -> None:
        counts.append(len(client.nthreads()))
        time.sleep(0.3)  # the cluster looks every 100 ms

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        adaptive = cluster.adapt(minimum=1, maximum=3, interval="100ms", wait_count=2, target_duration="0.1s")
        many = dask.delayed(time.sleep)
        futures = client.compute([many(0.5, dask_key_name=f"load-{i}") for i in range(30)])
        client.wait_for_workers(2, timeout=WAIT_SECONDS)
        client.cancel(futures)
        there = fastgmm.dask.fit(model(), rows(), client=client, callback=count)
        until = time.monotonic() + WAIT_SECONDS
        while len(client.nthreads()) > 1 and time.monotonic() < until:
            time.sleep(0.1)
        after = len(client.nthreads())
        adaptive.stop()
    found = {"workers_during": [min(counts), max(counts)], "workers_at_the_end": counts[-1], "workers_after": after}
    return {**found, "same_bits": same(there, here)}


def count_spilled(dask_worker: Any) -> list[int]:
    """Return how many slabs and other results a worker keeps, and how many of them on disk."""
    return [len(dask_worker.data), len(dask_worker.data.disk)]


def try_spilled(here: fastgmm.GaussianMixture) -> dict[str, Any]:
    """Workers whose slabs lie on disk."""
    kept: list[list[int]] = []

    def look(_: Any) -> None:
        kept.append(np.sum(list(client.run(count_spilled).values()), axis=0).tolist())

    limits = dask.config.set({f"distributed.worker.memory.{name}": value for name, value in SPILL.items()})
    sizes: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "2GB"}
    with limits, LocalCluster(dashboard_address=":0", **sizes) as cluster, Client(cluster) as client:
        there = fastgmm.dask.fit(model(), rows(), client=client, callback=look)
    found = {"results": max(n for n, _ in kept), "of_them_on_disk": [min(m for _, m in kept), max(m for _, m in kept)]}
    return {**found, "same_bits": same(there, here)}


def main() -> None:
    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
    here = model().fit(np.concatenate([chunk(i) for i in range(4)]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {
            "separate": lambda: try_processes(folder, here, None),
            "hosts": lambda: try_processes(folder, here, None, HOSTS),
            "tls": lambda: try_processes(folder, here, tls(folder)),
            "shell": lambda: {"tcp": try_shell(folder, None), "tls": try_shell(folder, tls(folder))},
            "adaptive": lambda: try_adaptive(here),
            "spilled": lambda: try_spilled(here),
        }
        for way in sys.argv[1:] or ways:
            print(json.dumps({"what": way, **ways[way]()}), flush=True)


if __name__ == "__main__":
    main()
