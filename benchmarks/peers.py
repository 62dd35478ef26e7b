"""The libraries of the comparison: what each can do, how it is installed, how close to plain NumPy it must come.

A peer with installation steps lives in an environment of its own below ``benchmarks/.peers``, made by
``python -m benchmarks.compare --setup [library ...]``; without it the peer is left out and the table says so. What a
library is told to do is in `adapters`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".peers"
TORCH = ("torch==2.13.0+cpu",), ("torch", "--index-url", "https://download.pytorch.org/whl/cpu")
"""Alternatives: a CPU build wherever pip is told to look for packages, or else PyTorch's. PyPI's brings CUDA along."""

ALL_TYPES = ("full", "tied", "diag", "spherical")
BOTH = ("float64", "float32")


@dataclass(frozen=True)
class Peer:
    """A library, or one way of running it.

    `same` is the largest difference from plain NumPy (see `oracle.difference`) that counts as the same work: in
    float64 generous for another order of summation, and 1e5 times below what one iteration more or less does.
    """

    name: str  # in tables
    library: str  # a function of adapters.py
    types: tuple[str, ...] = ALL_TYPES
    dtypes: tuple[str, ...] = BOTH
    steps: tuple[tuple[tuple[str, ...], ...], ...] = ()  # of the installation; each a choice of arguments to pip
    threads: int | None = None  # None: as many as the comparison is told
    same: tuple[float, float] = (1e-8, 1e-3)  # float64, float32
    given_start: bool = True
    note: str = ""

    def tolerance(self, dtype: str) -> float:
        return self.same[BOTH.index(dtype)]

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.library

    @property
    def python(self) -> Path:
        if not self.steps:
            return Path(sys.executable)
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    @property
    def installed(self) -> bool:
        return self.python.exists() and (not self.steps or (self.folder / "complete").exists())

    def setup(self) -> None:
        """Make the peer's environment; does nothing where it has none of its own.

        Raises
        ------
        subprocess.CalledProcessError
            None of a step's choices could be installed.
        """
        if not self.steps:
            return
        venv.create(self.folder, with_pip=True, clear=True)
        for choices in self.steps:
            for arguments in choices:
                done = subprocess.run([self.python, "-m", "pip", "install", "--quiet", *arguments], check=False)
                if done.returncode == 0:
                    break
            done.check_returncode()
        (self.folder / "complete").touch()

    def cannot(self, covariance_type: str, dtype: str) -> str | None:
        """Return why the peer has no place in a row of the table, or None."""
        if covariance_type not in self.types:
            return f"no {covariance_type} covariances"
        if dtype not in self.dtypes:
            return f"no {dtype}"
        if not self.installed:
            return "not installed"
        return None


OURS = Peer("fastgmm", "fastgmm")
PEERS = (
    OURS,
    Peer("scikit-learn, 1 BLAS thread", "sklearn", threads=1, same=(1e-8, 2e-2)),
    Peer("scikit-learn", "sklearn", same=(1e-8, 2e-2)),
    Peer("oneDAL", "onedal", types=("full", "diag"), steps=((("scikit-learn-intelex",),),), same=(1e-8, 2e-2)),
    Peer(
        "pomegranate",
        "pomegranate",
        types=("full", "diag"),
        steps=(TORCH, (("pomegranate",),)),
        same=(1e-4, 2e-2),
        note="its row weights are float32, whatever the data",
    ),
    Peer("tgmm", "tgmm", steps=(TORCH, (("tgmm",),)), same=(1e-8, 2e-2)),
    Peer(
        "torchgmm",
        "torchgmm",
        steps=(TORCH, (("torchgmm",),)),
        same=(1e-8, 2e-2),
        note="its training step from a given start: its own `fit` cannot take one and makes two passes an iteration",
    ),
    Peer("gmmx", "gmmx", types=("full", "diag"), dtypes=("float32",), steps=((("gmmx",),),), same=(1e-8, 2e-2)),
    Peer(
        "OpenCV",
        "opencv",
        types=("full", "diag", "spherical"),
        dtypes=("float64",),
        steps=((("opencv-contrib-python-headless<5",),),),
        same=(1e-6, 1e-6),
        note="`cv2.ml.EM`; one E-step more than iterations",
    ),
    Peer(
        "mlpack",
        "mlpack",
        types=("full", "diag"),
        dtypes=("float64",),
        steps=((("mlpack",),),),
        given_start=False,
        note="`gmm_train`; always begins with a k-means of its own, here of one iteration",
    ),
)


class Worker:
    """A running `worker.py`; `order` sends one order and returns its answer.

    Parameters
    ----------
    peer : Peer
    threads : int
        Where the peer does not say otherwise.
    limit : float
        Seconds an answer may take; a worker that takes longer is ended.
    memory : float
        Bytes the process may allocate.
    """

    def __init__(self, peer: Peer, threads: int, *, limit: float = 600.0, memory: float = 12e9) -> None:
        self.peer = peer
        self.threads = peer.threads or threads
        self.limit = limit
        self._late = False
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = {**os.environ, **dict.fromkeys(counts, str(self.threads))}
        env["PYTHONPATH"] = str(HERE.parent) if not peer.steps else ""
        # -P: the other files of this folder must not stand in for modules of the same name
        limits = [str(self.threads), str(memory), str(limit)]
        command = [str(peer.python), "-P", str(HERE / "worker.py"), peer.library, *limits]
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FASTGMM_BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
        )

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def order(self, do: str, **what: Any) -> dict[str, Any]:
        """Send an order and wait for the answer; a worker that died or was ended answers with an error."""
        assert self._process.stdin
        assert self._process.stdout
        timer = threading.Timer(self.limit, self._end)
        timer.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, "threads": self.threads, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        status = self._process.wait()
        if self._late or status == -getattr(signal, "SIGALRM", 0):
            return {"error": f"longer than {self.limit:.0f} s"}
        return {"error": f"the process ended with status {status}"}

    def close(self) -> None:
        """End the worker."""
        try:
            self._process.communicate(json.dumps({"do": "quit"}) + "\n", timeout=20)
        except BrokenPipeError:  # it has ended already, before it read an order
            self._process.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self.close()
        elif self._process.stdout and self._process.stdin:
            self._process.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # an order that it never read
                self._process.stdin.close()
