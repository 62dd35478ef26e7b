"""The kernel of Cholesky factors and their inverses: every size, alone or together, in one launch or many."""

import numpy as np
import pytest

from fastgmm.covariance import _triangular
from fastgmm.kernels import factors
from fastgmm.kernels._jit import limited_threads
from fastgmm.kernels.factors import eliminate


def spd(k: int, d: int) -> np.ndarray:
    x = np.random.default_rng(100 * k + d).normal(size=(k, 2 * d + 1, d))
    return np.matmul(x.transpose(0, 2, 1), x)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 40, 65])
def test_the_inverse_of_the_lower_factor_and_the_factor_above_it(d):
    sigma = spd(3, d)
    w, failed = eliminate(sigma, 1e-9)
    lower = np.linalg.cholesky(sigma)
    assert failed.tolist() == [-1, -1, -1]
    assert w.shape == sigma.shape
    np.testing.assert_array_equal(np.triu(w, 1), 0.0)
    np.testing.assert_allclose(np.matmul(w, lower), np.array([np.eye(d)] * 3), atol=1e-12)
    both, _ = eliminate(sigma, 1e-9, upper=True)
    np.testing.assert_array_equal(np.tril(both), w)
    np.testing.assert_allclose(np.triu(both, 1), np.triu(lower.transpose(0, 2, 1), 1), atol=1e-12)


@pytest.mark.parametrize("d", [5, 24, 70])
def test_bits_depend_on_neither_threads_nor_the_stack_nor_the_number_of_launches(d, monkeypatch):
    sigma = spd(9, d)
    monkeypatch.setattr(factors, "SERIAL_SECONDS", 0.0)
    w, _ = eliminate(sigma, 0.0)
    with limited_threads(1):
        np.testing.assert_array_equal(eliminate(sigma, 0.0)[0], w)
    for k in range(9):
        np.testing.assert_array_equal(eliminate(sigma[k : k + 1], 0.0)[0], w[k : k + 1])
    launches = []
    launch = factors.launch
    monkeypatch.setattr(factors, "launch", lambda *args: (launches.append(args[2]), launch(*args)))
    monkeypatch.setattr(factors, "LAUNCH_SECONDS", factors.matrix_seconds(d) / 2.9)
    factors._plan.cache_clear()
    try:
        np.testing.assert_array_equal(eliminate(sigma, 0.0)[0], w)
    finally:
        factors._plan.cache_clear()
    assert max(launches) <= factors.n_threads()
    assert len(launches) >= (1 if d < 24 else 3) * 9 / factors.n_threads()


@pytest.mark.parametrize("d", [1, 3, 9, 30])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_the_first_pivot_that_is_none_is_named_and_the_other_matrices_are_done(d, value):
    sigma = spd(3, d)
    whole, _ = eliminate(sigma, 1e-9)
    for p in {0, d // 2, d - 1}:
        bad = sigma.copy()
        bad[1, p, p] = value
        w, failed = eliminate(bad, 1e-9)
        assert failed.tolist() == [-1, p, -1]
        np.testing.assert_array_equal(w[[0, 2]], whole[[0, 2]])


def test_entries_off_the_diagonal_that_are_not_finite_fail():
    for value in (np.nan, np.inf, -np.inf):
        for d in (2, 20):
            sigma = spd(1, d)
            sigma[0, 0, d - 1] = sigma[0, d - 1, 0] = value
            assert eliminate(sigma, 1e-9)[1][0] > 0


def test_a_pivot_is_compared_with_its_entry_at_any_scale():
    correlated = np.array([[1.0, np.sqrt(0.75)], [np.sqrt(0.75), 1.0]])  # the second pivot's root is a half
    for scale in (1e-300, 1.0, 1e300):
        sigma = scale * correlated[None]
        assert eliminate(sigma, 0.49)[1][0] == -1
        assert eliminate(sigma, 0.51)[1][0] == 1


def test_a_view_and_a_stack_with_strides_are_read_as_they_are():
    sigma = spd(4, 6)
    expected, _ = eliminate(sigma[::2], 0.0)
    np.testing.assert_array_equal(eliminate(np.ascontiguousarray(sigma[::2]), 0.0)[0], expected)
    np.testing.assert_array_equal(eliminate(np.broadcast_to(sigma[:1], (3, 6, 6)), 0.0)[0][2], expected[0])


@pytest.mark.parametrize("d", [1, 2, 7, 8, 9, 30, 41])
def test_products_of_the_inverse_factors_are_symmetric_inverses(d, monkeypatch):
    sigma = spd(3, d)
    factors_, failed = eliminate(sigma, 1e-9, padded=True)
    assert failed.max() == -1
    np.testing.assert_array_equal(factors_[:, :, :d], eliminate(sigma, 1e-9)[0])
    inverse = factors.inverses_of(factors_)
    assert inverse.flags.c_contiguous
    np.testing.assert_array_equal(inverse, inverse.transpose(0, 2, 1))
    np.testing.assert_allclose(np.matmul(inverse, sigma), np.array([np.eye(d)] * 3), atol=1e-10)
    monkeypatch.setattr(factors, "LAUNCH_SECONDS", factors.matrix_seconds(d) / 2.9)
    factors._plan.cache_clear()
    try:
        np.testing.assert_array_equal(factors.inverses_of(factors_), inverse)
    finally:
        factors._plan.cache_clear()


@pytest.mark.parametrize(
    ("k", "d", "where"),
    [
        (1, 200, (0, 0, 1)),
        (2, 200, (1, 63, 64)),
        (2, 200, (0, 0, 199)),
        (1, 200, (0, 130, 131)),
        (9000, 2, (8999, 0, 1)),
    ],
)
def test_an_asymmetry_is_found_wherever_it_is_in_a_large_stack(k, d, where):
    """Only the upper triangle counts for what follows, so nothing else would notice."""
    matrices = np.tile(np.eye(d), (k, 1, 1))
    assert matrices.size > _triangular.TILE_NUMBERS
    assert _triangular._all_symmetric(matrices)
    matrix, i, j = where
    for row, column in ((i, j), (j, i)):
        faulty = matrices.copy()
        faulty[matrix, row, column] = 1e-3
        assert not _triangular._all_symmetric(faulty)
    matrices[matrix, i, j] = matrices[matrix, j, i] = 1e-3
    assert _triangular._all_symmetric(matrices)


def test_scratch_is_for_as_many_matrices_as_there_are(monkeypatch):
    sizes = []

    monkeypatch.setattr(factors, "launch", lambda *given: sizes.append(given[2:]))
    monkeypatch.setattr(factors, "n_threads", lambda: 64)
    monkeypatch.setattr(factors, "compile_block", lambda *_: 0)
    eliminate(np.tile(np.eye(200), (2, 1, 1)), 1e-9)
    assert {workers for _, workers in sizes} == {2}
