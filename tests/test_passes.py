"""Data passes against the oracle: all factor kinds, edges of tiles and blocks, weights, both precisions, hard cases."""

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.covariance import FAMILIES
from fastgmm.data import ArrayRows, as_rows
from fastgmm.density import Density
from fastgmm.errors import InvalidParameterError, NonFiniteDataError
from fastgmm.kernels import programs
from fastgmm.kernels.runner import block_rows
from fastgmm.params import Params
from tests import reference, strategies
from tests.doubles import as_reference

DIMENSIONS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64)
COMPONENTS = (1, 2, 3, 5, 8, 9, 17)
COUNTS = (1, 23, 24, 191, 192, 193)  # panels have 24 rows in float64, tiles 192
TYPES = tuple(FAMILIES)

types = pytest.mark.parametrize("kind", TYPES)
dimensions = pytest.mark.parametrize("d", DIMENSIONS)
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def rng_for(*key):
    return np.random.default_rng([23, *key])


def make_params(kind, k, d, seed=0, scale=1.0, offset=0.0):
    rng = rng_for(seed, k, d)
    c = strategies.random_covariances(rng, kind, k, d)
    means = rng.normal(scale=2.0, size=(k, d))
    return Params(rng.dirichlet(np.full(k, 3.0)), scale * means + offset, scale**2 * c, kind)


def make_rows(params, n, seed=0, dtype=np.float64):
    """Rows that every component has a share in."""
    rng = rng_for(seed, n)
    k, d = params.means.shape
    sd = np.sqrt(reference.dense(as_reference(params))[:, range(d), range(d)].mean(axis=1))
    z = rng.integers(0, k, n)
    return (params.means[z] + sd[z, None] * rng.normal(size=(n, d))).astype(dtype)


def block_of(params, dtype=np.float64):
    """Rows of a block of the grid, as the pass will lay it."""
    program, _ = passes._build(covariance.density(params), np.dtype(dtype))
    return block_rows(program.n_components, program.slot_length)


def run(x, params, weight=None, **options):
    family = covariance.family(params.covariance_type)
    return passes.accumulate(as_rows(x, weight), covariance.density(params), family.scatter, **options)


def expected(x, params, weight=None, scatter=None):
    """Log-likelihood, log_map, weight, mean and scatter by the oracle, and its E-step."""
    e = reference.e_step(x, as_reference(params), weight)
    r = e.responsibilities if weight is None else e.responsibilities * weight[:, None]
    total = r.sum(axis=0)
    x = np.asarray(x, dtype=float)
    mean = (r.T @ (x - params.means[0])) / np.maximum(total, 1e-300)[:, None] + params.means[0]
    scatter = covariance.family(params.covariance_type).scatter if scatter is None else scatter
    return e, total, mean, reference.reduced_scatter(x, r, mean, scatter)


def check(stats, x, params, weight=None, rtol=1e-10, scatter=None):
    e, total, mean, second = expected(x, params, weight, scatter)
    w = np.ones(len(x)) if weight is None else weight
    magnitude = float(w @ np.abs(e.log_density)) + 1e-300
    assert abs(stats.log_likelihood - e.log_likelihood) <= rtol * magnitude
    assert abs(stats.log_map - e.log_map) <= rtol * magnitude
    np.testing.assert_allclose(stats.total_weight, w.sum(), rtol=1e-12)
    np.testing.assert_allclose(stats.weight, total, rtol=rtol, atol=rtol * w.sum())
    spread = np.abs(x - x.mean(axis=0)).max(initial=1e-300) + np.abs(params.means - x.mean(axis=0)).max()
    error = stats.weight[:, None] * np.abs(stats.mean - mean)
    assert error.max() <= 10 * rtol * w.sum() * spread
    np.testing.assert_allclose(stats.scatter, second, rtol=rtol, atol=10 * rtol * w.sum() * spread**2)
    assert np.isfinite(stats.mean).all()


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


# -- numbers that lose digits ------------------------------------------------------------------------------------------


@types
@pytest.mark.parametrize("d", [1, 3, 8])
def test_translation_by_1e8(kind, d):
    """The data and the means move together. The rows are rounded to a grid first, so that the translation is exact."""
    params = make_params(kind, 3, d)
    grid = 2.0**-20
    means = np.round(params.means / grid) * grid
    x = np.round(make_rows(params, 400) / grid) * grid
    shift = 2.0**27  # 1.3e8
    here = Params(params.weights, means, params.covariances, kind)
    there = Params(params.weights, means + shift, params.covariances, kind)
    a = passes.score_samples(as_rows(x), covariance.density(here))
    b = passes.score_samples(as_rows(x + shift), covariance.density(there))
    assert np.abs(a - b).max() < 1e-6
    s, t = run(x, here), run(x + shift, there)
    np.testing.assert_allclose(t.mean - shift, s.mean, atol=1e-6)
    np.testing.assert_allclose(t.scatter, s.scatter, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(t.weight, s.weight, rtol=1e-6)


@types
def test_float32_far_from_the_origin(kind):
    """What float32 data can say about their own neighbourhood is not lost: the means have a low part."""
    params = make_params(kind, 3, 3, offset=1000.1)
    x = make_rows(params, 2000, dtype=np.float32)
    check(run(x, params), x.astype(float), params, rtol=1e-4)


@types
@dtypes
def test_narrow_components_far_apart(kind, dtype):
    """Totals about one centre would cancel; the scatter within and the means must not suffer."""
    k, d, sd = 3, 3, 1.0
    rng = rng_for(7)
    for separation in (1e3, 1e6, 1e9) if dtype == np.float64 else (1e2, 1e4, 1e6):
        means = separation * np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        c = {"full": np.array([np.eye(d)] * k), "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": np.ones(k)}
        x = (np.repeat(means, 300, axis=0) + sd * rng.normal(size=(900, d))).astype(dtype)
        means[0] += 0.3  # not the rows' own means
        params = Params(np.full(k, 1 / 3), means, c[kind], kind)
        stats = run(x, params)
        rows = x.astype(float).reshape(k, 300, d)
        own = rows.mean(axis=1)
        deviation = rows - own[:, None]
        r = np.repeat(np.eye(k), 300, axis=0)
        scatter = covariance.family(kind).scatter
        second = {
            "full": np.einsum("kni,knj->kij", deviation, deviation),
            "pooled": np.einsum("kni,knj->ij", deviation, deviation),
            "diag": (deviation**2).sum(axis=1),
            "trace": (deviation**2).sum(axis=(1, 2)),
        }[scatter]
        np.testing.assert_allclose(stats.weight, r.sum(axis=0))
        # float64: to the root of eps in units of a standard deviation; float32: that of its own
        loose = dtype == np.float32
        np.testing.assert_allclose(stats.mean, own, rtol=4 * float(np.finfo(dtype).eps), atol=3e-4 if loose else 1e-7)
        np.testing.assert_allclose(stats.mean[0], own[0], atol=3e-4 if loose else 1e-7)
        np.testing.assert_allclose(stats.scatter, second, atol=900 * (3e-4 if loose else 1e-10))


@types
@pytest.mark.parametrize("d", [2, 8])
def test_dropped_responsibilities_do_not_matter(kind, d):
    """Responsibilities below e^-40 of the weight are dropped; the next ones are kept."""
    unit = np.zeros(d)
    unit[0] = 1.0
    eye = np.eye(d)
    c = {"full": np.array([eye, eye]), "tied": eye, "diag": np.ones((2, d)), "spherical": np.ones(2)}[kind]
    weights = np.array([0.5, 0.5])
    for distance in (8.0, 8.8, 9.1, 15.0, 40.0):  # e^-32, e^-38.7, e^-41.4, ...
        params = Params(weights, np.array([0.0 * unit, distance * unit]), c, kind)
        x = np.zeros((100, d))
        stats = run(x, params)
        minor = 100 * np.exp(-0.5 * distance**2)
        assert abs(stats.weight[1] - minor) <= 1e-8 * minor + 100 * np.exp(-40.0)
        assert (stats.weight[1] == 0.0) == (0.5 * distance**2 > 40.0)
        assert np.isfinite(stats.mean).all()
        log_density = reference.e_step(x, as_reference(params)).log_density
        np.testing.assert_allclose(passes.score_samples(as_rows(x), covariance.density(params)), log_density)
        proba = passes.predict_proba(as_rows(x), covariance.density(params))  # nothing is dropped here
        if distance < 37.0:
            np.testing.assert_allclose(proba[:, 1], minor / 100, rtol=1e-9)


@types
def test_a_component_of_weight_zero(kind):
    params = make_params(kind, 3, 5)
    w = np.array([0.5, 0.0, 0.5])
    params = Params(w, params.means, params.covariances, kind)
    x = make_rows(params, 300)
    x[:50] = params.means[1]  # where it would be most probable
    with np.errstate(divide="ignore"):
        check(run(x, params), x, params)
    density = covariance.density(params)
    assert not passes.predict_proba(as_rows(x), density)[:, 1].any()
    assert 1 not in passes.predict(as_rows(x), density)


@types
@pytest.mark.parametrize("scale", [1e-150, 1e-40, 1e40, 1e150])
def test_huge_and_tiny_scales(kind, scale):
    """Everything scales: weights stay, means are proportional, log-densities shift by D log(scale)."""
    for d in (2, 8):
        one = make_params(kind, 3, d)
        scale = 2.0 ** round(np.log2(scale))
        other = Params(one.weights, one.means * scale, one.covariances * scale**2, kind)
        x = make_rows(one, 300)
        a, b = run(x, one), run(x * scale, other)
        np.testing.assert_allclose(b.weight, a.weight, rtol=1e-9)
        np.testing.assert_allclose(b.mean / scale, a.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(b.scatter / scale / scale, a.scatter, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(b.log_likelihood + len(x) * d * np.log(scale), a.log_likelihood, rtol=1e-10)
        np.testing.assert_array_equal(
            passes.predict(as_rows(x * scale), covariance.density(other)),
            passes.predict(as_rows(x), covariance.density(one)),
        )


# -- rows that are not numbers, and rows out of this world -------------------------------------------------------------

METHODS = {
    "accumulate": lambda rows, params: passes.accumulate(
        rows, covariance.density(params), covariance.family(params.covariance_type).scatter
    ),
    "evaluate": lambda rows, params: passes.accumulate(
        rows, covariance.density(params), covariance.family(params.covariance_type).scatter, moments=False
    ),
    "score_samples": lambda rows, params: passes.score_samples(rows, covariance.density(params)),
    "predict": lambda rows, params: passes.predict(rows, covariance.density(params)),
    "predict_proba": lambda rows, params: passes.predict_proba(rows, covariance.density(params)),
    "assign": lambda rows, params: passes.assign(rows, params.means),
}


@types
@dtypes
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", [1, 3, 6, 17])
def test_rows_that_are_not_finite_are_named(kind, d, method, dtype):
    params = make_params(kind, 3, d)
    block = block_of(params, dtype)
    for bad, n, row in ((np.nan, 1, 0), (np.inf, 400, 399), (-np.inf, 400, 193), (np.nan, block + 30, block)):
        x = make_rows(params, n, dtype=dtype)
        column = (row + d - 1) % d
        x[row, column] = bad
        if row + 1 < n:
            x[row + 1 :, d - 1] = np.nan  # the first one is named
        with pytest.raises(NonFiniteDataError, match=rf"row {row}, column {column}\b") as caught:
            METHODS[method](as_rows(x), params)
        assert (caught.value.row, caught.value.column) == (row, column)
        assert ("NaN" if np.isnan(bad) else "infinity") in str(caught.value)


@types
@pytest.mark.parametrize("d", [1, 2, 3, 6, 17])
def test_far_out_rows_are_never_nan(kind, d):
    params = make_params(kind, 3, d)
    density = covariance.density(params)
    x = make_rows(params, 200)
    x[3] = 1e200
    x[100] = -1e200
    x[150, 0] = 1e300
    x[199] = np.finfo(float).max
    rows = as_rows(x)
    labels, proba = passes.predict(rows, density), passes.predict_proba(rows, density)
    assert ((labels >= 0) & (labels < 3)).all()
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(labels, proba.argmax(axis=1))
    scores = passes.score_samples(rows, density)
    far = [3, 100, 150, 199]
    assert (scores[far] == -np.inf).all()
    assert np.isfinite(np.delete(scores, far)).all()
    # the widest component along that direction wins: the same row scaled down is still far out, and computable
    shrunk = np.where(np.abs(x[far]) > 1e100, x[far] / np.abs(x[far]).max(axis=1)[:, None] * 1e100, 0.0)
    np.testing.assert_array_equal(labels[far], passes.predict(as_rows(shrunk), density))


@types
def test_far_out_rows_in_float32(kind):
    params = make_params(kind, 3, 3)
    density = covariance.density(params)
    x = make_rows(params, 100, dtype=np.float32)
    x[7] = 1e30
    proba = passes.predict_proba(as_rows(x), density)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-5)
    assert passes.predict(as_rows(x), density).min() >= 0
    assert passes.score_samples(as_rows(x), density)[7] < -1e30


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
