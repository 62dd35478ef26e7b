"""One to four features, and responsibilities that are scaled: the same bits for CPUs with other registers."""

import numpy as np
import pytest

from fastgmm.kernels import layout, near_small, normalise, small
from tests.test_kernels import TILE, dtypes, random_triangles, rng_for
from tests.test_registers import assert_same_bits, others


@dtypes
@others
@pytest.mark.parametrize("d", [1, 2, 4])
def test_densities_and_moments(d, registers, dtype):
    """Components in blocks of every size, and some without a row of a panel."""
    k = 7
    rng, n, lanes = rng_for(d, 41), near_small.n_moments(d), 64 // np.dtype(dtype).itemsize
    columns = (3.0 + rng.normal(size=(d, TILE))).astype(dtype)
    factors = layout.pack_small(random_triangles(rng, k, d), dtype)
    log_norm, ahead = rng.normal(size=k).astype(dtype), np.zeros(TILE)
    out, tops = np.zeros((k, TILE), dtype), np.zeros(TILE, dtype)
    centre, means = layout.split(rng.normal(size=d), dtype, lanes), layout.split(rng.normal(size=(k, d)), dtype, d)
    shifts = rng.normal(size=(k, d)).astype(dtype)
    tail = (factors, log_norm, k, out, tops, ahead, columns)
    assert_same_bits(near_small.make_near_density(d), registers, columns, TILE, centre, shifts, *tail)
    assert_same_bits(small.make_density(d), registers, columns, TILE, means, *tail)
    resp, scale = rng.uniform(size=(k, TILE)).astype(dtype), rng.uniform(size=TILE).astype(dtype)
    resp[0, TILE // 3 :] = 0.0
    shared = rng.normal(size=(n, TILE)).astype(dtype)
    assert_same_bits(near_small.make_products(d), registers, columns, scale, TILE, centre, np.zeros_like(shared))
    sums = rng.normal(size=(k, n, near_small.WIDTH))
    assert_same_bits(near_small.make_lane_sums(d), registers, resp, shared, TILE, k, sums)
    slot = rng.normal(size=1), rng.normal(size=d), rng.normal(size=d * (d + 1) // 2)
    for row in resp[:2]:
        assert_same_bits(small.make_moments(d), registers, columns, row, scale, TILE, means[0], *slot)


@dtypes
@others
def test_responsibilities(registers, dtype):
    k = 11
    rng = rng_for(k, 42)
    resp, norms = rng.uniform(size=(k, TILE)).astype(dtype), rng.normal(size=TILE).astype(dtype)
    scale, weights, sums = rng.uniform(size=TILE).astype(dtype), rng.normal(size=k), rng.normal(size=k)
    assert_same_bits(normalise.normalise, registers, resp, scale, TILE, k, TILE, weights)
    assert_same_bits(normalise.normalise_and_weigh, registers, resp, scale, norms, TILE, k, TILE, weights, sums)
