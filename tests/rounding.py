"""How far rounding can move a pass's results, derived; no constant is fitted to what the library happens to give.

First-order bounds in the notation of Higham, "Accuracy and Stability of Numerical Algorithms" (2nd ed., SIAM 2002):
unit roundoff u, gamma_n = n u / (1 - n u), absolute values and <= by entry. For a component with covariance A = L L',
W = L^-1, D features, and a row with x - mu = d, y = W d:

- Cholesky (theorem 10.3): the factor is that of A + dA, |dA| <= gamma_(D+1) |L| |L'|. It moves y'y by
  |a|' |dA| |a| with a = A^-1 d, and log det L by tr(|A^-1| |dA|) / 2.
- Inversion (section 14.2.1): |dW| <= gamma_D |W| |L| |W|.
- The pass: W rounded, d rounded, D products and sums: |dy| <= gamma_(D+4) |W| |d|. Where a pass multiplies before it
  subtracts (tied: W (x - c) - W (mu - c) with the centre c) |d| is |x - c| + |mu - c|.
- Near components (docs/numerics.md: all within `NEAR` deviations of the centre): everything is about the centre, so |d|
  is |x - c| + |mu - c| again, and y'y of tied and spherical ones is expanded, which costs
  gamma_(D+3) (|W (x - c)| + |W (mu - c)|)^2.
- y'y: gamma_(D+1). A log-density of up to four features begins with its constant, and its D squares are subtracted one
  after the other: D roundings of that constant, too. `exp` and `log`: the ulps that docs/numerics.md states. A sum of n
  terms: gamma_n of their sizes.

Factorisations are float64; u of the pass is that of its rows.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from tests import reference

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
EXP_ULP, LOG_ULP = 1.5, 5.0  # docs/numerics.md
FEW = 4  # features up to which lanes run over samples throughout
NEAR = {"float64": 16.0, "float32": 6.0}  # docs/numerics.md
CUT = {
    "float64": np.exp(-40.0),
    "float32": np.exp(-28.0),
}  # a fit drops responsibilities below it times the component's weight


def gamma(n, unit):
    return n * unit / (1.0 - n * unit)


class Bounds(NamedTuple):
    joint: np.ndarray  # (N, K)
    log_density: np.ndarray  # (N,)
    log_responsibility: np.ndarray  # (N, K): relative error of a responsibility
    distance: np.ndarray  # (N, K, D): error of x - mu
    centre: np.ndarray  # (D,) weighted mean of the components
    near: bool


def density(x, parameters, joint, dtype):
    """Bounds for log-densities; `joint` (N, K) are their right values."""
    x = np.asarray(x, dtype=float)
    u, v = UNIT["float64"], UNIT[dtype]
    n_components, d = parameters.means.shape
    centre = parameters.means[0] + parameters.weights @ (parameters.means - parameters.means[0])
    top = 0.0 if dtype == "float64" else _log_norms(parameters).max()  # subtracted while the pass is float32
    near = is_near(parameters, centre, dtype)
    bound, distance = np.empty(joint.shape), np.empty((len(x), n_components, d))
    for k, (weight, mean, sigma) in enumerate(
        zip(parameters.weights, parameters.means, reference.dense(parameters), strict=True)
    ):
        lower = cholesky(sigma, lower=True)
        inverse = solve_triangular(lower, np.eye(d), lower=True)
        w, low = np.abs(inverse), np.abs(lower)
        dev = x - mean
        y = dev @ inverse.T
        size = np.abs(dev)
        # A float32 pass subtracts the mean in two parts.
        distance[:, k] = v * size if dtype == "float64" else 2.0 * v * size + 2.0 * v * v * np.abs(mean)
        if near or parameters.covariance_type == "tied":
            size = np.abs(x - centre) + np.abs(mean - centre)
            distance[:, k] += v * size
        a = np.abs(y @ inverse)
        backward = gamma(d + 1, u) * np.square(a @ low).sum(axis=1)
        dy = gamma(d, u) * (np.abs(dev) @ (w @ low @ w).T)
        dy += gamma(d + 3, v) * (size @ w.T) + distance[:, k] @ w.T
        dq = backward + (2.0 * np.abs(y) * dy + dy * dy).sum(axis=1) + gamma(d + 1, v) * np.square(y).sum(axis=1)
        if near and parameters.covariance_type in ("tied", "spherical"):
            dq += gamma(d + 3, v) * np.square(size @ w.T).sum(axis=1)
        d_log_det = 0.5 * gamma(d + 1, u) * np.trace(np.abs(inverse.T @ inverse) @ low @ low.T)
        terms = np.abs(np.log(np.diag(lower))).sum() + abs(np.log(weight)) + d
        log_norm = _log_norms(parameters)[k] - top
        begins = d if parameters.covariance_type == "full" and d <= FEW else 0
        bound[:, k] = d_log_det + gamma(d + 5, u) * terms + (1 + begins) * v * abs(log_norm)
        bound[:, k] += v * np.abs(joint[:, k] - top) + 0.5 * dq
    largest = joint.max(axis=1)
    r = np.exp(joint - largest[:, None])
    total = r.sum(axis=1)
    r /= total[:, None]
    # exp(l - m): the difference is rounded, exp has its ulps, K of them are summed.
    shares = (r * (bound + v * np.abs(joint - largest[:, None]))).sum(axis=1)
    sums = gamma(n_components + 2.0 * EXP_ULP + 1.0, v) + n_components * CUT[dtype]
    logs = 2.0 * LOG_ULP * u * np.log(total) + u * (
        np.abs(largest) + 2.0 * np.abs(largest + np.log(total)) + 2 * abs(top)
    )
    log_density = shares + sums + logs
    relative = bound + v * np.abs(joint - largest[:, None]) + (shares + sums)[:, None] + gamma(2.0 * EXP_ULP + 4.0, v)
    return Bounds(bound, log_density, relative, distance, centre, near)


def is_near(parameters, centre, dtype):
    """Whether a pass takes the way for components that all lie near their common centre."""
    full = parameters.covariance_type == "full"
    lower = np.linalg.cholesky(reference.dense(parameters))
    away = np.linalg.solve(lower, (parameters.means - centre)[:, :, None])
    away = np.linalg.norm(away, axis=1) if full else np.abs(away)
    return bool(away.max() <= NEAR[dtype])


def _log_norms(parameters):
    d = parameters.means.shape[1]
    log_det = [np.linalg.slogdet(sigma)[1] for sigma in reference.dense(parameters)]
    return np.log(parameters.weights) - 0.5 * (d * np.log(2.0 * np.pi) + np.array(log_det))


class MomentBounds(NamedTuple):
    weight: np.ndarray  # (K,)
    mean: np.ndarray  # (K, D)
    covariances: np.ndarray  # in the shape of the family


def m_step(x, parameters, r, sample_weight, bounds, dtype):
    """Bounds for weight, mean and covariance (reg_covar 0) after an M-step; `r` (N, K): the right responsibilities."""
    x = np.asarray(x, dtype=float)
    u, v = UNIT["float64"], UNIT[dtype]
    kind = parameters.covariance_type
    n, d = x.shape
    w = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    share = w[:, None] * r  # (N, K)
    sums = gamma(n + 8, v)
    relative = bounds.log_responsibility + sums
    lost = CUT[dtype] * parameters.weights * w[:, None]  # what the cut takes, at most
    s0 = share.sum(axis=0)
    d0 = (share * relative + lost).sum(axis=0)
    common = bounds.near or kind in ("tied", "spherical")
    about = np.broadcast_to(bounds.centre if common else parameters.means, parameters.means.shape)
    dev = x[:, None] - about  # (N, K, D)
    size = np.abs(dev)
    slip = v * size + 2.0 * v * v * np.abs(about) if common else bounds.distance
    s1 = np.einsum("nk,nki->ki", share, dev)
    d1 = np.einsum("nk,nki->ki", share * relative + lost, size) + np.einsum("nk,nki->ki", share, slip)
    shift = s1 / s0[:, None]
    d_shift = (d1 + np.abs(shift) * d0[:, None]) / s0[:, None] + 2.0 * u * np.abs(shift)
    mean = d_shift + 2.0 * u * (np.abs(about) + np.abs(about + shift))

    def second(weights, deviation, slips, rel):
        """Error of sum w dev dev' (K, D, D)."""
        magnitude = np.abs(deviation)
        first = np.einsum("nk,nki,nkj->kij", weights * rel, magnitude, magnitude)
        return first + 2.0 * np.einsum("nk,nki,nkj->kij", weights, slips, magnitude)

    # S2 - s1 s1' / s0: what the subtraction itself loses
    outer = np.abs(s1)[:, :, None] * d_shift[:, None, :]
    correction = outer + outer.transpose(0, 2, 1) + 4.0 * u * np.abs(s1[:, :, None] * shift[:, None, :])
    if kind == "tied":
        middle = (w @ x) / w.sum()
        whole = np.abs(x - middle)[:, None]
        total = second(w[:, None], x[:, None] - middle, v * whole + 2.0 * v * v * np.abs(middle), sums)[0]
        from_middle = np.abs(about + shift - middle)
        s_outer = (s0[:, None] * from_middle)[:, :, None] * (mean + d_shift)[:, None, :]
        between = s_outer + s_outer.transpose(0, 2, 1)
        between += (d0 + gamma(n + 8, u) * s0)[:, None, None] * from_middle[:, :, None] * from_middle[:, None, :]
        scatter = np.broadcast_to(total + between.sum(axis=0), (1, d, d))
        dense = reference.reduced_scatter(x, share, about + shift, "pooled")
        return MomentBounds(d0, mean, (scatter[0] + np.abs(dense) * (d0.sum() / s0.sum() + gamma(n, u))) / s0.sum())
    own, own_slip = (dev, slip) if bounds.near else (x[:, None] - parameters.means, bounds.distance)
    scatter = second(share, own, own_slip, relative) + second(lost, own, own_slip, 1.0)
    if kind == "spherical" and not bounds.near:  # first moments about the centre, second ones about the means
        s1_own = np.einsum("nk,nki->ki", share, own)
        d1_own = d1 + d0[:, None] * np.abs(parameters.means - bounds.centre) + u * np.abs(s1)
        outer = np.abs(s1_own)[:, :, None] * (d1_own / s0[:, None])[:, None, :]
        correction = outer + outer.transpose(0, 2, 1)
    exact = reference.reduced_scatter(x, share, about + shift, "full")
    scatter = scatter + correction
    whole = (scatter + np.abs(exact) * (d0 / s0 + 4.0 * u)[:, None, None]) / s0[:, None, None]
    diagonal = np.diagonal(whole, axis1=1, axis2=2)
    return MomentBounds(d0, mean, {"full": whole, "diag": diagonal, "spherical": diagonal.mean(axis=1)}[kind])
