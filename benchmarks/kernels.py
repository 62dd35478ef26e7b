"""asv: single data passes, below the estimator: what a change of a kernel changes."""

from __future__ import annotations

from benchmarks.data import Problem, build, by_name
from benchmarks.fit import CORE, DTYPES


def bind(problem: Problem):
    """Return rows, density and the family's scatter kind, ready for a pass."""
    from fastgmm import covariance
    from fastgmm.data import as_rows
    from fastgmm.params import Params

    params = Params(problem.weights, problem.means, problem.covariances, problem.case.covariance_type)
    scatter = covariance.family(problem.case.covariance_type).scatter
    return as_rows(problem.X), covariance.density(params), scatter


class Pass:
    """One pass of each kind over the core cases."""

    params = (CORE, DTYPES)
    param_names = ("case", "dtype")

    def setup(self, name: str, dtype: str) -> None:
        from fastgmm import passes

        self.rows, self.density, scatter = bind(build(by_name(name), dtype))
        self.passes = passes
        self.accumulate = passes.Accumulator(self.rows, scatter)
        self.accumulate(self.density)
        passes.score_samples(self.rows, self.density)
        passes.predict(self.rows, self.density)

    def time_accumulate(self, name: str, dtype: str) -> None:
        self.accumulate(self.density)

    def time_log_likelihood(self, name: str, dtype: str) -> None:
        self.accumulate(self.density, moments=False)

    def time_score_samples(self, name: str, dtype: str) -> None:
        self.passes.score_samples(self.rows, self.density)

    def time_predict(self, name: str, dtype: str) -> None:
        self.passes.predict(self.rows, self.density)

    def track_log_likelihood(self, name: str, dtype: str) -> float:
        statistics = self.accumulate(self.density)
        return float(statistics.log_likelihood / statistics.total_weight)

    track_log_likelihood.unit = "nats/row"


class Assign:
    """One step of the k-means start."""

    params = (CORE[:3], DTYPES)
    param_names = ("case", "dtype")

    def setup(self, name: str, dtype: str) -> None:
        from fastgmm import passes

        problem = build(by_name(name), dtype)
        self.rows, _, _ = bind(problem)
        self.centers, self.assign = problem.means, passes.assign
        self.assign(self.rows, self.centers)

    def time_assign(self, name: str, dtype: str) -> None:
        self.assign(self.rows, self.centers)

    def track_inertia(self, name: str, dtype: str) -> float:
        return float(self.assign(self.rows, self.centers)[2] / self.rows.n_rows)

    track_inertia.unit = "squared distance/row"
