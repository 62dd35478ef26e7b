"""Data passes against the oracle: all factor kinds, edges of tiles and blocks, weights, both precisions, k-means."""

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.data import ArrayRows, as_rows
from fastgmm.density import Density
from fastgmm.errors import InvalidParameterError
from fastgmm.kernels import programs
from fastgmm.params import Params
from tests import reference
from tests.doubles import as_reference
from tests.passhelp import (
    COMPONENTS,
    COUNTS,
    TYPES,
    block_of,
    check,
    dimensions,
    dtypes,
    make_params,
    make_rows,
    rng_for,
    run,
    types,
)

# -- against the oracle ------------------------------------------------------------------------------------------------


@types
@dimensions
def test_statistics(kind, d):
    for i, k in enumerate(COMPONENTS):
        params = make_params(kind, k, d)
        for n in (COUNTS[i % len(COUNTS)], COUNTS[(i + 3) % len(COUNTS)]):
            x = make_rows(params, n)
            check(run(x, params), x, params)


@types
@dimensions
def test_rows_one_by_one(kind, d):
    for i, k in enumerate(COMPONENTS):
        params = make_params(kind, k, d)
        density = covariance.density(params)
        n = COUNTS[(i + 1) % len(COUNTS)]
        x = make_rows(params, n)
        joint = reference.log_joint(x, as_reference(params))
        e = reference.e_step(x, as_reference(params))
        np.testing.assert_allclose(passes.score_samples(as_rows(x), density), e.log_density, rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(passes.predict(as_rows(x), density), joint.argmax(axis=1))
        proba = passes.predict_proba(as_rows(x), density)
        np.testing.assert_allclose(proba, e.responsibilities, rtol=1e-9, atol=1e-13)
        assert proba.flags.c_contiguous


@types
@pytest.mark.parametrize(("k", "d"), [(3, 2), (3, 8), (2, 17)])
def test_edges_of_blocks(kind, k, d):
    params = make_params(kind, k, d)
    block = block_of(params)
    for n in (block - 1, block, block + 1, 3 * block + 5):
        x = make_rows(params, n)
        check(run(x, params), x, params)
        e = reference.e_step(x, as_reference(params))
        density = covariance.density(params)
        np.testing.assert_allclose(passes.score_samples(as_rows(x), density), e.log_density, rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(passes.predict(as_rows(x), density), e.responsibilities.argmax(axis=1))


@types
@pytest.mark.parametrize("d", [1, 3, 8, 33])
def test_float32(kind, d):
    for k, n in ((1, 192), (3, 700), (9, 193)):
        params = make_params(kind, k, d)
        x = make_rows(params, n, dtype=np.float32)
        check(run(x, params), x.astype(float), params, rtol=2e-5)
        density = covariance.density(params)
        e = reference.e_step(x, as_reference(params))
        np.testing.assert_allclose(passes.score_samples(as_rows(x), density), e.log_density, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(passes.predict_proba(as_rows(x), density), e.responsibilities, atol=2e-4)


@types
@pytest.mark.parametrize("d", [2, 8, 17])
@pytest.mark.parametrize("where", ["random", "first", "last", "ends", "all but one"])
def test_weights(kind, d, where):
    params = make_params(kind, 3, d)
    n = 500
    x = make_rows(params, n)
    w = rng_for(d).uniform(0.1, 3.0, n)
    zero = {
        "random": [],
        "first": range(200),
        "last": range(300, n),
        "ends": [*range(9), n - 1],
        "all but one": range(n - 1),
    }
    w[list(zero[where])] = 0.0
    check(run(x, params, w), x, params, w)
    # a source may hand rows of weight zero to a pass
    family = covariance.family(kind)
    raw = passes.accumulate(ArrayRows(x, w, total_weight=w.sum()), covariance.density(params), family.scatter)
    check(raw, x, params, w)


@pytest.mark.parametrize(
    ("kind", "d"), [("tied", 9), ("diag", 9), ("spherical", 9), ("full", 9), ("full", 15), ("full", 60)]
)
@dtypes
@pytest.mark.parametrize("k", [1, 3, 4, 7, 9])
@pytest.mark.parametrize("distance", [0.1, 0.95])
def test_near_and_far_components_take_two_ways_to_the_same_sums(kind, d, dtype, k, distance, monkeypatch):
    """The ways for near components, with overlap and at the largest distance at which they are used, and plain ones.

    Overlapping full components take their moments by products (9 and 15 features, four components and more), by Gram
    matrices (60 features) or from gathered rows.
    """
    size = np.dtype(dtype).itemsize
    limit = programs.NEAR[size]
    rng = rng_for(k)
    means = rng.normal(size=(k, d))
    apart = np.linalg.norm(means - means.mean(axis=0), axis=1).max()
    means *= distance * limit / max(apart, 1e-30) if k > 1 else 1.0
    family = covariance.family(kind)
    shape = {"full": np.tile(np.eye(d), (k, 1, 1)), "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": np.ones(k)}
    params = Params(np.full(k, 1.0 / k), means + 1e3, shape[kind], kind)
    x = make_rows(params, 500, dtype=dtype)
    density = covariance.density(params)
    program, _ = passes._build(density, np.dtype(dtype))
    assert program.body.__name__.startswith(("near_", "matrix_"))
    near = passes.accumulate(as_rows(x), density, family.scatter)
    log_density = passes.score_samples(as_rows(x), density)
    monkeypatch.setattr(programs, "NEAR", {4: 0.0, 8: 0.0})
    if k > 1:
        program, _ = passes._build(density, np.dtype(dtype))
        assert not program.body.__name__.startswith(("near_", "matrix_"))
    far = passes.accumulate(as_rows(x), density, family.scatter)
    digits = 50.0 * limit**2 * np.finfo(dtype).eps  # what expanding the squares may cost
    np.testing.assert_allclose(log_density, passes.score_samples(as_rows(x), density), rtol=digits)
    np.testing.assert_allclose(near.log_likelihood, far.log_likelihood, rtol=digits)
    np.testing.assert_allclose(near.weight, far.weight, rtol=digits)
    np.testing.assert_allclose(near.mean, far.mean, atol=limit * digits)
    np.testing.assert_allclose(near.scatter, far.scatter, rtol=digits, atol=500.0 * digits)


@pytest.mark.parametrize("d", [2, 4, 5, 17])
def test_full_factors_with_pooled_scatter(d):
    params = make_params("full", 3, d)
    x = make_rows(params, 400)
    stats = passes.accumulate(as_rows(x), covariance.density(params), "pooled")
    check(stats, x, params, scatter="pooled")


@types
@dtypes
def test_evaluation_equals_the_fit(kind, dtype):
    """moments=False: the same sums to the last bit, and no moments."""
    for d in (2, 9):
        params = make_params(kind, 3, d)
        x = make_rows(params, 3000, dtype=dtype)
        w = rng_for(1).uniform(0.0, 2.0, len(x))
        for weight in (None, w):
            fit, evaluated = run(x, params, weight), run(x, params, weight, moments=False)
            assert evaluated.log_likelihood == fit.log_likelihood
            assert evaluated.log_map == fit.log_map
            assert evaluated.total_weight == fit.total_weight
            assert evaluated.n_rows == fit.n_rows
            assert not evaluated.weight.any()
            assert not evaluated.scatter.any()
            assert evaluated.scatter.shape == fit.scatter.shape


def test_read_only_rows_stay_as_they_are():
    params = make_params("full", 3, 5)
    x = make_rows(params, 300)
    before = x.copy()
    x.setflags(write=False)
    for kind in TYPES:
        p = make_params(kind, 3, 5)
        run(x, p)
        passes.predict_proba(as_rows(x), covariance.density(p))
        passes.assign(as_rows(x), p.means)
    np.testing.assert_array_equal(x, before)


def test_unknown_pairs_are_refused_by_name():
    params = make_params("diag", 2, 2)
    with pytest.raises(InvalidParameterError, match="diag"):
        passes.accumulate(as_rows(np.ones((3, 2))), covariance.density(params), "full")
    nonsense = Density("chol2", params.means, params.covariances, np.zeros(2), np.zeros(2))
    with pytest.raises(InvalidParameterError, match="shared_chol"):
        passes.score_samples(as_rows(np.ones((3, 2))), nonsense)


# -- k-means -----------------------------------------------------------------------------------------------------------


@dtypes
@dimensions
def test_assign_is_a_step_of_k_means(d, dtype):
    for i, k in enumerate(COMPONENTS):
        n = (191, 24, 500, 193)[i % 4]
        rng = rng_for(k, d)
        centers = rng.normal(size=(k, d))
        x = rng.normal(size=(n, d)).astype(dtype)
        w = None if i % 2 else rng.uniform(0.1, 2.0, n)
        squares = ((x[:, None].astype(float) - centers) ** 2).sum(axis=2)
        labels = squares.argmin(axis=1)
        r = np.eye(k)[labels] * (1.0 if w is None else w[:, None])
        counts, means, inertia = passes.assign(as_rows(x, w), centers)
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(counts, r.sum(axis=0), rtol=1e-12 if w is None else tolerance)
        sums = r.T @ x.astype(float)
        wanted = np.where(counts[:, None] > 0.0, sums / np.maximum(counts, 1e-300)[:, None], centers)
        np.testing.assert_allclose(means, wanted, atol=20 * tolerance)
        np.testing.assert_allclose(inertia, (r * squares).sum(), rtol=20 * tolerance)


def test_assign_gives_a_row_to_the_first_of_equal_centers():
    x = np.array([[0.0, 0.0], [1.0, 0.0]])
    counts, means, inertia = passes.assign(as_rows(x), np.array([[0.5, 0.0], [0.5, 0.0]]))
    np.testing.assert_array_equal(counts, [2.0, 0.0])
    np.testing.assert_allclose(means, [[0.5, 0.0], [0.5, 0.0]])
    assert inertia == 0.5


def test_assign_far_apart_has_a_finite_inertia():
    """Squared distances to the other centers overflow; they count for nothing."""
    x = np.array([[0.0], [1.0], [1e170], [1e170]])
    counts, _, inertia = passes.assign(as_rows(x), np.array([[0.0], [1e170]]))
    np.testing.assert_array_equal(counts, [2.0, 2.0])
    assert inertia == 1.0


@types
def test_clusters_further_apart_than_squares_reach(kind):
    params = make_params(kind, 2, 2)
    far = 2.0**540
    params = Params(params.weights, np.array([[0.0, 0.0], [far, 0.0]]), params.covariances, kind)
    x = rng_for(3).normal(size=(100, 2))
    x[50:] = [far, 0.0]
    stats = run(x, params)
    np.testing.assert_array_equal(stats.weight, [50.0, 50.0])
    np.testing.assert_allclose(stats.mean[0], x[:50].mean(axis=0), rtol=1e-9)
    check_scatter = {"full": lambda s: s[0], "tied": lambda s: s, "diag": lambda s: s[0], "spherical": lambda s: s[0]}
    u = x[:50] - x[:50].mean(axis=0)
    wanted = {
        "full": lambda: u.T @ u,
        "tied": lambda: u.T @ u,
        "diag": lambda: (u * u).sum(axis=0),
        "spherical": lambda: (u * u).sum(),
    }
    np.testing.assert_allclose(check_scatter[kind](stats.scatter), wanted[kind](), rtol=1e-9)
