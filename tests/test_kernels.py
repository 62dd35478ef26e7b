"""Every micro-kernel against its plain twin, the elementary functions in ulps, the layouts against dense arrays."""

import functools
import inspect

import numba
import numpy as np
import pytest

from fastgmm.kernels import (
    arguments,
    entry,
    gram,
    layout,
    matrix,
    matrix_twins,
    micro,
    near,
    near_small,
    near_twins,
    normalise,
    pairs,
    products,
    simd,
    small,
    small_twins,
    softmax,
    softmax_twins,
    tile,
    tile_twins,
    twins,
)
from fastgmm.kernels._cache import attach

TILE, V = twins.TILE, twins.V
DIMENSIONS = [*range(1, 18), 24, 33, 64]
GUARD = 16  # elements on both sides of every array that no kernel may touch
SENTINEL = 77

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
dimensions = pytest.mark.parametrize("d", DIMENSIONS)
components = pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 9, 17])


@functools.cache
def compiled(kernel):
    def run(arguments):
        kernel(*arguments)

    function = numba.njit(run, error_model="numpy")
    attach(function)  # the package's own cache, so that only changed kernels compile again
    return function


class Guarded:
    """A copy of an array with a moat, and a check that nobody wrote into it."""

    def __init__(self, array):
        array = np.asarray(array)
        self.whole = np.full(array.size + 2 * GUARD, SENTINEL, array.dtype)
        self.inner = self.whole[GUARD:-GUARD]
        self.inner[:] = array.ravel()

    def check(self):
        np.testing.assert_array_equal(self.whole[:GUARD], SENTINEL)
        np.testing.assert_array_equal(self.whole[-GUARD:], SENTINEL)


def compare(kernel, twin, *given, scratch=(), only=None, exact=False, run=compiled):
    """Run both on copies of the same arguments and compare every array, but those at the places in `scratch`.

    `only` says of an argument which of its elements count.
    """
    guards = [Guarded(g) if isinstance(g, np.ndarray) else g for g in given]
    mine = [np.array(g).ravel() if isinstance(g, np.ndarray) else g for g in given]
    run(kernel)(tuple(g.inner if isinstance(g, Guarded) else g for g in guards))
    twin(*mine)
    single = any(isinstance(g, np.ndarray) and g.dtype == np.float32 for g in given)
    tolerance = 0.0 if exact else 2e-5 if single else 2e-13
    for i, (got, expected) in enumerate(zip(guards, mine, strict=True)):
        if isinstance(got, Guarded):
            got.check()
            if i not in scratch:
                finite = expected[np.isfinite(expected)]
                scale = np.abs(finite).max(initial=0.0)
                where = (only or {}).get(i, slice(None))
                np.testing.assert_allclose(
                    got.inner[where], expected[where], rtol=0.0, atol=tolerance * scale, err_msg=f"argument {i}"
                )


def rng_for(*key):
    return np.random.default_rng([17, *(int(v) for v in key)])


def width(dtype):
    return V * twins.VECTOR_BYTES // np.dtype(dtype).itemsize


def random_panels(rng, count, d, dtype):
    return rng.normal(size=(count, d, width(dtype))).astype(dtype)


def random_triangles(rng, k, d):
    return np.tril(rng.normal(size=(k, d, d)))


def panel_counts(dtype):
    return (1, 3, TILE // width(dtype))


# -- the set -----------------------------------------------------------------------------------------------------------


def kernels_of(module):
    """Names of the micro-kernels a module defines, and of its factories."""
    found = {n for n, v in vars(module).items() if type(v).__name__ == "_Intrinsic" and not n.startswith("_")}
    return found - {"pointer", "at"}


def test_every_kernel_has_a_twin():
    names = kernels_of(micro) | kernels_of(pairs) | kernels_of(gram) | kernels_of(near) | kernels_of(products)
    names |= kernels_of(entry) | kernels_of(tile) | kernels_of(softmax) | kernels_of(normalise)
    names |= kernels_of(matrix)
    makers = {**vars(small), **vars(near_small)}
    names |= {n for n, v in makers.items() if inspect.isfunction(v) and n.startswith("make_")} - {"make_block"}
    assert len(names) > 15
    plain = set()
    for module in (twins, tile_twins, small_twins, softmax_twins, near_twins, matrix_twins):
        plain |= set(dir(module))
    assert names <= plain, f"no twin in kernels/*twins.py: {sorted(names - plain)}"


def test_constants_agree():
    assert (twins.V, twins.TILE, twins.VECTOR_BYTES) == (micro.V, arguments.TILE, simd.VECTOR_BYTES)
    assert twins.BLOCKS == micro.BLOCKS
    for n in range(70):
        assert tuple(twins.row_blocks(n)) == layout.row_blocks(n)


# -- densities ---------------------------------------------------------------------------------------------------------


@dtypes
@dimensions
def test_triangular_density_and_whiten(d, dtype):
    rng = rng_for(d)
    factor = layout.pack_triangles(random_triangles(rng, 1, d), dtype)
    mean = layout.split(rng.normal(size=d) + 3.0, dtype, d)
    work = np.zeros((d, width(dtype)), dtype)
    log_norm = np.array([0.25], dtype)
    for count in panel_counts(dtype):
        panels = random_panels(rng, count, d, dtype)
        out = np.zeros(TILE, dtype)
        compare(
            micro.triangular_density,
            twins.triangular_density,
            *(panels, count, mean, factor, work, d, log_norm, out),
            scratch=(4,),
        )
        white = np.zeros_like(panels)
        compare(micro.whiten, twins.whiten, panels, count, mean, factor, work, d, white, scratch=(4,))


@dtypes
@dimensions
@pytest.mark.parametrize("k", [1, 3, 9, 16])
def test_diagonal_and_scalar_density(d, k, dtype):
    rng = rng_for(d, k)
    means = layout.pack_components(rng.normal(size=(k, d)) + 3.0, dtype)
    scales = layout.pack_components(rng.uniform(0.5, 2.0, (k, d)), dtype)
    one = rng.uniform(0.5, 2.0, k).astype(dtype)
    log_norm = rng.normal(size=k).astype(dtype)
    for count in panel_counts(dtype):
        panels = random_panels(rng, count, d, dtype)
        out, squares = np.zeros((k, TILE), dtype), np.zeros((k, TILE), dtype)
        compare(pairs.diagonal_density, twins.diagonal_density, panels, count, means, scales, log_norm, d, k, out, TILE)
        compare(
            pairs.scalar_density, twins.scalar_density, panels, count, means, one, log_norm, d, k, out, squares, TILE
        )


def test_the_low_part_of_a_mean_counts_in_float32():
    """A mean that float32 cannot hold: the distance is exact to float32's precision of itself, not of the mean."""
    rng = rng_for(1)
    mean = np.array([1e4 + 1.0 / 3.0])
    x = (mean + rng.normal(scale=1e-3, size=(width(np.float32), 1))).astype(np.float32)
    panels = np.ascontiguousarray(x.T[None])
    out, squares = np.zeros((1, TILE), np.float32), np.zeros((1, TILE), np.float32)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    means = layout.pack_components(mean[None], np.float32)
    compiled(pairs.scalar_density)((panels, 1, means, one, zero, 1, 1, out, squares, TILE))
    np.testing.assert_allclose(squares[0, : len(x)], ((x.astype(float) - mean) ** 2)[:, 0], rtol=1e-5)


# -- moments -----------------------------------------------------------------------------------------------------------

ROW_COUNTS = (0, 1, 2, 7, 8, 9, 23, 191, 192)


@dtypes
@dimensions
def test_rank_update(d, dtype):
    rng = rng_for(d)
    size = np.dtype(dtype).itemsize
    padded = layout.padded_width(d, size)
    for count in ROW_COUNTS:
        z = np.zeros((TILE, padded), dtype)
        z[:, :d] = rng.normal(size=(TILE, d))
        moments = rng.normal(size=layout.moment_length(d, size))
        compare(micro.rank_update, twins.rank_update, z, count, d, padded, moments)


@dtypes
@dimensions
def test_rank_update_is_the_scatter(d, dtype):
    """The whole way from rows to a symmetric matrix, without the twin."""
    rng = rng_for(d)
    size = np.dtype(dtype).itemsize
    padded = layout.padded_width(d, size)
    z = np.zeros((TILE, padded), dtype)
    z[:, :d] = rng.normal(size=(TILE, d))
    packed = np.zeros((1, layout.moment_length(d, size)))
    compiled(micro.rank_update)((z, TILE, d, padded, packed))
    rows = z[:, :d].astype(float)
    got = layout.unpack_moments(packed, d, size)[0]
    np.testing.assert_array_equal(got, got.T)
    np.testing.assert_allclose(got, rows.T @ rows, atol=(1e-13 if dtype == np.float64 else 2e-6) * TILE)


@dtypes
@dimensions
def test_gather_and_diagonal_moments(d, dtype):
    rng = rng_for(d)
    lanes = twins.VECTOR_BYTES // np.dtype(dtype).itemsize
    padded = layout.padded_width(d, np.dtype(dtype).itemsize)
    mean = layout.split(rng.normal(size=d) + 3.0, dtype, padded)
    rows = np.zeros((TILE, padded), dtype)
    rows[:, :d] = rng.normal(size=(TILE, d))
    for count in ROW_COUNTS:
        live = np.zeros(TILE + lanes, np.int32)
        live[:count] = np.sort(rng.choice(TILE, count, replace=False))
        weights = rng.uniform(0.0, 1.0, TILE + lanes).astype(dtype)
        stride = padded + lanes
        z, first, second = np.zeros((TILE, stride), dtype), rng.normal(size=padded), rng.normal(size=padded)
        compare(micro.gather, twins.gather, rows, live, weights, count, padded, mean, z, stride, first)
        compare(micro.diagonal_moments, twins.diagonal_moments, rows, live, weights, count, padded, mean, first, second)


# -- a tile ------------------------------------------------------------------------------------------------------------


@dtypes
@dimensions
def test_copy_and_enter_rows(d, dtype):
    """With and without a centre; only the `count` rows are read."""
    rng = rng_for(d)
    padded = layout.padded_width(d, np.dtype(dtype).itemsize)
    panel = width(dtype)
    centre = layout.split(rng.normal(size=d) + 3.0, dtype, padded)
    for count in (1, 7, panel - 1, panel, panel + 1, TILE - 1, TILE):
        total = -(-count // panel) * panel
        source = rng.normal(size=(count, d)).astype(dtype)
        rows = np.full((TILE, padded), 5.0, dtype)
        compare(tile.copy_rows, tile_twins.copy_rows, source, d, padded, count, total, rows, exact=True)
        panels = np.zeros((TILE // panel, d, panel), dtype)
        for centred in (0, 1):
            given = (source, d, padded, count, total, centred, centre, rows, panels)
            exact = dtype == np.float64 or not centred
            compare(entry.enter_rows, tile_twins.enter_rows, *given, exact=exact)
            compare(entry.enter_panels, tile_twins.enter_panels, *given[:-2], panels, exact=exact)


@dtypes
@dimensions
def test_centre_rows(d, dtype):
    rng = rng_for(d)
    padded = layout.padded_width(d, np.dtype(dtype).itemsize)
    centre = layout.split(rng.normal(size=d) + 3.0, dtype, padded)
    rows = rng.normal(size=(TILE, padded)).astype(dtype)
    compare(tile.centre_rows, tile_twins.centre_rows, rows, centre, padded, 23)


def log_densities(rng, k, dtype):
    """Near, far and hopeless components, and rows without any density."""
    joint = rng.normal(scale=3.0, size=(k, TILE)) - rng.choice([0.0, 5.0, 60.0, 1e4], size=(k, TILE))
    joint[rng.random((k, TILE)) < 0.1] = -np.inf
    joint[rng.random((k, TILE)) < 0.02] = np.nan
    joint[:, 5] = -np.inf
    joint[:, 6] = np.nan
    joint[:, 7] = -1e4  # all equal
    if k > 1:
        joint[0, 6] = -np.inf
    return joint.astype(dtype)


def random_weights(rng):
    weight = rng.uniform(0.1, 3.0, TILE)
    weight[rng.random(TILE) < 0.2] = 0.0
    weight[5] = 1.0
    return weight


@dtypes
@components
def test_weigh_and_normalise(k, dtype):
    """Where a norm is infinite, there are no responsibilities, and the sums stay finite."""
    rng = rng_for(k)
    resp, values = (rng.uniform(size=(k, TILE)).astype(dtype) for _ in range(2))
    scale, sums = rng.uniform(size=TILE).astype(dtype), rng.normal(size=k)
    resp[:, 3], values[:, 3] = 0.0, np.inf  # a square that overflows, of a row that belongs elsewhere
    for count in (width(dtype), TILE):
        compare(tile.weigh, tile_twins.weigh, values, TILE, resp, count, k, TILE, sums)
        compare(tile.weigh, tile_twins.weigh, values[0], 0, resp, count, k, TILE, sums)
        given = (count, k, TILE, sums)
        compare(normalise.normalise, tile_twins.normalise, resp, scale, *given)
        norms, squares = -values[0], rng.normal(size=k)
        compare(normalise.normalise_and_weigh, tile_twins.normalise_and_weigh, resp, scale, norms, *given, squares)


@dtypes
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("name", ["select_live", "select_live_roots"])
def test_select(name, share, dtype):
    rng = rng_for(100 * share)
    lanes = twins.VECTOR_BYTES // np.dtype(dtype).itemsize
    for panels in (1, TILE // width(dtype)):
        resp = np.where(rng.random(TILE) < share, rng.uniform(0.1, 1.0, TILE), 0.0).astype(dtype)
        scale = np.where(rng.random(TILE) < 0.9, rng.uniform(0.1, 1.0, TILE), 0.0).astype(dtype)
        groups = rng.integers(0, 256, 1)  # also panels that are not marked: those are passed over
        live, values = np.zeros(TILE + lanes, np.int32), np.zeros(TILE + lanes, dtype)
        found, weights = np.zeros(1, np.int64), rng.normal(size=1)
        outputs = live, values, found, weights
        compare(getattr(tile, name), getattr(tile_twins, name), resp, scale, panels, groups, *outputs, scratch=(4, 5))
        mine, theirs = [a.copy() for a in outputs], [a.copy() for a in outputs]
        compiled(getattr(tile, name))((resp, scale, panels, groups, *mine))
        getattr(tile_twins, name)(resp, scale, panels, groups, *theirs)
        n = int(found.item() if found.item() else theirs[2][0])
        np.testing.assert_array_equal(mine[0][:n], theirs[0][:n])  # beyond the n-th is scratch
        np.testing.assert_allclose(mine[1][:n], theirs[1][:n], rtol=1e-6)


@dtypes
@components
@pytest.mark.parametrize("name", ["write_probabilities", "write_probabilities_roots"])
def test_write_probabilities(name, k, dtype):
    rng = rng_for(k)
    resp, scale = rng.uniform(size=(k, TILE)).astype(dtype), rng.uniform(size=TILE).astype(dtype)
    for count in (1, 23, TILE):
        compare(getattr(tile, name), getattr(tile_twins, name), resp, scale, count, k, TILE, np.zeros((TILE, k)))


# -- one to four features ----------------------------------------------------------------------------------------------


@functools.cache
def small_kernels(d):
    return small.make_deinterleave(d), small.make_density(d), small.make_moments(d)


@dtypes
@pytest.mark.parametrize("d", range(1, small.LARGEST + 1))
def test_small(d, dtype):
    rng = rng_for(d)
    deinterleave, density, moments = small_kernels(d)
    for count in (width(dtype), TILE):
        rows = rng.normal(size=(TILE, d)).astype(dtype)
        columns = np.zeros((d, TILE), dtype)
        compare(deinterleave, twins.make_deinterleave(d), rows, count, columns, exact=True)
        columns[:] = rows.T
        mean = layout.split(rng.normal(size=d) + 3.0, dtype, d)
        factor = layout.pack_small(random_triangles(rng, 1, d), dtype)
        means, factors = (np.concatenate([one.ravel()] * 3) for one in (mean, factor))
        factors[: factor.size] *= 2.0
        log_norm, out = np.array([0.25, 0.5, -1.0], dtype), np.zeros((3, TILE), dtype)
        tops, ahead = np.zeros(TILE, dtype), np.zeros(TILE)
        compare(density, twins.make_density(d), columns, count, means, factors, log_norm, 3, out, tops, ahead, rows)
        resp, scale = (rng.uniform(size=TILE).astype(dtype) for _ in range(2))
        resp[rng.random(TILE) < 0.3] = 0.0
        resp[16:32] = 0.0  # whole vectors without responsibility are skipped
        sums = rng.normal(size=1), rng.normal(size=d), rng.normal(size=d * (d + 1) // 2)
        compare(moments, twins.make_moments(d), columns, resp, scale, count, mean, *sums)


# -- layouts -----------------------------------------------------------------------------------------------------------


@dtypes
@dimensions
def test_packed_triangles_come_back(d, dtype):
    lower = random_triangles(rng_for(d), 3, d).astype(dtype).astype(float)
    packed = layout.pack_triangles(lower, dtype)
    for c in range(3):
        np.testing.assert_array_equal(twins.unpack_triangle(packed[c], d), lower[c])
    if d <= small.LARGEST:
        full = lower + np.tril(lower, -1).transpose(0, 2, 1)
        np.testing.assert_array_equal(layout.unpack_small(layout.pack_small(lower, np.float64), d), full)


@dtypes
@dimensions
@components
def test_packed_components_come_back(k, d, dtype):
    values = rng_for(k, d).normal(size=(k, d)) + 100.0
    packed = layout.pack_components(values, dtype)
    assert packed.dtype == dtype
    np.testing.assert_allclose(twins.unpack_components(packed, k, d, low=True), values, rtol=1e-14)
    high = twins.unpack_components(packed, k, d, low=False)
    np.testing.assert_array_equal(high, values.astype(dtype))


@dtypes
@dimensions
def test_unpacked_moments(d, dtype):
    size = np.dtype(dtype).itemsize
    padded = layout.padded_width(d, size)
    square = np.zeros((d, padded))
    a = rng_for(d).normal(size=(d, d))
    square[:, :d] = a + a.T
    packed = np.zeros((2, layout.moment_length(d, size)))
    for row in packed:
        twins.add_lower(row, square, size)
    got = layout.unpack_moments(packed, d, size)
    np.testing.assert_array_equal(got, np.array([square[:, :d]] * 2))


@dtypes
def test_split(dtype):
    values = rng_for(5).normal(size=(2, 3)) + 1e4
    got = layout.split(values, dtype, 16)
    assert got.shape == (2, 2, 16)
    assert got.dtype == dtype
    assert not got[..., 3:].any()
    np.testing.assert_allclose(got[:, 0, :3].astype(float) + got[:, 1, :3], values, rtol=1e-14)
    assert layout.padded_width(3, got.itemsize) == 64 // got.itemsize
