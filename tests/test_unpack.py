"""Unpacking of second moments: the kernel for large models does what NumPy does for small ones."""

import numpy as np
import pytest

from fastgmm.kernels import layout, unpack
from fastgmm.kernels._jit import limited_threads


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize("d", [5, 8, 17, 31, 40])
def test_the_kernel_fills_symmetric_matrices_as_numpy_does(d, size, monkeypatch):
    k = 7
    both = np.random.default_rng(d).normal(size=(k, layout.moment_length(d, size) + 16))  # products may follow
    expected = layout.unpack_moments(both, d, size)
    np.testing.assert_array_equal(expected, expected.transpose(0, 2, 1))
    monkeypatch.setattr(unpack, "FROM", 0)
    np.testing.assert_array_equal(unpack.unpack_moments(both, d, size), expected)
    monkeypatch.setattr(unpack, "SERIAL_SECONDS", 0.0)
    monkeypatch.setattr(unpack, "LAUNCH_SECONDS", 0.0)  # a launch each
    for threads in (1, 2):
        with limited_threads(threads):
            np.testing.assert_array_equal(unpack.unpack_moments(both, d, size), expected)


def test_small_models_need_no_kernel(monkeypatch):
    monkeypatch.delattr(unpack, "compile_block")
    packed = np.random.default_rng(0).normal(size=(3, layout.moment_length(16, 8)))
    assert unpack.unpack_moments(packed, 16, 8).shape == (3, 16, 16)
