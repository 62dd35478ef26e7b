"""One to four features: micro-kernels about a common centre against their twins, passes near and far."""

import functools

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.clusters import partition
from fastgmm.data import as_rows
from fastgmm.errors import InvalidDataError, NonFiniteDataError
from fastgmm.kernels import layout, near_small, programs, small, small_twins, softmax, softmax_twins
from fastgmm.params import Params
from tests import reference
from tests.doubles import as_reference
from tests.passhelp import check, make_params, make_rows, run
from tests.test_kernels import (
    TILE,
    compare,
    compiled,
    components,
    dtypes,
    log_densities,
    random_triangles,
    rng_for,
    width,
)

dimensions = pytest.mark.parametrize("d", range(1, small.LARGEST + 1))


@functools.cache
def kernels(d):
    makers = "make_near_density", "make_products", "make_lane_sums", "make_fold_lanes"
    return [(getattr(near_small, name)(d), getattr(small_twins, name)(d)) for name in makers]


# -- micro-kernels -----------------------------------------------------------------------------------------------------


@dtypes
@dimensions
def test_density_and_products_about_a_centre(d, dtype):
    rng = rng_for(d, 31)
    density, products, _, _ = kernels(d)
    centre = layout.split(rng.normal(size=d) + 3.0, dtype, 64 // np.dtype(dtype).itemsize)
    for count in (width(dtype), TILE):
        columns = (3.0 + rng.normal(size=(d, TILE))).astype(dtype)
        factors = layout.pack_small(random_triangles(rng, 3, d), dtype)
        shifts, log_norm = rng.normal(size=(3, d)).astype(dtype), rng.normal(size=3).astype(dtype)
        out, tops, ahead = np.zeros((3, TILE), dtype), np.zeros(TILE, dtype), np.zeros(TILE)
        compare(*density, columns, count, centre, shifts, factors, log_norm, 3, out, tops, ahead, columns)
        scale, shared = rng.uniform(size=TILE).astype(dtype), np.zeros((near_small.n_moments(d), TILE), dtype)
        compare(*products, columns, scale, count, centre, shared)


@dtypes
@dimensions
@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 9])
def test_lane_sums(d, dtype, k):
    rng = rng_for(d, k, 32)
    _, _, lane_sums, fold_lanes = kernels(d)
    n = near_small.n_moments(d)
    sums = rng.normal(size=(k, n, near_small.WIDTH))
    for count in (width(dtype), TILE):
        resp, shared = rng.uniform(size=(k, TILE)).astype(dtype), rng.normal(size=(n, TILE)).astype(dtype)
        compare(*lane_sums, resp, shared, count, k, sums)
    slot = rng.normal(size=k), rng.normal(size=(k, 8)), rng.normal(size=(k, d * (d + 1) // 2))
    compare(*fold_lanes, sums, k, slot[0], slot[1], 8, slot[2])


@dtypes
@components
def test_softmax_of_every_panel(k, dtype):
    """Kernels that pass over nothing give the bits of those that do, and rows of weight 1 their scales."""
    rng = rng_for(k, 33)
    cut = np.full(k, -40.0, dtype) + np.log(rng.dirichlet(np.ones(k))).astype(dtype)
    joint = log_densities(rng, k, dtype)
    joint[: k // 2] -= 500.0  # whole panels
    for count in (width(dtype), TILE):
        tops = np.zeros(TILE, dtype)
        softmax_twins.row_tops(joint, count, k, TILE, tops)
        compare(
            softmax.all_exponentials,
            softmax_twins.all_exponentials,
            joint,
            tops,
            cut,
            count,
            k,
            TILE,
            np.zeros(TILE, dtype),
        )
        compare(
            softmax.live_components, softmax_twins.live_components, joint, tops, cut, k, TILE, np.zeros(1, np.int64)
        )
        results = []
        for exponentials, sums in (
            (softmax.exponentials, softmax.sum_exponentials),
            (softmax.all_exponentials, softmax.sum_all_exponentials),
        ):
            resp, totals, others = joint.copy(), np.zeros(TILE, dtype), np.zeros(TILE, dtype)
            compiled(exponentials)((resp, tops, cut, count, k, TILE, totals))
            compiled(sums)((joint, tops, count, k, TILE, 54, others))
            results.append((resp, totals, others))
        for mine, other in zip(*results, strict=True):
            np.testing.assert_array_equal(mine, other)
        scale, sums = results[0][1], rng.normal(size=4)
        for weight in (1.0, 0.3, 0.0):
            given = np.full(count, weight)
            compare(softmax.equal_row_scales, softmax_twins.equal_row_scales, tops, given, scale, count, sums)


# -- passes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def choosing(monkeypatch):
    """Passes over few rows, too, look at whether components are near."""
    monkeypatch.setattr(programs, "FEW_PAIRS", 0)


def is_near(params, dtype):
    program, _ = passes._build(covariance.density(params), np.dtype(dtype))
    return program.centre is not None


@pytest.mark.usefixtures("choosing")
@dtypes
@dimensions
@pytest.mark.parametrize("far", [False, True])
def test_statistics_near_and_far(d, dtype, far, monkeypatch):
    rtol = 1e-10 if dtype == np.float64 else 2e-5
    if far:
        monkeypatch.setattr(programs, "NEAR", {4: 0.0, 8: 0.0})
    for k, n in ((1, 192), (3, 700), (8, 193), (9, 24)):
        params = make_params("full", k, d)
        if k > 1 and not far:
            # within the limit of both precisions
            apart = np.linalg.norm(params.means - params.means.mean(axis=0), axis=1).max()
            sd = np.sqrt(np.linalg.eigvalsh(params.covariances).min())
            params = Params(params.weights, params.means * min(1.0, 2.0 * sd / apart), params.covariances, "full")
        assert is_near(params, dtype) == (not far or k == 1)
        x = make_rows(params, n, dtype=dtype)
        check(run(x, params), x.astype(float), params, rtol=rtol)
        w = rng_for(d, 34).uniform(0.1, 3.0, n)
        w[:20] = 0.0
        check(run(x, params, w), x.astype(float), params, w, rtol=rtol)


@pytest.mark.parametrize("place", [0, 1, TILE - 1, TILE, 2 * TILE - 1])
def test_one_row_that_weighs_more(place):
    """Tiles whose rows weigh the same have a way of their own; one row, wherever it lies, rules it out."""
    params = make_params("full", 3, 2)
    x = make_rows(params, 2 * TILE)
    w = np.ones(2 * TILE)
    w[place] = 50.0
    check(run(x, params, w), x, params, w)


@pytest.mark.usefixtures("choosing")
@dtypes
@dimensions
def test_an_offset_costs_no_digits_about_a_centre(d, dtype):
    """Rows and means moved by a power of two that the rows' precision holds exactly: the same bits."""
    params = Params(np.full(3, 1.0 / 3.0), np.arange(3.0)[:, None] * np.ones(d), np.tile(np.eye(d), (3, 1, 1)), "full")
    assert is_near(params, dtype)
    x = (np.round(make_rows(params, 500) * 64.0) / 64.0).astype(dtype)
    offset = 2.0**16 if dtype == np.float32 else 2.0**40
    moved = Params(params.weights, params.means + offset, params.covariances, "full")
    one, other = run(x, params), run(x + dtype(offset), moved)
    assert one.log_likelihood == other.log_likelihood
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(one.scatter, other.scatter)


def test_fits_of_few_rows_do_not_look(monkeypatch):
    """The plain way, which saves what a look takes; rows by themselves are served the same way in any company."""
    params = make_params("full", 3, 2)
    assert is_near(params, np.float64)
    x = make_rows(params, 400)
    density = covariance.density(params)
    few = passes.accumulate(as_rows(x), density, "full")
    alone = passes.score_samples(as_rows(x[:7]), density)
    np.testing.assert_array_equal(passes.score_samples(as_rows(x), density)[:7], alone)
    monkeypatch.setattr(programs, "QUICK", {})
    many = passes.accumulate(as_rows(x), density, "full")
    np.testing.assert_allclose(few.scatter, many.scatter, rtol=1e-12)
    assert (few.scatter != many.scatter).any()


@dtypes
def test_clusters_far_narrower_than_their_distance_keep_their_shape(dtype):
    """A partition knows no widths, so it takes moments about each centre."""
    rng = rng_for(35)
    centers = np.array([[-1.0, 0.0], [1.0, 0.5]])
    label = np.arange(400) % 2
    width = 1e-5 if dtype == np.float64 else 1e-2
    x = (centers[label] + width * rng.normal(size=(400, 2))).astype(dtype)
    stats = partition(as_rows(x), centers)
    for c in range(2):
        own = x[label == c].astype(float)
        scatter = (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
        np.testing.assert_allclose(stats.scatter[c], scatter, rtol=1e-4, atol=1e-4 * np.trace(scatter))


@pytest.mark.usefixtures("choosing")
@dtypes
def test_rows_without_a_density_are_counted_about_a_centre(dtype):
    params = make_params("full", 4, 2)
    x = make_rows(params, 500, dtype=dtype)
    proba = passes.predict_proba(as_rows(x), covariance.density(params))
    e = reference.e_step(x.astype(float), as_reference(params))
    np.testing.assert_allclose(proba, e.responsibilities, rtol=0.0, atol=1e-12 if dtype == np.float64 else 2e-4)
    x[3, 1], x[100, 0], x[401, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(NonFiniteDataError, match=r"3\b"):
        run(x, params)


@pytest.mark.usefixtures("choosing")
@pytest.mark.parametrize("kind", sorted(covariance.FAMILIES))
def test_rows_too_far_out_for_single_precision_are_refused_with_what_helps(kind):
    """As a fit does with a row that the sample for its start misses; 0 times an infinite square is no moment."""
    params = make_params(kind, 3, 3)
    x = make_rows(params, 500, dtype=np.float32)
    x[7] = 1e30
    with pytest.raises(InvalidDataError, match=r"more than 1e18 standard deviations.* pass X as float64"):
        run(x, params)
    stats = run(x.astype(float), params)
    assert np.isfinite(stats.scatter).all()
    assert np.isfinite(stats.log_likelihood)
    x = x.astype(float)
    x[7] = 1e200
    with pytest.raises(InvalidDataError, match=r"more than 1e150 standard deviations.* divide X by a constant"):
        run(x, params)
