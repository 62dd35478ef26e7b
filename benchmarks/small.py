"""Small problems, as a model search fits a thousand of: here the time is Python's, not the kernel's.

    python -m benchmarks.small                    # 300 rows, 2 features, 3 components; writes benchmarks/figures

Against scikit-learn in one process, in turn, many repetitions, scikit-learn with one BLAS thread (faster for it here).
A repetition of a short call is a burst of them, as in a search; "cold" is a single one after other work, whose code and
data have driven those of both libraries out of the CPU's caches. What an iteration costs is the difference of a long
and a short fit, over the iterations between.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from typing import Any

from benchmarks.clock import alternate
from benchmarks.data import SHORT, Problem, build
from benchmarks.record import circumstances, save

MANY = 101  # iterations of the long fit
BURST = 100  # short calls in a row
LIBRARIES = ("fastgmm", "scikit-learn")
NO_END = {"tol": 0.0}


def estimator(library: str, problem: Problem, start: str, **settings: Any):
    """Return a library's estimator with a given start or its own."""
    if library == "fastgmm":
        from fastgmm import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture

    given = {"weights_init": problem.weights, "means_init": problem.means, "precisions_init": problem.precisions}
    return GaussianMixture(
        problem.case.k,
        covariance_type=problem.case.covariance_type,
        random_state=0,
        **settings,
        **(given if start == "given" else {}),
    )


def other_work() -> None:
    """Some ten milliseconds of Python on ten megabytes."""
    sorted(range(100_000), key=str)


def calls_of(library: str, problem: Problem) -> dict[str, Any]:
    """Return what is timed: name -> (function, how often it is called for one repetition)."""
    x = problem.X
    fits = {
        f"fit of 1 iteration, {start} start": estimator(library, problem, start, max_iter=1, **NO_END).fit
        for start in ("given", "own")
    }
    fits["default fit to convergence"] = estimator(library, problem, "own").fit
    fitted = estimator(library, problem, "given").fit(x)
    short = {**fits, "score_samples": fitted.score_samples, "predict": fitted.predict}
    long = {start: estimator(library, problem, start, max_iter=MANY, **NO_END).fit for start in ("given", "own")}
    return {
        **{name: (lambda call=call: [call(x) for _ in range(BURST)], BURST) for name, call in short.items()},
        **{f"long fit, {start} start": (lambda call=call: call(x), 1) for start, call in long.items()},
        **{f"{name}, cold": (lambda call=call: call(x), 1) for name, call in fits.items()},
    }


def measure(seconds: float) -> dict[str, Any]:
    """Return seconds of each call and of an iteration, and the ratios."""
    from threadpoolctl import threadpool_limits

    problem = build(SHORT)
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore")  # a fixed number of iterations never converges
        calls = {library: calls_of(library, problem) for library in LIBRARIES}
        order: dict[str, Any] = {}
        for name in calls[LIBRARIES[0]]:
            for library in LIBRARIES:
                if name.endswith("cold"):
                    order[f"before {library} {name}"] = other_work
                order[f"{library} {name}"] = calls[library][name][0]
        times = alternate(order, seconds, most=3000)
    each = {
        name: {library: [t / calls[library][name][1] for t in times[f"{library} {name}"]] for library in LIBRARIES}
        for name in calls[LIBRARIES[0]]
    }
    for start in ("given", "own"):
        short, long = each[f"fit of 1 iteration, {start} start"], each.pop(f"long fit, {start} start")
        each[f"iteration, {start} start"] = {
            library: [(b - a) / (MANY - 1) for a, b in zip(short[library], long[library], strict=True)]
            for library in LIBRARIES
        }
    out: dict[str, Any] = {"repetitions": len(next(iter(times.values())))}
    for name, values in each.items():
        ours, theirs = (values[library] for library in LIBRARIES)
        out[name] = {
            "fastgmm": statistics.median(ours),
            "scikit-learn": statistics.median(theirs),
            "ratio": statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
        }
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="default: %(default)s")
    options = parser.parse_args(arguments)
    import sklearn

    figures = measure(options.seconds)
    for name, row in figures.items():
        if isinstance(row, dict):
            print(
                f"{name:34} fastgmm {row['fastgmm'] * 1e6:9.1f} us  scikit-learn {row['scikit-learn'] * 1e6:9.1f} us"
                f"  {row['ratio']:6.2f}x"
            )
    print(f"{figures['repetitions']} repetitions")
    save("small", {**figures, "where": circumstances(**{"scikit-learn": sklearn.__version__})})


if __name__ == "__main__":
    main()
