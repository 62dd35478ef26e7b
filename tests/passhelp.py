"""Parameters, rows and what the oracle says of them, for tests of data passes."""

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.covariance import FAMILIES
from fastgmm.data import as_rows
from fastgmm.kernels.schedule import block_rows
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
