"""Division of scatter by weights: the kernel for large models gives NumPy's bits."""

import numpy as np
import pytest

from fastgmm.kernels import divide, each
from fastgmm.kernels._jit import limited_threads


@pytest.mark.parametrize("d", [1, 3, 8, 33])
def test_the_kernel_gives_the_bits_of_numpy(d, monkeypatch):
    rng = np.random.default_rng(d)
    scatter = rng.normal(size=(6, d, d)) * 10.0 ** rng.integers(-290, 90, (6, d, d))
    weights = np.array([1.0, 3.0, 1e-200, 7e11, 0.0, 1 / 3])
    with np.errstate(all="ignore"):
        expected = scatter / weights[:, None, None]
    monkeypatch.setattr(divide, "FROM", 0)
    monkeypatch.setattr(each, "SERIAL_SECONDS", 0.0)
    monkeypatch.setattr(each, "LAUNCH_SECONDS", 0.0)  # a launch each
    for threads in (1, 2):
        with limited_threads(threads), np.errstate(all="ignore"):  # the smallest are left to NumPy
            np.testing.assert_array_equal(divide.divided(scatter, weights), expected)
    turned = np.ascontiguousarray(scatter[:4].transpose(0, 2, 1)).transpose(0, 2, 1)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(divide.divided(turned, weights[:4]), expected[:4])


def test_small_models_need_no_kernel(monkeypatch):
    monkeypatch.delattr(each, "compile_block")
    assert divide.divided(np.ones((3, 16, 16)), np.full(3, 2.0)).max() == 0.5
