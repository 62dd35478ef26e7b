"""The exact oracle: log-densities, an E-step and an M-step in 50 decimal digits (mpmath), from the textbook formulas.

It takes the stored doubles for what they are, so what it returns is the right answer for these very numbers, and what a
computation differs from it by is that computation's own error. It imports nothing of fastgmm.
"""

from typing import NamedTuple

import mpmath
import numpy as np

from tests import reference

DIGITS = 50


class Exact(NamedTuple):
    joint: list[list[mpmath.mpf]]  # [row][component]: log pi_k + log N(x; mu_k, Sigma_k)
    log_density: list[mpmath.mpf]
    responsibilities: list[list[mpmath.mpf]]
    log_likelihood: mpmath.mpf  # weighted sum
    log_map: mpmath.mpf  # weighted sum of the log of the largest responsibility


class Moments(NamedTuple):
    weight: list[mpmath.mpf]
    mean: list[list[mpmath.mpf]]
    scatter: list[list[list[mpmath.mpf]]]  # about the new means; [component][i][j]


def cholesky(matrix):
    """Lower factor of a matrix of floats, as lists of mpf."""
    n = len(matrix)
    lower = [[mpmath.mpf(0)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = mpmath.mpf(float(matrix[i][j])) - mpmath.fdot(lower[i][:j], lower[j][:j])
            lower[i][j] = mpmath.sqrt(rest) if i == j else rest / lower[j][j]
    return lower


def solve(lower, b):
    """Forward substitution."""
    y = []
    for row, value in zip(lower, b, strict=True):
        y.append((value - mpmath.fdot(row[: len(y)], y)) / row[len(y)])
    return y


def e_step(x, parameters, sample_weight=None):
    """The E-step of `reference.Parameters` for rows (N, D)."""
    with mpmath.workdps(DIGITS):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in x]
        w = _weights(sample_weight, len(rows))
        half_log_2pi = mpmath.log(2 * mpmath.pi) / 2
        columns = []
        for weight, mean, sigma in zip(parameters.weights, parameters.means, reference.dense(parameters), strict=True):
            lower, mu = cholesky(sigma), [mpmath.mpf(float(v)) for v in mean]
            norm = mpmath.log(mpmath.mpf(float(weight))) - len(mu) * half_log_2pi
            norm -= mpmath.fsum(mpmath.log(lower[i][i]) for i in range(len(mu)))
            squares = (mpmath.fdot(y, y) for y in (solve(lower, _minus(row, mu)) for row in rows))
            columns.append([norm - square / 2 for square in squares])
        joint = [list(row) for row in zip(*columns, strict=True)]
        density = [max(row) + mpmath.log(mpmath.fsum(mpmath.exp(v - max(row)) for v in row)) for row in joint]
        r = [[mpmath.exp(v - total) for v in row] for row, total in zip(joint, density, strict=True)]
        log_map = mpmath.fdot(w, [max(row) - total for row, total in zip(joint, density, strict=True)])
        return Exact(joint, density, r, mpmath.fdot(w, density), log_map)


def moments(x, responsibilities, sample_weight=None):
    """What an M-step reads, two passes."""
    with mpmath.workdps(DIGITS):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in x]
        w = _weights(sample_weight, len(rows))
        d = len(rows[0])
        weight, mean, scatter = [], [], []
        for k in range(len(responsibilities[0])):
            share = [wi * row[k] for wi, row in zip(w, responsibilities, strict=True)]
            n = mpmath.fsum(share)
            mu = [mpmath.fdot(share, [row[i] for row in rows]) / n for i in range(d)]
            u = [_minus(row, mu) for row in rows]
            second = [[mpmath.mpf(0)] * d for _ in range(d)]
            for i in range(d):
                left = [s * v[i] for s, v in zip(share, u, strict=True)]
                for j in range(i + 1):
                    second[i][j] = second[j][i] = mpmath.fdot(left, [v[j] for v in u])
            weight.append(n)
            mean.append(mu)
            scatter.append(second)
        return Moments(weight, mean, scatter)


def covariances(found, covariance_type):
    """The M-step's covariances in the shape of the family, as an object array of mpf."""
    with mpmath.workdps(DIGITS):
        n, s = found.weight, np.array(found.scatter, dtype=object)
        d = s.shape[1]
        table = {
            "full": lambda: np.array([s[k] / n[k] for k in range(len(n))]),
            "tied": lambda: s.sum(axis=0) / mpmath.fsum(n),
            "diag": lambda: np.array([[s[k, i, i] / n[k] for i in range(d)] for k in range(len(n))]),
            "spherical": lambda: np.array(
                [mpmath.fsum(s[k, i, i] for i in range(d)) / (d * n[k]) for k in range(len(n))]
            ),
        }
        return table[covariance_type]()


def errors(found, expected):
    """|found - expected| as float64; `found` are floats, `expected` mpf in arrays or lists of the same shape."""
    found, expected = np.asarray(found, dtype=float), np.array(expected, dtype=object)
    assert found.shape == expected.shape
    with mpmath.workdps(DIGITS):
        flat = [abs(mpmath.mpf(float(f)) - e) for f, e in zip(found.ravel(), expected.ravel(), strict=True)]
    return np.array([float(v) for v in flat]).reshape(found.shape)


def to_float(values):
    return np.array([[float(v) for v in row] if isinstance(row, list) else float(row) for row in values])


def _minus(a, b):
    return [p - q for p, q in zip(a, b, strict=True)]


def _weights(sample_weight, n):
    return [mpmath.mpf(1)] * n if sample_weight is None else [mpmath.mpf(float(v)) for v in sample_weight]
