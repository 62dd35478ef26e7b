"""Unpacking of second moments: the kernel for large models does what NumPy does for small ones."""

import numpy as np
import pytest

from fastgmm import stats
from fastgmm.kernels import each, layout, unpack
from fastgmm.kernels._jit import limited_threads


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize("d", [1, 5, 8, 17, 31, 40])
def test_the_kernel_fills_symmetric_matrices_as_numpy_does(d, size, monkeypatch):
    k = 7
    both = np.random.default_rng(d).normal(size=(k, layout.moment_length(d, size) + 16))  # products may follow
    expected = layout.unpack_moments(both, d, size)
    np.testing.assert_array_equal(expected, expected.transpose(0, 2, 1))
    monkeypatch.setattr(unpack, "FROM", 0)
    np.testing.assert_array_equal(unpack.unpack_moments(both, d, size), expected)
    monkeypatch.setattr(each, "SERIAL_SECONDS", 0.0)
    monkeypatch.setattr(each, "LAUNCH_SECONDS", 0.0)  # a launch each
    for threads in (1, 2):
        with limited_threads(threads):
            np.testing.assert_array_equal(unpack.unpack_moments(both, d, size), expected)


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize("d", [3, 16, 31])
def test_the_kernel_subtracts_squares_as_statistics_do(d, size):
    k, rng = 4, np.random.default_rng(d)
    packed = rng.normal(size=(k, layout.moment_length(d, size)))
    weights, shifts = np.array([0.0, 1e-200, 3.7, 1e9]), rng.normal(size=(k, d)) * 10.0 ** rng.integers(-90, 90, (k, d))
    shifts[0] = 0.0
    expected = layout.unpack_moments(packed, d, size)
    expected -= stats.OUTER["full"](weights, shifts)
    found = unpack.unpack_moments(packed, d, size, weights, shifts)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    np.testing.assert_array_equal(found[0], layout.unpack_moments(packed, d, size)[0])


def test_small_models_need_no_kernel(monkeypatch):
    monkeypatch.delattr(each, "compile_block")
    packed = np.random.default_rng(0).normal(size=(3, layout.moment_length(16, 8)))
    assert unpack.unpack_moments(packed, 16, 8).shape == (3, 16, 16)
