"""Triangular factors that the covariance families share: as accurate as LAPACK's, and the same for any threads."""

import numpy as np
import pytest

from fastgmm.constants import PIVOT_TOLERANCE
from fastgmm.covariance._triangular import cholesky, inverse_cholesky, is_definite


@pytest.mark.parametrize("d", [63, 64, 65, 130, 200])
@pytest.mark.parametrize("condition", [1e2, 1e9])
def test_blocked_factorisation_has_lapacks_accuracy(d, condition):
    rng = np.random.default_rng(d)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    sigma = (q * np.geomspace(1.0, 1.0 / condition, d)) @ q.T
    sigma = np.array([sigma + sigma.T, 0.5 * np.eye(d)])
    w, log_det = inverse_cholesky("full", sigma)
    np.testing.assert_array_equal(np.triu(w, 1), 0.0)
    lower = np.linalg.inv(w)
    np.testing.assert_allclose(lower @ lower.transpose(0, 2, 1), sigma, atol=1e-10)
    np.testing.assert_allclose(w @ sigma @ w.transpose(0, 2, 1), np.array([np.eye(d)] * 2), atol=1e-14 * condition)
    np.testing.assert_allclose(log_det, -0.5 * np.linalg.slogdet(sigma)[1], rtol=1e-9)


@pytest.mark.parametrize("d", [63, 64, 65, 97, 200])
def test_factorisation_has_the_same_bits_for_any_number_of_blas_threads(d):
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="sets the number of BLAS threads")
    a = np.random.default_rng(0).normal(size=(3, d + 50, d))
    sigma = np.matmul(a.transpose(0, 2, 1), a)
    with threadpoolctl.threadpool_limits(1, "blas"):
        one = inverse_cholesky("full", sigma)
    with threadpoolctl.threadpool_limits(4, "blas"):
        four = inverse_cholesky("full", sigma)
    for x, y in zip(one, four, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("d", [80, 130])
def test_blocked_cholesky_is_backward_stable(d):
    """|A - L L'| within (D + 1) u of the variances (Higham, theorem 10.3), where inverses of blocks lose six digits."""
    rng = np.random.default_rng(d)
    factor = 0.1 * np.tril(rng.normal(size=(d, d)), -1) + np.eye(d)
    pivots = np.where(np.arange(64) % 8 == 0, 0.03, 1.0)
    factor[:64, :64] = np.tril(rng.normal(size=(64, 64)), -1) / 4.0 + np.diag(pivots)
    sigma = factor @ factor.T
    lower = cholesky("full", sigma[None])[0]
    deviation = np.sqrt(np.diag(sigma))
    error = np.abs(sigma - lower @ lower.T) / deviation[:, None] / deviation
    assert error.max() <= (d + 1) * 2.0**-53


def test_a_pivot_is_resolved_above_the_tolerance_times_the_number_of_features():
    for d in (2, 8):
        for share, fine in ((2.0, True), (0.5, False)):
            rest = share * PIVOT_TOLERANCE * d
            sigma = np.eye(d)
            sigma[0, 1] = sigma[1, 0] = np.sqrt(1.0 - rest)
            assert is_definite(sigma) == fine
