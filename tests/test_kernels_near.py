"""The micro-kernels for components near one another against their plain twins, and the layout of shared products."""

import numba
import numpy as np
import pytest

from fastgmm.kernels import arguments as a
from fastgmm.kernels import gram, layout, near, near_tiles, near_twins, products, tile, tile_twins, twins, workspace
from fastgmm.kernels.micro import V
from fastgmm.kernels.simd import micro, micro_apart
from tests.test_kernels import (
    TILE,
    compare,
    compiled,
    dimensions,
    dtypes,
    panel_counts,
    random_panels,
    random_triangles,
    rng_for,
)


@dtypes
@dimensions
@pytest.mark.parametrize("k", [1, 3, 9, 16])
def test_densities_of_near_components(d, k, dtype):
    rng = rng_for(d, k)
    means, shifts, scales = (layout.pack_components(v, dtype) for v in rng.normal(size=(3, k, d)))
    one, log_norm = rng.uniform(0.5, 2.0, k).astype(dtype), rng.normal(size=k).astype(dtype)
    for count in panel_counts(dtype):
        panels = random_panels(rng, count, d, dtype)
        out, norms, tops = np.zeros((k, TILE), dtype), np.zeros(TILE, dtype), np.full(TILE, 1e9, dtype)
        given = (panels, count, shifts, scales, log_norm, d, k, out, TILE, tops, panels)
        compare(near.affine_density, near_twins.affine_density, *given)
        compare(near.square_norms, near_twins.square_norms, panels, count, d, norms)
        near_twins.square_norms(panels, count, d, norms)
        compare(
            near.product_density,
            near_twins.product_density,
            *(panels, count, means, one, log_norm, norms, d, k, out, TILE, tops, panels),
        )


@dtypes
@pytest.mark.parametrize("k", [1, 9])
def test_the_largest_density_of_rows_without_any(k, dtype):
    """No number, and a density of 0, leave the other rows of the panel as they were."""
    rng = rng_for(k)
    means, scales = (layout.pack_components(v, dtype) for v in rng.normal(size=(2, k, 2)))
    ones, width = np.ones(k, dtype), V * twins.VECTOR_BYTES // np.dtype(dtype).itemsize
    panels = random_panels(rng, 1, 2, dtype)
    panels[0, 0, [3, 5]] = np.nan, np.inf
    norms = -0.5 * (panels[0] ** 2).sum(axis=0)
    out, tops = np.zeros((k, TILE), dtype), np.zeros(TILE, dtype)
    compiled(near.affine_density)((panels, 1, means, scales, ones, 2, k, out, TILE, tops, panels))
    np.testing.assert_array_equal(tops[:width], np.fmax.reduce(out[:, :width], axis=0, initial=-np.inf))
    np.testing.assert_array_equal(tops[[3, 5]], -np.inf)
    compiled(near.product_density)((panels, 1, means, ones, ones, norms, 2, k, out, TILE, tops, panels))
    assert tops[3] == -np.inf
    assert np.isfinite(np.delete(tops[:width], [3, 5])).all()


@dtypes
@dimensions
def test_square_rows(d, dtype):
    padded = layout.padded_width(d, np.dtype(dtype).itemsize)
    rows = rng_for(d).normal(size=(TILE, padded)).astype(dtype)
    compare(near.square_rows, near_twins.square_rows, rows, padded, 23, np.zeros_like(rows))


@dtypes
@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 6, 9, 11])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 9, 16, 22])
def test_weighted_sums(k, vectors, dtype):
    """Every way to cut components and columns into pieces."""
    rng = rng_for(vectors, k)
    padded = vectors * twins.VECTOR_BYTES // np.dtype(dtype).itemsize
    rows, resp = rng.normal(size=(TILE, padded)).astype(dtype), rng.uniform(size=(k, TILE)).astype(dtype)
    for count in (1, 23, TILE):
        out = rng.normal(size=(k, padded))
        compare(near.weighted_sums, near_twins.weighted_sums, resp, rows, count, k, TILE, padded, out)


@dtypes
@dimensions
def test_shifted_density(d, dtype):
    rng = rng_for(d)
    factor = layout.pack_triangles(random_triangles(rng, 1, d), dtype)
    shift, log_norm = rng.normal(size=d).astype(dtype), np.array([0.25], dtype)
    for count in panel_counts(dtype):
        panels = random_panels(rng, count, d, dtype)
        given = panels, count, shift, factor, d, log_norm, np.zeros(TILE, dtype)
        for before in (0, 1):
            tops = rng.normal(-0.5 * d, 0.5 * d, size=TILE).astype(dtype)
            if not before:  # then they hold whatever a scratch array held
                tops[:4] = np.nan, np.inf, -np.inf, 3.0
            else:
                tops[1::5] = -np.inf
            compare(near.shifted_density, near_twins.shifted_density, *given, tops, before, panels, 5)


def some_rows(rng, d, dtype):
    lanes = twins.VECTOR_BYTES // np.dtype(dtype).itemsize
    padded = layout.padded_width(d, np.dtype(dtype).itemsize)
    rows = np.zeros((TILE, padded), dtype)
    rows[:, :d] = rng.normal(size=(TILE, d))
    return rows, padded, lanes


def extended(rows, roots, d, count, length):
    """Rows as the kernels for products read them."""
    out = np.zeros((count, length), rows.dtype)
    near_twins.extend_rows(rows, roots, count, d, rows.shape[1], out, length)
    return out


@dtypes
@dimensions
def test_extend_rows(d, dtype):
    rng = rng_for(d)
    rows, padded, lanes = some_rows(rng, d, dtype)
    roots = rng.uniform(size=TILE).astype(dtype)
    length = products.extended_length(d, lanes)
    reach = lanes + d + d // 2 + (0 if d % lanes == 0 else lanes - 1)
    for count in (4, 24):
        out, mine = extended(rows, roots, d, count, length), np.full((count + 1, length), 7.0, dtype)
        compiled(products.extend_rows)((rows, roots, count, d, padded, mine, length))
        np.testing.assert_array_equal(mine[:count, :reach], out[:, :reach])
        np.testing.assert_array_equal(mine[count], 7.0)
        np.testing.assert_array_equal(out[:, lanes : lanes + d], roots[:count, None] * rows[:count, :d])


@pytest.mark.parametrize("lanes", [8, 16])
def test_extended_rows_fit_where_they_are_kept(lanes):
    """Even for every number of features there is, also beyond what the passes take."""
    for d in range(1, 200):
        padded = -(-d // lanes) * lanes
        room = workspace.PRODUCT_ROWS[64 // lanes] * products.extended_length(d, lanes)
        assert room <= TILE * (padded + 2 * lanes) + padded


@dtypes
@pytest.mark.parametrize("k", [1, 2, 5, 8, 17])
def test_component_weights(k, dtype):
    rng = rng_for(k)
    resp, scale = rng.uniform(size=(k, TILE)).astype(dtype), rng.uniform(size=TILE).astype(dtype)
    for count in (48, TILE):
        given = (resp, scale, count, k, TILE, rng.normal(size=k))
        compare(products.component_weights, near_twins.component_weights, *given)


@dtypes
@dimensions
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 17])
def test_product_moments(d, k, dtype):
    rng = rng_for(d, k)
    rows, _, lanes = some_rows(rng, d, dtype)
    count, extent = layout.product_count(d, lanes), products.extended_length(d, lanes)
    vectors = layout.product_vectors(d, lanes)
    u = extended(rows, rng.uniform(size=TILE).astype(dtype), d, TILE, extent)
    resp = rng.uniform(size=(k, TILE)).astype(dtype)
    for n_rows in (24, 96):
        buffer = np.zeros((n_rows, 3 * lanes), dtype)
        out = rng.normal(size=(k, count * lanes + 8))
        given = (resp, u, vectors, count, n_rows, k, TILE, extent, buffer, out, out.shape[1])
        compare(products.product_moments, near_twins.product_moments, *given, scratch=(8,))


@dtypes
@dimensions
def test_shared_products_are_the_moments(d, dtype):
    """The whole way from rows to first and second moments, without the twin."""
    rng = rng_for(d, 1)
    rows, padded, lanes = some_rows(rng, d, dtype)
    vectors, count, extent = (
        layout.product_vectors(d, lanes),
        layout.product_count(d, lanes),
        products.extended_length(d, lanes),
    )
    resp, scale = rng.uniform(size=(9, TILE)).astype(dtype), rng.uniform(size=TILE).astype(dtype)
    weights, out, roots = np.zeros(9), np.zeros((9, count * lanes)), scale.copy()
    compiled(products.component_weights)((resp, roots, TILE, 9, TILE, weights))
    for first in range(0, TILE, 48):
        u = np.zeros((48, extent), dtype)
        compiled(products.extend_rows)((rows[first:], roots[first:], 48, d, padded, u, extent))
        given = (resp[:, first:], u, vectors, count, 48, 9, TILE, extent)
        compiled(products.product_moments)((*given, np.zeros((48, 3 * lanes), dtype), out, out.shape[1]))
    first, second = layout.unpack_products(out, d, lanes)
    u, r = rows[:, :d].astype(float), resp.astype(float) * scale
    bound = (1e-13 if dtype == np.float64 else 2e-6) * TILE
    np.testing.assert_allclose(weights, r.sum(axis=1), atol=bound)
    np.testing.assert_allclose(first, r @ u, atol=bound)
    np.testing.assert_allclose(second, np.einsum("kt,ti,tj->kij", r, u, u), atol=bound)
    np.testing.assert_array_equal(second, second.transpose(0, 2, 1))


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("d", [*range(1, 40), 64, 65])
def test_every_product_has_one_place(d, lanes):
    """Each pair i >= j, and each feature, is in one lane exactly, and where it is unpacked from; no vector is idle."""
    count, numbers = layout.product_count(d, lanes), layout.product_vectors(d, lanes).tolist()
    starts, pieces = numbers[: count + 1], np.reshape(numbers[count + 1 :], (-1, 4))
    row = [-1] * lanes + [i % d for i in range(d + d // 2 + lanes)]  # the feature at each place of an extended row
    places = []
    for v in range(count):
        pairs = [None] * lanes
        for column, left, right, lane in pieces[starts[v] : starts[v + 1]].tolist():
            assert column == v % V
            for i in range(lane, lanes):
                pairs[i] = tuple(sorted((row[left + i], row[right + i])))
        places += pairs
    length, begin = d * (d + 1) // 2, layout.features_begin(d, lanes)
    assert len(set(places[:length])) == length
    assert sorted(places[begin : begin + d]) == [(-1, j) for j in range(d)]
    assert len(places) - length - d < lanes
    assert len(pieces) == count or d % lanes != 0
    first, second = layout.unpack_products(np.arange(len(places))[None], d, lanes)
    for i in range(d):
        assert places[first[0, i]] == (-1, i)
        assert all(places[second[0, i, j]] == (j, i) for j in range(i + 1))


@dtypes
@dimensions
def test_gram(d, dtype):
    rng = rng_for(d)
    rows, padded, lanes = some_rows(rng, d, dtype)
    step = (TILE + 1) * lanes
    size = np.dtype(dtype).itemsize
    resp = np.where(rng.random(TILE) < 0.8, rng.uniform(size=TILE), 0.0).astype(dtype)
    for count in (4, 24, TILE):
        panels = np.zeros(padded // lanes * step, dtype)
        compare(gram.column_panels, near_twins.column_panels, rows, count, padded, step, panels, exact=True)
        live = rng.integers(0, TILE, count).astype(np.int32)
        compare(gram.picked_panels, near_twins.picked_panels, rows, live, count, padded, step, panels, exact=True)
        near_twins.column_panels(rows, count, padded, step, panels)
        sums, moments = rng.normal(size=padded), rng.normal(size=layout.moment_length(d, size))
        work = np.zeros(V * TILE * lanes, dtype)
        lower = {7: np.unique(layout._moment_places(d, size))}
        given = resp, panels, count, d, step, work, sums, moments
        compare(gram.gram, near_twins.gram, *given, scratch=(5,), only=lower)


@dtypes
@dimensions
def test_gram_is_the_weighted_scatter(d, dtype):
    """The whole way from rows to a symmetric matrix, without the twin."""
    rng = rng_for(d, 2)
    rows, padded, lanes = some_rows(rng, d, dtype)
    step, size = (TILE + 1) * lanes, np.dtype(dtype).itemsize
    panels, work = np.zeros(padded // lanes * step, dtype), np.zeros(V * TILE * lanes, dtype)
    resp = rng.uniform(size=TILE).astype(dtype)
    sums, packed = np.zeros(padded), np.zeros((1, layout.moment_length(d, size)))
    compiled(gram.column_panels)((rows, TILE, padded, step, panels))
    compiled(gram.gram)((resp, panels, TILE, d, step, work, sums, packed))
    u, r = rows[:, :d].astype(float), resp.astype(float)
    bound = (1e-13 if dtype == np.float64 else 2e-6) * TILE
    np.testing.assert_allclose(sums[:d], r @ u, atol=bound)
    np.testing.assert_allclose(layout.unpack_moments(packed, d, size)[0], (u * r[:, None]).T @ u, atol=bound)


@pytest.mark.parametrize(("size", "panel"), [(8, 24), (4, 48)])
def test_tiles_of_near_components_are_parts_that_a_cache_has_room_for(size, panel):
    """The largest part that does not exceed its limit, in whole panels; a whole tile where none is small enough."""
    table, found = a.table(), set()
    table[a.SIZE] = size
    for padded in (8, 64, 256):
        for k in (1, 5, 40, 100, 300, 1000):
            table[a.PADDED], table[a.N_COMPONENTS] = padded, k
            rows = near_tiles.near_rows(table)
            fit = [
                part
                for part, limit in zip((TILE, TILE // 2, TILE // 4), near_tiles.NEAR_BYTES, strict=True)
                if part * (padded + k) * size <= limit
            ]
            assert rows == (fit[0] if fit else TILE)
            assert rows % panel == 0
            found.add(rows)
    assert found == {TILE, TILE // 2, TILE // 4}


@dtypes
def test_prefetching_changes_nothing(dtype):
    rows = rng_for(3).normal(size=100).astype(dtype)
    for begin, end in ((0, 100), (7, 8), (50, 50), (60, 50), (0, 10_000)):  # also beyond the end: it is a hint
        compare(tile.prefetch, tile_twins.prefetch, rows, begin, end, exact=True)


@dtypes
def test_a_kernel_is_the_same_within_its_caller_and_apart_from_it(dtype):
    """Twice in one caller, with and without its own function."""

    def double_and_root(e, values, count):
        with e.loop(0, count, e.lanes) as i:
            x = e.load(values, i)
            e.store(e.sqrt(e.plus(x, x)), values, i)

    within, apart = micro(double_and_root), micro_apart(double_and_root)

    @numba.njit
    def both(first, second, third, count):
        within(first, count)
        apart(second, count)
        apart(third, count)

    rows = rng_for(5).uniform(size=(3, 32)).astype(dtype)
    expected = np.sqrt(2 * rows)
    both(*rows, 32)
    np.testing.assert_array_equal(rows, expected)
