"""Small problems, as a model search fits a thousand of: here the time is Python's, not the kernel's.

    python -m benchmarks.small                    # 300 rows, 2 features, 3 components; writes benchmarks/figures

Against scikit-learn in one process, in turn, many repetitions, scikit-learn with one BLAS thread (faster for it here).
What an iteration costs is the difference of a fit with many and a fit with one, over the iterations between.
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
LIBRARIES = ("fastgmm", "scikit-learn")


def estimator(library: str, problem: Problem, iterations: int, start: str):
    """Return a library's estimator that will do so many iterations from a given start or from its own."""
    if library == "fastgmm":
        from fastgmm import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture

    given = {"weights_init": problem.weights, "means_init": problem.means, "precisions_init": problem.precisions}
    return GaussianMixture(
        problem.case.k,
        covariance_type=problem.case.covariance_type,
        tol=0.0,
        max_iter=iterations,
        random_state=0,
        **(given if start == "given" else {}),
    )


def measure(seconds: float) -> dict[str, Any]:
    """Return seconds of a fit and of an iteration, and the ratios, for both kinds of start."""
    from threadpoolctl import threadpool_limits

    problem = build(SHORT)
    calls = {}
    for start in ("given", "own"):
        for iterations in (1, MANY):
            for library in LIBRARIES:
                model = estimator(library, problem, iterations, start)
                calls[f"{library} {start} {iterations}"] = lambda model=model: model.fit(problem.X)
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore")  # a fixed number of iterations never converges
        times = alternate(calls, seconds, most=3000)
    out: dict[str, Any] = {"repetitions": len(next(iter(times.values())))}
    for start in ("given", "own"):
        short = {name: times[f"{name} {start} 1"] for name in LIBRARIES}
        steps = {
            name: [(b - a) / (MANY - 1) for a, b in zip(short[name], times[f"{name} {start} {MANY}"], strict=True)]
            for name in LIBRARIES
        }
        for what, values in (("fit of 1 iteration", short), ("iteration", steps)):
            ours, theirs = (values[name] for name in LIBRARIES)
            out[f"{what}, {start} start"] = {
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
