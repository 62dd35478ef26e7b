"""asv: whole fits. Fixed work: a given start, a fixed number of iterations, so that only speed can change.

Beside each time stands the log-likelihood: faster but worse shows.
"""

from __future__ import annotations

import warnings

from benchmarks.data import SHORT, SMALL, Problem, build, by_name

CORE = ("full-1e6-2-8", "full-2e5-16-16", "full-1e5-64-16", "full-2e5-32-64", "diag-5e5-64-64", "tied-2e5-32-16")
DTYPES = ("float64", "float32")
if SMALL:  # a smoke run: one dense case for small D, one for large, one of another family
    CORE, DTYPES = ("full-1e6-2-8", "full-2e5-16-16", "diag-5e5-64-64"), ("float64",)


def estimator(problem: Problem, iterations: int, *, start: bool = True):
    """Return an estimator that will do exactly so many iterations, from the problem's start or from its own."""
    import fastgmm

    warnings.simplefilter("ignore")  # a fixed number of iterations never converges
    given = {"weights_init": problem.weights, "means_init": problem.means, "precisions_init": problem.precisions}
    return fastgmm.GaussianMixture(
        problem.case.k,
        covariance_type=problem.case.covariance_type,
        tol=0.0,
        max_iter=iterations,
        random_state=0,
        **(given if start else {}),
    )


class Fit:
    """Fits of the comparison's core cases."""

    params = (CORE, DTYPES)
    param_names = ("case", "dtype")
    number = 1
    iterations = 4

    def setup(self, name: str, dtype: str) -> None:
        self.problem = build(by_name(name), dtype)
        self.model = estimator(self.problem, self.iterations)
        estimator(self.problem, 1).fit(self.problem.X)  # compiles, starts the threads

    def time_fit(self, name: str, dtype: str) -> None:
        self.model.fit(self.problem.X)

    def peakmem_fit(self, name: str, dtype: str) -> None:
        self.model.fit(self.problem.X)

    def track_log_likelihood(self, name: str, dtype: str) -> float:
        return float(self.model.fit(self.problem.X).lower_bound_)

    track_log_likelihood.unit = "nats/row"


class Memory:
    """Peak memory beyond the data, in a process of its own; the bound is in `memory`."""

    params = (CORE,)
    param_names = ("case",)

    def track_growth(self, name: str) -> int:
        from benchmarks.memory import growth

        return growth(name)

    track_growth.unit = "bytes"


class Short:
    """A small problem, as a model search fits a thousand of: here Python's own time counts."""

    params = (("given", "own"), (1, 20))
    param_names = ("start", "iterations")

    def setup(self, start: str, iterations: int) -> None:
        self.problem = build(SHORT)
        self.model = estimator(self.problem, iterations, start=start == "given")
        self.model.fit(self.problem.X)

    def time_fit(self, start: str, iterations: int) -> None:
        self.model.fit(self.problem.X)

    def track_log_likelihood(self, start: str, iterations: int) -> float:
        return float(self.model.fit(self.problem.X).lower_bound_)

    track_log_likelihood.unit = "nats/row"
