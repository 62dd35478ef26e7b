"""One library in a process of its own, told what to do by lines of JSON on standard input.

`peers.Worker` starts it with the interpreter of the library's environment, so this file imports nothing but NumPy and
that library. Orders: ``load`` a problem (paths of .npy files), ``warm`` up on its first rows, ``fit`` it for a number
of iterations, ``quit``. Each answer is one line of JSON. What a library is told to do is in `adapters`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import statistics
import sys
import time
import traceback
import warnings
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

WARM_ROWS = 20_000
TURN = 0.25
"""Seconds that a turn takes at least: a fit that is shorter is repeated, and the median counts."""


def load_adapters():
    """Import `adapters` by its path: the other files of its folder must not stand in for modules of the same name."""
    spec = importlib.util.spec_from_file_location("adapters", Path(__file__).with_name("adapters.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["adapters"] = module
    spec.loader.exec_module(module)
    return module


def restrict(threads: int, memory: float) -> None:
    """Keep this process to so many cores and so many bytes of address space, where the system lets it."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    with contextlib.suppress(AttributeError, OSError):
        # Under real-time priority threads that spin must still let each other, and who ends them, run. Even so a
        # library with more threads than cores stalls: measure these on a quiet machine instead.
        if os.sched_getscheduler(0) == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_getparam(0))
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))


def version(name: str, packages: dict) -> str:
    """Return the version of the library behind a peer."""
    if name == "fastgmm":  # what is imported may be a checkout, beside an installed one
        from fastgmm import __version__

        return __version__
    for package in packages.get(name, (name,)):
        with contextlib.suppress(PackageNotFoundError):
            return installed(package)
    return "unknown"


def measured(fit):
    """Return what `fit` returns, its seconds, and the growth of the resident set (None where Linux does not tell)."""
    status = Path("/proc/self/status")

    def field(key: str) -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(key))

    try:
        before = field("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = None
    start = time.perf_counter()
    result = fit()
    seconds = time.perf_counter() - start
    return result, seconds, None if before is None else max(0, field("VmHWM") - before)


def answer(name: str, adapters, order: dict, state: dict) -> dict:
    """Carry out one order."""
    if order["do"] == "load":
        state.clear()
        state["arrays"] = {key: np.load(path) for key, path in order["arrays"].items()}
        state["covariance_type"] = order["covariance_type"]
        return {"version": version(name, adapters.PACKAGES), "python": sys.version.split()[0], "numpy": np.__version__}

    def make(iterations: int, rows: int | None):
        arrays = {**state["arrays"], "X": state["arrays"]["X"][:rows]}
        task = adapters.Task(
            **arrays, covariance_type=state["covariance_type"], iterations=iterations, threads=order["threads"]
        )
        return adapters.ADAPTERS[name](task)

    def warm() -> None:
        fit, read = make(1, WARM_ROWS)
        read(fit())

    if order["do"] == "warm":  # compiles, loads, starts threads
        warm()
        return {}
    key = order["iterations"]
    if state.get("made", (None,))[0] != key:
        state["made"] = key, make(key, None)
    fit, read = state["made"][1]
    # While others took their turn, for minutes perhaps, the system may have taken pages of code and data away.
    warm()
    state["arrays"]["X"].sum()
    times, grown = [], []
    while sum(times) < TURN:
        result = None  # of the fit before
        result, seconds, memory = measured(fit)
        times.append(seconds)
        grown.append(memory)
    weights, means, covariances, log_likelihood = read(result)
    if order.get("out"):
        np.savez(order["out"], weights=weights, means=means, covariances=covariances)
    memory = None if None in grown else max(grown)
    reply = {"seconds": statistics.median(times), "fits": len(times), "memory": memory}
    if log_likelihood is not None:
        reply["log_likelihood"] = float(log_likelihood)
    return reply


def main() -> None:
    name, threads, memory, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    restrict(threads, memory)
    warnings.simplefilter("ignore")  # a fixed number of iterations never converges
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to standard error, not between the answers
    adapters, state = load_adapters(), {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "quit":
            return
        with contextlib.suppress(AttributeError):  # the system ends this process if nobody else can
            signal.setitimer(signal.ITIMER_REAL, limit + 5)
        try:
            reply = answer(name, adapters, order, state)
        except Exception as error:  # the comparison goes on and shows that this peer failed
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        with contextlib.suppress(AttributeError):
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
