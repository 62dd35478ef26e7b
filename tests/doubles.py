"""A data pass in plain NumPy for tests of what is above the passes: no kernel is compiled, K and N are small."""

import numpy as np

from fastgmm import covariance
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from tests import reference


def as_reference(params):
    return reference.Parameters(params.weights, params.means, params.covariances, params.covariance_type)


def statistics_of(x, r, kind, centre=None, sample_weight=None, log_likelihood=0.0, log_map=0.0):
    """Statistics of rows with responsibilities r (N, K), by direct sums about `centre` (K, D)."""
    w = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    wr = r * w[:, None]
    centre = np.zeros((r.shape[1], x.shape[1])) if centre is None else np.asarray(centre, dtype=float)
    s1 = np.array([wr[:, k] @ (x - c) for k, c in enumerate(centre)])
    return SufficientStatistics.from_moments(
        kind,
        centre,
        wr.sum(axis=0),
        s1,
        np.array(reference.reduced_scatter(x, wr, centre, kind)),
        log_likelihood=log_likelihood,
        log_map=log_map,
        total_weight=float(w.sum()),
        n_rows=len(x),
    )


class NumpyPass:
    """An `accumulate` for `fit_em`, built on the oracle's E-step; counts its calls."""

    def __init__(self, x, covariance_type, sample_weight=None):
        self.x = np.asarray(x, dtype=float)
        self.kind = covariance.family(covariance_type).scatter
        self.sample_weight = sample_weight
        self.calls = []

    def __call__(self, params, *, moments=True):
        self.calls.append(moments)
        covariance.density(params)  # refuses singular covariances, as a real pass does
        e = reference.e_step(self.x, as_reference(params), self.sample_weight)
        r = e.responsibilities if moments else np.zeros_like(e.responsibilities)
        return statistics_of(self.x, r, self.kind, params.means, self.sample_weight, e.log_likelihood, e.log_map)


def start(x, n_components, covariance_type, seed=0):
    """Equal weights, means at random rows, the covariance of the data."""
    x = np.asarray(x, dtype=float)
    rng = np.random.default_rng(seed)
    means = x[rng.choice(len(x), n_components, replace=False)]
    whole = np.atleast_2d(np.cov(x.T, bias=True))
    covariances = {
        "full": lambda: np.array([whole] * n_components),
        "tied": lambda: whole,
        "diag": lambda: np.array([np.diag(whole)] * n_components),
        "spherical": lambda: np.full(n_components, np.trace(whole) / len(whole)),
    }[covariance_type]()
    return Params(np.full(n_components, 1.0 / n_components), means.copy(), covariances, covariance_type)
