"""Data passes over hard numbers: offsets, scales and distances that cost digits, rows not finite or far out."""

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.data import as_rows
from fastgmm.errors import NonFiniteDataError
from fastgmm.params import Params
from tests import reference
from tests.doubles import as_reference
from tests.passhelp import (
    block_of,
    check,
    dtypes,
    make_params,
    make_rows,
    rng_for,
    run,
    types,
)


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
