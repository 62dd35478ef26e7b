"""asv: what a fitted model answers: densities, labels, probabilities, draws."""

from __future__ import annotations

import numpy as np

from benchmarks.data import build, by_name
from benchmarks.fit import CORE, DTYPES, estimator


class Predict:
    """Methods of a fitted estimator on the data it was fitted to."""

    params = (CORE, DTYPES)
    param_names = ("case", "dtype")
    number = 1

    def setup(self, name: str, dtype: str) -> None:
        self.X = build(by_name(name), dtype).X
        self.model = estimator(build(by_name(name), dtype), 2).fit(self.X)
        self.model.predict(self.X[:1000])

    def time_score_samples(self, name: str, dtype: str) -> None:
        self.model.score_samples(self.X)

    def time_predict(self, name: str, dtype: str) -> None:
        self.model.predict(self.X)

    def time_predict_proba(self, name: str, dtype: str) -> None:
        self.model.predict_proba(self.X)

    def time_sample(self, name: str, dtype: str) -> None:
        self.model.sample(100_000)

    def track_log_likelihood(self, name: str, dtype: str) -> float:
        return float(np.mean(self.model.score_samples(self.X)))

    track_log_likelihood.unit = "nats/row"

    def time_predict_one_row(self, name: str, dtype: str) -> None:
        self.model.predict(self.X[:1])
