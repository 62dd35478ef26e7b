"""`Mixture` as a probability distribution."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import integrate
from scipy import stats as sps

from fastgmm.errors import InvalidDataError, InvalidParameterError, NonFiniteDataError
from fastgmm.mixture import Mixture
from tests import reference, strategies

types = pytest.mark.parametrize("covariance_type", reference.TYPES)


def make(covariance_type="full", k=3, d=2, seed=0):
    rng = np.random.default_rng(seed)
    covariances = strategies.random_covariances(rng, covariance_type, k, d)
    return Mixture(rng.dirichlet(np.ones(k)), rng.normal(scale=3.0, size=(k, d)), covariances, covariance_type)


def as_reference(m):
    return reference.Parameters(m.weights, m.means, m.covariances, m.covariance_type)


@settings(max_examples=25)
@given(mixture=strategies.mixtures(), seed=strategies.seeds)
def test_densities_and_posteriors_equal_the_oracle(mixture, seed):
    m = Mixture(*mixture)
    rng = np.random.default_rng(seed)
    sd = np.sqrt(np.diagonal(reference.dense(mixture), axis1=1, axis2=2).max())
    x = mixture.means[rng.integers(m.n_components, size=9)] + 2.0 * sd * rng.normal(size=(9, m.n_features))
    e = reference.e_step(x, mixture)
    np.testing.assert_allclose(m.logpdf(x), e.log_density, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(m.pdf(x), np.exp(m.logpdf(x)))
    r = m.responsibilities(x)
    np.testing.assert_allclose(r, e.responsibilities, atol=1e-8)
    np.testing.assert_allclose(r.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(m.predict(x), r.argmax(axis=1))


def test_the_density_integrates_to_one():
    m = make(d=1)
    total, _ = integrate.quad(lambda v: m.pdf([[v]])[0], -40.0, 40.0, limit=200)
    assert total == pytest.approx(1.0, abs=1e-8)


@types
def test_properties(covariance_type):
    m = make(covariance_type)
    assert (m.n_components, m.n_features, m.covariance_type) == (3, 2, covariance_type)
    assert m.n_parameters == reference.n_parameters(covariance_type, 3, 2)
    dense = reference.dense(as_reference(m))
    np.testing.assert_array_equal(m.covariances_dense, dense)
    p = reference.dense(as_reference(m)._replace(covariances=m.precisions))
    np.testing.assert_allclose(p, np.linalg.inv(dense), rtol=1e-10)
    u = reference.dense(as_reference(m)._replace(covariances=m.precisions_cholesky))
    np.testing.assert_allclose(u @ u.transpose(0, 2, 1), p, rtol=1e-10)


@types
def test_samples_have_the_right_moments(covariance_type):
    m = make(covariance_type)
    x, z = m.sample(20_000, random_state=1)
    assert x.shape == (20_000, 2)
    assert z.dtype == np.int64
    frequencies = np.bincount(z, minlength=3) / len(z)
    np.testing.assert_allclose(frequencies, m.weights, atol=5 * 0.5 / np.sqrt(len(z)))
    for k, sigma in enumerate(m.covariances_dense):
        mine = x[z == k]
        error = 6.0 / np.sqrt(len(mine))
        np.testing.assert_allclose(mine.mean(axis=0), m.means[k], atol=error * np.sqrt(np.diag(sigma)).max())
        np.testing.assert_allclose(np.cov(mine.T), sigma, atol=2 * error * np.diag(sigma).max())


def test_samples_come_in_random_order_unless_grouped():
    m = make()
    _, z = m.sample(500, random_state=0)
    assert (np.diff(z) < 0).any()
    # Any part of the sample is a sample: the first half holds about half of every component.
    half = np.bincount(z[:250], minlength=3) / np.bincount(z, minlength=3)
    assert (np.abs(half - 0.5) < 0.25).all()
    _, grouped = m.sample(500, random_state=0, grouped=True)
    assert (np.diff(grouped) >= 0).all()


def test_samples_follow_the_distribution():
    m = make("spherical", k=2, d=1)
    x, _ = m.sample(3000, random_state=2)

    def cdf(v):
        return sum(
            w * sps.norm(mu, np.sqrt(s)).cdf(v)
            for w, mu, s in zip(m.weights, m.means[:, 0], m.covariances, strict=True)
        )

    assert sps.kstest(x[:, 0], cdf).pvalue > 1e-3


def test_samples_are_reproducible_and_sizes_checked():
    m = make()
    for seed in (3, np.random.default_rng(3)):
        np.testing.assert_array_equal(m.sample(5, random_state=seed)[0], m.sample(5, random_state=3)[0])
    x, z = m.sample(0)
    assert x.shape == (0, 2)
    assert z.shape == (0,)
    for wrong in (-1, 2.5, "many"):
        with pytest.raises(InvalidParameterError, match="n_samples"):
            m.sample(wrong)


def test_a_component_of_weight_zero_takes_no_part():
    m = Mixture([1.0, 0.0], [[0.0], [5.0]], [1.0, 1.0], "spherical")
    single = Mixture([1.0], [[0.0]], [1.0], "spherical")
    x = np.array([[0.0], [5.0], [2.5]])
    np.testing.assert_allclose(m.logpdf(x), single.logpdf(x), rtol=1e-12)
    np.testing.assert_array_equal(m.responsibilities(x), [[1.0, 0.0]] * 3)
    assert set(m.sample(100, random_state=0)[1]) == {0}


@types
def test_finite_rows_never_give_nan(covariance_type):
    m = make(covariance_type)
    x = np.array([[1e30, 0.0], [1e200, -1e200], [-1e308, 1e308]])
    r = m.responsibilities(x)
    assert np.isfinite(r).all()
    np.testing.assert_allclose(r.sum(axis=1), 1.0)
    assert not np.isnan(m.logpdf(x)).any()
    assert ((m.predict(x) >= 0) & (m.predict(x) < 3)).all()
    np.testing.assert_array_equal(m.pdf(x), 0.0)


@types
def test_translation_by_1e8_keeps_log_densities(covariance_type):
    m = make(covariance_type)
    x, _ = m.sample(200, random_state=0)
    x = np.round(x * 2.0**20) / 2.0**20
    means = np.round(m.means * 2.0**20) / 2.0**20
    here = Mixture(m.weights, means, m.covariances, covariance_type)
    there = Mixture(m.weights, means + 1e8, m.covariances, covariance_type)
    np.testing.assert_allclose(there.logpdf(x + 1e8), here.logpdf(x), atol=1e-6)


def test_bad_rows_are_refused_by_name():
    m = make()
    with pytest.raises(InvalidDataError, match=r"2 features.*got 3"):
        m.logpdf(np.zeros((4, 3)))
    for bad in (np.nan, np.inf):
        with pytest.raises(NonFiniteDataError):
            m.predict(np.array([[0.0, 0.0], [bad, 0.0]]))


def test_parameters_are_checked_copied_and_frozen():
    means = np.zeros((2, 2))
    m = Mixture([0.5, 0.5], means, [1.0, 1.0], "VII")
    assert m.covariance_type == "spherical"
    means[:] = 7.0
    assert m.means.max() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        m.means[0, 0] = 1.0
    with pytest.raises(AttributeError):
        m.params = None
    with pytest.raises(InvalidParameterError, match="sum to 1"):
        Mixture([0.5, 0.4], means, [1.0, 1.0], "spherical")


def test_pickle_keeps_the_distribution():
    m = make()
    x, _ = m.sample(10, random_state=0)
    expected = m.logpdf(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(m)).logpdf(x), expected)


def test_printed_forms():
    m = make("diag", k=12, d=12)
    text, page = repr(m), m._repr_html_()
    assert text.startswith("Mixture(n_components=12, n_features=12, covariance_type='diag')")
    assert "... and 2 components more" in text
    assert f"{m.weights[0]:.4f}" in text
    assert page.startswith("<table>")
    assert page.count("<tr>") == 11
