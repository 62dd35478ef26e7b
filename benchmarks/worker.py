"""One library in a process of its own, told what to do by lines of JSON on standard input.

`compare` starts a worker with the interpreter of the library's environment, so this file imports nothing but NumPy and
that library. Orders: ``load`` a problem (paths of .npy files), ``fit`` it for a number of iterations, ``quit``. Each
answer is one line of JSON. A new peer is one function here and one row in `peers`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np


def fastgmm(problem: dict, iterations: int, _threads: int):
    """Return a function that fits, and one that reads weights, means, covariances, log-likelihood."""
    from fastgmm import GaussianMixture

    return _sklearn_like(GaussianMixture, problem, iterations)


def sklearn(problem: dict, iterations: int, _threads: int):
    """As above; both get their number of threads from the environment, before NumPy loads."""
    from sklearn.mixture import GaussianMixture

    return _sklearn_like(GaussianMixture, problem, iterations)


def _sklearn_like(estimator, problem: dict, iterations: int):
    model = estimator(
        len(problem["weights"]),
        covariance_type=problem["covariance_type"],
        weights_init=problem["weights"],
        means_init=problem["means"],
        precisions_init=problem["precisions"],
        tol=0.0,
        reg_covar=0.0,
        max_iter=iterations,
    )

    def fit():
        return model.fit(problem["X"])

    def read(fitted):
        if fitted.n_iter_ != iterations:
            msg = f"{fitted.n_iter_} iterations instead of {iterations}"
            raise RuntimeError(msg)
        return fitted.weights_, fitted.means_, fitted.covariances_, fitted.lower_bound_ * len(problem["X"])

    return fit, read


def onedal(problem: dict, iterations: int, threads: int):
    """Intel's oneDAL; it takes full and diagonal covariances."""
    import daal4py

    daal4py.daalinit(threads)
    full = problem["covariance_type"] == "full"
    algorithm = daal4py.em_gmm(
        len(problem["weights"]),
        fptype="double" if problem["X"].dtype == np.float64 else "float",
        maxIterations=iterations,
        accuracyThreshold=0.0,
        covarianceStorage="" if full else "diagonal",
    )
    dtype = problem["X"].dtype
    weights, means = problem["weights"][None].astype(dtype), problem["means"].astype(dtype)
    covariances = [np.ascontiguousarray(c if full else c[None], dtype=dtype) for c in problem["covariances"]]

    def fit():
        return algorithm.compute(problem["X"], weights, means, covariances)

    def read(result):
        if int(result.nIterations.item()) != iterations:
            msg = f"{int(result.nIterations.item())} iterations instead of {iterations}"
            raise RuntimeError(msg)
        fitted = np.array([c if full else c[0] for c in result.covariances])
        return result.weights[0], result.means, fitted, float(result.goalFunction.item())

    return fit, read


def version(name: str) -> str:
    """Return the version of the library behind a peer."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    if name == "fastgmm":  # what is imported may be a checkout, beside an installed one
        from fastgmm import __version__

        return __version__
    for package in {"sklearn": ["scikit-learn"], "onedal": ["daal", "daal4py"]}.get(name, [name]):
        try:
            return installed(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def _peak_memory(fit):
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
    return result, seconds, None if before is None else field("VmHWM") - before


def answer(name: str, order: dict, state: dict) -> dict:
    """Carry out one order."""
    if order["do"] == "load":
        state.clear()
        state.update({key: np.load(path) for key, path in order["arrays"].items()})
        state["covariance_type"] = order["covariance_type"]
        state["X"] = np.ascontiguousarray(state["X"])  # now in memory, every page touched
        return {"version": version(name), "python": sys.version.split()[0], "numpy": np.__version__}
    maker = {"fastgmm": fastgmm, "sklearn": sklearn, "onedal": onedal}[name]
    if order["do"] == "warm":
        maker(state, 1, order["threads"])[0]()  # compiles, loads, starts threads, touches pages
        return {}
    fit, read = maker(state, order["iterations"], order["threads"])
    result, seconds, memory = _peak_memory(fit)
    weights, means, covariances, log_likelihood = read(result)
    if order.get("out"):
        np.savez(order["out"], weights=weights, means=means, covariances=covariances)
    return {"seconds": seconds, "memory": memory, "log_likelihood": float(log_likelihood)}


def main() -> None:
    name, state = sys.argv[1], {}
    warnings.simplefilter("ignore")  # a fixed number of iterations never converges
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to standard error, not between the answers
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "quit":
            return
        try:
            reply = answer(name, order, state)
        except Exception as error:  # the comparison goes on and shows that this peer failed
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
