"""Packing of factors: the kernels for large models do what NumPy does."""

import numpy as np
import pytest

from fastgmm.kernels import each, layout, matrix_twins, pack
from fastgmm.kernels._jit import limited_threads

dimensions = pytest.mark.parametrize("d", [5, 8, 16, 23, 33, 49, 64])


def triangles(k: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(d)
    return np.tril(rng.normal(size=(k, d, d)) * 2.0 ** rng.integers(-40, 40, (k, d, d)))


def views(factors: np.ndarray) -> list[np.ndarray]:
    """The same factors with gaps that hold no numbers; and as they are one after the other."""
    k, d, _ = factors.shape
    wide = np.full((k, d + 2, d + 3), np.nan)
    wide[:, :d, :d] = factors
    turned = np.ascontiguousarray(factors.transpose(0, 2, 1)).transpose(0, 2, 1)
    return [factors, wide[:, :d, :d], turned]


@dimensions
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_triangles_are_packed_as_numpy_does(d, dtype, monkeypatch):
    factors = triangles(5, d)
    expected = layout.pack_triangles(factors, dtype)
    monkeypatch.setattr(pack, "FROM", 0)
    monkeypatch.setattr(each, "SERIAL_SECONDS", 0.0)
    for view in views(factors):
        found = pack.pack_triangles(view, dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
    shared = np.broadcast_to(factors[:1], factors.shape)
    np.testing.assert_array_equal(pack.pack_triangles(shared, dtype), expected[[0] * 5])
    monkeypatch.setattr(each, "LAUNCH_SECONDS", 0.0)  # a launch each
    with limited_threads(1):
        np.testing.assert_array_equal(pack.pack_triangles(factors, dtype), expected)


@dimensions
def test_tiles_of_three_parts_are_packed_as_numpy_does(d, monkeypatch):
    factors = triangles(5, d)
    expected = matrix_twins.pack_tiles(factors).view(np.uint16)
    monkeypatch.setattr(each, "SERIAL_SECONDS", 0.0)
    for view in views(factors):
        found = pack.pack_tiles(view)
        assert found.ctypes.data % 64 == 0
        np.testing.assert_array_equal(found.view(np.uint16), expected)


def test_small_models_need_no_kernel(monkeypatch):
    monkeypatch.delattr(each, "compile_block")
    assert pack.pack_triangles(triangles(3, 16), "float32").shape == (3, layout.triangle_length(16))
