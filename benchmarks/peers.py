"""The libraries of the comparison, each with what it can do and the environment it lives in.

A peer with requirements lives in an environment of its own below ``benchmarks/.peers``, made by
``python -m benchmarks.compare --setup``; without it the peer is left out and the table says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".peers"
ALL_TYPES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True)
class Peer:
    """A library, or one way of running it."""

    name: str  # in tables
    library: str  # a function of worker.py
    types: tuple[str, ...] = ALL_TYPES
    requirements: tuple[str, ...] = ()  # of its own environment; empty: this one
    threads: int | None = None  # None: as many as the comparison is told

    @property
    def python(self) -> Path:
        if not self.requirements:
            return Path(sys.executable)
        scripts = "Scripts" if os.name == "nt" else "bin"
        return ENVIRONMENTS / self.library / scripts / "python"

    @property
    def installed(self) -> bool:
        return self.python.exists()

    def setup(self) -> None:
        """Make the peer's environment; does nothing where it has none of its own."""
        if self.requirements:
            venv.create(ENVIRONMENTS / self.library, with_pip=True, clear=True)
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *self.requirements], check=True)


OURS = Peer("fastgmm", "fastgmm")
PEERS = (
    OURS,
    Peer("scikit-learn, 1 BLAS thread", "sklearn", threads=1),
    Peer("scikit-learn", "sklearn"),
    Peer("oneDAL", "onedal", types=("full", "diag"), requirements=("scikit-learn-intelex",)),
)


class Worker:
    """A running `worker.py`; `order` sends one order and returns its answer."""

    def __init__(self, peer: Peer, threads: int) -> None:
        self.peer = peer
        self.threads = peer.threads or threads
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = {**os.environ, **dict.fromkeys(counts, str(self.threads))}
        env["PYTHONPATH"] = str(HERE.parent) if not peer.requirements else ""
        # -P: the other files of this folder must not stand in for modules of the same name
        command = [str(peer.python), "-P", str(HERE / "worker.py"), peer.library]
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FASTGMM_BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
        )

    def order(self, do: str, **what: Any) -> dict[str, Any]:
        """Send an order and wait for the answer; a worker that died answers with an error."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, "threads": self.threads, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process ended with status {self._process.wait()}"}

    def close(self) -> None:
        """End the worker."""
        self._process.communicate(json.dumps({"do": "quit"}) + "\n")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self.close()
