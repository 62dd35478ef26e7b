"""The oracle: Gaussian mixtures in plain NumPy and SciPy, slow and obvious. It imports nothing of fastgmm.

Everything is dense: responsibilities are an (N, K) array, every covariance a (D, D) matrix, and an M-step passes over
the rows twice (means first, then deviations from them).
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

TYPES = ("full", "tied", "diag", "spherical")


class Parameters(NamedTuple):
    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    covariances: np.ndarray  # in the shape of covariance_type
    covariance_type: str


class EStep(NamedTuple):
    log_density: np.ndarray  # (N,)
    responsibilities: np.ndarray  # (N, K)
    log_likelihood: float  # weighted sum
    log_map: float  # weighted sum of the log of the largest responsibility


def dense(parameters):
    """All covariances as (K, D, D)."""
    n_components, n_features = parameters.means.shape
    c = parameters.covariances
    eye = np.eye(n_features)
    return {
        "full": lambda: np.array(c),
        "tied": lambda: np.array([c] * n_components),
        "diag": lambda: np.array([np.diag(v) for v in c]),
        "spherical": lambda: np.array([v * eye for v in c]),
    }[parameters.covariance_type]()


def log_joint(x, parameters):
    """log pi_k + log N(x_n; mu_k, Sigma_k), (N, K)."""
    x = np.asarray(x, dtype=float)
    columns = []
    for weight, mean, sigma in zip(parameters.weights, parameters.means, dense(parameters), strict=True):
        lower = cholesky(sigma, lower=True)
        y = solve_triangular(lower, (x - mean).T, lower=True)
        log_det = 2.0 * np.log(np.diag(lower)).sum()
        log_weight = np.log(weight) if weight > 0.0 else -np.inf
        columns.append(log_weight - 0.5 * (log_det + x.shape[1] * np.log(2.0 * np.pi) + (y**2).sum(axis=0)))
    return np.array(columns).T


def e_step(x, parameters, sample_weight=None):
    joint = log_joint(x, parameters)
    w = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    log_density = logsumexp(joint, axis=1)
    r = np.exp(joint - log_density[:, None])
    return EStep(log_density, r, float(w @ log_density), float(w @ np.log(r.max(axis=1))))


def m_step(x, responsibilities, covariance_type, reg_covar=0.0, sample_weight=None):
    """Two passes over the rows; every component must have some weight."""
    x = np.asarray(x, dtype=float)
    w = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    r = responsibilities * w[:, None]
    n = r.sum(axis=0)
    means = np.array([r[:, k] @ x / n[k] for k in range(len(n))])
    scatters = scatter(x, r, means)
    n_features = x.shape[1]
    eye = np.eye(n_features)
    covariances = {
        "full": lambda: np.array([s / m + reg_covar * eye for s, m in zip(scatters, n, strict=True)]),
        "tied": lambda: scatters.sum(axis=0) / n.sum() + reg_covar * eye,
        "diag": lambda: np.array([np.diag(s) / m + reg_covar for s, m in zip(scatters, n, strict=True)]),
        "spherical": lambda: np.array(
            [np.trace(s) / (m * n_features) + reg_covar for s, m in zip(scatters, n, strict=True)]
        ),
    }[covariance_type]()
    return Parameters(n / n.sum(), means, covariances, covariance_type)


def scatter(x, r, means):
    """Sum over rows of r_nk (x - mean_k)(x - mean_k)', (K, D, D)."""
    return np.array([((x - m) * r[:, k, None]).T @ (x - m) for k, m in enumerate(means)])


def reduced_scatter(x, r, means, kind):
    """Scatter in the layout of a scatter kind."""
    s = scatter(x, r, means)
    return {
        "full": lambda: s,
        "pooled": lambda: s.sum(axis=0),
        "diag": lambda: np.array([np.diag(m) for m in s]),
        "trace": lambda: np.array([np.trace(m) for m in s]),
    }[kind]()


def em(x, parameters, n_iterations, reg_covar=0.0, sample_weight=None):
    """Exactly `n_iterations` M-steps; returns the parameters and the log-likelihoods of all 1 + n parameter sets."""
    trace = []
    for _ in range(n_iterations):
        e = e_step(x, parameters, sample_weight)
        trace.append(e.log_likelihood)
        parameters = m_step(x, e.responsibilities, parameters.covariance_type, reg_covar, sample_weight)
    trace.append(e_step(x, parameters, sample_weight).log_likelihood)
    return parameters, trace


def one_hot(labels, n_components):
    """Responsibilities (N, K) of a hard partition with labels 0..K-1."""
    return np.eye(n_components)[np.asarray(labels)]


def n_parameters(covariance_type, n_components, n_features):
    of_covariances = {
        "full": n_components * n_features * (n_features + 1) // 2,
        "tied": n_features * (n_features + 1) // 2,
        "diag": n_components * n_features,
        "spherical": n_components,
    }[covariance_type]
    return n_components - 1 + n_components * n_features + of_covariances


def bic(log_likelihood, n_free, total_weight):
    """Smaller is better (scikit-learn's sign)."""
    return -2.0 * log_likelihood + n_free * np.log(total_weight)


def aic(log_likelihood, n_free):
    return -2.0 * log_likelihood + 2.0 * n_free


def icl(log_likelihood, log_map, n_free, total_weight):
    """Smaller is better; log_map is the sum of logs of the largest responsibilities."""
    return bic(log_likelihood, n_free, total_weight) - 2.0 * log_map
